//! `logs`: whose, which lines, and how they come.

use serde::{Deserialize, Serialize};

use super::LabelRequirement;
use crate::time::Timestamp;
use crate::v1::log_line::LogStream;
use crate::{Kind, Namespace};

/// Logs of how many processes one request reads when it does not say.
pub const LOGS_PROCESSES: u32 = 50;
/// Logs of how many processes one request may read: each holds an order at a node, and a window of chunks here.
pub const LOGS_PROCESSES_MAX: u32 = 500;

/// How many messages of an answer may be under way to a caller that says how far it has read: 64 KiB each at most.
pub const LOGS_WINDOW: u64 = 64;

/// `logs` of processes. The answer's messages bear raw lines (`v1::log_line`) as bodies, and in header `Ostler-Object`
/// whose they are; one with header `Ostler-Message` says something about the answer instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsRequest {
    /// Namespace of the processes.
    pub namespace: Namespace,
    /// Name or short uid of the process, or of the owner.
    pub process: String,
    /// Go on with new lines.
    pub follow: bool,
    /// Only the last so many lines of each.
    pub tail: Option<u64>,
    /// Whose.
    #[serde(default)]
    pub of: LogsOf,
    /// Which lines.
    #[serde(default)]
    pub filter: LogFilter,
    /// More processes than this are refused; none means [`LOGS_PROCESSES`].
    #[serde(default)]
    pub max_processes: Option<u32>,
    /// The caller says how many messages of the answer it has read, in header `Ostler-Seq` of the messages by which it
    /// attends it: no more than [`LOGS_WINDOW`] beyond these are sent.
    #[serde(default)]
    pub paced: bool,
}

/// Whose logs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogsOf {
    /// One process's.
    #[default]
    Process,
    /// Those of all processes of an object of this kind.
    Owner(Kind),
    /// Those of all processes with these labels.
    Selected(Vec<LabelRequirement>),
}

/// Which lines of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogFilter {
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Older than this.
    pub until: Option<Timestamp>,
    /// Those of the incarnation before the present one.
    pub previous: bool,
    /// Only of one output.
    pub stream: Option<LogStream>,
}
