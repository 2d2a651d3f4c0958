//! Named scenarios: one story each, with every checker looking on.

mod actions;
pub(crate) mod control;
mod drift;
mod hosts;
mod pressure;
mod secrets;
mod store;
mod waves;
mod work;

use harness::operator::{Answer, configfile, deployment, object};
use harness::world::{SETTLE_MS, Shape, World};
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::{Kind, NodeName};

/// A small world, in which a story is quickly told.
pub(crate) fn small() -> Shape {
    Shape { hosts: 6, ..Shape::default() }
}

/// Deployment `web` and ConfigFile `app`, running everywhere they should.
pub(crate) async fn deployed(world: &mut World, replicas: u32) {
    world.pass(4_000).await;
    content(world, "one");
    world.operator.apply(&deployment("web", replicas, 1)).await.done();
    world.operator.apply(&configfile("app", "one")).await.done();
    world.settle(SETTLE_MS).await;
    world.assert_unbroken();
}

/// Applies until that is acknowledged: who asks a replica that is cut off gets no answer.
pub(crate) async fn insist(world: &World, manifest: &str) {
    for _ in 0..5 {
        match world.operator.apply(manifest).await {
            Answer::Done(_) => return,
            Answer::Unknown(_) => {}
            Answer::Refused(error) => panic!("refused: {error:?}"),
        }
    }
    panic!("no answer to five requests");
}

/// Lets checkers know of a content of `/etc/app.conf`.
pub(crate) fn content(world: &World, text: &str) {
    world.watch.version("/etc/app.conf", text.as_bytes());
}

/// Everything that lives, and where.
pub(crate) fn living(world: &World) -> Vec<(NodeName, ProcKey)> {
    let of = |m: &harness::machine::Machine| {
        let node = m.node.clone();
        m.host.living().into_iter().map(move |(key, ..)| (node.clone(), key)).collect::<Vec<_>>()
    };
    world.machines.iter().flat_map(of).collect()
}

/// How many processes of Deployment `web` are ready, by what its nodes say, on hosts that have power.
pub(crate) fn ready(world: &World) -> usize {
    let fleet = &world.checks.log.fleet;
    let Some(web) = fleet.objects.get(&object(Kind::Deployment, "web")) else { return 0 };
    let run = fleet.processes_of(&web.metadata.uid).filter(|(_, r)| r.goal() == Goal::Run);
    let powered = |node: &NodeName| world.machines.iter().any(|m| m.node == *node && m.powered);
    run.filter(|(uid, r)| {
        r.node().is_some_and(powered) && fleet.process_report(uid).is_some_and(|report| report.ready)
    })
    .count()
}

/// The replicas that Deployment `web` asks for.
pub(crate) fn wanted(world: &World) -> Option<u32> {
    let web = world.checks.log.fleet.objects.get(&object(Kind::Deployment, "web"))?;
    match &web.spec {
        Spec::Deployment(spec) => Some(spec.replicas),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::ConfigFile(_) | Spec::Secret(_) => None,
    }
}

/// The host with the most processes.
pub(crate) fn busiest(world: &World) -> usize {
    let counts = world.machines.iter().map(|m| m.host.living().len());
    counts.enumerate().max_by_key(|(i, n)| (*n, usize::MAX - i)).map_or(0, |(i, _)| i)
}

/// Peace, and everything as asked.
pub(crate) async fn end_well(world: &mut World) {
    world.heal_everything().await;
    world.settle(SETTLE_MS).await;
    world.final_checks();
    world.assert_unbroken();
}

#[test]
fn a_calm_world_does_as_it_is_asked() {
    World::run(1, Shape::default(), async |world: &mut World| {
        deployed(world, 12).await;
        assert_eq!(ready(world), 12);
        let before = (living(world), world.checks.hosts.starts);
        world.pass(120_000).await;
        assert_eq!(before, (living(world), world.checks.hosts.starts), "nothing moves");
        end_well(world).await;
    });
}
