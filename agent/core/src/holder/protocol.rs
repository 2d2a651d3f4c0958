//! What is said over the holder's socket.
//!
//! A client sends [`Request`]s in [`Call`]s, each with an id of its own choice; the holder answers each with one
//! [`Answer`] of the same id, in any order, and pushes [`Event`]s to clients that subscribed. The first call of a
//! connection must be [`Hello`].
//!
//! Compatibility: fields are named, unknown ones are skipped, missing ones take their default, and a variant the
//! reader does not know becomes `Unrecognised` (an unknown request is answered with [`RefusalCode::Unsupported`]).
//! So an agent and a holder of neighbouring versions always understand what they have in common.

use std::collections::BTreeMap;
use std::fmt;

use ostler_schemas::Uid;
use serde::{Deserialize, Serialize};

use super::notify::{Listen, Said};
use super::runs::protocol::{Ran, Run, SignalRun};
use super::wire::{one_of, word};

pub use super::confine::{Capabilities, Isolation, Limits, PrivateTmp, Rlimit, RunAs, SetLimits, SetRlimit};
pub use super::log_spec::{LOG_FILE_MAX, LOG_FILES, LOG_KEEP_S, LogSpec, LogTo};

/// The version of this protocol. It rises only when a meaning changes; new fields and requests do not raise it.
pub const PROTOCOL: u32 = 1;

/// How many processes and how many exits one page of a listing holds, so that a page stays far below
/// [`super::frame::FRAME_MAX`] with the longest names and paths.
pub const LIST_PAGE: usize = 256;

/// Which incarnation of which process is meant: the holder's key of everything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcKey {
    /// The process.
    pub uid: Uid,
    /// Its how-manieth start.
    pub incarnation: u64,
}

impl fmt::Display for ProcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.uid, self.incarnation)
    }
}

impl fmt::Debug for ProcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// From client to holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client, repeated in the answer.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

one_of! {
    /// From holder to client.
    Message {
        /// The answer to a call.
        answer: Answer(Answer),
        /// Something happened; only to subscribers.
        event: Event(Event),
    }
}

/// The answer to one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The id of the call.
    pub id: u64,
    /// What came of it.
    pub reply: Reply,
}

one_of! {
    /// What a client may ask.
    Request {
        /// Opens a connection.
        hello: Hello(Hello),
        /// Starts an incarnation; answered by [`Reply::Spawned`] once the program runs.
        spawn: Spawn(Box<Spawn>),
        /// Sends a signal.
        signal: Signal(Signal),
        /// Kills an incarnation's whole tree at once.
        kill_tree: KillTree(ProcKey),
        /// Stops an incarnation with a deadline that the holder keeps, whatever becomes of the client.
        stop: Stop(Stop),
        /// Changes resource limits of a running process.
        set_rlimit: SetRlimit(SetRlimit),
        /// Changes everything that can be changed while a process runs.
        set_limits: SetLimits(Box<SetLimits>),
        /// Lists processes and exits, page by page.
        list: List(List),
        /// Says that an exit is safe elsewhere and may be forgotten. Idempotent.
        ack_exit: AckExit(AckExit),
        /// Stops everything (the host goes down) and refuses new starts; answered when nothing is left.
        stop_all: StopAll(StopAll),
        /// Becomes another program with everything that is held. The connection ends when it is done; an answer is
        /// a refusal, and everything goes on as before.
        upgrade: Upgrade(Upgrade),
        /// Runs a command that is no incarnation; ends with the connection. Its descriptors come with it.
        run: Run(Box<Run>),
        /// Signals a run of this connection.
        signal_run: SignalRun(SignalRun),
    }
}

one_of! {
    /// What came of a request.
    Reply {
        /// It was done, or is under way where the request says so.
        done: Done(Done),
        /// The answer to [`Hello`].
        welcome: Welcome(Box<Welcome>),
        /// The program runs.
        spawned: Spawned(Spawned),
        /// A page of the listing.
        listing: Listing(Listing),
        /// A run has ended, entirely.
        ran: Ran(Ran),
        /// It was not done.
        refused: Refused(Refusal),
    }
}

one_of! {
    /// Something happened to an incarnation.
    Event {
        /// The program runs.
        started: Started(Started),
        /// The main process ended; kept by the holder until acknowledged.
        exited: Exited(ExitRecord),
        /// Nothing of the incarnation is left; its log is complete.
        tree_empty: TreeEmpty(ProcKey),
        /// It said something of itself; everything that it has said so far.
        said: Said(SaidBy),
    }
}

/// Done, nothing to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}

/// Opens a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The client's [`PROTOCOL`].
    pub protocol: u32,
    /// Who speaks, for the holder's log (`agent`, `ps`).
    #[serde(default)]
    pub client: String,
    /// Whether events are wanted on this connection.
    #[serde(default)]
    pub subscribe: bool,
}

