//! Nodes: phase, conditions, amounts and counts.

use std::collections::BTreeMap;

use ostler_schemas::NodeName;
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::spec::{NodeSpec, Requests};
use ostler_schemas::time::age;
use ostler_schemas::v1::beat::BEAT_MS;
use ostler_schemas::v1::document::FileGoal;
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::{Condition, ConditionStatus, FileState, ProcessPhase, Report};
use ostler_schemas::v1::status::{
    Addresses, FileCounts, NodeAmounts, NodePhase, NodeStatus, NodeVersions, ProcessCounts,
};

use super::{Lens, condition, count};
use crate::capacity;
use crate::fitness::{self, DUPLICATE_IDENTITY, HOLDER_LOST};
use crate::fleet::Stored;
use crate::liveness::Signal;

/// Wall clocks further apart than this make times of one node unfit to be compared with another's.
const CLOCK_SKEW_MS: u64 = 2_000;

fn is_forbidding(condition: &Condition) -> bool {
    condition.status == ConditionStatus::True && fitness::is_forbidding(&condition.kind)
}

pub(super) fn status(lens: &Lens<'_>, object: &Stored<Object>, spec: &NodeSpec) -> Option<NodeStatus> {
    let node: NodeName = object.value.metadata.name.as_str().parse().ok()?;
    let phase = lens.node_phase(&node);
    let signal = lens.signals.nodes.get(&node);
    let report = lens.fleet.reports.get(&node).map(|r| &*r.value);
    let answers = matches!(phase, NodePhase::Ready | NodePhase::NotReady | NodePhase::Suspect);
    let facts = report.map(|r| r.facts.clone()).unwrap_or_default();
    let capacity = NodeAmounts { cpu: facts.cpu, memory: facts.memory, disk: report.map(|_| facts.disk) };
    let hostname = object.value.metadata.labels.get("ostler/hostname").cloned().unwrap_or_default();
    let beat = signal.and_then(|s| s.beat.as_deref());
    Some(NodeStatus {
        phase,
        hostname: if facts.hostname.is_empty() { hostname } else { facts.hostname.clone() },
        machine_id: report.map(|r| r.machine.clone()).unwrap_or_default(),
        boot_id: report.map(|r| r.boot.clone()).unwrap_or_default(),
        addresses: Addresses { internal: facts.address.clone() },
        last_beat: signal.and_then(|s| s.heard).or_else(|| verdict_beat(lens, &node)),
        clock_offset: signal.filter(|_| answers).and_then(|s| s.clock_offset),
        capacity,
        allocatable: capacity::allocatable(report, spec),
        requested: requested(lens, &node),
        usage: beat.filter(|_| answers && is_fresh(lens, signal)).map(|b| b.usage),
        processes: processes(lens, &node, report.filter(|_| answers)),
        files: files(lens, &node, report.filter(|_| answers)),
        versions: NodeVersions {
            agent: beat.map_or(facts.agent.clone(), |b| b.version.clone()),
            holder: facts.holder.clone(),
            kernel: facts.kernel.clone(),
            os: facts.os.clone(),
            arch: facts.arch.clone(),
            systemd: facts.systemd,
        },
        epoch: highest_epoch(signal, report),
        labels: report.map(|r| r.labels.clone()).unwrap_or_default(),
        conditions: conditions(lens, &node, object, phase),
    })
}

/// Usage is told as it is up to one beat's age, and one more for its way: what is older is not known.
fn is_fresh(lens: &Lens<'_>, signal: Option<&Signal>) -> bool {
    signal.and_then(|s| s.heard).is_some_and(|at| lens.now.since_ms(at) <= 2 * BEAT_MS)
}

fn verdict_beat(lens: &Lens<'_>, node: &NodeName) -> Option<ostler_schemas::time::Timestamp> {
    lens.fleet.node_states.get(node)?.lost.as_ref().map(|v| v.last_beat)
}

/// What the processes bound here count for, until nothing of them is left.
fn requested(lens: &Lens<'_>, node: &NodeName) -> NodeAmounts {
    let mut total = (0u64, 0u64);
    for uid in lens.fleet.by_node.get(node).into_iter().flat_map(imbl::OrdSet::iter) {
        let Some(records) = lens.fleet.processes.get(uid).filter(|r| r.goal() < Goal::Gone) else { continue };
        let template = lens.fleet.process_template(records);
        let requests = template.map_or(Requests::LEAST, |t| t.resources.effective_requests());
        total.0 = total.0.saturating_add(requests.cpu.as_millis());
        total.1 = total.1.saturating_add(requests.memory.as_bytes());
    }
    NodeAmounts { cpu: Cpu::from_millis(total.0), memory: Size::from_bytes(total.1), disk: None }
}

