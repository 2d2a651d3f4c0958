//! What can go wrong between the parties and the servers, by order or by chance.
//!
//! Orders ([`Faults`]) hold until they are taken back or used up; chance ([`Noise`]) is drawn from the bus's seed, so
//! a run repeats exactly. Parties are named as in [`super::Party::name`]; a name that no party bears does no harm.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ostler_schemas::{Bucket, Name};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::conn::Shared;
use super::state::State;
use super::stream::{Refusal, Stream, WRONG_LAST_SEQUENCE_CONSTANT};

/// Chances, in parts per million, and delays, in milliseconds from and to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noise {
    /// A request or publish never arrives.
    pub lose_request_ppm: u32,
    /// It is done, but the answer never arrives.
    pub lose_reply_ppm: u32,
    /// A message to a subscription is lost.
    pub lose_message_ppm: u32,
    /// A hint (`push.…`) is lost.
    pub lose_hint_ppm: u32,
    /// A message to a subscription arrives twice.
    pub duplicate_ppm: u32,
    /// A read that may be stale is.
    pub stale_read_ppm: u32,
    /// A transaction with a guard on another key is refused as if that guard were in flight (10164 on three servers).
    pub spurious_conflict_ppm: u32,
    /// How long requests, answers and deliveries are under way.
    pub delay_ms: (u64, u64),
}

impl Noise {
    /// A moderate mixture drawn from a seed: everything happens now and then, most things go through.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut upto = |limit: u32| rng.next_u32() % (limit + 1);
        Self {
            lose_request_ppm: upto(20_000),
            lose_reply_ppm: upto(20_000),
            lose_message_ppm: upto(20_000),
            lose_hint_ppm: upto(200_000),
            duplicate_ppm: upto(20_000),
            // As measured under load (NATS.md, E12).
            stale_read_ppm: upto(160_000),
            spurious_conflict_ppm: upto(50_000),
            delay_ms: (0, u64::from(upto(40))),
        }
    }
}

/// Which way a partition cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// What the party sends is lost.
    Outbound,
    /// What is sent to the party is lost.
    Inbound,
    /// Both.
    Both,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Severed {
    outbound: bool,
    inbound: bool,
    /// The party's client has given the connection up.
    noticed: bool,
    /// Which cut this is, so that a late notice knows that it is late.
    cut: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Once {
    LoseRequest,
    LoseReply,
    SpuriousConflict,
    LoseHint,
    Duplicate,
    StaleRead,
}

/// What becomes of a delivery.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) copies: u32,
    pub(super) delay_ms: u64,
}

/// The state of all misbehaviours.
#[derive(Debug)]
pub(super) struct Misbehaviour {
    rng: ChaCha20Rng,
    everyone: Noise,
    parties: BTreeMap<String, Noise>,
    severed: BTreeMap<String, Severed>,
    servers_down: BTreeMap<usize, bool>,
    /// Connections that were told to end and not to come back yet.
    held_off: BTreeMap<String, bool>,
    once: BTreeMap<(String, Once), u32>,
    stale_lag_ms: u64,
    cuts: u64,
}

/// How far behind a stale replica may be. Measured: up to 37 ms under load; more makes tests see more.
const STALE_LAG_MS: u64 = 1_000;

/// A silent connection is noticed after two missed pings of 10 s (NATS.md, appendix B) at the latest.
const NOTICE: Duration = Duration::from_secs(25);

