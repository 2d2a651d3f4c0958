//! Decision state of controllers, `s.<controller>.<uid or node>`: what changes a decision and cannot be recomputed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::epoch::Epoch;
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
    /// The epoch that wrote this.
    pub epoch: Epoch,
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
