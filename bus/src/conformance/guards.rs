//! Transactions: guards, wholeness, conflicts.

use ostler_schemas::headers as names;
use ostler_schemas::{Bucket, ControllerName, Key, Revision};

use super::context::{Context, create, delete, put, update};
use super::{Verdict, ensure, ensure_eq, list_cases, must};
use crate::store::{CommitError, Expect, Guard, Op, TXN_WRITES_MAX, Write};

list_cases![
    create_and_update,
    deletion_leaves_a_marker,
    purged_markers_leave_no_trace,
    only_markers_are_purged,
    batches_are_whole,
    batches_have_consecutive_revisions,
    guards_on_other_keys,
    guards_look_ahead_not_back,
    one_key_many_guards,
    old_terms_are_refused,
    resends_conflict_and_change_nothing,
    headers_are_kept,
    a_thousand_writes,
    too_many_writes,
    no_batches_where_agents_publish,
];

async fn create_and_update(c: &Context) -> Verdict {
    let key = c.fresh();
    let first = c.done(vec![create(&key, "1")]).await?;
    ensure_eq!(first.count, 1, "writes");
    c.conflicts("created twice", vec![create(&key, "2")]).await?;
    let second = c.done(vec![update(&key, first.last, "2")]).await?;
    ensure!(second.last > first.last, "revisions do not rise");
    c.conflicts("updated an old revision", vec![update(&key, first.last, "3")]).await?;
    let entry = c.get(&key).await?.ok_or("nothing is stored")?;
    ensure_eq!(entry.value().map(|v| v.as_ref()), Some(&b"2"[..]), "value");
    ensure_eq!(entry.revision, second.last, "revision");
    Ok(())
}

async fn deletion_leaves_a_marker(c: &Context) -> Verdict {
    let key = c.fresh();
    let first = c.done(vec![create(&key, "1")]).await?.last;
    let gone = c.done(vec![delete(&key, first)]).await?.last;
    let entry = c.get(&key).await?.ok_or("no marker")?;
    ensure_eq!((entry.op.clone(), entry.revision), (Op::Delete, gone), "marker");
    ensure!(entry.headers.get(names::TXN).is_some(), "the marker has no transaction");
    c.conflicts("created over a marker as if absent", vec![create(&key, "2")]).await?;
    c.done(vec![update(&key, gone, "2")]).await?;
    Ok(())
}

async fn purged_markers_leave_no_trace(c: &Context) -> Verdict {
    let key = c.fresh();
    let first = c.done(vec![create(&key, "1")]).await?.last;
    let gone = c.done(vec![delete(&key, first)]).await?.last;
    must("purge", c.store.purge_marker(&key, gone).await)?;
    ensure_eq!(c.get(&key).await?, None, "what is left");
    c.done(vec![create(&key, "2")]).await?;
    Ok(())
}

async fn only_markers_are_purged(c: &Context) -> Verdict {
    let key = c.fresh();
    let first = c.done(vec![create(&key, "1")]).await?.last;
    // Whether the store says so or not, nothing may happen.
    drop(c.store.purge_marker(&key, Revision(first.0 - 1)).await);
    ensure!(c.get(&key).await?.is_some(), "a value was purged by a wrong revision");
    let gone = c.done(vec![delete(&key, first)]).await?.last;
    let again = c.done(vec![update(&key, gone, "2")]).await?.last;
    drop(c.store.purge_marker(&key, gone).await);
    let entry = c.get(&key).await?.ok_or("a value was purged")?;
    ensure_eq!(entry.revision, again, "revision");
    Ok(())
}

async fn batches_are_whole(c: &Context) -> Verdict {
    let (a, b, d) = (c.fresh(), c.fresh(), c.fresh());
    let stale = c.done(vec![create(&b, "0")]).await?.last;
    c.done(vec![update(&b, stale, "1")]).await?;
    let before = c.last_revision(Bucket::Objects).await?;
    let writes = vec![create(&a, "1"), update(&b, stale, "2"), create(&d, "1")];
    c.conflicts("a stale guard in a batch", writes).await?;
    ensure_eq!((c.get(&a).await?, c.get(&d).await?), (None, None), "a part was stored");
    ensure_eq!(c.last_revision(Bucket::Objects).await?, before, "the last revision");
    Ok(())
}

