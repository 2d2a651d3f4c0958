//! Golden bytes of version 1: what this version writes is what the files in `fixtures/v1` hold, byte for byte, and what
//! they hold can be read. A change here is a change of the wire and needs a new schema version, or a new optional field.
//!
//! `OSTLER_WRITE_GOLDEN=1 cargo test -p ostler-schemas golden` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use super::beat::{Beat, BeatReply, HeldDocument, Usage};
use super::document::{
    DocumentOwner, FileEntry, FileGoal, FileSpec, FileVars, FilesDocument, NodeFacts, RunDocument, RunEntry,
};
use super::epoch::{Beacon, Epoch, Fence, Incarnation, Lease, Term, Token};
use super::event::{AuditRecord, Event};
use super::object::{Applied, Metadata, Object, OwnerReference, SpecRevision};
use super::process::{BindRecord, Goal, GoalReason, GoalRecord, ProcessSpecRecord, ProcessTemplateRecord};
use super::reason::{EventType, Reason};
use super::report::{ExitReason, ExitReport, FileReport, FileState, ProcessPhase, ProcessReport, Report};
use super::state::{FilterCount, LostVerdict, NodeState, PendingState, RolloutPhase, RolloutState};
use crate::codec::{self, Wire};
use crate::ids::{
    Actor, ControllerName, Generation, Kind, Name, Namespace, NodeName, Revision, Sha256, TxnId, Uid, Version,
};
use crate::key::ObjectRef;
use crate::spec::{
    ContentRef, Drift, FileItem, Labels, OnExisting, OnRemove, Spec, Unlisted, Var, Vars, samples,
};
use crate::time::Timestamp;

const AT: Timestamp = Timestamp(1_794_000_000_000);

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn node() -> NodeName {
    "web-001".parse().expect("a name")
}

fn uid() -> Uid {
    Uid::from_bytes([0x11; 16])
}

fn hash() -> Sha256 {
    Sha256::from_bytes([0x22; 32])
}

fn txn() -> TxnId {
    TxnId::from_bytes([0x33; 16])
}

fn epoch() -> Epoch {
    Epoch { incarnation: 2, term: Revision(4711), nonce: 0x9f3a_01c2 }
}

fn owner() -> OwnerReference {
    OwnerReference { kind: Kind::Deployment, name: name("web"), uid: uid() }
}

fn applied() -> Applied {
    Applied {
        actor: Actor::User(name("anna")),
        verb: "apply".into(),
        at: AT,
        reason: Some("first".into()),
        txn: txn(),
    }
}

fn object(spec: Spec) -> Object {
    let metadata = Metadata {
        name: name("web"),
        namespace: Some(Namespace::default_namespace()),
        uid: uid(),
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        annotations: BTreeMap::new(),
        generation: Generation(3),
        version: Version(2),
        creation_timestamp: AT,
        deletion_timestamp: None,
        finalizers: vec!["processes".into()],
        owner_references: Vec::new(),
        applied: applied(),
        touched: BTreeMap::new(),
        order: None,
    };
    Object { metadata, spec }
}

/// Compares with the file, and reads the file back.
fn golden<T: Wire + PartialEq + Debug>(file: &str, value: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1").join(format!("{file}.mpk"));
    let bytes = codec::encode(value).expect("encodes");
    if std::env::var_os("OSTLER_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &bytes).expect("writes");
    }
    let stored = std::fs::read(&path).expect("the golden file is there");
    assert_eq!(codec::decode::<T>(&stored).expect("reads"), *value, "{file}: released bytes read otherwise");
    assert_eq!(bytes, stored, "{file}: other bytes than released");
}

#[test]
fn objects() {
    golden("object-deployment", &object(Spec::Deployment(Box::new(samples::deployment()))));
    golden("object-configfile", &object(Spec::ConfigFile(Box::new(samples::configfile()))));
    golden("process-template", &samples::template());
    golden("process-template-every-field", &samples::every());
    let spec = Spec::Deployment(Box::new(samples::deployment()));
    let revision = SpecRevision { generation: Generation(3), version: Version(2), applied: applied(), spec };
    golden("spec-revision", &revision);
}

#[test]
fn processes() {
    let namespace = Namespace::default_namespace();
    let spec =
        ProcessSpecRecord { owner: owner(), namespace, name: name("web-5c8f7-x2k4v"), ordinal: None, at: AT };
    golden("process-spec", &spec);
    golden("process-tmpl", &ProcessTemplateRecord { template: hash(), version: Version(2) });
    let ports = BTreeMap::from([("http".to_owned(), 8080)]);
    let token = Token { incarnation: 2, term: 4711, batch: 17 };
    golden("process-bind", &BindRecord { node: node(), token, ports, at: AT });
    let actor = Actor::Controller(ControllerName::Node);
    let goal = GoalRecord { goal: Goal::Gone, reason: GoalReason::Lost, actor, epoch: Some(epoch()), at: AT };
    golden("process-goal", &goal);
}

