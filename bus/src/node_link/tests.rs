use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::CHUNK;

use super::*;
use crate::memory::{MemoryBus, Party, START_WALL_MS};
use crate::sim_clock::{Gate, SimClock};
use crate::store::{Guard, Op, StoreRef, Txn, Write};

fn link(bus: &MemoryBus, party: &Party) -> NodeLink {
    let node: NodeName = "n1".parse().expect("a name");
    NodeLink::new(bus.agent(party, &node), node, party.clock.clone())
}

fn world() -> (MemoryBus, StoreRef, NodeLink) {
    let bus = MemoryBus::new(SimClock::new(Gate::new(), Timestamp(START_WALL_MS)));
    let (store, _) = bus.cp(&Party::new("c1"));
    let link = link(&bus, &Party::new("n1"));
    (bus, store, link)
}

async fn create(store: &StoreRef, key: Key, body: Bytes) {
    let id = ostler_schemas::TxnId::from_bytes([1; 16]);
    let write = Write { key, op: Op::Put(body), guard: Guard::Own(Expect::Absent), headers: Headers::new() };
    store.commit(&Txn { id, writes: vec![write] }).await.expect("commits");
}

#[tokio::test(start_paused = true)]
async fn what_is_read_by_hash_has_the_hash() {
    let (_bus, store, link) = world();
    let body = Bytes::from_static(b"a template");
    let (good, bad) = (sha256(&body), sha256(b"another"));
    create(&store, Key::Template(good), body.clone()).await;
    create(&store, Key::Template(bad), body.clone()).await;
    assert_eq!(link.get_template(good).await, Ok(body));
    assert_eq!(link.get_template(bad).await, Err(FetchError::WrongHash { hash: bad }));
    let absent = sha256(b"absent");
    assert_eq!(link.get_template(absent).await, Err(FetchError::Missing { hash: absent }));
}

#[tokio::test(start_paused = true)]
async fn a_blob_is_put_together_from_its_chunks() {
    let (_bus, store, link) = world();
    let whole = Bytes::from(vec![7; 600_000]);
    let hash = sha256(&whole);
    let content = ContentRef { sha256: hash, size: 600_000 };
    create(&store, Key::BlobChunk(hash, 0), whole.slice(..CHUNK)).await;
    assert_eq!(link.get_blob(&content).await, Err(FetchError::Missing { hash }));
    create(&store, Key::BlobChunk(hash, 1), whole.slice(CHUNK..)).await;
    assert_eq!(link.get_blob(&content).await, Ok(whole));
    let empty = ContentRef { sha256: sha256(b""), size: 0 };
    assert_eq!(link.get_blob(&empty).await, Ok(Bytes::new()));
}

#[tokio::test(start_paused = true)]
async fn reports_are_guarded_and_their_silence_is_unknown() {
    let (bus, _store, link) = world();
    let put = |expect| link.put_report(Bytes::from_static(b"r"), Headers::new(), expect);
    assert_eq!(put(Expect::Absent).await, Ok(Revision(1)));
    assert_eq!(put(Expect::Absent).await, Err(CommitError::Conflict));
    bus.faults().lose_replies("n1", 1);
    assert!(matches!(put(Expect::Revision(Revision(1))).await, Err(CommitError::Unknown { .. })));
    assert_eq!(put(Expect::Revision(Revision(2))).await, Ok(Revision(3)));
    bus.faults().disk_full(ostler_schemas::Bucket::Observed, true);
    let full = put(Expect::Revision(Revision(3))).await;
    assert!(matches!(full, Err(CommitError::Refused { retryable: true, .. })), "{full:?}");
    bus.faults().lose_stream(ostler_schemas::Bucket::Observed);
    let gone = put(Expect::Revision(Revision(3))).await;
    assert!(matches!(gone, Err(CommitError::Refused { retryable: true, .. })), "{gone:?}");
}

#[test]
fn acknowledgements_are_told_apart_by_code() {
    for (json, expected) in [
        (r#"{"stream":"S","seq":4}"#, Ok(Revision(4))),
        (
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 4"}}"#,
            Err(CommitError::Conflict),
        ),
        (
            r#"{"error":{"code":400,"err_code":10164,"description":"wrong last sequence"}}"#,
            Err(CommitError::Conflict),
        ),
    ] {
        assert_eq!(outcome(json.as_bytes()), expected);
    }
    for unknown in ["", "{}", "[]", r#"{"seq":4,"duplicate":true}"#] {
        assert!(matches!(outcome(unknown.as_bytes()), Err(CommitError::Unknown { .. })), "{unknown}");
    }
    let busy = outcome(br#"{"error":{"code":503,"err_code":10008}}"#);
    assert!(matches!(busy, Err(CommitError::Refused { retryable: true, .. })), "{busy:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_answers_ends_with_the_callers_patience() {
    let (bus, _store, link) = world();
    let none = link.api_collect((Verb::Get, None), Headers::new(), Bytes::new(), 1_000).await;
    assert!(matches!(none, Err(RequestError::NoResponders { .. })), "{none:?}");
    bus.faults().lose_requests("n1", 1);
    let silent = link.api_collect((Verb::Get, None), Headers::new(), Bytes::new(), 1_000).await;
    assert!(matches!(silent, Err(RequestError::Timeout { .. })), "{silent:?}");
}
