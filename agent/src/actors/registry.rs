//! Knows the documents and keeps one actor per process and per file; decides when things may start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ostler_agent_core::documents::{RunItem, Verdict, judge_run, run_items};
use ostler_agent_core::file::FileRecord;
use ostler_agent_core::holder::{notify::Said, protocol::ProcKey};
use ostler_agent_core::holds::By;
use ostler_agent_core::ledger::{Change, Kept};
use ostler_agent_core::needs::must_poll;
use ostler_agent_core::unit::{Ask, Event, HostExit, UnitRecord, Wanted};
use ostler_bus::node_link::{FetchError, Stored};
use ostler_schemas::codec;
use ostler_schemas::key::DocumentKind;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::document::{FileEntry, FileSpec, FileVars, NodeFacts, RunDocument};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Revision, Sha256, Uid};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::actors::{file, process};
use crate::context::{Shared, Task, lock};
use crate::local::Act;
use crate::ports::HostListing;

mod assess;
mod files;
mod holds;
mod immutables;
mod secrets;

/// How long a fresh agent waits for the bus before it starts unfenced work from its ledger: a controller that is
/// there answers within a beat, and work must come back after a power cut that took the bus too.
const ALONE_MS: u64 = 5_000;
/// In `State::fresh`: that a controller was asked whether this instance may act under its name.
const KNOWN: &str = "known";
/// How many such waits when there is a connection, but no document comes over it.
const ALONE_CONNECTED: u32 = 3;
/// How often documents are read although nothing was heard: the last resort against lost hints (DESIGN.md 3.4).
const REREAD_MS: u64 = 60_000;
/// First wait before a template or file spec is asked for again; doubles.
const FETCH_FIRST_MS: u64 = 200;
/// How long what does not end may hold back all starts after a return: longer than any sensible grace. What cannot
/// be killed at all (a process in the kernel's hands) must not keep a whole host down.
const BLOCKED_MS: u64 = 600_000;
/// How often needs are looked at that nobody tells of (paths, mounts).
const POLL_MS: u64 = 1_000;

pub(crate) struct RegistryActor;

pub(crate) enum Msg {
    /// Something hints at a newer document.
    Read(DocumentKind),
    /// The connection is there (again): read both documents before anything is started.
    Returned,
    /// A document was read.
    Fetched(DocumentKind, Result<Option<Stored>, FetchError>),
    /// A template or file spec is at hand.
    Immutable(Sha256, Bytes),
    /// A beat was answered, or it is known that nobody answers: whether this instance may act is known.
    Known,
    /// The host told everything.
    Listed(Box<HostListing>, u64),
    /// The host told of an exit.
    Exited(Uid, Box<HostExit>),
    /// Nothing is left of an incarnation.
    TreeEmpty(ProcKey),
    /// One said this of itself.
    Said(ProcKey, Box<Said>),
    /// The holder does not answer.
    HostLost,
    /// Something changed that decisions depend on.
    Reassess,
    /// Nobody came: start without the bus.
    Alone,
    /// The slow re-read is due.
    Reread,
    /// How is the running incarnation of a process started?
    Describe(Uid, process::Asker),
    /// A file has changed that a process reads.
    Ask(Uid, Ask),
    /// A person on the host asks something.
    Act(Act, By, oneshot::Sender<Result<String, String>>),
    /// Something may be held no longer.
    HoldsDue,
}

pub(crate) struct State {
    context: Shared,
    processes: BTreeMap<Uid, ActorRef<process::Msg>>,
    files: BTreeMap<Uid, ActorRef<file::Msg>>,
    items: BTreeMap<Uid, RunItem>,
    entries: BTreeMap<Uid, FileEntry>,
    templates: BTreeMap<Sha256, Arc<ProcessTemplate>>,
    specs: BTreeMap<Sha256, Arc<FileSpec>>,
    vars: BTreeMap<Sha256, Arc<FileVars>>,
    /// What templates may say of this node.
    facts: Option<Arc<NodeFacts>>,
    fetching: BTreeMap<Sha256, Task>,
    reading: BTreeMap<&'static str, (Task, bool)>,
    /// Which documents were read since the last return.
    fresh: BTreeSet<&'static str>,
    gate: bool,
    /// Since when starts are held back by what has not ended yet.
    blocked_since: Option<Mono>,
    /// How often nobody came since the last return.
    alone: u32,
    needs: BTreeMap<Uid, Option<String>>,
    timers: Vec<Task>,
    poll: Option<Task>,
    host: Option<HostListing>,
    /// How many starts had been heard of when the host was asked for that.
    starts: u64,
    /// Wakes when a hold ends by itself.
    holding: Option<Task>,
}