async fn batches_have_consecutive_revisions(c: &Context) -> Verdict {
    let keys = [c.fresh(), c.fresh(), c.fresh()];
    let txn = c.txn(keys.iter().map(|k| create(k, "1")).collect());
    let committed = must("commit", c.store.commit(&txn).await)?;
    ensure_eq!(committed.count, 3, "writes");
    for (i, key) in keys.iter().enumerate() {
        let entry = c.get(key).await?.ok_or("a part is missing")?;
        ensure_eq!(entry.revision, committed.revision(i), "revision");
        let header = format!("{}/{}/3", txn.id, i + 1);
        ensure_eq!(entry.headers.get(names::TXN), Some(header.as_str()), "transaction header");
        let batch = entry.batch.map(|b| b.last);
        // A read need not tell the batch; if it does it must be right.
        ensure!(batch.is_none_or(|last| last == (i == 2)), "batch mark of write {i}: {batch:?}");
    }
    Ok(())
}

async fn guards_on_other_keys(c: &Context) -> Verdict {
    let (term, a, b) = (c.fresh(), c.fresh(), c.fresh());
    let guard = |expect| Guard::Other(term.clone(), expect);
    c.done(vec![put(&a, guard(Expect::Absent), "1")]).await?;
    let held = c.done(vec![create(&term, "1")]).await?.last;
    c.conflicts("absent, but it is there", vec![put(&b, guard(Expect::Absent), "1")]).await?;
    c.done(vec![put(&b, guard(Expect::Revision(held)), "1")]).await?;
    c.done(vec![update(&term, held, "2")]).await?;
    c.conflicts("an old revision", vec![put(&b, guard(Expect::Revision(held)), "2")]).await?;
    Ok(())
}

async fn guards_look_ahead_not_back(c: &Context) -> Verdict {
    let (term, fence) = (c.fresh(), c.fresh());
    let old = c.done(vec![create(&term, "1")]).await?.last;
    let guarded = put(&fence, Guard::Other(term.clone(), Expect::Revision(old)), "1");
    let taken = c.done(vec![guarded, update(&term, old, "2")]).await?.last;
    let guarded = put(&fence, Guard::Other(term.clone(), Expect::Revision(taken)), "2");
    c.conflicts("a guard on what the batch wrote before", vec![update(&term, taken, "3"), guarded]).await?;
    let entry = c.get(&term).await?.ok_or("the term is gone")?;
    ensure_eq!(entry.revision, taken, "the term's revision");
    Ok(())
}

async fn one_key_many_guards(c: &Context) -> Verdict {
    let (fence, own) = (c.fresh(), c.fresh());
    let guards = [c.fresh(), c.fresh(), c.fresh()];
    let mut last = Vec::new();
    for key in &guards {
        last.push(c.done(vec![create(key, "1")]).await?.last);
    }
    let batch = |third: Revision| -> Vec<Write> {
        let expected = [last[0], last[1], third];
        let fenced = guards.iter().zip(expected);
        let mut writes: Vec<Write> =
            fenced.map(|(k, r)| put(&fence, Guard::Other(k.clone(), Expect::Revision(r)), "f")).collect();
        writes.push(create(&own, "1"));
        writes
    };
    c.conflicts("one of three read guards fails", batch(last[1])).await?;
    ensure_eq!(c.get(&own).await?, None, "what is stored");
    let done = c.done(batch(last[2])).await?;
    ensure_eq!(done.count, 4, "writes");
    let entry = c.get(&fence).await?.ok_or("no fence")?;
    ensure_eq!(entry.revision, done.revision(2), "the fence's revision");
    Ok(())
}

