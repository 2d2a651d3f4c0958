//! What nodes are told of a file that is rendered: values by hash, facts of their own.

use ostler_schemas::spec::{FileItem, Override, Unlisted, Var, Vars};
use ostler_schemas::v1::document::FileEntry;

use super::*;
use crate::fleet::StoredTemplate;

fn vars(port: i64) -> Vars {
    Vars::from([("port".to_owned(), Var::Int(port))])
}

fn entry(world: &World, node: &str, uid: Uid) -> FileEntry {
    let document = &world.fleet.files_documents[&rig::node_name(node)];
    document.entries.iter().find(|e| e.u == uid).expect("is asked").clone()
}

#[test]
fn nodes_share_values_and_have_their_own_facts() {
    let mut world = nodes(3);
    label(&mut world, "n1", "rack", "r1");
    let uid = put(&mut world, "app", |spec| {
        spec.template = Some(content(1));
        spec.vars = vars(8080);
        let other = Override { node_selector: None, nodes: vec![rig::node_name("n3")], vars: vars(8081) };
        spec.overrides = vec![other];
    });
    world.settle(60);
    let (one, two, three) = (entry(&world, "n1", uid), entry(&world, "n2", uid), entry(&world, "n3", uid));
    assert!(one.w.is_some() && one.w == two.w && two.w != three.w && one.d == three.d);
    let Some(StoredTemplate::Vars(held)) = world.fleet.templates.get(&three.w.expect("has values")) else {
        panic!("values are stored")
    };
    assert_eq!(held.vars, vars(8081));
    let facts = |world: &World, node: &str| {
        world.fleet.files_documents[&rig::node_name(node)].node.clone().expect("has facts")
    };
    assert_eq!(facts(&world, "n1").labels.get("rack").map(String::as_str), Some("r1"));
    // A label changes what one node is told, and no version.
    label(&mut world, "n1", "rack", "r2");
    world.settle(60);
    assert_eq!(facts(&world, "n1").labels.get("rack").map(String::as_str), Some("r2"));
    assert_eq!(state(&world, uid).target, Version(1));
    // Reports are kept in memory: without one, what is known stays.
    let before = facts(&world, "n2");
    world.delete(&Key::Report(rig::node_name("n2")));
    label(&mut world, "n2", "rack", "r3");
    for look in world.looks() {
        world.look(&look);
    }
    let after = facts(&world, "n2");
    assert_eq!((after.cpu, &after.addresses), (before.cpu, &before.addresses));
    assert_eq!(after.labels.get("rack").map(String::as_str), Some("r3"));
}

#[test]
fn facts_leave_with_the_last_template() {
    let mut world = nodes(1);
    put(&mut world, "app", |spec| spec.template = Some(content(1)));
    world.settle(60);
    let document = |world: &World| world.fleet.files_documents[&rig::node_name("n1")].clone();
    assert!(document(&world).node.is_some());
    put(&mut world, "app", |spec| (spec.template, spec.content) = (None, Some(content(2))));
    world.settle(60);
    assert!(document(&world).node.is_none());
}

#[test]
fn a_path_in_the_folder_of_an_older_file_is_its() {
    let mut world = nodes(1);
    let item = FileItem { name: "a".to_owned(), content: Some(content(1)), template: None, mode: None };
    let older = put(&mut world, "folder", |spec| {
        spec.path = "/etc/app.d".to_owned();
        spec.files = vec![item];
        spec.unlisted = Unlisted::Delete;
    });
    world.pass_ms(1);
    let younger = put(&mut world, "inside", |spec| {
        spec.path = "/etc/app.d/b".to_owned();
        spec.content = Some(content(2));
    });
    world.settle(60);
    let document = &world.fleet.files_documents[&rig::node_name("n1")];
    let told: Vec<Uid> = document.entries.iter().map(|e| e.u).collect();
    assert_eq!(told, [older]);
    assert!(world.was_told(Reason::PathConflict) > 0, "{younger}");
}
