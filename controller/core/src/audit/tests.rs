//! Each rule catches a violation that is planted, and finds nothing in a world that is sound.

use ostler_schemas::key::StateSubject;
use ostler_schemas::spec::Spec;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::document::{FileEntry, FileGoal, FilesDocument, RunDocument, RunEntry};
use ostler_schemas::v1::epoch::{Epoch, Token};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::process::{
    BindRecord, GoalReason, GoalRecord, ProcessSpecRecord, ProcessTemplateRecord,
};
use ostler_schemas::v1::state::{RolloutPhase, RolloutState};
use ostler_schemas::{Actor, ControllerName, DocumentKind, Kind, Revision, Version};

use super::*;
use crate::status::rig;
use crate::testing::{World, content};

/// Three nodes, a Deployment of three and a ConfigFile, all as asked; the uids of the two.
fn sound() -> (World, Uid, Uid) {
    let mut world = World::new();
    for node in ["n1", "n2", "n3"] {
        world.add_node(node);
    }
    let web = world.deployment("web", rig::deployment_spec(3, "v1"));
    let app = rig::uid(50);
    let spec = rig::file_spec("/etc/app.conf", Some(content(1)));
    world.apply(rig::object(Kind::ConfigFile, "app"), app, Spec::ConfigFile(Box::new(spec)));
    world.settle(60);
    (world, web, app)
}

fn rules(found: &[Violation]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = found.iter().map(|v| v.rule).collect();
    rules.dedup();
    rules
}

/// What each level of checks finds after `plant`, once.
fn planted(plant: impl FnOnce(&mut World, Uid, Uid)) -> (Vec<Rule>, Vec<Rule>, Vec<Rule>) {
    let (mut world, web, app) = sound();
    let before = world.fleet.clone();
    plant(&mut world, web, app);
    let step = check_step(&before, &world.fleet);
    let texts: Vec<String> = step.iter().map(ToString::to_string).collect();
    assert!(texts.iter().all(|t| t.contains(": ")), "{texts:?}");
    (rules(&check(&world.fleet)), rules(&check_quiet(&world.fleet)), rules(&step))
}

fn first(world: &World, web: Uid) -> (Uid, NodeName) {
    let (uid, records) = world.running(web)[0].clone();
    (uid, records.node().cloned().expect("bound"))
}

fn run_document(world: &World, node: &NodeName) -> RunDocument {
    RunDocument::clone(&world.fleet.run_documents[node].value)
}

fn put_run(world: &mut World, node: &NodeName, document: &RunDocument) {
    world.put(&Key::NodeDocument(node.clone(), DocumentKind::Run), document);
}

fn put_goal(world: &mut World, uid: Uid, goal: Goal, reason: GoalReason) {
    let actor = Actor::Controller(ControllerName::Deployment);
    world.put(&Key::ProcessGoal(uid), &GoalRecord { goal, reason, actor, epoch: None, at: Timestamp(1) });
}

fn put_bind(world: &mut World, uid: Uid, node: &str) {
    let node = rig::node_name(node);
    let bind = BindRecord { node, token: Token::default(), ports: BTreeMap::new(), at: Timestamp(1) };
    world.put(&Key::ProcessBind(uid), &bind);
}

fn edit_files(world: &mut World, edit: impl FnOnce(&mut Vec<FileEntry>)) {
    let node = rig::node_name("n1");
    let mut document = FilesDocument::clone(&world.fleet.files_documents[&node].value);
    edit(&mut document.entries);
    world.put(&Key::NodeDocument(node, DocumentKind::Files), &document);
}

#[test]
fn a_sound_world_is_found_sound() {
    let (always, quiet, step) = planted(|_, _, _| {});
    assert_eq!((always, quiet, step), (vec![], vec![], vec![]));
}

