//! Text for people.

use ostler_schemas::time::{Timestamp, age};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{FileState, ProcessPhase};

use crate::status::{LocalProcess, Status};

/// Columns aligned by the widest cell, two spaces apart, nothing after the last.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn words(row: &[&str]) -> Vec<String> {
    row.iter().map(|word| (*word).to_owned()).collect()
}

fn since(now: Timestamp, then: Option<Timestamp>) -> String {
    then.map_or_else(|| "-".to_owned(), |then| age(now.since_ms(then)))
}

fn status_word(process: &LocalProcess) -> String {
    let report = &process.report;
    let telling = matches!(report.phase, ProcessPhase::Pending | ProcessPhase::Failed)
        || report.reason == Some(Reason::Held);
    match report.reason.filter(|_| telling) {
        Some(reason) => reason.to_string(),
        None => report.phase.as_str().to_owned(),
    }
}

/// `ostler-agent ps`.
#[must_use]
pub fn process_table(status: &Status) -> String {
    let mut rows = vec![words(&[
        "NAMESPACE",
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "PID",
        "VERSION",
        "AGE",
        "MESSAGE",
    ])];
    for process in &status.processes {
        let report = &process.report;
        let ready = if report.ready { "yes" } else { "no" };
        rows.push(vec![
            process.namespace.to_string(),
            process.name.to_string(),
            ready.to_owned(),
            status_word(process),
            report.restarts.to_string(),
            report.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            report.v.to_string(),
            since(status.now, report.started_at),
            report.message.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table(&rows)
}

fn state_word(state: FileState) -> &'static str {
    match state {
        FileState::Failed => "Failed",
        FileState::Contested => "Contested",
        FileState::Drifted => "Drifted",
        FileState::Offline => "Offline",
        FileState::Held => "Held",
        FileState::Applying => "Applying",
        FileState::Pending => "Pending",
        FileState::InSync => "InSync",
        FileState::Released => "Released",
        FileState::Unknown => "Unknown",
    }
}

/// `ostler-agent files`.
#[must_use]
pub fn files_table(status: &Status) -> String {
    let mut rows = vec![words(&["PATH", "CONFIGFILE", "VERSION", "HASH", "STATE", "CHANGED", "MESSAGE"])];
    for file in &status.file_states {
        let report = &file.report;
        let name = match (&file.namespace, &file.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            (_, _) => report.u.short(),
        };
        rows.push(vec![
            report.path.clone(),
            name,
            report.v.to_string(),
            report.sha256.map_or_else(|| "-".to_owned(), |hash| hash.short()),
            state_word(report.state).to_owned(),
            since(status.now, Some(report.at)),
            report.message.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table(&rows)
}

/// `ostler-agent status`, and whether all is well.
#[must_use]
pub fn status_text(status: &Status) -> (String, bool) {
    let bus = match (&status.connected, &status.server, status.alone_since) {
        (true, Some(server), _) => format!("connected to {server}"),
        (true, None, _) => "connected".to_owned(),
        (false, _, Some(since)) => format!("alone since {since}"),
        (false, _, None) => "never connected".to_owned(),
    };
    let controllers = match (status.connected, status.controllers) {
        (true, false) => ", no controller answers",
        (true, true) | (false, _) => "",
    };
    let running = status.processes.iter().filter(|p| p.report.phase == ProcessPhase::Running).count();
    let in_sync = status.file_states.iter().filter(|f| f.report.state == FileState::InSync).count();
    let mut rows = vec![
        vec!["node".to_owned(), status.node.to_string()],
        vec!["agent".to_owned(), status.version.clone()],
        vec!["holder".to_owned(), status.holder.clone().unwrap_or_else(|| "does not answer".to_owned())],
        vec!["bus".to_owned(), format!("{bus}{controllers}")],
        vec!["epoch".to_owned(), format!("run {}, files {}", status.run.epoch, status.files.epoch)],
        vec![
            "documents".to_owned(),
            format!(
                "run revision {}, files revision {}, last taken {} ago",
                status.run.revision,
                status.files.revision,
                since(status.now, status.documents_at)
            ),
        ],
        vec!["processes".to_owned(), format!("{running} running of {}", status.processes.len())],
        vec!["files".to_owned(), format!("{in_sync} in sync of {}", status.file_states.len())],
        vec!["orphans".to_owned(), status.orphans.len().to_string()],
    ];
    if let Some(refused) = &status.refused {
        rows.push(vec!["refused".to_owned(), refused.clone()]);
    }
    for condition in &status.conditions {
        rows.push(vec![condition.kind.clone(), condition.message.clone()]);
    }
    let serious = status.conditions.iter().any(|c| c.kind != "LimitsUnenforced" && c.kind != "Held");
    let well = status.connected && status.holder.is_some() && status.refused.is_none() && !serious;
    (table(&rows), well)
}
