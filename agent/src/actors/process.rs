//! One process: feeds its machine, carries out what it says in order, and shows it on the board.

use std::sync::Arc;

use ostler_agent_core::confine::{self, Preparation};
use ostler_agent_core::environment::{Surroundings, words};
use ostler_agent_core::holder::lines::spec::spec;
use ostler_agent_core::holder::protocol::{Isolation, ProcKey, RunAs};
use ostler_agent_core::ledger::Change;
use ostler_agent_core::probe::{Prober, question};
use ostler_agent_core::unit::{Effect, Event, Start, StartFailure, Unit, UnitRecord, Wanted};
use ostler_schemas::spec::Probe;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::object::OwnerReference;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Kind, ObjectRef, Uid};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::actors::host;
use crate::context::{ProcessView, Shared, Task};
use crate::ports::{HostSpawn, HostUser, SpawnError};

pub(crate) struct ProcessActor;

/// A request to the holder that must not be lost to a slow answer: a stop, an acknowledgement.
type Errands = Vec<Task>;

/// How long after a failed write of the ledger the holder is asked for its exits again.
const TELL_AGAIN_MS: u64 = 5_000;

/// Whom to tell how a process is started, or why that cannot be said.
pub(crate) type Asker = oneshot::Sender<Result<HostSpawn, String>>;

pub(crate) enum Msg {
    Event(Box<Event>),
    Owner(Option<OwnerReference>),
    /// How is the running incarnation started?
    Describe(Asker),
}

pub(crate) struct State {
    context: Shared,
    unit: Unit,
    owner: Option<OwnerReference>,
    armed: Option<(Mono, Task)>,
    prober: Option<((u64, Probe), Task)>,
    spawning: Option<Task>,
    errands: Errands,
}

impl Actor for ProcessActor {
    type Msg = Msg;
    type State = State;
    type Arguments = (Shared, UnitRecord);

    async fn pre_start(
        &self,
        _: ActorRef<Msg>,
        (context, record): (Shared, UnitRecord),
    ) -> Result<State, ActorProcessingErr> {
        let state = State {
            context,
            unit: Unit::new(record),
            owner: None,
            armed: None,
            prober: None,
            spawning: None,
            errands: Vec::new(),
        };
        state.show();
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Owner(owner) => state.owner = owner,
            Msg::Describe(asker) => {
                state.describe(asker);
                return Ok(());
            }
            Msg::Event(event) => {
                let relist = relists(&event);
                let now = state.context.deps.clock.now();
                let effects = state.unit.on(now, state.context.dice(), *event);
                state.carry_out(&me, effects).await;
                if relist {
                    state.context.host.cast(host::Msg::Relist);
                }
                state.arm(&me);
                state.probe(&me);
            }
        }
        state.show();
        Ok(())
    }
}

/// Whether only a fresh listing can tell how things stand after an event.
fn relists(event: &Event) -> bool {
    match event {
        Event::SpawnUnknown(_) | Event::NotSpawned(_, StartFailure::Busy) => true,
        Event::NotSpawned(..)
        | Event::Want(_)
        | Event::Unwanted
        | Event::Gate(_)
        | Event::Needs(_)
        | Event::Listed { .. }
        | Event::HostLost
        | Event::Spawned(_)
        | Event::Exited(_)
        | Event::Ready { .. }
        | Event::Tick => false,
    }
}

fn cast(me: &ActorRef<Msg>, event: Event) {
    // An actor that has ended is replaced by one that begins with a listing.
    drop(me.cast(Msg::Event(Box::new(event))));
}

impl State {
    fn object(&self) -> ObjectRef {
        let record = self.unit.record();
        ObjectRef {
            kind: Kind::Process,
            namespace: Some(record.namespace.clone()),
            name: record.name.clone(),
        }
    }

    fn key(&self, incarnation: u64) -> ProcKey {
        ProcKey { uid: self.unit.record().uid, incarnation }
    }

