//! `blob`, `register`, `asks`: chunks of contents, and what nodes ask for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::{Name, TxnId, Uid};
use crate::spec::ContentRef;
use crate::v1::report::Facts;

/// `blob`: one chunk of a content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobRequest {
    /// The whole content.
    pub content: ContentRef,
    /// Which chunk, from 0.
    pub chunk: u32,
    /// The chunk, [`super::CHUNK`] bytes but for the last.
    pub bytes: ByteBuf,
}

/// The answer: the chunk is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobReply {
    /// Which chunk.
    pub chunk: u32,
}

/// `register`: a node's agent makes its node known. The name is the caller's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterRequest {
    /// Machine id.
    pub machine: String,
    /// Boot id.
    pub boot: String,
    /// Incarnation of the agent.
    pub incarnation: u64,
    /// What the host is.
    pub facts: Facts,
    /// Labels from the host's own configuration, set when the node is first registered.
    pub labels: BTreeMap<String, String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterReply {
    /// The node's uid.
    pub uid: Uid,
    /// Whether it was made now.
    pub created: bool,
}

/// `asks`: a node fetches its orders.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AsksRequest {}

/// Orders of one replica for the node; every replica answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AsksReply {
    /// The orders.
    pub asks: Vec<Ask>,
}

/// One order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// Names the relay: `api.<node>.relay.<id>`; 32 hex digits.
    pub id: TxnId,
    /// What to do.
    pub op: AskOp,
    /// For whom.
    pub caller: Name,
}

/// What a node can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AskOp {
    /// Lines of a process's log.
    Logs {
        /// The process.
        uid: Uid,
        /// Go on with new lines.
        follow: bool,
        /// Only the last so many lines.
        tail: Option<u64>,
        /// Which lines.
        #[serde(default)]
        filter: super::LogFilter,
    },
    /// What each process of the node takes, now.
    Usage,
    /// A command beside a process, attended by the caller.
    Exec {
        /// The process.
        uid: Uid,
        /// The command.
        exec: super::ExecCommand,
    },
    /// A file of the node: what could be taken over, or what was there before.
    File(Box<super::HostFileAsk>),
    /// Whether a version of a file could be put in place, without doing it.
    Try(Box<super::FileTrial>),
    /// Something that a newer server asks for: answered with an error.
    #[serde(other)]
    Unknown,
}
