//! What an agent may do to its host, as ports, each with a real and a simulated implementation.
//!
//! * [`Host`]: processes, through the holder; also users, probes and logs, which only the host has.
//! * [`Files`]: managed files, one step at a time.
//! * [`LedgerStore`]: what survives the agent.
//! * [`FactsSource`]: what the host is and how busy it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_agent_core::artifacts::Preparing;
use ostler_agent_core::confine::Preparation;
use ostler_agent_core::environment::UserFacts;
use ostler_agent_core::file::{Observed, Owner, Stamp, Step, StepError};
use ostler_agent_core::holder::notify::{Listen, Said};
use ostler_agent_core::holder::protocol::{Isolation, Limits, LogSpec, PrivateTmp, ProcKey, Rlimit, RunAs};
use ostler_agent_core::pressure::Readings;
use ostler_agent_core::probe::Question;
use ostler_agent_core::reclaim::Spare;
use ostler_agent_core::unit::{HostExit, HostProcess, HowEnded, StartFailure};
use ostler_agent_core::usage::{HostLook, Watched};
use ostler_schemas::quantity::{Mode, Signal};
use ostler_schemas::spec::{Artifact, KillMode, Renewal};
use ostler_schemas::v1::api::LogFilter;
use ostler_schemas::v1::beat::Usage;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::Facts;
use ostler_schemas::v1::stretch::Stretch;
use ostler_schemas::{Name, Namespace, Sha256, Uid};
use tokio::sync::mpsc;

/// A shared host.
pub type HostRef = Arc<dyn Host>;
/// A shared file system.
pub type FilesRef = Arc<dyn Files>;
/// A shared ledger store.
pub type LedgerRef = Arc<dyn LedgerStore>;
/// A shared cache of artifacts.
pub type ArtifactsRef = Arc<dyn Artifacts>;
/// A shared source of facts.
pub type FactsRef = Arc<dyn FactsSource>;

/// The host did not do it, or did not answer. What runs is not touched by that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the holder: {0}")]
pub struct HostError(pub String);

/// What the host's side says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    /// Version of the holder.
    pub version: String,
    /// The present boot, as the holder sees it.
    pub boot: String,
    /// What cannot be enforced or done here, for people.
    pub unenforced: Vec<String>,
    /// What it can do for processes, by the names that templates ask for.
    pub features: Vec<String>,
    /// The highest hard limits that it can give, by name; what is not named is not known.
    pub rlimits: BTreeMap<String, u64>,
}

/// A connection to the holder.
pub struct HostConnection {
    /// What it says of itself.
    pub info: HostInfo,
    /// What happens; ends with the connection.
    pub events: BoxStream<'static, HostEvent>,
}

/// Something happened on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// A main process ended.
    Exited(Uid, HostExit),
    /// Nothing of an incarnation is left.
    TreeEmpty(ProcKey),
    /// All that an incarnation has said of itself so far.
    Said(ProcKey, Said),
}

/// A process in a listing, with what is needed when the ledger does not know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The process.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
    /// Its incarnation.
    pub process: HostProcess,
}

/// Everything that the holder has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostListing {
    /// What lives.
    pub processes: Vec<Listed>,
    /// What is left of some whose main process has ended.
    pub leftovers: Vec<ProcKey>,
    /// Exits not acknowledged.
    pub exits: Vec<(Uid, HostExit)>,
}

/// A user of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostUser {
    /// As the process sees itself.
    pub facts: UserFacts,
    /// Numbers.
    pub owner: Owner,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether it is the user that the agent runs as.
    pub is_self: bool,
}

/// A start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpawn {
    /// Which incarnation.
    pub key: ProcKey,
    /// The process's namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
    /// Its words.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub cwd: String,
    /// Whom it runs as; none means as the holder.
    pub user: Option<RunAs>,
    /// Permission bits taken away from files that it makes.
    pub umask: u32,
    /// Resource limits of its main process; the others are the host's.
    pub rlimits: Vec<Rlimit>,
    /// Limits of the whole tree.
    pub limits: Limits,
    /// How readily it is killed when the host's memory is short.
    pub oom_score_adjust: i32,
    /// Whether exec may gain privileges.
    pub allow_new_privileges: bool,
    /// What it sees of its host and may do on it.
    pub isolation: Isolation,
    /// Where its output goes; the folder is the host's affair.
    pub log: LogSpec,
    /// Whether it is listened to, and for what.
    pub listen: Option<Listen>,
    /// Whom a stop signals and kills.
    pub kill_mode: KillMode,
    /// How a stop asks it to end when the stop does not say.
    pub stop_signal: Signal,
    /// How long such a stop waits.
    pub grace_ms: u64,
}