#[test]
fn documents() {
    let entry = |g| RunEntry {
        u: uid(),
        o: 0,
        s: "-5c8f7-x2k4v".into(),
        t: 0,
        v: Version(2),
        g,
        f: Token { incarnation: 2, term: 4711, batch: 17 },
        p: BTreeMap::new(),
    };
    let owners = vec![DocumentOwner { ns: Namespace::default_namespace(), owner: owner() }];
    let run = RunDocument {
        epoch: epoch(),
        bulk: Some("scale".into()),
        owners,
        templates: vec![hash()],
        entries: vec![entry(Goal::Run), entry(Goal::Stop)],
        ..RunDocument::default()
    };
    golden("run-document", &run);
    let file = |g| FileEntry { u: uid(), v: Version(8), d: hash(), w: None, g };
    let entries = vec![file(FileGoal::Hold), file(FileGoal::Release)];
    golden("files-document", &FilesDocument { epoch: epoch(), entries, node: None });
    let vars = Vars::from([("port".to_owned(), Var::Int(8080))]);
    let rendered = FileEntry { w: Some(hash()), ..file(FileGoal::Hold) };
    let node = NodeFacts {
        hostname: "web-017.ams.example.net".into(),
        labels: Labels::from([("rack".to_owned(), "r7".to_owned())]),
        vars: vars.clone(),
        addresses: BTreeMap::from([("internal".to_owned(), "10.0.0.17".to_owned())]),
        cpu: crate::quantity::Cpu::from_millis(4_000),
        memory: crate::quantity::Size::from_mib(1_024),
    };
    let node = Some(Box::new(node));
    golden("files-document-rendered", &FilesDocument { epoch: epoch(), entries: vec![rendered], node });
    golden("file-vars", &FileVars { vars });
    let spec = FileSpec {
        name: name("app-conf"),
        namespace: Namespace::default_namespace(),
        path: "/etc/app.conf".into(),
        owner: "root".into(),
        group: Some("app".into()),
        mode: crate::quantity::Mode::from_bits(0o640),
        content: Some(ContentRef { sha256: hash(), size: 4096 }),
        template: None,
        files: Vec::new(),
        unlisted: Unlisted::Keep,
        create_directories: true,
        validator: None,
        drift: Drift::Enforce,
        on_existing: OnExisting::Replace,
        on_remove: OnRemove::Keep,
        on_change: Vec::new(),
        probe: None,
        watch: crate::quantity::Dur::ZERO,
    };
    golden("file-spec", &spec);
    golden("file-spec-actions", &with_actions(spec.clone()));
    let item = FileItem {
        name: "conf.d/a.conf".into(),
        content: None,
        template: Some(ContentRef { sha256: hash(), size: 4096 }),
        mode: Some(crate::quantity::Mode::from_bits(0o600)),
    };
    let folder = FileSpec { content: None, files: vec![item], unlisted: Unlisted::Delete, ..spec };
    golden("file-spec-folder", &folder);
}

fn with_actions(spec: FileSpec) -> FileSpec {
    use crate::spec::{
        Action, ActionTarget, Exec, Probe, Requirement, Selector, SelectorOperator, TcpSocket,
    };
    let expression =
        Requirement { key: "tier".into(), operator: SelectorOperator::NotIn, values: vec!["batch".into()] };
    let selector = Selector {
        match_labels: Labels::from([("app".to_owned(), "web".to_owned())]),
        match_expressions: vec![expression],
    };
    let processes = ActionTarget { process_selector: Some(selector), unit: None };
    let unit = ActionTarget { process_selector: None, unit: Some("nginx.service".into()) };
    let timeout = crate::quantity::Dur::from_secs(10);
    let exec = Exec { command: vec!["/usr/bin/notify".into()], user: Some("app".into()), timeout };
    let port = crate::spec::PortRef::Number(8080);
    let probe = Probe {
        http_get: None,
        tcp_socket: Some(TcpSocket { port, host: None }),
        exec: None,
        initial_delay: crate::quantity::Dur::ZERO,
        period: crate::quantity::Dur::from_secs(2),
        timeout: crate::quantity::Dur::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
    };
    FileSpec {
        on_change: vec![
            Action { reload: Some(processes), ..Action::default() },
            Action { restart: Some(unit), ..Action::default() },
            Action { exec: Some(exec), ..Action::default() },
        ],
        probe: Some(probe),
        watch: crate::quantity::Dur::from_secs(660),
        ..spec
    }
}

