//! Hosts that are short of memory, disk or process numbers.

use harness::operator::object;
use harness::world::{Shape, World};
use ostler_agent::sim::Program;
use ostler_schemas::v1::process::{Goal, GoalReason};
use ostler_schemas::{Kind, NodeName, Uid};

use super::{deployed, end_well, living, ready, small};

const GIB: u64 = 1 << 30;
/// What the simulated hosts have.
const HOST: u64 = 16 * GIB;
/// The command that takes more than it asked for.
const GREEDY: &str = "/bin/greedy";

fn greedy() -> String {
    format!(
        "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: greedy}}\nspec:\n  replicas: 1\n  \
         template:\n    spec:\n      command: [{GREEDY}]\n      resources: {{requests: {{memory: 256Mi}}}}\n"
    )
}

/// Every host runs the greedy program with this much memory.
fn takes(world: &World, memory: u64) {
    for machine in &world.machines {
        machine.host.program(GREEDY, Program { memory, ..Program::default() });
    }
}

/// Where the greedy process lives now, and how often its kind was evicted.
fn greedy_one(world: &World) -> (Option<NodeName>, Vec<Uid>) {
    let fleet = &world.checks.log.fleet;
    let Some(owner) = fleet.objects.get(&object(Kind::Deployment, "greedy")) else {
        return (None, Vec::new());
    };
    let all: Vec<_> = fleet.processes_of(&owner.metadata.uid).collect();
    let node = all.iter().find(|(uid, r)| {
        r.goal() == Goal::Run && fleet.process_report(uid).is_some_and(|p| p.phase.may_be_alive())
    });
    let evicted = |r: &ostler_controller_core::fleet::ProcessRecords| {
        r.goal.as_ref().is_some_and(|g| g.reason == GoalReason::Evicted)
    };
    (
        node.and_then(|(_, r)| r.node().cloned()),
        all.iter().filter(|(_, r)| evicted(r)).map(|(uid, _)| **uid).collect(),
    )
}

fn pressed(world: &World, node: &NodeName) -> bool {
    pressed_by(world, node, "MemoryPressure")
}

fn pressed_by(world: &World, node: &NodeName, condition: &str) -> bool {
    let report = world.checks.log.fleet.reports.get(node);
    report.is_some_and(|r| r.conditions.iter().any(|c| c.kind == condition))
}

/// The greedy program runs somewhere; where, and as which of the machines.
async fn greedy_runs(world: &mut World, program: Program) -> (NodeName, usize) {
    for machine in &world.machines {
        machine.host.program(GREEDY, program.clone());
    }
    world.operator.apply(&greedy()).await.done();
    world.until(20_000, |w| greedy_one(w).0.is_some()).await.expect("runs");
    let node = greedy_one(world).0.expect("runs");
    let machine = world.machines.iter().position(|m| m.node == node).expect("a machine");
    (node, machine)
}

/// Disk of a simulated host.
const DISK: u64 = 1024 * GIB;

#[test]
fn a_host_short_of_memory_evicts_exactly_the_greedy_one_and_recovers() {
    World::run(61, small(), async |world: &mut World| {
        deployed(world, 6).await;
        takes(world, 6 * GIB);
        world.operator.apply(&greedy()).await.done();
        world.until(20_000, |w| greedy_one(w).0.is_some()).await.expect("runs");
        let node = greedy_one(world).0.expect("runs");
        let others: Vec<_> = living(world);
        world.tell("work outside Ostler fills the host");
        let machine = world.machines.iter().position(|m| m.node == node).expect("a machine");
        world.machines[machine].facts.set_outside(HOST - 6 * GIB - GIB / 4);
        world.until(10_000, |w| pressed(w, &node)).await.expect("says so");
        world.until(60_000, |w| greedy_one(w).0.is_some_and(|n| n != node)).await.expect("goes elsewhere");
        assert!(pressed(world, &node), "the host stays closed for a while");
        world.until(200_000, |w| !pressed(w, &node)).await.expect("recovers");
        world.pass(300_000).await;
        let moved = living(world);
        let left = others.iter().filter(|one| moved.contains(one)).count();
        assert_eq!((moved.len(), left), (others.len(), others.len() - 1), "exactly one has gone");
        assert_eq!(ready(world), 6);
        end_well(world).await;
    });
}

