//! The root: starts the actors of a replica, starts a failed one again with backoff, ends them in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use ostler_bus::TopicRef;
use ostler_controller_core::liveness::{Limits, Signals};
use ostler_schemas::ControllerName;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::watch;

use super::controllers::{
    ConfigFileController, DeploymentController, GarbageController, NodeController, ProcessController,
    Scheduler, SecretController,
};
use super::reconciler::{Controller, Reconciler};
use super::{Context, Task, canary, ears, leader, observer, task};
use crate::api::{self, ApiDeps};
use crate::snapshot::SnapshotWriter;

/// The first pause before a failed actor is started again.
const RESTART_FIRST_MS: u64 = 100;
/// The longest.
const RESTART_MAX_MS: u64 = 15_000;
/// A start that has lasted so long makes the next failure a first one again.
const RESTART_FORGET_MS: u64 = 60_000;
/// Metrics of leadership are refreshed so often.
const METRICS_MS: u64 = 1000;

/// The children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// Informers into the snapshot.
    Observer,
    /// Liveness.
    Ears,
    /// Leadership.
    Leader,
    /// A controller's loop.
    Reconciler(ControllerName),
    /// The API.
    Api,
}

/// Every child.
pub const CHILDREN: [Child; 11] = [
    Child::Observer,
    Child::Ears,
    Child::Leader,
    Child::Api,
    Child::Reconciler(ControllerName::Node),
    Child::Reconciler(ControllerName::Scheduler),
    Child::Reconciler(ControllerName::Process),
    Child::Reconciler(ControllerName::Deployment),
    Child::Reconciler(ControllerName::ConfigFile),
    Child::Reconciler(ControllerName::Secret),
    Child::Reconciler(ControllerName::Garbage),
];

/// The actor.
pub struct Root;

/// What it starts with.
pub struct Args {
    /// Ports and channels.
    pub context: Context,
    /// How long silence may last.
    pub limits: Limits,
    /// Connections of the canaries.
    pub canaries: Vec<TopicRef>,
    /// Where signals are published.
    pub signals: watch::Sender<Arc<Signals>>,
    /// What the API needs.
    pub api: ApiDeps,
}

/// Its messages.
pub enum Msg {
    /// Start a child (again).
    Start(Child),
    /// Refresh metrics.
    Metrics,
    /// End a child as a failure would: for tests of supervision.
    Crash(Child),
    /// Give leases back and finish what the API has begun; answered when both are done.
    Retire(RpcReplyPort<()>),
}

struct Life {
    failures: u32,
    started: ostler_schemas::time::Mono,
}

/// Its state.
pub struct State {
    args: Args,
    alive: BTreeMap<u64, (Child, ActorCell)>,
    lives: BTreeMap<Child, Life>,
    leader: Option<ActorRef<leader::Msg>>,
    api: Option<ActorRef<api::Msg>>,
    tasks: Vec<Task>,
}