impl Actor for RegistryActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.registry.set(me.clone());
        let mut state = State {
            context,
            processes: BTreeMap::new(),
            files: BTreeMap::new(),
            items: BTreeMap::new(),
            entries: BTreeMap::new(),
            templates: BTreeMap::new(),
            specs: BTreeMap::new(),
            vars: BTreeMap::new(),
            facts: None,
            fetching: BTreeMap::new(),
            reading: BTreeMap::new(),
            fresh: BTreeSet::new(),
            gate: false,
            blocked_since: None,
            alone: 0,
            needs: BTreeMap::new(),
            timers: Vec::new(),
            poll: None,
            host: None,
            starts: 0,
            holding: None,
        };
        // A wake that was on its way to the registry before this one went with it: nobody would ring again.
        state.context.registry_wake.answered();
        state.begin(&me).await?;
        me.cast(Msg::Reassess)?;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Read(kind) => state.read(&me, kind),
            Msg::Returned => state.returned(&me),
            Msg::Known => {
                if state.fresh.insert(KNOWN) {
                    state.assess(&me);
                }
            }
            Msg::Fetched(kind, result) => state.fetched(&me, kind, result).await?,
            Msg::Immutable(hash, bytes) => state.immutable(&me, hash, &bytes).await?,
            Msg::Listed(listing, starts) => state.listed(&me, *listing, starts).await?,
            Msg::Exited(uid, exit) => state.feed(&uid, Event::Exited(*exit)),
            Msg::TreeEmpty(key) => state.feed(&key.uid, Event::TreeEmpty(key.incarnation)),
            Msg::Said(ProcKey { uid, incarnation }, said) => {
                state.feed(&uid, Event::Notified { incarnation, said: *said });
            }
            Msg::HostLost => {
                state.host = None;
                state.feed_all(&Event::HostLost);
            }
            Msg::Reassess => {
                state.context.registry_wake.answered();
                state.assess(&me);
            }
            Msg::Alone => state.is_alone(&me),
            Msg::Reread => {
                if state.host.is_some() {
                    state.tidy(BTreeSet::new());
                }
                for kind in DocumentKind::ALL {
                    state.read(&me, kind);
                }
                state.reread_later(&me);
            }
            Msg::Act(act, by, answer) => {
                let said = state.act(&me, act, by).await;
                // Whoever asked may have given up; it is done all the same, and told.
                drop(answer.send(said));
            }
            Msg::HoldsDue => state.holds_due(&me).await,
            Msg::Ask(uid, ask) => state.feed(&uid, Event::Ask(ask)),
            // Without such a process the question is dropped with its answer's place.
            Msg::Describe(uid, asker) => match state.processes.get(&uid) {
                Some(actor) => drop(actor.cast(process::Msg::Describe(asker))),
                None => drop(asker.send(Err("the process is not on this node".to_owned()))),
            },
        }
        Ok(())
    }

    /// A process or file whose actor failed gets another one, which begins from the ledger and a listing.
    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, why) => {
                tracing::error!(%why, "an actor failed and is started anew");
                let id = cell.get_id();
                let process = state.processes.iter().find(|(_, a)| a.get_id() == id).map(|(uid, _)| *uid);
                let file = state.files.iter().find(|(_, a)| a.get_id() == id).map(|(uid, _)| *uid);
                if let Some(uid) = process {
                    state.processes.remove(&uid);
                    state.revive_process(&me, uid).await?;
                }
                if let Some(uid) = file {
                    state.files.remove(&uid);
                    state.revive_file(&me, uid).await?;
                }
            }
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

type Done = Result<(), ActorProcessingErr>;

