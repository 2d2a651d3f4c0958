//! ConfigFiles: a row per node, and their sum.

use std::collections::BTreeMap;

use ostler_schemas::spec::{ConfigFileSpec, Spec, selects};
use ostler_schemas::time::age;
use ostler_schemas::v1::document::{FileEntry, FileGoal};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{Condition, FileReport, FileState};
use ostler_schemas::v1::status::{ConfigFileNode, ConfigFileStatus, FileNodeCounts, NodePhase};
use ostler_schemas::{ControllerName, Kind, NodeName, ObjectRef, Uid, Version};

use super::deployment::{degraded, rollout};
use super::{Lens, condition, count};
use crate::admission::nodes_that_have;
use crate::configfile::{in_force, rules_of_version, seniority, waves};
use crate::fleet::{Fleet, Stored};
use crate::rollout::is_moving;

/// Which ConfigFile has a path on a node when labels give it to several: the one created first of those that have
/// something to write. `None` if none of them wants it there.
#[must_use]
pub fn path_winner(fleet: &Fleet, node: &NodeName, path: &str) -> Option<ObjectRef> {
    let labels = fleet.node_labels(node);
    fleet
        .of_kind(Kind::ConfigFile)
        .filter(|(_, object)| !object.value.is_deleting() && in_force(fleet, &object.value).is_some())
        .filter(|(_, object)| match &object.value.spec {
            Spec::ConfigFile(spec) => spec.path == path && selects(&spec.node_selector, &labels),
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
                false
            }
        })
        .min_by_key(|(_, object)| seniority(&object.value))
        .map(|(name, _)| name.clone())
}

/// The other ConfigFiles of the same path, which may take nodes away from this one.
fn has_rivals(fleet: &Fleet, uid: &Uid, path: &str) -> bool {
    fleet.of_kind(Kind::ConfigFile).any(|(_, object)| match &object.value.spec {
        Spec::ConfigFile(spec) => spec.path == path && object.value.metadata.uid != *uid,
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
            false
        }
    })
}

/// One row per selected node, worst first, then by name.
pub(super) fn rows(lens: &Lens<'_>, object: &Stored<Object>, spec: &ConfigFileSpec) -> Vec<ConfigFileNode> {
    let uid = object.value.metadata.uid;
    let rivals = has_rivals(lens.fleet, &uid, &spec.path);
    let mut out: Vec<ConfigFileNode> = lens
        .fleet
        .nodes()
        .filter(|(node, _, _)| selects(&spec.node_selector, &lens.fleet.node_labels(node)))
        .map(|(node, _, _)| {
            let winner = if rivals { path_winner(lens.fleet, &node, &spec.path) } else { None };
            let lost_to = winner.filter(|w| *w != object.value.object_ref());
            row(lens, object, spec, node, lost_to)
        })
        .collect();
    out.sort_by(|a, b| (a.state, &a.node).cmp(&(b.state, &b.node)));
    out
}

fn row(
    lens: &Lens<'_>,
    object: &Stored<Object>,
    spec: &ConfigFileSpec,
    node: NodeName,
    lost_to: Option<ObjectRef>,
) -> ConfigFileNode {
    let uid = object.value.metadata.uid;
    let document = lens.fleet.files_documents.get(&node);
    let entry = document.and_then(|d| d.value.entries.iter().find(|e| e.u == uid && e.g == FileGoal::Hold));
    let report = lens.fleet.reports.get(&node).and_then(|r| r.value.file(&uid));
    let said = if let Some(rival) = lost_to {
        let message = format!("{} is managed here by {rival}, which is older", spec.path);
        Said { state: FileState::Failed, reason: Some(Reason::PathConflict), message: Some(message) }
    } else if let Some(offline) = offline(lens, &node, wanted_on(lens, object, spec, &node)) {
        offline
    } else if !spec.has_content() && entry.is_none() {
        let message = "there is no content yet: ostler config push".to_owned();
        Said { state: FileState::Pending, reason: Some(Reason::NoContent), message: Some(message) }
    } else if entry.is_none() && waits_for_its_wave(lens, object, spec, &node) {
        let message = "its wave has not come yet".to_owned();
        Said { state: FileState::Pending, reason: None, message: Some(message) }
    } else {
        known(entry, report)
    };
    ConfigFileNode {
        node,
        uid,
        version: report.map_or(Version(0), |r| r.v),
        sha256: report.and_then(|r| r.sha256),
        state: said.state,
        reason: said.reason,
        message: said.message,
        changed_at: report.map(|r| r.at),
        last_drift: report.and_then(|r| r.last_drift.clone()),
    }
}