fn processes(lens: &Lens<'_>, node: &NodeName, report: Option<&Report>) -> ProcessCounts {
    let bound = lens.fleet.by_node.get(node).into_iter().flat_map(imbl::OrdSet::iter);
    let assigned =
        bound.filter_map(|uid| lens.fleet.processes.get(uid)).filter(|r| r.goal() == Goal::Run).count();
    let running = |ready: bool| {
        report.map(|r| {
            let alive =
                r.processes.iter().filter(|p| p.phase == ProcessPhase::Running && (p.ready || !ready));
            count(alive.count())
        })
    };
    ProcessCounts { assigned: count(assigned), running: running(false), ready: running(true) }
}

fn files(lens: &Lens<'_>, node: &NodeName, report: Option<&Report>) -> FileCounts {
    let entries =
        lens.fleet.files_documents.get(node).map(|d| d.value.entries.as_slice()).unwrap_or_default();
    let managed = entries.iter().filter(|e| e.g == FileGoal::Hold);
    let in_state = |states: &[FileState]| {
        let held = |u| managed.clone().any(|e| e.u == u);
        report.map(|r| count(r.file_states.iter().filter(|f| held(f.u) && states.contains(&f.state)).count()))
    };
    FileCounts {
        managed: count(managed.clone().count()),
        in_sync: in_state(&[FileState::InSync]),
        drifted: in_state(&[FileState::Drifted, FileState::Contested]),
        failed: in_state(&[FileState::Failed]),
    }
}

fn highest_epoch(signal: Option<&Signal>, report: Option<&Report>) -> Epoch {
    let beat = signal.and_then(|s| s.beat.as_deref());
    let held = beat.map(|b| [b.run.epoch, b.files.epoch]).into_iter().flatten();
    let said = report.map(|r| [r.run.epoch, r.files.epoch]).into_iter().flatten();
    held.chain(said).max_by_key(Epoch::rank).unwrap_or_default()
}

/// The node's own conditions, and those that only a beat shows.
fn conditions_said(lens: &Lens<'_>, node: &NodeName) -> Vec<Condition> {
    let mut all: BTreeMap<String, Condition> = BTreeMap::new();
    if let Some(report) = lens.fleet.reports.get(node) {
        all.extend(report.value.conditions.iter().map(|c| (c.kind.clone(), c.clone())));
    }
    let Some(signal) = lens.signals.nodes.get(node) else { return all.into_values().collect() };
    let since = signal.heard.unwrap_or(lens.now);
    // The report says why, a beat only that it is so.
    let told = all.get(HOLDER_LOST).is_some_and(|c| c.status == ConditionStatus::True);
    let mut add = |c: Condition| all.insert(c.kind.clone(), c);
    if !told && signal.beat.as_ref().is_some_and(|b| !b.holder) {
        add(condition(HOLDER_LOST, true, HOLDER_LOST, "the agent gets no answer from its holder", since));
    }
    if signal.duplicate {
        let message = "another machine beats under this name: see that each host has its own credentials";
        add(condition(DUPLICATE_IDENTITY, true, DUPLICATE_IDENTITY, message, since));
    }
    if let Some(offset) = signal.clock_offset.filter(|o| o.unsigned_abs() > CLOCK_SKEW_MS) {
        let message = format!("its clock is {offset} ms off this controller's");
        add(condition("ClockSkewed", true, "ClockSkewed", message, since));
    }
    all.into_values().collect()
}

fn conditions(lens: &Lens<'_>, node: &NodeName, object: &Stored<Object>, phase: NodePhase) -> Vec<Condition> {
    let said = conditions_said(lens, node);
    let verdict = lens.fleet.node_states.get(node).and_then(|s| s.value.lost.clone());
    let heard = lens.signals.nodes.get(node).and_then(|s| s.heard);
    let known_since = heard.unwrap_or(object.value.metadata.creation_timestamp);
    let silent = heard.map_or_else(
        || "no beat was heard yet".to_owned(),
        |at| format!("no beat for {}", age(lens.now.since_ms(at))),
    );
    let (ready, message, since) = match phase {
        NodePhase::Ready => (ConditionStatus::True, "beats come".to_owned(), known_since),
        NodePhase::NotReady => {
            let first = said.iter().find(|c| is_forbidding(c));
            let why = first.map(|c| format!("{}: {}", c.kind, c.message)).unwrap_or_default();
            (ConditionStatus::False, why, first.map_or(known_since, |c| c.last_transition_time))
        }
        NodePhase::Lost => {
            let since = verdict.as_ref().map_or(known_since, |v| v.at);
            (ConditionStatus::Unknown, silent, since)
        }
        NodePhase::Suspect => (ConditionStatus::Unknown, silent, known_since),
        NodePhase::Unknown => {
            let why = lens.signals.blind.clone().unwrap_or(silent);
            (ConditionStatus::Unknown, why, known_since)
        }
    };
    let mut out =
        vec![Condition { status: ready, ..condition("Ready", true, phase.as_str(), message, since) }];
    out.extend(said.into_iter().filter(|c| c.kind != "Ready"));
    if let Some(verdict) = verdict.filter(|v| v.held) {
        let why = verdict.why.unwrap_or_default();
        out.push(condition("EvictionHeld", true, "EvictionHeld", why, verdict.at));
    }
    out
}
