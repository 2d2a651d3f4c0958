use ostler_schemas::spec::{EnvSource, EnvVar, SecretKeyRef};
use ostler_schemas::v1::process::GoalRecord;
use ostler_schemas::{ControllerName, Revision, Uid};

use super::*;
use crate::plan::Ids as _;
use crate::status::rig;
use crate::testing::{Look, World};

const KEY: PublicKey = PublicKey::from_bytes([1; 32]);

fn secret(text: &str) -> ObjectRef {
    rig::object(Kind::Secret, text)
}

fn put(world: &mut World, text: &str, keys: &[&str]) -> Uid {
    let known = world.fleet.objects.get(&secret(text)).map(|o| o.metadata.uid);
    let uid = known.unwrap_or_else(|| world.ids.uid());
    let value = |key: &&str| {
        let sealed = Sealed { to: KEY, bytes: vec![7] };
        ((*key).to_owned(), SecretValue { size: 1, since: ostler_schemas::Version(1), sealed: Some(sealed) })
    };
    let spec = SecretSpec { immutable: false, values: keys.iter().map(value).collect() };
    world.apply(secret(text), uid, Spec::Secret(Box::new(spec)));
    uid
}

fn node(world: &mut World, name: &str, key: Option<PublicKey>) {
    world.add_node(name);
    if let Some(agent) = world.agents.get_mut(name) {
        agent.key = key;
        agent.features = vec![ostler_schemas::spec::features::SECRETS.to_owned(), "runtime".to_owned()];
    }
    world.agent_acts(name);
}

fn user(world: &mut World, name: &str, of: &[(&str, &str)]) -> Uid {
    let mut spec = rig::deployment_spec(1, "app");
    let var = |(at, (name, key)): (usize, &(&str, &str))| {
        let (name, key) = (name.parse().expect("a name"), (*key).to_owned());
        let source = EnvSource::SecretKeyRef(SecretKeyRef { name, key, optional: false });
        EnvVar { name: format!("V{at}"), value: None, value_from: Some(source) }
    };
    spec.template.spec.env = of.iter().enumerate().map(var).collect();
    world.deployment(name, spec)
}

fn entries(world: &World, node: &str) -> Vec<SecretEntry> {
    world.fleet.secrets_documents.get(&rig::node_name(node)).map(|d| d.entries.clone()).unwrap_or_default()
}

fn given(entry: &SecretEntry) -> String {
    String::from_utf8(entry.sealed.as_ref().expect("is sealed").bytes.clone()).expect("is text")
}

#[test]
fn a_node_is_given_what_its_processes_refer_to_and_no_more() {
    let mut world = World::new();
    node(&mut world, "n1", Some(KEY));
    node(&mut world, "n2", Some(KEY));
    put(&mut world, "db", &["password", "user"]);
    put(&mut world, "other", &["token"]);
    user(&mut world, "web", &[("db", "password"), ("later", "x")]);
    world.settle(120);
    let has = |world: &World| if entries(world, "n1").is_empty() { "n2" } else { "n1" };
    let there = has(&world);
    let found = entries(&world, there);
    assert_eq!(found.iter().map(|e| e.name.as_str().to_owned()).collect::<Vec<_>>(), ["db", "later"]);
    assert_eq!(given(&found[0]), format!("secret/default/db password for {there}"));
    assert_eq!(
        (found[0].keys.clone(), found[1].of, found[1].sealed.clone()),
        (vec!["password".to_owned()], None, None)
    );
    let nowhere = if there == "n1" { "n2" } else { "n1" };
    assert!(entries(&world, nowhere).is_empty());
    put(&mut world, "later", &["x"]);
    world.settle(120);
    assert!(entries(&world, there)[1].sealed.is_some(), "what comes later is given");
    world.ask_deletion(&rig::object(Kind::Deployment, "web"));
    world.settle(120);
    assert!(entries(&world, there).is_empty(), "what nothing refers to leaves");
}

#[test]
fn another_key_of_a_node_and_another_version_are_sealed_anew_and_nothing_else_is() {
    let mut world = World::new();
    node(&mut world, "n1", Some(KEY));
    put(&mut world, "db", &["password"]);
    user(&mut world, "web", &[("db", "password")]);
    world.settle(120);
    let revision = |world: &World| world.fleet.secrets_documents[&rig::node_name("n1")].revision;
    let before = revision(&world);
    world.settle(120);
    assert_eq!(revision(&world), before);
    let fresh = PublicKey::from_bytes([9; 32]);
    if let Some(agent) = world.agents.get_mut("n1") {
        agent.key = Some(fresh);
    }
    world.settle(120);
    assert_eq!(entries(&world, "n1")[0].key(), Some(fresh));
    let report = Key::Report(rig::node_name("n1"));
    assert!(affected(&world.fleet, &report).is_empty(), "a report that says nothing new calls for nothing");
    let version = |world: &World| entries(world, "n1")[0].of.map(|of| of.v.0);
    assert_eq!(version(&world), Some(1));
    world.edit_object(&secret("db"), |o| o.metadata.version = ostler_schemas::Version(2));
    world.settle(120);
    assert_eq!(version(&world), Some(2));
}

#[test]
fn trouble_is_said_once_and_stands_in_the_entry() {
    let mut world = World::new();
    node(&mut world, "n1", None);
    put(&mut world, "db", &["password"]);
    user(&mut world, "web", &[("db", "password")]);
    world.settle(120);
    let entry = entries(&world, "n1").remove(0);
    assert_eq!(entry.trouble.as_deref(), Some("node n1 has not said what to seal secrets to"));
    assert_eq!(world.was_told(Reason::Degraded), 1);
    if let Some(agent) = world.agents.get_mut("n1") {
        agent.key = Some(KEY);
    }
    world.settle(120);
    assert!(entries(&world, "n1")[0].sealed.is_some());
    world.edit_object(&secret("db"), |o| {
        o.metadata.version = ostler_schemas::Version(2);
        if let Spec::Secret(spec) = &mut o.spec {
            spec.values.values_mut().for_each(|value| value.sealed = None);
        }
    });
    world.settle(120);
    assert_eq!(entries(&world, "n1")[0].trouble.as_deref(), Some("it cannot be opened"));
}

#[test]
fn what_is_gone_is_not_given_any_more() {
    let mut world = World::new();
    node(&mut world, "n1", Some(KEY));
    put(&mut world, "db", &["password"]);
    let web = user(&mut world, "web", &[("db", "password")]);
    world.settle(120);
    let uid = world.running(web)[0].0;
    let goal = GoalRecord {
        goal: Goal::Gone,
        reason: ostler_schemas::v1::process::GoalReason::Delete,
        actor: ostler_schemas::Actor::Controller(ControllerName::Node),
        epoch: None,
        at: world.now().wall,
    };
    world.put(&Key::ProcessGoal(uid), &goal);
    assert_eq!(affected(&world.fleet, &Key::ProcessGoal(uid)), [rig::node_name("n1")]);
    let plan = world.plan(&Look::Secret(rig::node_name("n1")));
    assert_eq!(plan.steps.len(), 1);
    assert_ne!(plan.steps[0].expect, None::<Revision>);
}
