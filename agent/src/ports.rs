//! What an agent may do to its host, as ports, each with a real and a simulated implementation.
//!
//! * [`Host`]: processes, through the holder; also users, probes and logs, which only the host has.
//! * [`Files`]: managed files, one step at a time.
//! * [`LedgerStore`]: what survives the agent.
//! * [`FactsSource`]: what the host is and how busy it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_agent_core::environment::UserFacts;
use ostler_agent_core::file::{Observed, Owner, Step, StepError};
use ostler_agent_core::holder::protocol::{Limits, ProcKey, RunAs};
use ostler_agent_core::probe::Question;
use ostler_agent_core::unit::{HostExit, HostProcess, StartFailure};
use ostler_schemas::quantity::{Rlimit, Signal};
use ostler_schemas::v1::beat::Usage;
use ostler_schemas::v1::report::Facts;
use ostler_schemas::{Name, Namespace, Sha256, Uid};

/// A shared host.
pub type HostRef = Arc<dyn Host>;
/// A shared file system.
pub type FilesRef = Arc<dyn Files>;
/// A shared ledger store.
pub type LedgerRef = Arc<dyn LedgerStore>;
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
    /// Limits that cannot be enforced here: `cpu`, `memory`.
    pub unenforced: Vec<String>,
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
    /// Limit of open files.
    pub nofile: Rlimit,
    /// Limits of the whole tree.
    pub limits: Limits,
    /// How a stop asks it to end when the stop does not say.
    pub stop_signal: Signal,
    /// How long such a stop waits.
    pub grace_ms: u64,
}

/// A start that came to nothing, or whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpawnError {
    /// Nothing runs.
    Not(StartFailure),
    /// It may run.
    Unknown(String),
}

/// A place in a log, for going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPlace {
    /// Names the file, whatever it is called by now.
    pub file: u64,
    /// Bytes of it that were read.
    pub offset: u64,
}

/// A piece of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPiece {
    /// Whole lines.
    pub bytes: Bytes,
    /// Where to go on.
    pub next: LogPlace,
}

/// The processes of a host.
pub trait Host: Send + Sync + 'static {
    /// Connects to the holder, and again after the events of a connection ended.
    fn connect(&self) -> BoxFuture<'_, Result<HostConnection, HostError>>;
    /// Everything that the holder has.
    fn list(&self) -> BoxFuture<'_, Result<HostListing, HostError>>;
    /// Starts an incarnation.
    fn spawn(&self, spawn: HostSpawn) -> BoxFuture<'_, Result<HostProcess, SpawnError>>;
    /// Stops one: the signal, then SIGKILL after the grace.
    fn stop(&self, key: ProcKey, signal: Signal, grace_ms: u64) -> BoxFuture<'_, Result<(), HostError>>;
    /// Changes the limit of open files of one.
    fn adjust(&self, key: ProcKey, nofile: Rlimit) -> BoxFuture<'_, Result<(), HostError>>;
    /// Says that an exit is safe.
    fn acknowledge(&self, key: ProcKey, seq: u64) -> BoxFuture<'_, Result<(), HostError>>;
    /// Looks a user up, and a group if one is named; without a user it is the one that processes run as when nothing
    /// is said. An error is in words for people.
    fn user(&self, user: Option<String>, group: Option<String>) -> BoxFuture<'_, Result<HostUser, String>>;
    /// Asks a readiness question; an error says what was wrong, for people.
    fn ask(&self, question: Question, timeout_ms: u64) -> BoxFuture<'_, Result<(), String>>;
    /// The last lines of a process's log (all that is kept when no number is given), at most a megabyte.
    fn log_tail(
        &self,
        namespace: Namespace,
        name: Name,
        lines: Option<u64>,
    ) -> BoxFuture<'_, Result<LogPiece, String>>;
    /// What came after a place, at most a megabyte; nothing if nothing did.
    fn log_more(
        &self,
        namespace: Namespace,
        name: Name,
        from: LogPlace,
    ) -> BoxFuture<'_, Result<LogPiece, String>>;
}

/// The file system of a host.
pub trait Files: Send + Sync + 'static {
    /// What lies at a path. With `wanted`, the content that should be there, how what is there differs from it.
    fn observe(&self, path: String, wanted: Option<Bytes>) -> BoxFuture<'_, Result<Observed, String>>;
    /// Carries out one step; `content` is what [`Step::WriteTemp`] of a blob writes. [`Step::Record`] never comes here.
    fn apply(&self, step: Step, content: Option<Bytes>) -> BoxFuture<'_, Result<(), StepError>>;
    /// Yields each time something may have happened at the path. May yield too often, and may miss things: a slow
    /// rescan finds those.
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

/// What a host is, and how busy.
pub trait FactsSource: Send + Sync + 'static {
    /// What it is.
    fn facts(&self) -> Facts;
    /// How much is in use.
    fn usage(&self) -> Usage;
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
