//! What users may ask of Nodes and Namespaces.

use serde::{Deserialize, Serialize};

use super::vars::Vars;
use crate::quantity::{Cpu, Size};

/// The spec of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Cordoned: it takes no new processes.
    pub unschedulable: bool,
    /// What processes must tolerate to be here.
    pub taints: Vec<Taint>,
    /// What is left to programs outside Ostler.
    pub reserved: Reserved,
    /// Values for the templates of ConfigFiles.
    #[serde(default, skip_serializing_if = "Vars::is_empty")]
    pub vars: Vars,
}

/// Resources that the scheduler does not hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// Of the processor.
    pub cpu: Cpu,
    /// Of main memory.
    pub memory: Size,
}

impl Default for Reserved {
    fn default() -> Reserved {
        Reserved { cpu: Cpu::from_millis(100), memory: Size::from_mib(256) }
    }
}

/// Keeps processes away that do not tolerate it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// What it is about.
    pub key: String,
    /// More of it; may be empty.
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// What a taint does to processes that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaintEffect {
    /// New ones are not placed.
    NoSchedule,
    /// New ones are placed only when nowhere else is room.
    PreferNoSchedule,
    /// New ones are not placed and those that are here are evicted.
    NoExecute,
    /// An effect of a newer server: nothing new is placed, nothing is evicted.
    #[serde(other)]
    Unknown,
}

impl TaintEffect {
    /// Whether a process that does not tolerate it may not be placed.
    #[must_use]
    pub const fn forbids_placement(self) -> bool {
        match self {
            TaintEffect::NoSchedule | TaintEffect::NoExecute | TaintEffect::Unknown => true,
            TaintEffect::PreferNoSchedule => false,
        }
    }
}

/// The spec of a Namespace. What is as it is when nothing is said is left out of what is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSpec {
    /// What becomes of the output of its processes, beyond the files on their hosts.
    #[serde(skip_serializing_if = "NamespaceLogs::is_default")]
    pub logs: NamespaceLogs,
}

/// What becomes of the output of a namespace's processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceLogs {
    /// It is also stored on the bus, so that it outlives its host.
    pub ship: bool,
}

impl NamespaceLogs {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
