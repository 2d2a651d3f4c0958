//! The node's sign of life and its ears: beats with their replies, hints, the state of the connection, registration.

use bytes::Bytes;
use futures::StreamExt;
use ostler_agent_core::documents::should_read;
use ostler_bus::store::Headers;
use ostler_bus::topic::{LinkState, RequestError};
use ostler_schemas::Revision;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::headers as names;
use ostler_schemas::key::DocumentKind;
use ostler_schemas::subject::{Hint, Verb};
use ostler_schemas::v1::api::RegisterRequest;
use ostler_schemas::v1::beat::{BEAT_MS, Beat, BeatReply};
use ostler_schemas::v1::reason::Reason;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::actors::{registry, relay, reporter};
use crate::context::{Shared, Task};

/// So many beats without any answer, and the connection is taken for dead (DESIGN.md 3.6).
const SILENT_BEATS: u32 = 2;
/// Reconnects are spread over this, so that a fleet does not arrive at another server at one instant.
const RECONNECT_JITTER_MS: u64 = 1_000;
/// And not tried again for this: a new connection needs two beats to prove itself.
const RECONNECT_PAUSE_MS: u64 = 5_000;
/// How long an answer to a registration may take.
const REGISTER_MS: u64 = 5_000;
/// So many answers in a row that know of no report as new as ours, and the store has lost it: it lies in memory, and a
/// replica that only lags catches up sooner.
const UNSEEN_BEATS: u32 = 3;
/// Pauses before a hinted document that was not found yet is read again.
const AGAIN_MS: [u64; 3] = [15, 60, 240];
/// Wait before hints are asked for again after their stream ended.
const HINTS_AGAIN_MS: u64 = 1_000;

pub(crate) struct BusActor;

pub(crate) enum Msg {
    /// A beat is due.
    Beat,
    /// A beat was answered, or was not.
    Answered(u64, Result<Bytes, RequestError>),
    /// The state of the connection.
    Link(LinkState),
    /// A hint came.
    Hint(Hint),
    /// A registration came to an end.
    Registered(Result<(), String>),
    /// A reconnect was carried out.
    Reconnected,
}

pub(crate) struct State {
    context: Shared,
    n: u64,
    silent: u32,
    answered: u64,
    /// The report that the last beat spoke of, and how many answers in a row did not know it.
    told: u64,
    unseen: u32,
    connection: u64,
    beats: Vec<Task>,
    registering: Option<Task>,
    reconnecting: Option<Task>,
    pumps: Vec<Task>,
}

impl Actor for BusActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.bus.set(me.clone());
        let n = context.board().beat_n;
        let pumps = vec![
            Task::spawn(beat_timer(context.clone(), me.clone())),
            Task::spawn(watch_link(context.clone(), me.clone())),
            Task::spawn(hear_hints(context.clone(), me)),
        ];
        Ok(State {
            context,
            n,
            silent: 0,
            answered: 0,
            told: 0,
            unseen: 0,
            connection: 0,
            beats: Vec::new(),
            registering: None,
            reconnecting: None,
            pumps,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Beat => state.beat(&me),
            Msg::Answered(n, result) => state.answered(&me, n, result),
            Msg::Link(link) => state.link(&me, &link),
            Msg::Hint(Hint::Document(kind)) => {
                state.context.registry.cast(registry::Msg::Read(kind));
            }
            Msg::Hint(Hint::Ask) => {
                state.context.relay.cast(relay::Msg::Fetch);
            }
            Msg::Registered(result) => {
                state.registering = None;
                match result {
                    Ok(()) => tracing::info!(node = %state.context.node, "registered"),
                    Err(why) => tracing::warn!(why, "could not register"),
                }
            }
            Msg::Reconnected => state.reconnecting = None,
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.pumps.clear();
        Ok(())
    }
}

impl State {
    fn beat(&mut self, me: &ActorRef<Msg>) {
        self.n += 1;
        self.context.board().beat_n = self.n;
        self.beats.retain(Task::is_running);
        let (n, beat) = (self.n, self.make());
        let Ok(body) = codec::encode(&beat) else { return };
        let (link, me) = (self.context.deps.link.clone(), me.clone());
        self.beats.push(Task::spawn(async move {
            let headers =
                Headers::new().with(names::KIND, Beat::KIND).with(names::CONTENT_TYPE, names::MSGPACK);
            let result = link.beat(headers, body.into()).await;
            drop(me.cast(Msg::Answered(n, result)));
        }));
    }

