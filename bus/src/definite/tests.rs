use std::sync::Arc;

use bytes::Bytes;
use ostler_schemas::time::Timestamp;
use ostler_schemas::{ControllerName, Uid};
use proptest::prelude::*;

use super::*;
use crate::entropy::SeededEntropy;
use crate::memory::{Faults, MemoryBus, MemoryOptions, Noise, Party, START_WALL_MS};
use crate::sim_clock::{Gate, SimClock};
use crate::store::Headers;

struct World {
    bus: MemoryBus,
    faults: Faults,
    entropy: EntropyRef,
}

struct Writer {
    store: StoreRef,
    clock: ClockRef,
    entropy: EntropyRef,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
        let bus = MemoryBus::with_options(clock, MemoryOptions { seed, ..MemoryOptions::default() });
        bus.keep_journal();
        Self { faults: bus.faults(), bus, entropy: Arc::new(SeededEntropy::from_number(seed)) }
    }

    fn writer(&self, name: &str) -> Writer {
        let party = Party::new(name);
        let (store, _) = self.bus.cp(&party);
        Writer { store, clock: party.clock, entropy: self.entropy.clone() }
    }

    fn times_done(&self, txn: &Txn) -> usize {
        let first = format!("{}/1/{}", txn.id, txn.writes.len());
        self.bus.journal().iter().filter(|t| **t == first).count()
    }
}

const PATIENCE_MS: u64 = 60_000;

impl Writer {
    async fn commit(&self, txn: &Txn) -> Outcome {
        let deadline = self.clock.mono().plus_ms(PATIENCE_MS);
        commit_definite(&self.store, &self.clock, &self.entropy, txn, &txn.writes[0].key, deadline).await
    }

    async fn last_of(&self, key: &Key) -> Expect {
        loop {
            if let Ok(entry) = self.store.get(key, Read::Leader).await {
                return Expect::after(entry.map(|e| e.revision));
            }
        }
    }

    fn txn(&self, writes: Vec<Write>) -> Txn {
        Txn { id: self.entropy.txn(), writes }
    }
}

fn put(key: Key, guard: Guard) -> Write {
    Write { key, op: Op::Put(Bytes::from_static(b"x")), guard, headers: Headers::new() }
}

fn goal(n: u8) -> Key {
    Key::ProcessGoal(Uid::from_bytes([n; 16]))
}

