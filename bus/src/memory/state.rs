//! Everything that the servers know, under one lock.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::Bucket;
use ostler_schemas::subject::{AUDIT_STREAM, EVENTS_STREAM};
use ostler_schemas::time::Timestamp;
use tokio::sync::watch;

use super::MemoryOptions;
use super::faults::Misbehaviour;
use super::permissions::{Account, Import, imports};
use super::router::{ReplyRoute, Subscription};
use super::services::ServiceState;
use super::stream::{Stream, StreamSpec};
use super::watch::WatchFlags;
use crate::clock::ClockRef;
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
    pub(super) faults: Misbehaviour,
    last_id: u64,
    consumers: u64,
}

const MIB: u64 = 1 << 20;

/// The streams. Batches are off where agents can publish through an import.
const STREAMS: [StreamSpec; 6] = [
    bucket(Bucket::Objects, true, 1024 * MIB),
    bucket(Bucket::Observed, false, 1024 * MIB),
    bucket(Bucket::Grants, false, 64 * MIB),
    bucket(Bucket::Blobs, true, 1024 * MIB),
    log(EVENTS_STREAM, "ostler.v1.event.", 64 * MIB),
    log(AUDIT_STREAM, "ostler.v1.audit.", 64 * MIB),
];

const fn bucket(bucket: Bucket, atomic: bool, bytes_max: u64) -> StreamSpec {
    StreamSpec {
        name: bucket.stream(),
        prefix: bucket.subject_prefix(),
        history_one: true,
        atomic,
        bytes_max,
        discard_old: false,
    }
}

const fn log(name: &'static str, prefix: &'static str, bytes_max: u64) -> StreamSpec {
    StreamSpec { name, prefix, history_one: false, atomic: false, bytes_max, discard_old: true }
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
            imports: [Account::Cp, Account::Ag, Account::Op].into_iter().map(|a| (a, imports(a))).collect(),
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
        for spec in STREAMS {
            if !self.streams.contains_key(spec.name) {
                let consumers = self.fresh_consumers();
                self.streams.insert(spec.name, Stream::new(spec, now, consumers));
            }
        }
    }

    /// The stream that stores `subject`.
    pub(super) fn stream_of(&mut self, subject: &str) -> Option<&mut Stream> {
        self.streams.values_mut().find(|s| subject.starts_with(s.spec.prefix))
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
