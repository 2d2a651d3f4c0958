//! `apply`.

use ostler_schemas::key::StateSubject;
use ostler_schemas::manifest::FindingCode;
use ostler_schemas::manifest::Options;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::api::{ApplyOutcome, DeleteRequest, ScaleRequest};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::{RolloutPhase, RolloutState};
use ostler_schemas::{ControllerName, Generation, Key, Kind, ObjectRef, Revision, Version};

use super::super::{Act, ApplyOptions, delete, put, scale};
use super::{after, applied, by, commit, findings, keys, try_apply, world};
use crate::status::rig::{Rig, object};

const WEB: &str = "
apiVersion: ostler/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {command: [/usr/bin/app]}}}
";

const FILE: &str = "
apiVersion: ostler/v1
kind: ConfigFile
metadata: {name: app}
spec: {path: /etc/app.conf, nodeSelector: {}, content: \"a\\n\"}
";

fn web() -> ObjectRef {
    object(Kind::Deployment, "web")
}

fn scale_to(rig: &mut Rig, replicas: u32) {
    let request = ScaleRequest { object: web(), replicas, if_replicas: None, reason: None };
    let verdict = scale(&world(rig, &by()), &request, &Options::default()).expect("scales");
    assert!(verdict.reply.changed);
    commit(rig, &verdict.decision);
}

#[test]
fn a_new_object_is_written_with_its_first_revision() {
    let mut rig = Rig::new();
    let done = applied(&mut rig, WEB);
    let object = after(&done);
    assert_eq!(done.results[0].outcome, ApplyOutcome::Created);
    assert_eq!((object.metadata.generation, object.metadata.version), (Generation(1), Version(1)));
    assert!(matches!(keys(&done.decision)[..], [Key::SpecRevision(..), Key::Object(_)]));
    assert_eq!(done.decision.tell[0].reason, Reason::Created);
    assert_eq!(object.metadata.applied.verb, "apply");
    let again = applied(&mut rig, WEB);
    assert_eq!(again.results[0].outcome, ApplyOutcome::Unchanged);
    assert!(again.decision.is_idle() && again.decision.tell.is_empty());
}

#[test]
fn versions_rise_with_the_template_and_generations_with_the_spec() {
    let mut rig = Rig::new();
    applied(&mut rig, WEB);
    let more = applied(&mut rig, &WEB.replace("template", "replicas: 3, template"));
    assert_eq!(
        (after(&more).metadata.generation, after(&more).metadata.version),
        (Generation(2), Version(1))
    );
    let newer = applied(&mut rig, &WEB.replace("/usr/bin/app", "/usr/bin/app2"));
    assert_eq!(
        (after(&newer).metadata.generation, after(&newer).metadata.version),
        (Generation(3), Version(2))
    );
    assert!(matches!(&after(&newer).spec, Spec::Deployment(s) if s.replicas == 3), "replicas are kept");
    let marked = applied(
        &mut rig,
        &WEB.replace("/usr/bin/app", "/usr/bin/app2").replace("name: web", "name: web, labels: {a: b}"),
    );
    assert_eq!(marked.results[0].outcome, ApplyOutcome::Configured);
    assert_eq!(after(&marked).metadata.generation, Generation(3));
    assert!(matches!(keys(&marked.decision)[..], [Key::Object(_)]), "metadata alone writes no revision");
}

#[test]
fn an_apply_does_not_undo_another_verb_unless_forced() {
    let mut rig = Rig::new();
    applied(&mut rig, WEB);
    scale_to(&mut rig, 5);
    let kept = applied(&mut rig, WEB);
    assert_eq!(kept.results[0].outcome, ApplyOutcome::Unchanged);
    let three = WEB.replace("template", "replicas: 3, template");
    let found = findings(&rig, &three);
    assert_eq!((found[0].code, found[0].field.as_str()), (FindingCode::Conflict, "spec.replicas"));
    assert!(
        found[0].message.starts_with("would undo scale by user/ben at 08:00:00 (is 5, asked 3)"),
        "{}",
        found[0]
    );
    assert!(found[0].line > 0, "located");
    let force = ApplyOptions { force: true, ..ApplyOptions::default() };
    let forced = try_apply(&rig, &three, &force).expect("admitted");
    assert!(after(&forced).metadata.touched.is_empty());
    commit(&mut rig, &forced.decision);
    assert_eq!(
        applied(&mut rig, &WEB.replace("template", "replicas: 4, template")).results[0].outcome,
        ApplyOutcome::Configured
    );
}

#[test]
fn what_a_manifest_leaves_out_stays_the_other_verbs() {
    let mut rig = Rig::new();
    applied(&mut rig, WEB);
    scale_to(&mut rig, 5);
    let newer = applied(&mut rig, &WEB.replace("/usr/bin/app", "/usr/bin/app2"));
    assert!(after(&newer).metadata.touched.contains_key("spec.replicas"));
    assert_eq!(
        findings(&rig, &WEB.replace("template", "replicas: 3, template"))[0].code,
        FindingCode::Conflict
    );
}

#[test]
fn a_label_set_by_hand_is_not_lost_to_an_apply() {
    let mut rig = Rig::new();
    applied(&mut rig, WEB);
    let labels = [("tier".to_owned(), Some("front".to_owned()))].into();
    let request = ostler_schemas::v1::api::PutRequest { object: web(), labels, overwrite: false };
    let verdict = put(&world(&rig, &by()), &request).expect("labels");
    commit(&mut rig, &verdict.decision);
    let found = findings(&rig, &WEB.replace("/usr/bin/app", "/usr/bin/app2"));
    assert_eq!(found[0].field, "metadata.labels.tier");
    assert!(found[0].message.contains("would undo label by user/ben"), "{}", found[0]);
}

#[test]
fn the_revision_guard_names_the_other_writer() {
    let mut rig = Rig::new();
    applied(&mut rig, WEB);
    let is = rig.fleet.objects[&web()].revision;
    let guarded = |n: u64| WEB.replace("name: web", &format!("name: web, revision: {n}"));
    assert_eq!(applied(&mut rig, &guarded(is.0)).results[0].outcome, ApplyOutcome::Unchanged);
    let found = findings(&rig, &guarded(1));
    assert_eq!(found[0].code, FindingCode::Conflict);
    let expected = format!(
        "changed since: revision {is} by user/ben (apply) at 08:00:00, you have 1; run \"ostler diff\", or --force"
    );
    assert_eq!(found[0].message, expected);
    assert_eq!(findings(&Rig::new(), &guarded(7))[0].field, "metadata.revision");
}

#[test]
fn what_cannot_change_says_so() {
    let mut rig = Rig::new();
    applied(&mut rig, FILE);
    let found = findings(&rig, &FILE.replace("/etc/app.conf", "/etc/app2.conf"));
    assert_eq!((found[0].code, found[0].field.as_str()), (FindingCode::Immutable, "spec.path"));
    assert_eq!(
        found[0].message,
        "cannot change after creation (is /etc/app.conf, asked /etc/app2.conf): create another object"
    );
}

#[test]
fn all_documents_are_refused_together_with_every_finding() {
    let mut rig = Rig::new();
    applied(&mut rig, FILE);
    let elsewhere = WEB.replace("name: web", "name: web, namespace: prod");
    let needs = WEB
        .replace("name: web", "name: web2")
        .replace("command:", "needs: [configfile/none, deployment/none], command:");
    let yaml = format!("{elsewhere}---{needs}---{}", WEB.replace("name: web", "name: fine"));
    let refusal = try_apply(&rig, &yaml, &ApplyOptions::default()).expect_err("refused");
    assert_eq!((refusal.refused, refusal.documents), (2, 3));
    let said: Vec<&str> = refusal.findings.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "refers to namespace/prod, which does not exist",
            "refers to configfile/none, which does not exist in namespace default",
        ]
    );
    assert!(refusal.findings.iter().all(|f| f.code == FindingCode::NotFound && f.line > 0));
}