/// What was made ready for a start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Numbers of the groups that it is in besides those of its user.
    pub groups: Vec<u32>,
    /// What environment files say, in order.
    pub variables: Vec<(String, String)>,
    /// Its own `/tmp`.
    pub private_tmp: Option<PrivateTmp>,
    /// Paths that it may not write to, without links in them.
    pub read_only_paths: Vec<String>,
}

/// A start that came to nothing, or whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpawnError {
    /// Nothing runs.
    Not(StartFailure),
    /// It may run.
    Unknown(String),
}

/// A command that is run for a process and is no incarnation of it: a hook, a probe, an `exec`. When its first
/// process ends, what it left behind is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRun {
    /// As a start of the process would be, but for the words: same user, environment, folder, isolation. What only a
    /// supervised process has (its log, its stop) means nothing here.
    pub like: HostSpawn,
    /// Whether it joins that incarnation's cgroup and namespaces while the incarnation lives; it is then killed when
    /// the incarnation's main process ends. Else it has a cgroup of its own with the limits of a start.
    pub beside: bool,
    /// After how long the whole tree is killed; 0 = never.
    pub timeout_ms: u64,
    /// How many bytes of its output are kept, the last ones.
    pub output_max: usize,
}

impl HostRun {
    /// Words of its own, all else as the process is started; beside nothing, without a limit of time.
    #[must_use]
    pub fn like(spawn: &HostSpawn, argv: Vec<String>) -> Self {
        let like = HostSpawn { argv, ..spawn.clone() };
        Self { like, beside: false, timeout_ms: 0, output_max: RUN_OUTPUT }
    }
}

/// How much of a run's output is kept when nobody says: a screen or two, enough to see why it failed.
pub const RUN_OUTPUT: usize = 16 << 10;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOutcome {
    /// How its first process did; `Unknown` when the holder went away meanwhile.
    pub how: HowEnded,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// Why the holder ended it otherwise, for people.
    pub ended_because: Option<String>,
    /// The end of what it wrote to stdout and stderr, in the order in which it was read.
    pub output: Bytes,
}

/// What became of a reload or restart of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitEnd {
    /// It was done.
    Done,
    /// The unit does not run, or is not there: nothing was done.
    NotRunning,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// What is said to a run that somebody attends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionInput {
    /// Bytes for its input.
    Bytes(Bytes),
    /// There is no more input.
    End,
    /// Its terminal changed size.
    Resize(Screen),
    /// A signal for all of it.
    Signal(Signal),
}

/// What a run that somebody attends says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionOutput {
    /// From its output, or from its terminal.
    Stdout(Bytes),
    /// From its error output.
    Stderr(Bytes),
    /// It has ended, and everything that it wrote was said.
    Ended(RunOutcome),
}

/// A run that somebody attends. Both directions have a bound: who does not read holds it up, nothing is dropped. It is
/// killed when the output is dropped.
pub struct HostSession {
    /// To it.
    pub input: mpsc::Sender<SessionInput>,
    /// From it; the last one is [`SessionOutput::Ended`].
    pub output: mpsc::Receiver<SessionOutput>,
}

/// Which lines of a process's log are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Of the process with this uid: another may have had its name before. None means the last that had it.
    pub uid: Option<Uid>,
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Which of them.
    pub filter: LogFilter,
}

/// A piece of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPiece {
    /// Whole lines.
    pub bytes: Bytes,
    /// Nothing more is there now.
    pub at_end: bool,
    /// Nothing more will come.
    pub over: bool,
}

/// Reads a log, at the pace of whoever asks.
pub trait LogReader: Send {
    /// The next lines that are wanted; nothing if there are none now, or if those that were looked at are not wanted.
    fn next(&mut self) -> BoxFuture<'_, Result<LogPiece, String>>;
}

/// What lies on a disk for one process and goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The process.
    pub uid: Uid,
    /// The file system.
    pub device: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Output on its way to the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Whole lines, at most as many bytes as one message takes; a longer line is cut.
    pub bytes: Bytes,
    /// Which.
    pub stretch: Stretch,
}

/// A log that is shipped. What was begun is remembered on the host: after a restart the same parcel comes again, with
/// the same bounds, and readers know it by its stretch.
pub trait LogShipper: Send {
    /// The next parcel; none if there is nothing now. The same again until it is stored.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Parcel>, String>>;
    /// The parcel is stored.
    fn stored(&mut self);
    /// Nothing more will come of this log.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>>;
}

/// The log of a process, by the name of its files.
pub type LogName = (Namespace, Name);

