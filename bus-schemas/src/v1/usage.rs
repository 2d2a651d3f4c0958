//! Usage of processes: what each takes of its host, and the question for it.
//!
//! These figures change all the time, so they never touch the durable plane: they travel by core NATS, on demand
//! (verb `top`, order [`super::api::AskOp::Usage`]), and inside beats only where a decision waits for them
//! ([`Strain`]).

use serde::{Deserialize, Serialize};

use super::api::ListRequest;
use crate::codec::Wire;
use crate::ids::{NodeName, Uid};
use crate::quantity::{Cpu, Size};

/// Most processes that a beat names while its host is short of something: the biggest. More would not fit beside the
/// rest, and who is not among them is not what fills the host. A host that is short of several things names fewer of
/// each.
pub const STRAIN_TOP: usize = 64;

/// What one process takes, its whole tree. None where the host cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessUsage {
    /// Processor time, over the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Main memory, without what the kernel drops first when it needs some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
    /// Bytes read from devices in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_per_second: Option<Size>,
    /// Bytes written to devices in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_per_second: Option<Size>,
}

/// One process of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageEntry {
    /// The process.
    pub u: Uid,
    /// What it takes.
    pub usage: ProcessUsage,
}

/// What a node answers to [`super::api::AskOp::Usage`]: every process that lives there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageAnswer {
    /// The processes.
    pub processes: Vec<UsageEntry>,
}

impl Wire for UsageAnswer {
    const KIND: &'static str = "UsageAnswer";
}

/// `top`: usage of processes, asked of their nodes now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopRequest {
    /// Which processes.
    pub list: ListRequest,
    /// Only on these nodes; empty = on all.
    pub nodes: Vec<NodeName>,
}

impl Wire for TopRequest {
    const KIND: &'static str = "TopRequest";
}

/// A part of the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopReply {
    /// Processes whose nodes answered.
    pub processes: Vec<UsageEntry>,
    /// Nodes that did not.
    pub unanswered: Vec<Unanswered>,
}

impl Wire for TopReply {
    const KIND: &'static str = "TopReply";
}

/// A node that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unanswered {
    /// The node.
    pub node: NodeName,
    /// Why, for people.
    pub why: String,
}

/// A host that is short of something right now, as its beats tell while it lasts: what an eviction is decided by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Strain {
    /// For how long without a break, in milliseconds.
    pub since_ms: u64,
    /// How much of it is in use, in thousandths.
    pub used: u32,
    /// The processes that take most of it, the biggest first, at most [`STRAIN_TOP`]: bytes of memory or of disk, or
    /// threads.
    pub processes: Vec<(Uid, u64)>,
    /// How many processes live there.
    pub of: u32,
    /// The whole of it, in the same unit; 0 from an agent that does not tell.
    #[serde(default)]
    pub total: u64,
}

/// What runs on a host outside Ostler takes, smoothed (docs/usage.md).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Others {
    /// Processor time.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Size,
}
