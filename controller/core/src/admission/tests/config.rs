//! `config`.

use std::collections::BTreeMap;

use ostler_schemas::key::StateSubject;
use ostler_schemas::manifest::FindingCode;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::api::{ApiError, ApiErrorCode, ConfigPush, ConfigReply, content_ref};
use ostler_schemas::v1::state::{RolloutPhase, RolloutState};
use ostler_schemas::{ControllerName, Key, Kind, ObjectRef, Version};
use serde_bytes::ByteBuf;

use super::super::{Act, Verdict, content, history, push, rollback};
use super::{by, commit, ids, world};
use crate::status::Lens;
use crate::status::rig::{NOW, Rig, object};

fn app() -> ObjectRef {
    object(Kind::ConfigFile, "app")
}

fn push_of(text: &str) -> ConfigPush {
    ConfigPush {
        inline: Some(ByteBuf::from(text.as_bytes())),
        content: content_ref(text.as_bytes()),
        is_template: false,
        path: Some("/etc/app.conf".to_owned()),
        node_selector: None,
        bake: None,
        waves: None,
        if_version: None,
        retry: false,
        reason: None,
    }
}

fn try_push(rig: &Rig, request: &ConfigPush) -> Result<Verdict<ConfigReply>, ApiError> {
    push(&world(rig, &by()), &app(), request, &mut ids())
}

/// (version, before, changed, created)
fn pushed(rig: &mut Rig, request: &ConfigPush) -> (u64, u64, bool, bool) {
    let verdict = try_push(rig, request).expect("admitted");
    commit(rig, &verdict.decision);
    told(&verdict)
}

fn told(verdict: &Verdict<ConfigReply>) -> (u64, u64, bool, bool) {
    match &verdict.reply {
        ConfigReply::Changed { version, before, changed, created, .. } => {
            (version.0, before.0, *changed, *created)
        }
        other => panic!("{other:?}"),
    }
}

fn made() -> Rig {
    let mut rig = Rig::new();
    let first = ConfigPush { node_selector: Some(BTreeMap::new()), ..push_of("a\n") };
    assert_eq!(pushed(&mut rig, &first), (1, 0, true, true));
    rig
}

#[test]
fn a_push_makes_the_object_or_a_version() {
    let empty = Rig::new();
    let missing = try_push(&empty, &push_of("a\n")).expect_err("refused");
    assert_eq!(missing.code, ApiErrorCode::NotFound);
    assert_eq!(missing.hint.as_deref(), Some("to make it give --path, and -l LABELS or --all-nodes"));
    let mut rig = made();
    assert_eq!(rig.fleet.objects[&app()].value.metadata.applied.verb, "config push");
    assert_eq!(pushed(&mut rig, &push_of("a\n")), (1, 1, false, false));
    assert_eq!(pushed(&mut rig, &push_of("b\n")), (2, 1, true, false));
    assert!(rig.fleet.objects[&app()].value.metadata.touched.contains_key("spec.content"));
}

#[test]
fn a_bad_path_is_refused_in_the_words_of_manifests() {
    let request =
        ConfigPush { node_selector: Some(BTreeMap::new()), path: Some("/proc/x".to_owned()), ..push_of("a") };
    let refused = try_push(&Rig::new(), &request).expect_err("refused");
    assert_eq!((refused.code, refused.findings[0].field.as_str()), (ApiErrorCode::Refused, "spec.path"));
}

#[test]
fn a_push_says_what_it_will_not_do() {
    let rig = made();
    let code = |request: &ConfigPush| {
        let error = try_push(&rig, request).expect_err("refused");
        (error.code, error.findings.first().map(|f| f.code))
    };
    let other_path = ConfigPush { path: Some("/etc/b".to_owned()), ..push_of("b") };
    assert_eq!(code(&other_path), (ApiErrorCode::Refused, Some(FindingCode::Immutable)));
    let other_nodes =
        ConfigPush { node_selector: Some([("a".to_owned(), "b".to_owned())].into()), ..push_of("b") };
    assert_eq!(code(&other_nodes), (ApiErrorCode::Refused, Some(FindingCode::Conflicting)));
    assert_eq!(
        code(&ConfigPush { if_version: Some(Version(8)), ..push_of("b") }),
        (ApiErrorCode::Conflict, None)
    );
    assert_eq!(
        code(&ConfigPush { content: content_ref(b"c"), ..push_of("b") }),
        (ApiErrorCode::Invalid, None)
    );
    let mut huge = push_of("b");
    huge.content.size = 9 << 20;
    assert_eq!(code(&huge), (ApiErrorCode::Refused, Some(FindingCode::TooLarge)));
}

