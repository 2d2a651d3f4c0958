//! Looks at the host: how short of things it is, what its processes take, and what else runs there.
//!
//! The cheap look (a few files) is taken once a second. The dear one, at every process, is taken at the rate at which
//! somebody needs it: seldom for the work outside Ostler, more often while memory or process numbers are short, and at
//! once when somebody asks. What comes of it stays here and in beats; a report is written only when a condition or the
//! work outside Ostler has really changed.
//!
//! A disk that is short is first cleaned of what is Ostler's own ([`clean`]). Beats tell of it only after that.

mod clean;
mod measure;

use ostler_agent_core::pressure::{Amount, Monitor, Readings, Resource};
use ostler_agent_core::usage::{HostLook, Meter, Outside, Watched, biggest};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::usage::{Others, STRAIN_TOP, Strain, UsageEntry};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use self::clean::{Cleaned, clean};
use self::measure::{ErrorLines, JUDGED_LOOK_MS};
use crate::context::{Shared, Strains, Task};

/// How often the host as a whole is looked at.
const TICK_MS: u64 = 1_000;
/// How often all processes are looked at when nobody asks: a thousand of them cost some 50 ms, and what is made of it
/// is smoothed over half a minute.
const LOOK_MS: u64 = 15_000;
/// The same while memory or process numbers are short: who is to go is decided by these figures.
const STRAINED_LOOK_MS: u64 = 2_000;
/// A disk that is short is cleaned again after this: what fills it has gone on meanwhile.
const CLEAN_AGAIN_MS: u64 = 10_000;
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
    Looked(HostLook, Option<ErrorLines>),
    /// A disk was cleaned as far as that goes.
    Cleaned(Cleaned),
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
    readings: Readings,
    /// What the last cleaning came to, while a disk is short.
    cleaned: Option<Cleaned>,
    cleaning: Option<Task>,
    next_clean: Mono,
    looking: Option<Task>,
    again: Option<Task>,
    next_look: Mono,
    askers: Vec<Asker>,
    /// Lines that incarnations have written to their standard error.
    errors: ErrorLines,
    next_errors: Mono,
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
            readings: Readings::default(),
            cleaned: None,
            cleaning: None,
            next_clean: now,
            looking: None,
            again: None,
            next_look: now,
            askers: Vec::new(),
            errors: ErrorLines::new(),
            next_errors: now,
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
            Msg::Looked(look, errors) => state.looked(&me, &look, errors),
            Msg::Cleaned(cleaned) => {
                state.cleaning = None;
                state.cleaned = Some(cleaned);
                state.strain(state.now());
            }
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
        self.readings = self.context.deps.facts.readings();
        for change in self.monitor.look(now, &self.readings) {
            self.context.condition(change.resource.condition(), change.message);
        }
        self.tidy(me, now);
        self.strain(now);
        let strained =
            [Resource::Memory, Resource::Pids].into_iter().any(|r| self.strained_ms(r, now).is_some());
        let due = if strained { self.next_look.min(now.plus_ms(STRAINED_LOOK_MS)) } else { self.next_look };
        let due = if self.is_judged() { due.min(now.plus_ms(JUDGED_LOOK_MS)) } else { due };
        self.next_look = due;
        if now >= due {
            self.look(me);
        }
    }

    fn strained_ms(&self, resource: Resource, now: Mono) -> Option<u64> {
        self.monitor.strained_ms(resource, now)
    }

    /// Cleans a disk that is short, again and again while it lasts.
    fn tidy(&mut self, me: &ActorRef<Msg>, now: Mono) {
        if self.strained_ms(Resource::Disk, now).is_none() {
            self.cleaned = None;
            return;
        }
        if now < self.next_clean || self.cleaning.as_ref().is_some_and(Task::is_running) {
            return;
        }
        self.next_clean = now.plus_ms(CLEAN_AGAIN_MS);
        let (context, me) = (self.context.clone(), me.clone());
        self.cleaning = Some(Task::spawn(async move {
            let cleaned = clean(&context).await;
            // An actor that has ended is replaced by one that cleans for itself.
            drop(me.cast(Msg::Cleaned(cleaned)));
        }));
    }

    /// What beats tell while something is short.
    fn strain(&self, now: Mono) {
        let memory = self.strained_ms(Resource::Memory, now).zip(self.readings.memory);
        let pids = self.strained_ms(Resource::Pids, now).zip(self.readings.pids);
        let disk = self.strained_ms(Resource::Disk, now).zip(self.cleaned.as_ref());
        let disk = disk.filter(|(_, cleaned)| !cleaned.lacks.is_empty());
        let told =
            [memory.is_some(), pids.is_some(), disk.is_some()].into_iter().filter(|told| *told).count();
        let most = STRAIN_TOP / told.max(1);
        let of = u32::try_from(self.meter.len()).unwrap_or(u32::MAX);
        let strain = |since_ms, amount: Amount, processes| Strain {
            since_ms,
            used: amount.used_permille(),
            processes,
            of,
            total: amount.total,
        };
        let disk = disk.map(|(since_ms, cleaned)| {
            let worst = cleaned.lacks.iter().max_by_key(|lack| lack.used);
            let held = cleaned.held.iter().map(|(uid, bytes)| (*uid, *bytes));
            Strain {
                since_ms,
                used: worst.map_or(1000, |lack| lack.used),
                processes: biggest(held, most),
                of,
                total: worst.map_or(0, |lack| lack.total),
            }
        });
        self.context.board().strains = Strains {
            memory: memory.map(|(ms, amount)| strain(ms, amount, biggest(self.meter.memory(), most))),
            pids: pids.map(|(ms, amount)| strain(ms, amount, biggest(self.meter.tasks(), most))),
            disk,
        };
    }

    fn look(&mut self, me: &ActorRef<Msg>) {
        if self.looking.as_ref().is_some_and(Task::is_running) {
            return;
        }
        let (context, me) = (self.context.clone(), me.clone());
        let watched = watched(&context);
        self.next_look = self.now().plus_ms(LOOK_MS);
        let counts = self.counts_errors();
        self.looking = Some(Task::spawn(async move {
            let look = context.deps.facts.look(watched).await;
            let errors = if counts { Some(measure::error_lines(&context).await) } else { None };
            // An actor that has ended is replaced by one that looks for itself.
            drop(me.cast(Msg::Looked(look, errors)));
        }));
    }

    fn looked(&mut self, me: &ActorRef<Msg>, look: &HostLook, errors: Option<ErrorLines>) {
        self.looking = None;
        let now = self.now();
        let shares = self.meter.look(now, look);
        if let Some(others) = shares.others {
            self.others(now, others);
        }
        self.strain(now);
        self.errors = errors.unwrap_or_else(|| std::mem::take(&mut self.errors));
        self.tell_measures();
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