struct Said {
    state: FileState,
    reason: Option<Reason>,
    message: Option<String>,
}

/// The version that a node takes when it is there.
fn wanted(lens: &Lens<'_>, object: &Stored<Object>) -> Version {
    let metadata = &object.value.metadata;
    let state = lens.fleet.rollouts.get(&(ControllerName::ConfigFile, metadata.uid));
    state.map_or(metadata.version, |s| s.target)
}

/// Likewise of one node: a version on its way is taken only where its waves have come.
fn wanted_on(lens: &Lens<'_>, object: &Stored<Object>, spec: &ConfigFileSpec, node: &NodeName) -> Version {
    let state = lens.fleet.rollouts.get(&(ControllerName::ConfigFile, object.value.metadata.uid));
    let on = state.and_then(|s| waves::version_on(lens.fleet, &object.value, spec, s, node));
    on.unwrap_or_else(|| wanted(lens, object))
}

fn waits_for_its_wave(
    lens: &Lens<'_>,
    object: &Stored<Object>,
    spec: &ConfigFileSpec,
    node: &NodeName,
) -> bool {
    let state = lens.fleet.rollouts.get(&(ControllerName::ConfigFile, object.value.metadata.uid));
    state.is_some_and(|s| waves::version_on(lens.fleet, &object.value, spec, s, node).is_none())
}

fn offline(lens: &Lens<'_>, node: &NodeName, version: Version) -> Option<Said> {
    let away = match lens.node_phase(node) {
        NodePhase::Lost => true,
        // Blindness is this replica's trouble and says nothing of the node; what it reported stands.
        NodePhase::Unknown => lens.signals.blind.is_none(),
        NodePhase::Ready | NodePhase::NotReady | NodePhase::Suspect => false,
    };
    away.then(|| {
        let verdict =
            lens.fleet.node_states.get(node).and_then(|s| s.value.lost.as_ref().map(|v| v.last_beat));
        let heard = lens.signals.nodes.get(node).and_then(|s| s.heard).or(verdict);
        let since = heard.map_or_else(
            || "no beat was heard yet".to_owned(),
            |at| format!("last beat {} ago", age(lens.now.since_ms(at))),
        );
        let message = Some(format!("{since}; takes version {version} on return"));
        Said { state: FileState::Offline, reason: None, message }
    })
}

/// What document and report say together: a report about another version than the document's is about the past.
fn known(entry: Option<&FileEntry>, report: Option<&FileReport>) -> Said {
    let waits = |state, message: String| Said { state, reason: None, message: Some(message) };
    let Some(entry) = entry else {
        return waits(FileState::Pending, "not in the node's document yet".to_owned());
    };
    match report {
        None => waits(FileState::Pending, "the node has not read its document yet".to_owned()),
        Some(r) if r.wanted != entry.v => waits(FileState::Applying, format!("has version {}", r.v)),
        Some(r) => Said { state: r.state, reason: r.reason, message: r.message.clone() },
    }
}

