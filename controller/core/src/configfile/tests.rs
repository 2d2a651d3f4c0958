use ostler_schemas::ObjectRef;
use ostler_schemas::spec::{OnFailure, OnRemove};
use ostler_schemas::v1::document::FileGoal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::FileState;
use ostler_schemas::v1::state::RolloutPhase;

use super::*;
use crate::status::rig;
use crate::testing::agent::BAD_SIZE;
use crate::testing::{Look, World, content};

mod random;
mod rendered;
mod waves;

fn name(text: &str) -> ObjectRef {
    rig::object(Kind::ConfigFile, text)
}

fn put(world: &mut World, text: &str, edit: impl FnOnce(&mut ConfigFileSpec)) -> Uid {
    let known = world.fleet.objects.get(&name(text)).map(|o| (o.metadata.uid, o.value.spec.clone()));
    let (uid, mut spec) = match known {
        Some((uid, Spec::ConfigFile(spec))) => (uid, *spec),
        Some(_) | None => (Ids::uid(&mut world.ids), rig::file_spec("/etc/app.conf", None)),
    };
    edit(&mut spec);
    world.apply(name(text), uid, Spec::ConfigFile(Box::new(spec)));
    uid
}

fn push(world: &mut World, text: &str, size: u64) -> Uid {
    put(world, text, |spec| spec.content = Some(content(size)))
}

fn nodes(count: usize) -> World {
    let mut world = World::new();
    for n in 1..=count {
        world.add_node(&format!("n{n}"));
    }
    world
}

fn label(world: &mut World, node: &str, key: &str, value: &str) {
    let object = rig::object(Kind::Node, node);
    world.edit_object(&object, |o| drop(o.metadata.labels.insert(key.to_owned(), value.to_owned())));
}

fn state(world: &World, uid: Uid) -> RolloutState {
    world.state(ControllerName::ConfigFile, uid)
}

/// Versions that the nodes' reports show in sync.
fn held(world: &World, uid: Uid) -> Vec<u64> {
    world
        .fleet
        .reports
        .values()
        .filter_map(|r| r.value.file(&uid).filter(|f| f.state == FileState::InSync).map(|f| f.v.0))
        .collect()
}

#[test]
fn without_content_nothing_is_written() {
    let mut world = nodes(2);
    let uid = put(&mut world, "app", |_| {});
    world.settle(60);
    assert!(world.fleet.files_documents.is_empty() && world.fleet.rollouts.is_empty());
    let plan = world.plan(&Look::Config(Subject::File(uid)));
    assert!(plan.why.iter().any(|w| w.contains("NoContent")), "{:?}", plan.why);
    push(&mut world, "app", 1);
    world.settle(60);
    assert_eq!((held(&world, uid), state(&world, uid).last_good), (vec![1, 1], Version(1)));
}

#[test]
fn a_push_reaches_every_selected_node_and_bakes() {
    let mut world = nodes(3);
    let uid = push(&mut world, "app", 1);
    world.settle(60);
    push(&mut world, "app", 2);
    world.settle(60);
    assert_eq!(held(&world, uid), [2, 2, 2]);
    let state = state(&world, uid);
    assert_eq!(
        (state.phase, state.current, state.last_good),
        (RolloutPhase::Complete, Version(1), Version(2))
    );
    assert_eq!(world.was_told(Reason::RolloutComplete), 2);
}

#[test]
fn the_rules_of_one_push_hold_for_its_version_alone() {
    let mut world = nodes(1);
    let uid = push(&mut world, "app", 1);
    world.settle(60);
    push(&mut world, "app", 2);
    let kept = world.fleet.objects[&name("app")].value.metadata.generation;
    let key = Key::SpecRevision(name("app"), uid, kept);
    let mut revision = world.fleet.spec_revisions[&(name("app"), uid, kept)].value.as_ref().clone();
    let Spec::ConfigFile(spec) = &mut revision.spec else { panic!("a ConfigFile") };
    spec.rollout.bake = Dur::from_secs(3600);
    world.put(&key, &revision);
    world.settle(60);
    let shown = |world: &World| match crate::status::view(
        &world.fleet,
        &world.signals,
        world.now().wall,
        &name("app"),
    )
    .expect("a view")
    .status
    {
        ostler_schemas::v1::status::Status::ConfigFile(status) => status.rollout.and_then(|r| r.bake),
        other => panic!("{other:?}"),
    };
    assert_eq!(state(&world, uid).phase, RolloutPhase::Baking, "for the hour that its push asked for");
    assert_eq!(shown(&world).map(|b| b.as_millis()), Some(3_600_000));
    push(&mut world, "app", 3);
    world.settle(60);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Complete, "the object's rules hold again");
    assert_eq!(shown(&world).map(|b| b.as_millis()), Some(10_000));
}

