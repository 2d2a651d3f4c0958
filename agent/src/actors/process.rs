//! One process: feeds its machine, carries out what it says in order, and shows it on the board.
//!
//! * [`start`]: what a start needs, and the start itself.
//! * [`hooks`]: commands that are run for it.
//! * [`probes`]: questions that are asked of it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use ostler_agent_core::holder::lines::spec::spec;
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_agent_core::ledger::Change;
use ostler_agent_core::unit::{Effect, Event, ProbeKind, StartFailure, Unit, UnitRecord};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::object::OwnerReference;
use ostler_schemas::{Kind, ObjectRef, Sha256};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::actors::host;
use crate::context::{ProcessView, Shared, Task};
use crate::ports::HostSpawn;

mod hooks;
mod probes;
mod start;

pub(crate) use start::{Who, prepare};

pub(crate) struct ProcessActor;

/// A request to the holder that must not be lost to a slow answer: a stop, an acknowledgement.
type Errands = Vec<Task>;

/// How long after a failed write of the ledger the holder is asked for its exits again.
const TELL_AGAIN_MS: u64 = 5_000;

/// Whom to tell how a process is started, or why that cannot be said.
pub(crate) type Asker = oneshot::Sender<Result<HostSpawn, String>>;

pub(crate) enum Msg {
    Event(Box<Event>),
    /// What the host has of it, and how many starts had been heard of when the host was asked.
    Listed(Box<Event>, u64),
    Owner(Option<OwnerReference>),
    /// How is the running incarnation started?
    Describe(Asker),
}

pub(crate) struct State {
    context: Shared,
    unit: Unit,
    owner: Option<OwnerReference>,
    armed: Option<(Mono, Task)>,
    probers: BTreeMap<ProbeKind, probes::Probing>,
    spawning: Option<Task>,
    /// The last incarnation that was started, and how many starts had been heard of with it.
    started: Option<(u64, u64)>,
    /// The artifacts that are being made ready.
    fetching: Option<Task>,
    /// Commands under way, by their numbers in the machine; dropping one kills it.
    runs: BTreeMap<u64, Task>,
    errands: Errands,
    /// The template that was looked for, because what runs was started with it.
    recalled: Option<Sha256>,
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
            probers: BTreeMap::new(),
            spawning: None,
            started: None,
            fetching: None,
            runs: BTreeMap::new(),
            errands: Vec::new(),
            recalled: None,
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
            // It says nothing of a start that it was too early for; nothing may follow from that.
            Msg::Listed(event, asked) if is_older(&event, asked, state.started) => {
                state.context.host.cast(host::Msg::Relist);
                return Ok(());
            }
            Msg::Event(event) | Msg::Listed(event, _) => state.take(&me, *event).await,
        }
        state.show();
        Ok(())
    }
}

impl State {
    async fn take(&mut self, me: &ActorRef<Msg>, event: Event) {
        let relist = relists(&event);
        if let Event::Ran { run, .. } = &event {
            self.runs.remove(run);
        }
        if let Event::Spawned(process) = &event {
            let heard = self.context.starts.fetch_add(1, Ordering::Relaxed) + 1;
            self.started = Some((process.incarnation, heard));
        }
        let now = self.context.deps.clock.now();
        let effects = self.unit.on(now, self.context.dice(), event);
        self.carry_out(me, effects).await;
        if relist {
            self.context.host.cast(host::Msg::Relist);
        }
        self.arm(me);
        self.recall(me);
        self.probe(me);
    }
}

/// Whether a listing was asked for before the last start was heard of, and lacks it: start and listing come by
/// different ways, and the later one may be here first.
fn is_older(event: &Event, asked: u64, started: Option<(u64, u64)>) -> bool {
    let (Event::Listed { alive, leftovers, exits, .. }, Some((incarnation, heard))) = (event, started) else {
        return false;
    };
    let told = alive.iter().map(|process| process.incarnation);
    let mut told = told.chain(leftovers.iter().copied()).chain(exits.iter().map(|exit| exit.incarnation));
    heard > asked && !told.any(|other| other == incarnation)
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
        | Event::Artifacts { .. }
        | Event::Listed { .. }
        | Event::HostLost
        | Event::Spawned(_)
        | Event::Exited(_)
        | Event::TreeEmpty(_)
        | Event::Probed { .. }
        | Event::Notified { .. }
        | Event::Ran { .. }
        | Event::Ask(_)
        | Event::Hold(_)
        | Event::Kept(..)
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
                Effect::Prepare(artifacts) => self.fetch(me, artifacts),
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
                    let context = self.context.clone();
                    self.errand(async move {
                        let (limits, rlimits) = match start::limits_of(&context, &template) {
                            Ok(both) => both,
                            Err(why) => return tracing::warn!(%key, why, "limits stay as they are"),
                        };
                        if let Err(error) = host.adjust(key, limits, (rlimits, spec(&template))).await {
                            tracing::warn!(%key, %error, "a limit could not be changed in place");
                        }
                    });
                }
                Effect::Run(run) => self.run(me, *run, durable.clone()),
                Effect::Cancel(run) => {
                    self.runs.remove(&run);
                }
                Effect::Signal { incarnation, signal } => {
                    let (host, key) = (self.context.deps.host.clone(), self.key(incarnation));
                    self.errand(async move {
                        if let Err(error) = host.signal(key, signal).await {
                            tracing::warn!(%key, %error, "a signal was not sent");
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
            template: self.unit.wanted().and_then(|wanted| wanted.template.clone()),
            unplanned: record.unplanned,
            reloads: self.unit.reloads().clone(),
        };
        let (changed, concerns, harmed) = {
            let mut board = self.context.board();
            let before = board.processes.insert(record.uid, view.clone());
            let harmed = before.as_ref().is_some_and(|b| b.unplanned != view.unplanned);
            let concerns = before.as_ref().is_none_or(|b| {
                (b.ready, b.blocks_starts, b.retired, b.goal, &b.owner)
                    != (view.ready, view.blocks_starts, view.retired, view.goal, &view.owner)
            });
            (before.as_ref() != Some(&view), concerns, harmed)
        };
        if changed {
            self.context.changed();
            self.context.stirred.notify_one();
        }
        if harmed {
            self.context.act();
        }
        if concerns {
            self.context.reassess();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_from_before_a_start_says_nothing_of_it() {
        let listed = |leftovers: Vec<u64>| Event::Listed {
            alive: Vec::new(),
            leftovers,
            exits: Vec::new(),
            boot: "boot".to_owned(),
        };
        let started = Some((3, 7));
        assert!(is_older(&listed(Vec::new()), 6, started));
        assert!(is_older(&listed(vec![2]), 6, started));
        assert!(!is_older(&listed(vec![3]), 6, started), "it is there: that is news, however old");
        assert!(!is_older(&listed(Vec::new()), 7, started), "it was asked for afterwards");
        assert!(!is_older(&listed(Vec::new()), 6, None));
    }
}