    async fn carry_out(&mut self, me: &ActorRef<Msg>, effects: Vec<Effect>) {
        let mut durable = Ok(());
        for effect in effects {
            match effect {
                Effect::Persist => {
                    let change = Change::Unit(Box::new(self.unit.record().clone()));
                    durable = self.context.persist(change).await;
                }
                Effect::Start(start) => match &durable {
                    Ok(()) => self.start(me, *start),
                    Err(why) => {
                        let failure = StartFailure::Refused(format!("the ledger cannot be written: {why}"));
                        cast(me, Event::NotSpawned(start.incarnation, failure));
                    }
                },
                Effect::Acknowledge { incarnation, seq } => {
                    // An exit that is not durable stays with the holder, which is asked to tell it again.
                    if durable.is_err() {
                        let context = self.context.clone();
                        self.errand(async move {
                            context.deps.clock.sleep_ms(TELL_AGAIN_MS).await;
                            context.host.cast(host::Msg::Relist);
                        });
                    } else {
                        let (host, key) = (self.context.deps.host.clone(), self.key(incarnation));
                        self.errand(async move {
                            if let Err(error) = host.acknowledge(key, seq).await {
                                tracing::debug!(%key, %error, "an exit was not acknowledged");
                            }
                        });
                    }
                }
                Effect::Stop { incarnation, signal, grace_ms } => {
                    let (host, key) = (self.context.deps.host.clone(), self.key(incarnation));
                    let context = self.context.clone();
                    self.errand(async move {
                        if let Err(error) = host.stop(key, signal, grace_ms).await {
                            tracing::info!(%key, %error, "a stop did not reach the holder");
                            context.host.cast(host::Msg::Relist);
                        }
                    });
                }
                Effect::Adjust { incarnation, template } => {
                    let (host, key) = (self.context.deps.host.clone(), self.key(incarnation));
                    self.errand(async move {
                        if let Err(error) = host
                            .adjust(
                                key,
                                confine::limits(&template),
                                (confine::rlimits(&template), spec(&template)),
                            )
                            .await
                        {
                            tracing::warn!(%key, %error, "a limit could not be changed in place");
                        }
                    });
                }
                Effect::Tell(reason, message) => {
                    self.context.tell(self.object(), Some(self.unit.record().uid), reason, message);
                }
            }
        }
    }

    fn errand(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        self.errands.retain(Task::is_running);
        self.errands.push(Task::spawn(future));
    }

    fn start(&mut self, me: &ActorRef<Msg>, start: Start) {
        let (context, me) = (self.context.clone(), me.clone());
        let record = self.unit.record();
        let who = Who { uid: record.uid, object: self.object() };
        self.spawning = Some(Task::spawn(async move {
            let incarnation = start.incarnation;
            let event = match prepare(&context, &who, &start).await {
                Err((reason, why)) => Event::NotSpawned(incarnation, StartFailure::Failed(reason, why)),
                Ok(spawn) => match context.deps.host.spawn(spawn).await {
                    Ok(process) => Event::Spawned(process),
                    Err(SpawnError::Not(failure)) => Event::NotSpawned(incarnation, failure),
                    Err(SpawnError::Unknown(why)) => {
                        tracing::warn!(uid = %who.uid, why, "it is not known whether a start happened");
                        Event::SpawnUnknown(incarnation)
                    }
                },
            };
            cast(&me, event);
        }));
    }

    /// Tells how the incarnation that runs is started, from what is wanted of it now.
    fn describe(&mut self, asker: Asker) {
        let record = self.unit.record();
        let who = Who { uid: record.uid, object: self.object() };
        let start = match (&record.current, self.unit.wanted()) {
            (None, _) => Err("the process is not running".to_owned()),
            (Some(current), Some(Wanted { template: Some(template), version, token, ports, .. })) => {
                Ok(Start {
                    incarnation: current.incarnation,
                    template: Arc::clone(template),
                    version: *version,
                    token: *token,
                    ports: ports.clone(),
                })
            }
            (Some(_), _) => Err("the agent does not have the process's template at hand".to_owned()),
        };
        let context = self.context.clone();
        self.errand(async move {
            let described = match start {
                Ok(start) => prepare(&context, &who, &start).await.map_err(|(_, why)| why),
                Err(why) => Err(why),
            };
            // Who asked may have given up.
            drop(asker.send(described));
        });
    }

    /// One timer, for the moment that the machine names.
    fn arm(&mut self, me: &ActorRef<Msg>) {
        let due = self.unit.wake_at();
        if due == self.armed.as_ref().map(|(at, _)| *at) {
            return;
        }
        self.armed = due.map(|at| {
            let (clock, me) = (self.context.deps.clock.clone(), me.clone());
            let task = Task::spawn(async move {
                clock.sleep_until(at).await;
                cast(&me, Event::Tick);
            });
            (at, task)
        });
    }