/// What the holder says of itself and of what it can enforce.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// The holder's [`PROTOCOL`].
    pub protocol: u32,
    /// Its build.
    pub version: String,
    /// Its process id.
    pub pid: i32,
    /// The boot it runs in.
    pub boot_id: String,
    /// When it started, in milliseconds since 1970.
    pub started_at: u64,
    /// The cgroup below which incarnations get theirs; none when it may not make any.
    pub cgroup: Option<String>,
    /// The cgroup controllers that incarnations can be limited by.
    pub controllers: Vec<String>,
    /// Whether the kernel tells the exit code of a process that is not the holder's child.
    pub exit_of_adopted: bool,
    /// Whether it may start processes as other users.
    pub other_users: bool,
    /// What else this host can do for processes (`mounts`, `capabilities`, `clone3`); none from an older holder.
    pub features: Vec<String>,
    /// The highest hard limits that it can give, by name; what is not named is not known, or has no bound.
    pub rlimits: BTreeMap<String, u64>,
}

word! {
    /// Whom a stop signals, and whom it kills at the deadline.
    KillMode {
        /// The signal goes to the main process, SIGKILL to the whole tree at the deadline or as soon as the main
        /// process has ended.
        Mixed = "mixed",
        /// Both go to the whole tree; what the main process left behind has until the deadline.
        ControlGroup = "control-group",
        /// Both go to the main process only; what it leaves behind stays.
        Process = "process",
    } else Mixed
}

/// Starts an incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Which.
    pub key: ProcKey,
    /// The process's name, for listings and the log's folder.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The command and its arguments. A command without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited. The holder sets `OSTLER_UID`, `OSTLER_INCARNATION` and
    /// `OSTLER_HOLDER` (its folder) itself, because they mark the tree on hosts without cgroups.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The user and groups to run as; none means the holder's own.
    #[serde(default)]
    pub user: Option<RunAs>,
    /// The working directory; `/` by default.
    #[serde(default = "root_dir")]
    pub cwd: String,
    /// The file mode mask.
    #[serde(default = "default_umask")]
    pub umask: u32,
    /// Resource limits.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// The kernel's out-of-memory preference.
    #[serde(default)]
    pub oom_score_adjust: i32,
    /// Whether exec may gain privileges (set-user-id programs).
    #[serde(default)]
    pub allow_new_privileges: bool,
    /// Limits that need cgroup controllers; what cannot be enforced is named in [`Spawned::unenforced`].
    #[serde(default)]
    pub limits: Limits,
    /// What it sees of its host and may do on it.
    #[serde(default)]
    pub isolation: Isolation,
    /// Whether it gets a cgroup of its own where the holder can make one. Off only for tests and very old hosts.
    #[serde(default = "yes")]
    pub own_cgroup: bool,
    /// Where its output goes.
    pub log: LogSpec,
    /// Whom a stop signals.
    #[serde(default = "default_kill_mode")]
    pub kill_mode: KillMode,
    /// Whether it gets a notification socket, in `NOTIFY_SOCKET`, and what is listened for.
    #[serde(default)]
    pub listen: Option<Listen>,
    /// The signal that asks it to stop.
    #[serde(default = "default_stop_signal")]
    pub stop_signal: i32,
    /// How long a stop waits before SIGKILL when the stop itself does not say.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u64,
}

fn root_dir() -> String {
    "/".to_owned()
}

const fn default_umask() -> u32 {
    0o022
}

const fn yes() -> bool {
    true
}

const fn default_kill_mode() -> KillMode {
    KillMode::Mixed
}

/// SIGTERM, the same number on every Linux architecture.
#[must_use]
pub const fn default_stop_signal() -> i32 {
    15
}

/// `timeoutStopSec` of a process that does not set one: 30 s.
#[must_use]
pub const fn default_grace_ms() -> u64 {
    30_000
}

/// Sends a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// To which.
    pub key: ProcKey,
    /// The signal's number.
    pub signal: i32,
    /// To the whole tree instead of the main process.
    #[serde(default)]
    pub whole_tree: bool,
}

/// Stops an incarnation: the signal now, SIGKILL at the deadline. Repeated stops only tighten the deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Which.
    pub key: ProcKey,
    /// The signal, if not the one given at its start.
    #[serde(default)]
    pub signal: Option<i32>,
    /// How long to wait before SIGKILL, if not as given at its start.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// Asks for one page of the listing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct List {
    /// Only processes after this key.
    pub after: Option<ProcKey>,
    /// Only exits with a higher sequence number.
    pub after_exit: u64,
}

