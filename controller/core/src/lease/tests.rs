use super::*;

const C: ControllerName = ControllerName::Scheduler;

fn replica(text: &str) -> ReplicaId {
    text.parse().expect("a name")
}

fn held_by(text: &str, n: u64) -> Lease {
    Lease { replica: Some(replica(text)), n }
}

/// A candidate whose own beacons come back at once.
struct Rig {
    machine: Leadership,
    now: u64,
    stood: Vec<(u64, Vec<ControllerName>)>,
}

impl Rig {
    fn new() -> Self {
        let mut machine = Leadership::new(replica("me"), Mono(0));
        machine.synced(true);
        Self { machine, now: 0, stood: Vec::new() }
    }

    fn run(&mut self, ms: u64, healthy: bool, mut each: impl FnMut(&mut Leadership, u64)) {
        let until = self.now + ms;
        while self.now < until {
            self.now += 50;
            each(&mut self.machine, self.now);
            let acts = self.machine.tick(Mono(self.now));
            if let Some(beacon) = acts.beacon.filter(|_| healthy) {
                self.machine.heard(&beacon, Mono(self.now));
            }
            if !acts.stand.is_empty() {
                self.stood.push((self.now, acts.stand));
            }
        }
    }
}

fn beacon_of(text: &str, n: u64) -> Beacon {
    Beacon { replica: replica(text), n, leads: vec![C] }
}

#[test]
fn a_free_lease_is_taken_at_once() {
    let mut rig = Rig::new();
    rig.machine.saw_lease(C, None, Mono(0));
    rig.run(500, true, |_, _| {});
    assert_eq!(rig.stood, [(100, vec![C])]);
}

#[test]
fn a_leader_that_shows_life_by_beacon_or_by_renewal_is_left_alone() {
    let mut rig = Rig::new();
    rig.machine.saw_lease(C, Some(&held_by("other", 1)), Mono(0));
    rig.run(10_000, true, |m, now| {
        if now % 250 == 0 {
            m.heard(&beacon_of("other", now), Mono(now));
        }
    });
    rig.run(10_000, true, |m, now| {
        if now % 1000 == 0 {
            m.saw_lease(C, Some(&held_by("other", now)), Mono(now));
        }
    });
    assert!(rig.stood.is_empty(), "{:?}", rig.stood);
    rig.run(2_500, true, |_, _| {});
    assert_eq!(rig.stood.len(), 1);
    assert_eq!(rig.stood[0].0, 22_000);
}

#[test]
fn nobody_is_taken_for_dead_over_ones_own_bad_connection() {
    let mut rig = Rig::new();
    rig.machine.saw_lease(C, Some(&held_by("other", 1)), Mono(0));
    rig.run(1_000, true, |m, now| m.heard(&beacon_of("other", now), Mono(now)));
    rig.run(60_000, false, |_, _| {});
    rig.run(1_500, true, |_, _| {});
    assert!(rig.stood.is_empty(), "{:?}", rig.stood);
    rig.run(2_000, true, |_, _| {});
    assert_eq!(rig.stood.len(), 1);
}

#[test]
fn a_pause_of_the_candidate_does_not_count_as_silence() {
    let mut rig = Rig::new();
    rig.machine.saw_lease(C, Some(&held_by("other", 1)), Mono(0));
    rig.run(1_000, true, |m, now| m.heard(&beacon_of("other", now), Mono(now)));
    rig.now += 30_000;
    rig.run(500, true, |_, _| {});
    assert!(rig.stood.is_empty(), "{:?}", rig.stood);
}

#[test]
fn the_displaced_stay_back_longer_each_time_but_not_from_a_free_lease() {
    let mut machine = Leadership::new(replica("me"), Mono(0));
    machine.synced(true);
    let ours = Leading { term: Revision(5), nonce: 1, lease: Revision(4), n: 1 };
    let mut bans = Vec::new();
    for round in 1..=7u64 {
        let now = Mono(round * 20_000);
        machine.took(C, ours);
        machine.saw_term(C, Revision(9 + round), now);
        assert!(machine.leading().is_empty());
        bans.push(machine.banned_until.since_ms(now));
    }
    assert_eq!(bans, [10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
    machine.saw_lease(C, Some(&Lease { replica: None, n: 9 }), Mono(140_001));
    machine.own_heard = Some(Mono(140_001));
    machine.last_tick = Mono(140_001);
    assert_eq!(machine.tick(Mono(140_050)).stand, [C]);
}

#[test]
fn retiring_frees_all_leases_and_stands_no_more() {
    let mut rig = Rig::new();
    rig.machine.saw_lease(C, None, Mono(0));
    rig.run(200, true, |_, _| {});
    rig.machine.took(C, Leading { term: Revision(3), nonce: 7, lease: Revision(1), n: 4 });
    assert_eq!(rig.machine.retire(), [(C, Lease { replica: None, n: 5 }, Revision(1))]);
    rig.machine.saw_lease(C, Some(&Lease { replica: None, n: 5 }), Mono(rig.now));
    rig.stood.clear();
    rig.run(5_000, true, |_, _| {});
    assert!(rig.stood.is_empty());
}

#[test]
fn renewals_are_one_batch_and_wait_for_their_answer() {
    let mut machine = Leadership::new(replica("me"), Mono(0));
    machine.took(C, Leading { term: Revision(3), nonce: 7, lease: Revision(1), n: 4 });
    machine.took(ControllerName::Node, Leading { term: Revision(6), nonce: 7, lease: Revision(2), n: 0 });
    assert_eq!(machine.tick(Mono(10)).renew.len(), 2);
    assert!(machine.tick(Mono(2_000)).renew.is_empty(), "the first is not answered yet");
    machine.renewed(&[(C, Revision(11)), (ControllerName::Node, Revision(10))].into());
    let again = machine.tick(Mono(2_100)).renew;
    assert!(again.contains(&(C, held_by("me", 6), Revision(11))), "{again:?}");
}
