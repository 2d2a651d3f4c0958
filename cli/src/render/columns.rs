//! The columns of every list (CONTRACT.md 5.1). They are fixed within a major version.

use ostler_schemas::Kind;
use ostler_schemas::quantity::{CountOrPercent, Size};
use ostler_schemas::spec::{Drift, Labels, Spec, Taint};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{Condition, ConditionStatus, ExitReport, ProcessPhase};
use ostler_schemas::v1::state::RolloutPhase;
use ostler_schemas::v1::status::{
    ConfigFileStatus, DeploymentStatus, NodePhase, NodeStatus, ProcessStatus, RolloutStatus, Status, View,
};

use super::amounts::{Moments, cores, size};
use super::table::{Table, dash, unknown};

/// How a list is shown.
#[derive(Debug, Clone)]
pub struct Style {
    /// More columns.
    pub wide: bool,
    /// A first column with the namespace.
    pub namespaces: bool,
    /// `kind/name` instead of the name: more than one kind is shown.
    pub kinds: bool,
    /// How moments are shown.
    pub moments: Moments,
}

/// The table of objects of one kind.
#[must_use]
pub fn table(kind: Kind, views: &[View], style: &Style) -> Table {
    let mut headers = Vec::new();
    if style.namespaces && !kind.is_cluster_wide() {
        headers.push("NAMESPACE");
    }
    headers.push("NAME");
    headers.extend(columns(kind));
    if style.wide {
        headers.extend(wide_columns(kind));
    }
    let mut table = Table::new(headers);
    for view in views {
        let mut row = Vec::new();
        if style.namespaces && !kind.is_cluster_wide() {
            row.push(dash(view.metadata.namespace.as_ref()));
        }
        let name = &view.metadata.name;
        row.push(if style.kinds { format!("{}/{name}", kind.lower()) } else { name.to_string() });
        row.extend(cells(view, &style.moments));
        if style.wide {
            row.extend(wide_cells(view, &style.moments));
        }
        table.push(row);
    }
    table
}

fn columns(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Node => &["STATUS", "PROCS", "FILES", "CPU", "MEMORY", "BEAT", "AGENT", "AGE"],
        Kind::Namespace => &["OBJECTS", "AGE"],
        Kind::Process => &["READY", "STATUS", "RESTARTS", "AGE", "NODE"],
        Kind::Deployment => &["READY", "UP-TO-DATE", "VERSION", "ROLLOUT", "AGE"],
        Kind::ConfigFile => {
            &["PATH", "VERSION", "NODES", "IN-SYNC", "DRIFTED", "FAILED", "OFFLINE", "ROLLOUT", "AGE"]
        }
        Kind::Secret => &["KEYS", "VERSION", "USED-BY", "AGE"],
        Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Job
        | Kind::CronJob
        | Kind::Service
        | Kind::ResourceQuota
        | Kind::Role
        | Kind::RoleBinding
        | Kind::PriorityClass => &["AGE"],
    }
}

fn wide_columns(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Node => &["ADDRESS", "HOSTNAME", "OS", "KERNEL", "HOLDER", "CLOCK", "TAINTS", "CONDITIONS"],
        Kind::Process => &["PID", "CPU", "MEMORY", "PORTS", "VERSION", "LAST-EXIT", "OWNER", "UID"],
        Kind::Deployment => &["MAX-UNAVAILABLE", "LAST-CHANGE", "BY", "REASON"],
        Kind::ConfigFile => &["SELECTOR", "DRIFT-POLICY", "LAST-GOOD", "LAST-CHANGE", "BY"],
        Kind::Secret => &["USERS", "LAST-CHANGE", "BY"],
        Kind::Namespace
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Job
        | Kind::CronJob
        | Kind::Service
        | Kind::ResourceQuota
        | Kind::Role
        | Kind::RoleBinding
        | Kind::PriorityClass => &[],
    }
}