#[test]
fn what_comes_in_the_same_apply_exists() {
    let mut rig = Rig::new();
    let space = "apiVersion: ostler/v1\nkind: Namespace\nmetadata: {name: prod}\n";
    let web = WEB
        .replace("name: web", "name: web, namespace: prod")
        .replace("command:", "needs: [configfile/app, process/x], command:");
    let file = FILE.replace("name: app", "name: app, namespace: prod");
    let done = applied(&mut rig, &format!("{web}---\n{space}---{file}"));
    assert_eq!(done.decision.writes.len(), 6);
    assert_eq!(done.results[0].warnings.len(), 1, "a process may come later: {:?}", done.results[0].warnings);
    assert_eq!(done.decision.contents.len(), 1);
    assert_eq!(done.decision.contents[0].bytes.as_deref(), Some(b"a\n".as_slice()));
}

#[test]
fn nodes_are_not_made_by_apply_and_keep_what_is_theirs() {
    let mut rig = Rig::new();
    let node = "apiVersion: ostler/v1\nkind: Node\nmetadata: {name: n1, labels: {role: web}}\n";
    let found = findings(&rig, node);
    assert_eq!((found[0].code, found[0].field.as_str()), (FindingCode::NotFound, "metadata.name"));
    assert_eq!(
        found[0].message,
        "nodes register by themselves: give the host credentials with \"ostler setup --node n1\""
    );
    let mut known = rig.object(
        object(Kind::Node, "n1"),
        crate::status::rig::uid(1),
        Spec::Node(ostler_schemas::spec::NodeSpec::default()),
    );
    known.metadata.labels.insert("ostler/node".to_owned(), "n1".to_owned());
    rig.put(&Key::Object(object(Kind::Node, "n1")), &known);
    let done = applied(&mut rig, node);
    let labels: Vec<&str> = after(&done).metadata.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["ostler/node", "role"]);
}

