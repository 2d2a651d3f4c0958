//! Reports: what a node says of itself. One document per node, `r.<node>`.
//!
//! Older tuples of (boot, incarnation, seq) are ignored by readers: see [`Report::supersedes`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::beat::HeldDocument;
pub use super::drift::{DriftReport, Writer};
use super::reason::Reason;
use super::usage::Others;
use crate::codec::Wire;
use crate::ids::{Name, Namespace, Sha256, Uid, Version};
use crate::quantity::{Cpu, Size};
use crate::sealing::PublicKey;
use crate::time::Timestamp;

/// What the host is. Changes seldom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The host's full name.
    pub hostname: String,
    /// `x86_64`, `aarch64`, ….
    pub arch: String,
    /// Name and version of the operating system.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Version of systemd; empty without it.
    pub systemd: String,
    /// The address that others reach processes of this node at.
    pub address: String,
    /// Version of the agent.
    pub agent: String,
    /// Version of the holder.
    pub holder: String,
    /// Processor capacity.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Size,
    /// Size of the filesystem of Ostler's state.
    pub disk: Size,
    /// First and last port that the scheduler may assign.
    pub ports: (u16, u16),
    /// What secrets for this node are sealed to; none where it can open none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_key: Option<PublicKey>,
}

/// A thing that is so, with since when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about, for example `LimitsUnenforced`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when.
    pub last_transition_time: Timestamp,
    /// The generation that it speaks of; none where that means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u64>,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the three values of every condition")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// Where a process is in its life, as its node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProcessPhase {
    /// Not started yet: something is missing, or it waits out a delay.
    Pending,
    /// Being started.
    Starting,
    /// Runs.
    Running,
    /// Being ended.
    Stopping,
    /// Ended with success, and will not be started again.
    Succeeded,
    /// Ended without success, and will not be started again.
    Failed,
    /// Was told to end and has ended, or never ran: nothing of it is left.
    Stopped,
    /// Runs without an entry in the document: kept, reported.
    Orphan,
    /// Cannot be told, or a phase of a newer version.
    #[serde(other)]
    Unknown,
}

impl ProcessPhase {
    /// Whether an operating-system process may be alive in this phase.
    #[must_use]
    pub const fn may_be_alive(self) -> bool {
        match self {
            ProcessPhase::Starting
            | ProcessPhase::Running
            | ProcessPhase::Stopping
            | ProcessPhase::Orphan
            | ProcessPhase::Unknown => true,
            ProcessPhase::Pending
            | ProcessPhase::Succeeded
            | ProcessPhase::Failed
            | ProcessPhase::Stopped => false,
        }
    }

    /// Whether the process has ended for good on its node.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        match self {
            ProcessPhase::Succeeded | ProcessPhase::Failed | ProcessPhase::Stopped => true,
            ProcessPhase::Pending
            | ProcessPhase::Starting
            | ProcessPhase::Running
            | ProcessPhase::Stopping
            | ProcessPhase::Orphan
            | ProcessPhase::Unknown => false,
        }
    }

    /// As in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ProcessPhase::Pending => "Pending",
            ProcessPhase::Starting => "Starting",
            ProcessPhase::Running => "Running",
            ProcessPhase::Stopping => "Stopping",
            ProcessPhase::Succeeded => "Succeeded",
            ProcessPhase::Failed => "Failed",
            ProcessPhase::Stopped => "Stopped",
            ProcessPhase::Orphan => "Orphan",
            ProcessPhase::Unknown => "Unknown",
        }
    }
}

/// One process in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessReport {
    /// Its uid.
    pub u: Uid,
    /// Its incarnation, from 1; 0 before the first start.
    pub i: u64,
    /// Its phase.
    pub phase: ProcessPhase,
    /// Whether it is ready for work.
    pub ready: bool,
    /// Its main pid, while it runs.
    pub pid: Option<u32>,
    /// Hash of the template that it runs with.
    pub t: Option<Sha256>,
    /// Version that it runs with.
    pub v: Version,
    /// Start of this incarnation.
    pub started_at: Option<Timestamp>,
    /// When it became ready in this incarnation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// Starts after the first.
    pub restarts: u64,
    /// Why it is as it is, where that is not plain.
    pub reason: Option<Reason>,
    /// The same for people.
    pub message: Option<String>,
    /// How many exits this process ever had: the highest exit sequence.
    pub exits: u64,
    /// Its control group, where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Where its log files are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_path: Option<String>,
    /// What it takes and says, for rollouts that ask for it; none from an agent that does not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
}

/// What a rollout can be judged by beside health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measure {
    /// Bytes of memory in use.
    pub memory: u64,
    /// Error lines per hour.
    pub error_lines: u64,
}

/// What the processes that a file's actions name have done since its version was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileEffect {
    /// Restarts that no action asked for.
    pub restarts: u64,
    /// What they took before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Measure>,
    /// What they take now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Measure>,
}

