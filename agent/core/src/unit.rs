//! The life of one process on its node, as a state machine.
//!
//! `Unit::on(now, dice, event)` is the only way in; it returns what is to be done, in order. The shell carries out
//! one effect after the other and begins none before the one before it is done, so that [`Effect::Persist`] really
//! stands before a start and before an acknowledgement. Every decision is taken anew from the present state (`settle`),
//! so events may be lost, repeated or late without harm.
//!
//! ```text
//!   Unlisted --Listed--> Idle | Running | Ended          (nothing is decided before the host has told what lives)
//!   Idle --gate, needs, template--> Starting --Spawned--> Running --Exited--> Idle | Delayed | Ended
//!   Running --goal, other restart hash--> Stopping --Exited--> Ended | Idle
//!   Delayed --time--> Idle
//! ```
//!
//! Guarantees:
//! * an incarnation number is durable before it is used, and is used once;
//! * an exit is durable before it is acknowledged, and is recorded once;
//! * the goal only tightens;
//! * what runs is stopped only by a goal or by a template that cannot be had in place: never because something is
//!   missing, unknown or away.
//!
//! Not here: what is left of a tree when its main process has ended is the holder's business; fenced work is a later
//! matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::{ProcessTemplate, Restart};
use ostler_schemas::time::{Mono, Now, Timestamp};
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{ExitReason, ExitReport, ProcessPhase};
use ostler_schemas::{Name, Namespace, Sha256, Uid, Version};
use serde::{Deserialize, Serialize};

mod exits;
mod settle;
#[cfg(test)]
pub(crate) mod tests;
mod view;

pub use exits::{EXITS_KEPT, HostExit, HowEnded};

/// How long a stop is waited for beyond its grace before it is asked for again: the request may have been lost with a
/// connection, and asking twice does no harm.
const STOP_AGAIN_MS: u64 = 10_000;
/// How long to wait when the host is still clearing away the incarnation before.
const BUSY_AGAIN_MS: u64 = 200;
/// How long to wait when the host refused for a reason of its own that will pass.
const REFUSED_AGAIN_MS: u64 = 5_000;

/// What the document asks for one process, with its template once that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The owner's version.
    pub version: Version,
    /// What should become of it.
    pub goal: Goal,
    /// Its fencing token.
    pub token: Token,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its template's hash.
    pub hash: Sha256,
    /// Its template; none until it was fetched.
    pub template: Option<Arc<ProcessTemplate>>,
    /// Hash over the template's fields that only a restart can change; none until it was fetched.
    pub restart_hash: Option<Sha256>,
}

/// What must survive the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The process.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
    /// The highest incarnation ever given out; 0 before the first.
    pub incarnation: u64,
    /// The tightest goal ever seen.
    pub goal: Goal,
    /// The incarnation that was given out and is not known to have ended.
    pub current: Option<Current>,
    /// Incarnations that really ran.
    pub starts: u64,
    /// Failures in a row: the exponent of the delay.
    pub streak: u32,
    /// When unplanned ends happened, within the start limit's interval.
    pub failures: Vec<Timestamp>,
    /// The latest exits.
    pub exits: Vec<ExitReport>,
    /// How many exits there ever were.
    pub exits_total: u64,
    /// Highest incarnation whose exit is recorded.
    pub exited_through: u64,
    /// Hash over what of the template only a restart can change, of the latest start: another one is tried at once,
    /// whatever became of this one.
    pub tried: Option<Sha256>,
    /// Set when it will not be started again by itself.
    pub ended: Option<Ended>,
}

impl UnitRecord {
    /// Of a process that never ran here.
    #[must_use]
    pub fn new(uid: Uid, namespace: Namespace, name: Name) -> Self {
        Self {
            uid,
            namespace,
            name,
            incarnation: 0,
            goal: Goal::Run,
            current: None,
            starts: 0,
            streak: 0,
            failures: Vec::new(),
            exits: Vec::new(),
            exits_total: 0,
            exited_through: 0,
            tried: None,
            ended: None,
        }
    }
}

/// The incarnation that may be alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// Its number.
    pub incarnation: u64,
    /// The template that it runs with; none if an agent without memory found it running.
    pub template: Option<Sha256>,
    /// Hash over what of the template only a restart can change.
    pub restart_hash: Option<Sha256>,
    /// Version that it runs with.
    pub version: Version,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// Boot in which it was given out.
    pub boot: String,
    /// Its restart policy, for an agent that does not have the template at hand when it ends.
    pub restart: Option<Restart>,
}

