//! Watches.

use ostler_schemas::{Bucket, Revision};

use super::context::{Context, create, delete, next, next_entry, update};
use super::{Verdict, ensure, ensure_eq, list_cases};
use crate::store::{Op, WatchEvent, WatchFrom};

list_cases![
    everything_in_order_then_live,
    only_the_last_write_of_a_key,
    after_a_revision,
    after_a_revision_that_is_gone,
    beyond_the_last_revision,
    batches_are_marked,
    deletions_are_seen,
    silence_is_a_heartbeat,
];

async fn everything_in_order_then_live(c: &Context) -> Verdict {
    let (a, b) = (c.fresh(), c.fresh());
    c.done(vec![create(&a, "1")]).await?;
    let stored = c.done(vec![create(&b, "1")]).await?.last;
    let mut watch = c.store.watch(Bucket::Objects, WatchFrom::Everything);
    let mut seen = Vec::new();
    loop {
        match next(&mut watch).await? {
            WatchEvent::Entry(entry) => seen.push(entry.revision),
            WatchEvent::Foreign(revision) => seen.push(revision),
            WatchEvent::Synced => break,
            WatchEvent::Idle => {}
        }
    }
    ensure!(seen.is_sorted() && !seen.is_empty(), "not in the order of revisions");
    ensure_eq!(seen.last(), Some(&stored), "the last of the stored ones");
    let live = c.fresh();
    let written = c.done(vec![create(&live, "1")]).await?.last;
    let entry = next_entry(&mut watch).await?;
    ensure_eq!((entry.key, entry.revision), (live, written), "the live write");
    Ok(())
}

async fn only_the_last_write_of_a_key(c: &Context) -> Verdict {
    let key = c.fresh();
    let first = c.done(vec![create(&key, "1")]).await?.last;
    let second = c.done(vec![update(&key, first, "2")]).await?.last;
    let mut watch = c.store.watch(Bucket::Objects, WatchFrom::Everything);
    let mut seen = Vec::new();
    loop {
        match next(&mut watch).await? {
            WatchEvent::Entry(entry) if entry.key == key => seen.push(entry.revision),
            WatchEvent::Entry(_) | WatchEvent::Foreign(_) | WatchEvent::Idle => {}
            WatchEvent::Synced => break,
        }
    }
    ensure_eq!(seen, vec![second], "writes of the key");
    Ok(())
}

async fn after_a_revision(c: &Context) -> Verdict {
    let (a, b) = (c.fresh(), c.fresh());
    let first = c.done(vec![create(&a, "1")]).await?.last;
    let second = c.done(vec![create(&b, "1")]).await?.last;
    let mut watch = c.store.watch(Bucket::Objects, WatchFrom::After(first));
    let entry = next_entry(&mut watch).await?;
    ensure_eq!((entry.key, entry.revision), (b, second), "the first event");
    ensure_eq!(next(&mut watch).await?, WatchEvent::Synced, "the second event");
    Ok(())
}

async fn after_a_revision_that_is_gone(c: &Context) -> Verdict {
    let key = c.fresh();
    let before = c.last_revision(Bucket::Objects).await?;
    let first = c.done(vec![create(&key, "1")]).await?.last;
    let second = c.done(vec![update(&key, first, "2")]).await?.last;
    let mut watch = c.store.watch(Bucket::Objects, WatchFrom::After(before));
    let entry = next_entry(&mut watch).await?;
    ensure_eq!((entry.key, entry.revision), (key, second), "it starts later without a word");
    Ok(())
}

async fn beyond_the_last_revision(c: &Context) -> Verdict {
    let last = c.last_revision(Bucket::Objects).await?;
    let mut watch = c.watch_after(Revision(last.0 + 2)).await?;
    for _ in 0..2 {
        c.done(vec![create(&c.fresh(), "x")]).await?;
    }
    let third = c.done(vec![create(&c.fresh(), "x")]).await?.last;
    let entry = next_entry(&mut watch).await?;
    ensure_eq!(entry.revision, third, "the first write seen");
    Ok(())
}

async fn batches_are_marked(c: &Context) -> Verdict {
    let last = c.last_revision(Bucket::Objects).await?;
    let mut watch = c.watch_after(last).await?;
    c.done((0..3).map(|_| create(&c.fresh(), "x")).collect()).await?;
    c.done(vec![create(&c.fresh(), "x")]).await?;
    let mut ids = Vec::new();
    for i in 0..3 {
        let entry = next_entry(&mut watch).await?;
        let mark = entry.batch.ok_or("a message of a batch has no mark")?;
        ensure_eq!(mark.last, i == 2, "whether it is the last");
        ids.push(mark.id);
    }
    ensure!(ids.windows(2).all(|w| w[0] == w[1]), "one batch has several names: {ids:?}");
    ensure_eq!(next_entry(&mut watch).await?.batch, None, "mark of a single message");
    Ok(())
}

async fn deletions_are_seen(c: &Context) -> Verdict {
    let key = c.fresh();
    let first = c.done(vec![create(&key, "1")]).await?.last;
    let mut watch = c.watch_after(first).await?;
    let gone = c.done(vec![delete(&key, first)]).await?.last;
    let entry = next_entry(&mut watch).await?;
    ensure_eq!((entry.key, entry.revision, entry.op), (key, gone, Op::Delete), "the deletion");
    Ok(())
}

async fn silence_is_a_heartbeat(c: &Context) -> Verdict {
    let last = c.last_revision(Bucket::Objects).await?;
    let mut watch = c.watch_after(last).await?;
    ensure_eq!(next(&mut watch).await?, WatchEvent::Idle, "what comes when nothing is written");
    Ok(())
}