#[test]
fn leaders() {
    let replica = "ctl-1".parse().expect("a name");
    golden("lease", &Lease { replica: Some(replica), n: 12 });
    let replica = "ctl-1".parse().expect("a name");
    golden("term", &Term { replica, incarnation: 2, nonce: 7 });
    let replica = "ctl-1".parse().expect("a name");
    golden("fence", &Fence { replica, epoch: epoch(), batch: 17, txn: txn() });
    golden("incarnation", &Incarnation { n: 2 });
    let replica = "ctl-1".parse().expect("a name");
    golden("beacon", &Beacon { replica, n: 99, leads: ControllerName::ALL.to_vec() });
}

#[test]
fn states() {
    let lost = LostVerdict {
        at: AT,
        last_beat: AT,
        boot: "b".into(),
        incarnation: 5,
        held: true,
        why: Some("brake".into()),
    };
    let tainted_since = BTreeMap::from([("k=v".to_owned(), AT)]);
    golden("node-state", &NodeState { lost: Some(lost), tainted_since, relieved: None, epoch: epoch() });
    let rollout = RolloutState {
        current: Version(1),
        target: Version(2),
        last_good: Version(1),
        wave: 1,
        bake_ends_at: Some(AT),
        phase: RolloutPhase::Baking,
        reason: "3 of 3".into(),
        generation: 3,
        started_at: Some(AT),
        epoch: epoch(),
        ..RolloutState::default()
    };
    golden("rollout-state", &rollout);
    let filters = vec![FilterCount { name: "memory".into(), count: 4, detail: "needs 512Mi".into() }];
    let pending = PendingState {
        message: "none of 4 nodes fits".into(),
        filters,
        since: AT,
        revision: Revision(88_123),
        epoch: epoch(),
    };
    golden("pending-state", &pending);
}

#[test]
fn nodes() {
    let held = HeldDocument { epoch: epoch(), revision: Revision(88) };
    let usage = Usage { load1: 42, pressure: Some(3), ..Usage::default() };
    let beat = Beat {
        machine: "m".into(),
        boot: "b".into(),
        incarnation: 5,
        n: 9,
        server: Some(name("s1")),
        version: "0.1.0".into(),
        usage,
        running: 3,
        assigned: 4,
        run: held,
        files: held,
        secrets: HeldDocument::default(),
        report: 7,
        holder: true,
        wall: AT.0,
        draining: false,
        strain: None,
        disk_strain: None,
        pid_strain: None,
    };
    golden("beat", &beat);
    let reply = BeatReply { run: Revision(88), files: Revision(89), report: 7, ..BeatReply::default() };
    golden("beat-reply", &reply);
    golden("report", &report(held));
}

fn report(held: HeldDocument) -> Report {
    let process = ProcessReport {
        u: uid(),
        i: 2,
        phase: ProcessPhase::Running,
        ready: true,
        pid: Some(4711),
        t: Some(hash()),
        v: Version(2),
        started_at: Some(AT),
        ready_at: Some(AT),
        restarts: 1,
        reason: None,
        message: None,
        exits: 1,
        cgroup: None,
        log_path: None,
        measure: None,
    };
    let exit = ExitReport {
        u: uid(),
        i: 1,
        seq: 1,
        code: Some(3),
        signal: None,
        reason: ExitReason::Exited,
        why: None,
        at: AT,
    };
    let file = FileReport {
        u: uid(),
        v: Version(8),
        wanted: Version(8),
        path: "/etc/app.conf".into(),
        sha256: Some(hash()),
        state: FileState::InSync,
        reason: None,
        message: None,
        at: AT,
        last_drift: None,
        effect: None,
    };
    Report {
        machine: "m".into(),
        boot: "b".into(),
        incarnation: 5,
        seq: 7,
        at: AT,
        run: held,
        files: held,
        processes: vec![process],
        exits: vec![exit],
        file_states: vec![file],
        ..Report::default()
    }
}

#[test]
fn narrative() {
    let object = ObjectRef {
        kind: Kind::Deployment,
        namespace: Some(Namespace::default_namespace()),
        name: name("web"),
    };
    let event = Event {
        kind: EventType::Normal,
        reason: Reason::Scaled,
        object: object.clone(),
        uid: Some(uid()),
        node: None,
        message: "scaled from 2 to 3".into(),
        count: 1,
        first_time: AT,
        last_time: AT,
        actor: Some(Actor::User(name("anna"))),
        cause_revision: Some(Revision(88)),
        txn: Some(txn()),
    };
    golden("event", &event);
    let audit = AuditRecord {
        actor: Actor::User(name("anna")),
        verb: "apply".into(),
        objects: vec![object],
        objects_more: 0,
        phase: "intent".into(),
        message: String::new(),
        reason: None,
        count: 1,
        at: AT,
        txn: txn(),
    };
    golden("audit", &audit);
}
