//! Hosts that go and come.

use harness::world::{Shape, World};
use ostler_bus::memory::faults::Cut;
use ostler_bus::sim_clock::ResumeOrder;

use super::{busiest, deployed, end_well, living, ready, small, wanted};

/// DESIGN.md section 8: from the loss of a node to its replacement running.
const REPLACED_WITHIN_MS: u64 = 6_000;

fn loss_of_one(hosts: usize) {
    World::run(11, Shape { hosts, ..Shape::default() }, async |world: &mut World| {
        deployed(world, 6).await;
        let dies = busiest(world);
        world.tell("a host dies");
        world.machines[dies].power_off();
        let node = world.machines[dies].node.clone();
        let took = world.until(20_000, |w| ready(w) == 6).await.expect("replaced");
        assert!(took <= REPLACED_WITHIN_MS, "replacements ran after {took} ms on {hosts} hosts");
        assert!(world.checks.log.fleet.is_lost(&node));
        end_well(world).await;
    });
}

#[test]
fn a_lost_node_is_replaced_in_six_seconds_of_three() {
    loss_of_one(3);
}

#[test]
fn a_lost_node_is_replaced_in_six_seconds_of_twenty() {
    loss_of_one(20);
}

#[test]
fn a_returning_node_never_restarts_moved_work() {
    World::run(12, small(), async |world: &mut World| {
        deployed(world, 9).await;
        let cut = busiest(world);
        let node = world.machines[cut].node.clone();
        let its: Vec<_> = world.machines[cut].host.living().into_iter().map(|(key, ..)| key.uid).collect();
        assert!(!its.is_empty());
        world.cut(node.as_str(), Cut::Both);
        world.until(20_000, |w| ready(w) >= 9 && w.checks.log.fleet.is_lost(&node)).await.expect("replaced");
        // The host reboots while nobody can reach it: its ledger still says that everything should run.
        world.machines[cut].power_off();
        world.machines[cut].power_on();
        let starts = world.checks.hosts.starts;
        world.heal(node.as_str());
        world.start_agent(cut).await;
        world.pass(30_000).await;
        assert_eq!(world.checks.hosts.starts, starts, "nothing was started again");
        for (_, key) in living(world) {
            assert!(!its.contains(&key.uid), "{key} was moved and lives again");
        }
        end_well(world).await;
    });
}

#[test]
fn a_cut_off_node_goes_on_and_ends_moved_work_when_it_returns() {
    World::run(13, small(), async |world: &mut World| {
        deployed(world, 9).await;
        let cut = busiest(world);
        let node = world.machines[cut].node.clone();
        let its = world.machines[cut].host.living().len();
        world.cut(node.as_str(), Cut::Both);
        world.until(20_000, |w| ready(w) >= 9 && w.checks.log.fleet.is_lost(&node)).await.expect("replaced");
        assert_eq!(world.machines[cut].host.living().len(), its, "cut off, it goes on");
        world.heal(node.as_str());
        world
            .until(60_000, |w| w.machines[cut].host.living().is_empty())
            .await
            .expect("it ends what was moved");
        end_well(world).await;
    });
}

#[test]
fn the_brake_holds_when_half_of_the_nodes_fall_silent() {
    World::run(14, Shape { hosts: 10, ..Shape::default() }, async |world: &mut World| {
        deployed(world, 20).await;
        let before = living(world);
        let silent: Vec<String> = world.machines.iter().take(5).map(|m| m.node.to_string()).collect();
        for node in &silent {
            world.cut(node, Cut::Both);
        }
        world.pass(90_000).await;
        let asked = world.checks.log.asked_to_end.len();
        assert_eq!(asked, 0, "past the brake nothing is evicted");
        assert_eq!(living(world), before);
        let held = world.checks.log.fleet.node_states.values();
        assert!(held.filter_map(|s| s.lost.as_ref()).all(|v| v.held), "every verdict is held");
        end_well(world).await;
        assert_eq!(living(world), before, "and nothing was when they came back");
    });
}

#[test]
fn a_frozen_agent_costs_its_node_but_not_its_work() {
    World::run(15, small(), async |world: &mut World| {
        deployed(world, 6).await;
        let i = busiest(world);
        let its = world.machines[i].host.living();
        let gate = world.machines[i].life.as_ref().map(|l| l.gate.clone()).expect("runs");
        gate.pause();
        world.pass(2_000).await;
        gate.resume(ResumeOrder::TimersFirst);
        world.pass(20_000).await;
        assert_eq!(world.machines[i].host.living(), its, "two seconds are no loss");
        assert_eq!(wanted(world), Some(6));
        end_well(world).await;
    });
}