#[test]
fn a_bad_version_goes_back_everywhere_and_is_not_tried_again() {
    let mut world = nodes(3);
    let uid = push(&mut world, "app", 1);
    world.settle(60);
    push(&mut world, "app", BAD_SIZE);
    world.settle(60);
    assert_eq!(held(&world, uid), [1, 1, 1]);
    let now = state(&world, uid);
    assert_eq!((now.phase, now.target, now.failed), (RolloutPhase::RolledBack, Version(1), Version(2)));
    put(&mut world, "app", |spec| spec.on_remove = OnRemove::Delete);
    world.settle(60);
    assert_eq!(held(&world, uid), [1, 1, 1]);
    push(&mut world, "app", 3);
    world.settle(60);
    assert_eq!(held(&world, uid), [3, 3, 3]);
}

#[test]
fn pause_keeps_the_version_for_a_person_to_judge() {
    let mut world = nodes(2);
    let uid = push(&mut world, "app", 1);
    world.settle(60);
    put(&mut world, "app", |spec| {
        spec.rollout.on_failure = OnFailure::Pause;
        spec.content = Some(content(BAD_SIZE));
    });
    world.settle(60);
    assert_eq!((state(&world, uid).phase, state(&world, uid).target), (RolloutPhase::Paused, Version(2)));
}

#[test]
fn offline_nodes_block_nothing_and_take_the_version_that_then_holds() {
    let mut world = nodes(4);
    let uid = push(&mut world, "app", 1);
    world.settle(60);
    world.lose("n4");
    world.settle(60);
    push(&mut world, "app", 2);
    world.settle(60);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Complete);
    world.bring_back("n4");
    world.settle(60);
    assert_eq!(held(&world, uid), [2, 2, 2, 2]);
}

#[test]
fn nothing_completes_on_lost_nodes_alone() {
    let mut world = nodes(1);
    let uid = push(&mut world, "app", 1);
    world.settle(60);
    world.lose("n1");
    world.settle(60);
    push(&mut world, "app", 2);
    world.settle(60);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Progressing);
    world.pass_ms(2 * 600_000);
    world.settle(60);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Progressing, "and none fails for it");
}

#[test]
fn a_file_leaves_by_a_tombstone_that_stays_until_the_node_has_done_it() {
    let mut world = nodes(1);
    label(&mut world, "n1", "role", "web");
    let uid = put(&mut world, "app", |spec| {
        spec.content = Some(content(1));
        spec.on_remove = OnRemove::Restore;
        spec.node_selector = [("role".to_owned(), "web".to_owned())].into();
    });
    world.settle(60);
    label(&mut world, "n1", "role", "db");
    let node = rig::node_name("n1");
    assert!(world.look(&Look::Config(Subject::Node(node.clone()))));
    let entry = world.fleet.files_documents[&node].entries[0].clone();
    assert_eq!((entry.u, entry.g), (uid, FileGoal::Release));
    assert!(!world.look(&Look::Config(Subject::Node(node.clone()))), "not before the node has said so");
    world.settle(60);
    assert!(world.fleet.files_documents[&node].entries.is_empty());
    label(&mut world, "n1", "role", "web");
    world.settle(60);
    assert_eq!(held(&world, uid), [1], "and it comes back");
}

#[test]
fn deletion_releases_everywhere_before_the_object_goes() {
    let mut world = nodes(3);
    let uid = push(&mut world, "app", 1);
    world.settle(60);
    world.ask_deletion(&name("app"));
    world.settle(60);
    assert!(world.fleet.object_by_uid(&uid).is_none() && world.fleet.rollouts.is_empty());
    assert!(world.fleet.files_documents.values().all(|d| d.entries.is_empty()));
}