impl State {
    /// Takes up what the ledger knows. Nothing starts: the gate is closed, and the host has not told yet.
    async fn begin(&mut self, me: &ActorRef<Msg>) -> Done {
        let ledger = lock(&self.context.memory).clone();
        {
            let mut board = self.context.board();
            board.run = ledger.run.held;
            board.files_held = ledger.files.held;
            board.secrets_held = ledger.secrets.held;
            board.exits_dropped = ledger.exits_dropped;
        }
        for record in ledger.units.values() {
            self.spawn_process(me, record.clone()).await?;
        }
        for record in ledger.file_records.values() {
            self.spawn_file(me, record.clone()).await?;
        }
        for hash in ledger.in_use() {
            if let Some(bytes) = self.context.deps.ledger.get(hash).await {
                self.learn(hash, &bytes);
            }
        }
        if let Some(document) = &ledger.run.document {
            self.follow_run(me, document).await?;
        }
        if let Some(document) = &ledger.files.document {
            self.follow_files(me, document).await?;
        }
        self.show_holds(me);
        self.alone_later(me);
        self.reread_later(me);
        self.context.host.cast(crate::actors::host::Msg::Relist);
        if self.context.board().bus.connected {
            self.returned(me);
        }
        Ok(())
    }

    fn alone_later(&mut self, me: &ActorRef<Msg>) {
        let (clock, me) = (self.context.deps.clock.clone(), me.clone());
        self.timers.retain(Task::is_running);
        self.timers.push(Task::spawn(async move {
            clock.sleep_ms(ALONE_MS).await;
            drop(me.cast(Msg::Alone));
        }));
    }

    /// Documents that cannot be had must not keep work down: without the bus for a moment, or with a bus that does
    /// not answer for longer, what the ledger says is started.
    fn is_alone(&mut self, me: &ActorRef<Msg>) {
        self.alone += 1;
        if self.gate || self.is_refused() {
            return;
        }
        if self.context.board().bus.connected && self.alone < ALONE_CONNECTED {
            self.alone_later(me);
            return;
        }
        tracing::warn!("the documents cannot be read: starting what the ledger says");
        self.fresh.extend(DocumentKind::ALL.map(DocumentKind::as_str));
        self.fresh.insert(KNOWN);
        self.assess(me);
    }

    /// Whether another instance acts under this node's name: then nothing is read and nothing started here.
    pub(super) fn is_refused(&self) -> bool {
        self.context.board().bus.refused.is_some()
    }

    fn reread_later(&mut self, me: &ActorRef<Msg>) {
        let wait = REREAD_MS + self.context.deps.entropy.below(REREAD_MS / 2);
        let (clock, me) = (self.context.deps.clock.clone(), me.clone());
        self.timers.retain(Task::is_running);
        self.timers.push(Task::spawn(async move {
            clock.sleep_ms(wait).await;
            drop(me.cast(Msg::Reread));
        }));
    }

    fn returned(&mut self, me: &ActorRef<Msg>) {
        self.fresh.clear();
        self.set_gate(false);
        self.alone = 0;
        self.alone_later(me);
        for kind in DocumentKind::ALL {
            self.read(me, kind);
        }
    }

    /// Reads a document; while one read is under way at most one more is remembered.
    fn read(&mut self, me: &ActorRef<Msg>, kind: DocumentKind) {
        if self.is_refused() {
            return;
        }
        // Also a read that has ended is under way until its answer is handled: another in its place would be dropped
        // with it.
        if let Some((_, again)) = self.reading.get_mut(kind.as_str()) {
            *again = true;
            return;
        }
        let (link, me) = (self.context.deps.link.clone(), me.clone());
        let task = Task::spawn(async move {
            let result = link.get_document(kind).await;
            drop(me.cast(Msg::Fetched(kind, result)));
        });
        self.reading.insert(kind.as_str(), (task, false));
    }

    async fn fetched(
        &mut self,
        me: &ActorRef<Msg>,
        kind: DocumentKind,
        result: Result<Option<Stored>, FetchError>,
    ) -> Done {
        if self.reading.remove(kind.as_str()).is_some_and(|(_, again)| again) {
            self.read(me, kind);
        }
        match result {
            Ok(Some(Stored { revision, value: Some(bytes), .. })) => match kind {
                DocumentKind::Run => self.take_run(me, revision, &bytes).await?,
                DocumentKind::Files => self.take_files(me, revision, &bytes).await?,
                DocumentKind::Secrets => self.take_secrets(revision, &bytes).await,
            },
            // Absence is never a command.
            Ok(Some(Stored { value: None, .. }) | None) => {}
            Err(error) => {
                tracing::debug!(%error, kind = kind.as_str(), "a document could not be read");
                if !self.fresh.contains(kind.as_str()) {
                    self.retry_read(me, kind);
                }
                return Ok(());
            }
        }
        self.fresh.insert(kind.as_str());
        self.acknowledge_strays();
        self.assess(me);
        Ok(())
    }

