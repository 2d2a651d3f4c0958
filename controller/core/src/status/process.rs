//! Processes: by hand (an object and records) or made by a workload (records only; metadata is synthesised).

use ostler_schemas::spec::{ProcessSpec, ProcessTemplate, Spec, TemplateMeta};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::object::{Applied, Labels, Metadata, Object};
use ostler_schemas::v1::process::{Goal, ProcessSpecRecord};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{Condition, ConditionStatus, ProcessPhase, ProcessReport};
use ostler_schemas::v1::status::{NodePhase, ProcessStatus, Status, View};
use ostler_schemas::{
    Actor, ControllerName, Generation, Kind, NodeName, ObjectRef, Revision, TxnId, Uid, Version,
};

use super::{Lens, condition};
use crate::fleet::{Fleet, ProcessRecords, Stored};

/// The object that a process's records stand for.
pub(super) fn object_ref(records: &ProcessRecords) -> Option<ObjectRef> {
    Some(records.spec.as_ref()?.process())
}

/// The process of this name, if it has records: the first whose owner is still there, else the first.
pub(super) fn by_name<'a>(fleet: &'a Fleet, object: &ObjectRef) -> Option<(&'a Uid, &'a ProcessRecords)> {
    let named =
        || fleet.by_name.get(object).into_iter().flatten().filter_map(|u| fleet.processes.get_key_value(u));
    let is_owned = |(_, records): &(&Uid, &ProcessRecords)| {
        records.spec.as_ref().is_some_and(|s| fleet.by_uid.contains_key(&s.owner.uid))
    };
    named().find(is_owned).or_else(|| named().next())
}

pub(super) fn view(lens: &Lens<'_>, object: &ObjectRef) -> Option<View> {
    if let Some(stored) = lens.fleet.objects.get(object) {
        let metadata = stored.value.metadata.clone();
        let records = lens.fleet.processes.get(&metadata.uid).cloned().unwrap_or_default();
        let status = status(lens, &metadata.uid, &records, metadata.creation_timestamp, metadata.version);
        return Some(View {
            metadata,
            spec: stored.value.spec.clone(),
            status: Status::Process(Box::new(status)),
            revision: stored.revision,
        });
    }
    let (uid, records) = by_name(lens.fleet, object)?;
    owned(lens, uid, records)
}

/// A process that a workload made.
fn owned(lens: &Lens<'_>, uid: &Uid, records: &ProcessRecords) -> Option<View> {
    let spec = records.spec.as_ref()?;
    let owner = lens.fleet.object_by_uid(&spec.owner.uid);
    let version = records.template.as_ref().map_or(Version(0), |t| t.version);
    let template = match (lens.fleet.process_template(records), owner) {
        // Its labels are shown in the metadata, as everywhere.
        (Some(template), _) => ProcessTemplate { labels: Labels::new(), ..(**template).clone() },
        (None, Some(owner)) => owner.value.spec.process_template()?.clone(),
        (None, None) => return None,
    };
    let status = status(lens, uid, records, spec.value.at, version);
    Some(View {
        metadata: metadata(lens.fleet, uid, records, spec, version),
        spec: Spec::Process(Box::new(ProcessSpec(template))),
        status: Status::Process(Box::new(status)),
        revision: revision(records),
    })
}

fn metadata(
    fleet: &Fleet,
    uid: &Uid,
    records: &ProcessRecords,
    spec: &ProcessSpecRecord,
    version: Version,
) -> Metadata {
    let owner = fleet.object_by_uid(&spec.owner.uid);
    let marks = owner.map(|o| template_meta(fleet, o, version)).unwrap_or_default();
    let ended = records.goal.as_ref().filter(|g| g.goal > Goal::Run);
    let applied = Applied {
        actor: Actor::Controller(controller_of(spec.owner.kind)),
        verb: "create".to_owned(),
        at: spec.at,
        reason: None,
        txn: owner.map_or(TxnId::from_bytes([0; 16]), |o| o.value.metadata.applied.txn),
    };
    Metadata {
        name: spec.name.clone(),
        namespace: Some(spec.namespace.clone()),
        uid: *uid,
        labels: marks.labels,
        annotations: marks.annotations,
        generation: Generation(1),
        version,
        creation_timestamp: spec.at,
        deletion_timestamp: ended.map(|g| g.value.at),
        finalizers: Vec::new(),
        owner_references: vec![spec.owner.clone()],
        applied,
        touched: std::collections::BTreeMap::new(),
        order: None,
    }
}

fn controller_of(owner: Kind) -> ControllerName {
    if owner == Kind::Deployment { ControllerName::Deployment } else { ControllerName::Process }
}

