//! The adapter against real servers, beyond what the conformance suite asks of every implementation.

mod nats_support;

use bytes::Bytes;
use futures::StreamExt as _;
use nats_support::{PATIENCE, Rig, rig, scale};
use ostler_bus::nats::provision::provision;
use ostler_bus::store::{CommitError, Expect, Guard, Headers, Op, Read, Txn, WatchEvent, WatchFrom, Write};
use ostler_schemas::{Bucket, ControllerName, Key};

fn write(key: Key, guard: Guard, body: &'static [u8]) -> Write {
    Write { key, op: Op::Put(Bytes::from_static(body)), guard, headers: Headers::new() }
}

async fn batches_are_guarded(rig: &Rig) {
    let store = rig.controller.store.clone().expect("a controller has a store");
    let term = Key::Term(ControllerName::Scheduler);
    let fence = Key::Fence(ControllerName::Scheduler);
    let first =
        Txn { id: rig.entropy.txn(), writes: vec![write(term.clone(), Guard::Own(Expect::Absent), b"1")] };
    let term_at = store.commit(&first).await.expect("a first write").last;
    let batch = |expect: Expect, own: Expect| Txn {
        id: rig.entropy.txn(),
        writes: vec![
            write(fence.clone(), Guard::Other(term.clone(), expect), b"f"),
            write(Key::MetaIncarnation, Guard::Own(own), b"m"),
        ],
    };
    let done = store.commit(&batch(Expect::Revision(term_at), Expect::Absent)).await.expect("a batch");
    assert_eq!((done.count, done.revision(1)), (2, done.last));
    let stale = store.commit(&batch(Expect::Absent, Expect::Revision(done.last))).await;
    assert_eq!(stale, Err(CommitError::Conflict));
    let entry = store.get(&Key::MetaIncarnation, Read::Leader).await.expect("read").expect("stored");
    assert_eq!(entry.revision, done.last);
    assert!(entry.batch.is_some_and(|b| b.last));
    let mut watch = store.watch(Bucket::Objects, WatchFrom::Everything);
    let mut seen = Vec::new();
    loop {
        match watch.next().await.expect("a watch goes on").expect("no error") {
            WatchEvent::Entry(entry) => seen.push(entry.key),
            WatchEvent::Synced => break,
            WatchEvent::Foreign(_) | WatchEvent::Idle => {}
        }
    }
    assert_eq!(seen, [term, fence, Key::MetaIncarnation]);
    assert_eq!(watch.next().await, Some(Ok(WatchEvent::Idle)));
}

async fn provisioning_is_idempotent(rig: &Rig, servers: usize) {
    let again = provision(&rig.controller, scale(servers), PATIENCE);
    let again = again.await.expect("still right");
    assert_eq!((again.created, again.repaired), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server() {
    let Some(rig) = rig(1).await else { return };
    println!("{:?}", rig.provisioned);
    provisioning_is_idempotent(&rig, 1).await;
    batches_are_guarded(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers() {
    let Some(rig) = rig(3).await else { return };
    println!("{:?}", rig.provisioned);
    provisioning_is_idempotent(&rig, 3).await;
    batches_are_guarded(&rig).await;
}