/// How an incarnation ended. Consumers deduplicate by (uid, incarnation, seq).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitReport {
    /// The process.
    pub u: Uid,
    /// The incarnation.
    pub i: u64,
    /// Number of this exit among the process's exits, from 1.
    pub seq: u64,
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal, if one killed it.
    pub signal: Option<String>,
    /// What it came from.
    pub reason: ExitReason,
    /// Why the code is not known, or what else is to be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What an exit came from (CONTRACT.md section 6, `lastExit.reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named in CONTRACT.md section 6")]
pub enum ExitReason {
    Exited,
    Signaled,
    OutOfMemory,
    StartTimeout,
    StopTimeout,
    Watchdog,
    Evicted,
    Fenced,
    #[serde(other)]
    Unknown,
}

/// The state of one managed file on one node, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the states of CONTRACT.md section 7, in its order")]
pub enum FileState {
    Failed,
    Contested,
    Drifted,
    Offline,
    Held,
    Applying,
    Pending,
    InSync,
    /// Managed no longer, as asked; what `onRemove` says has been done.
    Released,
    #[serde(other)]
    Unknown,
}

/// One managed file in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileReport {
    /// Uid of the ConfigFile.
    pub u: Uid,
    /// Version on disk; 0 if none was ever written.
    pub v: Version,
    /// Version that the document asks for.
    pub wanted: Version,
    /// Path on the host.
    pub path: String,
    /// Hash of what is on disk now; none if nothing is.
    pub sha256: Option<Sha256>,
    /// State.
    pub state: FileState,
    /// Why, where it is not in sync.
    pub reason: Option<Reason>,
    /// The same for people.
    pub message: Option<String>,
    /// When the state last changed.
    pub at: Timestamp,
    /// The last drift, if there ever was one.
    pub last_drift: Option<DriftReport>,
    /// What became of the processes that its actions name; none where there are none, or from an agent that does not
    /// look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<FileEffect>,
}

/// A live process, or a file, without an entry in its document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrphanReport {
    /// Its uid.
    pub u: Uid,
    /// Namespace.
    pub namespace: Namespace,
    /// Name.
    pub name: Name,
    /// Main pid of a process; none for a file.
    pub pid: Option<u32>,
    /// Path of a file; none for a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// `r.<node>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Machine id.
    pub machine: String,
    /// Boot id.
    pub boot: String,
    /// Drawn at each start of the agent.
    pub incarnation: u64,
    /// Rises with every report of this incarnation.
    pub seq: u64,
    /// When it was made, by the node's clock.
    pub at: Timestamp,
    /// The run document that it speaks of.
    pub run: HeldDocument,
    /// The files document that it speaks of.
    pub files: HeldDocument,
    /// What the host is.
    pub facts: Facts,
    /// What the agent can do beyond the first version, by name.
    pub features: Vec<String>,
    /// What runs there outside Ostler takes; none from an agent that does not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Others>,
    /// The most that one process can be given here, by the name of the limit (`nofile`; `cpu` in millicores, `memory`
    /// in bytes). What is not named has no bound, or is not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bounds: BTreeMap<String, u64>,
    /// Labels that the agent sets: `ostler/arch`, `ostler/os`, `ostler/kernel`.
    pub labels: BTreeMap<String, String>,
    /// Conditions of the node.
    pub conditions: Vec<Condition>,
    /// Processes of the document, and ended ones whose entries are still there.
    pub processes: Vec<ProcessReport>,
    /// Exits, until their entries are retired; the oldest are dropped first, counted in `exits_dropped`.
    pub exits: Vec<ExitReport>,
    /// Exits that the ring had no room for.
    pub exits_dropped: u64,
    /// Files of the document.
    pub file_states: Vec<FileReport>,
    /// What has no entry.
    pub orphans: Vec<OrphanReport>,
}

impl Report {
    /// Whether this report replaces `other` of the same node. A new start of the agent always does: reports travel by
    /// guarded writes, so the one that is stored later was made by the instance that saw the earlier one.
    #[must_use]
    pub fn supersedes(&self, other: &Report) -> bool {
        self.incarnation != other.incarnation || self.boot != other.boot || self.seq > other.seq
    }

    /// The process with this uid.
    #[must_use]
    pub fn process(&self, uid: &Uid) -> Option<&ProcessReport> {
        self.processes.iter().find(|p| p.u == *uid)
    }

    /// The file of the ConfigFile with this uid.
    #[must_use]
    pub fn file(&self, uid: &Uid) -> Option<&FileReport> {
        self.file_states.iter().find(|f| f.u == *uid)
    }
}

impl Wire for Report {
    const KIND: &'static str = "Report";
    const LIMIT: usize = 512 << 10;
}
