use ostler_schemas::Actor;
use ostler_schemas::Kind;
use ostler_schemas::spec::Spec;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::v1::process::{BindRecord, GoalReason, GoalRecord};

use super::*;
use crate::fleet::Change;
use crate::status::rig;
use crate::testing::{Look, World};

const HOUR_MS: u64 = 3_600_000;

fn up(replicas: u32) -> (World, Uid) {
    let mut world = World::new();
    for node in ["n1", "n2"] {
        world.add_node(node);
    }
    let uid = world.deployment("web", rig::deployment_spec(replicas, "v1"));
    world.settle(60);
    (world, uid)
}

fn deleted(plan: &Plan) -> BTreeSet<String> {
    plan.steps.iter().map(|s| s.key.to_string()).collect()
}

fn sweep(world: &World) -> Sweep {
    reconcile(&world.fleet, world.now())
}

fn set_goal(world: &mut World, uid: Uid, goal: Goal) {
    let actor = Actor::Controller(ControllerName::Deployment);
    let at = world.now().wall;
    let record = GoalRecord { goal, reason: GoalReason::Scale, actor, epoch: None, at };
    world.put(&Key::ProcessGoal(uid), &record);
}

#[test]
fn records_stay_until_the_node_has_retired_the_process() {
    let (mut world, owner) = up(1);
    let (uid, records) = world.running(owner)[0].clone();
    let node = records.node().expect("bound").to_string();
    let spec_key = Key::ProcessSpec(uid).to_string();
    set_goal(&mut world, uid, Goal::Gone);
    assert!(!deleted(&sweep(&world).plan).contains(&spec_key), "the document has it still");
    world.look(&Look::Scheduler);
    world.agent_acts(&node);
    world.agent_acts(&node);
    world.look(&Look::Scheduler);
    assert!(!deleted(&sweep(&world).plan).contains(&spec_key), "the node speaks of it still");
    world.agent_acts(&node);
    let plan = sweep(&world).plan;
    assert!(deleted(&plan).contains(&spec_key), "{plan:?}");
    assert!(world.commit(&plan));
    assert!(!world.fleet.processes.contains_key(&uid));
}

#[test]
fn what_never_had_a_node_goes_at_once_unless_it_is_bound_meanwhile() {
    let mut world = World::new();
    let owner = world.deployment("web", rig::deployment_spec(1, "v1"));
    world.look(&Look::Deployment(owner));
    let (uid, _) = world.running(owner)[0].clone();
    set_goal(&mut world, uid, Goal::Gone);
    let plan = sweep(&world).plan;
    assert!(deleted(&plan).contains(&Key::ProcessSpec(uid).to_string()));
    world.add_node("n1");
    let at = world.now().wall;
    let bind = BindRecord { node: rig::node_name("n1"), token: Token::default(), ports: BTreeMap::new(), at };
    world.put(&Key::ProcessBind(uid), &bind);
    assert!(!world.commit(&plan));
}

#[test]
fn a_deleted_node_leaves_nothing_behind() {
    let (mut world, owner) = up(2);
    world.agents.remove("n2");
    world.delete(&Key::Object(rig::object(Kind::Node, "n2")));
    world.settle(100);
    let node = rig::node_name("n2");
    assert!(!world.fleet.run_documents.contains_key(&node) && !world.fleet.reports.contains_key(&node));
    assert!(!world.fleet.node_states.contains_key(&node) && !world.fleet.by_node.contains_key(&node));
    assert_eq!(world.ready(owner), 2);
}

#[test]
fn documents_are_not_deleted_when_the_node_comes_back_meanwhile() {
    let (mut world, owner) = up(2);
    world.edit_deployment("web", |spec| spec.replicas = 0);
    world.settle(100);
    let n2 = rig::object(Kind::Node, "n2");
    world.delete(&Key::Object(n2.clone()));
    let plan = sweep(&world).plan;
    let document = Key::NodeDocument(rig::node_name("n2"), DocumentKind::Run).to_string();
    assert!(deleted(&plan).contains(&document), "{plan:?}");
    world.apply(n2, rig::uid(9), Spec::Node(ostler_schemas::spec::NodeSpec::default()));
    assert!(!world.commit(&plan));
    assert_eq!(world.running(owner).len(), 0);
}

#[test]
fn templates_go_an_hour_after_they_were_written_when_nothing_refers_to_them() {
    let (mut world, _) = up(1);
    let template = rig::template("v2");
    world.edit_deployment("web", |spec| spec.template.spec = template);
    world.settle(100);
    let templates = world.fleet.templates.len();
    assert_eq!(templates, 2);
    world.pass_ms(HOUR_MS);
    let plan = sweep(&world).plan;
    assert_eq!(deleted(&plan).iter().filter(|k| k.starts_with("t.")).count(), 1, "the one in use stays");
    assert!(world.commit(&plan));
    assert_eq!(world.fleet.templates.len(), 1);
}

#[test]
fn of_a_collector_and_a_new_reference_to_an_old_template_only_one_gets_through() {
    let (mut world, owner) = up(1);
    world.edit_deployment("web", |spec| spec.replicas = 0);
    world.settle(100);
    world.pass_ms(2 * HOUR_MS);
    world.edit_deployment("web", |spec| spec.replicas = 1);
    let collect = sweep(&world).plan;
    assert!(deleted(&collect).iter().any(|k| k.starts_with("t.")));
    let refer = world.plan(&Look::Deployment(owner));
    let mut other = world.clone();
    assert!(world.commit(&refer) && !world.commit(&collect), "referred to first");
    assert!(other.commit(&collect) && !other.commit(&refer), "collected first");
    other.settle(100);
    assert_eq!(other.ready(owner), 1, "and written anew");
}

