//! How one agent stands, as told over its socket and shown by `ostler-agent status`.

use ostler_agent_core::holds::Holds;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::report::{Condition, ExitReport, FileReport, OrphanReport, ProcessReport};
use ostler_schemas::{Name, Namespace, NodeName};
use serde::{Deserialize, Serialize};

use crate::context::Context;

/// How an agent stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its node.
    pub node: NodeName,
    /// Its version.
    pub version: String,
    /// Version of the holder; none while it does not answer.
    pub holder: Option<String>,
    /// Whether it is connected to the bus.
    pub connected: bool,
    /// The server.
    pub server: Option<Name>,
    /// Since when there is no connection.
    pub alone_since: Option<Timestamp>,
    /// Whether controllers answer.
    pub controllers: bool,
    /// Why it may not act under its name.
    pub refused: Option<String>,
    /// The run document held.
    pub run: HeldDocument,
    /// The files document held.
    pub files: HeldDocument,
    /// When a document was last taken.
    pub documents_at: Option<Timestamp>,
    /// Now, by the agent's clock.
    pub now: Timestamp,
    /// Conditions of the node.
    pub conditions: Vec<Condition>,
    /// Processes.
    pub processes: Vec<LocalProcess>,
    /// Managed files.
    pub file_states: Vec<LocalFile>,
    /// What has no entry.
    pub orphans: Vec<OrphanReport>,
    /// Where logs of processes are.
    pub log_dir: String,
    /// What all managed paths lie below; empty on a host.
    #[serde(default)]
    pub root: String,
    /// What is held on this host.
    #[serde(default)]
    pub holds: Holds,
}

/// How far an agent has come with the control plane: cheap to ask, where thousands are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has no connection.
    Alone,
    /// No controller answers it, it is not registered, or its report is not stored yet.
    Unanswered,
    /// It may not act under its name.
    Refused,
    /// It is answered, registered, and has reported.
    Settled,
}

impl Standing {
    pub(crate) fn of(context: &Context) -> Self {
        let board = context.board();
        if board.bus.refused.is_some() {
            Standing::Refused
        } else if !board.bus.connected {
            Standing::Alone
        } else if board.bus.controllers && !board.bus.unregistered && board.report_seq > 0 {
            Standing::Settled
        } else {
            Standing::Unanswered
        }
    }
}

/// A process of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalProcess {
    /// Namespace.
    pub namespace: Namespace,
    /// Name.
    pub name: Name,
    /// As reported.
    pub report: ProcessReport,
    /// Its last exit.
    pub last_exit: Option<ExitReport>,
}

/// A managed file of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalFile {
    /// Namespace of the ConfigFile, once known.
    pub namespace: Option<Namespace>,
    /// Its name.
    pub name: Option<Name>,
    /// As reported.
    pub report: FileReport,
}

impl Status {
    pub(crate) fn of(context: &Context) -> Self {
        let now = context.deps.clock.wall();
        let holds = context.holds();
        let board = context.board();
        let orphans = board.processes.values().filter_map(|v| v.orphan.clone());
        let mut processes: Vec<LocalProcess> = board
            .processes
            .values()
            .map(|v| LocalProcess {
                namespace: v.namespace.clone(),
                name: v.name.clone(),
                report: v.report.clone(),
                last_exit: v.exits.last().cloned(),
            })
            .collect();
        processes.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let mut file_states: Vec<LocalFile> = board
            .files
            .iter()
            .map(|(uid, v)| LocalFile {
                namespace: v.named.as_ref().map(|n| n.0.clone()),
                name: v.named.as_ref().map(|n| n.1.clone()),
                report: board.file_report(uid, v),
            })
            .collect();
        file_states.sort_by(|a, b| (a.report.state, &a.report.path).cmp(&(b.report.state, &b.report.path)));
        Self {
            node: context.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            holder: board.host.as_ref().map(|h| h.version.clone()),
            connected: board.bus.connected,
            server: board.bus.server.clone(),
            alone_since: board.bus.alone_since,
            controllers: board.bus.controllers,
            refused: board.bus.refused.clone(),
            run: board.run,
            files: board.files_held,
            documents_at: board.documents_at,
            now,
            conditions: board.conditions.values().cloned().collect(),
            processes,
            file_states,
            log_dir: context.deps.config.log_dir.clone(),
            root: context.deps.config.root.clone(),
            holds,
            orphans: orphans.chain(board.files.values().filter_map(|v| v.orphan.clone())).collect(),
        }
    }
}
