//! What users must read in each situation, against CONTRACT.md sections 5 to 7.

use std::collections::BTreeMap;

use ostler_schemas::key::StateSubject;
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::spec::{ContentRef, Spec};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::{LabelOperator, LabelRequirement, ListRequest};
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::document::{FileEntry, FileGoal, FilesDocument, RunDocument};
use ostler_schemas::v1::epoch::{Epoch, Lease};
use ostler_schemas::v1::process::{Goal, GoalReason, GoalRecord};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{
    Condition, ConditionStatus, ExitReason, ExitReport, Facts, FileReport, FileState, ProcessPhase, Report,
};
use ostler_schemas::v1::state::{LostVerdict, NodeState, PendingState, RolloutPhase, RolloutState};
use ostler_schemas::v1::status::{
    ConfigFileStatus, DeploymentStatus, NodePhase, NodeStatus, ProcessStatus, Status, View,
};
use ostler_schemas::{
    Actor, ControllerName, DocumentKind, Key, Kind, Namespace, ObjectRef, ReplicaId, Revision, Version,
};

use super::rig::{NOW, Rig, deployment_spec, file_spec, name, node_name, object, process_report, uid};
use super::{Found, Lens, list, nearest, path_winner, resolve, view, warnings};

fn process(rig: &Rig, of: &ObjectRef) -> ProcessStatus {
    match view(&rig.fleet, &rig.signals, NOW, of).expect("a view").status {
        Status::Process(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn node(rig: &Rig, text: &str) -> NodeStatus {
    match view(&rig.fleet, &rig.signals, NOW, &object(Kind::Node, text)).expect("a view").status {
        Status::Node(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn deployment(rig: &Rig, text: &str) -> DeploymentStatus {
    match view(&rig.fleet, &rig.signals, NOW, &object(Kind::Deployment, text)).expect("a view").status {
        Status::Deployment(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn file(rig: &Rig, text: &str) -> ConfigFileStatus {
    match view(&rig.fleet, &rig.signals, NOW, &object(Kind::ConfigFile, text)).expect("a view").status {
        Status::ConfigFile(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn condition<'a>(conditions: &'a [Condition], kind: &str) -> &'a Condition {
    conditions.iter().find(|c| c.kind == kind).expect("the condition")
}

fn list_of(rig: &Rig, kind: Kind) -> Vec<View> {
    let request = ListRequest { kind, namespace: None, labels: Vec::new(), names: Vec::new() };
    list(&rig.fleet, &rig.signals, NOW, &request)
}

fn lose(rig: &mut Rig, text: &str, held: bool) {
    let verdict = LostVerdict {
        at: Timestamp(NOW.0 - 44_000),
        last_beat: Timestamp(NOW.0 - 48_000),
        boot: "b".to_owned(),
        incarnation: 1,
        held,
        why: held.then(|| "5 of 6 nodes would be lost".to_owned()),
    };
    let state = NodeState { lost: Some(verdict), ..NodeState::default() };
    rig.put(&Key::State(ControllerName::Node, StateSubject::Node(node_name(text))), &state);
}

/// One deployment of one process on `n1`.
fn placed() -> (Rig, ObjectRef) {
    let mut rig = Rig::new();
    rig.node("n1", 101);
    let spec = Spec::Deployment(Box::new(deployment_spec(1, "a")));
    let owner = rig.object(object(Kind::Deployment, "web"), uid(1), spec);
    let process = rig.process(&owner, 10, 1, Some("n1"));
    rig.put(&Key::NodeDocument(node_name("n1"), DocumentKind::Run), &RunDocument::default());
    (rig, process)
}

fn report_with(rig: &mut Rig, edit: impl FnOnce(&mut Report)) {
    let run = HeldDocument { epoch: Epoch::default(), revision: Revision(u64::MAX) };
    let mut report = Report { machine: "m".to_owned(), run, ..Report::default() };
    edit(&mut report);
    rig.put(&Key::Report(node_name("n1")), &report);
}

fn goal(rig: &mut Rig, goal: Goal) {
    let actor = Actor::Controller(ControllerName::Deployment);
    let record = GoalRecord { goal, reason: GoalReason::Scale, actor, epoch: None, at: NOW };
    rig.put(&Key::ProcessGoal(uid(10)), &record);
}

#[test]
fn a_process_is_pending_until_its_node_has_read_of_it() {
    let mut rig = Rig::new();
    rig.node("n1", 101);
    let spec = Spec::Deployment(Box::new(deployment_spec(1, "a")));
    let owner = rig.object(object(Kind::Deployment, "web"), uid(1), spec);
    let of = rig.process(&owner, 10, 1, None);
    let status = process(&rig, &of);
    assert_eq!((status.phase, status.ready, status.reason), (ProcessPhase::Pending, Some(false), None));
    assert_eq!(status.restarts, Some(0));

    let pending = PendingState {
        message: "none of 12 nodes fits: 5 nodeSelector".to_owned(),
        filters: Vec::new(),
        since: NOW,
        revision: Revision(1),
        epoch: Epoch::default(),
    };
    rig.put(&Key::State(ControllerName::Scheduler, StateSubject::Uid(uid(10))), &pending);
    let status = process(&rig, &of);
    assert_eq!(status.reason, Some(Reason::Unschedulable));
    assert_eq!(status.message.as_deref(), Some("none of 12 nodes fits: 5 nodeSelector"));
    assert_eq!(condition(&status.conditions, "Scheduled").status, ConditionStatus::False);

    let (mut rig, of) = placed();
    assert_eq!(process(&rig, &of).phase, ProcessPhase::Pending);
    report_with(&mut rig, |_| {});
    assert_eq!(process(&rig, &of).phase, ProcessPhase::Starting);
}

#[test]
fn a_running_process_shows_what_its_node_says() {
    let (mut rig, of) = placed();
    report_with(&mut rig, |r| {
        r.processes.push(process_report(uid(10), ProcessPhase::Running, true));
        for (seq, code) in [(1, 1), (2, 7)] {
            let why = None;
            let exit = ExitReport {
                u: uid(10),
                i: seq,
                seq,
                code: Some(code),
                signal: None,
                reason: ExitReason::Exited,
                why,
                at: NOW,
            };
            r.exits.push(exit);
        }
    });
    let view = view(&rig.fleet, &rig.signals, NOW, &of).expect("a view");
    assert_eq!(view.metadata.labels, BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    assert_eq!(view.metadata.owner_references[0].uid, uid(1));
    assert!(matches!(&view.spec, Spec::Process(spec) if spec.0.command[1] == "a"));
    let status = process(&rig, &of);
    assert_eq!((status.phase, status.ready, status.pid), (ProcessPhase::Running, Some(true), Some(4711)));
    assert_eq!(status.restarts, Some(3));
    assert_eq!(status.ports.get("http"), Some(&8080));
    assert_eq!(status.last_exit.expect("an exit").code, Some(7));
    assert!(status.conditions.iter().all(|c| c.status == ConditionStatus::True), "{:?}", status.conditions);
    let kinds: Vec<&str> = status.conditions.iter().map(|c| c.kind.as_str()).collect();
    assert_eq!(kinds, ["Scheduled", "NeedsMet", "Started", "Ready"]);
}

#[test]
fn work_that_is_done_stays_ready() {
    let (mut rig, of) = placed();
    report_with(&mut rig, |r| r.processes.push(process_report(uid(10), ProcessPhase::Succeeded, true)));
    let status = process(&rig, &of);
    assert_eq!((status.phase, status.ready), (ProcessPhase::Succeeded, Some(true)));
    goal(&mut rig, Goal::Stop);
    assert_eq!(process(&rig, &of).ready, Some(false));
}

#[test]
fn a_process_that_should_end_is_stopping_and_then_stopped() {
    let (mut rig, of) = placed();
    report_with(&mut rig, |r| r.processes.push(process_report(uid(10), ProcessPhase::Running, true)));
    goal(&mut rig, Goal::Stop);
    let status = process(&rig, &of);
    assert_eq!((status.phase, status.ready), (ProcessPhase::Stopping, Some(false)));
    assert_eq!(
        view(&rig.fleet, &rig.signals, NOW, &of).expect("a view").metadata.deletion_timestamp,
        Some(NOW)
    );
    goal(&mut rig, Goal::Gone);
    report_with(&mut rig, |_| {});
    assert_eq!(process(&rig, &of).phase, ProcessPhase::Stopped);
}

#[test]
fn on_a_lost_node_nothing_is_claimed_to_be_known() {
    let (mut rig, of) = placed();
    report_with(&mut rig, |r| r.processes.push(process_report(uid(10), ProcessPhase::Running, true)));
    lose(&mut rig, "n1", false);
    let status = process(&rig, &of);
    assert_eq!((status.phase, status.ready, status.restarts), (ProcessPhase::Unknown, None, None));
    assert_eq!((status.reason, status.pid), (Some(Reason::Lost), None));
    assert_eq!(condition(&status.conditions, "Ready").status, ConditionStatus::Unknown);

    let status = node(&rig, "n1");
    assert_eq!(status.phase, NodePhase::Lost, "a verdict wins over beats");
    assert_eq!((status.processes.assigned, status.processes.running), (1, None));
    assert_eq!((status.usage, status.files.in_sync), (None, None));
    assert_eq!(condition(&status.conditions, "Ready").status, ConditionStatus::Unknown);

    lose(&mut rig, "n1", true);
    let held = node(&rig, "n1");
    assert_eq!(condition(&held.conditions, "EvictionHeld").message, "5 of 6 nodes would be lost");
}

#[test]
fn a_blind_replica_shows_the_last_report_and_says_so() {
    let (mut rig, of) = placed();
    report_with(&mut rig, |r| r.processes.push(process_report(uid(10), ProcessPhase::Running, true)));
    rig.heard("n1", NodePhase::Unknown);
    rig.signals.blind = Some("no canary".to_owned());
    let status = process(&rig, &of);
    assert_eq!(status.phase, ProcessPhase::Running);
    assert!(status.message.expect("a message").contains("is not heard now"));
    assert_eq!(node(&rig, "n1").phase, NodePhase::Unknown);
    assert!(warnings(&rig.fleet, &rig.signals, None, NOW).iter().any(|w| w.contains("no canary")));
}

#[test]
fn an_orphan_is_named_as_one() {
    let (mut rig, of) = placed();
    report_with(&mut rig, |r| {
        let (namespace, name) = (Namespace::default_namespace(), name("web"));
        r.orphans.push(ostler_schemas::v1::report::OrphanReport {
            u: uid(10),
            namespace,
            name,
            pid: Some(1),
            path: None,
        });
    });
    let status = process(&rig, &of);
    assert_eq!((status.phase, status.reason), (ProcessPhase::Orphan, Some(Reason::Orphaned)));
}

#[test]
fn a_node_that_beats_is_not_ready_when_a_condition_forbids_work() {
    let (mut rig, _) = placed();
    assert_eq!(node(&rig, "n1").phase, NodePhase::Ready);
    assert_eq!(condition(&node(&rig, "n1").conditions, "Ready").status, ConditionStatus::True);
    report_with(&mut rig, |r| {
        r.facts = Facts { cpu: Cpu::from_millis(4000), memory: Size::from_mib(1024), ..Facts::default() };
    });
    let status = node(&rig, "n1");
    assert_eq!(
        (status.capacity.cpu, status.allocatable.cpu),
        (Cpu::from_millis(4000), Cpu::from_millis(3900))
    );
    assert_eq!(status.allocatable.memory, Size::from_mib(768));
    assert_eq!((status.requested.cpu, status.requested.memory), (Cpu::from_millis(500), Size::from_mib(64)));

    rig.signals.nodes.get_mut(&node_name("n1")).expect("heard").duplicate = true;
    let status = node(&rig, "n1");
    assert_eq!(status.phase, NodePhase::NotReady);
    let ready = condition(&status.conditions, "Ready");
    assert_eq!((ready.status, ready.reason.as_str()), (ConditionStatus::False, "NotReady"));
    assert!(ready.message.contains("DuplicateIdentity"), "{}", ready.message);
}

#[test]
fn a_deployment_counts_what_is_wanted_updated_and_ready() {
    let (mut rig, _) = placed();
    report_with(&mut rig, |r| r.processes.push(process_report(uid(10), ProcessPhase::Running, true)));
    let owner = rig.fleet.objects[&object(Kind::Deployment, "web")].value.as_ref().clone();
    rig.process(&owner, 11, 2, None);
    let state = RolloutState {
        current: Version(1),
        target: Version(2),
        last_good: Version(1),
        wave: 1,
        phase: RolloutPhase::Progressing,
        reason: "1 of 1 to go".to_owned(),
        generation: 7,
        started_at: Some(NOW),
        ..RolloutState::default()
    };
    let key = Key::State(ControllerName::Deployment, StateSubject::Uid(uid(1)));
    rig.put(&key, &state);
    let status = deployment(&rig, "web");
    assert_eq!((status.replicas, status.updated, status.ready, status.unavailable), (2, 1, 1, 0));
    assert_eq!(
        (status.version, status.last_good_version, status.observed_generation),
        (Version(2), Version(1), 7)
    );
    let rollout = status.rollout.expect("a rollout");
    assert_eq!(
        (rollout.from_version, rollout.to_version, rollout.wave, rollout.waves),
        (Version(1), Version(2), 1, 1)
    );
    assert_eq!((rollout.total, rollout.updated, rollout.healthy), (1, 1, 0));
    assert_eq!(condition(&status.conditions, "Available").status, ConditionStatus::True);
    assert_eq!(condition(&status.conditions, "Progressing").status, ConditionStatus::True);
    assert_eq!(condition(&status.conditions, "Degraded").status, ConditionStatus::False);

    lose(&mut rig, "n1", false);
    let status = deployment(&rig, "web");
    assert_eq!((status.ready, status.unavailable), (0, 1));
    assert_eq!(condition(&status.conditions, "Available").status, ConditionStatus::False);
    let degraded = condition(&status.conditions, "Degraded");
    assert_eq!(degraded.status, ConditionStatus::True);
    assert!(degraded.message.contains("node n1 is lost"), "{}", degraded.message);

    rig.put(&key, &RolloutState { phase: RolloutPhase::RolledBack, failed: Version(2), ..state });
    let status = deployment(&rig, "web");
    assert_eq!(condition(&status.conditions, "Degraded").reason, "RolledBack");
    assert_eq!(condition(&status.conditions, "Progressing").status, ConditionStatus::False);
}

#[test]
fn a_rollout_counts_as_failed_what_fails_a_version_and_nothing_else() {
    let (mut rig, _) = placed();
    let owner = rig.fleet.objects[&object(Kind::Deployment, "web")].value.as_ref().clone();
    rig.process(&owner, 11, 1, None);
    let pending = PendingState {
        message: "none of 1 nodes fits".to_owned(),
        filters: Vec::new(),
        since: NOW,
        revision: Revision(1),
        epoch: Epoch::default(),
    };
    rig.put(&Key::State(ControllerName::Scheduler, StateSubject::Uid(uid(11))), &pending);
    let failed = |rig: &mut Rig, phase, failed, reason: Option<Reason>, ended| {
        let state =
            RolloutState { target: Version(1), phase, failed: Version(failed), ..RolloutState::default() };
        rig.put(&Key::State(ControllerName::Deployment, StateSubject::Uid(uid(1))), &state);
        report_with(rig, |r| {
            let phase = if ended { ProcessPhase::Failed } else { ProcessPhase::Running };
            r.processes = vec![ostler_schemas::v1::report::ProcessReport {
                reason,
                ..process_report(uid(10), phase, false)
            }];
        });
        deployment(rig, "web").rollout.expect("a rollout").failed
    };
    use RolloutPhase::{Baking, Paused, Progressing};
    assert_eq!(failed(&mut rig, Progressing, 0, None, false), 0, "one has no place, which is no failure");
    assert_eq!(failed(&mut rig, Progressing, 0, Some(Reason::ProbeFailed), false), 0, "it has time yet");
    assert_eq!(failed(&mut rig, Baking, 0, Some(Reason::ProbeFailed), false), 1);
    assert_eq!(failed(&mut rig, Progressing, 0, None, true), 1);
    assert_eq!(failed(&mut rig, Paused, 1, None, false), 2, "neither was ready in time");
    let degraded = deployment(&rig, "web").conditions;
    assert_eq!(
        condition(&degraded, "Degraded").status,
        ConditionStatus::True,
        "what has no place is not well"
    );
}

#[test]
fn a_deployment_nobody_has_looked_at_says_so() {
    let (rig, _) = placed();
    let status = deployment(&rig, "web");
    assert_eq!((status.observed_generation, status.rollout), (0, None));
    assert_eq!(condition(&status.conditions, "Progressing").reason, "NotLookedAt");
}

/// A file at version 2 on nodes n1 (in sync), n2 (drifted), n3 (lost), n4 (has not read), n5 (no entry).
fn file_fleet() -> Rig {
    let mut rig = Rig::new();
    for (i, text) in ["n1", "n2", "n3", "n4", "n5"].into_iter().enumerate() {
        rig.node(text, 101 + u8::try_from(i).expect("small"));
    }
    let content = Some(ContentRef { sha256: ostler_schemas::hash::sha256(b"x"), size: 1 });
    let app = object(Kind::ConfigFile, "app");
    let spec = Spec::ConfigFile(Box::new(file_spec("/etc/app.conf", content)));
    let mut stored = rig.object(app.clone(), uid(5), spec);
    stored.metadata.version = Version(2);
    rig.put(&Key::Object(app), &stored);
    let state = RolloutState {
        current: Version(1),
        target: Version(2),
        phase: RolloutPhase::Complete,
        ..RolloutState::default()
    };
    rig.put(&Key::State(ControllerName::ConfigFile, StateSubject::Uid(uid(5))), &state);
    for text in ["n1", "n2", "n3", "n4"] {
        let d = ostler_schemas::hash::sha256(b"d");
        let entry = FileEntry { u: uid(5), v: Version(2), d, w: None, g: FileGoal::Hold };
        let document = FilesDocument { epoch: Epoch::default(), entries: vec![entry], node: None };
        rig.put(&Key::NodeDocument(node_name(text), DocumentKind::Files), &document);
    }
    for (text, state, wanted) in
        [("n1", FileState::InSync, 2), ("n2", FileState::Drifted, 2), ("n4", FileState::InSync, 1)]
    {
        let report = FileReport {
            u: uid(5),
            v: Version(wanted),
            wanted: Version(wanted),
            path: "/etc/app.conf".to_owned(),
            sha256: None,
            state,
            reason: None,
            message: None,
            at: NOW,
            last_drift: None,
            effect: None,
        };
        rig.put(&Key::Report(node_name(text)), &Report { file_states: vec![report], ..Report::default() });
    }
    lose(&mut rig, "n3", false);
    rig
}

#[test]
fn a_config_file_has_a_row_per_node_worst_first() {
    let rig = file_fleet();
    let rows = Lens::new(&rig.fleet, &rig.signals, NOW).config_rows(&object(Kind::ConfigFile, "app"));
    let shown: Vec<(&str, FileState)> = rows.iter().map(|r| (r.node.as_str(), r.state)).collect();
    let expected = [
        ("n2", FileState::Drifted),
        ("n3", FileState::Offline),
        ("n4", FileState::Applying),
        ("n5", FileState::Pending),
        ("n1", FileState::InSync),
    ];
    assert_eq!(shown, expected);
    assert_eq!(rows[1].message.as_deref(), Some("last beat 1s ago; takes version 2 on return"));
    let status = file(&rig, "app");
    let nodes = &status.nodes;
    assert_eq!((nodes.total, nodes.in_sync, nodes.drifted, nodes.offline), (5, 1, 1, 1));
    assert_eq!((nodes.applying, nodes.pending, nodes.failed), (1, 1, 0));
    assert_eq!(condition(&status.conditions, "InSync").message, "1 of 5 nodes in sync");
    assert_eq!(condition(&status.conditions, "PathConflict").status, ConditionStatus::False);
    assert_eq!(status.rollout.expect("a rollout").updated, 2);
}

#[test]
fn of_two_files_for_one_path_the_older_has_it() {
    let mut rig = file_fleet();
    let content = Some(ContentRef { sha256: ostler_schemas::hash::sha256(b"y"), size: 1 });
    let spec = Spec::ConfigFile(Box::new(file_spec("/etc/app.conf", content)));
    rig.object(object(Kind::ConfigFile, "other"), uid(6), spec);
    assert_eq!(
        path_winner(&rig.fleet, &node_name("n1"), "/etc/app.conf"),
        Some(object(Kind::ConfigFile, "app"))
    );
    let status = file(&rig, "other");
    assert_eq!(status.nodes.failed, 5);
    let conflict = condition(&status.conditions, "PathConflict");
    assert_eq!(conflict.status, ConditionStatus::True);
    assert!(conflict.message.contains("configfile/default/app"), "{}", conflict.message);
}

#[test]
fn lists_select_by_namespace_name_and_label_and_hold_made_processes() {
    let (mut rig, made) = placed();
    rig.object(
        object(Kind::Process, "cron"),
        uid(20),
        Spec::Process(Box::new(ostler_schemas::spec::ProcessSpec(super::rig::template("c")))),
    );
    let all: Vec<String> = list_of(&rig, Kind::Process).iter().map(|v| v.metadata.name.to_string()).collect();
    assert_eq!(all, ["cron".to_owned(), made.name.to_string()]);
    let app = LabelRequirement {
        key: "app".to_owned(),
        operator: LabelOperator::In,
        values: vec!["web".to_owned()],
    };
    let mut request = ListRequest {
        kind: Kind::Process,
        namespace: Some(Namespace::default_namespace()),
        labels: vec![app],
        names: Vec::new(),
    };
    let found = list(&rig.fleet, &rig.signals, NOW, &request);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].metadata.name, made.name);
    request.namespace = Some("other".parse().expect("a namespace"));
    assert!(list(&rig.fleet, &rig.signals, NOW, &request).is_empty());
    assert_eq!(list_of(&rig, Kind::Namespace).len(), 1);
    assert_eq!(list_of(&rig, Kind::Secret), Vec::new());
}

#[test]
fn objects_are_found_by_name_uid_and_host_name() {
    let (mut rig, made) = placed();
    let here = Namespace::default_namespace();
    report_with(&mut rig, |r| r.facts.hostname = "n1.ams.example.net".to_owned());
    let find = |kind, text: &str| resolve(&rig.fleet, kind, &here, text);
    assert_eq!(find(Kind::Deployment, "web"), Found::One(object(Kind::Deployment, "web")));
    assert_eq!(find(Kind::Deployment, &uid(1).short()), Found::One(object(Kind::Deployment, "web")));
    assert_eq!(find(Kind::Process, &uid(10).to_string()), Found::One(made.clone()));
    assert_eq!(find(Kind::Process, made.name.as_str()), Found::One(made));
    assert_eq!(find(Kind::Node, "n1.ams.example.net"), Found::One(object(Kind::Node, "n1")));
    assert_eq!(find(Kind::Deployment, "Web!"), Found::None);
    assert_eq!(find(Kind::Deployment, ""), Found::None);
    assert_eq!(find(Kind::Deployment, &"a".repeat(200)), Found::None);
    assert_eq!(nearest(&rig.fleet, Kind::Deployment, &here, "wbe"), None);
    assert_eq!(nearest(&rig.fleet, Kind::Deployment, &here, "weeb"), Some(name("web")));
}

#[test]
fn a_lease_that_nobody_holds_is_said_before_anything_else() {
    let (mut rig, _) = placed();
    let replica: Option<ReplicaId> = Some("c1".parse().expect("a name"));
    let signals = rig.signals.clone();
    assert_eq!(
        warnings(&rig.fleet, &signals, None, NOW),
        ["nothing is decided yet: no controller holds the lease"]
    );
    rig.put(&Key::Lease(ControllerName::Node), &Lease { replica, n: 1 });
    let at = Timestamp(NOW.0 - 10_000);
    assert_eq!(warnings(&rig.fleet, &signals, None, Timestamp(at.0 + 1_000)), Vec::<String>::new());
    let late = Timestamp(at.0 + 41_000);
    assert_eq!(
        warnings(&rig.fleet, &signals, None, late),
        ["data is 41s old: no controller holds the lease"]
    );
    let stale = warnings(&rig.fleet, &signals, Some("the watch ended"), at);
    assert_eq!(stale, ["data may be old: the watch ended"]);
}

#[test]
fn a_deleted_owner_leaves_its_processes_readable() {
    let (mut rig, of) = placed();
    rig.delete(&Key::Object(object(Kind::Deployment, "web")));
    assert_eq!(process(&rig, &of).phase, ProcessPhase::Pending);
    assert_eq!(list_of(&rig, Kind::Process).len(), 1);
}