/// The processes of a host.
pub trait Host: Send + Sync + 'static {
    /// Connects to the holder, and again after the events of a connection ended.
    fn connect(&self) -> BoxFuture<'_, Result<HostConnection, HostError>>;
    /// Everything that the holder has.
    fn list(&self) -> BoxFuture<'_, Result<HostListing, HostError>>;
    /// Starts an incarnation.
    fn spawn(&self, spawn: HostSpawn) -> BoxFuture<'_, Result<HostProcess, SpawnError>>;
    /// Stops one: the signal if there is one, then SIGKILL after the grace.
    fn stop(
        &self,
        key: ProcKey,
        signal: Option<Signal>,
        grace_ms: u64,
    ) -> BoxFuture<'_, Result<(), HostError>>;
    /// Sends a signal to the main process of one.
    fn signal(&self, key: ProcKey, signal: Signal) -> BoxFuture<'_, Result<(), HostError>>;
    /// Changes what can be changed while it runs: limits of the tree, of which those that are not given are lifted,
    /// resource limits of the main process, and how much of its output is kept. What this host cannot enforce is left out.
    fn adjust(
        &self,
        key: ProcKey,
        limits: Limits,
        others: (Vec<Rlimit>, LogSpec),
    ) -> BoxFuture<'_, Result<(), HostError>>;
    /// Makes ready what a start needs besides the holder: folders, and what environment files say. Again before each
    /// start; what is there already stays. An error has its reason, and words for people.
    fn prepare(
        &self,
        preparation: Preparation,
        user: HostUser,
    ) -> BoxFuture<'_, Result<Prepared, (Reason, String)>>;
    /// Removes what only lived for processes that will not be started again: their own `/tmp` and runtime folders.
    /// Those of the ones in `gone`, and those that are neither `known` nor were prepared meanwhile; best effort, and
    /// again at the next chance. Also logs of processes that are not `known`, once they are older than was asked for.
    fn tidy(&self, known: BTreeSet<Uid>, gone: BTreeSet<Uid>) -> BoxFuture<'_, ()>;
    /// Logs of processes that are not `known`: what can be removed when a disk is full.
    fn old_logs(&self, known: BTreeSet<Uid>) -> BoxFuture<'_, Vec<Spare>>;
    /// Removes some of them, unless they are of a process that is `known` by now; returns what was removed.
    fn remove_logs(&self, known: BTreeSet<Uid>, logs: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>>;
    /// What the end of each of these processes would give back on disk: its log and its own `/tmp`.
    fn held(&self, of: Vec<(Uid, Namespace, Name)>) -> BoxFuture<'_, Vec<Held>>;
    /// Runs a command to its end, without input. An error means that it did not start, with the reason in words. It
    /// is killed when the future is dropped.
    fn run(&self, run: HostRun) -> BoxFuture<'_, Result<RunOutcome, HostError>>;
    /// Starts a command that somebody attends, with pipes or on a terminal of its own; done when it was asked for. One
    /// that could not be started ends at once with `ended_because` in words and an unknown exit.
    fn attend(&self, run: HostRun, screen: Option<Screen>) -> BoxFuture<'_, Result<HostSession, HostError>>;
    /// Has a unit of the host's service manager reloaded or restarted, and waits for the end of that.
    fn unit(&self, how: Renewal, unit: String) -> BoxFuture<'_, Result<UnitEnd, String>> {
        let why =
            format!("{unit} cannot be asked to {how}: this host has no service manager that can be asked");
        Box::pin(std::future::ready(Err(why)))
    }
    /// How many lines each living incarnation has written to its standard error, as far as that was counted.
    fn error_lines(&self) -> BoxFuture<'_, Vec<(ProcKey, u64)>> {
        Box::pin(std::future::ready(Vec::new()))
    }
    /// Says that an exit is safe.
    fn acknowledge(&self, key: ProcKey, seq: u64) -> BoxFuture<'_, Result<(), HostError>>;
    /// Looks a user up, and a group if one is named; without a user it is the one that processes run as when nothing
    /// is said. An error is in words for people.
    fn user(&self, user: Option<String>, group: Option<String>) -> BoxFuture<'_, Result<HostUser, String>>;
    /// Asks a readiness question; an error says what was wrong, for people.
    fn ask(&self, question: Question, timeout_ms: u64) -> BoxFuture<'_, Result<(), String>>;
    /// A reader of a process's log, before the first line that is wanted.
    fn log(
        &self,
        namespace: Namespace,
        name: Name,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, String>>;
    /// Ships a log from where that was left off. Lines of which it is not known whose they are are taken for `uid`'s.
    fn ship(&self, log: LogName, uid: Uid) -> BoxFuture<'_, Result<Box<dyn LogShipper>, String>>;
    /// Logs whose shipping was begun and not finished, and whose they are.
    fn unshipped(&self) -> BoxFuture<'_, Vec<(LogName, Uid)>>;
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFile {
    /// Its content.
    pub bytes: Bytes,
    /// Its mode.
    pub mode: Mode,
    /// The name of its owner, else the number.
    pub owner: String,
    /// The name of its group, else the number.
    pub group: String,
}

/// The file system of a host.
pub trait Files: Send + Sync + 'static {
    /// What lies at a path. With `wanted`, the content that should be there, how what is there differs from it.
    fn observe(&self, path: String, wanted: Option<Bytes>) -> BoxFuture<'_, Result<Observed, String>>;
    /// What tells whether a path may have changed since it was observed, without reading it. Where that cannot be told
    /// everything is read each time.
    fn glance(&self, _path: String) -> BoxFuture<'_, Stamp> {
        Box::pin(std::future::ready(Stamp::Unsure))
    }
    /// What the folder of a path really is, with links resolved; none if it is not there.
    fn real_dir(&self, path: String) -> BoxFuture<'_, Result<Option<String>, String>> {
        Box::pin(async move { Ok(self.observe(path, None).await?.real_dir) })
    }
    /// A regular file as a whole, if it is no larger than `most`; none if nothing is there. An error says what it is
    /// instead, or why it cannot be read.
    fn read(&self, _path: String, _most: usize) -> BoxFuture<'_, Result<Option<ReadFile>, String>> {
        Box::pin(std::future::ready(Err("this host does not read files for others".to_owned())))
    }
    /// The names of regular files in a folder; none if there is no such folder.
    fn list(&self, dir: String) -> BoxFuture<'_, Result<Vec<String>, String>>;
    /// Carries out one step; `content` is what [`Step::WriteTemp`] of a blob writes. [`Step::Record`] never comes here.
    fn apply(&self, step: Step, content: Option<Bytes>) -> BoxFuture<'_, Result<(), StepError>>;
    /// Yields each time something may have happened at the path. May yield too often, and may miss things: a slow
    /// rescan finds those. A path that ends in `/*` is about everything in that folder.
    fn watch(&self, path: String) -> BoxStream<'static, ()>;
    /// Whether something exists at a path.
    fn exists(&self, path: &str) -> bool;
    /// Whether something is mounted at a path.
    fn is_mounted(&self, path: &str) -> bool;
}

