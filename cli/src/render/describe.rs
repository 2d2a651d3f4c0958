//! The blocks of `describe` (CONTRACT.md section 7): head, spec in short, status, conditions that are not well,
//! children, rollout, last events, what to do next. Empty blocks are left out.

use ostler_schemas::Kind;
use ostler_schemas::spec::{ConfigFileSpec, Part, ProcessType, Source, Spec};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::event::Event;
use ostler_schemas::v1::report::{Condition, ConditionStatus, FileState};
use ostler_schemas::v1::state::RolloutPhase;
use ostler_schemas::v1::status::{ConfigFileNode, NodePhase, SecretKeyStatus, SecretStatus, Status, View};
use ostler_schemas::v1::usage::ProcessUsage;

use super::amounts::{Moments, cores, count, size};
use super::columns::{self, Style, exit_word, labels, node_word, process_word, rollout_word, taint, wanted};
use super::events::{add_up, table as event_table};
use super::table::{Table, dash};

/// Events shown.
const EVENTS: usize = 10;
/// Rows of files that are shown when there are more.
const FILES: usize = 20;

/// What belongs to an object.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// Its processes.
    pub children: Vec<View>,
    /// Its rows per node, of a ConfigFile.
    pub files: Vec<ConfigFileNode>,
    /// Its events, with their sequence.
    pub events: Vec<(Event, u64)>,
    /// How far back events reach.
    pub back_to: Option<Timestamp>,
}

/// The whole text.
#[must_use]
pub fn text(view: &View, around: &Around, moments: &Moments, colour: bool) -> String {
    let mut blocks = vec![head(view, moments)];
    blocks.extend(block("Spec", &spec(&view.spec)));
    blocks.extend(block("Status", &status(&view.status, moments)));
    blocks.extend(conditions(view, moments));
    blocks.extend(children(view, around, moments, colour));
    blocks.extend(rollout(view, moments));
    blocks.extend(events(around, moments, colour));
    let mut tail = String::new();
    if let Some(next) = next(view, around) {
        tail.push_str(&format!("Next: {next}\n"));
    }
    if let Some(moment) = around.back_to {
        let date = moments.time(moment);
        tail.push_str(&format!("History reaches back to {}.\n", date.split('T').next().unwrap_or(&date)));
    }
    if !tail.is_empty() {
        blocks.push(tail);
    }
    blocks.join("\n")
}

fn pairs(rows: &[(&str, String)], indent: &str) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    rows.iter().map(|(name, value)| format!("{indent}{:width$}{value}\n", format!("{name}:"))).collect()
}

