//! The accept loop: from messages to handlers, each caller within its share.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, StreamExt};
use ostler_bus::topic::{Endpoint, Message, ServiceSpec};
use ostler_controller_core::admission::{conflict, forbidden, invalid, unavailable};
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::liveness::Signals;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::subject::{ApiSubject, Verb};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::api::{ApiError, ApiErrorCode};
use ostler_schemas::{Actor, Name, Revision, headers};
use ractor::RpcReplyPort;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::asks::Asks;
use super::audit::Refusals;
use super::identity::{Caller, Role, may, prove};
use super::reply::Responder;
use super::streams::Streams;
use super::usage::UsageMemory;
use super::{ApiDeps, handlers};

/// Trials of files on nodes at one time: each lasts as long as validators do, and asks hundreds of nodes.
const TRIALS_AT_ONCE: usize = 2;
/// Requests of up to 16 MiB that are worked on at once: decoded and checked each takes several times its size.
const LARGE_AT_ONCE: usize = 2;

/// Readings of stored output at one time. Each is a consumer of the stream, of which all replicas share a hundred.
const STORED_AT_ONCE: usize = 8;

/// What every handler may use.
pub(super) struct Shared {
    pub(super) deps: ApiDeps,
    pub(super) asks: Asks,
    pub(super) refusals: Refusals,
    pub(super) usage: UsageMemory,
    pub(super) streams: Streams,
    shares: Mutex<BTreeMap<Name, usize>>,
    at_once: Arc<Semaphore>,
    /// Places for requests whose documents were sent ahead.
    pub(super) large: Semaphore,
    /// Places for trials on nodes.
    pub(super) trials: Semaphore,
    /// Places for readings of stored output.
    pub(super) stored: Arc<Semaphore>,
    retiring: watch::Sender<bool>,
}

/// A request on its way.
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) verb: Verb,
    pub(super) message: Message,
}

impl Call {
    /// The body, if it is an envelope of `T`.
    pub(super) fn decode<T: Wire>(&self, shared: &Shared) -> Result<T, ApiError> {
        codec::decode(&self.message.body).map_err(|error| {
            shared.deps.metrics.garbage.inc();
            invalid(format!("the request cannot be read: {error}; are client and server of one version?"))
        })
    }

    /// What the caller has seen already: nothing older may be answered.
    fn seen(&self) -> Revision {
        let seen = self.message.headers.get(headers::MIN_REVISION).and_then(|text| text.parse().ok());
        Revision(seen.unwrap_or(0))
    }
}

impl Shared {
    pub(super) fn new(deps: ApiDeps) -> Self {
        let at_once = Arc::new(Semaphore::new(deps.limits.at_once));
        let (asks, refusals) = (Asks::default(), Refusals::default());
        Self {
            deps,
            asks,
            refusals,
            usage: UsageMemory::default(),
            streams: Streams::default(),
            shares: Mutex::new(BTreeMap::new()),
            at_once,
            large: Semaphore::new(LARGE_AT_ONCE),
            trials: Semaphore::new(TRIALS_AT_ONCE),
            stored: Arc::new(Semaphore::new(STORED_AT_ONCE)),
            retiring: watch::Sender::new(false),
        }
    }

    /// Done when this replica has been told to end.
    async fn retires(&self) -> ApiError {
        // The sender is part of this: it cannot be gone.
        self.retiring.subscribe().wait_for(|retiring| *retiring).await.ok();
        leaving()
    }

    /// The snapshot, not older than what the caller has seen.
    pub(super) async fn fleet(&self, call: &Call) -> Result<Arc<Fleet>, ApiError> {
        self.fleet_at(call.seen()).await
    }

    pub(super) async fn fleet_at(&self, revision: Revision) -> Result<Arc<Fleet>, ApiError> {
        let behind = |error: crate::snapshot::Behind| unavailable(format!("{error}; try again"));
        self.deps.snapshot.at_least(revision, self.deps.limits.catch_up_ms).await.map_err(behind)
    }

    pub(super) fn signals(&self) -> Arc<Signals> {
        Arc::clone(&self.deps.signals.borrow())
    }

    /// Takes part of the caller's share of requests, if there is any left.
    fn admit(self: &Arc<Self>, caller: &Name) -> Option<Ticket> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let count = shares.entry(caller.clone()).or_default();
        if *count >= self.deps.limits.per_caller {
            return None;
        }
        *count += 1;
        self.deps.metrics.in_flight.inc();
        Some(Ticket { shared: Arc::clone(self), caller: caller.clone() })
    }
}