    fn make(&self) -> Beat {
        let context = &self.context;
        let usage = context.deps.facts.usage();
        let board = context.board();
        let running = board.processes.values().filter(|v| v.alive).count();
        Beat {
            machine: context.identity.machine.clone(),
            boot: context.identity.boot.clone(),
            incarnation: context.incarnation,
            n: self.n,
            server: board.bus.server.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            usage,
            running: u32::try_from(running).unwrap_or(u32::MAX),
            assigned: board.assigned,
            run: board.run,
            files: board.files_held,
            secrets: board.secrets_held,
            report: board.report_seq,
            holder: board.host.is_some(),
            wall: context.deps.clock.wall().0,
            draining: false,
            strain: board.strains.memory.clone(),
            disk_strain: board.strains.disk.clone(),
            pid_strain: board.strains.pids.clone(),
        }
    }

    fn answered(&mut self, me: &ActorRef<Msg>, n: u64, result: Result<Bytes, RequestError>) {
        match result {
            Ok(body) => {
                self.silent = 0;
                self.context.board().bus.controllers = true;
                if n > self.answered {
                    self.answered = n;
                    self.reply(me, &body);
                }
                self.known();
            }
            // Controllers are down: another server would not change that.
            Err(RequestError::NoResponders { .. }) => {
                self.silent = 0;
                self.context.board().bus.controllers = false;
                self.known();
            }
            Err(RequestError::Disconnected { .. }) => self.silent = 0,
            Err(RequestError::Timeout { .. }) => {
                self.silent += 1;
                if self.silent >= SILENT_BEATS && self.reconnecting.is_none() {
                    self.reconnect(me);
                }
            }
        }
    }

    fn known(&self) {
        self.context.registry.cast(registry::Msg::Known);
    }

    fn reply(&mut self, me: &ActorRef<Msg>, body: &[u8]) {
        let reply: BeatReply = match codec::decode(body) {
            Ok(reply) => reply,
            Err(error) => return tracing::debug!(%error, "the answer to a beat is unreadable"),
        };
        self.refused(reply.refused.as_deref());
        if self.context.board().bus.refused.is_some() {
            return;
        }
        self.context.board().bus.unregistered = reply.unregistered;
        if reply.unregistered && self.registering.is_none() {
            self.register(me);
        }
        self.reported(reply.report);
        let (run, files, secrets) = {
            let board = self.context.board();
            (board.run, board.files_held, board.secrets_held)
        };
        for (kind, held, told) in [
            (DocumentKind::Run, run, reply.run),
            (DocumentKind::Files, files, reply.files),
            (DocumentKind::Secrets, secrets, reply.secrets),
        ] {
            if should_read(&held, told) {
                self.context.registry.cast(registry::Msg::Read(kind));
            }
        }
    }

    /// Reports anew what the store does not have any more: nothing else would, on a host where nothing changes.
    fn reported(&mut self, seen: u64) {
        let stored = self.context.board().report_seq;
        let was = std::mem::replace(&mut self.told, stored);
        self.unseen = if seen < was.min(stored) { self.unseen + 1 } else { 0 };
        if self.unseen >= UNSEEN_BEATS {
            self.unseen = 0;
            self.context.reporter.cast(reporter::Msg::Connected);
        }
    }

    /// Another instance beats under this name: this one goes on with what runs, and acts on nothing else.
    fn refused(&mut self, refused: Option<&str>) {
        let before = std::mem::replace(&mut self.context.board().bus.refused, refused.map(str::to_owned));
        if before.as_deref() == refused {
            return;
        }
        self.context.condition(Reason::DuplicateIdentity, refused.map(str::to_owned));
        if refused.is_none() {
            self.context.registry.cast(registry::Msg::Returned);
        } else {
            tracing::error!(?refused, "this instance may not act under its name");
        }
    }

    fn register(&mut self, me: &ActorRef<Msg>) {
        let (context, me) = (self.context.clone(), me.clone());
        self.registering = Some(Task::spawn(async move {
            let result = register(&context).await;
            // Once a beat would be enough; a refusal is not going to change so fast.
            if result.is_err() {
                context.deps.clock.sleep_ms(BEAT_MS).await;
            }
            drop(me.cast(Msg::Registered(result)));
        }));
    }