#[test]
fn a_bake_holds_for_its_push_alone() {
    let rig = made();
    let bake = Some("1m".parse().expect("a duration"));
    let verdict = try_push(&rig, &ConfigPush { bake, ..push_of("b") }).expect("admitted");
    for write in &verdict.decision.writes {
        let (spec, expected) = match &write.act {
            Act::Object(object) => (&object.spec, "10s"),
            Act::SpecRevision(revision) => (&revision.spec, "1m"),
            other => panic!("{other:?}"),
        };
        let Spec::ConfigFile(spec) = spec else { panic!("{spec:?}") };
        assert_eq!(spec.rollout.bake.to_string(), expected);
    }
}

#[test]
fn a_rollback_is_a_new_version_with_old_content() {
    let mut rig = made();
    pushed(&mut rig, &push_of("b\n"));
    pushed(&mut rig, &push_of("c\n"));
    let back = |rig: &Rig, to: Option<u64>| rollback(&world(rig, &by()), &app(), to.map(Version), None);
    let verdict = back(&rig, None).expect("goes back");
    assert_eq!(told(&verdict), (4, 3, true, false));
    commit(&mut rig, &verdict.decision);
    assert_eq!(content(&rig.fleet, &app(), (None, None)).expect("content").content, content_ref(b"b\n"));
    let verdict = back(&rig, Some(1)).expect("goes back");
    commit(&mut rig, &verdict.decision);
    assert_eq!(content(&rig.fleet, &app(), (None, None)).expect("content").content, content_ref(b"a\n"));
    let missing = back(&rig, Some(9)).expect_err("refused");
    assert_eq!(missing.code, ApiErrorCode::NotFound);
    assert_eq!(missing.message, "configfile/app has no version 9; kept are: 1, 2, 3, 4, 5");

    let uid = rig.fleet.objects[&app()].value.metadata.uid;
    let state = RolloutState {
        last_good: Version(3),
        target: Version(5),
        phase: RolloutPhase::Failed,
        ..RolloutState::default()
    };
    rig.put(&Key::State(ControllerName::ConfigFile, StateSubject::Uid(uid)), &state);
    let verdict = back(&rig, None).expect("goes back");
    commit(&mut rig, &verdict.decision);
    assert_eq!(
        content(&rig.fleet, &app(), (None, None)).expect("content").content,
        content_ref(b"c\n"),
        "the last good one"
    );
}

#[test]
fn there_is_nothing_to_go_back_to_from_the_first_version() {
    let error = rollback(&world(&made(), &by()), &app(), None, None).expect_err("refused");
    assert_eq!(error.message, "configfile/app has no version before 1 to go back to");
}

#[test]
fn the_history_tells_versions_newest_first() {
    let mut rig = made();
    pushed(&mut rig, &push_of("b\n"));
    pushed(&mut rig, &push_of("c\n"));
    let uid = rig.fleet.objects[&app()].value.metadata.uid;
    let state = RolloutState {
        target: Version(2),
        last_good: Version(2),
        failed: Version(3),
        phase: RolloutPhase::RolledBack,
        ..RolloutState::default()
    };
    rig.put(&Key::State(ControllerName::ConfigFile, StateSubject::Uid(uid)), &state);
    let lens = Lens::new(&rig.fleet, &rig.signals, NOW);
    let versions = history(&lens, &rig.fleet, &app()).expect("a history");
    let shown: Vec<(u64, &str)> = versions.iter().map(|v| (v.version.0, v.state.as_str())).collect();
    assert_eq!(shown, [(3, "RolledBack"), (2, "Held"), (1, "Superseded")]);
    assert_eq!(versions[2].content, Some(content_ref(b"a\n")));
    assert_eq!(
        content(&rig.fleet, &app(), (Some(Version(1)), None)).expect("content").content,
        content_ref(b"a\n")
    );
    assert!(content(&rig.fleet, &app(), (Some(Version(9)), None)).is_err());
}
