//! Bugs on purpose, from outside: wrappers around ports that undo one safeguard each. And [`Hold`], which is no bug: it
//! stops a replica between its decision and its write, where a real one may be stopped too.

mod host;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use ostler_agent::ports::{ArtifactsRef, HostRef, LedgerRef};
use ostler_bus::clock::Clock as _;
use ostler_bus::sim_clock::{Gate, SimClock};
use ostler_bus::store::{
    BucketInfo, CommitError, Committed, Entry, Expect, Guard, Headers, Read, ReadError, Record, Store, Txn,
    WatchError, WatchEvent, WatchFrom, Write,
};
use ostler_bus::topic::{LinkState, Message, Outgoing, RequestError, ServiceSpec, Topic, TopicError};
use ostler_bus::{StoreRef, TopicRef};
use ostler_schemas::codec;
use ostler_schemas::headers as names;
use ostler_schemas::key::DocumentKind;
use ostler_schemas::subject::{ALL_BEATS, get_document};
use ostler_schemas::v1::document::{FilesDocument, RunDocument};
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::secret::SecretsDocument;
use ostler_schemas::{Bucket, Key, NodeName, Revision};
use tokio::sync::watch;

use host::{Amnesia, AtOnce, ForgetsBegun, PlantedHost};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is planted; nothing by default.
#[derive(Clone, Default)]
pub struct Plant {
    /// Leaders write without the guard on their term.
    pub no_fence: bool,
    /// Writes bear no guard on their own key.
    pub no_own_key: bool,
    /// Agents stop what has no entry any more.
    pub absence_stops: bool,
    /// Agents follow any document that they read.
    pub no_epoch: bool,
    /// Stops writes of a replica, by its index.
    pub holds: BTreeMap<usize, Hold>,
    /// Keeps beats back while timers run, for every replica.
    pub backlog: Option<Backlog>,
    /// What agents with a planted bug were shown.
    pub documents: Documents,
    /// Agents forget that they have begun an action.
    pub forgets_begun: bool,
    /// What is wrong with how agents treat processes.
    pub life: Option<LifeBug>,
}

/// A bug in how an agent treats processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeBug {
    /// Probes succeed without being asked, and everything says at once that it is up.
    BelievesAll,
    /// Nobody who is asked to end gets time for it.
    KillsAtOnce,
    /// Hooks are run twice.
    HooksTwice,
    /// Hooks succeed without being run.
    HooksNever,
    /// Artifacts are there before they are.
    ArtifactsAtOnce,
    /// Four seconds of the agent are one of its host.
    Hasty,
    /// Success is taken for failure.
    Gloomy,
    /// Each agent begins without memory.
    Amnesia,
}

impl Plant {
    /// A replica's store.
    #[must_use]
    pub fn store(&self, index: usize, inner: StoreRef, gate: &Gate) -> StoreRef {
        let hold = self.holds.get(&index).cloned();
        if !self.no_fence && !self.no_own_key && hold.is_none() {
            return inner;
        }
        let (no_fence, no_own_key) = (self.no_fence, self.no_own_key);
        Arc::new(PlantedStore { inner, no_fence, no_own_key, hold, gate: gate.clone() })
    }

    /// A replica's messages.
    #[must_use]
    pub fn controller_topic(&self, _: usize, inner: TopicRef) -> TopicRef {
        match &self.backlog {
            Some(backlog) => Arc::new(LateTopic { inner, backlog: backlog.clone() }),
            None => inner,
        }
    }

    /// An agent's messages.
    #[must_use]
    pub fn agent_topic(&self, node: &NodeName, inner: TopicRef) -> TopicRef {
        if !self.absence_stops && !self.no_epoch {
            return inner;
        }
        Arc::new(DocumentTopic { inner, node: node.clone(), plant: self.clone() })
    }

