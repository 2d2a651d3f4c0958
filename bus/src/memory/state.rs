//! Everything that the servers know, under one lock.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::time::Timestamp;
use tokio::sync::watch;

use super::MemoryOptions;
use super::faults::Misbehaviour;
use super::pattern::Pattern;
use super::permissions::{Import, imports, stream_exports};
use super::router::{ReplyRoute, Subscription};
use super::services::ServiceState;
use super::stream::Stream;
use super::watch::WatchFlags;
use crate::clock::ClockRef;
use crate::layout::{self, Account, Scale, Sizes};
use crate::topic::LinkState;

/// A connection as the servers see it.
#[derive(Debug)]
pub(super) struct ConnState {
    pub(super) party: String,
    /// Index of its server.
    pub(super) server: usize,
    pub(super) link: watch::Sender<LinkState>,
}

/// The servers' state.
pub(super) struct State {
    pub(super) clock: ClockRef,
    pub(super) options: MemoryOptions,
    pub(super) streams: BTreeMap<&'static str, Stream>,
    pub(super) conns: BTreeMap<u64, ConnState>,
    pub(super) subscriptions: BTreeMap<u64, Subscription>,
    /// Subscriptions to one subject, by it.
    pub(super) exact: BTreeMap<(Account, String), BTreeSet<u64>>,
    /// Subscriptions with wildcards, by their first literal tokens.
    pub(super) wild: BTreeMap<(Account, String), BTreeSet<u64>>,
    pub(super) replies: BTreeMap<String, ReplyRoute>,
    pub(super) services: BTreeMap<u64, ServiceState>,
    pub(super) watches: BTreeMap<u64, WatchFlags>,
    pub(super) imports: BTreeMap<Account, Vec<Import>>,
    pub(super) exports: Vec<(Account, Pattern)>,
    pub(super) faults: Misbehaviour,
    /// Transaction headers of everything ever stored, if asked for.
    pub(super) journal: Option<Vec<String>>,
    /// Everything stored that nobody has taken yet, if asked for.
    pub(super) log: Option<Vec<super::Logged>>,
    last_id: u64,
    consumers: u64,
}

impl State {
    pub(super) fn new(clock: ClockRef, mut options: MemoryOptions) -> Self {
        if options.servers.is_empty() {
            options.servers = "s1".parse().into_iter().collect();
        }
        let mut state = Self {
            clock,
            faults: Misbehaviour::new(options.seed),
            options,
            streams: BTreeMap::new(),
            conns: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            exact: BTreeMap::new(),
            wild: BTreeMap::new(),
            replies: BTreeMap::new(),
            services: BTreeMap::new(),
            watches: BTreeMap::new(),
            imports: Account::ALL.into_iter().map(|a| (a, imports(a))).collect(),
            exports: stream_exports(),
            journal: None,
            log: None,
            last_id: 0,
            consumers: 0,
        };
        state.provision();
        state
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A number that no stream had before, so that consumers of an earlier one do not go on.
    pub(super) fn fresh_consumers(&mut self) -> u64 {
        self.consumers += 1_000_000;
        self.consumers
    }

    pub(super) fn provision(&mut self) {
        let now = self.wall();
        let replicas = layout::replicas_for(self.options.servers.len());
        for spec in layout::streams(Scale { replicas, sizes: Sizes::default() }) {
            if !self.streams.contains_key(spec.name) {
                let consumers = self.fresh_consumers();
                self.streams.insert(spec.name, Stream::new(spec.into(), now, consumers));
            }
        }
    }

    /// The stream that stores `subject`.
    pub(super) fn stream_of(&mut self, subject: &str) -> Option<&mut Stream> {
        self.streams.values_mut().find(|s| subject.starts_with(&s.spec.prefix))
    }

    /// Whether what the connection sends arrives.
    pub(super) fn hears(&self, conn: u64) -> bool {
        self.conns.get(&conn).is_some_and(|c| !self.faults.is_deaf_to(&c.party, c.server))
    }

    /// Whether what is sent to the connection arrives.
    pub(super) fn reaches(&self, conn: u64) -> bool {
        self.conns
            .get(&conn)
            .is_some_and(|c| c.link.borrow().connected && !self.faults.cannot_reach(&c.party, c.server))
    }

    /// Counts an error that the server sends to the connection.
    pub(super) fn protest(&self, conn: u64, error: String) {
        if let Some(conn) = self.conns.get(&conn) {
            conn.link.send_modify(|link| {
                link.errors += 1;
                link.last_error = Some(error);
            });
        }
    }
}