/// One page of the listing. Taken page by page it is complete for what existed all the time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Listing {
    /// Processes in order of their keys.
    pub processes: Vec<ProcessInfo>,
    /// Unacknowledged exits in order of their sequence numbers.
    pub exits: Vec<ExitRecord>,
    /// Whether there is another page.
    pub more: bool,
}

word! {
    /// Where an incarnation is in its life, as the holder sees it.
    Phase {
        /// Forked; the program does not run yet.
        Starting = "starting",
        /// The program runs.
        Running = "running",
        /// It was asked to stop.
        Stopping = "stopping",
        /// The main process ended, others of its tree did not yet.
        Leftovers = "leftovers",
    } else Running
}

/// One incarnation in the listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Which.
    pub key: ProcKey,
    /// Its process's name.
    #[serde(default)]
    pub name: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// The main process.
    pub pid: i32,
    /// The main process's start, in clock ticks since boot: with `pid` it names one process for ever.
    pub start_time: u64,
    /// When it was started, in milliseconds since 1970.
    #[serde(default)]
    pub started_at: u64,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether a former holder started it.
    #[serde(default)]
    pub adopted: bool,
    /// Its cgroup, as a path in the file system.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Its growing log file.
    #[serde(default)]
    pub log_path: String,
    /// What went through its log since this holder has it.
    #[serde(default)]
    pub log: LogCounters,
    /// What it has said of itself.
    #[serde(default)]
    pub said: Said,
}

/// What went through a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogCounters {
    /// Bytes read from the process.
    pub bytes: u64,
    /// Lines accepted.
    pub lines: u64,
    /// Lines lost because the disk was slow or full.
    pub lost: u64,
    /// Lines of its standard error, whether kept or lost.
    #[serde(skip_serializing_if = "is_zero")]
    pub errors: u64,
}

/// Left out: a reader of before there was such a number gets the bytes that it knows.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Says that an exit is safe elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckExit {
    /// Of which.
    pub key: ProcKey,
    /// Its sequence number.
    pub seq: u64,
}

/// Stops everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StopAll {
    /// Upper bound of every process's own grace.
    pub grace_ms: Option<u64>,
}

/// Becomes another program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Upgrade {
    /// Its file; none for what is now where the holder's own file was.
    pub path: Option<String>,
}

/// The program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// Which.
    pub key: ProcKey,
    /// The main process.
    pub pid: i32,
    /// Its start, in clock ticks since boot.
    pub start_time: u64,
    /// Its growing log file.
    #[serde(default)]
    pub log_path: String,
    /// Controllers of limits that this host cannot enforce (`memory`, `cpu`, `pids`, `io`, `cpuset`).
    #[serde(default)]
    pub unenforced: Vec<String>,
}

/// The program runs, told to everyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Which.
    pub key: ProcKey,
    /// The main process.
    pub pid: i32,
    /// Its start, in clock ticks since boot.
    pub start_time: u64,
}

one_of! {
    /// How the main process ended.
    Exit {
        /// It exited with this code.
        code: Code(i32),
        /// It was ended by this signal.
        signal: Signal(i32),
        /// It ended, and how cannot be known; the text says why.
        unknown: Unknown(String),
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown(reason) => write!(f, "unknown, {reason}"),
            Self::Unrecognised => f.write_str("unknown, told by another version"),
        }
    }
}

/// One exit, kept by the holder until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Of which.
    pub key: ProcKey,
    /// The holder's running number of exits.
    pub seq: u64,
    /// How it ended.
    pub exit: Exit,
    /// Whether the kernel killed something of its tree for want of memory.
    #[serde(default)]
    pub oom: bool,
    /// Whether the holder ended it because it was silent for longer than its watchdog allows.
    #[serde(default)]
    pub watchdog: bool,
    /// When the holder saw it, in milliseconds since 1970.
    pub at: u64,
}

/// What an incarnation has said of itself over its notification socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidBy {
    /// Which.
    pub key: ProcKey,
    /// All of it.
    pub said: Said,
}

word! {
    /// Why something was not done, for programs.
    RefusalCode {
        /// No incarnation with that key is here.
        NotFound = "not-found",
        /// That incarnation was started already, or its exit waits for its acknowledgement.
        AlreadyExists = "already-exists",
        /// Another incarnation of the process has not ended entirely.
        Busy = "busy",
        /// The program could not be started; nothing of it ran.
        StartFailed = "start-failed",
        /// The request makes no sense.
        Invalid = "invalid",
        /// The holder is stopping everything.
        Closing = "closing",
        /// The holder does not know this request.
        Unsupported = "unsupported",
        /// The host would not do it.
        Failed = "failed",
    } else Failed
}

/// Something was not done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what, where and why.
    pub message: String,
}

impl Refusal {
    /// A refusal with its words.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
