//! The model under random acts.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Spawn(u8, u64, KillMode, bool, u32),
    End(u8, u64),
    OthersEnd(u8, u64),
    Stop(u8, u64, u64),
    Kill(u8, u64),
    Signal(u8, u64, bool),
    Pass(u64),
    Turn,
    Disk(bool),
    Replace,
    Ack,
}

fn act() -> impl Strategy<Value = Act> {
    let mode = prop_oneof![Just(KillMode::Mixed), Just(KillMode::ControlGroup), Just(KillMode::Process)];
    let id = (0u8..3, 1u64..4);
    prop_oneof![
        4 => (id.clone(), mode, any::<bool>(), 0u32..3).prop_map(|((n, i), m, t, o)| Act::Spawn(n, i, m, t, o)),
        2 => id.clone().prop_map(|(n, i)| Act::End(n, i)),
        1 => id.clone().prop_map(|(n, i)| Act::OthersEnd(n, i)),
        2 => (id.clone(), 0u64..3_000).prop_map(|((n, i), g)| Act::Stop(n, i, g)),
        1 => id.clone().prop_map(|(n, i)| Act::Kill(n, i)),
        1 => (id, any::<bool>()).prop_map(|((n, i), w)| Act::Signal(n, i, w)),
        3 => (0u64..2_000).prop_map(Act::Pass),
        4 => Just(Act::Turn),
        1 => any::<bool>().prop_map(Act::Disk),
        1 => Just(Act::Replace),
        1 => Just(Act::Ack),
    ]
}

impl Host {
    fn act(&mut self, act: &Act) {
        match *act {
            Act::Spawn(n, i, mode, ignores, others) => {
                (self.ignores_term, self.others) = (ignores, others);
                // An acknowledged incarnation is never started again: its owner counts on.
                if !self.seen.contains_key(&key(n, i)) && !self.started.contains(&key(n, i)) {
                    self.forgotten.remove(&key(n, i));
                    self.request(Request::Spawn(spawn(key(n, i), mode)));
                }
            }
            Act::End(n, i) if self.trees.get(&key(n, i)).is_some_and(|tree| tree.runs) => {
                self.ends_itself(key(n, i));
            }
            Act::End(..) => {}
            Act::OthersEnd(n, i) => {
                if let Some(tree) = self.trees.get_mut(&key(n, i)) {
                    tree.others = 0;
                }
            }
            Act::Stop(n, i, grace) => {
                let key = key(n, i);
                let call = self.request(Request::Stop(Stop { key, signal: None, grace_ms: Some(grace) }));
                self.turn();
                let accepted = matches!(self.answers[&call], Reply::Done(_));
                if accepted && self.trees.contains_key(&key) {
                    let by = self.now + grace;
                    let entry = self.kill_by.entry(key).or_insert(by);
                    *entry = by.min(*entry);
                }
            }
            Act::Kill(n, i) => {
                self.request(Request::KillTree(key(n, i)));
            }
            Act::Signal(n, i, whole_tree) => {
                self.request(Request::Signal(Signal { key: key(n, i), signal: 10, whole_tree }));
            }
            Act::Pass(ms) => self.pass(ms),
            Act::Turn => self.turn(),
            Act::Disk(works) => self.disk_works = works,
            Act::Replace => {
                self.turn();
                // A holder that dies while its state could not be written loses what it says it may lose.
                if self.core.unwritten.is_empty() {
                    self.replace_holder();
                }
            }
            Act::Ack => self.ack_all(),
        }
        for (key, by) in &self.kill_by {
            let alive = self.trees.get(key).is_some_and(|tree| tree.main);
            assert!(
                !alive || *by > self.now || self.core.next_wake().is_some_and(|at| at <= self.now),
                "{key} outlived its deadline"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_every_started_incarnation_has_one_exit(acts in proptest::collection::vec(act(), 1..80)) {
        let mut host = Host::new();
        for act in &acts {
            host.act(act);
        }
        host.disk_works = true;
        host.turn();
        host.request(Request::StopAll(StopAll { grace_ms: Some(0) }));
        host.turn();
        host.pass(20_000);
        prop_assert!(host.core.state().processes.is_empty(), "something is left: {:?}", host.core.state().processes);
        prop_assert!(host.trees.is_empty());
        for key in &host.started {
            prop_assert!(host.seen.contains_key(key), "{} has no exit", key);
        }
        let kept: BTreeSet<u64> = host.core.state().exits.iter().map(|exit| exit.seq).collect();
        let expected: BTreeSet<u64> =
            host.seen.values().map(|exit| exit.seq).filter(|seq| !host.acked.contains(seq)).collect();
        prop_assert_eq!(kept, expected);
        prop_assert_eq!(host.disk, host.core.state());
    }

    #[test]
    fn the_end_of_the_holder_in_the_middle_of_a_write_is_before_or_after_it(
        acts in proptest::collection::vec(act(), 1..25)
    ) {
        let mut host = Host::new();
        host.cuts = true;
        for act in &acts {
            host.act(act);
        }
    }

    #[test]
    fn the_state_survives_its_encoding(acts in proptest::collection::vec(act(), 1..40)) {
        let mut host = Host::new();
        for act in &acts {
            host.act(act);
        }
        let state = host.core.state();
        let bytes = rmp_serde::to_vec_named(&state).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<HolderState>(&bytes).unwrap(), state);
    }
}
