use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ostler_schemas::time::Timestamp;
use ostler_schemas::{TxnId, Uid};
use tokio::time::{Instant, timeout};

use super::*;
use crate::entropy::SeededEntropy;
use crate::memory::faults::Cut;
use crate::memory::{Faults, MemoryBus, Noise, Party, START_WALL_MS};
use crate::sim_clock::{Gate, SimClock};
use crate::store::{Expect, Guard, Headers, Op, Read, Txn, Write};

/// A bucket's picture as a receiver of events keeps it.
struct Picture {
    events: mpsc::Receiver<InformerEvent>,
    keys: BTreeMap<Key, Revision>,
    revision: Revision,
    resets: u32,
    losses: u32,
    synced: bool,
}

impl Picture {
    fn take(&mut self, event: InformerEvent) {
        match event {
            InformerEvent::Reset { .. } => {
                self.keys.clear();
                self.revision = Revision(0);
                self.resets += 1;
                self.synced = false;
            }
            InformerEvent::Changes { entries, revision } => {
                assert!(revision >= self.revision, "revisions go on");
                self.revision = revision;
                for entry in entries {
                    let before = match entry.op {
                        Op::Put(_) => self.keys.insert(entry.key, entry.revision),
                        Op::Delete => self.keys.remove(&entry.key),
                    };
                    assert!(before.is_none_or(|before| before < entry.revision), "each is told once");
                }
            }
            InformerEvent::Vanished { keys } => self.keys.retain(|k, _| !keys.contains(k)),
            InformerEvent::Synced => self.synced = true,
            InformerEvent::Lost { .. } => {
                self.losses += 1;
                self.synced = false;
            }
        }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Picture) -> bool) {
        let wait = async {
            while !done(self) {
                let event = self.events.recv().await.expect("the informer lives");
                self.take(event);
            }
        };
        assert!(timeout(Duration::from_secs(7_200), wait).await.is_ok(), "never: {what}");
    }
}

struct World {
    bus: MemoryBus,
    faults: Faults,
    store: StoreRef,
    picture: Picture,
}

fn key(n: u8) -> Key {
    Key::ProcessGoal(Uid::from_bytes([n; 16]))
}

impl World {
    fn new() -> Self {
        let bus = MemoryBus::new(SimClock::new(Gate::new(), Timestamp(START_WALL_MS)));
        let party = Party::new("informed");
        let (informed, _) = bus.cp(&party);
        let entropy = Arc::new(SeededEntropy::from_number(1));
        let events = spawn(informed, party.clock.clone(), entropy, Bucket::Objects);
        let (store, _) = bus.cp(&Party::new("writer"));
        let keys = BTreeMap::new();
        let picture = Picture { events, keys, revision: Revision(0), resets: 0, losses: 0, synced: false };
        Self { faults: bus.faults(), bus, store, picture }
    }

    async fn write(&self, n: u8, op: Op) -> Revision {
        let last = self.store.get(&key(n), Read::Leader).await.expect("reads").map(|e| e.revision);
        let write =
            Write { key: key(n), op, guard: Guard::Own(Expect::after(last)), headers: Headers::new() };
        let txn = Txn { id: TxnId::from_bytes([n; 16]), writes: vec![write] };
        self.store.commit(&txn).await.expect("commits").last
    }

    async fn put(&self, n: u8) -> Revision {
        self.write(n, Op::Put(Bytes::new())).await
    }

