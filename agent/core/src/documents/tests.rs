use ostler_schemas::Kind;
use ostler_schemas::v1::document::{DocumentOwner, RunEntry};
use proptest::prelude::*;

use super::*;

fn epoch(incarnation: u32, term: u64, nonce: u32) -> Epoch {
    Epoch { incarnation, term: Revision(term), nonce }
}

fn held(epoch: Epoch, revision: u64) -> HeldDocument {
    HeldDocument { epoch, revision: Revision(revision) }
}

fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

fn document(goals: &[(u8, Goal)], bulk: bool) -> RunDocument {
    let owner =
        OwnerReference { kind: Kind::Deployment, name: "web".parse().expect("a name"), uid: uid(200) };
    RunDocument {
        labels: Default::default(),
        ships: Default::default(),
        epoch: epoch(1, 5, 9),
        bulk: bulk.then(|| "delete".to_owned()),
        owners: vec![DocumentOwner { ns: Namespace::default_namespace(), owner }],
        templates: vec![ostler_schemas::hash::sha256(b"t")],
        entries: goals
            .iter()
            .map(|(n, goal)| RunEntry {
                u: uid(*n),
                o: 0,
                s: format!("-{n}"),
                t: 0,
                v: Version(1),
                g: *goal,
                f: Token::default(),
                p: BTreeMap::new(),
            })
            .collect(),
    }
}

#[test]
fn the_first_document_is_taken() {
    assert_eq!(judge(&HeldDocument::default(), epoch(1, 1, 1), Revision(1)), Verdict::Take);
}

#[test]
fn a_lower_epoch_is_refused_whatever_its_revision() {
    let held = held(epoch(2, 10, 7), 100);
    for found in [epoch(1, 99, 7), epoch(2, 9, 7)] {
        assert!(matches!(judge(&held, found, Revision(1000)), Verdict::Refuse(Refused::LowerEpoch { .. })));
    }
}

#[test]
fn an_equal_epoch_of_another_nonce_is_refused() {
    let verdict = judge(&held(epoch(2, 10, 7), 100), epoch(2, 10, 8), Revision(101));
    assert!(matches!(verdict, Verdict::Refuse(Refused::OtherNonce { .. })));
}

#[test]
fn a_restored_store_may_begin_with_lower_revisions() {
    assert_eq!(judge(&held(epoch(1, 10, 7), 100), epoch(2, 3, 1), Revision(5)), Verdict::Take);
}

#[test]
fn a_lagging_replica_is_no_alarm() {
    let held = held(epoch(2, 10, 7), 100);
    assert_eq!(judge(&held, held.epoch, Revision(99)), Verdict::Old);
    assert_eq!(judge(&held, held.epoch, Revision(100)), Verdict::Old);
}

#[test]
fn many_stops_need_a_mark() {
    let none = HeldDocument::default();
    let running: BTreeSet<Uid> = (0..10).map(uid).collect();
    let stops = |n: u8| (0..n).map(|i| (i, Goal::Stop)).collect::<Vec<_>>();
    assert_eq!(judge_run(&none, &document(&stops(3), false), Revision(1), &running), Verdict::Take);
    let refused = Refused::BulkStop { stops: 4, running: 10, allowed: 3 };
    assert_eq!(
        judge_run(&none, &document(&stops(4), false), Revision(1), &running),
        Verdict::Refuse(refused)
    );
    assert_eq!(judge_run(&none, &document(&stops(4), true), Revision(1), &running), Verdict::Take);
}

#[test]
fn tombstones_of_what_does_not_run_are_not_counted() {
    let stops: Vec<(u8, Goal)> = (0..50).map(|i| (i, Goal::Gone)).collect();
    let verdict =
        judge_run(&HeldDocument::default(), &document(&stops, false), Revision(1), &BTreeSet::new());
    assert_eq!(verdict, Verdict::Take);
}

#[test]
fn an_entry_that_points_nowhere_spoils_no_other() {
    let mut doc = document(&[(1, Goal::Run), (2, Goal::Run), (1, Goal::Stop)], false);
    doc.entries[1].t = 9;
    let items = run_items(&doc);
    assert_eq!(items.items.len(), 1);
    assert_eq!(items.items[&uid(1)].goal, Goal::Run);
    assert_eq!(items.problems.len(), 2);
}

proptest! {
    /// Whatever arrives in whatever order, what is held never falls back.
    #[test]
    fn what_is_held_only_rises(seen in proptest::collection::vec((1u32..3, 1u64..4, 0u32..2, 1u64..6), 1..40)) {
        let mut now = HeldDocument::default();
        for (incarnation, term, nonce, revision) in seen {
            let found = epoch(incarnation, term, nonce);
            let before = (now.epoch.rank(), now.revision);
            if judge(&now, found, Revision(revision)) == Verdict::Take {
                prop_assert!((found.rank(), Revision(revision)) > before);
                prop_assert!(found.rank() > before.0 || before.1 == Revision(0) || found.nonce == now.epoch.nonce);
                now = held(found, revision);
            }
        }
    }
}