impl Misbehaviour {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha20Rng::seed_from_u64(seed),
            everyone: Noise::default(),
            parties: BTreeMap::new(),
            severed: BTreeMap::new(),
            servers_down: BTreeMap::new(),
            held_off: BTreeMap::new(),
            once: BTreeMap::new(),
            stale_lag_ms: STALE_LAG_MS,
            cuts: 0,
        }
    }

    fn noise(&self, party: &str) -> Noise {
        self.parties.get(party).unwrap_or(&self.everyone).clone()
    }

    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.rng.next_u32() % 1_000_000 < ppm
    }

    fn delay(&mut self, (from, to): (u64, u64)) -> u64 {
        if to <= from { from } else { from + self.rng.next_u64() % (to - from + 1) }
    }

    fn ordered(&mut self, party: &str, what: Once) -> bool {
        let key = (party.to_owned(), what);
        match self.once.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(self.once.remove(&key)),
            None => return false,
        }
        true
    }

    /// One of `n`.
    pub(super) fn pick(&mut self, n: usize) -> usize {
        if n <= 1 { 0 } else { (self.rng.next_u64() % n as u64) as usize }
    }

    fn is_down(&self, party: &str, server: usize) -> bool {
        self.held_off.contains_key(party) || self.servers_down.contains_key(&server)
    }

    /// Whether what the party sends is lost.
    pub(super) fn is_deaf_to(&self, party: &str, server: usize) -> bool {
        self.is_down(party, server) || self.severed.get(party).is_some_and(|s| s.outbound)
    }

    /// Whether what is sent to the party is lost.
    pub(super) fn cannot_reach(&self, party: &str, server: usize) -> bool {
        self.is_down(party, server) || self.severed.get(party).is_some_and(|s| s.inbound)
    }

    /// Of something sent: how long it takes, or `None` if it is lost.
    pub(super) fn sending(&mut self, party: &str) -> Option<u64> {
        let noise = self.noise(party);
        let lost = self.ordered(party, Once::LoseRequest) || self.chance(noise.lose_request_ppm);
        let ms = self.delay(noise.delay_ms);
        (!lost).then_some(ms)
    }

    /// Of an answer, likewise.
    pub(super) fn answering(&mut self, party: &str) -> Option<u64> {
        let noise = self.noise(party);
        let lost = self.ordered(party, Once::LoseReply) || self.chance(noise.lose_reply_ppm);
        let ms = self.delay(noise.delay_ms);
        (!lost).then_some(ms)
    }

    pub(super) fn delivery(&mut self, party: &str, subject: &str) -> Delivery {
        let noise = self.noise(party);
        let lost = if subject.starts_with("push.") {
            self.ordered(party, Once::LoseHint) || self.chance(noise.lose_hint_ppm)
        } else if subject.starts_with("_INBOX_") {
            self.ordered(party, Once::LoseReply) || self.chance(noise.lose_reply_ppm)
        } else {
            self.chance(noise.lose_message_ppm)
        };
        let twice = self.ordered(party, Once::Duplicate) || self.chance(noise.duplicate_ppm);
        let copies = if lost { 0 } else { 1 + u32::from(twice) };
        Delivery { copies, delay_ms: self.delay(noise.delay_ms) }
    }

    pub(super) fn stale_lag_ms(&mut self, party: Option<&str>) -> u64 {
        let party = party.unwrap_or_default();
        let ppm = self.noise(party).stale_read_ppm;
        if self.ordered(party, Once::StaleRead) || self.chance(ppm) { self.stale_lag_ms } else { 0 }
    }

    pub(super) fn refuse_commit(&mut self, party: &str, guards_another: bool) -> Option<Refusal> {
        let ppm = self.noise(party).spurious_conflict_ppm;
        let spurious = guards_another && (self.ordered(party, Once::SpuriousConflict) || self.chance(ppm));
        spurious.then(|| Refusal::new(WRONG_LAST_SEQUENCE_CONSTANT, "wrong last sequence"))
    }

    pub(super) fn watch_delay_ms(&mut self, party: &str) -> u64 {
        let range = self.noise(party).delay_ms;
        self.delay(range)
    }
}

impl State {
    /// Brings the links in line with what is down and what has been noticed.
    fn refresh_links(&mut self) {
        for conn in self.conns.values() {
            let given_up = self.faults.severed.get(&conn.party).is_some_and(|s| s.noticed);
            let up = !given_up && !self.faults.is_down(&conn.party, conn.server);
            conn.link.send_if_modified(|link| {
                let changed = link.connected != up;
                link.connected = up;
                link.connection += u64::from(changed && up);
                changed
            });
        }
    }