fn cells(view: &View, moments: &Moments) -> Vec<String> {
    let age = moments.ago(view.metadata.creation_timestamp);
    match &view.status {
        Status::Node(node) => node_cells(view, node, moments, age),
        Status::Namespace(namespace) => vec![namespace.objects.to_string(), age],
        Status::Process(process) => vec![
            ready_word(process).to_owned(),
            process_word(process),
            restarts(process, moments),
            age,
            dash(process.node.as_ref()),
        ],
        Status::Deployment(deployment) => vec![
            format!("{}/{}", deployment.ready, wanted(view)),
            deployment.updated.to_string(),
            deployment.version.to_string(),
            rollout_word(deployment.rollout.as_ref()),
            age,
        ],
        Status::ConfigFile(file) => file_cells(view, file, age),
        Status::Secret(secret) => {
            let (keys, users) = (secret.keys.len(), secret.used_by.len());
            vec![keys.to_string(), secret.version.to_string(), users.to_string(), age]
        }
    }
}

fn node_cells(view: &View, node: &NodeStatus, moments: &Moments, age: String) -> Vec<String> {
    // Before its first report nothing is known of what a node has.
    let is_known = node.allocatable.memory > Size::ZERO;
    let share =
        |used: Option<String>, of: String| format!("{}/{}", unknown(used), unknown(is_known.then_some(of)));
    vec![
        node_word(view, node),
        format!("{}/{}", unknown(node.processes.running), node.processes.assigned),
        format!("{}/{}", unknown(node.files.in_sync), node.files.managed),
        share(node.usage.map(|u| cores(u.cpu)), cores(node.allocatable.cpu)),
        share(node.usage.map(|u| size(u.memory)), size(node.allocatable.memory)),
        unknown(node.last_beat.map(|beat| moments.ago(beat))),
        if node.versions.agent.is_empty() { "?".to_owned() } else { node.versions.agent.clone() },
        age,
    ]
}

fn file_cells(view: &View, file: &ConfigFileStatus, age: String) -> Vec<String> {
    let path = match &view.spec {
        Spec::ConfigFile(spec) => spec.path.clone(),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
            "-".to_owned()
        }
    };
    vec![
        path,
        file.version.to_string(),
        file.nodes.total.to_string(),
        file.nodes.in_sync.to_string(),
        (file.nodes.drifted + file.nodes.contested).to_string(),
        file.nodes.failed.to_string(),
        file.nodes.offline.to_string(),
        rollout_word(file.rollout.as_ref()),
        age,
    ]
}

/// How many replicas were asked for.
#[must_use]
pub fn wanted(view: &View) -> u32 {
    match &view.spec {
        Spec::Deployment(spec) => spec.replicas,
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::ConfigFile(_) | Spec::Secret(_) => 1,
    }
}

fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|c| c.kind == kind && c.status == ConditionStatus::True)
}

/// STATUS of a node: its phase, and what else a placement must know.
#[must_use]
pub fn node_word(view: &View, node: &NodeStatus) -> String {
    let mut words = vec![node.phase.as_str()];
    if matches!(&view.spec, Spec::Node(spec) if spec.unschedulable) {
        words.push("Cordoned");
    }
    let conditions = &node.conditions;
    if ["MemoryPressure", "DiskPressure", "PidPressure"].into_iter().any(|kind| holds(conditions, kind)) {
        words.push("Pressure");
    }
    if holds(conditions, "Frozen") {
        words.push("Frozen");
    }
    if holds(conditions, "Held") || holds(conditions, "EvictionHeld") {
        words.push("Held");
    }
    words.join(",")
}

fn ready_word(process: &ProcessStatus) -> &'static str {
    match (process.phase, process.ready) {
        // A oneshot that has done its work.
        (ProcessPhase::Succeeded, Some(true)) => "yes",
        (ProcessPhase::Pending | ProcessPhase::Succeeded | ProcessPhase::Stopped, _)
            if process.pid.is_none() =>
        {
            if process.started_at.is_some() && process.phase == ProcessPhase::Pending { "no" } else { "-" }
        }
        (_, None) => "?",
        (_, Some(true)) => "yes",
        (_, Some(false)) => "no",
    }
}

