//! `rollout`: how a version spreads, and what people do about it.

use serde::{Deserialize, Serialize};

use crate::ids::{Revision, Version};
use crate::key::ObjectRef;
use crate::time::Timestamp;
use crate::v1::object::Applied;
use crate::v1::status::View;

/// `rollout`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRequest {
    /// The Deployment or ConfigFile.
    pub object: ObjectRef,
    /// What to do.
    #[serde(default, skip_serializing_if = "RolloutOp::is_status")]
    pub op: RolloutOp,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What `rollout` can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutOp {
    /// Says how it stands.
    #[default]
    Status,
    /// Stands still until it is resumed.
    Pause,
    /// Goes on: after a pause, after a wave that a person has to look at, or in spite of what has failed.
    Resume,
    /// Gives the version on its way up and goes back.
    Abort,
    /// Makes a new version with what an old one had.
    Undo {
        /// The version; none = the last good one before the present.
        to_version: Option<Version>,
    },
    /// The versions that are kept.
    History,
}

impl RolloutOp {
    /// Whether nothing is asked but how it stands.
    #[must_use]
    pub fn is_status(&self) -> bool {
        *self == RolloutOp::Status
    }

    /// The verb of a change, as it stands in records: none of those that change nothing.
    #[must_use]
    pub const fn verb(self) -> Option<&'static str> {
        match self {
            RolloutOp::Status | RolloutOp::History => None,
            RolloutOp::Pause => Some("rollout pause"),
            RolloutOp::Resume => Some("rollout resume"),
            RolloutOp::Abort => Some("rollout abort"),
            RolloutOp::Undo { .. } => Some("rollout undo"),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutReply {
    /// The object with its status.
    pub view: View,
    /// What was changed; none if that was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<RolloutChange>,
    /// To history, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RolloutVersion>,
}

/// What a change of a rollout did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutChange {
    /// Whether anything was written.
    pub changed: bool,
    /// One line for people.
    pub message: String,
    /// Objects revision that the change is visible at.
    pub revision: Revision,
}

/// A kept version of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutVersion {
    /// The version.
    pub version: Version,
    /// Whether it is the one held or on its way.
    pub current: bool,
    /// `Held`, `RollingOut`, `Good`, `RolledBack`, `Superseded`.
    pub state: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// By whom, by which verb and why.
    pub by: Applied,
    /// What it changed: up to three field paths.
    pub change: Vec<String>,
}