fn block(title: &str, rows: &[(&'static str, String)]) -> Option<String> {
    let rows: Vec<(&str, String)> = rows.iter().filter(|(_, v)| !v.is_empty() && v != "-").cloned().collect();
    (!rows.is_empty()).then(|| format!("{title}:\n{}", pairs(&rows, "  ")))
}

fn head(view: &View, moments: &Moments) -> String {
    let meta = &view.metadata;
    let mut rows = vec![("Name", meta.name.to_string()), ("Kind", view.spec.kind().to_string())];
    rows.extend(meta.namespace.iter().map(|ns| ("Namespace", ns.to_string())));
    if !meta.labels.is_empty() {
        rows.push(("Labels", labels(&meta.labels, "-")));
    }
    rows.push(("Age", moments.ago(meta.creation_timestamp)));
    rows.push(("Generation", meta.generation.to_string()));
    rows.push(("Revision", view.revision.to_string()));
    rows.push(("Uid", meta.uid.to_string()));
    rows.extend(meta.owner_references.iter().map(|o| ("Owner", format!("{}/{}", o.kind.lower(), o.name))));
    let applied = &meta.applied;
    let why = applied.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    let when = moments.time(applied.at);
    rows.push(("Last change", format!("{} ({}) at {when}{why}", applied.actor, applied.verb)));
    if let Some(at) = meta.deletion_timestamp {
        rows.push((
            "Deleting",
            format!("since {} (waits for: {})", moments.ago(at), meta.finalizers.join(", ")),
        ));
    }
    pairs(&rows, "")
}

fn spec(spec: &Spec) -> Vec<(&'static str, String)> {
    match spec {
        Spec::Node(node) => vec![
            ("Unschedulable", node.unschedulable.to_string()),
            ("Taints", node.taints.iter().map(taint).collect::<Vec<_>>().join(",")),
            ("Reserved", format!("cpu {}, memory {}", node.reserved.cpu, node.reserved.memory)),
        ],
        Spec::Namespace(namespace) => {
            let logs = if namespace.logs.ship {
                "on their hosts, and shipped to stream OSTLER_LOGS"
            } else {
                "on their hosts"
            };
            vec![("Logs", logs.to_owned())]
        }
        Spec::Process(process) => template(&process.0),
        Spec::Deployment(deployment) => {
            let mut rows = vec![
                ("Replicas", deployment.replicas.to_string()),
                ("Strategy", strategy(&deployment.strategy)),
                (
                    "Rollout",
                    format!(
                        "bake {}, {:?} on failure",
                        deployment.rollout.bake, deployment.rollout.on_failure
                    ),
                ),
            ];
            rows.extend(template(&deployment.template.spec));
            rows
        }
        Spec::ConfigFile(file) => vec![
            ("Path", file.path.clone()),
            ("Nodes", labels(&file.node_selector, "every node")),
            ("Content", contents(file)),
            ("Values", values(file)),
            (
                "Owner",
                format!("{}:{} {}", file.owner, file.group.as_deref().unwrap_or("(its group)"), file.mode),
            ),
            ("Drift", format!("{:?}", file.drift).to_lowercase()),
            ("On removal", format!("{:?}", file.on_remove).to_lowercase()),
        ],
        Spec::Secret(secret) => vec![("Immutable", secret.immutable.to_string())],
    }
}

/// What is in the file or files.
fn contents(file: &ConfigFileSpec) -> String {
    let part = |part: Part<'_>| {
        let (what, content) = match part.source {
            Source::Content(content) => ("", content),
            Source::Template(content) => ("template, ", content),
        };
        let name = if part.name.is_empty() { String::new() } else { format!("{}: ", part.name) };
        format!("{name}{what}{}, sha256 {}", count(content.size, "byte", "bytes"), content.sha256.short())
    };
    let parts: Vec<String> = file.parts().map(part).collect();
    match parts.as_slice() {
        [] => "none yet: give it with \"ostler config push\"".to_owned(),
        parts => parts.join("; "),
    }
}

/// For which values it is rendered, by their names.
fn values(file: &ConfigFileSpec) -> String {
    let names: Vec<&str> = file.vars.keys().map(String::as_str).collect();
    let others = file.overrides.len() as u64;
    match (names.is_empty(), others) {
        (true, 0) => "none".to_owned(),
        (_, 0) => names.join(", "),
        (_, others) => format!("{}, {}", names.join(", "), count(others, "override", "overrides")),
    }
}

fn strategy(strategy: &ostler_schemas::spec::Strategy) -> String {
    match strategy.rolling_update {
        Some(update) => format!(
            "{:?}, max surge {}, max unavailable {}",
            strategy.kind, update.max_surge, update.max_unavailable
        ),
        None => format!("{:?}", strategy.kind),
    }
}

fn template(process: &ostler_schemas::spec::ProcessTemplate) -> Vec<(&'static str, String)> {
    let requests = process.resources.effective_requests();
    let words: Vec<&str> = process.command.iter().chain(&process.args).map(String::as_str).collect();
    vec![
        ("Type", process_type(process.kind).to_owned()),
        ("Command", words.join(" ")),
        ("User", dash(process.user.as_ref())),
        ("Requests", format!("cpu {}, memory {}", requests.cpu, requests.memory)),
        (
            "Ports",
            process.ports.iter().map(|p| format!("{}:{}", p.name, p.port)).collect::<Vec<_>>().join(","),
        ),
        ("Secrets", secrets(process)),
        ("Needs", process.needs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        ("Node selector", labels(&process.node_selector, "-")),
    ]
}

fn process_type(kind: ProcessType) -> &'static str {
    match kind {
        ProcessType::Exec => "exec",
        ProcessType::Notify => "notify",
        ProcessType::Oneshot => "oneshot",
    }
}

/// What a Secret has, and who refers to it.
fn secret_status(secret: &SecretStatus) -> Vec<(&'static str, String)> {
    let key = |key: &SecretKeyStatus| {
        format!("{} ({} of version {})", key.name, count(u64::from(key.size), "byte", "bytes"), key.since)
    };
    vec![
        ("Version", secret.version.to_string()),
        ("Values", secret.keys.iter().map(key).collect::<Vec<_>>().join(", ")),
        ("Used by", secret.used_by.join(", ")),
    ]
}

/// Which values of which Secrets it is given, never what these are.
fn secrets(process: &ostler_schemas::spec::ProcessTemplate) -> String {
    let all = process.secrets();
    let one = |(name, keys): (&ostler_schemas::Name, &std::collections::BTreeSet<String>)| {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        format!("{name} ({})", keys.join(","))
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What a process takes, as far as its node told.
fn taken(usage: &ProcessUsage) -> String {
    let parts = [
        usage.cpu.map(|cpu| format!("cpu {cpu}")),
        usage.memory.map(|memory| format!("memory {}", size(memory))),
        usage.tasks.map(|tasks| count(u64::from(tasks), "task", "tasks")),
        usage.read_per_second.map(|bytes| format!("reads {}/s", size(bytes))),
        usage.write_per_second.map(|bytes| format!("writes {}/s", size(bytes))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn status(status: &Status, moments: &Moments) -> Vec<(&'static str, String)> {
    match status {
        Status::Node(node) => vec![
            ("Phase", node.phase.as_str().to_owned()),
            ("Host", node.hostname.clone()),
            ("Address", node.addresses.internal.clone()),
            ("Last beat", dash(node.last_beat.map(|at| moments.ago(at)))),
            (
                "Allocatable",
                format!("cpu {}, memory {}", cores(node.allocatable.cpu), size(node.allocatable.memory)),
            ),
            (
                "Requested",
                format!("cpu {}, memory {}", cores(node.requested.cpu), size(node.requested.memory)),
            ),
            ("In use", dash(node.usage.map(|u| format!("cpu {}, memory {}", cores(u.cpu), size(u.memory))))),
            (
                "Files",
                format!(
                    "{} managed, {} in sync",
                    node.files.managed,
                    super::table::unknown(node.files.in_sync)
                ),
            ),
            ("System", format!("{}, kernel {}", node.versions.os, node.versions.kernel)),
            ("Agent", node.versions.agent.clone()),
            ("Boot", node.boot_id.clone()),
        ],
        Status::Namespace(namespace) => vec![("Objects", namespace.objects.to_string())],
        Status::Secret(secret) => secret_status(secret),
        Status::Process(process) => vec![
            ("Phase", process_word(process)),
            ("Ready", dash(process.ready)),
            ("Message", dash(process.message.as_ref())),
            ("Node", dash(process.node.as_ref())),
            ("Pid", dash(process.pid)),
            ("Incarnation", process.incarnation.to_string()),
            ("Version", none_if_zero(process.version.0)),
            ("Started", dash(process.started_at.map(|at| moments.ago(at)))),
            ("Restarts", dash(process.restarts)),
            ("Usage", dash(process.usage.map(|usage| taken(&usage)))),
            ("Ports", process.ports.iter().map(|(n, p)| format!("{n}:{p}")).collect::<Vec<_>>().join(",")),
            (
                "Last exit",
                dash(process.last_exit.as_ref().map(|e| {
                    let why = e.why.as_ref().map(|w| format!(": {w}")).unwrap_or_default();
                    format!("{}, {}{why}", exit_word(e), moments.ago(e.at))
                })),
            ),
            ("Logs", dash(process.log_path.as_ref())),
            ("Control group", dash(process.cgroup.as_ref())),
        ],
        Status::Deployment(deployment) => vec![
            ("Version", deployment.version.to_string()),
            ("Last good", none_if_zero(deployment.last_good_version.0)),
            ("Failed version", none_if_zero(deployment.failed_version.0)),
            (
                "Processes",
                format!(
                    "{} wanted running, {} updated, {} ready, {} unavailable",
                    deployment.replicas, deployment.updated, deployment.ready, deployment.unavailable
                ),
            ),
        ],
        Status::ConfigFile(file) => vec![
            ("Version", file.version.to_string()),
            ("Last good", none_if_zero(file.last_good_version.0)),
            ("Failed version", none_if_zero(file.failed_version.0)),
            ("Nodes", format!("{} in all, {} in sync", file.nodes.total, file.nodes.in_sync)),
        ],
    }
}

fn none_if_zero(number: u64) -> String {
    if number == 0 { "-".to_owned() } else { number.to_string() }
}

/// Conditions that name a trouble are well when they do not hold; the others when they do.
fn is_well(condition: &Condition) -> bool {
    if condition.kind == "Progressing" && condition.reason == "Complete" {
        // There is nothing left to progress with.
        return true;
    }
    let good = ["Ready", "Available", "Progressing", "InSync", "Scheduled", "NeedsMet", "Started"];
    let wanted =
        if good.contains(&condition.kind.as_str()) { ConditionStatus::True } else { ConditionStatus::False };
    condition.status == wanted
}

fn conditions_of(view: &View) -> &[Condition] {
    match &view.status {
        Status::Node(status) => &status.conditions,
        Status::Namespace(_) | Status::Secret(_) => &[],
        Status::Process(status) => &status.conditions,
        Status::Deployment(status) => &status.conditions,
        Status::ConfigFile(status) => &status.conditions,
    }
}

fn conditions(view: &View, moments: &Moments) -> Option<String> {
    let mut table = Table::new(vec!["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    for c in conditions_of(view).iter().filter(|c| !is_well(c)) {
        table.push(vec![
            c.kind.clone(),
            format!("{:?}", c.status),
            moments.ago(c.last_transition_time),
            c.reason.clone(),
            c.message.clone(),
        ]);
    }
    (!table.is_empty()).then(|| format!("Conditions:\n{}", indented(&table.text(true, false))))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn children(view: &View, around: &Around, moments: &Moments, colour: bool) -> Option<String> {
    if view.spec.kind() == Kind::ConfigFile {
        return files(around, moments, colour);
    }
    if around.children.is_empty() {
        return None;
    }
    let style = Style {
        wide: false,
        namespaces: view.spec.kind() == Kind::Node,
        kinds: false,
        moments: moments.clone(),
    };
    let table = columns::table(Kind::Process, &around.children, &style);
    Some(format!("Processes:\n{}", indented(&table.text(true, colour))))
}

fn files(around: &Around, moments: &Moments, colour: bool) -> Option<String> {
    if around.files.is_empty() {
        return None;
    }
    let mut rows: Vec<&ConfigFileNode> = around.files.iter().collect();
    rows.sort_by(|a, b| (a.state, &a.node).cmp(&(b.state, &b.node)));
    let mut table = Table::new(vec!["NODE", "VERSION", "STATE", "CHANGED", "MESSAGE"]);
    for row in rows.iter().take(FILES) {
        table.push(vec![
            row.node.to_string(),
            row.version.to_string(),
            format!("{:?}", row.state),
            dash(row.changed_at.map(|at| moments.ago(at))),
            dash(row.message.as_ref()),
        ]);
    }
    let more = rows.len().saturating_sub(FILES);
    let more = if more > 0 { format!("  and {more} more: ostler config status\n") } else { String::new() };
    Some(format!("Nodes:\n{}{more}", indented(&table.text(true, colour))))
}

fn rollout(view: &View, moments: &Moments) -> Option<String> {
    let rollout = crate::commands::converge::rollout_of(view)?;
    block(
        "Rollout",
        &[
            ("State", rollout_word(Some(rollout))),
            ("Version", versions(rollout)),
            ("Updated", format!("{} of {}, {} healthy", rollout.updated, rollout.total, rollout.healthy)),
            ("Failed", none_if_zero(u64::from(rollout.failed))),
            ("Offline", none_if_zero(u64::from(rollout.offline))),
            ("Bakes until", dash(rollout.bake_ends_at.map(|at| moments.clock(at)))),
            ("Started", dash(rollout.started_at.map(|at| moments.ago(at)))),
            ("Finished", dash(rollout.finished_at.map(|at| moments.ago(at)))),
            ("Why", dash(rollout.reason.as_ref())),
            ("Message", rollout.message.clone()),
        ],
    )
}

fn versions(rollout: &ostler_schemas::v1::status::RolloutStatus) -> String {
    match rollout.from_version.0 {
        0 => format!("{}, the first", rollout.to_version),
        _ => format!("{} (from {})", rollout.to_version, rollout.from_version),
    }
}

fn events(around: &Around, moments: &Moments, colour: bool) -> Option<String> {
    let told = add_up(around.events.clone());
    let last = &told[told.len().saturating_sub(EVENTS)..];
    if last.is_empty() {
        return None;
    }
    Some(format!("Events:\n{}", indented(&event_table(last, false, false, moments).text(true, colour))))
}

/// One line of advice when something is wrong.
fn next(view: &View, around: &Around) -> Option<String> {
    let name = view.object().object_ref().short();
    match &view.status {
        Status::Node(node) => match node.phase {
            NodePhase::Ready if node_word(view, node).contains("Cordoned") => {
                Some(format!("ostler uncordon {} when it may take work again", view.metadata.name))
            }
            NodePhase::Ready => None,
            NodePhase::Lost | NodePhase::Suspect => {
                Some("see that the host is up and that ostler-agent runs and reaches the bus (ostler-agent status there)".to_owned())
            }
            NodePhase::NotReady => Some("see the conditions above".to_owned()),
            NodePhase::Unknown => Some("the control plane cannot tell: look at its own link and at the bus".to_owned()),
        },
        Status::Namespace(_) | Status::Secret(_) => None,
        Status::Process(process) => {
            let word = process_word(process);
            match word.as_str() {
                "Running" if process.ready == Some(true) => None,
                "Unschedulable" => Some("make room, or change what it asks for (see Message)".to_owned()),
                "Pending" | "Starting" | "Stopping" | "Succeeded" | "Stopped" => None,
                _ => Some(format!("ostler logs {} --tail 50", view.metadata.name)),
            }
        }
        Status::Deployment(deployment) => {
            let phase = deployment.rollout.as_ref().map(|r| r.state);
            if phase == Some(RolloutPhase::RolledBack) {
                return Some("correct the manifest and apply it, or apply --retry to try the same again".to_owned());
            }
            if deployment.ready >= wanted(view) {
                return None;
            }
            let sick = around.children.iter().find(|c| match &c.status {
                Status::Process(p) => p.ready != Some(true),
                Status::Node(_) | Status::Namespace(_) | Status::Deployment(_) | Status::ConfigFile(_) | Status::Secret(_) => false,
            });
            Some(match sick {
                Some(child) => format!("ostler describe process/{}", child.metadata.name),
                None => format!("ostler events {name}"),
            })
        }
        Status::ConfigFile(file) => {
            let trouble = file.nodes.failed + file.nodes.contested + file.nodes.drifted > 0;
            let worst = around.files.iter().map(|row| row.state).min();
            (trouble || worst == Some(FileState::Failed)).then(|| format!("ostler config status {}", view.metadata.name))
        }
    }
}