impl Actor for Root {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, me: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        for child in CHILDREN {
            me.cast(Msg::Start(child))?;
        }
        let context = &args.context;
        let mut tasks: Vec<Task> =
            args.canaries.iter().map(|topic| canary::spawn(topic.clone(), context.clock.clone())).collect();
        tasks.push(super::warden::spawn(context.clone()));
        tasks.push(super::every(context.clock.clone(), METRICS_MS, move || me.cast(Msg::Metrics).is_ok()));
        Ok(State { args, alive: BTreeMap::new(), lives: BTreeMap::new(), leader: None, api: None, tasks })
    }

    async fn handle(&self, me: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Start(child) => {
                if let Err(error) = state.start(&me, child).await {
                    state.failed(&me, child, &error.to_string());
                }
            }
            Msg::Metrics => {
                let context = &state.args.context;
                context.metrics.leading(|c| context.lanes.leads(c));
                context.metrics.unreadable(context.snapshot.fleet().unreadable.len());
            }
            Msg::Crash(child) => {
                let cells = state.alive.values().filter(|(alive, _)| *alive == child);
                cells.for_each(|(_, cell)| cell.kill());
            }
            Msg::Retire(reply) => state.retire(reply),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => state.ended(&me, &cell, &error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                state.ended(&me, &cell, &reason.unwrap_or_else(|| "it ended".to_owned()));
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

fn pid(id: ActorId) -> u64 {
    id.pid()
}

impl State {
    async fn start(&mut self, me: &ActorRef<Msg>, child: Child) -> Result<(), ActorProcessingErr> {
        let cell = self.spawn(me, child).await?;
        self.alive.insert(pid(cell.get_id()), (child, cell));
        let started = self.args.context.clock.mono();
        self.lives.entry(child).or_insert(Life { failures: 0, started }).started = started;
        Ok(())
    }

    async fn spawn(&mut self, root: &ActorRef<Msg>, child: Child) -> Result<ActorCell, ActorProcessingErr> {
        let context = self.args.context.clone();
        let me = root.get_cell();
        let cell = match child {
            Child::Observer => {
                let args = observer::Args {
                    store: context.store.clone(),
                    clock: context.clock.clone(),
                    entropy: context.entropy.clone(),
                    writer: SnapshotWriter::again(&context.snapshot),
                    inboxes: context.inboxes.clone(),
                    metrics: context.metrics.clone(),
                };
                Actor::spawn_linked(None, observer::Observer, args, me).await?.0.get_cell()
            }
            Child::Ears => {
                let args =
                    ears::Args { context, limits: self.args.limits, signals: self.args.signals.clone() };
                Actor::spawn_linked(None, ears::Ears, args, me).await?.0.get_cell()
            }
            Child::Leader => {
                let (actor, _) = Actor::spawn_linked(None, leader::Leader, context, me).await?;
                self.leader = Some(actor.clone());
                actor.get_cell()
            }
            Child::Reconciler(c) => spawn_reconciler(c, context, me).await?,
            Child::Api => {
                let actor = api::spawn(self.args.api.clone(), root).await?;
                self.api = Some(actor.clone());
                actor.get_cell()
            }
        };
        Ok(cell)
    }

    /// Neither waits for the other: successors need the leases, callers their answers.
    fn retire(&mut self, reply: RpcReplyPort<()>) {
        let (leader, api) = (self.leader.clone(), self.api.clone());
        self.tasks.push(task(async move {
            let leases = async {
                if let Some(leader) = leader {
                    leader.call(leader::Msg::Retire, None).await.ok();
                }
            };
            let requests = async {
                if let Some(api) = api {
                    api.call(api::Msg::Retire, None).await.ok();
                }
            };
            futures::join!(leases, requests);
            reply.send(()).ok();
        }));
    }

    fn ended(&mut self, me: &ActorRef<Msg>, cell: &ActorCell, why: &str) {
        if let Some((child, _)) = self.alive.remove(&pid(cell.get_id())) {
            self.failed(me, child, why);
        }
    }

    fn failed(&mut self, me: &ActorRef<Msg>, child: Child, why: &str) {
        let context = &self.args.context;
        context.metrics.restarts.inc();
        let now = context.clock.mono();
        let life = self.lives.entry(child).or_insert(Life { failures: 0, started: now });
        if now.since_ms(life.started) > RESTART_FORGET_MS {
            life.failures = 0;
        }
        let pause = (RESTART_FIRST_MS << life.failures.min(10)).min(RESTART_MAX_MS);
        life.failures += 1;
        tracing::error!(?child, why, pause_ms = pause, "an actor ended; it is started again");
        let (clock, me) = (context.clock.clone(), me.clone());
        self.tasks.retain(|t| !t.is_finished());
        self.tasks.push(task(async move {
            clock.sleep_ms(pause).await;
            super::post(&me, Msg::Start(child));
        }));
    }
}

async fn spawn_reconciler(
    c: ControllerName,
    context: Context,
    me: ActorCell,
) -> Result<ActorCell, ActorProcessingErr> {
    match c {
        ControllerName::Node => reconciler(NodeController, context, me).await,
        ControllerName::Scheduler => reconciler(Scheduler, context, me).await,
        ControllerName::Process => reconciler(ProcessController, context, me).await,
        ControllerName::Deployment => reconciler(DeploymentController, context, me).await,
        ControllerName::ConfigFile => reconciler(ConfigFileController, context, me).await,
        ControllerName::Secret => {
            let vault = Arc::clone(&context.vault);
            reconciler(SecretController(vault), context, me).await
        }
        ControllerName::Garbage => reconciler(GarbageController, context, me).await,
    }
}

async fn reconciler<C: Controller>(
    controller: C,
    context: Context,
    me: ActorCell,
) -> Result<ActorCell, ActorProcessingErr> {
    let (actor, _) = Actor::spawn_linked(None, Reconciler::<C>::default(), (controller, context), me).await?;
    Ok(actor.get_cell())
}
