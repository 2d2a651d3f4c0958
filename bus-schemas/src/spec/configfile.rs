//! What a ConfigFile asks for: one file, the same on every selected node.

use serde::{Deserialize, Serialize};

use super::{Labels, Rollout};
use crate::ids::Sha256;
use crate::quantity::Mode;

/// The spec of a ConfigFile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFileSpec {
    /// Absolute path in normal form; never changes.
    pub path: String,
    /// Which nodes hold the file; empty means every node.
    pub node_selector: Labels,
    /// What is in it; none until the first `content` or push, and until then nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentRef>,
    /// Name or number of the user that owns it.
    pub owner: String,
    /// Name or number of the group; none means the owner's primary group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Permission bits.
    pub mode: Mode,
    /// Whether missing parent folders are made, root's and 0755.
    pub create_directories: bool,
    /// What is done when the file is found changed.
    pub drift: Drift,
    /// What is done at first contact with a file that Ostler did not write.
    pub on_existing: OnExisting,
    /// What stays on the host when the object goes or the node no longer matches.
    pub on_remove: OnRemove,
    /// How a new version spreads.
    pub rollout: Rollout,
}

/// Content by name: the bytes lie in the blob store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentRef {
    /// The SHA-256 of the bytes.
    pub sha256: Sha256,
    /// How many they are.
    pub size: u64,
}

/// What is done when a managed file is found changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// Put back, and reported.
    Enforce,
    /// Reported only.
    Warn,
    /// Not looked for.
    Ignore,
    /// A choice of a newer server: an older agent reports and does not write.
    #[serde(other)]
    Unknown,
}

/// What is done with a file found at the path that Ostler did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    /// Keep its original on the host and write.
    Replace,
    /// Leave it alone and report.
    Refuse,
    /// A choice of a newer server: an older agent leaves the file alone.
    #[serde(other)]
    Unknown,
}

/// What stays when the file is managed no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRemove {
    /// The file as it is.
    Keep,
    /// What was there before Ostler.
    Restore,
    /// Nothing.
    Delete,
    /// A choice of a newer server: an older agent keeps the file.
    #[serde(other)]
    Unknown,
}

impl ConfigFileSpec {
    /// Whether going from `self` to `next` is a new version of the file: content, owner, group or mode differ.
    /// Changes of where it goes or how drift is met roll nothing out.
    #[must_use]
    pub fn is_new_version(&self, next: &ConfigFileSpec) -> bool {
        self.content != next.content
            || self.owner != next.owner
            || self.group != next.group
            || self.mode != next.mode
    }
}