#[test]
fn one_path_has_one_file_on_a_node() {
    let mut rig = Rig::new();
    for (i, text) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let mut node = rig.object(
            object(Kind::Node, text),
            crate::status::rig::uid(50 + u8::try_from(i).expect("small")),
            Spec::Node(ostler_schemas::spec::NodeSpec::default()),
        );
        let role = if text == "n3" { "db" } else { "web" };
        node.metadata.labels.insert("role".to_owned(), role.to_owned());
        rig.put(&Key::Object(object(Kind::Node, text)), &node);
    }
    applied(&mut rig, &FILE.replace("nodeSelector: {}", "nodeSelector: {role: web}"));
    let other = FILE.replace("name: app", "name: other");
    let found = findings(&rig, &other);
    assert_eq!((found[0].code, found[0].field.as_str()), (FindingCode::PathConflict, "spec.path"));
    assert_eq!(
        found[0].message,
        "/etc/app.conf is already managed on 2 of the selected nodes by configfile/default/app (for example n1)"
    );
    applied(&mut rig, &other.replace("nodeSelector: {}", "nodeSelector: {role: db}"));
    let both = format!(
        "{}---{}",
        FILE.replace("app.conf", "b.conf").replace("name: app", "name: b1"),
        FILE.replace("app.conf", "b.conf").replace("name: app", "name: b2")
    );
    assert_eq!(findings(&rig, &both).len(), 2, "also within one apply");
    let changed = FILE.replace("nodeSelector: {}", "nodeSelector: {role: web}").replace("a\\n", "b\\n");
    assert_eq!(after(&applied(&mut rig, &changed)).metadata.version, Version(2));
}

#[test]
fn what_is_being_deleted_takes_no_change() {
    let mut rig = Rig::new();
    applied(&mut rig, WEB);
    let request = DeleteRequest { object: web(), force: false, reason: None };
    let verdict = delete(&world(&rig, &by()), &request).expect("deletes");
    commit(&mut rig, &verdict.decision);
    let found = findings(&rig, WEB);
    assert_eq!(found[0].code, FindingCode::Conflict);
    assert!(found[0].message.starts_with("is being deleted since 08:00:00"), "{}", found[0]);
    let request = ScaleRequest { object: web(), replicas: 2, if_replicas: None, reason: None };
    assert!(scale(&world(&rig, &by()), &request, &Options::default()).is_err());
}

#[test]
fn a_version_that_was_rolled_back_is_tried_again_only_on_request() {
    let mut rig = Rig::new();
    applied(&mut rig, WEB);
    let uid = rig.fleet.objects[&web()].value.metadata.uid;
    let state =
        RolloutState { failed: Version(1), phase: RolloutPhase::RolledBack, ..RolloutState::default() };
    rig.put(&Key::State(ControllerName::Deployment, StateSubject::Uid(uid)), &state);
    assert_eq!(applied(&mut rig, WEB).results[0].outcome, ApplyOutcome::Unchanged);
    let retry = ApplyOptions { retry: true, ..ApplyOptions::default() };
    let again = try_apply(&rig, WEB, &retry).expect("admitted");
    assert_eq!(
        (after(&again).metadata.generation, after(&again).metadata.version),
        (Generation(2), Version(2))
    );
}

#[test]
fn a_body_of_a_newer_version_is_never_overwritten() {
    let mut rig = Rig::new();
    let key = Key::Object(web());
    let change = crate::fleet::Change {
        key: &key,
        revision: Revision(90),
        at: crate::status::rig::NOW,
        value: Some(b"garbage"),
    };
    rig.fleet.apply(&change);
    assert_eq!(findings(&rig, WEB)[0].code, FindingCode::NotSupported);
}

#[test]
fn writes_after_a_deletion_are_guarded_on_its_marker() {
    let mut rig = Rig::new();
    applied(&mut rig, WEB);
    rig.delete(&Key::Object(web()));
    let marker = rig.fleet.revision_of(&Key::Object(web()));
    let done = applied(&mut rig, WEB);
    let write = done.decision.writes.iter().find(|w| matches!(w.act, Act::Object(_))).expect("a write");
    assert_eq!(write.expect, marker);
    assert_eq!(done.results[0].outcome, ApplyOutcome::Created);
}