const TERM: Key = Key::Term(ControllerName::Scheduler);
const FENCE: Key = Key::Fence(ControllerName::Scheduler);

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_found_again() {
    let world = World::new(1);
    let writer = world.writer("a");
    for lost in 1..4 {
        world.faults.lose_replies("a", lost);
        let txn = writer.txn(vec![put(goal(u8::try_from(lost).expect("small")), Guard::Own(Expect::Absent))]);
        assert!(matches!(writer.commit(&txn).await, Outcome::Done(_)));
        assert_eq!(world.times_done(&txn), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_a_conflict_although_it_was_resent() {
    let world = World::new(1);
    let (loser, winner) = (world.writer("a"), world.writer("b"));
    world.faults.lose_requests("a", 1);
    let txn = loser.txn(vec![put(goal(1), Guard::Own(Expect::Absent))]);
    let other = winner.txn(vec![put(goal(1), Guard::Own(Expect::Absent))]);
    let (lost, won) = futures::join!(loser.commit(&txn), winner.commit(&other));
    assert!(matches!(won, Outcome::Done(_)));
    assert_eq!(lost, Outcome::Conflict);
    assert_eq!(world.times_done(&txn), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_overwritten_twice_is_undecidable() {
    let world = World::new(1);
    let (writer, other) = (world.writer("a"), world.writer("b"));
    world.faults.lose_replies("a", 1);
    let txn = writer.txn(vec![put(goal(1), Guard::Own(Expect::Absent))]);
    let overwrite = async {
        for _ in 0..2 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let next = other.txn(vec![put(goal(1), Guard::Own(other.last_of(&goal(1)).await))]);
            assert!(matches!(other.commit(&next).await, Outcome::Done(_)));
        }
    };
    let (outcome, ()) = futures::join!(writer.commit(&txn), overwrite);
    assert_eq!(outcome, Outcome::Undecidable { txn: txn.id });
}

#[tokio::test(start_paused = true)]
async fn a_conflict_for_nothing_is_no_answer_to_a_resend() {
    let world = World::new(1);
    let writer = world.writer("a");
    world.faults.lose_requests("a", 1);
    world.faults.conflict_spuriously("a", 2);
    let txn = writer
        .txn(vec![put(FENCE, Guard::Other(TERM, Expect::Absent)), put(goal(1), Guard::Own(Expect::Absent))]);
    assert!(matches!(writer.commit(&txn).await, Outcome::Done(_)));
    assert_eq!(world.times_done(&txn), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_lost_its_term_learns_what_became_of_its_batch() {
    for reply_lost in [true, false] {
        let world = World::new(1);
        let (old, new) = (world.writer("a"), world.writer("b"));
        if reply_lost {
            world.faults.lose_replies("a", 1);
        } else {
            world.faults.lose_requests("a", 1);
        }
        let batch = |n| {
            vec![put(FENCE, Guard::Other(TERM, Expect::Absent)), put(goal(n), Guard::Own(Expect::Absent))]
        };
        let txn = old.txn(batch(1));
        let takeover = async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let mut writes = vec![put(FENCE, Guard::Other(TERM, Expect::Absent))];
            writes.push(put(TERM, Guard::Own(Expect::Absent)));
            assert!(matches!(new.commit(&new.txn(writes)).await, Outcome::Done(_)));
        };
        let (outcome, ()) = futures::join!(old.commit(&txn), takeover);
        assert_eq!(matches!(outcome, Outcome::Done(_)), reply_lost, "{outcome:?}");
        assert_eq!(outcome == Outcome::Conflict, !reply_lost, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_store_is_undecidable_at_the_deadline() {
    let world = World::new(1);
    let writer = world.writer("a");
    world.faults.cut("a", crate::memory::faults::Cut::Inbound);
    let txn = writer.txn(vec![put(goal(1), Guard::Own(Expect::Absent))]);
    assert_eq!(writer.commit(&txn).await, Outcome::Undecidable { txn: txn.id });
}

/// One writer's life: transactions over few shared keys, each with what was told of it.
async fn life(writer: Writer, rounds: u32) -> Vec<(Txn, Outcome)> {
    let mut told = Vec::new();
    for _ in 0..rounds {
        let mut writes = Vec::new();
        if writer.entropy.below(3) > 0 {
            writes.push(put(FENCE, Guard::Other(TERM, writer.last_of(&TERM).await)));
        }
        let first = u8::try_from(writer.entropy.below(3)).unwrap_or(0);
        for n in first..=first + u8::try_from(writer.entropy.below(2)).unwrap_or(0) {
            writes.push(put(goal(n), Guard::Own(writer.last_of(&goal(n)).await)));
        }
        if writer.entropy.below(8) == 0 {
            writes.push(put(TERM, Guard::Own(writer.last_of(&TERM).await)));
        }
        let txn = writer.txn(writes);
        let outcome = writer.commit(&txn).await;
        told.push((txn, outcome));
        writer.clock.sleep_ms(writer.entropy.below(3_000)).await;
    }
    told
}

/// Runs writers against each other; returns how often each verdict was told.
fn contest(seed: u64, noise: Noise) -> [u32; 4] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let world = World::new(seed);
        world.faults.noise(noise);
        let lives: Vec<_> =
            ["a", "b", "c"].iter().map(|name| tokio::spawn(life(world.writer(name), 25))).collect();
        let mut told = Vec::new();
        for life in lives {
            told.extend(life.await.expect("lives to its end"));
        }
        // Copies that are still under way arrive.
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let mut counts = [0; 4];
        for (txn, outcome) in told {
            let done = world.times_done(&txn);
            let (verdict, is_right) = match outcome {
                Outcome::Done(_) => (0, done == 1),
                Outcome::Conflict => (1, done == 0),
                Outcome::Refused { .. } => (2, done == 0),
                Outcome::Undecidable { .. } => (3, done <= 1),
            };
            assert!(is_right, "seed {seed}: told {outcome:?}, done {done} times");
            counts[verdict] += 1;
        }
        counts
    })
}

fn noise(reply_ppm: u32, request_ppm: u32, spurious_ppm: u32, delay: u64) -> Noise {
    Noise {
        lose_reply_ppm: reply_ppm,
        lose_request_ppm: request_ppm,
        spurious_conflict_ppm: spurious_ppm,
        delay_ms: (0, delay),
        ..Noise::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn verdicts_are_true(
        seed in any::<u64>(),
        reply in 0u32..400_000,
        request in 0u32..400_000,
        spurious in 0u32..300_000,
        delay in 0u64..4_000,
    ) {
        contest(seed, noise(reply, request, spurious, delay));
    }
}

#[test]
fn most_verdicts_are_definite() {
    let mut counts = [0; 4];
    for seed in 0..20 {
        let told = contest(seed, noise(200_000, 100_000, 50_000, 500));
        for (sum, count) in counts.iter_mut().zip(told) {
            *sum += count;
        }
    }
    let [done, conflict, refused, undecidable] = counts;
    assert!(done > 100 && conflict > 100 && refused == 0, "{counts:?}");
    assert!(undecidable * 10 < done + conflict, "{counts:?}");
}