    /// Ends a connection and makes another, to the next server that is up.
    pub(super) fn reconnect(&mut self, id: u64) {
        let servers = self.options.servers.len();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(severed) = self.faults.severed.get_mut(&conn.party) {
            severed.noticed = true;
        }
        let next = (1..=servers).map(|i| (conn.server + i) % servers);
        let up = next
            .into_iter()
            .find(|s| !self.faults.is_deaf_to(&conn.party, *s) && !self.faults.cannot_reach(&conn.party, *s));
        let server = up.unwrap_or(conn.server);
        conn.server = server;
        let name = self.options.servers.get(server).cloned();
        conn.link.send_modify(|link| {
            link.connected = up.is_some();
            link.connection += u64::from(up.is_some());
            link.server = name;
        });
    }
}

/// A bucket as it once was.
#[derive(Clone)]
pub struct Snapshot(Stream);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} at {})", self.0.spec.name, self.0.last)
    }
}

/// The control of misbehaviours. Methods need the simulation's runtime.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

impl Faults {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn once(&self, party: &str, what: Once, count: u32) {
        self.shared.change(|s| *s.faults.once.entry((party.to_owned(), what)).or_default() += count);
    }

    /// The chances for everyone who has none of their own.
    pub fn noise(&self, noise: Noise) {
        self.shared.change(|s| s.faults.everyone = noise);
    }

    /// The chances of one party.
    pub fn noise_of(&self, party: &str, noise: Noise) {
        self.shared.change(|s| s.faults.parties.insert(party.to_owned(), noise));
    }

    /// No more chance: for everyone, and for each party that had its own.
    pub fn calm(&self) {
        self.shared.change(|s| {
            s.faults.everyone = Noise::default();
            s.faults.parties.clear();
            s.faults.once.clear();
        });
    }

    /// The party's next `count` requests never arrive.
    pub fn lose_requests(&self, party: &str, count: u32) {
        self.once(party, Once::LoseRequest, count);
    }

    /// The party's next `count` requests are done, but their answers never arrive.
    pub fn lose_replies(&self, party: &str, count: u32) {
        self.once(party, Once::LoseReply, count);
    }

    /// The party's next `count` transactions that guard on another key are refused for nothing.
    pub fn conflict_spuriously(&self, party: &str, count: u32) {
        self.once(party, Once::SpuriousConflict, count);
    }

    /// The next `count` hints to the party are lost.
    pub fn lose_hints(&self, party: &str, count: u32) {
        self.once(party, Once::LoseHint, count);
    }

    /// The next `count` messages to the party arrive twice.
    pub fn duplicate(&self, party: &str, count: u32) {
        self.once(party, Once::Duplicate, count);
    }

    /// The party's next `count` reads that may be stale are; for the direct gets of agents the party is `""`.
    pub fn stale_reads(&self, party: &str, count: u32) {
        self.once(party, Once::StaleRead, count);
    }

    /// How far behind a stale read may be.
    pub fn stale_lag_ms(&self, ms: u64) {
        self.shared.change(|s| s.faults.stale_lag_ms = ms);
    }

