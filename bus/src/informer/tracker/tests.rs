use bytes::Bytes;
use ostler_schemas::Uid;

use super::*;
use crate::store::{BatchMark, Headers, Op};

fn key(n: u8) -> Key {
    Key::ProcessGoal(Uid::from_bytes([n; 16]))
}

fn entry(n: u8, revision: u64) -> Entry {
    Entry {
        key: key(n),
        revision: Revision(revision),
        at: Timestamp(1),
        op: Op::Put(Bytes::new()),
        headers: Headers::new(),
        batch: None,
    }
}

fn of_batch(mut entry: Entry, id: &str, last: bool) -> Entry {
    entry.batch = Some(BatchMark { id: id.to_owned(), last });
    entry
}

fn info(created: u64, last: u64, messages: u64) -> BucketInfo {
    BucketInfo { created: Timestamp(created), last: Revision(last), messages, bytes: 0, bytes_max: 0 }
}

/// Keys and revision of each `Changes`.
fn changes(events: &[InformerEvent]) -> Vec<(Vec<Key>, u64)> {
    let of = |event: &InformerEvent| match event {
        InformerEvent::Changes { entries, revision } => {
            Some((entries.iter().map(|e| e.key.clone()).collect(), revision.0))
        }
        InformerEvent::Reset { .. }
        | InformerEvent::Vanished { .. }
        | InformerEvent::Synced
        | InformerEvent::Lost { .. } => None,
    };
    events.iter().filter_map(of).collect()
}

/// A tracker that has listed keys 1 and 2 at revisions 3 and 5 of 6.
fn listed() -> Tracker {
    let mut t = Tracker::new();
    assert!(t.begin(&info(1, 6, 2)).is_empty());
    assert_eq!(t.from(false), WatchFrom::Everything);
    assert!(t.take(WatchEvent::Entry(entry(1, 3))).is_empty());
    assert!(t.take(WatchEvent::Entry(entry(2, 5))).is_empty());
    let events = t.take(WatchEvent::Synced);
    assert_eq!(changes(&events), [(vec![key(1), key(2)], 0), (vec![], 6)]);
    assert_eq!(events.last(), Some(&InformerEvent::Synced));
    t
}

#[test]
fn a_transaction_is_told_as_one() {
    let mut t = listed();
    assert!(t.take(WatchEvent::Entry(of_batch(entry(3, 7), "a", false))).is_empty());
    assert_eq!(t.last(), Revision(6), "nothing is claimed that was not told");
    let events = t.take(WatchEvent::Entry(of_batch(entry(4, 8), "a", true)));
    assert_eq!(changes(&events), [(vec![key(3), key(4)], 8)]);
    assert_eq!(changes(&t.take(WatchEvent::Entry(entry(1, 9)))), [(vec![key(1)], 9)]);
}

#[test]
fn a_transaction_whose_end_was_overwritten_is_told_with_the_next_message() {
    let mut t = listed();
    assert!(t.take(WatchEvent::Entry(of_batch(entry(3, 7), "a", false))).is_empty());
    let events = t.take(WatchEvent::Entry(of_batch(entry(4, 9), "b", true)));
    assert_eq!(changes(&events), [(vec![key(3)], 7), (vec![key(4)], 9)]);
    assert!(t.take(WatchEvent::Entry(of_batch(entry(3, 10), "c", false))).is_empty());
    assert_eq!(changes(&t.take(WatchEvent::Idle)), [(vec![key(3)], 10)]);
}

#[test]
fn a_watch_resumes_after_what_was_told() {
    let mut t = listed();
    t.take(WatchEvent::Entry(of_batch(entry(3, 7), "a", false)));
    assert!(t.begin(&info(1, 8, 4)).is_empty());
    assert_eq!(t.from(false), WatchFrom::After(Revision(6)));
    t.take(WatchEvent::Entry(of_batch(entry(3, 7), "a", false)));
    t.take(WatchEvent::Entry(of_batch(entry(4, 8), "a", true)));
    assert_eq!(changes(&t.take(WatchEvent::Synced)), [(vec![key(3), key(4)], 8)]);
}

#[test]
fn what_a_relist_does_not_show_has_vanished() {
    let mut t = listed();
    t.begin(&info(1, 9, 2));
    assert_eq!(t.from(true), WatchFrom::Everything);
    assert!(t.take(WatchEvent::Entry(entry(1, 3))).is_empty());
    t.take(WatchEvent::Entry(entry(3, 9)));
    let events = t.take(WatchEvent::Synced);
    assert_eq!(changes(&events), [(vec![key(3)], 6), (vec![], 9)], "what is known is not told again");
    assert!(events.contains(&InformerEvent::Vanished { keys: vec![key(2)] }), "{events:?}");
}

#[test]
fn another_bucket_is_a_reset() {
    for (what, now) in [
        ("created", info(2, 9, 2)),
        ("smaller", info(1, 5, 2)),
        ("empty", info(1, 6, 0)),
        ("emptied from the start", info(1, 0, 0)),
    ] {
        let mut t = listed();
        let events = t.begin(&now);
        assert!(matches!(events.as_slice(), [InformerEvent::Reset { .. }]), "{what}: {events:?}");
        assert_eq!(t.from(false), WatchFrom::Everything, "{what}");
    }
    let mut t = listed();
    assert_eq!(t.gone().len(), 1);
    assert!(t.gone().is_empty(), "told once");
    assert!(Tracker::new().begin(&info(1, 0, 0)).is_empty(), "a new bucket is empty, and nothing was known");
}

#[test]
fn a_check_finds_a_watch_that_stays_behind() {
    let mut t = listed();
    t.asked();
    assert_eq!(t.check(&info(1, 6, 2)), None);
    t.asked();
    assert_eq!(t.check(&info(1, 7, 3)), None, "it may be on its way");
    t.asked();
    assert!(t.check(&info(1, 7, 3)).is_some());
    let mut t = listed();
    t.asked();
    t.take(WatchEvent::Entry(entry(3, 7)));
    assert_eq!(t.check(&info(1, 6, 2)), None, "the answer is older than the event");
    t.asked();
    assert!(t.check(&info(1, 6, 2)).is_some());
}

#[test]
fn long_lists_come_in_chunks() {
    let mut t = Tracker::new();
    t.begin(&info(1, 2_000, 2_000));
    t.from(false);
    let mut told = 0;
    for n in 1..=2_000u64 {
        let mut e = entry(0, n);
        e.key = Key::ProcessGoal(Uid::from_bytes(u128::from(n).to_be_bytes()));
        for (keys, revision) in changes(&t.take(WatchEvent::Entry(e))) {
            assert_eq!((keys.len(), revision), (LIST_CHUNK, 0));
            told += keys.len();
        }
    }
    let rest = changes(&t.take(WatchEvent::Synced));
    assert_eq!(told + rest[0].0.len(), 2_000);
    assert_eq!(t.last(), Revision(2_000));
}