/// Part of a caller's share; given back when dropped.
struct Ticket {
    shared: Arc<Shared>,
    caller: Name,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.deps.metrics.in_flight.dec();
        let mut shares = self.shared.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = shares.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                shares.remove(&self.caller);
            }
        }
    }
}

/// Whether the answer to a verb may last.
const fn lasts(verb: Verb) -> bool {
    matches!(verb, Verb::Watch | Verb::Logs | Verb::Events | Verb::Exec)
}

/// The micro service as `nats service info ostler-api` shows it.
fn service() -> ServiceSpec {
    let endpoint = |verb: Verb| Endpoint {
        name: verb.as_str().to_owned(),
        subject: verb.endpoint(),
        shared: verb.is_shared(),
    };
    ServiceSpec {
        name: "ostler-api".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: "Ostler: what operators and agents ask the control plane for".to_owned(),
        endpoints: Verb::ALL.into_iter().map(endpoint).collect(),
    }
}

/// What a caller is told who comes too late; it may ask again at once, and another replica answers.
fn leaving() -> ApiError {
    unavailable("this controller is ending: ask again")
}

/// Serves until the subscription ends; returns why. Told to retire, it begins nothing more and says when all that was
/// begun is done.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut retired: mpsc::UnboundedReceiver<RpcReplyPort<()>>,
) -> String {
    let mut requests = match shared.deps.topic.serve(service()).await {
        Ok(requests) => requests,
        Err(error) => return error.to_string(),
    };
    let mut running: JoinSet<()> = JoinSet::new();
    let mut waiting: Vec<RpcReplyPort<()>> = Vec::new();
    loop {
        if running.is_empty() {
            for reply in waiting.drain(..) {
                reply.send(()).ok();
            }
        }
        tokio::select! {
            biased;
            Some(_) = running.join_next(), if !running.is_empty() => {}
            Some(reply) = retired.recv() => {
                shared.retiring.send_replace(true);
                waiting.push(reply);
            }
            message = requests.next() => match message {
                Some(message) => accept(&shared, message, &mut running).await,
                None => return "the subscription ended".to_owned(),
            },
        }
    }
}

async fn accept(shared: &Arc<Shared>, message: Message, running: &mut JoinSet<()>) {
    let Some(subject) = ApiSubject::parse(&message.subject) else {
        shared.deps.metrics.garbage.inc();
        return;
    };
    let mut responder = Responder::to(&shared.deps.topic, &message);
    let verb = subject.verb;
    let caller = match check(shared, &subject, &message) {
        Ok(caller) => caller,
        Err(error) => {
            shared.deps.metrics.answered(verb, outcome(&Err(error.clone())), 0);
            if let Some(responder) = &mut responder {
                responder.fail(&error).await;
            }
            return;
        }
    };
    if verb == Verb::Relay {
        // In order, here: chunks of one relay must not overtake each other.
        let id = subject.rest.as_deref().unwrap_or_default();
        match caller.role {
            Role::Node if Asks::is_poll(&message) => {
                let Some(responder) = responder else { return };
                let who = (&caller, shared.deps.clock.mono());
                if let Some(mut unwanted) = shared.asks.poll(who, id, &message, responder).await {
                    unwanted.fail(&conflict("the caller is gone")).await;
                }
            }
            Role::Node => {
                if let Some(mut unwanted) = shared.asks.relay(&caller, id, &message, responder) {
                    unwanted.fail(&conflict("the caller is gone")).await;
                }
            }
            Role::Operator => {
                shared.streams.attend(&caller.name, id, &message, shared.deps.clock.mono());
                if !message.body.is_empty() {
                    shared.asks.say(&caller.name, id, &message, responder).await;
                }
            }
        }
        return;
    }
    // A request that wants no answer gets nothing done: nobody could tell what became of it.
    let Some(mut responder) = responder else { return };
    // What every replica hears is another's to refuse.
    if verb.is_shared() && *shared.retiring.borrow() {
        shared.deps.metrics.answered(verb, "retiring", 0);
        responder.fail(&leaving()).await;
        return;
    }
    if lasts(verb) {
        running.spawn(stream(Arc::clone(shared), Call { caller, verb, message }, responder));
        return;
    }
    let Some(ticket) = shared.admit(&caller.name) else {
        shared.deps.metrics.throttled.inc();
        let error = unavailable("too many requests of this caller at once: wait for some to end");
        shared.deps.metrics.answered(verb, "throttled", 0);
        responder.fail(&error).await;
        return;
    };
    running.spawn(work(Arc::clone(shared), Call { caller, verb, message }, responder, ticket));
}