#[test]
fn entries_and_binds_that_do_not_match() {
    let (always, ..) = planted(|world, web, _| {
        let (uid, _) = first(world, web);
        world.delete(&Key::ProcessBind(uid));
    });
    assert_eq!(always, [Rule::EntryWithoutBind]);
    let (always, _, step) = planted(|world, web, _| {
        let (uid, node) = first(world, web);
        let other = ["n1", "n2", "n3"].into_iter().find(|n| *n != node.as_str()).expect("another");
        world.delete(&Key::ProcessBind(uid));
        put_bind(world, uid, other);
    });
    assert_eq!(always, [Rule::EntryOfAnotherNode, Rule::BindWithoutEntry]);
    assert_eq!(step, [Rule::BindMoved]);
    let (always, _, step) = planted(|world, web, _| {
        let (uid, node) = first(world, web);
        let mut document = run_document(world, &node);
        document.entries.retain(|e| e.u != uid);
        put_run(world, &node, &document);
    });
    assert_eq!((always, step), (vec![Rule::BindWithoutEntry], vec![Rule::EntryVanished]));
}

#[test]
fn an_entry_that_stops_what_nobody_stopped() {
    let (always, ..) = planted(|world, web, _| {
        let (_, node) = first(world, web);
        let mut document = run_document(world, &node);
        document.entries[0].g = Goal::Stop;
        put_run(world, &node, &document);
    });
    assert_eq!(always, [Rule::EntryTighterThanGoal]);
}

#[test]
fn a_document_over_its_limit() {
    let (mut world, _, _) = sound();
    let entry = RunEntry {
        u: rig::uid(9),
        o: 0,
        s: "-bcdfg-hjkmn".to_owned(),
        t: 0,
        v: Version(1),
        g: Goal::Gone,
        f: Token::default(),
        p: BTreeMap::new(),
    };
    let document = RunDocument { entries: vec![entry; 4000], ..RunDocument::default() };
    let mut stored = world.fleet.run_documents[&rig::node_name("n1")].clone();
    stored.value = document.into();
    world.fleet.run_documents.insert(rig::node_name("n1"), stored);
    assert!(rules(&check(&world.fleet)).contains(&Rule::DocumentTooLarge));
}

#[test]
fn what_belongs_to_nobody_or_lives_nowhere() {
    let (_, quiet, _) =
        planted(|world, _, _| world.delete(&Key::Object(rig::object(Kind::Deployment, "web"))));
    assert_eq!(quiet, [Rule::Ownerless]);
    let (_, quiet, _) = planted(|world, _, _| put_bind(world, rig::uid(88), "n1"));
    assert!(quiet.contains(&Rule::Ownerless), "records without a spec");
    let (_, quiet, _) = planted(|world, web, _| {
        let (_, node) = first(world, web);
        world.delete(&Key::Object(rig::object(Kind::Node, node.as_str())));
    });
    assert_eq!(quiet, [Rule::UnknownNode]);
}

#[test]
fn a_template_that_is_not_there() {
    let (always, ..) = planted(|world, web, _| {
        let (uid, _) = first(world, web);
        let template = ostler_schemas::hash::sha256(b"nothing");
        world.put(&Key::ProcessTemplate(uid), &ProcessTemplateRecord { template, version: Version(1) });
    });
    assert_eq!(always, [Rule::TemplateMissing]);
    let (always, ..) = planted(|world, _, _| {
        edit_files(world, |entries| entries[0].d = ostler_schemas::hash::sha256(b"nothing"));
    });
    assert_eq!(always, [Rule::TemplateMissing]);
}

#[test]
fn files_that_share_a_path_or_leave_without_a_tombstone() {
    let (always, ..) = planted(|world, _, _| {
        edit_files(world, |entries| {
            let twin = FileEntry { u: rig::uid(51), ..entries[0].clone() };
            entries.push(twin);
        });
    });
    assert_eq!(always, [Rule::PathTwice]);
    let (_, _, step) = planted(|world, _, _| edit_files(world, Vec::clear));
    assert_eq!(step, [Rule::FileVanished]);
    let (.., step) = planted(|world, _, _| edit_files(world, |entries| entries[0].g = FileGoal::Release));
    assert_eq!(step, []);
}

