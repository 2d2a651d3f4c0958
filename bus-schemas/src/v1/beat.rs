//! Beats: a node's sign of life, once a second, and the reply that tells it which revisions it should have.

use serde::{Deserialize, Serialize};

use super::epoch::Epoch;
use super::usage::Strain;
use crate::codec::Wire;
use crate::ids::{Name, Revision};
use crate::quantity::{Cpu, Size};

/// How often a node beats, in milliseconds (DESIGN.md 3.6).
pub const BEAT_MS: u64 = 1000;

/// How much of a node is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Processor time in use, of all cores.
    pub cpu: Cpu,
    /// Main memory in use (total less available).
    pub memory: Size,
    /// Bytes in use on the filesystem of Ostler's state.
    pub disk: Size,
    /// Load average of one minute, in hundredths.
    pub load1: u32,
    /// Highest pressure stall figure (PSI `some avg10` of cpu, memory, io), in hundredths of a percent; none where
    /// the kernel does not tell.
    pub pressure: Option<u32>,
}

/// `beat.<node>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    /// Machine id of the host.
    pub machine: String,
    /// Boot id of the host.
    pub boot: String,
    /// Drawn at each start of the agent.
    pub incarnation: u64,
    /// Rises by 1 with each beat of this incarnation.
    pub n: u64,
    /// The NATS server that the agent is connected to.
    pub server: Option<Name>,
    /// Version of the agent.
    pub version: String,
    /// Usage.
    pub usage: Usage,
    /// Processes that run.
    pub running: u32,
    /// Processes in its run document whose goal is to run.
    pub assigned: u32,
    /// Highest revision and epoch held of the run document.
    pub run: HeldDocument,
    /// Highest revision and epoch held of the files document.
    pub files: HeldDocument,
    /// Highest revision and epoch held of the secrets document.
    #[serde(default, skip_serializing_if = "HeldDocument::is_none")]
    pub secrets: HeldDocument,
    /// Sequence of its last stored report.
    pub report: u64,
    /// Whether the holder answers the agent.
    pub holder: bool,
    /// The agent's wall clock when it sent this, in milliseconds since 1970.
    pub wall: u64,
    /// Offset of the agent's monotonic clock is not sent: it means nothing elsewhere.
    #[serde(default)]
    pub draining: bool,
    /// Told while the host is short of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strain: Option<Strain>,
    /// Told while it is short of disk and has nothing left of its own to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_strain: Option<Strain>,
    /// Told while it is short of process numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_strain: Option<Strain>,
}

impl Wire for Beat {
    const KIND: &'static str = "Beat";
    const LIMIT: usize = 8192;
}

/// What an agent holds of one document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldDocument {
    /// Its epoch; all zero if it never had one.
    pub epoch: Epoch,
    /// Its revision; 0 if it never had one.
    pub revision: Revision,
}

impl HeldDocument {
    /// Whether there never was one.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

fn is_none(revision: &Revision) -> bool {
    *revision == Revision(0)
}

/// The answer to a beat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BeatReply {
    /// Revision that the node should have of its run document; 0 = there is none.
    pub run: Revision,
    /// Revision that the node should have of its files document; 0 = there is none.
    pub files: Revision,
    /// Revision that the node should have of its secrets document; 0 = there is none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub secrets: Revision,
    /// Sequence of the last report that the answering replica has seen from this incarnation.
    pub report: u64,
    /// Set when this instance must not act: another one beats under the same name.
    pub refused: Option<String>,
    /// Set when the node is not registered: it should register first.
    pub unregistered: bool,
}

impl Wire for BeatReply {
    const KIND: &'static str = "BeatReply";
    const LIMIT: usize = 8192;
}