    /// An agent's host.
    #[must_use]
    pub fn host(&self, inner: HostRef) -> HostRef {
        match self.life {
            Some(
                bug @ (LifeBug::BelievesAll
                | LifeBug::KillsAtOnce
                | LifeBug::HooksTwice
                | LifeBug::HooksNever
                | LifeBug::Gloomy),
            ) => Arc::new(PlantedHost { inner, bug }),
            Some(LifeBug::ArtifactsAtOnce | LifeBug::Hasty | LifeBug::Amnesia) | None => inner,
        }
    }

    /// An agent's artifacts.
    #[must_use]
    pub fn artifacts(&self, inner: ArtifactsRef) -> ArtifactsRef {
        if self.life == Some(LifeBug::ArtifactsAtOnce) { Arc::new(AtOnce(inner)) } else { inner }
    }

    /// An agent's ledger.
    #[must_use]
    pub fn ledger(&self, inner: LedgerRef) -> LedgerRef {
        if self.life == Some(LifeBug::Amnesia) {
            Arc::new(Amnesia(inner))
        } else if self.forgets_begun {
            Arc::new(ForgetsBegun(inner))
        } else {
            inner
        }
    }

    /// The clock of an agent on a machine with this one.
    #[must_use]
    pub fn agent_clock(&self, machine: &Arc<SimClock>) -> Arc<SimClock> {
        if self.life != Some(LifeBug::Hasty) {
            return Arc::clone(machine);
        }
        let clock = SimClock::new(Gate::new(), machine.now().wall);
        clock.set_rate_ppm(3_000_000);
        clock
    }

    fn rewrite(&self, node: &NodeName, kind: DocumentKind, message: Message) -> Message {
        let mut documents = lock(&self.documents.0);
        let followed = documents.entry((node.clone(), kind)).or_default();
        let mut headers = message.headers.clone();
        if self.no_epoch {
            // As if none had ever been held: whatever was read last is the newest.
            if followed.last != message.body {
                followed.revision += 1;
            }
            headers.set(names::NATS_SEQUENCE, followed.revision.to_string());
        }
        let shown = match kind {
            DocumentKind::Run => codec::decode::<RunDocument>(&message.body).ok().and_then(|mut shown| {
                if self.absence_stops {
                    followed.stop_what_is_missing(&mut shown);
                    followed.run = shown.clone();
                }
                shown.epoch = self.epoch(shown.epoch);
                codec::encode(&shown).ok()
            }),
            DocumentKind::Files => {
                codec::decode::<FilesDocument>(&message.body).ok().and_then(|mut shown| {
                    shown.epoch = self.epoch(shown.epoch);
                    codec::encode(&shown).ok()
                })
            }
            DocumentKind::Secrets => {
                codec::decode::<SecretsDocument>(&message.body).ok().and_then(|mut shown| {
                    shown.epoch = self.epoch(shown.epoch);
                    codec::encode(&shown).ok()
                })
            }
        };
        followed.last = message.body.clone();
        Message { headers, body: shown.map_or(message.body, Bytes::from), ..message }
    }

    fn epoch(&self, written: Epoch) -> Epoch {
        if self.no_epoch { Epoch { incarnation: 1, term: Revision(1), nonce: 1 } } else { written }
    }
}

/// The documents that agents with a planted bug were shown, kept through their restarts.
#[derive(Clone, Default)]
pub struct Documents(Arc<Mutex<BTreeMap<(NodeName, DocumentKind), Followed>>>);

#[derive(Default)]
struct Followed {
    last: Bytes,
    run: RunDocument,
    revision: u64,
}

