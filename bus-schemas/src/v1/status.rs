//! Status as users read it (CONTRACT.md section 6). Status of Node and Process is computed, never stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::beat::Usage;
use super::epoch::Epoch;
use super::object::{Metadata, Object};
use super::process::Goal;
use super::reason::Reason;
use super::report::{Condition, DriftReport, ExitReport, FileState, ProcessPhase};
use super::state::{RolloutHold, RolloutPhase, WaveTally};
use super::usage::ProcessUsage;
use crate::codec::Wire;
use crate::ids::{Actor, NodeName, Revision, Sha256, Uid, Version};
use crate::quantity::{Cpu, Dur, Size};
use crate::spec::Spec;
use crate::time::Timestamp;

/// An object with its status: what `get` returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Name, identity, history.
    pub metadata: Metadata,
    /// What was asked.
    pub spec: Spec,
    /// What is so.
    pub status: Status,
    /// Objects revision of the last write of the object.
    pub revision: Revision,
}

impl View {
    /// The object without its status.
    #[must_use]
    pub fn object(&self) -> Object {
        Object { metadata: self.metadata.clone(), spec: self.spec.clone() }
    }
}

impl Wire for View {
    const KIND: &'static str = "View";
}

/// Status by kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are the kinds")]
pub enum Status {
    Node(Box<NodeStatus>),
    Namespace(NamespaceStatus),
    Process(Box<ProcessStatus>),
    Deployment(Box<DeploymentStatus>),
    ConfigFile(Box<ConfigFileStatus>),
    Secret(Box<SecretStatus>),
}

/// Status of a Secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretStatus {
    /// Rises with each change of a value.
    pub version: Version,
    /// What it has.
    pub keys: Vec<SecretKeyStatus>,
    /// Who refers to it, as `deployment/web`.
    pub used_by: Vec<String>,
}

/// One value of a Secret, as anybody may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyStatus {
    /// Its name.
    pub name: String,
    /// How many bytes it has.
    pub size: u32,
    /// The version that brought it.
    pub since: Version,
}

/// The phase of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NodePhase {
    /// Takes work.
    Ready,
    /// Beats come, but a condition forbids work.
    NotReady,
    /// Beats are late; nothing is done yet.
    Suspect,
    /// Beats are missing past the limit; eviction may begin.
    Lost,
    /// The control plane itself cannot tell; nothing is evicted.
    #[serde(other)]
    Unknown,
}

impl NodePhase {
    /// As in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            NodePhase::Ready => "Ready",
            NodePhase::NotReady => "NotReady",
            NodePhase::Suspect => "Suspect",
            NodePhase::Lost => "Lost",
            NodePhase::Unknown => "Unknown",
        }
    }
}

/// CPU, memory and disk of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAmounts {
    /// Processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Size,
    /// Disk; none where it is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Size>,
}

/// Addresses of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// For other hosts of the fleet.
    pub internal: String,
}

/// Counts of a node's processes. None where the node cannot be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessCounts {
    /// Should run there.
    pub assigned: u32,
    /// Run.
    pub running: Option<u32>,
    /// Are ready.
    pub ready: Option<u32>,
}

/// Counts of a node's managed files. None where the node cannot be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileCounts {
    /// Should be held there.
    pub managed: u32,
    /// Are as they should be.
    pub in_sync: Option<u32>,
    /// Differ, contested ones included.
    pub drifted: Option<u32>,
    /// Could not be written.
    pub failed: Option<u32>,
}

/// Versions of a node's software.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each is the version of what it names")]
pub struct NodeVersions {
    pub agent: String,
    pub holder: String,
    pub kernel: String,
    pub os: String,
    pub arch: String,
    pub systemd: String,
}

/// Status of a Node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its phase.
    pub phase: NodePhase,
    /// The host's full name.
    pub hostname: String,
    /// Machine id.
    pub machine_id: String,
    /// Boot id.
    pub boot_id: String,
    /// Addresses.
    pub addresses: Addresses,
    /// The last beat, by the answering replica's clock; none if it has heard none.
    pub last_beat: Option<Timestamp>,
    /// The node's wall clock minus the replica's, in milliseconds; none if not known now.
    pub clock_offset: Option<i64>,
    /// All there is.
    pub capacity: NodeAmounts,
    /// What the scheduler may hand out.
    pub allocatable: NodeAmounts,
    /// What it has handed out.
    pub requested: NodeAmounts,
    /// What is in use, by the last beat; none if not known now.
    pub usage: Option<Usage>,
    /// Processes.
    pub processes: ProcessCounts,
    /// Files.
    pub files: FileCounts,
    /// Versions.
    pub versions: NodeVersions,
    /// Highest epoch that the node has accepted.
    pub epoch: Epoch,
    /// Labels that the agent sets, beside those of the metadata.
    pub labels: BTreeMap<String, String>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// Status of a Namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceStatus {
    /// Objects in it.
    pub objects: u64,
}