    /// Cuts a party off without a word. It notices after some 25 s; requests meet silence at once.
    pub fn cut(&self, party: &str, cut: Cut) {
        let (outbound, inbound) = match cut {
            Cut::Outbound => (true, false),
            Cut::Inbound => (false, true),
            Cut::Both => (true, true),
        };
        let cut = self.shared.change(|s| {
            s.faults.cuts += 1;
            let cut = s.faults.cuts;
            let severed = Severed { outbound, inbound, noticed: false, cut };
            s.faults.severed.insert(party.to_owned(), severed);
            cut
        });
        let (shared, party) = (Arc::clone(&self.shared), party.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(NOTICE).await;
            shared.change(|s| {
                if let Some(severed) = s.faults.severed.get_mut(&party).filter(|s| s.cut == cut) {
                    severed.noticed = true;
                    s.refresh_links();
                }
            });
        });
    }

    /// Ends [`Self::cut`].
    pub fn heal(&self, party: &str) {
        self.shared.change(|s| {
            s.faults.severed.remove(party);
            s.refresh_links();
        });
    }

    /// Ends a party's connections, visibly, until [`Self::connect`].
    pub fn disconnect(&self, party: &str) {
        self.shared.change(|s| {
            s.faults.held_off.insert(party.to_owned(), true);
            s.refresh_links();
        });
    }

    /// Lets a party connect again.
    pub fn connect(&self, party: &str) {
        self.shared.change(|s| {
            s.faults.held_off.remove(party);
            s.refresh_links();
        });
    }

    /// One server is down: its connections end, until [`Self::server_up`] or until they go elsewhere.
    pub fn server_down(&self, server: &Name) {
        self.shared.change(|s| {
            if let Some(index) = s.options.servers.iter().position(|n| n == server) {
                s.faults.servers_down.insert(index, true);
                s.refresh_links();
            }
        });
    }

    /// The server is back.
    pub fn server_up(&self, server: &Name) {
        self.shared.change(|s| {
            if let Some(index) = s.options.servers.iter().position(|n| n == server) {
                s.faults.servers_down.remove(&index);
                s.refresh_links();
            }
        });
    }

    /// All servers are down.
    pub fn bus_down(&self) {
        self.shared.change(|s| {
            s.faults.servers_down = (0..s.options.servers.len()).map(|i| (i, true)).collect();
            s.refresh_links();
        });
    }

    /// All servers are back. Consumers lived in memory and are gone: watches end by silence.
    pub fn bus_up(&self) {
        self.shared.change(|s| {
            s.faults.servers_down.clear();
            let fresh = s.fresh_consumers();
            for stream in s.streams.values_mut() {
                stream.consumers = fresh;
            }
            s.refresh_links();
        });
    }

    /// The party's present watches of a bucket fall silent for ever, without an error (NATS.md, trap T2).
    pub fn hang_watches(&self, party: &str) {
        self.flag(party, |w| w.hung = true);
    }

    /// The party's present watches end with an error.
    pub fn end_watches(&self, party: &str) {
        self.flag(party, |w| w.ended = true);
    }

    fn flag(&self, party: &str, flag: impl Fn(&mut super::watch::WatchFlags)) {
        self.shared.change(|s| s.watches.values_mut().filter(|w| w.party == party).for_each(flag));
    }

    /// Everything under way to the party's subscriptions is dropped, and the party is told (`LinkState::dropped`).
    pub fn drop_backlog(&self, party: &str) {
        self.shared.change(|s| {
            for subscription in s.subscriptions.values() {
                if let Some(conn) = s.conns.get(&subscription.conn).filter(|c| c.party == party) {
                    let lost = subscription.inbox.clear() as u64;
                    conn.link.send_modify(|link| link.dropped += lost);
                }
            }
        });
    }

    /// The bucket's stream is gone (a memory stream of one server after a restart).
    /// [`super::MemoryBus::provision`] makes it anew.
    pub fn lose_stream(&self, bucket: Bucket) {
        self.shared.change(|s| s.streams.remove(bucket.stream()));
    }

    /// The bucket is empty, with its old creation time and revisions from 0 (a memory stream of three servers after
    /// all have restarted).
    pub fn empty_stream(&self, bucket: Bucket) {
        self.shared.change(|s| {
            if let Some(stream) = s.streams.get_mut(bucket.stream()) {
                stream.empty();
            }
        });
    }

    /// The bucket as it is, for [`Self::roll_back`]; `None` if its stream is gone.
    #[must_use]
    pub fn snapshot(&self, bucket: Bucket) -> Option<Snapshot> {
        self.shared.state().streams.get(bucket.stream()).cloned().map(Snapshot)
    }

    /// The bucket is again as it was: acknowledged writes are lost and revisions will be used again.
    pub fn roll_back(&self, snapshot: Snapshot) {
        self.shared.change(|s| {
            let mut stream = snapshot.0;
            stream.consumers = s.fresh_consumers();
            s.streams.insert(stream.spec.name, stream);
        });
    }

    /// The bucket's disk is full, or not any more: writes are refused and may be retried.
    pub fn disk_full(&self, bucket: Bucket, full: bool) {
        self.shared.change(|s| {
            if let Some(stream) = s.streams.get_mut(bucket.stream()) {
                stream.full = full;
            }
        });
    }
}