/// STATUS of a process: the reason where it says more than the phase.
#[must_use]
pub fn process_word(process: &ProcessStatus) -> String {
    let phase = process.phase.as_str();
    let Some(reason) = process.reason else { return phase.to_owned() };
    let always = matches!(
        reason,
        Reason::CrashLoop
            | Reason::Unschedulable
            | Reason::NeedsNotMet
            | Reason::OutOfMemory
            | Reason::PortTaken
            | Reason::UserUnknown
            | Reason::LimitRefused
            | Reason::ArtifactFailed
            | Reason::StartFailed
            | Reason::StartTimeout
            | Reason::WaitingForProof
            | Reason::DataOnLostNode
    );
    let runs =
        matches!(process.phase, ProcessPhase::Running | ProcessPhase::Stopping | ProcessPhase::Unknown);
    // That somebody holds it on its host matters most while it runs.
    let says_more = reason == Reason::Held || (always && !runs);
    if says_more { reason.as_str().to_owned() } else { phase.to_owned() }
}

fn restarts(process: &ProcessStatus, moments: &Moments) -> String {
    match (process.restarts, &process.last_exit) {
        (None, _) => "?".to_owned(),
        (Some(0), _) | (Some(_), None) => process.restarts.unwrap_or_default().to_string(),
        (Some(count), Some(exit)) if moments.timestamps => format!("{count} ({})", moments.time(exit.at)),
        (Some(count), Some(exit)) => format!("{count} ({} ago)", moments.ago(exit.at)),
    }
}

/// ROLLOUT: `Complete`, or where it stands.
#[must_use]
pub fn rollout_word(rollout: Option<&RolloutStatus>) -> String {
    let Some(rollout) = rollout else { return "-".to_owned() };
    let wave = format!("Wave {}/{}", rollout.wave.max(1), rollout.waves.max(1));
    match rollout.state {
        RolloutPhase::Progressing => wave,
        RolloutPhase::Baking => format!("{wave}, baking"),
        RolloutPhase::Complete
        | RolloutPhase::Paused
        | RolloutPhase::RollingBack
        | RolloutPhase::RolledBack
        | RolloutPhase::Failed
        | RolloutPhase::Unknown => rollout.state.as_str().to_owned(),
    }
}

fn wide_cells(view: &View, moments: &Moments) -> Vec<String> {
    match &view.status {
        Status::Node(node) => wide_node(view, node),
        Status::Namespace(_) => Vec::new(),
        Status::Process(process) => wide_process(view, process, moments),
        Status::Deployment(deployment) => wide_deployment(view, deployment, moments),
        Status::ConfigFile(file) => wide_file(view, file, moments),
        Status::Secret(secret) => vec![
            list(secret.used_by.iter().cloned()),
            moments.ago(view.metadata.applied.at),
            view.metadata.applied.actor.to_string(),
        ],
    }
}

fn wide_node(view: &View, node: &NodeStatus) -> Vec<String> {
    let text = |value: &str| if value.is_empty() { "?".to_owned() } else { value.to_owned() };
    let taints = match &view.spec {
        Spec::Node(spec) => list(spec.taints.iter().map(taint)),
        Spec::Namespace(_)
        | Spec::Process(_)
        | Spec::Deployment(_)
        | Spec::ConfigFile(_)
        | Spec::Secret(_) => "-".to_owned(),
    };
    // `Ready` is told by STATUS; the rest only when it is not well.
    let troubles = node
        .conditions
        .iter()
        .filter(|c| c.kind != "Ready" && c.status == ConditionStatus::True)
        .map(|c| c.kind.clone());
    vec![
        text(&node.addresses.internal),
        text(&node.hostname),
        text(&node.versions.os),
        text(&node.versions.kernel),
        text(&node.versions.holder),
        if node.phase == NodePhase::Lost {
            "?".to_owned()
        } else {
            unknown(node.clock_offset.map(|o| format!("{o:+}ms")))
        },
        taints,
        list(troubles),
    ]
}