/// Labels and annotations of the template at a version: a process keeps those that it was made with.
fn template_meta(fleet: &Fleet, owner: &Stored<Object>, version: Version) -> TemplateMeta {
    let of = |spec: &Spec| match spec {
        Spec::Deployment(spec) => Some(spec.template.metadata.clone()),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::ConfigFile(_) | Spec::Secret(_) => None,
    };
    let object = &owner.value;
    let from = (object.object_ref(), object.metadata.uid, Generation(0));
    let kept = fleet
        .spec_revisions
        .range(from..)
        .take_while(|((o, uid, _), _)| *uid == object.metadata.uid && *o == object.object_ref())
        .filter(|(_, revision)| revision.version == version)
        .last()
        .and_then(|(_, revision)| of(&revision.value.spec));
    let present = if object.metadata.version == version { of(&object.spec) } else { None };
    present.or(kept).or_else(|| of(&object.spec)).unwrap_or_default()
}

fn revision(records: &ProcessRecords) -> Revision {
    let all = [
        records.spec.as_ref().map(|s| s.revision),
        records.template.as_ref().map(|s| s.revision),
        records.bind.as_ref().map(|s| s.revision),
        records.goal.as_ref().map(|s| s.revision),
    ];
    all.into_iter().flatten().max().unwrap_or(Revision(0))
}

/// What is so, as far as it is known: phase, readiness, and why.
struct State {
    phase: ProcessPhase,
    ready: Option<bool>,
    reason: Option<Reason>,
    message: Option<String>,
}

impl State {
    fn of(phase: ProcessPhase, message: impl Into<String>) -> Self {
        Self { phase, ready: Some(false), reason: None, message: Some(message.into()) }
    }

