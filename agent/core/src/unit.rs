//! The life of one process on its node, as a state machine.
//!
//! `Unit::on(now, dice, event)` is the only way in; it returns what is to be done, in order. The shell carries out
//! one effect after the other and begins none before the one before it is done, so that [`Effect::Persist`] really
//! stands before a start and before an acknowledgement. Every decision is taken anew from the present state (`settle`),
//! so events may be lost, repeated or late without harm.
//!
//! | state | on | next | what is done |
//! |---|---|---|---|
//! | Unlisted | the host's listing | Idle, Running, Stopping, Clearing, Ended | what lives is taken over; exits are recorded |
//! | Idle | gate open, needs hold, template here | Preparing; Starting without `execStartPre` | the incarnation's number becomes durable |
//! | Preparing | a hook succeeded | Preparing (the next one), Starting | `execStartPre`, one after the other |
//! | Preparing | a hook failed | Clearing | a failed start |
//! | Preparing | goal, another template | Clearing | the hook is killed; no failure |
//! | Starting | it runs | Running | |
//! | Starting | it cannot be started | Clearing | a failed start |
//! | Starting | the host is busy or refuses | Delayed | no failure |
//! | Running, not up | `READY=1`, startup probe good | Running, up | other probes begin |
//! | Running, not up | `timeoutStartSec`, startup probe bad | Stopping | `StartTimeout`; neither delay nor `execStop` |
//! | Running, up | readiness good, bad; `STOPPING=1` | Running | ready or not |
//! | Running, up | liveness bad | Stopping | `ProbeFailed` |
//! | Running | goal, other restart hash, restart asked | Stopping | |
//! | Running | in-place change | Running | limits are adjusted, probes exchanged |
//! | Stopping: delay | `preStopDelay` over | Stopping: hook or asked | it has not been ready since the stop began |
//! | Stopping: hook | `execStop` succeeded | Stopping: asked | the deadline begins, no signal is sent |
//! | Stopping: hook | it was lost with the holder | Stopping: delay | it is run again, a few times |
//! | Stopping: hook | it failed, or there is none | Stopping: asked | `killSignal`, the deadline begins |
//! | Stopping: asked | no exit `timeoutStopSec` later | Stopping: asked | the holder kills the tree (`StopTimeout`) |
//! | Running, Stopping | exit | Clearing | the exit becomes durable, then it is acknowledged |
//! | Clearing | nothing of the tree is left | Cleaning; without `execStopPost` as after Cleaning | |
//! | Cleaning | `execStopPost` has ended | Idle, Delayed, Ended | restart at once, later, or never |
//! | Delayed | time, another template, restart asked | as Idle | |
//! | Ended | another template, restart asked | as Idle | |
//!
//! `docs/lifecycle.md` says the same to users, with the sequences and their fields.
//!
//! Guarantees:
//! * an incarnation number is durable before it is used, and is used once;
//! * an exit is durable before it is acknowledged, and is recorded once;
//! * the goal only tightens;
//! * what runs is stopped only by a goal, a template that cannot be had in place, a probe or timeout of its own
//!   template, or somebody who asked: never because something is missing, unknown or away;
//! * what is held on the host is neither started, stopped, changed nor started again, but what is under way goes on;
//!   goal `gone` alone wins, because the control plane may have put another in its place;
//! * what runs is asked what its own template says, whatever is to replace it;
//! * no probe but the startup probe asks before it is up, and none while it is being stopped;
//! * `execStopPost` of what ran has been carried out at least once before the next start, unless the host went down or
//!   the holder lost it again and again.
//!
//! Not here: signals, deadlines of a stop and the watchdog are the holder's business; fenced work is a later matter.

use std::sync::Arc;

use ostler_schemas::Sha256;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::time::{Mono, Now};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::ProcessPhase;

use crate::holder::notify::Said;
use crate::holds::Held;

mod asks;
mod event;
mod exits;
mod fetching;
mod hooks;
mod listing;
mod made_of;
mod record;
mod run;
mod settle;
mod start;
mod stop;
#[cfg(test)]
pub(crate) mod tests;
mod view;

pub use asks::Reloads;
pub use event::{
    Ask, Effect, Event, Hook, HookEnd, HostExit, HostProcess, HowEnded, ProbeKind, Run, Start, StartFailure,
    Verdict, Wanted,
};
pub use exits::EXITS_KEPT;
pub use record::{Current, Delayed, Ended, Ending, Over, StopRecord, StopWhy, Terms, UnitRecord};
pub use view::Asking;