    async fn shows(&mut self, what: &str, revision: Revision) {
        self.picture.until(what, |p| p.synced && p.revision >= revision).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_lists_then_follows() {
    let mut w = World::new();
    let first = w.put(1).await;
    w.shows("the first", first).await;
    let second = w.put(2).await;
    w.shows("the second", second).await;
    assert_eq!(w.picture.keys, BTreeMap::from([(key(1), first), (key(2), second)]));
    let gone = w.write(1, Op::Delete).await;
    w.shows("the deletion", gone).await;
    assert_eq!(w.picture.keys.len(), 1);
    assert_eq!((w.picture.resets, w.picture.losses), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hung_watch_is_noticed_and_replaced() {
    let mut w = World::new();
    w.shows("nothing yet", Revision(0)).await;
    w.faults.hang_watches("informed");
    let written = w.put(1).await;
    let started = Instant::now();
    w.shows("what the hung watch held back", written).await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_eq!(w.picture.losses, 1);
}

#[tokio::test(start_paused = true)]
async fn an_ended_watch_resumes_where_it_was() {
    let mut w = World::new();
    let first = w.put(1).await;
    w.shows("the first", first).await;
    w.faults.end_watches("informed");
    let second = w.put(2).await;
    w.shows("the second", second).await;
    assert_eq!((w.picture.losses, w.picture.resets, w.picture.keys.len()), (1, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends() {
    let mut w = World::new();
    let first = w.put(1).await;
    w.shows("the first", first).await;
    w.faults.cut("informed", Cut::Both);
    let second = w.put(2).await;
    w.picture.until("lost", |p| p.losses > 2).await;
    w.faults.heal("informed");
    w.shows("what came meanwhile", second).await;
    w.faults.bus_down();
    w.picture.until("lost again", |p| !p.synced).await;
    w.faults.bus_up();
    let third = w.put(3).await;
    w.shows("what came after", third).await;
    assert_eq!(w.picture.keys.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_went_back_is_read_anew() {
    let mut w = World::new();
    let first = w.put(1).await;
    let old = w.faults.snapshot(Bucket::Objects).expect("is there");
    let second = w.put(2).await;
    w.shows("both", second).await;
    w.faults.roll_back(old);
    w.picture.until("a reset", |p| p.resets == 1 && p.synced).await;
    assert_eq!(w.picture.keys, BTreeMap::from([(key(1), first)]));
}

#[tokio::test(start_paused = true)]
async fn an_emptied_bucket_and_a_lost_one_are_read_anew() {
    let mut w = World::new();
    let first = w.put(1).await;
    w.shows("the first", first).await;
    w.faults.empty_stream(Bucket::Objects);
    w.picture.until("a reset", |p| p.resets == 1 && p.synced).await;
    let again = w.put(2).await;
    w.shows("the new one", again).await;
    w.faults.lose_stream(Bucket::Objects);
    w.picture.until("a reset", |p| p.resets == 2).await;
    w.bus.provision();
    let anew = w.put(3).await;
    w.shows("the new one", anew).await;
    assert_eq!(w.picture.keys, BTreeMap::from([(key(3), anew)]));
}

#[tokio::test(start_paused = true)]
async fn what_vanished_without_a_trace_is_found_by_the_relist() {
    let mut w = World::new();
    let first = w.put(1).await;
    w.shows("the first", first).await;
    w.faults.cut("informed", Cut::Both);
    let gone = w.write(1, Op::Delete).await;
    w.store.purge_marker(&key(1), gone).await.expect("purges");
    w.faults.heal("informed");
    assert_eq!(w.picture.keys.len(), 1, "it cannot know yet");
    w.picture.until("it vanishes", |p| p.keys.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_loses_nothing() {
    let mut w = World::new();
    w.shows("nothing yet", Revision(0)).await;
    let mut last = Revision(0);
    for n in 0..200 {
        last = w.put(n).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    w.shows("everything", last).await;
    assert_eq!(w.picture.keys.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_receiver() {
    let w = World::new();
    let handle = tokio::runtime::Handle::current();
    tokio::task::yield_now().await;
    assert_eq!(handle.metrics().num_alive_tasks(), 1);
    drop(w.picture);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(handle.metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_finds_the_truth_through_noise() {
    for seed in 0..10 {
        let mut w = World::new();
        w.faults.noise_of(
            "informed",
            Noise {
                lose_request_ppm: 300_000,
                lose_reply_ppm: 300_000,
                delay_ms: (0, 500),
                ..Noise::default()
            },
        );
        let mut last = Revision(0);
        for n in 0..40 {
            last = w.put((n + seed) % 13).await;
            match n % 10 {
                3 => w.faults.hang_watches("informed"),
                6 => w.faults.end_watches("informed"),
                _ => {}
            }
            tokio::time::sleep(Duration::from_secs(u64::from(n % 4))).await;
        }
        w.shows("the last", last).await;
        assert_eq!(w.picture.keys.len(), 13);
    }
}
