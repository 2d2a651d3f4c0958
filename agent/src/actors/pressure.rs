//! Looks at the host: how short of things it is, what its processes take, and what else runs there.
//!
//! The cheap look (a few files) is taken once a second. The dear one, at every process, is taken at the rate at which
//! somebody needs it: seldom for the work outside Ostler, more often while memory is short, and at once when somebody
//! asks. What comes of it stays here and in beats; a report is written only when a condition or the work outside
//! Ostler has really changed.

use ostler_agent_core::pressure::{Amount, Monitor, Resource};
use ostler_agent_core::usage::{HostLook, Meter, Outside, Watched};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::usage::{Others, Strain, UsageEntry};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::context::{Shared, Task};

/// How often the host as a whole is looked at.
const TICK_MS: u64 = 1_000;
/// How often all processes are looked at when nobody asks: a thousand of them cost some 50 ms, and what is made of it
/// is smoothed over half a minute.
const LOOK_MS: u64 = 15_000;
/// The same while memory is short: who is to go is decided by these figures.
const STRAINED_LOOK_MS: u64 = 2_000;
/// Figures are told as they are up to this age, one beat.
const FRESH_MS: u64 = 1_000;
/// Rates over a longer time than this are no answer to who asks now: a second look is taken.
const WARM_MS: u64 = 3_000;
/// Between the two looks of an answer.
const AGAIN_MS: u64 = 500;

pub(crate) struct PressureActor;

/// Where an answer goes.
pub(crate) type Asker = oneshot::Sender<Vec<UsageEntry>>;

pub(crate) enum Msg {
    /// A second has passed.
    Tick,
    /// All processes were looked at.
    Looked(HostLook),
    /// It is time for the second look of an answer.
    Again,
    /// Somebody wants to know what each process takes now.
    Ask(Asker),
}

pub(crate) struct State {
    context: Shared,
    monitor: Monitor,
    meter: Meter,
    outside: Outside,
    memory: Option<Amount>,
    looking: Option<Task>,
    again: Option<Task>,
    next_look: Mono,
    askers: Vec<Asker>,
    _ticks: Task,
}

impl Actor for PressureActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.pressure.set(me.clone());
        let now = context.deps.clock.mono();
        // What its forerunner said holds until this one has seen for long enough that it is over.
        let monitor = {
            let board = context.board();
            let told = |r: Resource| board.conditions.contains_key(r.condition().as_str());
            Monitor::resume(context.deps.config.pressure, told)
        };
        Ok(State {
            monitor,
            meter: Meter::default(),
            outside: Outside::default(),
            memory: None,
            looking: None,
            again: None,
            next_look: now,
            askers: Vec::new(),
            _ticks: Task::spawn(tick(context.clone(), me)),
            context,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Tick => state.tick(&me),
            Msg::Looked(look) => state.looked(&me, &look),
            Msg::Again => {
                state.again = None;
                state.look(&me);
            }
            Msg::Ask(asker) => {
                state.askers.push(asker);
                if !state.answer() {
                    state.look(&me);
                }
            }
        }
        Ok(())
    }
}

async fn tick(context: Shared, me: ActorRef<Msg>) {
    while me.cast(Msg::Tick).is_ok() {
        context.deps.clock.sleep_ms(TICK_MS).await;
    }
}

impl State {
    fn now(&self) -> Mono {
        self.context.deps.clock.mono()
    }

    fn tick(&mut self, me: &ActorRef<Msg>) {
        let now = self.now();
        let readings = self.context.deps.facts.readings();
        self.memory = readings.memory;
        for change in self.monitor.look(now, &readings) {
            self.context.condition(change.resource.condition(), change.message);
        }
        self.strain(now);
        let strained = self.monitor.strained_ms(Resource::Memory, now).is_some();
        let due = if strained { self.next_look.min(now.plus_ms(STRAINED_LOOK_MS)) } else { self.next_look };
        self.next_look = due;
        if now >= due {
            self.look(me);
        }
    }

    /// What beats tell while memory is short.
    fn strain(&self, now: Mono) {
        let strain = self.monitor.strained_ms(Resource::Memory, now).map(|since_ms| Strain {
            since_ms,
            used: self.memory.map_or(1000, Amount::used_permille),
            processes: self.meter.biggest().into_iter().map(|(uid, size)| (uid, size.as_bytes())).collect(),
            of: u32::try_from(self.meter.len()).unwrap_or(u32::MAX),
            total: self.memory.map_or(0, |memory| memory.total),
        });
        self.context.board().strains.memory = strain;
    }

    fn look(&mut self, me: &ActorRef<Msg>) {
        if self.looking.as_ref().is_some_and(Task::is_running) {
            return;
        }
        let (context, me) = (self.context.clone(), me.clone());
        let watched = watched(&context);
        self.next_look = self.now().plus_ms(LOOK_MS);
        self.looking = Some(Task::spawn(async move {
            let look = context.deps.facts.look(watched).await;
            // An actor that has ended is replaced by one that looks for itself.
            drop(me.cast(Msg::Looked(look)));
        }));
    }

    fn looked(&mut self, me: &ActorRef<Msg>, look: &HostLook) {
        self.looking = None;
        let now = self.now();
        let shares = self.meter.look(now, look);
        if let Some(others) = shares.others {
            self.others(now, others);
        }
        self.strain(now);
        if !self.answer() && self.again.is_none() {
            let (clock, me) = (self.context.deps.clock.clone(), me.clone());
            self.again = Some(Task::spawn(async move {
                clock.sleep_ms(AGAIN_MS).await;
                drop(me.cast(Msg::Again));
            }));
        }
    }

    fn others(&mut self, now: Mono, others: Others) {
        let capacity = {
            let board = self.context.board();
            Others { cpu: board.facts.cpu, memory: board.facts.memory }
        };
        if let Some(told) = self.outside.measured(now, others, capacity) {
            self.context.board().others = Some(told);
            self.context.changed();
        }
    }

    /// Answers whoever waits, if the figures are fresh; says whether nobody waits any more.
    fn answer(&mut self) -> bool {
        self.askers.retain(|asker| !asker.is_closed());
        let fresh = self.meter.age(self.now()).is_some_and(|(age, over)| age <= FRESH_MS && over <= WARM_MS);
        if fresh {
            for asker in self.askers.drain(..) {
                // Whoever asked may have stopped waiting.
                asker.send(self.meter.usage()).ok();
            }
        }
        self.askers.is_empty()
    }
}

/// Every process that lives here, orphans included.
fn watched(context: &Shared) -> Vec<Watched> {
    let board = context.board();
    let live = board.processes.values().filter(|v| v.alive);
    live.filter_map(|v| {
        Some(Watched {
            uid: v.report.u,
            incarnation: v.report.i,
            pid: v.report.pid?,
            cgroup: v.report.cgroup.clone(),
        })
    })
    .collect()
}
