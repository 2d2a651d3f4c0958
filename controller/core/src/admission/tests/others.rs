//! `delete`, `put`, `node`, `scale`, `register`, and the end of deletions.

use ostler_schemas::manifest::Options;
use ostler_schemas::spec::{NodeSpec, ProcessSpec, Spec, Taint, TaintEffect};
use ostler_schemas::v1::api::{
    ApiError, ApiErrorCode, DeleteReply, DeleteRequest, NodeChange, NodeRequest, PutRequest, RegisterRequest,
    ScaleRequest,
};
use ostler_schemas::v1::beat::Beat;
use ostler_schemas::v1::document::{FileEntry, FileGoal, FilesDocument};
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::Facts;
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::{DocumentKind, Key, Kind, ObjectRef, Version};

use super::super::{Act, Verdict, bootstrap, delete, node, put, reap, register, scale};
use super::{by, commit, ids, world};
use crate::status::rig::{Rig, deployment_spec, file_spec, node_name, object, template, uid};

fn try_delete(rig: &Rig, what: ObjectRef, force: bool) -> Result<Verdict<DeleteReply>, ApiError> {
    delete(&world(rig, &by()), &DeleteRequest { object: what, force, reason: None })
}

fn deleted(rig: &mut Rig, what: ObjectRef) -> bool {
    let verdict = try_delete(rig, what, false).expect("deletes");
    commit(rig, &verdict.decision);
    verdict.reply.gone
}

fn deployment(rig: &mut Rig) -> ostler_schemas::v1::object::Object {
    rig.object(object(Kind::Deployment, "web"), uid(1), Spec::Deployment(Box::new(deployment_spec(1, "a"))))
}

#[test]
fn a_deployment_goes_when_its_processes_are_gone() {
    let mut rig = Rig::new();
    let owner = deployment(&mut rig);
    rig.process(&owner, 10, 1, None);
    let web = object(Kind::Deployment, "web");
    assert!(!deleted(&mut rig, web.clone()));
    let marked = &rig.fleet.objects[&web].value.metadata;
    assert_eq!(
        (marked.finalizers.as_slice(), marked.applied.verb.as_str()),
        (["processes".to_owned()].as_slice(), "delete")
    );
    assert!(try_delete(&rig, web.clone(), false).expect("again").decision.is_idle());
    assert!(reap(&rig.fleet).is_empty());
    for key in [Key::ProcessTemplate(uid(10)), Key::ProcessSpec(uid(10))] {
        rig.delete(&key);
    }
    let done = reap(&rig.fleet);
    assert_eq!(done.len(), 1);
    commit(&mut rig, &done[0]);
    assert!(!rig.fleet.objects.contains_key(&web));
    assert!(reap(&rig.fleet).is_empty());
}

#[test]
fn a_finalizer_of_somebody_else_holds_an_object() {
    let mut rig = Rig::new();
    let mut owner = deployment(&mut rig);
    owner.metadata.finalizers = vec!["backup".to_owned()];
    rig.put(&Key::Object(object(Kind::Deployment, "web")), &owner);
    deleted(&mut rig, object(Kind::Deployment, "web"));
    assert!(reap(&rig.fleet).is_empty());
}

#[test]
fn a_file_goes_when_every_node_has_let_it_go() {
    let mut rig = Rig::new();
    rig.node("n1", 101);
    let app = object(Kind::ConfigFile, "app");
    rig.object(app.clone(), uid(5), Spec::ConfigFile(Box::new(file_spec("/etc/app.conf", None))));
    let document = Key::NodeDocument(node_name("n1"), DocumentKind::Files);
    let d = ostler_schemas::hash::sha256(b"d");
    let entry = FileEntry { u: uid(5), v: Version(1), d, w: None, g: FileGoal::Release };
    rig.put(&document, &FilesDocument { epoch: Epoch::default(), entries: vec![entry], node: None });
    deleted(&mut rig, app);
    assert!(reap(&rig.fleet).is_empty(), "a tombstone is still there");
    rig.put(&document, &FilesDocument::default());
    assert_eq!(reap(&rig.fleet).len(), 1);
}