/// How long a stop is waited for beyond its grace before it is asked for again: the request may have been lost with a
/// connection, and asking twice does no harm.
const STOP_AGAIN_MS: u64 = 10_000;
/// How long to wait when the host is still clearing away the incarnation before.
const BUSY_AGAIN_MS: u64 = 200;
/// How long to wait when the host refused for a reason of its own that will pass.
const REFUSED_AGAIN_MS: u64 = 5_000;
/// How long a run is waited for beyond its own timeout: the holder kills it at that, and its answer needs a moment.
const RUN_SLACK_MS: u64 = 15_000;

/// A run whose end is waited for, and until when: whoever was to tell of it may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Awaited {
    run: u64,
    until: Mono,
}

/// Where the process is. `record.current` is set exactly in Preparing, Starting, Running and Stopping, and
/// `record.ending` exactly in Clearing and Cleaning; in Unlisted as an earlier agent left them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The host has not told yet what lives.
    Unlisted,
    /// Nothing runs; whether it may start is decided at each event.
    Idle,
    /// Nothing runs, and nothing is tried before a moment.
    Delayed { until: Mono, reason: Reason, message: String },
    /// Hooks run before the start.
    Preparing { step: usize, hook: Awaited },
    /// A start was handed to the host. While it is under way no listing tells anything about it; once it was lost,
    /// the next listing does.
    Starting { lost: bool },
    /// It runs.
    Running(Running),
    /// It is being stopped.
    Stopping(Stopping),
    /// Its main process has ended; what else is of its tree may not have.
    Clearing {
        /// When to ask for the tree's end again.
        again: Mono,
        /// `execStop`, which may still be at work.
        hook: Option<Awaited>,
        /// Whether nothing of the tree is left.
        empty: bool,
    },
    /// `execStopPost` runs, or is to be run again after it was lost.
    Cleaning { hook: Option<Awaited>, again: Mono, lost: u32 },
    /// It has ended for good; `record.ended` says how.
    Ended,
}

/// A running incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    process: HostProcess,
    /// Whether its startup probe has succeeded.
    started_well: bool,
    /// Until when it must be up.
    due: Option<Mono>,
    reload: Option<Awaited>,
    /// What its probe says of it while it is not well.
    message: String,
}

/// A stop under way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stopping {
    process: HostProcess,
    stage: Stage,
    /// How often `execStop` was lost with the holder.
    lost: u32,
}

/// How far a stop is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// It is out of the endpoints, and those who use it get time to notice.
    Delay { until: Mono },
    /// `execStop` runs.
    Hook(Awaited),
    /// The holder was asked.
    Asked { again: Mono },
}

/// One step of the machine: the moment, a random number, and what is to be done.
struct Turn {
    now: Now,
    dice: u64,
    effects: Vec<Effect>,
}

impl Turn {
    fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Once in a row is enough.
    fn persist(&mut self) {
        if self.effects.last() != Some(&Effect::Persist) {
            self.effects.push(Effect::Persist);
        }
    }

    fn tell(&mut self, reason: Reason, message: impl Into<String>) {
        self.effects.push(Effect::Tell(reason, message.into()));
    }
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    record: UnitRecord,
    wanted: Option<Wanted>,
    state: State,
    gate: bool,
    host: bool,
    boot: String,
    /// What is missing of what it needs; the outer is none until that was looked at.
    unmet: Option<Option<String>>,
    needs_told: bool,
    fetching: Option<fetching::Fetching>,
    /// Number of the latest run.
    runs: u64,
    /// The latest that an incarnation said: it may be told before its start is.
    said: Option<(u64, Said)>,
    held: Option<Held>,
    reloads: Reloads,
    /// A restart was asked for while a start was under way.
    restart_due: bool,
    /// The template of what runs, when another one may be asked for.
    kept: Option<(Sha256, Arc<ProcessTemplate>)>,
}

impl Unit {
    /// From what survived. Nothing is decided before the first [`Event::Listed`].
    #[must_use]
    pub fn new(record: UnitRecord) -> Self {
        Self {
            record,
            wanted: None,
            state: State::Unlisted,
            gate: false,
            host: false,
            boot: String::new(),
            unmet: None,
            needs_told: false,
            fetching: None,
            runs: 0,
            said: None,
            held: None,
            reloads: Reloads::default(),
            restart_due: false,
            kept: None,
        }
    }