async fn old_terms_are_refused(c: &Context) -> Verdict {
    let controller = ControllerName::Garbage;
    let (term, fence, goal) = (Key::Term(controller), Key::Fence(controller), Key::ProcessGoal(c.uid()));
    let mine = c.done(vec![put(&term, Guard::Own(c.last_of(&term).await?), "mine")]).await?.last;
    let lane = |term_revision| {
        let guard = Guard::Other(term.clone(), Expect::Revision(term_revision));
        vec![put(&fence, guard, "f"), create(&goal, "run")]
    };
    let take = c.txn(vec![update(&term, mine, "theirs")]);
    let theirs = must("takeover", c.rival_store.commit(&take).await)?.last;
    c.conflicts("a batch of an old term", lane(mine)).await?;
    ensure_eq!(c.get(&goal).await?, None, "what the old leader wrote");
    let act = c.txn(lane(theirs));
    must("the new leader's batch", c.rival_store.commit(&act).await)?;
    Ok(())
}

async fn resends_conflict_and_change_nothing(c: &Context) -> Verdict {
    let (a, b) = (c.fresh(), c.fresh());
    let txn = c.txn(vec![create(&a, "1"), create(&b, "1")]);
    let done = must("commit", c.store.commit(&txn).await)?;
    let again = c.store.commit(&txn).await;
    ensure!(matches!(again, Err(CommitError::Conflict)), "the resend: {again:?}");
    let entry = c.get(&b).await?.ok_or("it is gone")?;
    ensure_eq!(entry.revision, done.last, "revision");
    Ok(())
}

async fn headers_are_kept(c: &Context) -> Verdict {
    let key = c.fresh();
    let mut write = create(&key, "1");
    write.headers = write.headers.with(names::REASON, "Scaled").with(names::MESSAGE, "from 1 to 2, a: b");
    let txn = c.txn(vec![write]);
    must("commit", c.store.commit(&txn).await)?;
    let entry = c.get(&key).await?.ok_or("nothing is stored")?;
    ensure_eq!(entry.headers.get(names::REASON), Some("Scaled"), "reason");
    ensure_eq!(entry.headers.get(names::MESSAGE), Some("from 1 to 2, a: b"), "message");
    let header = format!("{}/1/1", txn.id);
    ensure_eq!(entry.headers.get(names::TXN), Some(header.as_str()), "transaction header");
    Ok(())
}

async fn a_thousand_writes(c: &Context) -> Verdict {
    let writes: Vec<Write> = (0..TXN_WRITES_MAX).map(|_| create(&c.fresh(), "x")).collect();
    let (first, last) = (writes[0].key.clone(), writes[TXN_WRITES_MAX - 1].key.clone());
    let done = c.done(writes).await?;
    ensure_eq!(done.count, TXN_WRITES_MAX, "writes");
    let revision = |entry: Option<crate::store::Entry>| entry.map(|e| e.revision);
    ensure_eq!(revision(c.get(&first).await?), Some(done.revision(0)), "first revision");
    ensure_eq!(revision(c.get(&last).await?), Some(done.last), "last revision");
    Ok(())
}

async fn too_many_writes(c: &Context) -> Verdict {
    let key = c.fresh();
    let mut writes = vec![create(&key, "x")];
    writes.extend((0..TXN_WRITES_MAX).map(|_| create(&c.fresh(), "x")));
    match c.commit(writes).await {
        Err(CommitError::Refused { retryable: false, .. }) => {}
        other => return Err(format!("found {other:?}, expected a refusal for good")),
    }
    ensure_eq!(c.get(&key).await?, None, "what is stored");
    Ok(())
}

async fn no_batches_where_agents_publish(c: &Context) -> Verdict {
    let report = |index| super::context::node(index).map(Key::Report);
    let (a, b) = (report(0)?, report(1)?);
    let writes =
        vec![put(&a, Guard::Own(c.last_of(&a).await?), "x"), put(&b, Guard::Own(c.last_of(&b).await?), "x")];
    match c.commit(writes).await {
        Err(CommitError::Refused { retryable: false, .. }) => Ok(()),
        other => Err(format!("found {other:?}, expected a refusal for good")),
    }
}
