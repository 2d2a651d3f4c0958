//! The API: a NATS micro service with one endpoint per verb (DESIGN.md 3.10), on every replica.
//!
//! Guarantees: a caller is who the bus says it is, in both places where the bus says so (the subject's token and the
//! server-written `Nats-Request-Info`); size and shape are checked before anything else; every change is audited
//! before and after; a change takes effect whole or not at all, and its outcome is definite or named by its
//! transaction; an answer is a numbered stream that says how it ends. No caller can starve another: each has its own
//! share of what runs at once. No input ends the daemon. A replica that is told to end refuses what comes in and finishes
//! what it has begun, so that whoever is refused can ask another at once.
//!
//! What is admitted is decided by `ostler_controller_core::admission`, what is shown by `…::status`; nothing of either
//! is decided here.

mod asks;
mod audit;
mod blobs;
mod chores;
mod commit;
mod handlers;
mod identity;
mod lines;
mod metrics;
mod renders;
mod reply;
mod server;
mod streams;
#[cfg(test)]
mod tests;
mod usage;
mod watch;

use std::sync::Arc;

use ostler_bus::{ClockRef, EntropyRef, StoreRef, TopicRef};
use ostler_controller_core::liveness::Signals;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use tokio::sync::{mpsc, watch as channel};

use crate::actors::leader::Lanes;
use crate::actors::{Task, task};
use crate::events::Teller;
use crate::snapshot::Snapshot;
use crate::vault::VaultRef;

pub use identity::{Identities, InvalidIdentities};
pub use metrics::ApiMetrics;

/// How much may go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Requests of one caller that are worked on at once. More are refused: the caller is told to slow down.
    pub per_caller: usize,
    /// Watches, logs and followed events of one caller. Beyond that its oldest one ends.
    pub streams_per_caller: usize,
    /// How long a stream lasts that its caller does not attend (see the module `streams`).
    pub unattended_ms: u64,
    /// Requests of all callers that run at once; others wait for their turn, each caller with no more than its share.
    pub at_once: usize,
    /// Largest request. The bus carries 1 MiB with headers.
    pub request_bytes: usize,
    /// The limit of `replicas` (CONTRACT.md 1.3).
    pub max_replicas: u32,
    /// How long this replica may take to catch up with what the caller has seen.
    pub catch_up_ms: u64,
    /// By then a change is decided, or its outcome is called unknown. Below the patience of clients (10 s).
    pub commit_ms: u64,
    /// A stream says something at least this often.
    pub keep_alive_ms: u64,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            per_caller: 32,
            streams_per_caller: 64,
            unattended_ms: 3_600_000,
            at_once: 128,
            request_bytes: 1 << 20,
            max_replicas: 5_000,
            catch_up_ms: 3_000,
            commit_ms: 7_000,
            keep_alive_ms: 5_000,
        }
    }
}

/// What the API needs.
#[derive(Clone)]
pub struct ApiDeps {
    /// The store.
    pub store: StoreRef,
    /// Messages, in account CP.
    pub topic: TopicRef,
    /// Time.
    pub clock: ClockRef,
    /// Randomness.
    pub entropy: EntropyRef,
    /// The fleet.
    pub snapshot: Snapshot,
    /// Liveness, as heard by this replica.
    pub signals: channel::Receiver<Arc<Signals>>,
    /// What opens and seals Secrets.
    pub vault: VaultRef,
    /// Who may call.
    pub identities: Arc<Identities>,
    /// What this replica leads: the leader of `garbage` also finishes deletions.
    pub lanes: Lanes,
    /// Events.
    pub teller: Teller,
    /// Metrics.
    pub metrics: Arc<ApiMetrics>,
    /// How much may go on at once.
    pub limits: ApiLimits,
}

/// Starts the API under a supervisor.
///
/// # Errors
/// If the actor cannot start.
pub async fn spawn<M: ractor::Message>(
    deps: ApiDeps,
    supervisor: &ActorRef<M>,
) -> Result<ActorRef<Msg>, SpawnErr> {
    let cell: ActorCell = supervisor.get_cell();
    Actor::spawn_linked(None, Api, deps, cell).await.map(|(actor, _)| actor)
}

/// The actor. It owns the tasks that serve: when it ends, they do.
pub struct Api;

/// Its messages.
#[derive(Debug)]
pub enum Msg {
    /// The subscription is gone: the supervisor starts the API anew.
    Ended(String),
    /// Take nothing more, finish what was begun; answered when that is done.
    Retire(RpcReplyPort<()>),
}

/// Its state.
pub struct State {
    _tasks: Vec<Task>,
    retire: mpsc::UnboundedSender<RpcReplyPort<()>>,
}

impl Actor for Api {
    type Msg = Msg;
    type State = State;
    type Arguments = ApiDeps;

    async fn pre_start(&self, me: ActorRef<Msg>, deps: ApiDeps) -> Result<State, ActorProcessingErr> {
        let shared = Arc::new(server::Shared::new(deps));
        let chores = task(chores::run(Arc::clone(&shared)));
        let auditor = task(audit::run(Arc::clone(&shared)));
        let (retire, retired) = mpsc::unbounded_channel();
        let serve = task(async move {
            let why = server::run(shared, retired).await;
            if me.cast(Msg::Ended(why)).is_err() {
                tracing::debug!("the API had ended already");
            }
        });
        Ok(State { _tasks: vec![serve, chores, auditor], retire })
    }

    async fn handle(
        &self,
        _me: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Ended(why) => Err(format!("the API's service ended: {why}").into()),
            // If nobody serves any more there is nothing to finish: dropping the reply says so.
            Msg::Retire(reply) => {
                state.retire.send(reply).ok();
                Ok(())
            }
        }
    }
}