#[test]
fn a_file_in_use_is_kept_unless_forced() {
    let mut rig = Rig::new();
    let app = object(Kind::ConfigFile, "app");
    rig.object(app.clone(), uid(5), Spec::ConfigFile(Box::new(file_spec("/etc/app.conf", None))));
    for n in 0..7u8 {
        let mut spec = template("x");
        spec.needs = vec!["configfile/app".parse().expect("a need")];
        rig.object(
            object(Kind::Process, &format!("p{n}")),
            uid(60 + n),
            Spec::Process(Box::new(ProcessSpec(spec))),
        );
    }
    let error = try_delete(&rig, app.clone(), false).expect_err("refused");
    assert_eq!(error.code, ApiErrorCode::Conflict);
    assert_eq!(
        error.message,
        "configfile/app is needed by process/p0, process/p1, process/p2, process/p3, process/p4 and 2 more; \
         delete these first, or --force"
    );
    assert!(try_delete(&rig, app, true).is_ok());
}

#[test]
fn a_node_that_may_be_alive_is_kept_unless_forced() {
    let mut rig = Rig::new();
    rig.node("n1", 101);
    let n1 = object(Kind::Node, "n1");
    let error = try_delete(&rig, n1.clone(), false).expect_err("refused");
    assert!(error.message.contains("its last beat was 1s ago"), "{}", error.message);
    rig.heard("n1", NodePhase::Unknown);
    rig.signals.blind = Some("no canary".to_owned());
    assert!(try_delete(&rig, n1.clone(), false).is_err(), "blind");
    rig.signals.blind = None;
    rig.heard("n1", NodePhase::Lost);
    assert!(deleted(&mut rig, n1.clone()));
    assert!(!rig.fleet.objects.contains_key(&n1));
}

#[test]
fn a_namespace_goes_only_when_it_is_empty() {
    let mut rig = Rig::new();
    let default = object(Kind::Namespace, "default");
    assert!(try_delete(&rig, default, true).is_err());
    let prod = object(Kind::Namespace, "prod");
    rig.object(prod.clone(), uid(7), Spec::Namespace(ostler_schemas::spec::NamespaceSpec::default()));
    let mut inside = object(Kind::Deployment, "web");
    inside.namespace = Some("prod".parse().expect("a namespace"));
    rig.object(inside.clone(), uid(8), Spec::Deployment(Box::new(deployment_spec(1, "a"))));
    let error = try_delete(&rig, prod.clone(), true).expect_err("refused even with force");
    assert_eq!(error.message, "namespace/prod is not empty: deployment/web; delete what is in it first");
    rig.delete(&Key::Object(inside.clone()));
    assert!(!deleted(&mut rig, prod));
    rig.object(inside.clone(), uid(9), Spec::Deployment(Box::new(deployment_spec(1, "a"))));
    assert!(reap(&rig.fleet).is_empty(), "something slipped in: it is not lost");
    rig.delete(&Key::Object(inside));
    assert_eq!(reap(&rig.fleet).len(), 1);
}

#[test]
fn deleting_a_process_of_a_workload_ends_it() {
    let mut rig = Rig::new();
    let owner = deployment(&mut rig);
    let made = rig.process(&owner, 10, 1, None);
    let verdict = try_delete(&rig, made.clone(), false).expect("deletes");
    assert!(matches!(&verdict.decision.writes[0].act, Act::Goal(g) if g.goal == Goal::Stop));
    commit(&mut rig, &verdict.decision);
    assert!(try_delete(&rig, made, false).expect("again").decision.is_idle());
}

#[test]
fn what_is_not_there_is_named_with_its_nearest() {
    let mut rig = Rig::new();
    deployment(&mut rig);
    let error = try_delete(&rig, object(Kind::Deployment, "webb"), false).expect_err("missing");
    assert_eq!(error.code, ApiErrorCode::NotFound);
    assert_eq!(error.message, "deployment/webb does not exist in namespace default");
    assert_eq!(error.hint.as_deref(), Some("did you mean deployment/web?"));
}