#[test]
fn a_path_that_the_younger_one_holds() {
    let (mut world, _, app) = sound();
    let spec = rig::file_spec("/etc/app.conf", Some(content(2)));
    let young = rig::uid(60);
    world.apply(rig::object(Kind::ConfigFile, "young"), young, Spec::ConfigFile(Box::new(spec)));
    let state = RolloutState { target: Version(1), phase: RolloutPhase::Complete, ..RolloutState::default() };
    world.put(&Key::State(ControllerName::ConfigFile, StateSubject::Uid(young)), &state);
    edit_files(&mut world, |entries| entries.iter_mut().filter(|e| e.u == app).for_each(|e| e.u = young));
    assert_eq!(rules(&check_quiet(&world.fleet)), [Rule::NotTheOlder]);
}

#[test]
fn a_failed_version_that_is_in_force() {
    let (always, ..) = planted(|world, web, _| {
        let state = RolloutState { failed: Version(1), ..world.state(ControllerName::Deployment, web) };
        world.put(&Key::State(ControllerName::Deployment, StateSubject::Uid(web)), &state);
    });
    assert_eq!(always, [Rule::FailedVersionInForce]);
}

#[test]
fn goals_that_loosen_and_records_that_change() {
    let (mut world, web, _) = sound();
    let (uid, _) = first(&world, web);
    put_goal(&mut world, uid, Goal::Stop, GoalReason::Scale);
    let before = world.fleet.clone();
    world.delete(&Key::ProcessGoal(uid));
    assert_eq!(rules(&check_step(&before, &world.fleet)), [Rule::GoalLoosened]);
    let (.., step) = planted(|world, web, _| {
        let (uid, _) = first(world, web);
        for key in [Key::ProcessSpec(uid), Key::ProcessTemplate(uid), Key::ProcessBind(uid)] {
            world.delete(&key);
        }
    });
    assert!(step.contains(&Rule::GoalLoosened), "records went under a process that should run: {step:?}");
    let (.., step) = planted(|world, web, _| {
        let (uid, _) = first(world, web);
        let spec =
            ProcessSpecRecord::clone(&world.fleet.processes[&uid].spec.as_ref().expect("a spec").value);
        world.put(&Key::ProcessSpec(uid), &ProcessSpecRecord { ordinal: Some(1), ..spec });
    });
    assert_eq!(step, [Rule::ImmutableChanged]);
}

#[test]
fn epochs_that_fall_back() {
    for (term, nonce) in [(0, 7), (1, 8)] {
        let (.., step) = planted(|world, web, _| {
            let (_, node) = first(world, web);
            let epoch = Epoch { incarnation: 1, term: Revision(term), nonce };
            let document = RunDocument { epoch, ..run_document(world, &node) };
            put_run(world, &node, &document);
        });
        assert_eq!(step, [Rule::EpochFellBack]);
    }
}

#[test]
fn too_many_and_too_few() {
    let (.., step) = planted(|world, web, _| {
        let known = ProcessSpecRecord::clone(&world.running(web)[0].1.spec.as_ref().expect("a spec").value);
        for n in 70..72 {
            world.put(&Key::ProcessSpec(rig::uid(n)), &known);
        }
    });
    assert_eq!(step, [Rule::TooMany], "three and a surge of one may be");
    let (.., step) = planted(|world, web, _| {
        let (uid, _) = first(world, web);
        put_goal(world, uid, Goal::Stop, GoalReason::Rollout);
    });
    assert_eq!(step, [Rule::TooFewReady], "25 % of three is none");
    let (.., step) = planted(|world, web, _| {
        let (uid, _) = first(world, web);
        put_goal(world, uid, Goal::Stop, GoalReason::Scale);
    });
    assert_eq!(step, []);
}

#[test]
fn a_loss_that_nobody_judged() {
    let (.., step) = planted(|world, web, _| {
        let (uid, _) = first(world, web);
        put_goal(world, uid, Goal::Gone, GoalReason::Lost);
    });
    assert_eq!(step, [Rule::LostWithoutVerdict]);
}

#[test]
fn numbers_that_fall_back() {
    let (.., step) = planted(|world, _, _| {
        world.edit_object(&rig::object(Kind::Deployment, "web"), |o: &mut Object| {
            o.metadata.version = Version(0);
        });
    });
    assert_eq!(step, [Rule::NumberFellBack]);
}
