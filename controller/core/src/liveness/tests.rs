use super::*;

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

fn server() -> Name {
    "s1".parse().expect("a name")
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Timestamp(1_000_000 + ms) }
}

fn beat(machine: &str, n: u64) -> Beat {
    Beat { machine: machine.into(), incarnation: 1, n, server: Some(server()), ..Beat::default() }
}

/// Two nodes and a canary beat every second until `until`; ticks come every 250 ms.
struct Rig {
    ears: Liveness,
    now: u64,
    changes: Vec<(u64, NodeName, NodePhase)>,
}

impl Rig {
    fn new() -> Self {
        let mut ears = Liveness::new(Limits::default(), Mono(0));
        ears.registered(&[name("a"), name("b")].into(), Mono(0));
        Self { ears, now: 0, changes: Vec::new() }
    }

    fn run(&mut self, ms: u64, beats: &[&str], canary: bool) {
        let until = self.now + ms;
        while self.now < until {
            self.now += TICK_MS;
            if self.now.is_multiple_of(1000) {
                if canary {
                    self.ears.canary(server(), Mono(self.now));
                }
                for node in beats {
                    let _ = self.ears.beat(&name(node), beat(node, self.now), at(self.now));
                }
            }
            for (node, phase) in self.ears.tick(Mono(self.now)) {
                self.changes.push((self.now, node, phase));
            }
        }
    }

    fn phase(&self, node: &str) -> NodePhase {
        self.ears.signals(Mono(self.now)).phase(&name(node))
    }

    fn lost_at(&self, node: &str) -> Option<u64> {
        self.changes.iter().find(|(_, n, p)| n.as_str() == node && *p == NodePhase::Lost).map(|(t, _, _)| *t)
    }
}

#[test]
fn a_silent_node_is_suspect_at_three_and_lost_at_four_seconds() {
    let mut rig = Rig::new();
    rig.run(10_000, &["a", "b"], true);
    rig.run(3_000, &["a"], true);
    assert_eq!((rig.phase("a"), rig.phase("b")), (NodePhase::Ready, NodePhase::Suspect));
    rig.run(2_000, &["a"], true);
    assert_eq!(rig.lost_at("b"), Some(14_000));
    assert_eq!(rig.lost_at("a"), None);
}

#[test]
fn nobody_is_judged_without_a_canary() {
    let mut rig = Rig::new();
    rig.run(10_000, &["a", "b"], true);
    rig.run(120_000, &[], false);
    assert_eq!((rig.phase("a"), rig.phase("b")), (NodePhase::Unknown, NodePhase::Unknown));
    assert_eq!(rig.lost_at("a"), None);
    // The bus is back; the nodes need a moment to come back, too.
    rig.run(2_000, &[], true);
    rig.run(10_000, &["a", "b"], true);
    assert_eq!((rig.lost_at("a"), rig.lost_at("b")), (None, None));
}

#[test]
fn silence_during_blindness_counts_from_its_end() {
    let mut rig = Rig::new();
    rig.run(10_000, &["a", "b"], true);
    rig.run(30_000, &[], false);
    rig.run(20_000, &["a"], true);
    // Canary again at 41 s; settled two beats later; lost four seconds after that.
    assert_eq!(rig.lost_at("b"), Some(47_000));
}

#[test]
fn a_paused_replica_does_not_blame_the_nodes() {
    let mut rig = Rig::new();
    rig.run(10_000, &["a", "b"], true);
    rig.now += 60_000; // timers fire before the backlog of beats is read
    rig.ears.canary(server(), Mono(rig.now));
    for (node, phase) in rig.ears.tick(Mono(rig.now)) {
        rig.changes.push((rig.now, node, phase));
    }
    rig.run(1_000, &[], true);
    rig.run(10_000, &["a", "b"], true);
    assert_eq!((rig.lost_at("a"), rig.lost_at("b")), (None, None));
}

#[test]
fn a_dropped_message_gives_two_beats_more() {
    let mut rig = Rig::new();
    rig.run(10_000, &["a", "b"], true);
    rig.run(2_000, &["a"], true);
    rig.ears.link(0, 1, Mono(rig.now));
    rig.run(6_000, &["a"], true);
    assert_eq!(rig.lost_at("b"), Some(18_000));
}

#[test]
fn nodes_of_a_dead_server_get_time_to_reconnect() {
    let mut rig = Rig::new();
    rig.run(10_000, &["a", "b"], true);
    for _ in 0..12 {
        rig.ears.canary("s2".parse().expect("a name"), Mono(rig.now + 1000));
        rig.run(1_000, &[], false);
    }
    // s1's canary is stale, s2's is fresh: 4 s and 4 s more.
    assert_eq!(rig.lost_at("a"), Some(18_000));
}

#[test]
fn a_second_machine_under_the_name_is_refused_until_the_first_is_silent() {
    let mut rig = Rig::new();
    rig.run(5_000, &["a"], true);
    let newcomer = |n| Beat { incarnation: 7, ..beat("other", n) };
    assert!(matches!(rig.ears.beat(&name("a"), newcomer(1), at(rig.now + 10)), Verdict::Refused(_)));
    assert!(rig.ears.signals(Mono(rig.now + 20)).nodes[&name("a")].duplicate);
    rig.run(5_000, &[], true);
    assert_eq!(rig.ears.beat(&name("a"), newcomer(2), at(rig.now)), Verdict::Accepted);
}

#[test]
fn what_beats_show_to_forbid_work_is_told_at_once_and_so_is_its_end() {
    let mut rig = Rig::new();
    rig.run(5_000, &["a"], true);
    let mut said = |beat: Beat| {
        rig.now += TICK_MS;
        rig.ears.canary(server(), Mono(rig.now));
        rig.ears.beat(&name("a"), beat, at(rig.now));
        let told = rig.ears.tick(Mono(rig.now)).into_iter().chain(rig.ears.tick(Mono(rig.now + 1)));
        told.filter(|(node, _)| *node == name("a")).count()
    };
    let held = |n, holder| Beat { holder, ..beat("a", n) };
    let before = said(held(1_000_100, true)) + said(held(1_000_101, true));
    assert_eq!(before, usize::from(!beat("a", 1).holder), "nothing new in the second");
    assert_eq!(said(held(1_000_102, false)), 1);
    assert_eq!(said(held(1_000_103, false)), 0);
    assert_eq!(said(held(1_000_104, true)), 1);
    assert_eq!(said(Beat { incarnation: 7, ..beat("other", 1) }), 1, "a second machine");
    let mut ends = 0;
    for n in 1_000_105..1_000_130 {
        ends += said(held(n, true));
    }
    assert_eq!(ends, 1, "and that it has fallen silent");
}

#[test]
fn a_restarted_agent_is_the_same_node() {
    let mut rig = Rig::new();
    rig.run(5_000, &["a"], true);
    let restarted = Beat { incarnation: 2, ..beat("a", 1) };
    assert_eq!(rig.ears.beat(&name("a"), restarted, at(rig.now + 10)), Verdict::Accepted);
}

#[test]
fn strangers_to_a_fresh_replica_are_lost_only_after_the_full_time() {
    let mut rig = Rig::new();
    rig.run(20_000, &["a"], true);
    // Settled at 2 s after start; the first canary at 1 s ends blindness and settles at 3 s.
    assert_eq!(rig.lost_at("b"), Some(7_000));
}
