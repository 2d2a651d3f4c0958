//! Files as hosts have them: what could be taken over (`config adopt`), and what was there before (`config diff
//! --original`).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::LabelRequirement;
use crate::codec::Wire;
use crate::ids::{NodeName, Sha256, Uid};
use crate::quantity::Mode;

/// What is asked of hosts, as an operation of `config`; answered by [`HostFiles`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostsWish {
    /// Whose file.
    pub of: HostsOf,
    /// Only nodes with these labels.
    pub labels: Vec<LabelRequirement>,
    /// Only this node.
    pub node: Option<NodeName>,
    /// Whether its bytes are wanted, too; then a node must be named.
    pub content: bool,
}

/// Which file of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostsOf {
    /// What lies at a path of a manifest now.
    Path(String),
    /// What was there before Ostler wrote the ConfigFile of the request, or one of its several files.
    Original {
        /// Which of several; empty where there is one.
        part: String,
    },
}

/// The same as an order to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFileAsk {
    /// The path of a manifest; of an original, none.
    pub path: Option<String>,
    /// The ConfigFile whose original is asked for, and which of its files.
    pub original: Option<(Uid, String)>,
    /// Whether its bytes are wanted, too.
    pub content: bool,
}

/// What lies there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFile {
    /// Hash of its content; none if there is nothing.
    pub sha256: Option<Sha256>,
    /// Its size.
    pub size: u64,
    /// Its mode.
    pub mode: Option<Mode>,
    /// The name of its owner, else the number.
    pub owner: String,
    /// The name of its group, else the number.
    pub group: String,
    /// Its bytes, if they were asked for.
    pub bytes: Option<ByteBuf>,
}

impl Wire for HostFile {
    const KIND: &'static str = "HostFile";
    /// The largest content, with room for what is said of it.
    const LIMIT: usize = 9 << 20;
}

/// What one node answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostAnswer {
    /// The node.
    pub node: NodeName,
    /// What lies there, without bytes; none if it was not told.
    pub file: Option<HostFile>,
    /// Why it was not told.
    pub refused: Option<String>,
    /// Whether the node did not answer at all.
    pub silent: bool,
}

/// A part of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFiles {
    /// Some more nodes.
    pub nodes: Vec<HostAnswer>,
    /// Some more bytes of the one file that was asked for.
    pub bytes: ByteBuf,
}

impl Wire for HostFiles {
    const KIND: &'static str = "HostFiles";
}