pub(super) fn status(lens: &Lens<'_>, object: &Stored<Object>, spec: &ConfigFileSpec) -> ConfigFileStatus {
    let metadata = &object.value.metadata;
    let state = lens.fleet.rollouts.get(&(ControllerName::ConfigFile, metadata.uid));
    let rows = rows(lens, object, spec);
    let nodes = counts(&rows);
    let version = wanted(lens, object);
    let updated = count(rows.iter().filter(|r| r.version == version && version > Version(0)).count());
    // A node whose file another ConfigFile has is not this rollout's: no version of this one goes there, and none fails.
    let lost = count(rows.iter().filter(|r| r.reason == Some(Reason::PathConflict)).count());
    let has_it = |r: &&ConfigFileNode| r.state == FileState::InSync && r.version == version;
    let rollout = state.map(|s| {
        let rules = rules_of_version(lens.fleet, &object.value, spec, s.target);
        let sight = waves::seen(lens.fleet, &object.value, rules, s);
        ostler_schemas::v1::status::RolloutStatus {
            total: nodes.total.saturating_sub(lost),
            updated,
            healthy: count(rows.iter().filter(has_it).count()),
            failed: nodes.failed.saturating_sub(lost),
            offline: nodes.offline,
            present: sight.tally(s),
            waits_for: if is_moving(s.phase) { sight.waits_for.clone() } else { Vec::new() },
            failures: sight.failures.named().to_vec(),
            ..rollout(s, rules, &metadata.applied)
        }
    });
    let since = state.and_then(|s| s.finished_at.or(s.started_at)).unwrap_or(metadata.creation_timestamp);
    let changed = rows.iter().filter_map(|r| r.changed_at).max().unwrap_or(since);
    let named = |row: &ConfigFileNode| {
        let reason = row.reason.map(|r| format!(" {r}")).unwrap_or_default();
        let message = row.message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
        format!("{}{reason}{message}", row.node)
    };
    let conflict = rows.iter().find(|r| r.reason == Some(Reason::PathConflict));
    let worst = rows.iter().find(|r| matches!(r.state, FileState::Failed | FileState::Contested)).map(named);
    let in_sync = nodes.in_sync == nodes.total;
    let reason = if in_sync { "AllInSync" } else { "NotAllInSync" };
    let message = format!("{} of {} nodes in sync", nodes.in_sync, nodes.total);
    let deleting = object.value.is_deleting().then(|| deleting(lens, &object.value));
    ConfigFileStatus {
        version,
        last_good_version: state.map_or(Version(0), |s| s.last_good),
        failed_version: state.map_or(Version(0), |s| s.failed),
        nodes,
        rollout,
        observed_generation: state.map_or(0, |s| s.generation),
        conditions: deleting
            .into_iter()
            .chain([
                condition("InSync", in_sync, reason, message, changed),
                degraded(state.map(|s| &*s.value), worst, changed),
                condition(
                    "PathConflict",
                    conflict.is_some(),
                    if conflict.is_some() { "PathConflict" } else { "NoConflict" },
                    conflict.map(named).unwrap_or_default(),
                    since,
                ),
            ])
            .collect(),
        epoch: state.map(|s| s.epoch).unwrap_or_default(),
    }
}

/// Most nodes that the condition of a deletion names.
const NAMED: usize = 5;

/// Which nodes a deletion waits for, and why: a lost one keeps it waiting until it returns or is deleted itself.
fn deleting(lens: &Lens<'_>, object: &Object) -> Condition {
    let since = object.metadata.deletion_timestamp.unwrap_or(object.metadata.creation_timestamp);
    let uid = &object.metadata.uid;
    let waits: Vec<NodeName> = nodes_that_have(lens.fleet, uid).collect();
    let why = |node: &NodeName| {
        let report = lens.fleet.reports.get(node).and_then(|r| r.value.file(uid));
        match (lens.node_phase(node), report) {
            (NodePhase::Ready | NodePhase::NotReady, Some(r)) if r.state == FileState::Failed => {
                let said = r.message.as_deref().unwrap_or("no reason given");
                format!("{node} (Failed: {said})")
            }
            (NodePhase::Ready | NodePhase::NotReady, _) => format!("{node} (is letting it go)"),
            (phase @ (NodePhase::Suspect | NodePhase::Lost | NodePhase::Unknown), _) => {
                format!("{node} ({})", phase.as_str())
            }
        }
    };
    let named: Vec<String> = waits.iter().take(NAMED).map(why).collect();
    let more = if waits.len() > NAMED { format!(" and {} more", waits.len() - NAMED) } else { String::new() };
    let message = match waits.len() {
        0 => "no node has it any more".to_owned(),
        n => {
            let word = if n == 1 { "node" } else { "nodes" };
            let lost = waits.iter().find(|n| lens.node_phase(n) == NodePhase::Lost);
            let advice = lost.map(|n| format!("; a host that is gone for good: ostler delete node/{n}"));
            format!("waits for {n} {word}: {}{more}{}", named.join(", "), advice.unwrap_or_default())
        }
    };
    let is_here = |n: &NodeName| matches!(lens.node_phase(n), NodePhase::Ready | NodePhase::NotReady);
    let reason = if waits.iter().all(is_here) { "Deleting" } else { "WaitsForNodes" };
    condition("Deleting", true, reason, message, since)
}

fn counts(rows: &[ConfigFileNode]) -> FileNodeCounts {
    let mut by_state: BTreeMap<FileState, u32> = BTreeMap::new();
    for row in rows {
        *by_state.entry(row.state).or_default() += 1;
    }
    let of = |state: FileState| by_state.get(&state).copied().unwrap_or(0);
    FileNodeCounts {
        total: count(rows.len()),
        in_sync: of(FileState::InSync),
        pending: of(FileState::Pending) + of(FileState::Unknown) + of(FileState::Released),
        applying: of(FileState::Applying),
        drifted: of(FileState::Drifted),
        contested: of(FileState::Contested),
        failed: of(FileState::Failed),
        held: of(FileState::Held),
        offline: of(FileState::Offline),
    }
}