    fn because(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

/// The status of a process. `made` is when it was asked for, `version` what it should have while no record says so.
pub(super) fn status(
    lens: &Lens<'_>,
    uid: &Uid,
    records: &ProcessRecords,
    made: Timestamp,
    version: Version,
) -> ProcessStatus {
    let node = records.node();
    let said = lens.said(uid);
    let report = said.report;
    let state = state(lens, uid, records, report);
    let known = state.phase != ProcessPhase::Unknown;
    let live = report.filter(|_| known);
    let conditions = conditions(lens, uid, records, &state, made);
    ProcessStatus {
        phase: state.phase,
        goal: records.goal(),
        ready: state.ready,
        reason: state.reason,
        message: state.message,
        node: node.cloned(),
        pid: live.and_then(|r| r.pid),
        incarnation: report.map_or(0, |r| r.i),
        version: records.template.as_ref().map_or(version, |t| t.version),
        started_at: live.and_then(|r| r.started_at),
        ready_at: live.and_then(|r| r.ready_at),
        restarts: if known { Some(report.map_or(0, |r| r.restarts)) } else { None },
        ports: records.bind.as_ref().map(|b| b.ports.clone()).unwrap_or_default(),
        last_exit: said.last_exit.cloned(),
        cgroup: live.and_then(|r| r.cgroup.clone()),
        log_path: report.and_then(|r| r.log_path.clone()),
        usage: None,
        conditions,
    }
}

fn state(lens: &Lens<'_>, uid: &Uid, records: &ProcessRecords, report: Option<&ProcessReport>) -> State {
    let goal = records.goal();
    let Some(node) = records.node() else { return unplaced(lens, uid, goal) };
    let heard = lens.node_phase(node);
    if lens.fleet.node(node).is_none() {
        let message = format!("node {node} does not exist any more");
        let phase = if goal == Goal::Gone { ProcessPhase::Stopped } else { ProcessPhase::Unknown };
        return State { ready: None, ..State::of(phase, message) };
    }
    if heard == NodePhase::Lost {
        let what = if goal == Goal::Gone {
            "given up there; it is ended if the node returns"
        } else {
            "it may still run there"
        };
        let state = State::of(ProcessPhase::Unknown, format!("node {node} is lost: {what}"));
        return State { ready: None, ..state.because(Reason::Lost) };
    }
    match report {
        Some(report) => reported(lens, node, heard, goal, report),
        None => unreported(lens, uid, node, goal),
    }
}

fn unplaced(lens: &Lens<'_>, uid: &Uid, goal: Goal) -> State {
    if goal > Goal::Run {
        return State::of(ProcessPhase::Stopped, "told to end before it had a node");
    }
    match lens.fleet.pending.get(uid) {
        Some(pending) => {
            State::of(ProcessPhase::Pending, pending.message.clone()).because(Reason::Unschedulable)
        }
        None => State::of(ProcessPhase::Pending, "waits for a node"),
    }
}

fn reported(lens: &Lens<'_>, node: &NodeName, heard: NodePhase, goal: Goal, report: &ProcessReport) -> State {
    let ends = goal > Goal::Run;
    let phase = match report.phase {
        ProcessPhase::Running | ProcessPhase::Starting if ends => ProcessPhase::Stopping,
        ProcessPhase::Pending if ends => ProcessPhase::Stopped,
        phase => phase,
    };
    let mut message = report.message.clone();
    if message.is_none() && matches!(heard, NodePhase::Suspect | NodePhase::Unknown) {
        let at = lens.fleet.reports.get(node).map_or(lens.now, |r| r.at);
        let since = ostler_schemas::time::age(lens.now.since_ms(at));
        message = Some(format!("as node {node} said {since} ago; it is not heard now"));
    }
    // A oneshot that has done its work is ready, and stays so.
    let shows = matches!(report.phase, ProcessPhase::Running | ProcessPhase::Succeeded);
    let ready = report.ready && !ends && shows;
    let ready = if phase == ProcessPhase::Unknown { None } else { Some(ready) };
    State { phase, ready, reason: report.reason, message }
}

/// Bound, but its node says nothing of it.
fn unreported(lens: &Lens<'_>, uid: &Uid, node: &NodeName, goal: Goal) -> State {
    let report = lens.fleet.reports.get(node);
    if report.is_some_and(|r| r.value.orphans.iter().any(|o| o.u == *uid)) {
        let state =
            State::of(ProcessPhase::Orphan, format!("runs on {node} without an entry in its document: kept"));
        return State { ready: None, ..state.because(Reason::Orphaned) };
    }
    let document = lens.fleet.run_documents.get(node).map(|d| d.revision);
    let has_read = report.zip(document).is_some_and(|(r, d)| r.value.run.revision >= d);
    match (goal > Goal::Run, has_read) {
        (true, true) => State::of(ProcessPhase::Stopped, "ended; its records are being removed"),
        (true, false) => {
            State::of(ProcessPhase::Stopping, format!("{node} has not read that it should end yet"))
        }
        (false, true) => {
            State::of(ProcessPhase::Starting, format!("{node} has its entry and has not started it yet"))
        }
        (false, false) => State::of(ProcessPhase::Pending, format!("{node} has not read its entry yet")),
    }
}

fn conditions(
    lens: &Lens<'_>,
    uid: &Uid,
    records: &ProcessRecords,
    state: &State,
    made: Timestamp,
) -> Vec<Condition> {
    let report = lens.said(uid).report;
    let scheduled = match (&records.bind, lens.fleet.pending.get(uid)) {
        (Some(bind), _) => {
            condition("Scheduled", true, "Scheduled", format!("on {}", bind.node), bind.value.at)
        }
        (None, Some(p)) => condition("Scheduled", false, "Unschedulable", p.message.clone(), p.since),
        (None, None) => condition("Scheduled", false, "Pending", "waits for a node", made),
    };
    let placed = scheduled.last_transition_time;
    let mut needs = match report {
        Some(r) if r.reason == Some(Reason::NeedsNotMet) => {
            condition("NeedsMet", false, "NeedsNotMet", r.message.clone().unwrap_or_default(), placed)
        }
        Some(r) if r.i > 0 => condition("NeedsMet", true, "NeedsMet", "", r.started_at.unwrap_or(placed)),
        Some(_) | None => condition("NeedsMet", false, "Pending", "not looked at yet", placed),
    };
    if report.is_none_or(|r| r.i == 0 && r.reason != Some(Reason::NeedsNotMet)) {
        needs.status = ConditionStatus::Unknown;
    }
    let started = match report.filter(|r| r.i > 0) {
        Some(r) => condition("Started", true, "Started", "", r.started_at.unwrap_or(placed)),
        None => condition(
            "Started",
            false,
            state.phase.as_str(),
            state.message.clone().unwrap_or_default(),
            placed,
        ),
    };
    let why = state.reason.map_or(state.phase.as_str(), Reason::as_str);
    let since = report.and_then(|r| r.ready_at.or(r.started_at)).unwrap_or(placed);
    let message = state.message.clone().unwrap_or_default();
    let ready = match state.ready {
        Some(true) => condition("Ready", true, "Ready", "", since),
        Some(false) => condition("Ready", false, why, message, since),
        None => {
            Condition { status: ConditionStatus::Unknown, ..condition("Ready", false, why, message, since) }
        }
    };
    vec![scheduled, needs, started, ready]
}
