//! What a machine is told, and what it wants done.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::{Artifact, Exec, ProcessTemplate};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Sha256, Version};

use crate::artifacts::Preparing;
use crate::holder::notify::Said;
use crate::holds::Held;

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

impl Wanted {
    /// A start of it, with its template.
    #[must_use]
    pub fn start(&self, incarnation: u64, template: Arc<ProcessTemplate>) -> Start {
        let (version, token, ports) = (self.version, self.token, self.ports.clone());
        Start { incarnation, template, version, token, ports }
    }
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
    /// What it has said of itself so far.
    pub said: Said,
}

/// How a main process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HowEnded {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It cannot be known, and why.
    Unknown(String),
}

/// An exit as the host tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostExit {
    /// The incarnation.
    pub incarnation: u64,
    /// The host's number, for the acknowledgement.
    pub seq: u64,
    /// How.
    pub how: HowEnded,
    /// Whether the kernel killed for want of memory.
    pub oom: bool,
    /// Whether the holder ended it because it was silent for longer than `watchdogSec`.
    pub watchdog: bool,
    /// When.
    pub at: Timestamp,
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

/// Which of a process's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Tells whether it is up.
    Startup,
    /// Tells whether it must be started again.
    Liveness,
    /// Tells whether it is ready.
    Readiness,
}

impl ProbeKind {
    /// As in manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startupProbe",
            Self::Liveness => "livenessProbe",
            Self::Readiness => "readinessProbe",
        }
    }
}

/// What the answers of a probe come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// So many good answers in a row.
    Good,
    /// Not good so far, and not yet for long enough to matter; why, for people.
    NotYet(String),
    /// So many bad ones in a row; why, for people.
    Bad(String),
}

/// A command that is run for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Before the program, one after the other.
    StartPre,
    /// To reload it.
    Reload,
    /// To stop it.
    Stop,
    /// After its end.
    StopPost,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StartPre => "execStartPre",
            Self::Reload => "execReload",
            Self::Stop => "execStop",
            Self::StopPost => "execStopPost",
        })
    }
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookEnd {
    /// With code 0.
    Success,
    /// Otherwise, or it could not be started; why, for people.
    Failed(String),
    /// It is not known, because the holder went away; why, for people.
    Lost(String),
}

/// What somebody asks of a process beside its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Read the configuration again.
    Reload,
    /// End in order and start anew; what has failed for good is tried again.
    Restart,
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
    /// How far the artifacts are that [`Effect::Prepare`] asked for.
    Artifacts {
        /// The set's id.
        set: Sha256,
        /// How far it is.
        state: Preparing,
    },
    /// The host has told what lives and what ended; sent at each connection to the holder, and only then.
    Listed {
        /// Incarnations whose main process lives.
        alive: Vec<HostProcess>,
        /// Incarnations whose main process has ended, while something else of their tree still lives.
        leftovers: Vec<u64>,
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
    /// Nothing is left of an incarnation.
    TreeEmpty(u64),
    /// The answers of a probe came to something.
    Probed {
        /// The incarnation that was asked.
        incarnation: u64,
        /// Which probe.
        kind: ProbeKind,
        /// What came of it.
        verdict: Verdict,
    },
    /// A process said something of itself. All of what it said so far, so that none of it can be lost.
    Notified {
        /// Which incarnation.
        incarnation: u64,
        /// What.
        said: Said,
    },
    /// A run has ended.
    Ran {
        /// Its number in [`Run`].
        run: u64,
        /// How.
        end: HookEnd,
    },
    /// Somebody asks something.
    Ask(Ask),
    /// A person on the host has taken it out of the agent's hands, or given it back.
    Hold(Option<Held>),
    /// The template with this hash, which the host has kept for what runs.
    Kept(Sha256, Arc<ProcessTemplate>),
    /// Time passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the record durable before going on.
    Persist,
    /// Make a set of artifacts ready, in place of the one asked for before.
    Prepare(Vec<Artifact>),
    /// Start an incarnation.
    Start(Box<Start>),
    /// Run a command; its end comes back as [`Event::Ran`].
    Run(Box<Run>),
    /// A run is not wanted any more: kill it, its end is of no interest.
    Cancel(u64),
    /// Send a signal to the main process of an incarnation.
    Signal {
        /// Which.
        incarnation: u64,
        /// The signal.
        signal: Signal,
    },
    /// Stop an incarnation: the signal, then SIGKILL after the grace. The holder keeps the deadline.
    Stop {
        /// Which.
        incarnation: u64,
        /// The signal; none if it was asked to end in another way already.
        signal: Option<Signal>,
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
        /// What it should be like from now on.
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

/// A command to run, in the surroundings of an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub run: u64,
    /// The incarnation.
    pub incarnation: u64,
    /// What it is.
    pub hook: Hook,
    /// The command.
    pub exec: Exec,
    /// The template that the incarnation was made of; none if that is not known.
    pub template: Option<Sha256>,
    /// The owner's version.
    pub version: Version,
    /// The fencing token.
    pub token: Token,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
}