#[test]
fn scaling_has_a_guard_and_a_limit() {
    let mut rig = Rig::new();
    deployment(&mut rig);
    let request = |replicas, if_replicas| ScaleRequest {
        object: object(Kind::Deployment, "web"),
        replicas,
        if_replicas,
        reason: None,
    };
    let go = |rig: &Rig, r: &ScaleRequest| scale(&world(rig, &by()), r, &Options::default());
    assert_eq!(
        go(&rig, &request(3, Some(2))).expect_err("conflict").message,
        "deployment/web has 1 replicas, not 2"
    );
    assert_eq!(
        go(&rig, &request(5001, None)).expect_err("too many").findings[0].message,
        "is 5001, the limit is 5000"
    );
    let done = go(&rig, &request(3, Some(1))).expect("scales");
    assert_eq!(done.reply.message, "deployment/web scaled from 1 to 3");
    assert_eq!((done.decision.writes.len(), done.decision.tell[0].reason), (2, Reason::Scaled));
    assert!(!go(&rig, &request(1, None)).expect("scales").reply.changed);
    let app = object(Kind::ConfigFile, "app");
    rig.object(app.clone(), uid(5), Spec::ConfigFile(Box::new(file_spec("/etc/app.conf", None))));
    assert_eq!(
        go(&rig, &ScaleRequest { object: app, ..request(1, None) }).expect_err("no").code,
        ApiErrorCode::Invalid
    );
}

#[test]
fn labels_are_put_by_the_rules_of_manifests() {
    let mut rig = Rig::new();
    rig.node("n1", 101);
    let go = |rig: &Rig, key: &str, value: Option<&str>, overwrite| {
        let labels = [(key.to_owned(), value.map(str::to_owned))].into();
        put(&world(rig, &by()), &PutRequest { object: object(Kind::Node, "n1"), labels, overwrite })
    };
    let done = go(&rig, "role", Some("web"), false).expect("labels");
    assert_eq!(done.decision.writes.len(), 1, "metadata alone");
    commit(&mut rig, &done.decision);
    assert!(!go(&rig, "role", Some("web"), false).expect("same").reply.changed);
    let error = go(&rig, "role", Some("db"), false).expect_err("conflict");
    assert_eq!(error.message, "node/n1 has label role=web already; to set it to db: --overwrite");
    assert!(go(&rig, "role", Some("db"), true).is_ok());
    assert!(go(&rig, "role", None, false).expect("removes").reply.changed);
    assert_eq!(go(&rig, "ostler/node", Some("x"), true).expect_err("own").code, ApiErrorCode::Refused);
    let bad = go(&rig, "role", Some("a b"), true).expect_err("bad");
    assert!(bad.findings[0].message.contains("is not a label value"), "{bad:?}");
}

#[test]
fn a_process_of_a_workload_is_labelled_in_its_template() {
    let mut rig = Rig::new();
    let owner = deployment(&mut rig);
    let made = rig.process(&owner, 10, 1, None);
    let labels = [("a".to_owned(), Some("b".to_owned()))].into();
    let error =
        put(&world(&rig, &by()), &PutRequest { object: made, labels, overwrite: false }).expect_err("no");
    assert!(
        error.message.ends_with("was made by deployment/web: label the template there"),
        "{}",
        error.message
    );
}

