//! The exact model of the bus in memory: accounts, streams, guards, watches, imports, and on demand every
//! misbehaviour that the real one has been seen to have ([`faults`]).
//!
//! A [`MemoryBus`] is the servers. Each daemon is a [`Party`] with a clock and a [`Gate`] of its own and gets
//! handles from [`MemoryBus::cp`], [`MemoryBus::agent`], [`MemoryBus::operator`] or [`MemoryBus::canary`]; each call
//! of these is a new connection. Faults are told by the party's name, so they outlive its restarts.
//!
//! What it guarantees: the semantics of [`crate::store`] and [`crate::topic`], as [`crate::conformance`] checks them
//! on this model and on real servers. For one seed and one program it does the same every time: no iteration over
//! hash maps, no random choice but from the seed, wakeups in order of waiting. It needs a current-thread runtime for
//! that, and no time passes but by the configured delays.
//!
//! (The runtime's own `tokio::sync::watch` wakes several waiters of one channel in an order drawn from a generator that
//! cannot be seeded: a simulated program in which two tasks wait on one such channel does not repeat.)
//!
//! A party that has crashed but was not dropped still looks connected, and its subscriptions still take their share of
//! queue groups: so does a machine that died without a word. Dropping its handles and streams is what ends them.
//!
//! What it does not model: consumers' flow control, mirrors (account VIEW), clusters that disagree among themselves
//! beyond stale reads and spurious conflicts.

mod conn;
pub mod faults;
mod jetstream;
mod pattern;
mod permissions;
mod router;
mod services;
mod state;
mod store;
mod stream;
mod topic;
mod watch;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ostler_schemas::time::Timestamp;
use ostler_schemas::{Name, NodeName};

use self::conn::{Conn, Shared};
pub use self::faults::{Faults, Noise, Snapshot};
use self::router::Packet;
use self::store::MemoryStore;
use self::topic::MemoryTopic;
use crate::clock::ClockRef;
use crate::layout::Identity;
use crate::sim_clock::{Gate, SimClock};
use crate::store::{Headers, StoreRef};
use crate::topic::TopicRef;

/// Messages that a subscription holds before it drops, the capacity that the NATS client has too.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// One daemon in one life, as the model sees it.
#[derive(Clone)]
pub struct Party {
    /// Names it for [`Faults`]; several lives of one daemon share it.
    pub name: String,
    /// Its clock: its time limits run on it.
    pub clock: ClockRef,
    /// Lets it proceed.
    pub gate: Gate,
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Party").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Party {
    /// A party with a true clock, always free to run.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let gate = Gate::new();
        let clock = SimClock::new(gate.clone(), Timestamp(START_WALL_MS));
        Self { name: name.into(), clock, gate }
    }

    /// A party on a machine with this clock, behind the clock's gate.
    #[must_use]
    pub fn on(name: impl Into<String>, clock: &Arc<SimClock>) -> Self {
        Self { name: name.into(), gate: clock.gate().clone(), clock: Arc::clone(clock) as ClockRef }
    }
}

/// The wall clock at the start of a simulation, 2026-01-01T00:00:00Z: any fixed moment gives the same run each time.
pub const START_WALL_MS: u64 = 1_767_225_600_000;

/// How a [`MemoryBus`] is made.
#[derive(Debug, Clone)]
pub struct MemoryOptions {
    /// Seeds every random choice.
    pub seed: u64,
    /// Names of the servers; each connection is to one of them.
    pub servers: Vec<Name>,
    /// Messages that a subscription holds before it drops.
    pub subscription_capacity: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { seed: 0, servers: Vec::new(), subscription_capacity: SUBSCRIPTION_CAPACITY }
    }
}

/// A message as it was stored, see [`MemoryBus::take_log`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The stream.
    pub stream: &'static str,
    /// Its sequence there.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// When, by the servers' clock.
    pub at: Timestamp,
    /// Headers.
    pub headers: Headers,
    /// Body.
    pub body: Bytes,
    /// Whether it ends its transaction: messages up to here took effect as one.
    pub ends: bool,
}