/// The end of trying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Succeeded, Failed or Stopped.
    pub phase: ProcessPhase,
    /// Why.
    pub reason: Option<Reason>,
    /// Why, for people.
    pub message: Option<String>,
}

/// A process as the host lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProcess {
    /// The incarnation.
    pub incarnation: u64,
    /// Its main pid.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// Its control group, where it has one of its own.
    pub cgroup: Option<String>,
    /// Its log file.
    pub log_path: Option<String>,
}

/// Why a start came to nothing. Nothing runs after any of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartFailure {
    /// It cannot be started as it is: counts as a failed start.
    Failed(Reason, String),
    /// The incarnation before is not cleared away yet.
    Busy,
    /// The host does not start anything now, for the reason given.
    Refused(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The document asks this.
    Want(Wanted),
    /// The document has no entry for it any more.
    Unwanted,
    /// Nothing may be started yet (`false`), or things may be started.
    Gate(bool),
    /// What it needs on this node: `None` when everything holds, else what is missing.
    Needs(Option<String>),
    /// The host has told what lives and what ended; sent at each connection to the holder, and only then.
    Listed {
        /// Incarnations that live.
        alive: Vec<HostProcess>,
        /// Exits not acknowledged yet.
        exits: Vec<HostExit>,
        /// The present boot.
        boot: String,
    },
    /// The holder does not answer: what lives goes on, nothing can be started.
    HostLost,
    /// A start was carried out.
    Spawned(HostProcess),
    /// A start came to nothing.
    NotSpawned(u64, StartFailure),
    /// The outcome of a start is not known. The next listing, which must have been made after this, tells.
    SpawnUnknown(u64),
    /// The host saw an exit.
    Exited(HostExit),
    /// The readiness of an incarnation changed.
    Ready {
        /// The incarnation that was probed.
        incarnation: u64,
        /// Whether it is ready.
        ready: bool,
        /// Why not, for people.
        message: String,
    },
    /// Time passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the record durable before going on.
    Persist,
    /// Start an incarnation.
    Start(Box<Start>),
    /// Stop an incarnation: the signal, then SIGKILL after the grace. The holder keeps the deadline.
    Stop {
        /// Which.
        incarnation: u64,
        /// The signal.
        signal: Signal,
        /// The grace.
        grace_ms: u64,
    },
    /// Tell the host that an exit is safe.
    Acknowledge {
        /// Of which incarnation.
        incarnation: u64,
        /// The host's number of the exit.
        seq: u64,
    },
    /// Change what can be changed in a living process.
    Adjust {
        /// Which.
        incarnation: u64,
        /// What it should be like.
        template: Arc<ProcessTemplate>,
    },
    /// Tell the story.
    Tell(Reason, String),
}

/// A start to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The incarnation.
    pub incarnation: u64,
    /// What to start.
    pub template: Arc<ProcessTemplate>,
    /// The owner's version.
    pub version: Version,
    /// The fencing token.
    pub token: Token,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
}

/// Why something is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopWhy {
    /// The goal says so.
    Goal,
    /// A template that cannot be had in place.
    Replace,
}

/// Where the process is. `record.current` is set exactly in Starting, Running and Stopping, and in Unlisted when an
/// earlier agent had set it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The host has not told yet what lives.
    Unlisted,
    /// Nothing runs; whether it may start is decided at each event.
    Idle,
    /// Nothing runs, and nothing is tried before a moment.
    Delayed { until: Mono, reason: Reason, message: String },
    /// A start was handed to the host. While it is under way no listing tells anything about it; once it was lost,
    /// the next listing does.
    Starting { lost: bool },
    /// It runs.
    Running(Running),
    /// It was asked to end.
    Stopping { process: HostProcess, why: StopWhy, again: Mono },
    /// It has ended for good; `record.ended` says how.
    Ended,
}

