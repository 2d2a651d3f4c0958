//! What the holder writes down so that the next one can take over its processes.
//!
//! The state belongs to one boot. Within it a process is recognised by (pid, start time), which no other process
//! of that boot can have; across boots nothing survived and every recorded process has ended.

use serde::{Deserialize, Serialize};

use super::notify::{Listen, Said};
use super::protocol::{ExitRecord, KillMode, LogSpec, Phase, ProcKey};

/// The format this build writes: 1 was one MessagePack value, 2 is a journal ([`super::journal`]). A higher number is
/// refused: its processes must not be guessed at.
pub const STATE_FORMAT: u32 = 2;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderState {
    /// [`STATE_FORMAT`] of who wrote it.
    pub format: u32,
    /// The boot it was written in.
    pub boot_id: String,
    /// The sequence number of the next exit.
    pub next_seq: u64,
    /// Every incarnation of which something may still run.
    #[serde(default)]
    pub processes: Vec<ProcessRecord>,
    /// Every exit that was not acknowledged.
    #[serde(default)]
    pub exits: Vec<ExitRecord>,
}

impl HolderState {
    /// The state of a holder that never held anything.
    #[must_use]
    pub fn empty(boot_id: impl Into<String>) -> Self {
        Self {
            format: STATE_FORMAT,
            boot_id: boot_id.into(),
            next_seq: 1,
            processes: Vec::new(),
            exits: Vec::new(),
        }
    }
}

/// What is needed to adopt one incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Which.
    pub key: ProcKey,
    /// Its process's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The main process.
    pub pid: i32,
    /// Its start, in clock ticks since boot.
    pub start_time: u64,
    /// When it was started, in milliseconds since 1970.
    pub started_at: u64,
    /// Its cgroup, as a path in the file system.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// The FIFO of its standard output.
    pub stdout: String,
    /// The FIFO of its standard error.
    pub stderr: String,
    /// Where its output goes.
    pub log: LogSpec,
    /// Whom a stop signals.
    pub kill_mode: KillMode,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// How long a stop waits.
    pub grace_ms: u64,
    /// Where it is in its life. `Running` is not written down on its own: `Starting` here may run already.
    pub phase: Phase,
    /// The signal a stop under way has sent.
    #[serde(default)]
    pub stop_sent: Option<i32>,
    /// When a stop under way becomes SIGKILL, in milliseconds since boot (suspended time counts).
    #[serde(default)]
    pub kill_at: Option<u64>,
    /// What is listened for on its notification socket, if it has one.
    #[serde(default)]
    pub listen: Option<Listen>,
    /// What it has said there. A status is written down with other changes only.
    #[serde(default)]
    pub said: Said,
    /// Whether it is being ended because its watchdog missed it.
    #[serde(default)]
    pub unwell: bool,
}