/// Identity first, then the verb, then the size: a stranger learns nothing else.
fn check(shared: &Shared, subject: &ApiSubject, message: &Message) -> Result<Caller, ApiError> {
    let (deps, verb) = (&shared.deps, subject.verb);
    let caller = prove(&deps.identities, subject, message).map_err(|mismatch| {
        deps.metrics.refused_identity.inc();
        shared.refusals.note(&Actor::User(subject.caller.clone()), verb, mismatch.message());
        forbidden(format!("{} may not call as {}: {}", "this connection", subject.caller, mismatch.message()))
    })?;
    if !may(caller.role, verb) {
        let allowed = match caller.role {
            Role::Node => "nodes may use asks, relay and register",
            Role::Operator => "asks and register are for nodes",
        };
        shared.refusals.note(&caller.actor(), verb, allowed);
        return Err(forbidden(format!("{} may not use {}: {allowed}", caller.actor(), verb.as_str())));
    }
    let (found, limit) = (message.body.len(), deps.limits.request_bytes);
    if found > limit {
        deps.metrics.garbage.inc();
        return Err(invalid(format!("the request has {found} bytes, the limit is {limit}")));
    }
    Ok(caller)
}

async fn work(shared: Arc<Shared>, call: Call, mut responder: Responder, _ticket: Ticket) {
    let start = shared.deps.clock.mono();
    let place = Arc::clone(&shared.at_once).acquire_owned().await.ok();
    let result = guarded(&shared, &call, &mut responder).await;
    drop(place);
    finish(&shared, &call, result, (responder, start)).await;
}

/// A stream holds no place among what runs at once: it lasts, and a few watchers would keep everybody else out.
async fn stream(shared: Arc<Shared>, call: Call, mut responder: Responder) {
    let (clock, limits, metrics) = (&shared.deps.clock, shared.deps.limits, &shared.deps.metrics);
    let start = clock.mono();
    let open = shared.streams.open(&call.caller.name, &call.message, limits.streams_per_caller, start);
    metrics.streams.inc();
    let _count = Counted(&shared);
    let result = tokio::select! {
        biased;
        why = open.over(clock, limits.unattended_ms) => Err(why),
        why = shared.retires() => Err(why),
        result = guarded(&shared, &call, &mut responder) => result,
    };
    drop(open);
    finish(&shared, &call, result, (responder, start)).await;
}

/// Counts a stream until it is dropped.
struct Counted<'a>(&'a Shared);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.deps.metrics.streams.dec();
    }
}

/// A handler that panics fails its request, nothing else.
async fn guarded(shared: &Shared, call: &Call, responder: &mut Responder) -> Result<u64, ApiError> {
    let handled = AssertUnwindSafe(handlers::handle(shared, call, responder)).catch_unwind().await;
    handled.unwrap_or_else(|_| {
        shared.deps.metrics.panics.inc();
        tracing::error!(verb = call.verb.as_str(), caller = %call.caller.name, "a handler panicked");
        Err(ApiError {
            code: ApiErrorCode::Unknown,
            ..unavailable("the server failed while it worked on this")
        })
    })
}

async fn finish(
    shared: &Shared,
    call: &Call,
    result: Result<u64, ApiError>,
    (mut responder, start): (Responder, Mono),
) {
    shared.deps.metrics.answered(call.verb, outcome(&result), elapsed(shared, start));
    match result {
        Ok(lost) => responder.end(lost).await,
        Err(error) => {
            let refused = matches!(
                error.code,
                ApiErrorCode::Refused | ApiErrorCode::Conflict | ApiErrorCode::Forbidden
            );
            if refused && changes(call.verb) {
                shared.refusals.note(&call.caller.actor(), call.verb, "refused by admission");
            }
            responder.fail(&error).await;
        }
    }
}

/// Whether a verb asks for a change: refused ones are audited too, together.
const fn changes(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::Apply
            | Verb::Delete
            | Verb::Scale
            | Verb::Put
            | Verb::Node
            | Verb::Config
            | Verb::Rollout
            | Verb::Register
    )
}

fn elapsed(shared: &Shared, start: Mono) -> u64 {
    shared.deps.clock.mono().since_ms(start)
}

fn outcome(result: &Result<u64, ApiError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => match error.code {
            ApiErrorCode::Refused => "refused",
            ApiErrorCode::NotFound => "not_found",
            ApiErrorCode::Conflict => "conflict",
            ApiErrorCode::Forbidden => "forbidden",
            ApiErrorCode::Invalid => "invalid",
            ApiErrorCode::Unavailable => "unavailable",
            ApiErrorCode::Unknown => "unknown",
            ApiErrorCode::Other => "other",
        },
    }
}