    /// While nothing may start before a document was read, it is asked for again soon.
    fn retry_read(&mut self, me: &ActorRef<Msg>, kind: DocumentKind) {
        let (clock, me) = (self.context.deps.clock.clone(), me.clone());
        self.timers.retain(Task::is_running);
        self.timers.push(Task::spawn(async move {
            clock.sleep_ms(FETCH_FIRST_MS).await;
            drop(me.cast(Msg::Read(kind)));
        }));
    }

    async fn take_run(&mut self, me: &ActorRef<Msg>, revision: Revision, bytes: &[u8]) -> Done {
        let document: RunDocument = match codec::decode(bytes) {
            Ok(document) => document,
            Err(error) => {
                tracing::error!(%error, "the run document cannot be read and is not followed");
                return Ok(());
            }
        };
        let (held, running) = {
            let board = self.context.board();
            let running: BTreeSet<Uid> =
                board.processes.iter().filter(|(_, v)| v.runs_as_meant).map(|(uid, _)| *uid).collect();
            (board.run, running)
        };
        match judge_run(&held, &document, revision, &running) {
            Verdict::Old => self.context.condition(Reason::EpochRefused, None),
            Verdict::Refuse(refused) => {
                self.context.condition(refused.reason(), Some(format!("run document: {refused}")));
            }
            Verdict::Take => {
                let held = HeldDocument { epoch: document.epoch, revision };
                let kept = Kept { held, document: Some(document.clone()) };
                self.context.note(Change::Run(Box::new(kept)));
                self.context.board().run = held;
                self.context.board().documents_at = Some(self.context.deps.clock.wall());
                self.context.condition(Reason::EpochRefused, None);
                self.context.condition(Reason::BulkStopRefused, None);
                self.follow_run(me, &document).await?;
                self.context.changed();
                self.sweep();
            }
        }
        Ok(())
    }

    async fn follow_run(&mut self, me: &ActorRef<Msg>, document: &RunDocument) -> Done {
        let items = run_items(document);
        for (uid, problem) in &items.problems {
            tracing::warn!(%uid, problem, "an entry of the run document is not followed");
        }
        self.items = items.items;
        let assigned = self.items.values().filter(|i| i.goal == Goal::Run).count();
        {
            let mut board = self.context.board();
            board.assigned = u32::try_from(assigned).unwrap_or(u32::MAX);
            board.node_labels.clone_from(&document.labels);
            board.ships.clone_from(&document.ships);
            let namespaces = self.items.values().map(|item| &item.namespace);
            board.keeps = namespaces.filter(|ns| !document.ships.contains(*ns)).cloned().collect();
        }
        for uid in self.items.keys().copied().collect::<Vec<_>>() {
            self.want_process(me, uid).await?;
        }
        for (uid, actor) in &self.processes {
            if !self.items.contains_key(uid) {
                send(actor, Event::Unwanted);
            }
        }
        Ok(())
    }

    async fn want_process(&mut self, me: &ActorRef<Msg>, uid: Uid) -> Done {
        let Some(item) = self.items.get(&uid).cloned() else { return Ok(()) };
        if !self.processes.contains_key(&uid) {
            let record = UnitRecord::new(uid, item.namespace.clone(), item.name.clone());
            self.spawn_process(me, record).await?;
            // The last listing is old, but the host cannot have anything of a process that was never here.
            self.tell_listing(&uid);
        }
        let template = self.templates.get(&item.template).cloned();
        if template.is_none() && item.goal == Goal::Run {
            self.fetch(me, item.template);
        }
        let wanted = Wanted {
            version: item.version,
            goal: item.goal,
            token: item.token,
            ports: item.ports,
            hash: item.template,
            restart_hash: template.as_ref().map(|t| t.restart_hash()),
            template,
        };
        if let Some(actor) = self.processes.get(&uid) {
            drop(actor.cast(process::Msg::Owner(Some(item.owner))));
            send(actor, Event::Want(wanted));
        }
        Ok(())
    }

    async fn listed(&mut self, me: &ActorRef<Msg>, listing: HostListing, starts: u64) -> Done {
        for listed in &listing.processes {
            if !self.processes.contains_key(&listed.uid) {
                // It runs, and neither ledger nor document knows it: kept, and reported.
                let record = UnitRecord::new(listed.uid, listed.namespace.clone(), listed.name.clone());
                self.spawn_process(me, record).await?;
            }
        }
        self.host = Some(listing);
        self.starts = starts;
        for uid in self.processes.keys().copied().collect::<Vec<_>>() {
            self.tell_listing(&uid);
        }
        self.acknowledge_strays();
        self.tidy(BTreeSet::new());
        Ok(())
    }