#[test]
fn two_hosts_do_not_swap_what_is_too_big_for_both() {
    World::run(62, Shape { hosts: 2, ..Shape::default() }, async |world: &mut World| {
        deployed(world, 2).await;
        takes(world, 15 * GIB + GIB * 3 / 4);
        let before = world.checks.hosts.starts;
        world.operator.apply(&greedy()).await.done();
        let minutes = 20;
        world.pass(minutes * 60_000).await;
        let starts = world.checks.hosts.starts - before;
        // Each move closes the host that was left for two minutes, and takes what it takes besides.
        assert!(starts <= minutes / 2 + 1, "{starts} starts in {minutes} minutes");
        assert!(starts >= 2, "it was moved at least once");
        takes(world, GIB);
        end_well(world).await;
    });
}

#[test]
fn a_fleet_that_is_short_everywhere_evicts_nothing() {
    World::run(63, small(), async |world: &mut World| {
        deployed(world, 6).await;
        for machine in &world.machines {
            machine.facts.set_outside(HOST);
        }
        let before = living(world);
        world.pass(180_000).await;
        assert_eq!(living(world), before);
        for machine in &world.machines {
            machine.facts.set_outside(0);
        }
        end_well(world).await;
        assert_eq!(living(world), before);
    });
}

#[test]
fn a_full_disk_is_cleaned_before_anybody_goes() {
    World::run(64, small(), async |world: &mut World| {
        deployed(world, 6).await;
        // It lives for a moment: its log is what can be removed.
        let (first, machine) = greedy_runs(world, Program { disk: 40 * GIB, ..Program::default() }).await;
        world.pass(3_000).await;
        world.operator.delete(object(Kind::Deployment, "greedy")).await.done();
        world.until(30_000, |w| greedy_one(w).0.is_none()).await.expect("ends");
        world.pass(30_000).await;
        assert_eq!(world.machines[machine].host.disk_used(), 40 * GIB, "its log is kept");
        let before = living(world);
        world.machines[machine].facts.set_outside_disk(DISK - 41 * GIB);
        world.until(10_000, |w| pressed_by(w, &first, "DiskPressure")).await.expect("says so");
        world.until(5_000, |w| w.machines[machine].host.disk_used() == 0).await.expect("the old log goes");
        world.until(200_000, |w| !pressed_by(w, &first, "DiskPressure")).await.expect("recovers");
        assert_eq!(living(world), before, "nobody was ended");
        end_well(world).await;
    });
}

#[test]
fn a_disk_that_stays_full_evicts_who_fills_it() {
    World::run(65, small(), async |world: &mut World| {
        deployed(world, 6).await;
        let (node, machine) = greedy_runs(world, Program { disk: 40 * GIB, ..Program::default() }).await;
        let others = living(world);
        world.machines[machine].facts.set_outside_disk(DISK - 41 * GIB);
        world.until(10_000, |w| pressed_by(w, &node, "DiskPressure")).await.expect("says so");
        world.until(60_000, |w| greedy_one(w).0.is_some_and(|n| n != node)).await.expect("goes elsewhere");
        world.until(60_000, |w| w.machines[machine].host.disk_used() == 0).await.expect("its log goes too");
        world.until(200_000, |w| !pressed_by(w, &node, "DiskPressure")).await.expect("recovers");
        let moved = living(world);
        let left = others.iter().filter(|one| moved.contains(one)).count();
        assert_eq!((moved.len(), left), (others.len(), others.len() - 1), "exactly one has gone");
        end_well(world).await;
    });
}

#[test]
fn who_takes_all_process_numbers_goes() {
    World::run(66, small(), async |world: &mut World| {
        deployed(world, 6).await;
        let (node, machine) = greedy_runs(world, Program { tasks: 20_000, ..Program::default() }).await;
        let others = living(world);
        world.machines[machine].facts.set_outside_tasks(12_500);
        world.until(10_000, |w| pressed_by(w, &node, "PidPressure")).await.expect("says so");
        world.until(60_000, |w| greedy_one(w).0.is_some_and(|n| n != node)).await.expect("goes elsewhere");
        world.until(200_000, |w| !pressed_by(w, &node, "PidPressure")).await.expect("recovers");
        let moved = living(world);
        let left = others.iter().filter(|one| moved.contains(one)).count();
        assert_eq!((moved.len(), left), (others.len(), others.len() - 1), "exactly one has gone");
        end_well(world).await;
    });
}