#[test]
fn a_deletion_that_waits_says_for_which_nodes_and_why() {
    let mut world = nodes(3);
    push(&mut world, "app", 1);
    world.settle(60);
    world.lose("n2");
    world.settle(60);
    world.ask_deletion(&name("app"));
    world.settle(60);
    let view = crate::status::view(&world.fleet, &world.signals, world.now().wall, &name("app"));
    let Some(ostler_schemas::v1::status::Status::ConfigFile(status)) = view.map(|v| v.status) else {
        panic!("still there")
    };
    let said = status.conditions.iter().find(|c| c.kind == "Deleting").expect("the condition");
    assert!(said.message.starts_with("waits for 1 node: n2 (Lost); "), "{}", said.message);
    assert_eq!(said.reason, "WaitsForNodes");
    world.bring_back("n2");
    world.settle(60);
    assert!(!world.fleet.objects.contains_key(&name("app")));
}

#[test]
fn of_two_with_one_path_the_older_keeps_it_and_the_other_never_undoes_it() {
    let mut world = nodes(2);
    label(&mut world, "n1", "role", "web");
    let old = put(&mut world, "old", |spec| {
        spec.content = Some(content(1));
        spec.node_selector = [("role".to_owned(), "web".to_owned())].into();
    });
    world.pass_ms(10);
    let young = put(&mut world, "young", |spec| {
        spec.content = Some(content(2));
        spec.on_remove = OnRemove::Delete;
    });
    world.settle(60);
    assert_eq!((held(&world, old), held(&world, young)), (vec![1], vec![1]));
    assert_eq!(nodes_of(&world.fleet, &world.fleet.objects[&name("young")]), [rig::node_name("n2")]);
    assert_eq!(
        state(&world, young).phase,
        RolloutPhase::Complete,
        "what it may not hold does not hold it up"
    );
    // Labels make the older one come to a node where the younger one is.
    label(&mut world, "n2", "role", "web");
    let node = rig::node_name("n2");
    assert!(world.look(&Look::Config(Subject::Node(node.clone()))));
    assert!(world.was_told(Reason::PathConflict) >= 1);
    let tombstone = world.fleet.files_documents[&node].entries.iter().find(|e| e.u == young).cloned();
    let tombstone = tombstone.expect("a tombstone");
    let StoredTemplate::File(file) = world.fleet.templates[&tombstone.d].clone() else {
        panic!("a file spec")
    };
    assert_eq!(
        (tombstone.g, file.on_remove),
        (FileGoal::Release, OnRemove::Keep),
        "the path is the other's by now"
    );
    world.settle(60);
    assert_eq!((held(&world, old), held(&world, young)), (vec![1, 1], vec![]));
}

#[test]
fn what_cannot_be_explained_stays() {
    let mut world = nodes(1);
    let uid = push(&mut world, "app", 1);
    world.settle(60);
    world.delete(&Key::Object(name("app")));
    let node = rig::node_name("n1");
    assert!(!world.look(&Look::Config(Subject::Node(node.clone()))));
    assert_eq!(world.fleet.files_documents[&node].entries[0].u, uid);
}

#[test]
fn a_raised_incarnation_rewrites_documents_as_they_are() {
    let mut world = nodes(1);
    push(&mut world, "app", 1);
    world.settle(60);
    world.put(&Key::MetaIncarnation, &ostler_schemas::v1::epoch::Incarnation { n: 2 });
    let node = rig::node_name("n1");
    let plan = world.plan(&Look::Config(Subject::Node(node)));
    assert_eq!(plan.steps.len(), 1);
    assert!(affected(&world.fleet, &Key::MetaIncarnation).len() == 1);
}

#[test]
fn a_full_document_takes_no_more_and_says_so() {
    let mut world = nodes(1);
    for n in 0..2200_u64 {
        let uid = Ids::uid(&mut world.ids);
        let mut spec = rig::file_spec(&format!("/etc/many/{n}"), Some(content(n % 900)));
        spec.rollout.bake = Dur::from_secs(0);
        world.apply(name(&format!("f{n}")), uid, Spec::ConfigFile(Box::new(spec)));
        world.look(&Look::Config(Subject::File(uid)));
    }
    let node = rig::node_name("n1");
    assert!(world.look(&Look::Config(Subject::Node(node.clone()))));
    let entries = world.fleet.files_documents[&node].entries.len();
    assert!((1000..2200).contains(&entries), "{entries}");
    assert!(world.was_told(Reason::Degraded) >= 1);
    assert!(!world.look(&Look::Config(Subject::Node(node))), "and it does not try forever");
}
