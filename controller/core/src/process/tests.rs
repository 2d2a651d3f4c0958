use ostler_schemas::spec::ProcessSpec;
use ostler_schemas::v1::report::ProcessPhase;

use super::*;
use crate::status::rig;
use crate::testing::{Look, World};

fn name() -> ObjectRef {
    rig::object(Kind::Process, "tool")
}

fn put(world: &mut World, word: &str) -> Uid {
    let uid = rig::uid(77);
    world.apply(name(), uid, Spec::Process(Box::new(ProcessSpec(rig::template(word)))));
    uid
}

fn up(word: &str) -> (World, Uid) {
    let mut world = World::new();
    for node in ["n1", "n2", "n3"] {
        world.add_node(node);
    }
    let uid = put(&mut world, word);
    world.settle(60);
    (world, uid)
}

#[test]
fn a_process_is_made_under_the_uid_and_name_of_its_object() {
    let (world, uid) = up("x");
    let spec = world.fleet.processes[&uid].spec.clone().expect("a spec");
    assert_eq!((spec.name.as_str(), spec.owner.uid), ("tool", uid));
    assert!(world.fleet.process_report(&uid).is_some_and(|r| r.ready));
}

#[test]
fn it_follows_changes_where_it_is() {
    let (mut world, uid) = up("x");
    let node = world.fleet.processes[&uid].node().cloned();
    put(&mut world, "y");
    world.settle(60);
    assert_eq!(world.fleet.processes[&uid].node().cloned(), node);
    let report = world.fleet.process_report(&uid).cloned().expect("reported");
    assert_eq!((report.ready, report.v), (true, ostler_schemas::Version(2)));
}

#[test]
fn a_lost_one_is_not_remade_and_goes_with_its_object() {
    let (mut world, uid) = up("x");
    let node = world.fleet.processes[&uid].node().cloned().expect("bound");
    world.lose(node.as_str());
    world.settle(60);
    assert_eq!(world.fleet.processes[&uid].goal(), Goal::Gone, "its records stay to be seen");
    world.bring_back(node.as_str());
    world.pass_ms(25 * 3_600_000);
    world.settle(60);
    assert_eq!(world.fleet.processes[&uid].goal(), Goal::Gone);
    world.ask_deletion(&name());
    world.settle(60);
    assert!(world.fleet.processes.is_empty() && !world.fleet.objects.contains_key(&name()));
}

#[test]
fn deletion_stops_it_first_and_is_over_when_the_node_says_so() {
    let (mut world, uid) = up("x");
    world.ask_deletion(&name());
    assert!(world.look(&Look::Process(uid)));
    assert_eq!(world.fleet.processes[&uid].goal(), Goal::Stop);
    assert!(!world.look(&Look::Process(uid)), "nothing is known of its end yet");
    world.settle(60);
    assert!(world.fleet.processes.is_empty() && !world.fleet.objects.contains_key(&name()));
}

#[test]
fn what_has_no_node_is_gone_at_once_unless_it_is_bound_meanwhile() {
    let mut world = World::new();
    let uid = put(&mut world, "x");
    world.look(&Look::Process(uid));
    world.ask_deletion(&name());
    let plan = world.plan(&Look::Process(uid));
    let mut other = world.clone();
    assert!(world.commit(&plan));
    assert_eq!(world.fleet.processes[&uid].goal(), Goal::Gone);
    other.add_node("n1");
    assert!(other.look(&Look::Scheduler));
    assert!(!other.commit(&plan), "the scheduler was faster");
    other.settle(60);
    assert!(other.fleet.processes.is_empty());
}

#[test]
fn an_end_counts_only_from_a_node_that_knows_of_the_stop() {
    let (mut world, uid) = up("x");
    let node = world.fleet.processes[&uid].node().cloned().expect("bound");
    let mut early = ostler_schemas::v1::report::Report::clone(&world.fleet.reports[&node].value);
    world.ask_deletion(&name());
    world.look(&Look::Process(uid));
    // The node's word from before: it failed for good, under the old document, from which it may have been restarted.
    early.processes[0].phase = ProcessPhase::Failed;
    world.put(&Key::Report(node.clone()), &early);
    world.look(&Look::Scheduler);
    assert!(!world.look(&Look::Process(uid)));
    early.run.revision = world.fleet.run_documents[&node].revision;
    early.run.epoch = world.fleet.run_documents[&node].epoch;
    world.put(&Key::Report(node), &early);
    assert!(world.look(&Look::Process(uid)));
    assert_eq!(world.fleet.processes[&uid].goal(), Goal::Gone);
}

#[test]
fn records_that_were_there_before_are_not_made_again() {
    let mut world = World::new();
    let uid = put(&mut world, "x");
    world.look(&Look::Process(uid));
    for key in [Key::ProcessSpec(uid), Key::ProcessTemplate(uid)] {
        world.delete(&key);
    }
    assert!(!world.look(&Look::Process(uid)));
}
