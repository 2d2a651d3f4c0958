use ostler_schemas::Kind;
use ostler_schemas::quantity::CountOrPercent;
use ostler_schemas::spec::{OnFailure, RollingUpdate, Spec};

use super::*;
use crate::status::rig;
use crate::testing::{Look, World};

mod random;

/// Three nodes and a Deployment of `replicas` that has come up.
fn up(replicas: u32) -> (World, Uid) {
    let mut world = World::new();
    for name in ["n1", "n2", "n3"] {
        world.add_node(name);
    }
    let uid = world.deployment("web", rig::deployment_spec(replicas, "v1"));
    world.settle(100);
    (world, uid)
}

fn state(world: &World, uid: Uid) -> RolloutState {
    world.state(ControllerName::Deployment, uid)
}

fn set_word(world: &mut World, word: &str) {
    let template = rig::template(word);
    world.edit_deployment("web", |spec| spec.template.spec = template);
}

fn bounds(world: &mut World, surge: u32, unavailable: u32) {
    world.edit_deployment("web", |spec| {
        spec.strategy.rolling_update = Some(RollingUpdate {
            max_surge: CountOrPercent::Count(surge),
            max_unavailable: CountOrPercent::Count(unavailable),
        });
    });
}

#[test]
fn a_new_deployment_comes_up_and_its_version_is_good_after_the_bake() {
    let (world, uid) = up(3);
    assert_eq!((world.running(uid).len(), world.ready(uid)), (3, 3));
    let state = state(&world, uid);
    assert_eq!(
        (state.phase, state.target, state.last_good),
        (RolloutPhase::Complete, Version(1), Version(1))
    );
    let told: Vec<Reason> = [Reason::RolloutStarted, Reason::WaveHealthy, Reason::RolloutComplete].into();
    assert!(told.iter().all(|reason| world.was_told(*reason) == 1), "{:?}", world.told);
    for (_, records) in world.running(uid) {
        let name = records.spec.expect("a spec").name.to_string();
        let parts: Vec<&str> = name.split('-').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("web", 5, 5), "{name}");
    }
}

#[test]
fn a_new_version_replaces_the_old_within_the_bounds() {
    let (mut world, uid) = up(3);
    set_word(&mut world, "v2");
    let old: Vec<Uid> = world.running(uid).into_iter().map(|(u, _)| u).collect();
    world.settle(200);
    assert_eq!(world.ready(uid), 3);
    assert!(world.running(uid).iter().all(|(u, _)| !old.contains(u)));
    let state = state(&world, uid);
    assert_eq!((state.current, state.target, state.last_good), (Version(1), Version(2), Version(2)));
    assert!(world.fleet.processes.len() == 3, "garbage took the old records");
}

#[test]
fn a_change_that_needs_no_restart_keeps_the_processes() {
    let (mut world, uid) = up(3);
    let before: Vec<Uid> = world.running(uid).into_iter().map(|(u, _)| u).collect();
    world.edit_deployment("web", |spec| spec.template.spec.limit_nofile = "1024".parse().expect("a limit"));
    world.settle(100);
    let after: Vec<Uid> = world.running(uid).into_iter().map(|(u, _)| u).collect();
    assert_eq!(before, after);
    assert_eq!(state(&world, uid).last_good, Version(2));
}

#[test]
fn a_selector_that_the_node_does_not_meet_moves_the_process() {
    let (mut world, uid) = up(2);
    let n3 = rig::object(Kind::Node, "n3");
    world.edit_object(&n3, |o| drop(o.metadata.labels.insert("disk".to_owned(), "fast".to_owned())));
    let labels = [("disk".to_owned(), "fast".to_owned())];
    world.edit_deployment("web", |spec| spec.template.spec.node_selector = labels.into());
    world.settle(200);
    let nodes: Vec<String> =
        world.running(uid).iter().filter_map(|(_, p)| p.node().map(ToString::to_string)).collect();
    assert_eq!(nodes, ["n3", "n3"]);
}

#[test]
fn a_limit_that_the_host_cannot_enforce_moves_the_process() {
    let (mut world, uid) = up(2);
    for (name, agent) in &mut world.agents {
        let limits: &[&str] = if name == "n3" { &["runtime", "cgroup.pids"] } else { &["runtime"] };
        agent.features = limits.iter().map(|feature| (*feature).to_owned()).collect();
    }
    world.settle(50);
    world.edit_deployment("web", |spec| spec.template.spec.tasks_max = 100);
    world.settle(200);
    let running = world.running(uid);
    let nodes: Vec<String> = running.iter().filter_map(|(_, p)| p.node().map(ToString::to_string)).collect();
    assert_eq!(nodes, ["n3", "n3"]);
    // There it can be had in place from then on.
    world.edit_deployment("web", |spec| spec.template.spec.tasks_max = 200);
    world.settle(200);
    let uids = |processes: Vec<(Uid, _)>| processes.into_iter().map(|(u, _)| u).collect::<Vec<_>>();
    assert_eq!(uids(world.running(uid)), uids(running));
}