    /// One prober, for the incarnation and probe that the machine names.
    fn probe(&mut self, me: &ActorRef<Msg>) {
        let wanted = self.unit.probing().map(|(incarnation, probe)| (incarnation, probe.clone()));
        if wanted == self.prober.as_ref().map(|(key, _)| key.clone()) {
            return;
        }
        self.prober = None;
        let (Some((incarnation, probe)), Some(wanted)) = (wanted, self.unit.wanted()) else { return };
        let Some(template) = wanted.template.clone() else { return };
        let address = self.context.board().facts.address.clone();
        let asked = question(&probe, &template, &wanted.ports, &address);
        let (context, me, ready) = (self.context.clone(), me.clone(), self.unit.is_ready());
        let key = (incarnation, probe.clone());
        let task = Task::spawn(async move {
            let clock = context.deps.clock.clone();
            let mut prober = Prober::new(probe, clock.mono(), ready);
            let mut told = None;
            loop {
                clock.sleep_until(prober.next()).await;
                let answer = match &asked {
                    Ok(question) => {
                        context.deps.host.ask(question.clone(), prober.probe().timeout.as_millis()).await
                    }
                    Err(why) => Err(why.clone()),
                };
                let changed = prober.answered(clock.mono(), answer.is_ok()).is_some();
                let message =
                    answer.err().map_or_else(String::new, |why| format!("its readiness probe fails: {why}"));
                let news = (prober.is_ready(), message);
                if changed || (!prober.is_ready() && told.as_ref() != Some(&news)) {
                    let (ready, message) = news.clone();
                    told = Some(news);
                    cast(&me, Event::Ready { incarnation, ready, message });
                }
            }
        });
        self.prober = Some((key, task));
    }

    /// Shows the process on the board, and wakes whom it concerns.
    fn show(&self) {
        let record = self.unit.record();
        let view = ProcessView {
            namespace: record.namespace.clone(),
            name: record.name.clone(),
            owner: self.owner.clone(),
            report: self.unit.report(),
            exits: self.unit.exits().to_vec(),
            orphan: self.unit.orphan(),
            goal: record.goal,
            alive: self.unit.may_be_alive(),
            ready: self.unit.is_ready(),
            runs_as_meant: self.unit.runs_as_meant(),
            blocks_starts: self.unit.blocks_starts(),
            retired: self.unit.is_retired(),
        };
        let (changed, concerns) = {
            let mut board = self.context.board();
            let before = board.processes.insert(record.uid, view.clone());
            let concerns = before.as_ref().is_none_or(|b| {
                (b.ready, b.blocks_starts, b.retired, b.goal, &b.owner)
                    != (view.ready, view.blocks_starts, view.retired, view.goal, &view.owner)
            });
            (before.as_ref() != Some(&view), concerns)
        };
        if changed {
            self.context.changed();
        }
        if concerns {
            self.context.reassess();
        }
    }
}

struct Who {
    uid: Uid,
    object: ObjectRef,
}

/// Everything that a start needs, or why it cannot be.
async fn prepare(context: &Shared, who: &Who, start: &Start) -> Result<HostSpawn, (Reason, String)> {
    let template = Arc::clone(&start.template);
    let user = context
        .deps
        .host
        .user(template.user.clone(), template.group.clone())
        .await
        .map_err(|why| (Reason::UserUnknown, why))?;
    if user.owner.uid == 0 && !user.is_self && !context.deps.config.allow_root {
        let why = "this host does not allow processes to run as root".to_owned();
        return Err((Reason::UserUnknown, why));
    }
    let failed = |why: String| (Reason::StartFailed, why);
    let namespace = who.object.namespace.clone().ok_or_else(|| failed("it has no namespace".to_owned()))?;
    let facts = context.node_facts();
    let words = words(&Surroundings {
        template: &template,
        uid: who.uid,
        namespace: &namespace,
        name: &who.object.name,
        version: start.version,
        token: start.token,
        ports: &start.ports,
        node: &context.node,
        facts: &facts,
        user: &user.facts,
    })
    .map_err(|error| failed(error.to_string()))?;
    let preparation = Preparation::of(who.uid, &template);
    let prepared = context.deps.host.prepare(preparation, user.clone()).await.map_err(failed)?;
    let words = words.with_files(&prepared.variables);
    Ok(HostSpawn {
        key: ProcKey { uid: who.uid, incarnation: start.incarnation },
        namespace,
        name: who.object.name.clone(),
        argv: words.argv,
        env: words.env,
        cwd: template.working_directory.clone(),
        user: run_as(&user),
        umask: template.umask.bits(),
        rlimits: confine::rlimits(&template),
        limits: confine::limits(&template),
        oom_score_adjust: template.oom_score_adjust,
        allow_new_privileges: !template.no_new_privileges,
        isolation: Isolation {
            nice: template.nice,
            capabilities: confine::capabilities(&template, user.owner.uid, user.is_self),
            private_tmp: prepared.private_tmp,
            read_only_paths: prepared.read_only_paths,
        },
        log: spec(&template),
        stop_signal: template.kill_signal,
        grace_ms: template.timeout_stop_sec.as_millis(),
    })
}

/// The user to change to; none when the process runs as the agent does anyway, so that hosts without root can.
fn run_as(user: &HostUser) -> Option<RunAs> {
    let HostUser { owner, groups, is_self, .. } = user;
    (!is_self).then(|| RunAs { uid: owner.uid, gid: owner.gid, groups: groups.clone() })
}