    /// Takes an event. `dice` is a random number, used for jitter only.
    pub fn on(&mut self, now: Now, dice: u64, event: Event) -> Vec<Effect> {
        let mut turn = Turn { now, dice, effects: Vec::new() };
        match event {
            Event::Want(wanted) => self.want(wanted, &mut turn),
            Event::Unwanted => self.wanted = None,
            Event::Gate(open) => self.gate = open,
            Event::Needs(unmet) => self.unmet = Some(unmet),
            Event::Artifacts { set, state } => self.artifacts_told(set, state),
            Event::Listed { alive, leftovers, exits, boot } => {
                self.listed(listing::Listing { alive, leftovers, exits, boot }, &mut turn);
            }
            Event::HostLost => self.host = false,
            Event::Spawned(process) => self.spawned(process, &mut turn),
            Event::NotSpawned(incarnation, failure) => self.not_spawned(incarnation, failure, &mut turn),
            Event::SpawnUnknown(incarnation) => {
                if self.is_current(incarnation)
                    && let State::Starting { lost } = &mut self.state
                {
                    *lost = true;
                }
            }
            Event::Exited(exit) => self.exited(&exit, &mut turn),
            Event::TreeEmpty(incarnation) => self.tree_empty(incarnation, &mut turn),
            Event::Probed { incarnation, kind, verdict } => {
                self.probed(incarnation, kind, verdict, &mut turn);
            }
            Event::Notified { incarnation, said } => self.notified(incarnation, said, &mut turn),
            Event::Ran { run, end } => self.ran(run, end, &mut turn),
            // Whoever holds it wants no other hand on it.
            Event::Ask(_) if self.held.is_some() => {}
            Event::Ask(ask) => self.ask(ask, &mut turn),
            Event::Hold(held) => self.held = held,
            Event::Kept(hash, template) => {
                self.kept = Some((hash, template));
                self.heed(&mut turn);
            }
            Event::Tick => {}
        }
        self.settle(&mut turn);
        turn.effects
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Mono> {
        match &self.state {
            State::Delayed { until, .. } => Some(*until),
            State::Preparing { hook, .. } => Some(hook.until),
            State::Running(running) => {
                let reload = running.reload.map(|hook| hook.until);
                let fetch = self.fetching.as_ref().and_then(|fetching| fetching.again);
                running.due.into_iter().chain(reload).chain(fetch).min()
            }
            State::Stopping(Stopping { stage, .. }) => Some(match stage {
                Stage::Delay { until } => *until,
                Stage::Hook(hook) => hook.until,
                Stage::Asked { again } => *again,
            }),
            State::Clearing { again, hook, .. } => Some(hook.map_or(*again, |hook| hook.until.min(*again))),
            State::Cleaning { hook, again, .. } => Some(hook.map_or(*again, |hook| hook.until)),
            State::Unlisted | State::Idle | State::Starting { .. } | State::Ended => None,
        }
    }

    fn want(&mut self, wanted: Wanted, turn: &mut Turn) {
        // A goal only tightens: a lower one comes from a store that was rolled back or a stale replica.
        if wanted.goal > self.record.goal {
            self.record.goal = wanted.goal;
            turn.persist();
        }
        self.wanted = Some(wanted);
    }

    fn is_current(&self, incarnation: u64) -> bool {
        self.record.current.as_ref().is_some_and(|current| current.incarnation == incarnation)
    }

    fn delay(&mut self, turn: &Turn, ms: u64, reason: Reason, message: String) {
        self.state = State::Delayed { until: turn.now.mono.plus_ms(ms), reason, message };
    }

    fn end(&mut self, phase: ProcessPhase, reason: Option<Reason>, message: Option<String>) {
        self.record.ended = Some(Ended { phase, reason, message, ready: false });
        self.state = State::Ended;
    }

    fn template(&self) -> Option<&Arc<ProcessTemplate>> {
        self.wanted.as_ref().and_then(|w| w.template.as_ref())
    }

    /// How the current incarnation is to be stopped and judged.
    fn terms(&self) -> Terms {
        if let Some(terms) = self.record.current.as_ref().and_then(|current| current.terms.as_ref()) {
            return terms.clone();
        }
        let wanted = self.wanted.as_ref().and_then(|w| w.template.as_ref().map(|t| (t, w)));
        wanted.map_or_else(Terms::unknown, |(template, wanted)| Terms::of(template, wanted))
    }

    fn is_meant_to_run(&self) -> bool {
        self.record.goal == Goal::Run && self.wanted.is_some()
    }
}