#[test]
fn revisions_that_may_be_gone_back_to_stay() {
    let (mut world, _) = up(1);
    let object = rig::object(Kind::Deployment, "web");
    for replicas in 2..40_u32 {
        world.edit_deployment("web", |spec| spec.replicas = replicas % 3 + 1);
    }
    world.settle(200);
    let kept: Vec<u64> =
        world.fleet.spec_revisions.keys().filter(|(o, ..)| *o == object).map(|(.., g)| g.0).collect();
    assert_eq!(kept.len(), REVISIONS_KEPT);
    // Many versions that fail: the good one stays, however old it is.
    for n in 0..15 {
        let template = rig::template(&format!("bad{n}"));
        world.edit_deployment("web", |spec| spec.template.spec = template);
        world.settle(200);
    }
    let versions: BTreeSet<u64> = world
        .fleet
        .spec_revisions
        .iter()
        .filter(|((o, ..), _)| *o == object)
        .map(|(_, r)| r.version.0)
        .collect();
    assert!(versions.contains(&1), "{versions:?}");
    assert!(versions.len() <= REVISIONS_KEPT + 1, "{versions:?}");
}

#[test]
fn revisions_of_a_gone_object_go_after_an_hour() {
    let (mut world, _) = up(1);
    world.ask_deletion(&rig::object(Kind::Deployment, "web"));
    world.settle(100);
    let left = |world: &World| {
        world.fleet.spec_revisions.keys().filter(|(o, ..)| o.kind == Kind::Deployment).count()
    };
    assert_eq!(left(&world), 1, "it may be of an object that is just being made");
    world.pass_ms(HOUR_MS);
    world.settle(100);
    assert_eq!(left(&world), 0);
}

#[test]
fn what_cannot_be_read_counts_as_a_reference_to_everything() {
    let (mut world, owner) = up(1);
    world.edit_deployment("web", |spec| spec.replicas = 0);
    world.settle(100);
    world.pass_ms(2 * HOUR_MS);
    let revision = Revision(world.fleet.revision.0 + 1);
    let garbled = |world: &mut World, key: &Key| {
        let at = Timestamp(rig::NOW.0);
        world.fleet.apply(&Change { key, revision, at, value: Some(b"\xc1") });
    };
    let mut other = world.clone();
    garbled(&mut world, &Key::ProcessTemplate(rig::uid(9)));
    assert!(!deleted(&sweep(&world).plan).iter().any(|k| k.starts_with("t.")));
    garbled(&mut other, &Key::Object(rig::object(Kind::Deployment, "web")));
    let plan = sweep(&other).plan;
    assert!(!deleted(&plan).iter().any(|k| k.starts_with("s.") || k.starts_with("rev.")), "{plan:?}");
    assert!(!other.fleet.by_uid.contains_key(&owner));
}

#[test]
fn markers_are_purged_after_a_day_by_their_revision() {
    let (mut world, _) = up(1);
    world.edit_deployment("web", |spec| spec.replicas = 0);
    world.settle(100);
    assert!(sweep(&world).purges.is_empty() && !world.fleet.markers.is_empty());
    world.pass_ms(MARKER_AGE_MS);
    let purges = sweep(&world).purges;
    assert_eq!(purges.len(), world.fleet.markers.len());
    assert!(purges.iter().all(|(key, revision)| world.fleet.revision_of(key) == Some(*revision)));
}

#[test]
fn a_sweep_is_bounded_and_goes_on() {
    let mut world = World::new();
    let owner = world.deployment("web", rig::deployment_spec(600, "v1"));
    while world.look(&Look::Deployment(owner)) {}
    world.edit_deployment("web", |spec| spec.replicas = 0);
    while world.look(&Look::Deployment(owner)) {}
    let plan = sweep(&world).plan;
    assert!(plan.steps.len() <= STEPS + 4 && plan.wake_in_ms == Some(0), "{}", plan.steps.len());
    let messages = plan.steps.len() + plan.reads.len();
    assert!(messages < crate::lane::BATCH_MESSAGES, "{messages}");
    while world.look(&Look::Garbage) {}
    assert!(world.fleet.processes.is_empty());
}

#[test]
fn reasons_of_what_is_gone_go_too() {
    let mut world = World::new();
    let owner = world.deployment("web", rig::deployment_spec(1, "v1"));
    world.look(&Look::Deployment(owner));
    world.look(&Look::Scheduler);
    let (uid, _) = world.running(owner)[0].clone();
    assert!(world.fleet.pending.contains_key(&uid), "there is no node");
    for key in process_keys(&uid) {
        world.delete(&key);
    }
    assert!(deleted(&sweep(&world).plan).contains(&format!("s.scheduler.{uid}")));
}

#[test]
fn only_what_made_garbage_calls_for_a_sweep() {
    let (mut world, owner) = up(1);
    let (uid, records) = world.running(owner)[0].clone();
    let report = Key::Report(records.node().cloned().expect("bound"));
    let goal = Key::ProcessGoal(uid);
    assert!(!is_affected(&world.fleet, &report) && !is_affected(&world.fleet, &goal));
    set_goal(&mut world, uid, Goal::Gone);
    assert!(is_affected(&world.fleet, &report) && is_affected(&world.fleet, &goal));
    let n2 = Key::Object(rig::object(Kind::Node, "n2"));
    assert!(!is_affected(&world.fleet, &n2));
    world.delete(&n2);
    assert!(is_affected(&world.fleet, &n2) && is_affected(&world.fleet, &Key::Report(rig::node_name("n2"))));
}