#[test]
fn nodes_are_cordoned_and_tainted() {
    let mut rig = Rig::new();
    rig.node("n1", 101);
    let go = |rig: &Rig, change| {
        node(&world(rig, &by()), &NodeRequest { node: "n1".to_owned(), change, reason: None })
    };
    let done = go(&rig, NodeChange::Cordon).expect("cordons");
    assert_eq!(
        (done.decision.tell[0].reason, done.decision.tell[0].node.clone()),
        (Reason::Cordoned, Some(node_name("n1")))
    );
    commit(&mut rig, &done.decision);
    assert!(!go(&rig, NodeChange::Cordon).expect("again").reply.changed);
    let set =
        |key: &str| Taint { key: key.to_owned(), value: "x".to_owned(), effect: TaintEffect::NoSchedule };
    let done = go(&rig, NodeChange::Taint { set: vec![set("disk")], remove: Vec::new() }).expect("taints");
    assert_eq!(done.reply.message, "node/n1 tainted disk=x:NoSchedule");
    commit(&mut rig, &done.decision);
    assert!(go(&rig, NodeChange::Taint { set: vec![set("ostler/lost")], remove: Vec::new() }).is_err());
    let done = go(&rig, NodeChange::Taint { set: Vec::new(), remove: vec![("disk".to_owned(), None)] })
        .expect("removes");
    assert!(done.reply.changed);
    let missing = NodeRequest { node: "n9".to_owned(), change: NodeChange::Cordon, reason: None };
    assert_eq!(node(&world(&rig, &by()), &missing).expect_err("missing").code, ApiErrorCode::NotFound);
}

fn joining(machine: &str) -> RegisterRequest {
    let facts = Facts { hostname: "n1.example.net".to_owned(), ..Facts::default() };
    let labels = [("role".to_owned(), "web".to_owned())].into();
    RegisterRequest { machine: machine.to_owned(), boot: "b".to_owned(), incarnation: 1, facts, labels }
}

#[test]
fn a_node_registers_once_and_defends_its_name() {
    let mut rig = Rig::new();
    let go = |rig: &Rig, machine: &str| {
        register(&world(rig, &by()), &node_name("n1"), &joining(machine), &mut ids())
    };
    let done = go(&rig, "m1").expect("joins");
    assert!(done.reply.created);
    assert_eq!(done.decision.tell[0].reason, Reason::Joined);
    commit(&mut rig, &done.decision);
    let stored = &rig.fleet.objects[&object(Kind::Node, "n1")].value;
    let labels: Vec<(&str, &str)> =
        stored.metadata.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("ostler/hostname", "n1.example.net"), ("ostler/node", "n1"), ("role", "web")]);
    assert_eq!(stored.spec, Spec::Node(NodeSpec::default()));
    let again = go(&rig, "m1").expect("again");
    assert!(again.decision.is_idle() && !again.reply.created);

    rig.heard("n1", NodePhase::Ready);
    let beat = Beat { machine: "m1".to_owned(), holder: true, ..Beat::default() };
    rig.signals.nodes.get_mut(&node_name("n1")).expect("heard").beat = Some(std::sync::Arc::new(beat));
    let error = go(&rig, "m2").expect_err("refused");
    assert!(error.message.starts_with("another machine (m1) is alive as n1"), "{}", error.message);
    assert!(go(&rig, "m1").is_ok());
    rig.heard("n1", NodePhase::Lost);
    assert!(go(&rig, "m2").is_ok(), "a dead machine's place may be taken");
}

#[test]
fn labels_of_a_host_obey_the_rules() {
    let rig = Rig::new();
    let try_labels = |key: &str, value: &str| {
        let labels = [(key.to_owned(), value.to_owned())].into();
        let request = RegisterRequest { labels, ..joining("m") };
        register(&world(&rig, &by()), &node_name("n1"), &request, &mut ids()).map(|_| ()).map_err(|e| e.code)
    };
    assert_eq!(try_labels("ostler/node", "n2"), Err(ApiErrorCode::Invalid));
    assert_eq!(try_labels("a b", "x"), Err(ApiErrorCode::Refused));
    assert_eq!(try_labels("rack", "r7"), Ok(()));
}

#[test]
fn namespace_default_is_made_once() {
    let rig = Rig::default();
    let by = by();
    let decision = bootstrap(&world(&rig, &by), &mut ids()).expect("makes it");
    assert_eq!(decision.writes.len(), 2);
    assert!(bootstrap(&world(&Rig::new(), &by), &mut ids()).is_none());
}
