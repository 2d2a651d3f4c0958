//! `config`: versions of a file's content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{LabelRequirement, ManifestDocument};
use crate::ids::{Name, Namespace, NodeName, Revision, Version};
use crate::quantity::{CountOrPercent, Dur};
use crate::spec::ContentRef;
use crate::time::Timestamp;
use crate::v1::object::Applied;
use crate::v1::status::ConfigFileNode;

/// `config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRequest {
    /// The ConfigFile.
    pub name: Name,
    /// Its namespace.
    pub namespace: Namespace,
    /// What to do.
    pub op: ConfigOp,
}

/// What `config` can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConfigOp {
    /// Makes a new version of the content, and the object where there is none.
    Push(Box<ConfigPush>),
    /// Makes a new version with an old content.
    Rollback {
        /// The version; none = the last good one before the present.
        to_version: Option<Version>,
        /// Why, for the record.
        reason: Option<String>,
    },
    /// Leaves the files as they are on every host, and forgets them.
    Release {
        /// Although others need it.
        force: bool,
        /// Why, for the record.
        reason: Option<String>,
    },
    /// A row per node.
    Status {
        /// Only rows about this version.
        version: Option<Version>,
        /// Only nodes with these labels.
        labels: Vec<LabelRequirement>,
    },
    /// The versions that are kept.
    History,
    /// The content of a version; none = the present one.
    Content {
        /// The version.
        version: Option<Version>,
        /// Which of several files; none where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<String>,
    },
    /// What becomes of it on a node; nothing is changed.
    Render(Box<ConfigRender>),
    /// Files as hosts have them; answered by [`super::HostFiles`].
    Hosts(Box<super::HostsWish>),
    /// What would become of it on every node, tried there; answered by a [`super::TrialReply`].
    Try(super::ConfigTry),
}

/// A push of content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigPush {
    /// The content, when it is small; else it was sent ahead by `blob`.
    pub inline: Option<ByteBuf>,
    /// Its hash and size.
    pub content: ContentRef,
    /// Whether it is a template, to be rendered for each node.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_template: bool,
    /// Path, when the object is to be made.
    pub path: Option<String>,
    /// Nodes, when the object is to be made; an empty map is every node.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Bake of this push alone.
    pub bake: Option<Dur>,
    /// Waves of this push alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Vec<CountOrPercent>>,
    /// Only if this is the version now.
    pub if_version: Option<Version>,
    /// Tries again although the version was rolled back from.
    pub retry: bool,
    /// Why, for the record.
    pub reason: Option<String>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What becomes of a file on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRender {
    /// The node.
    pub node: NodeName,
    /// The version; none = the present one.
    pub version: Option<Version>,
    /// A manifest instead of what is stored.
    pub manifest: Option<ManifestDocument>,
}

/// The answer to `config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConfigReply {
    /// To push and rollback.
    Changed {
        /// The version now.
        version: Version,
        /// The version before; 0 if there was none.
        before: Version,
        /// Whether anything was written.
        changed: bool,
        /// Whether the object was made.
        created: bool,
        /// Nodes that it is for.
        nodes: u32,
        /// How many nodes each wave ends with, by now.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        waves: Vec<u32>,
        /// Lines added and removed against the version before, where both are text.
        lines: Option<(u32, u32)>,
        /// Objects revision that the change is visible at.
        revision: Revision,
    },
    /// To status: rows worst first, in parts; the object itself comes by `get`.
    Status(Vec<ConfigFileNode>),
    /// To history, newest first.
    History(Vec<ConfigVersion>),
    /// To content: the bytes in parts, in order.
    Content(ByteBuf),
    /// To render: the bytes of each file in parts, in order.
    Rendered {
        /// Which of several files; empty where there is one.
        name: String,
        /// Some more of it.
        bytes: ByteBuf,
    },
}

/// A kept version of a ConfigFile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigVersion {
    /// The version.
    pub version: Version,
    /// `Held`, `RollingOut`, `Good`, `RolledBack`, `Superseded`.
    pub state: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// By whom, by which verb and why.
    pub by: Applied,
    /// Nodes that have it now.
    pub nodes: u32,
    /// Its content, or the first of several.
    pub content: Option<ContentRef>,
    /// The names of its several files; none where it is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}
