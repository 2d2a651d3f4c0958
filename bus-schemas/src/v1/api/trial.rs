//! `--dry-run=nodes`: a version of a file is rendered and looked at on every node that it is for, and put in place on
//! none. Nothing of it is stored but contents too large for a message.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{ConfigPush, ManifestDocument};
use crate::ids::{NodeName, Sha256, Uid, Version};
use crate::v1::document::{FileSpec, FileVars, NodeFacts};
use crate::v1::reason::Reason;

/// What is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConfigTry {
    /// A push.
    Push(Box<ConfigPush>),
    /// What a manifest says. Whether it may be applied is asked by a dry run of the apply.
    Manifest(Box<ManifestDocument>),
}

/// The order to one node: it is for this node only, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileTrial {
    /// The ConfigFile, or what it would be.
    pub uid: Uid,
    /// The version that it would be.
    pub version: Version,
    /// What the file is to be.
    pub spec: FileSpec,
    /// What it is rendered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vars: Option<FileVars>,
    /// What templates may say of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<NodeFacts>,
    /// Contents and templates that lie nowhere else yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<ByteBuf>,
}

/// What would become of it on a node, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TrialState {
    /// The validator refuses it.
    ValidatorFailed,
    /// It cannot be put in place for another reason.
    Failed,
    /// The node should have answered, and did not.
    NoAnswer,
    /// The node is lost, or was never heard of.
    Offline,
    /// It would be put in place.
    WouldChange,
    /// It lies there so already.
    Unchanged,
    /// What a newer agent says.
    #[serde(other)]
    Unknown,
}

impl TrialState {
    /// As in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TrialState::ValidatorFailed => "ValidatorFailed",
            TrialState::Failed => "Failed",
            TrialState::NoAnswer => "NoAnswer",
            TrialState::Offline => "Offline",
            TrialState::WouldChange => "WouldChange",
            TrialState::Unchanged => "Unchanged",
            TrialState::Unknown => "Unknown",
        }
    }
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialAnswer {
    /// What would become of it.
    pub state: TrialState,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The same for people: one line, and what came out of a validator below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Hash of what would be there; none where a secret is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

/// Rows of the answer, in parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialReply {
    /// One for each node, by name.
    pub nodes: Vec<TrialNode>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialNode {
    /// The node.
    pub node: NodeName,
    /// What it said.
    pub answer: TrialAnswer,
}
