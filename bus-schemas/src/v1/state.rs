//! Decision state of controllers, `s.<controller>.<uid or node>`: what changes a decision and cannot be recomputed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::epoch::Epoch;
use super::report::Measure;
use crate::codec::Wire;
use crate::ids::{Revision, Version};
use crate::time::Timestamp;

const SMALL: usize = 64 << 10;

/// `s.node.<node>`: verdicts on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// The verdict that the node is lost, while it holds.
    pub lost: Option<LostVerdict>,
    /// When a `NoExecute` taint was first seen, by `key=value`: toleration times count from here.
    pub tainted_since: BTreeMap<String, Timestamp>,
    /// The last eviction for want of memory: the next one waits until what it freed can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relieved: Option<Timestamp>,
    /// The epoch that wrote this.
    pub epoch: Epoch,
}

impl Wire for NodeState {
    const KIND: &'static str = "NodeState";
    const LIMIT: usize = SMALL;
}

/// A durable verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostVerdict {
    /// When it was given.
    pub at: Timestamp,
    /// The last beat heard, by the judge's clock.
    pub last_beat: Timestamp,
    /// Boot id of the node when it was last heard.
    pub boot: String,
    /// Agent incarnation when it was last heard.
    pub incarnation: u64,
    /// The brake: while true nothing of the node is evicted. Ends when the node returns or is deleted.
    pub held: bool,
    /// Why it is held, for people.
    pub why: Option<String>,
}

/// `s.deployment.<uid>`, `s.configfile.<uid>`: what is in force of an object that rolls out versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutState {
    /// The version held before, which `target` replaces; 0 before the first.
    pub current: Version,
    /// The version in force or on its way.
    pub target: Version,
    /// The last version that completed; 0 if none has.
    pub last_good: Version,
    /// The version that was rolled back from; 0 if none. Not tried again by itself.
    pub failed: Version,
    /// The wave, from 1; 0 when nothing rolls out.
    pub wave: u32,
    /// When the bake of the healthy wave ends. None while it is not healthy.
    pub bake_ends_at: Option<Timestamp>,
    /// How many exits the version's processes had had when the bake began: one more is a failure.
    #[serde(default)]
    pub exits: u64,
    /// Where it stands.
    pub phase: RolloutPhase,
    /// Why it stands there, for people.
    pub reason: String,
    /// Generation of the spec that this state has taken in.
    pub generation: u64,
    /// When the rollout began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How many waves there are, as counted when the present one started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waves: u32,
    /// When the present wave started; none while it waits for a window, a person or a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave_started_at: Option<Timestamp>,
    /// How many replicas or nodes there were in the waves so far when the present one started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wave_size: u32,
    /// The last version that a rollback has left: it stays nowhere, whatever came after it.
    #[serde(default, skip_serializing_if = "is_no_version")]
    pub bad: Version,
    /// The version that the order of nodes is drawn with: that of the first rollout since one came to its end, so that
    /// a version which replaces another on its way goes first where that one went first.
    #[serde(default, skip_serializing_if = "is_no_version")]
    pub seed: Version,
    /// Nodes up to here in that order take the target; none means nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Rank>,
    /// Where the present wave ends in that order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave_end: Option<Rank>,
    /// Who has to go on while the phase is `Paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<RolloutHold>,
    /// The last order of a person that has been taken in.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub orders: u64,
    /// How many had failed when the wave was given up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// So many failures were seen by a person who went on in spite of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pardoned: u32,
    /// What processes took before this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Measure>,
    /// The waves that are over, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<WaveTally>,
    /// The epoch that wrote this.
    pub epoch: Epoch,
}

/// A place in the order in which nodes take a version: first by group, where waves must not mix groups, then by node.
/// Both are hashes, so that the order needs no list to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rank {
    /// Of the group; 0 without groups.
    pub g: u64,
    /// Of the node in its group.
    pub n: u64,
}

impl Rank {
    /// Every node is before it.
    pub const LAST: Rank = Rank { g: u64::MAX, n: u64::MAX };
}

/// Why a rollout is paused, and so who goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RolloutHold {
    /// A person has set `paused`.
    Person,
    /// `pauseAfter` names the wave that is over.
    AfterWave,
    /// The version has failed, or was given up by a person, and stays where it is.
    Failure,
    /// A reason of a newer version.
    #[serde(other)]
    Unknown,
}

/// What came of a wave, or is to be seen of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveTally {
    /// Its number.
    pub wave: u32,
    /// Replicas or nodes in it and the waves before.
    pub size: u32,
    /// Of these were well.
    pub healthy: u32,
    /// Of these had failed, and that was borne.
    pub failed: u32,
    /// Of these could not be asked.
    pub offline: u32,
    /// When it was over; of the present one, when it started.
    pub at: Timestamp,
}

// What is not set is not written: most states are of rollouts that are over.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes by reference")]
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes by reference")]
const fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes by reference")]
const fn is_no_version(version: &Version) -> bool {
    version.0 == 0
}

impl Wire for RolloutState {
    const KIND: &'static str = "RolloutState";
    const LIMIT: usize = SMALL;
}

/// Where a rollout stands (CONTRACT.md section 6, `rollout.state`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named in CONTRACT.md section 6")]
pub enum RolloutPhase {
    #[default]
    Progressing,
    Baking,
    Complete,
    Paused,
    RollingBack,
    RolledBack,
    Failed,
    #[serde(other)]
    Unknown,
}

impl RolloutPhase {
    /// As in status and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RolloutPhase::Progressing => "Progressing",
            RolloutPhase::Baking => "Baking",
            RolloutPhase::Complete => "Complete",
            RolloutPhase::Paused => "Paused",
            RolloutPhase::RollingBack => "RollingBack",
            RolloutPhase::RolledBack => "RolledBack",
            RolloutPhase::Failed => "Failed",
            RolloutPhase::Unknown => "Unknown",
        }
    }
}

/// `s.scheduler.<process uid>`: why a process has no node. Written when the reason changes, gone when it is placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingState {
    /// `none of 12 nodes fits: 5 nodeSelector, 4 memory, 2 port, 1 taint`.
    pub message: String,
    /// How many nodes each filter rejected, in the filters' order.
    pub filters: Vec<FilterCount>,
    /// Since when this reason holds.
    pub since: Timestamp,
    /// Objects revision that it was decided at.
    pub revision: Revision,
    /// The epoch that wrote this.
    pub epoch: Epoch,
}

/// How many nodes one filter rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterCount {
    /// The filter.
    pub name: String,
    /// How many nodes it rejected.
    pub count: u32,
    /// What the nearest of them lacks.
    pub detail: String,
}

impl Wire for PendingState {
    const KIND: &'static str = "PendingState";
    const LIMIT: usize = SMALL;
}