/// A running incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    process: HostProcess,
    ready: bool,
    ready_at: Option<Timestamp>,
    message: String,
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
        }
    }

    /// Takes an event. `dice` is a random number, used for jitter only.
    pub fn on(&mut self, now: Now, dice: u64, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Want(wanted) => self.want(wanted, &mut effects),
            Event::Unwanted => self.wanted = None,
            Event::Gate(open) => self.gate = open,
            Event::Needs(unmet) => self.unmet = Some(unmet),
            Event::Listed { alive, exits, boot } => {
                self.listed(now, dice, Listing { alive, exits, boot }, &mut effects);
            }
            Event::HostLost => self.host = false,
            Event::Spawned(process) => self.spawned(now, process, &mut effects),
            Event::NotSpawned(incarnation, failure) => {
                self.not_spawned(now, dice, incarnation, failure, &mut effects);
            }
            Event::SpawnUnknown(incarnation) => {
                if self.record.current.as_ref().map(|c| c.incarnation) == Some(incarnation)
                    && let State::Starting { lost } = &mut self.state
                {
                    *lost = true;
                }
            }
            Event::Exited(exit) => self.exited(now, dice, &exit, &mut effects),
            Event::Ready { incarnation, ready, message } => {
                self.readiness(now, incarnation, (ready, message), &mut effects);
            }
            Event::Tick => {}
        }
        self.settle(now, &mut effects);
        effects
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Mono> {
        match &self.state {
            State::Delayed { until, .. } => Some(*until),
            State::Stopping { again, .. } => Some(*again),
            State::Unlisted | State::Idle | State::Starting { .. } | State::Running(_) | State::Ended => None,
        }
    }

    fn want(&mut self, wanted: Wanted, effects: &mut Vec<Effect>) {
        // A goal only tightens: a lower one comes from a store that was rolled back or a stale replica.
        if wanted.goal > self.record.goal {
            self.record.goal = wanted.goal;
            effects.push(Effect::Persist);
        }
        self.wanted = Some(wanted);
    }

    fn spawned(&mut self, now: Now, process: HostProcess, effects: &mut Vec<Effect>) {
        let expected = self.record.current.as_ref().map(|c| c.incarnation) == Some(process.incarnation);
        if !expected {
            return;
        }
        match self.state {
            State::Starting { .. } => self.runs(now, process, effects),
            // The listing was faster.
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Running(_)
            | State::Stopping { .. }
            | State::Ended => {}
        }
    }

    fn runs(&mut self, now: Now, process: HostProcess, effects: &mut Vec<Effect>) {
        if let Some(current) = &mut self.record.current {
            current.started_at = Some(process.started_at);
        }
        self.record.starts += 1;
        let verb = if self.record.starts > 1 { "started again" } else { "started" };
        effects.push(Effect::Persist);
        effects.push(Effect::Tell(
            Reason::Started,
            format!("{verb} with pid {}, incarnation {}", process.pid, process.incarnation),
        ));
        let unprobed = self.template().is_none_or(|t| t.readiness_probe.is_none());
        let ready_at = unprobed.then_some(now.wall);
        if unprobed {
            effects.push(Effect::Tell(Reason::Ready, "ready: it runs and has no probe".to_owned()));
        }
        self.state = State::Running(Running { process, ready: unprobed, ready_at, message: String::new() });
    }

    fn not_spawned(
        &mut self,
        now: Now,
        dice: u64,
        incarnation: u64,
        failure: StartFailure,
        effects: &mut Vec<Effect>,
    ) {
        let starting = matches!(self.state, State::Starting { .. });
        if !starting || self.record.current.as_ref().map(|c| c.incarnation) != Some(incarnation) {
            return;
        }
        self.record.current = None;
        effects.push(Effect::Persist);
        match failure {
            StartFailure::Failed(reason, message) => {
                effects.push(Effect::Tell(reason, message.clone()));
                self.failed_start(now, dice, reason, message, effects);
            }
            StartFailure::Busy => {
                let message = "the incarnation before is being cleared away".to_owned();
                self.delay(now, BUSY_AGAIN_MS, Reason::StartFailed, message);
            }
            StartFailure::Refused(message) => {
                self.delay(now, REFUSED_AGAIN_MS, Reason::StartFailed, message);
            }
        }
    }

    fn delay(&mut self, now: Now, ms: u64, reason: Reason, message: String) {
        self.state = State::Delayed { until: now.mono.plus_ms(ms), reason, message };
    }

    fn readiness(
        &mut self,
        now: Now,
        incarnation: u64,
        (ready, message): (bool, String),
        effects: &mut Vec<Effect>,
    ) {
        let State::Running(running) = &mut self.state else { return };
        if running.process.incarnation != incarnation {
            return;
        }
        if ready && !running.ready {
            running.ready_at = running.ready_at.or(Some(now.wall));
            effects.push(Effect::Tell(Reason::Ready, "its readiness probe succeeds".to_owned()));
        }
        if !ready && running.ready {
            effects.push(Effect::Tell(Reason::ProbeFailed, message.clone()));
        }
        running.ready = ready;
        running.message = message;
    }

    fn template(&self) -> Option<&Arc<ProcessTemplate>> {
        self.wanted.as_ref().and_then(|w| w.template.as_ref())
    }
}

/// What the host told.
struct Listing {
    alive: Vec<HostProcess>,
    exits: Vec<HostExit>,
    boot: String,
}