#[test]
fn a_version_that_fails_is_rolled_back_and_not_tried_again() {
    let (mut world, uid) = up(3);
    set_word(&mut world, "bad");
    world.settle(300);
    let now = state(&world, uid);
    assert_eq!((now.phase, now.target, now.failed), (RolloutPhase::RolledBack, Version(1), Version(2)));
    assert_eq!(world.ready(uid), 3);
    assert_eq!((world.was_told(Reason::WaveFailed), world.was_told(Reason::RolledBack)), (1, 1));
    // Other fields do not bring it back.
    world.edit_deployment("web", |spec| spec.replicas = 4);
    world.settle(100);
    assert_eq!((world.ready(uid), state(&world, uid).target), (4, Version(1)));
    // A newer version does roll out.
    set_word(&mut world, "v3");
    world.settle(300);
    assert_eq!((state(&world, uid).last_good, world.ready(uid)), (Version(3), 4));
}

#[test]
fn an_exit_while_baking_is_a_failure() {
    let (mut world, uid) = up(2);
    set_word(&mut world, "crash");
    world.settle(300);
    let now = state(&world, uid);
    assert_eq!((now.phase, now.target, now.failed), (RolloutPhase::RolledBack, Version(1), Version(2)));
}

#[test]
fn a_version_that_never_gets_ready_fails_at_the_deadline() {
    let (mut world, uid) = up(2);
    set_word(&mut world, "slow");
    for _ in 0..590 {
        world.tick();
    }
    assert_eq!(state(&world, uid).phase, RolloutPhase::Progressing);
    world.settle(300);
    assert_eq!((state(&world, uid).phase, world.ready(uid)), (RolloutPhase::RolledBack, 2));
    assert_eq!(world.was_told(Reason::ProgressDeadline), 1);
}

#[test]
fn the_first_version_has_nothing_to_go_back_to_and_may_come_right() {
    let mut world = World::new();
    world.add_node("n1");
    let uid = world.deployment("web", rig::deployment_spec(2, "bad"));
    world.settle(200);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Failed);
    assert_eq!(state(&world, uid).failed, Version(1));
    set_word(&mut world, "v2");
    world.settle(200);
    assert_eq!((state(&world, uid).phase, world.ready(uid)), (RolloutPhase::Complete, 2));
}

#[test]
fn pause_leaves_the_mixture_and_what_is_missing_is_made_from_the_good_version() {
    let (mut world, uid) = up(3);
    world.edit_deployment("web", |spec| spec.rollout.on_failure = OnFailure::Pause);
    set_word(&mut world, "bad");
    world.settle(300);
    assert_eq!((state(&world, uid).phase, state(&world, uid).target), (RolloutPhase::Paused, Version(2)));
    assert_eq!(world.running(uid).len(), 3);
    let lost = world.running(uid).iter().find_map(|(_, p)| p.node().cloned()).expect("a node");
    world.lose(lost.as_str());
    world.settle(300);
    let running = world.running(uid);
    assert_eq!(running.len(), 3);
    assert!(world.ready(uid) >= 2, "replacements are of the good version");
}

#[test]
fn recreate_ends_all_before_it_begins() {
    let (mut world, uid) = up(3);
    world.edit_deployment("web", |spec| {
        spec.strategy.kind = StrategyType::Recreate;
        spec.strategy.rolling_update = None;
    });
    set_word(&mut world, "v2");
    let mut most = 0;
    for _ in 0..40 {
        world.tick();
        let alive: usize = world.agents.values().map(crate::testing::agent::Agent::alive).sum();
        most = most.max(alive);
    }
    world.settle(200);
    assert_eq!((world.ready(uid), most), (3, 3), "old and new never lived at one time");
}

#[test]
fn what_a_lost_node_ran_is_replaced_at_once() {
    let (mut world, uid) = up(3);
    world.lose("n2");
    for look in
        [Look::Node("n2".to_owned()), Look::Node("n2".to_owned()), Look::Deployment(uid), Look::Scheduler]
    {
        world.look(&look);
    }
    let placed =
        world.running(uid).iter().filter(|(_, p)| p.node().is_some_and(|n| n.as_str() != "n2")).count();
    assert_eq!(placed, 3);
    world.settle(200);
    world.bring_back("n2");
    world.settle(200);
    assert_eq!(world.ready(uid), 3);
    let alive: usize = world.agents.values().map(crate::testing::agent::Agent::alive).sum();
    assert_eq!(alive, 3, "the returned node ended what had been replaced");
}

