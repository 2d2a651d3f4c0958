//! What of a process survives the agent: written before anything is done that could not be found out again.

use std::collections::BTreeMap;

use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::{Exec, ExitStatus, KillMode, ProcessTemplate, ProcessType, Restart};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{ExitReport, ProcessPhase};
use ostler_schemas::{Name, Namespace, Sha256, Uid, Version};
use serde::{Deserialize, Serialize};

use super::{HowEnded, Wanted};

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
    /// An incarnation that is over, and of which something is still to be done.
    #[serde(default)]
    pub ending: Option<Ending>,
    /// Starts that were tried: those that came to run and those that failed, `execStartPre` included.
    pub starts: u64,
    /// Failures in a row: the exponent of the delay.
    pub streak: u32,
    /// When unplanned ends happened, within the start limit's interval.
    pub failures: Vec<Timestamp>,
    /// Ends and failed starts that nobody asked for, ever.
    #[serde(default)]
    pub unplanned: u64,
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
    /// Set while it waits after a failure: an agent that dies meanwhile must not make a crash loop faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delayed: Option<Delayed>,
}

/// A delay after a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delayed {
    /// When it is over, by the wall clock.
    pub until: Timestamp,
    /// How long it is as a whole: no step of the wall clock makes it longer.
    pub ms: u64,
    /// The boot in which it began; another one ends it.
    pub boot: String,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
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
            ending: None,
            starts: 0,
            streak: 0,
            failures: Vec::new(),
            unplanned: 0,
            exits: Vec::new(),
            exits_total: 0,
            exited_through: 0,
            tried: None,
            ended: None,
            delayed: None,
        }
    }

    /// The templates that this process still needs, whatever the document says.
    pub fn templates(&self) -> impl Iterator<Item = Sha256> {
        let current = self.current.as_ref().and_then(|current| current.template);
        let ending = self.ending.as_ref().and_then(|ending| ending.template);
        current.into_iter().chain(ending)
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
    /// How it is to be stopped and judged; none if an agent without memory found it running.
    #[serde(default)]
    pub terms: Option<Terms>,
    /// Whether it has come up.
    #[serde(default)]
    pub up: bool,
    /// Whether it was ready, so that a new agent does not take it out of service before its first question.
    #[serde(default)]
    pub ready: bool,
    /// When it first became ready.
    #[serde(default)]
    pub ready_at: Option<Timestamp>,
    /// Set once it was decided to stop it.
    #[serde(default)]
    pub stop: Option<StopRecord>,
}

/// What of a template is needed when an incarnation ends: that may be when the document asks for another one, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How it says that it is up.
    pub kind: ProcessType,
    /// Whether a startup probe must succeed before it is up.
    pub startup_probed: bool,
    /// From its start until it must be up; 0 = no limit.
    pub timeout_start_ms: u64,
    /// Whether it is started again.
    pub restart: Restart,
    /// Ends that are a success, beside code 0.
    pub success: Vec<ExitStatus>,
    /// Whom a stop signals and kills.
    pub kill_mode: KillMode,
    /// The signal that asks it to end.
    pub kill_signal: Signal,
    /// From that until it is killed.
    pub timeout_stop_ms: u64,
    /// From leaving the endpoints to the first thing that is done to it.
    pub pre_stop_delay_ms: u64,
    /// Run instead of the signal.
    pub exec_stop: Option<Exec>,
    /// Run after the end.
    pub exec_stop_post: Option<Exec>,
    /// Its fencing token.
    pub token: Token,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
}

impl Terms {
    /// Of a template as it is wanted here.
    #[must_use]
    pub fn of(template: &ProcessTemplate, wanted: &Wanted) -> Self {
        Self {
            kind: template.kind,
            startup_probed: template.startup_probe.is_some(),
            timeout_start_ms: template.timeout_start_sec.as_millis(),
            restart: template.restart,
            success: template.success_exit_status.clone(),
            kill_mode: template.kill_mode,
            kill_signal: template.kill_signal,
            timeout_stop_ms: template.timeout_stop_sec.as_millis(),
            pre_stop_delay_ms: template.pre_stop_delay.as_millis(),
            exec_stop: template.exec_stop.clone(),
            exec_stop_post: template.exec_stop_post.clone(),
            token: wanted.token,
            ports: wanted.ports.clone(),
        }
    }

    /// Of a process of which nothing is known: the contract's defaults.
    #[must_use]
    pub fn unknown() -> Self {
        let template = ProcessTemplate::of(Vec::new());
        Self {
            kind: template.kind,
            startup_probed: false,
            timeout_start_ms: 0,
            restart: template.restart,
            success: Vec::new(),
            kill_mode: template.kill_mode,
            kill_signal: template.kill_signal,
            timeout_stop_ms: template.timeout_stop_sec.as_millis(),
            pre_stop_delay_ms: 0,
            exec_stop: None,
            exec_stop_post: None,
            token: Token::default(),
            ports: BTreeMap::new(),
        }
    }

    /// Whether there is a moment at which it comes up, later than its start.
    pub(super) fn comes_up_later(&self) -> bool {
        self.kind == ProcessType::Notify || self.startup_probed
    }

    /// Whether an end is a success.
    pub(super) fn is_success(&self, how: &HowEnded) -> bool {
        match how {
            HowEnded::Code(0) => true,
            HowEnded::Code(code) => {
                let code = u8::try_from(*code).ok().map(ExitStatus::Code);
                code.is_some_and(|code| self.success.contains(&code))
            }
            HowEnded::Signal(number) => {
                let signal = u8::try_from(*number).ok().and_then(Signal::from_number);
                signal.is_some_and(|signal| self.success.contains(&ExitStatus::Signal(signal)))
            }
            HowEnded::Unknown(_) => false,
        }
    }
}

/// Why something is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopWhy {
    /// The goal says so.
    Goal,
    /// A template that cannot be had in place.
    Replace,
    /// It did not come up in time.
    StartTimeout,
    /// Its liveness probe failed.
    Probe,
    /// Somebody asked for a restart.
    Asked,
}

/// A stop that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRecord {
    /// Why.
    pub why: StopWhy,
    /// Why, for people.
    pub text: String,
    /// Whether the holder was asked: what comes before (delay, `execStop`) is done.
    pub asked: bool,
    /// Whether it was asked without a signal, because `execStop` has already asked the process.
    pub quiet: bool,
}

/// An incarnation that is over, until nothing of it is left and `execStopPost` has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Which.
    pub incarnation: u64,
    /// The template that it ran with.
    pub template: Option<Sha256>,
    /// Version that it ran with.
    pub version: Version,
    /// How it was to be stopped and judged.
    pub terms: Terms,
    /// Why it was stopped, if it was.
    pub stop: Option<StopWhy>,
    /// What is over.
    pub over: Over,
}

/// How an incarnation came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// It ran and has ended; the exit is recorded.
    Ran {
        /// Whether its end was a success.
        success: bool,
        /// Whether the host went down under it, which is no fault of its own.
        host: bool,
        /// How long it ran.
        ran_ms: u64,
        /// Why, for programs.
        reason: Reason,
        /// How it ended, for people.
        text: String,
    },
    /// Its start failed.
    NotStarted {
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        text: String,
    },
    /// Its start was given up before its program ran.
    Cancelled,
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
    /// Whether it counts as ready for what needs it: a `oneshot` that succeeded.
    #[serde(default)]
    pub ready: bool,
}