    fn reconnect(&mut self, me: &ActorRef<Msg>) {
        tracing::warn!("two beats were not answered: trying another connection");
        self.silent = 0;
        let (context, me) = (self.context.clone(), me.clone());
        self.reconnecting = Some(Task::spawn(async move {
            let deps = &context.deps;
            deps.clock.sleep_ms(deps.entropy.below(RECONNECT_JITTER_MS)).await;
            deps.link.reconnect().await;
            deps.clock.sleep_ms(RECONNECT_PAUSE_MS).await;
            drop(me.cast(Msg::Reconnected));
        }));
    }

    fn link(&mut self, me: &ActorRef<Msg>, link: &LinkState) {
        let now = self.context.deps.clock.wall();
        let came =
            link.connected && (link.connection != self.connection || !self.context.board().bus.connected);
        {
            let mut board = self.context.board();
            let bus = &mut board.bus;
            bus.connected = link.connected;
            bus.server = link.server.clone();
            bus.alone_since = if link.connected { None } else { bus.alone_since.or(Some(now)) };
        }
        if came {
            self.connection = link.connection;
            self.silent = 0;
            self.context.registry.cast(registry::Msg::Returned);
            self.context.reporter.cast(reporter::Msg::Connected);
            self.context.relay.cast(relay::Msg::Fetch);
            self.beat(me);
        }
    }
}

async fn register(context: &Shared) -> Result<(), String> {
    let request = RegisterRequest {
        machine: context.identity.machine.clone(),
        boot: context.identity.boot.clone(),
        incarnation: context.incarnation,
        facts: context.board().facts.clone(),
        labels: context.deps.config.labels.clone(),
    };
    let body = codec::encode(&request).map_err(|error| error.to_string())?;
    let headers =
        Headers::new().with(names::KIND, RegisterRequest::KIND).with(names::CONTENT_TYPE, names::MSGPACK);
    let answers = context
        .deps
        .link
        .api_collect((Verb::Register, None), headers, body.into(), REGISTER_MS)
        .await
        .map_err(|error| error.to_string())?;
    let end = answers.last().and_then(|m| m.headers.get(names::END)).unwrap_or_default();
    if end == "ok" {
        return Ok(());
    }
    let why = answers.last().and_then(|m| m.headers.get(names::MESSAGE)).unwrap_or("refused");
    Err(why.to_owned())
}

async fn beat_timer(context: Shared, me: ActorRef<Msg>) {
    let clock = context.deps.clock.clone();
    let mut next = clock.mono();
    loop {
        if me.cast(Msg::Beat).is_err() {
            return;
        }
        // On a fixed grid, and never several at once after a pause.
        next = next.plus_ms(BEAT_MS).max(clock.mono());
        clock.sleep_until(next).await;
    }
}

async fn watch_link(context: Shared, me: ActorRef<Msg>) {
    let mut link = context.deps.link.link();
    loop {
        let state = link.borrow_and_update().clone();
        if me.cast(Msg::Link(state)).is_err() || link.changed().await.is_err() {
            return;
        }
    }
}

/// A replica that lags behind answers the first read with an older document (2 % of reads on three idle servers, 16 %
/// under load). The hint has told which revision there is: it is asked for again soon, rather than with the next beat.
async fn ask_again(context: Shared, kind: DocumentKind, revision: Revision) {
    for pause in AGAIN_MS {
        context.deps.clock.sleep_ms(pause).await;
        let held = match kind {
            DocumentKind::Run => context.board().run.revision,
            DocumentKind::Files => context.board().files_held.revision,
            DocumentKind::Secrets => context.board().secrets_held.revision,
        };
        if held >= revision {
            return;
        }
        context.registry.cast(registry::Msg::Read(kind));
    }
}

async fn hear_hints(context: Shared, me: ActorRef<Msg>) {
    let mut again: Vec<Task> = Vec::new();
    loop {
        match context.deps.link.hints().await {
            Ok(mut hints) => {
                while let Some(hinted) = hints.next().await {
                    if me.cast(Msg::Hint(hinted.hint)).is_err() {
                        return;
                    }
                    if let (Hint::Document(kind), Some(revision)) = (hinted.hint, hinted.revision) {
                        again.retain(Task::is_running);
                        again.push(Task::spawn(ask_again(context.clone(), kind, revision)));
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "hints cannot be heard"),
        }
        context.deps.clock.sleep_ms(HINTS_AGAIN_MS).await;
    }
}
