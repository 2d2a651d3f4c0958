//! Whatever verbs follow each other: numbers only rise, every spec is kept, what is repeated changes nothing.

use std::collections::BTreeMap;

use ostler_schemas::manifest::Options;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::api::{
    ApplyOutcome, ConfigPush, DeleteRequest, PutRequest, ScaleRequest, content_ref,
};
use ostler_schemas::{Generation, Key, Kind, ObjectRef, Uid, Version};
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use super::super::{Act, ApplyOptions, Decision, delete, push, put, reap, rollback, scale};
use super::{by, commit, ids, try_apply, world};
use crate::status::rig::{Rig, object};

#[derive(Debug, Clone)]
enum Step {
    Apply { word: u8, replicas: Option<u8>, force: bool },
    File { content: Option<u8>, mode: bool, force: bool },
    Scale(u8),
    Label(u8),
    Push(u8),
    Rollback(Option<u8>),
    Delete(bool),
    Reap,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let small = || 0..3u8;
    let step = prop_oneof![
        (small(), proptest::option::of(small()), any::<bool>())
            .prop_map(|(word, replicas, force)| Step::Apply { word, replicas, force }),
        (proptest::option::of(small()), any::<bool>(), any::<bool>())
            .prop_map(|(content, mode, force)| Step::File { content, mode, force }),
        small().prop_map(Step::Scale),
        small().prop_map(Step::Label),
        small().prop_map(Step::Push),
        proptest::option::of(1..5u8).prop_map(Step::Rollback),
        any::<bool>().prop_map(Step::Delete),
        Just(Step::Reap),
    ];
    proptest::collection::vec(step, 1..24)
}

fn web() -> ObjectRef {
    object(Kind::Deployment, "web")
}

fn app() -> ObjectRef {
    object(Kind::ConfigFile, "app")
}

fn yaml(step: &Step) -> Option<(String, bool)> {
    match step {
        Step::Apply { word, replicas, force } => {
            let replicas = replicas.map(|n| format!("replicas: {n}, ")).unwrap_or_default();
            let spec = format!("{{{replicas}template: {{spec: {{command: [/bin/app, w{word}]}}}}}}");
            Some((
                format!("apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec: {spec}\n"),
                *force,
            ))
        }
        Step::File { content, mode, force } => {
            let content = content.map(|n| format!(", content: \"c{n}\"")).unwrap_or_default();
            let mode = if *mode { "0600" } else { "0644" };
            let spec = format!("{{path: /etc/app, nodeSelector: {{}}, mode: \"{mode}\"{content}}}");
            Some((
                format!("apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: app}}\nspec: {spec}\n"),
                *force,
            ))
        }
        Step::Scale(_)
        | Step::Label(_)
        | Step::Push(_)
        | Step::Rollback(_)
        | Step::Delete(_)
        | Step::Reap => None,
    }
}

/// What a step comes to; nothing if it is refused.
fn decide(rig: &Rig, step: &Step) -> Vec<Decision> {
    if let Some((yaml, force)) = yaml(step) {
        let options = ApplyOptions { force, ..ApplyOptions::default() };
        return try_apply(rig, &yaml, &options).map(|a| a.decision).into_iter().collect();
    }
    let by = by();
    let world = world(rig, &by);
    let decided = match step {
        Step::Scale(n) => {
            let request =
                ScaleRequest { object: web(), replicas: u32::from(*n), if_replicas: None, reason: None };
            scale(&world, &request, &Options::default()).map(|v| v.decision)
        }
        Step::Label(n) => {
            let labels = [("l".to_owned(), Some(format!("v{n}")))].into();
            put(&world, &PutRequest { object: web(), labels, overwrite: true }).map(|v| v.decision)
        }
        Step::Push(n) => {
            let bytes = format!("c{n}").into_bytes();
            let request = ConfigPush {
                content: content_ref(&bytes),
                is_template: false,
                inline: Some(ByteBuf::from(bytes)),
                path: Some("/etc/app".to_owned()),
                node_selector: Some(BTreeMap::new()),
                bake: None,
                waves: None,
                if_version: None,
                retry: false,
                reason: None,
            };
            push(&world, &app(), &request, &mut ids()).map(|v| v.decision)
        }
        Step::Rollback(to) => {
            rollback(&world, &app(), to.map(|n| Version(u64::from(n))), None).map(|v| v.decision)
        }
        Step::Delete(file) => {
            let object = if *file { app() } else { web() };
            delete(&world, &DeleteRequest { object, force: false, reason: None }).map(|v| v.decision)
        }
        Step::Reap | Step::Apply { .. } | Step::File { .. } => return reap(&rig.fleet),
    };
    decided.into_iter().collect()
}

/// Every changed spec is written with its immutable copy, which says the same.
fn spec_is_kept(rig: &Rig, decision: &Decision) {
    for write in &decision.writes {
        let (Key::Object(name), Act::Object(after)) = (&write.key, &write.act) else { continue };
        let before = rig.fleet.objects.get(name);
        if before.is_none_or(|b| b.spec != after.spec) {
            let key = Key::SpecRevision(name.clone(), after.metadata.uid, after.metadata.generation);
            let copy = decision.writes.iter().find(|w| w.key == key).expect("a copy");
            assert!(
                matches!(&copy.act, Act::SpecRevision(r) if r.spec == after.spec && r.version == after.metadata.version)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn numbers_rise_and_repeats_change_nothing(steps in steps()) {
        let mut rig = Rig::new();
        let mut seen: BTreeMap<Uid, (Generation, Version)> = BTreeMap::new();
        for step in &steps {
            for decision in decide(&rig, step) {
                spec_is_kept(&rig, &decision);
                commit(&mut rig, &decision);
            }
            for name in [web(), app()] {
                let Some(stored) = rig.fleet.objects.get(&name) else { continue };
                let metadata = &stored.value.metadata;
                let now = (metadata.generation, metadata.version);
                let before = seen.insert(metadata.uid, now).unwrap_or_default();
                prop_assert!(before.0 <= now.0 && before.1 <= now.1, "{before:?} {now:?} after {step:?}");
                if let Spec::ConfigFile(spec) = &stored.value.spec {
                    prop_assert_eq!(spec.content.is_some(), metadata.version > Version(0));
                }
            }
            if let Some((yaml, _)) = yaml(step) {
                // Refused again, or nothing left to do: never a second change.
                if let Ok(again) = try_apply(&rig, &yaml, &ApplyOptions::default()) {
                    prop_assert!(again.results.iter().all(|r| r.outcome == ApplyOutcome::Unchanged), "{step:?}");
                    prop_assert!(again.decision.is_idle());
                }
            }
        }
    }
}