/// Status of a Process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    /// Its phase.
    pub phase: ProcessPhase,
    /// Its goal.
    pub goal: Goal,
    /// Whether it is ready; none if not known now.
    pub ready: Option<bool>,
    /// Why it is as it is.
    pub reason: Option<Reason>,
    /// The same for people.
    pub message: Option<String>,
    /// Its node, once it has one.
    pub node: Option<NodeName>,
    /// Main pid.
    pub pid: Option<u32>,
    /// Incarnation.
    pub incarnation: u64,
    /// Version that it should have.
    pub version: Version,
    /// Start of the incarnation.
    pub started_at: Option<Timestamp>,
    /// When it became ready.
    pub ready_at: Option<Timestamp>,
    /// Starts after the first; none if not known now.
    pub restarts: Option<u64>,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// The last exit known.
    pub last_exit: Option<ExitReport>,
    /// Control group.
    pub cgroup: Option<String>,
    /// Log files on the node.
    pub log_path: Option<String>,
    /// What it takes, where somebody asked its node; never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ProcessUsage>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// State.
    pub state: RolloutPhase,
    /// Version that is left.
    pub from_version: Version,
    /// Version that is coming.
    pub to_version: Version,
    /// Wave, from 1.
    pub wave: u32,
    /// Number of waves.
    pub waves: u32,
    /// How long a wave must stay healthy; none from a server that does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Dur>,
    /// When the bake ends.
    pub bake_ends_at: Option<Timestamp>,
    /// Replicas or nodes in all.
    pub total: u32,
    /// Of these have the version.
    pub updated: u32,
    /// Of these are healthy with it.
    pub healthy: u32,
    /// Of these have failed.
    pub failed: u32,
    /// Nodes that cannot be asked.
    pub offline: u32,
    /// Begin.
    pub started_at: Option<Timestamp>,
    /// End.
    pub finished_at: Option<Timestamp>,
    /// Who asked for it.
    pub actor: Option<Actor>,
    /// Why it was asked for.
    pub reason: Option<String>,
    /// Why it stands where it stands.
    pub message: String,
    /// The present wave, with those before it; none while it has not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<WaveTally>,
    /// The waves that are over, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<WaveTally>,
    /// Who has to go on while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<RolloutHold>,
    /// What is waited for: nodes or processes, the first few by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// Who failed and why, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

/// Status of a Deployment; `st.deployment.<ns>.<name>` as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// Version in force or on its way.
    pub version: Version,
    /// Last version that completed.
    pub last_good_version: Version,
    /// Version that was rolled back from; 0 if none.
    pub failed_version: Version,
    /// Processes whose goal is to run.
    pub replicas: u32,
    /// Of these have the version.
    pub updated: u32,
    /// Of these are ready.
    pub ready: u32,
    /// Wanted and not ready.
    pub unavailable: u32,
    /// The rollout.
    pub rollout: Option<RolloutStatus>,
    /// Generation that this speaks of.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Epoch of the leader who wrote it.
    pub epoch: Epoch,
}

impl Wire for DeploymentStatus {
    const KIND: &'static str = "DeploymentStatus";
}

/// Counts of the nodes of a ConfigFile by state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each counts the nodes in the state that it names")]
pub struct FileNodeCounts {
    pub total: u32,
    pub in_sync: u32,
    pub pending: u32,
    pub applying: u32,
    pub drifted: u32,
    pub contested: u32,
    pub failed: u32,
    pub held: u32,
    pub offline: u32,
}

/// Status of a ConfigFile; `st.configfile.<ns>.<name>` as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFileStatus {
    /// Version in force or on its way.
    pub version: Version,
    /// Last version that completed.
    pub last_good_version: Version,
    /// Version that was rolled back from; 0 if none.
    pub failed_version: Version,
    /// Nodes by state.
    pub nodes: FileNodeCounts,
    /// The rollout.
    pub rollout: Option<RolloutStatus>,
    /// Generation that this speaks of.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Epoch of the leader who wrote it.
    pub epoch: Epoch,
}

impl Wire for ConfigFileStatus {
    const KIND: &'static str = "ConfigFileStatus";
}

/// One row of `config status`: a ConfigFile on a node (CONTRACT.md section 7, kind `ConfigFileNode`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFileNode {
    /// The node.
    pub node: NodeName,
    /// Uid of the ConfigFile.
    pub uid: Uid,
    /// Version on disk, as last known; 0 if none.
    pub version: Version,
    /// Hash on disk, as last known.
    pub sha256: Option<Sha256>,
    /// State.
    pub state: FileState,
    /// Why.
    pub reason: Option<Reason>,
    /// The same for people.
    pub message: Option<String>,
    /// When the state last changed.
    pub changed_at: Option<Timestamp>,
    /// The last drift.
    pub last_drift: Option<DriftReport>,
}