impl Logged {
    /// The deletion marker's mark.
    #[must_use]
    pub fn is_marker(&self) -> bool {
        matches!(self.headers.get(ostler_schemas::headers::KV_OPERATION), Some("DEL" | "PURGE"))
    }
}

/// The servers.
#[derive(Clone)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryBus")
    }
}

impl MemoryBus {
    /// One server with all streams. Its clock stamps messages; time limits run on the parties' own.
    #[must_use]
    pub fn new(clock: ClockRef) -> Self {
        Self::with_options(clock, MemoryOptions::default())
    }

    /// With options.
    #[must_use]
    pub fn with_options(clock: ClockRef, options: MemoryOptions) -> Self {
        Self { shared: Arc::new(Shared::new(clock, options)) }
    }

    fn connect(&self, party: &Party, identity: Identity) -> Arc<Conn> {
        Conn::open(&self.shared, party, identity, None)
    }

    /// A controller's connection.
    #[must_use]
    pub fn cp(&self, party: &Party) -> (StoreRef, TopicRef) {
        let conn = self.connect(party, Identity::Controller);
        (Arc::new(MemoryStore::new(Arc::clone(&conn))), Arc::new(MemoryTopic::new(conn)))
    }

    /// An agent's connection.
    #[must_use]
    pub fn agent(&self, party: &Party, node: &NodeName) -> TopicRef {
        Arc::new(MemoryTopic::new(self.connect(party, Identity::Node(node.clone()))))
    }

    /// An operator's connection.
    #[must_use]
    pub fn operator(&self, party: &Party, user: &Name) -> TopicRef {
        Arc::new(MemoryTopic::new(self.connect(party, Identity::Operator(user.clone()))))
    }

    /// The connection of a canary, to the server that it stands for.
    #[must_use]
    pub fn canary(&self, party: &Party, server: &Name) -> TopicRef {
        let servers = self.shared.state().options.servers.clone();
        let index = servers.iter().position(|s| s == server);
        Arc::new(MemoryTopic::new(Conn::open(&self.shared, party, Identity::Canary { servers }, index)))
    }

    /// The control of misbehaviours.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::new(Arc::clone(&self.shared))
    }

    /// Creates the streams that are missing, as the controllers' provisioning does.
    pub fn provision(&self) {
        self.shared.change(state::State::provision);
    }

    /// Remembers the transaction header (`Ostler-Txn`) of every message stored from now on, for those who check that
    /// outcomes told are outcomes had.
    pub fn keep_journal(&self) {
        self.shared.change(|s| s.journal = Some(Vec::new()));
    }

    /// What [`Self::keep_journal`] has collected, in the order of storing.
    #[must_use]
    pub fn journal(&self) -> Vec<String> {
        self.shared.state().journal.clone().unwrap_or_default()
    }

    /// Logs every message stored from now on, in the order of storing, for those who check what was written by whom.
    pub fn keep_log(&self) {
        self.shared.change(|s| s.log = Some(Vec::new()));
    }

    /// What was stored since the last call; nothing unless [`Self::keep_log`] was called.
    #[must_use]
    pub fn take_log(&self) -> Vec<Logged> {
        self.shared.state().log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Publishes as a node with a reply subject of its own choosing, as an attacker with the node's credentials can.
    /// Returns how many took it.
    pub fn attack(
        &self,
        node: &NodeName,
        subject: &str,
        reply: Option<&str>,
        headers: Headers,
        body: Bytes,
    ) -> usize {
        let packet = Packet {
            account: Identity::Node(node.clone()).account(),
            user: node.to_string(),
            subject: subject.to_owned(),
            reply: reply.map(str::to_owned),
            headers,
            body,
            status: None,
        };
        let allowed = permissions::Permissions::of(&Identity::Node(node.clone())).may_publish(subject);
        if allowed { self.shared.change(|state| state.route(&packet)) } else { 0 }
    }
}

#[cfg(test)]
mod tests;