impl Followed {
    fn stop_what_is_missing(&self, document: &mut RunDocument) {
        for entry in &self.run.entries {
            if document.entries.iter().any(|e| e.u == entry.u) {
                continue;
            }
            let (Some(owner), Some(template)) =
                (self.run.owners.get(entry.o as usize), self.run.template(entry))
            else {
                continue;
            };
            let mut stopped = entry.clone();
            stopped.o = u32::try_from(document.owners.len()).unwrap_or(u32::MAX);
            stopped.t = u32::try_from(document.templates.len()).unwrap_or(u32::MAX);
            stopped.g = Goal::Gone;
            document.owners.push(owner.clone());
            document.templates.push(template);
            document.entries.push(stopped);
            document.bulk = Some("planted: no entry".to_owned());
        }
        document.entries.sort_by_key(|e| e.u);
    }
}

#[derive(Default)]
struct HoldState {
    armed: Option<fn(&Txn) -> bool>,
    held: Vec<Txn>,
}

/// Stops the next write of a kind until it is let go.
#[derive(Clone)]
pub struct Hold {
    state: Arc<Mutex<HoldState>>,
    open: Arc<watch::Sender<bool>>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { state: Arc::default(), open: Arc::new(watch::Sender::new(true)) }
    }
}

impl Hold {
    /// From now on transactions that `matches` accepts wait.
    pub fn arm(&self, matches: fn(&Txn) -> bool) {
        lock(&self.state).armed = Some(matches);
        self.open.send_replace(false);
    }

    /// Lets them go.
    pub fn release(&self) {
        lock(&self.state).armed = None;
        self.open.send_replace(true);
    }

    /// The transactions that were stopped so far.
    #[must_use]
    pub fn held(&self) -> Vec<Txn> {
        lock(&self.state).held.clone()
    }

    /// Whether the transaction is stopped; then it is remembered.
    fn stops(&self, txn: &Txn) -> bool {
        let mut state = lock(&self.state);
        let stops = state.armed.is_some_and(|matches| matches(txn));
        if stops {
            state.held.push(txn.clone());
        }
        stops
    }

    async fn opened(&self) {
        let opened = self.open.subscribe().wait_for(|open| *open).await.is_ok();
        assert!(opened, "the sender lives as long as this value");
    }
}

#[derive(Clone)]
struct PlantedStore {
    inner: StoreRef,
    no_fence: bool,
    no_own_key: bool,
    hold: Option<Hold>,
    gate: Gate,
}

impl PlantedStore {
    async fn present(&self, key: &Key) -> Expect {
        let entry = self.inner.get(key, Read::Leader).await.ok().flatten();
        Expect::after(entry.map(|e| e.revision))
    }

    async fn send(&self, txn: &Txn) -> Result<Committed, CommitError> {
        if !self.no_fence && !self.no_own_key {
            return self.inner.commit(txn).await;
        }
        let loosened = self.loosened(txn).await;
        self.inner.commit(&loosened).await
    }

    /// Guards that always hold stand for no guards: the port has no way to write without.
    async fn loosened(&self, txn: &Txn) -> Txn {
        let mut writes: Vec<Write> = Vec::with_capacity(txn.writes.len());
        for write in &txn.writes {
            let guard = match &write.guard {
                Guard::Other(key, _) if self.no_fence => Guard::Other(key.clone(), self.present(key).await),
                Guard::Own(_) if self.no_own_key => Guard::Own(self.present(&write.key).await),
                guard @ (Guard::Other(..) | Guard::Own(_)) => guard.clone(),
            };
            writes.push(Write { guard, ..write.clone() });
        }
        Txn { id: txn.id, writes }
    }
}

impl Store for PlantedStore {
    fn get<'a>(&'a self, key: &'a Key, read: Read) -> BoxFuture<'a, Result<Option<Entry>, ReadError>> {
        self.inner.get(key, read)
    }

    fn commit<'a>(&'a self, txn: &'a Txn) -> BoxFuture<'a, Result<Committed, CommitError>> {
        Box::pin(async move {
            let Some(hold) = self.hold.clone().filter(|h| h.stops(txn)) else { return self.send(txn).await };
            // It is under way: a caller that gives up does not call it back.
            let (store, txn) = (self.clone(), txn.clone());
            let sent = tokio::spawn(async move {
                hold.opened().await;
                store.gate.ports().await;
                store.send(&txn).await
            });
            sent.await.unwrap_or_else(|error| Err(CommitError::Unknown { reason: error.to_string() }))
        })
    }

