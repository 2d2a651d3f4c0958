//! The records of a process: `p.<uid>.spec|tmpl|bind|goal`. Each has one writer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::epoch::{Epoch, Token};
use super::object::OwnerReference;
use crate::codec::Wire;
use crate::ids::{Actor, Kind, Name, Namespace, NodeName, Sha256, Version};
use crate::key::ObjectRef;
use crate::time::Timestamp;

/// `t.<sha256>`: a process template, immutable, named by the hash of these bytes.
impl Wire for crate::spec::ProcessTemplate {
    const KIND: &'static str = "ProcessTemplate";
    const LIMIT: usize = 128 << 10;
}

/// Most bytes of the small records of a process.
const SMALL: usize = 16 << 10;

/// `p.<uid>.spec`: immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSpecRecord {
    /// The owner; a Process applied by hand is its own owner.
    pub owner: OwnerReference,
    /// Its namespace, and the process's.
    pub namespace: Namespace,
    /// The process's name: owner-hash-suffix, or the owner's own.
    pub name: Name,
    /// Ordinal, for members that have one.
    pub ordinal: Option<u32>,
    /// When it was decided that this process should be.
    pub at: Timestamp,
}

impl ProcessSpecRecord {
    /// The Process object that the record stands for.
    #[must_use]
    pub fn process(&self) -> ObjectRef {
        ObjectRef { kind: Kind::Process, namespace: Some(self.namespace.clone()), name: self.name.clone() }
    }
}

impl Wire for ProcessSpecRecord {
    const KIND: &'static str = "ProcessSpec";
    const LIMIT: usize = SMALL;
}

/// `p.<uid>.tmpl`: the template now wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessTemplateRecord {
    /// Hash of the stored template (`t.<sha256>`).
    pub template: Sha256,
    /// The owner's version that it belongs to.
    pub version: Version,
}

impl Wire for ProcessTemplateRecord {
    const KIND: &'static str = "ProcessTemplateRef";
    const LIMIT: usize = SMALL;
}

/// `p.<uid>.bind`: process to node, written once, in one batch with the node's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindRecord {
    /// The node.
    pub node: NodeName,
    /// The fencing token.
    pub token: Token,
    /// Ports by name, assigned ones included.
    pub ports: BTreeMap<String, u16>,
    /// When.
    pub at: Timestamp,
}

impl Wire for BindRecord {
    const KIND: &'static str = "ProcessBind";
    const LIMIT: usize = SMALL;
}

/// What should become of a process. Ordered: it only ever rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Should run. The goal of every process without a goal record.
    #[default]
    Run,
    /// Should end in order.
    Stop,
    /// Nothing of it may be left. Set when its exit is acknowledged or its node is lost.
    Gone,
}

/// Why a goal was tightened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoalReason {
    /// Its owner, or it itself, was deleted.
    Delete,
    /// Its owner wants fewer.
    Scale,
    /// Another version replaces it.
    Rollout,
    /// Its node is being emptied.
    Drain,
    /// Its node was lost.
    Lost,
    /// A taint of its node, or pressure there.
    Evicted,
    /// It failed for good and its owner replaces it.
    Failed,
    /// It ended, and its end is known to its owner.
    Ended,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

impl GoalReason {
    /// Whether many stops of this reason at once are the wish of a person or a verdict, and so may be `bulk`
    /// (DESIGN.md 3.4).
    #[must_use]
    pub const fn may_be_bulk(self) -> bool {
        match self {
            GoalReason::Delete
            | GoalReason::Scale
            | GoalReason::Rollout
            | GoalReason::Drain
            | GoalReason::Lost
            | GoalReason::Failed
            | GoalReason::Ended => true,
            GoalReason::Evicted | GoalReason::Other => false,
        }
    }

    /// As in documents and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            GoalReason::Delete => "delete",
            GoalReason::Scale => "scale",
            GoalReason::Rollout => "rollout",
            GoalReason::Drain => "drain",
            GoalReason::Lost => "lost",
            GoalReason::Evicted => "evicted",
            GoalReason::Failed => "failed",
            GoalReason::Ended => "ended",
            GoalReason::Other => "other",
        }
    }
}

/// `p.<uid>.goal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoalRecord {
    /// The goal.
    pub goal: Goal,
    /// Why.
    pub reason: GoalReason,
    /// Who decided.
    pub actor: Actor,
    /// The epoch of the leader who decided; none when the API did.
    pub epoch: Option<Epoch>,
    /// When.
    pub at: Timestamp,
}

impl Wire for GoalRecord {
    const KIND: &'static str = "ProcessGoal";
    const LIMIT: usize = SMALL;
}