/// What survives the agent.
pub trait LedgerStore: Send + Sync + 'static {
    /// The record; none if there never was one. An unreadable one is set aside by the store and said in the error.
    fn load(&self) -> BoxFuture<'_, Result<Option<Bytes>, String>>;
    /// Replaces the record as a whole, durably.
    fn save(&self, record: Bytes) -> BoxFuture<'_, Result<(), String>>;
    /// Stores immutable bytes under their hash, durably.
    fn put(&self, hash: Sha256, bytes: Bytes) -> BoxFuture<'_, Result<(), String>>;
    /// Immutable bytes by hash, verified.
    fn get(&self, hash: Sha256) -> BoxFuture<'_, Option<Bytes>>;
    /// Removes what is not among these.
    fn retain(&self, used: BTreeSet<Sha256>) -> BoxFuture<'_, Result<(), String>>;
}

/// Files that processes are started from.
pub trait Artifacts: Send + Sync + 'static {
    /// Makes a set ready. Tells how far it is, and ends after it is ready or has failed; given up when dropped.
    fn prepare(&self, artifacts: Vec<Artifact>) -> BoxStream<'static, Preparing>;
    /// Where a set lies once it is ready.
    fn folder(&self, artifacts: &[Artifact]) -> String;
    /// The ids of the sets in use: of what else is there, some may be removed.
    fn retain(&self, in_use: BTreeSet<Sha256>);
    /// What nothing here is started from, or waits for: what can be removed when a disk is full.
    fn spare(&self) -> BoxFuture<'_, Vec<Spare>>;
    /// Removes some of it, unless it is in use by now; returns what was removed.
    fn remove(&self, spares: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>>;
}

/// What a host is, and how busy.
pub trait FactsSource: Send + Sync + 'static {
    /// What it is.
    fn facts(&self) -> Facts;
    /// How much is in use.
    fn usage(&self) -> Usage;
    /// How short of things it is.
    fn readings(&self) -> Readings;
    /// Looks at the whole host and at these processes.
    fn look(&self, of: Vec<Watched>) -> BoxFuture<'_, HostLook>;
    /// Machine id and boot id.
    fn identity(&self) -> Identity;
}

/// Which host, and which life of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Machine id.
    pub machine: String,
    /// Boot id.
    pub boot: String,
}