    /// Exits of processes that were retired: their acknowledgement was lost. Without a ledger it is the document that
    /// knows whose they are, so it is waited for: an exit that was acknowledged is told nowhere else.
    fn acknowledge_strays(&mut self) {
        if !self.fresh.contains(DocumentKind::Run.as_str()) {
            return;
        }
        let Some(listing) = &mut self.host else { return };
        let strays = listing.exits.extract_if(.., |(uid, _)| !self.processes.contains_key(uid));
        for (uid, exit) in strays {
            let key = ProcKey { uid, incarnation: exit.incarnation };
            let (host, seq) = (self.context.deps.host.clone(), exit.seq);
            self.timers.push(Task::spawn(async move {
                // One that is not acknowledged now is in the next listing.
                host.acknowledge(key, seq).await.unwrap_or_else(|error| {
                    tracing::debug!(%key, %error, "an exit was not acknowledged");
                });
            }));
        }
    }

    fn tell_listing(&self, uid: &Uid) {
        let Some(listing) = &self.host else { return };
        let boot = self.context.board().host.as_ref().map(|h| h.boot.clone()).unwrap_or_default();
        let alive = listing.processes.iter().filter(|l| l.uid == *uid).map(|l| l.process.clone()).collect();
        let leftovers = listing.leftovers.iter().filter(|k| k.uid == *uid).map(|k| k.incarnation).collect();
        let exits = listing.exits.iter().filter(|(u, _)| u == uid).map(|(_, e)| e.clone()).collect();
        if let Some(actor) = self.processes.get(uid) {
            let event = Box::new(Event::Listed { alive, leftovers, exits, boot });
            // An actor that has ended is replaced by one that is told everything anew.
            drop(actor.cast(process::Msg::Listed(event, self.starts)));
        }
    }

    fn feed(&self, uid: &Uid, event: Event) {
        if let Some(actor) = self.processes.get(uid) {
            send(actor, event);
        }
    }

    fn feed_all(&self, event: &Event) {
        for actor in self.processes.values() {
            send(actor, event.clone());
        }
    }

    async fn spawn_process(&mut self, me: &ActorRef<Msg>, record: UnitRecord) -> Done {
        let uid = record.uid;
        let arguments = (self.context.clone(), record);
        let (actor, _) = Actor::spawn_linked(None, process::ProcessActor, arguments, me.get_cell()).await?;
        send(&actor, Event::Gate(self.gate));
        if let Some(held) = self.context.holds().process(uid) {
            send(&actor, Event::Hold(Some(held)));
        }
        self.processes.insert(uid, actor);
        self.needs.remove(&uid);
        Ok(())
    }

    async fn spawn_file(&mut self, me: &ActorRef<Msg>, record: FileRecord) -> Done {
        let uid = record.uid;
        let arguments = (self.context.clone(), record);
        let (actor, _) = Actor::spawn_linked(None, file::FileActor, arguments, me.get_cell()).await?;
        self.files.insert(uid, actor);
        Ok(())
    }

    async fn revive_process(&mut self, me: &ActorRef<Msg>, uid: Uid) -> Done {
        let record = lock(&self.context.memory).units.get(&uid).cloned();
        if let Some(record) = record {
            self.spawn_process(me, record).await?;
        }
        self.want_process(me, uid).await?;
        self.context.host.cast(crate::actors::host::Msg::Relist);
        self.assess(me);
        Ok(())
    }

    async fn revive_file(&mut self, me: &ActorRef<Msg>, uid: Uid) -> Done {
        let record = lock(&self.context.memory).file_records.get(&uid).cloned();
        self.spawn_file(me, record.unwrap_or_else(|| FileRecord::new(uid))).await?;
        self.tell_files();
        Ok(())
    }
}

fn send(actor: &ActorRef<process::Msg>, event: Event) {
    // An actor that has ended is replaced by one that is told everything anew.
    drop(actor.cast(process::Msg::Event(Box::new(event))));
}

/// Needs that nobody tells of have to be looked at from time to time.
fn polls(template: &ProcessTemplate) -> bool {
    must_poll(&template.needs)
}
