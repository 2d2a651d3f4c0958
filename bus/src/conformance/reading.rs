//! Reads.

use ostler_schemas::Bucket;

use super::context::{Context, create, update};
use super::{Verdict, ensure, ensure_eq, list_cases, must};
use crate::store::Read;

list_cases![absent_keys, buckets_are_apart, info_counts, stale_reads_catch_up, other_connections_see_it];

async fn absent_keys(c: &Context) -> Verdict {
    let key = c.fresh();
    ensure_eq!(c.get(&key).await?, None, "from the leader");
    ensure_eq!(must("get", c.store.get(&key, Read::Any).await)?, None, "from any replica");
    Ok(())
}

async fn buckets_are_apart(c: &Context) -> Verdict {
    let before = c.last_revision(Bucket::Observed).await?;
    c.done(vec![create(&c.fresh(), "1")]).await?;
    ensure_eq!(c.last_revision(Bucket::Observed).await?, before, "the other bucket's last revision");
    Ok(())
}

async fn info_counts(c: &Context) -> Verdict {
    let before = must("info", c.store.info(Bucket::Objects).await)?;
    let key = c.fresh();
    let first = c.done(vec![create(&key, "1")]).await?;
    let second = c.done(vec![update(&key, first.last, "2")]).await?;
    let after = must("info", c.store.info(Bucket::Objects).await)?;
    ensure_eq!(after.last, second.last, "last revision");
    ensure_eq!(after.created, before.created, "creation time");
    ensure_eq!(after.messages, before.messages + 1, "messages, of which only the last per key is kept");
    ensure!(after.bytes > before.bytes, "bytes do not grow");
    ensure!(after.bytes_max > 0, "no byte limit");
    Ok(())
}

async fn stale_reads_catch_up(c: &Context) -> Verdict {
    let key = c.fresh();
    let done = c.done(vec![create(&key, "1")]).await?;
    loop {
        let entry = must("get", c.store.get(&key, Read::Any).await)?;
        if entry.is_some_and(|e| e.revision == done.last && e.key == key) {
            return Ok(());
        }
        c.clock.sleep_ms(10).await;
    }
}

async fn other_connections_see_it(c: &Context) -> Verdict {
    let key = c.fresh();
    let done = c.done(vec![create(&key, "1")]).await?;
    let entry = must("get", c.rival_store.get(&key, Read::Leader).await)?;
    ensure_eq!(entry.map(|e| e.revision), Some(done.last), "revision");
    Ok(())
}