#[test]
fn scaling_to_nothing_and_deletion_leave_nothing() {
    let (mut world, uid) = up(3);
    world.edit_deployment("web", |spec| spec.replicas = 0);
    world.settle(100);
    assert_eq!(world.fleet.processes.len(), 0);
    world.edit_deployment("web", |spec| spec.replicas = 2);
    world.settle(100);
    assert_eq!((world.ready(uid), state(&world, uid).phase), (2, RolloutPhase::Complete));
    world.ask_deletion(&rig::object(Kind::Deployment, "web"));
    world.settle(100);
    assert_eq!(world.fleet.processes.len(), 0);
    assert!(world.fleet.object_by_uid(&uid).is_none());
    assert!(world.fleet.rollouts.is_empty(), "garbage took the state");
}

#[test]
fn a_surge_that_finds_no_room_does_not_stop_a_rollout_that_may_go_without() {
    let mut world = World::new();
    for name in ["n1", "n2", "n3"] {
        world.add_node(name);
    }
    let fixed = ostler_schemas::spec::Port {
        name: "http".to_owned(),
        port: 8080,
        protocol: ostler_schemas::spec::Protocol::Tcp,
    };
    let mut spec = rig::deployment_spec(3, "v1");
    spec.template.spec.ports = vec![fixed.clone()];
    let uid = world.deployment("web", spec);
    bounds(&mut world, 1, 1);
    world.settle(100);
    let mut next = rig::template("v2");
    next.ports = vec![fixed];
    world.edit_deployment("web", |spec| spec.template.spec = next);
    world.settle(300);
    assert_eq!((world.ready(uid), state(&world, uid).last_good), (3, Version(2)));
}

#[test]
fn two_plans_of_one_snapshot_do_not_both_make_processes() {
    let (mut world, uid) = up(2);
    world.edit_deployment("web", |spec| spec.replicas = 4);
    let snapshot = world.fleet.clone();
    let first = world.plan_on(&snapshot, &Look::Deployment(uid));
    let second = world.plan_on(&snapshot, &Look::Deployment(uid));
    assert!(world.commit(&first));
    assert!(!world.commit(&second), "the state's guard holds it back");
    assert_eq!(world.running(uid).len(), 4);
}

#[test]
fn a_large_deployment_is_made_in_parts() {
    let mut world = World::new();
    world.add_node("n1");
    let uid = world.deployment("web", rig::deployment_spec(500, "v1"));
    let plan = world.plan(&Look::Deployment(uid));
    assert!(plan.steps.len() <= STEPS + 1 && plan.wake_in_ms == Some(0), "{}", plan.steps.len());
    while world.look(&Look::Deployment(uid)) {}
    assert_eq!(world.running(uid).len(), 500);
}

#[test]
fn a_failed_process_is_replaced_but_not_in_a_hot_loop() {
    let (mut world, uid) = up(1);
    world.edit_deployment("web", |spec| spec.template.spec.start_limit_action = LimitAction::Replace);
    world.settle(100);
    let (process, _) = world.running(uid)[0].clone();
    let node = world.fleet.processes[&process].node().cloned().expect("bound");
    let mut report = ostler_schemas::v1::report::Report::clone(&world.fleet.reports[&node].value);
    report.processes[0].phase = ProcessPhase::Failed;
    report.processes[0].ready = false;
    world.put(&Key::Report(node), &report);
    assert!(world.look(&Look::Deployment(uid)));
    assert_ne!(world.running(uid)[0].0, process);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Complete, "no rollout is under way, so none fails");
}

#[test]
fn lost_reports_end_nothing() {
    let (mut world, uid) = up(3);
    set_word(&mut world, "v2");
    world.fleet.reset(ostler_schemas::Bucket::Observed);
    world.look(&Look::Deployment(uid));
    assert_eq!(world.running(uid).iter().filter(|(_, p)| p.node().is_some()).count(), 3);
    assert_eq!(world.running(uid).len(), 4, "only the surge was made");
}

#[test]
fn the_keys_that_matter_lead_to_the_deployment() {
    let (world, uid) = up(1);
    let (process, records) = world.running(uid)[0].clone();
    let node = records.node().cloned().expect("bound");
    let keys = [
        Key::Object(rig::object(Kind::Deployment, "web")),
        Key::ProcessGoal(process),
        Key::Report(node.clone()),
        Key::NodeDocument(node, ostler_schemas::DocumentKind::Run),
        Key::State(ControllerName::Deployment, StateSubject::Uid(uid)),
    ];
    for key in keys {
        assert_eq!(affected(&world.fleet, &key), [uid], "{key}");
    }
    assert!(affected(&world.fleet, &Key::MetaIncarnation).is_empty());
}