/// `key=value:Effect`.
#[must_use]
pub fn taint(taint: &Taint) -> String {
    let value = if taint.value.is_empty() { String::new() } else { format!("={}", taint.value) };
    format!("{}{value}:{:?}", taint.key, taint.effect)
}

fn wide_process(view: &View, process: &ProcessStatus, moments: &Moments) -> Vec<String> {
    // What is not alive takes nothing; of what is, only its node knows.
    let taken = |known: Option<String>| match process.phase.may_be_alive() {
        true => unknown(known),
        false => "-".to_owned(),
    };
    let usage = process.usage.unwrap_or_default();
    let owner = view.metadata.owner_references.first().map(|o| format!("{}/{}", o.kind.lower(), o.name));
    vec![
        dash(process.pid),
        taken(usage.cpu.map(|cpu| cpu.to_string())),
        taken(usage.memory.map(size)),
        list(process.ports.iter().map(|(name, port)| format!("{name}:{port}"))),
        process.version.to_string(),
        dash(process.last_exit.as_ref().map(|exit| format!("{} {}", exit_word(exit), moments.ago(exit.at)))),
        dash(owner),
        view.metadata.uid.short(),
    ]
}

/// How a process ended: `1`, `SIGKILL`, `unknown`, and from what if it was neither exit nor signal.
#[must_use]
pub fn exit_word(exit: &ExitReport) -> String {
    use ostler_schemas::v1::report::ExitReason;
    let end = match (exit.code, &exit.signal) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => signal.clone(),
        (None, None) => "unknown".to_owned(),
    };
    match exit.reason {
        ExitReason::Exited | ExitReason::Signaled | ExitReason::Unknown => end,
        ExitReason::OutOfMemory
        | ExitReason::StartTimeout
        | ExitReason::StopTimeout
        | ExitReason::Watchdog
        | ExitReason::Evicted
        | ExitReason::Fenced => format!("{end} ({:?})", exit.reason),
    }
}

fn wide_deployment(view: &View, _status: &DeploymentStatus, moments: &Moments) -> Vec<String> {
    let bound = match &view.spec {
        Spec::Deployment(spec) => spec.strategy.rolling_update.map(|u| u.max_unavailable),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::ConfigFile(_) | Spec::Secret(_) => None,
    };
    let applied = &view.metadata.applied;
    vec![
        bound.map_or_else(|| "-".to_owned(), |b: CountOrPercent| b.to_string()),
        moments.ago(applied.at),
        applied.actor.to_string(),
        dash(applied.reason.as_ref()),
    ]
}

fn wide_file(view: &View, file: &ConfigFileStatus, moments: &Moments) -> Vec<String> {
    let (selector, drift) = match &view.spec {
        Spec::ConfigFile(spec) => (labels(&spec.node_selector, "(every node)"), drift_word(spec.drift)),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
            ("-".to_owned(), "-")
        }
    };
    let applied = &view.metadata.applied;
    vec![
        selector,
        drift.to_owned(),
        file.last_good_version.to_string(),
        moments.ago(applied.at),
        applied.actor.to_string(),
    ]
}

fn drift_word(drift: Drift) -> &'static str {
    match drift {
        Drift::Enforce => "enforce",
        Drift::Warn => "warn",
        Drift::Ignore => "ignore",
        Drift::Unknown => "?",
    }
}

/// `a=b,c=d`, or a word for none.
#[must_use]
pub fn labels(labels: &Labels, none: &str) -> String {
    if labels.is_empty() {
        return none.to_owned();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn list(items: impl Iterator<Item = String>) -> String {
    let joined = items.collect::<Vec<_>>().join(",");
    if joined.is_empty() { "-".to_owned() } else { joined }
}

#[cfg(test)]
mod tests;