    fn watch(&self, bucket: Bucket, from: WatchFrom) -> BoxStream<'static, Result<WatchEvent, WatchError>> {
        self.inner.watch(bucket, from)
    }

    fn info(&self, bucket: Bucket) -> BoxFuture<'_, Result<BucketInfo, ReadError>> {
        self.inner.info(bucket)
    }

    fn purge_marker<'a>(&'a self, key: &'a Key, revision: Revision) -> BoxFuture<'a, Result<(), ReadError>> {
        self.inner.purge_marker(key, revision)
    }

    fn append<'a>(
        &'a self,
        subject: &'a str,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'a, Result<u64, CommitError>> {
        self.inner.append(subject, headers, body)
    }

    fn records(
        &self,
        stream: &'static str,
        filter: &str,
        from: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Record, ReadError>> {
        self.inner.records(stream, filter, from, follow)
    }
}

/// Keeps beats back while everything else goes on: what a replica sees whose timers fire before its backlog is read.
#[derive(Clone)]
pub struct Backlog(Arc<watch::Sender<bool>>);

impl Default for Backlog {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Backlog {
    /// Beats pile up, or are read again.
    pub fn pile_up(&self, piling: bool) {
        self.0.send_replace(piling);
    }

    fn held_back(&self, messages: BoxStream<'static, Message>) -> BoxStream<'static, Message> {
        let piling = Arc::clone(&self.0);
        messages
            .then(move |message| {
                let mut piling = piling.subscribe();
                async move {
                    let read = piling.wait_for(|p| !*p).await.is_ok();
                    assert!(read, "the sender lives as long as the stream");
                    message
                }
            })
            .boxed()
    }
}

struct LateTopic {
    inner: TopicRef,
    backlog: Backlog,
}

impl Topic for LateTopic {
    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), TopicError>> {
        self.inner.publish(message)
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
        queue: Option<&'a str>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(async move {
            let messages = self.inner.subscribe(subject, queue).await?;
            Ok(if subject == ALL_BEATS { self.backlog.held_back(messages) } else { messages })
        })
    }

    fn request(&self, message: Outgoing, timeout_ms: u64) -> BoxFuture<'_, Result<Message, RequestError>> {
        self.inner.request(message, timeout_ms)
    }

    fn request_many(
        &self,
        message: Outgoing,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        self.inner.request_many(message)
    }

    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        self.inner.serve(service)
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.inner.link()
    }

    fn reconnect(&self) -> BoxFuture<'_, ()> {
        self.inner.reconnect()
    }
}

struct DocumentTopic {
    inner: TopicRef,
    node: NodeName,
    plant: Plant,
}

impl Topic for DocumentTopic {
    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), TopicError>> {
        self.inner.publish(message)
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
        queue: Option<&'a str>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Message>, TopicError>> {
        self.inner.subscribe(subject, queue)
    }

    fn request(&self, message: Outgoing, timeout_ms: u64) -> BoxFuture<'_, Result<Message, RequestError>> {
        Box::pin(async move {
            let asked =
                DocumentKind::ALL.into_iter().find(|k| message.subject == get_document(&self.node, *k));
            let answer = self.inner.request(message, timeout_ms).await?;
            Ok(match asked {
                Some(kind) => self.plant.rewrite(&self.node, kind, answer),
                None => answer,
            })
        })
    }

    fn request_many(
        &self,
        message: Outgoing,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        self.inner.request_many(message)
    }

    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        self.inner.serve(service)
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.inner.link()
    }

    fn reconnect(&self) -> BoxFuture<'_, ()> {
        self.inner.reconnect()
    }
}
