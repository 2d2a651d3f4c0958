//! A bus that is away, and a store that forgets.

use harness::operator::{deployment, object};
use harness::world::{SETTLE_MS, World};
use ostler_schemas::Kind;
use ostler_schemas::key::DocumentKind;

use super::{content, deployed, end_well, living, ready, small};

#[test]
fn a_bus_that_is_down_for_two_minutes_harms_nothing() {
    World::run(31, small(), async |world: &mut World| {
        deployed(world, 9).await;
        let before = (living(world), world.checks.hosts.starts);
        world.set_bus(false);
        world.pass(120_000).await;
        assert_eq!(before, (living(world), world.checks.hosts.starts), "without a bus all goes on");
        world.set_bus(true);
        world.pass(60_000).await;
        assert_eq!(before, (living(world), world.checks.hosts.starts), "and when it is back");
        assert!(world.checks.log.asked_to_end.is_empty(), "nothing was evicted");
        end_well(world).await;
    });
}

#[test]
fn an_agent_that_starts_without_a_bus_keeps_what_runs() {
    World::run(32, small(), async |world: &mut World| {
        deployed(world, 9).await;
        let before = living(world);
        world.set_bus(false);
        for machine in &mut world.machines {
            machine.kill_agent();
        }
        world.pass(2_000).await;
        world.start_everything().await;
        world.pass(60_000).await;
        assert_eq!(living(world), before);
        world.set_bus(true);
        end_well(world).await;
        assert_eq!(living(world), before);
    });
}

#[test]
fn a_store_rolled_back_by_ten_seconds_stops_no_process_and_removes_no_file() {
    World::run(33, small(), async |world: &mut World| {
        deployed(world, 6).await;
        let past = world.remember();
        world.operator.scale(object(Kind::Deployment, "web"), 12).await.done();
        content(world, "two");
        world.operator.push("app", b"two").await.done();
        world.until(10_000, |w| ready(w) == 12).await.expect("scaled");
        world.pass(6_000).await;
        let before = living(world);
        world.roll_back(past);
        world.pass(60_000).await;
        for process in &before {
            assert!(living(world).contains(process), "{process:?} was stopped by a rollback");
        }
        for machine in &world.machines {
            assert!(machine.files.read("/etc/app.conf").is_some(), "{} lost a file", machine.node);
            for kind in DocumentKind::ALL {
                let seen = machine.life.as_ref().map(|l| l.viewer.status()).expect("runs");
                let held = match kind {
                    DocumentKind::Run => seen.run,
                    DocumentKind::Files => seen.files,
                    // There are no secrets here, so nobody writes any.
                    DocumentKind::Secrets => continue,
                };
                assert!(held.epoch.incarnation >= 2, "{} {kind:?}: a new incarnation decides", machine.node);
            }
        }
        world.tell("the operator asks again");
        world.operator.apply(&deployment("web", 6, 2)).await.done();
        world.pass(20_000).await;
        let broken: Vec<String> = world.checks.found.iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{broken:?}\n{}", world.story.join("\n"));
        assert_eq!(ready(world), 6, "the rolled-back control plane works");
    });
}

#[test]
fn a_lost_observed_plane_is_told_anew() {
    World::run(34, small(), async |world: &mut World| {
        deployed(world, 6).await;
        let before = living(world);
        world.lose_observed();
        world.settle(SETTLE_MS).await;
        assert_eq!(living(world), before);
        world.operator.apply(&deployment("web", 6, 2)).await.done();
        end_well(world).await;
    });
}

/// Found when planting a bug: leases alone carry a rolled-back store past what agents have seen within seconds, and
/// nothing noticed. Now each key is compared.
#[test]
fn a_rollback_that_has_been_overtaken_is_noticed() {
    for wait_ms in [0, 3_000, 15_000, 40_000] {
        World::run(35, small(), async |world: &mut World| {
            deployed(world, 6).await;
            let past = world.remember();
            world.operator.scale(object(Kind::Deployment, "web"), 12).await.done();
            world.until(10_000, |w| ready(w) == 12).await.expect("scaled");
            let before = living(world);
            // Agents that hear nothing meanwhile: the store grows on.
            world.roll_back(past);
            let cut: Vec<String> = world.machines.iter().map(|m| m.node.to_string()).collect();
            for node in cut.iter().filter(|_| wait_ms > 0) {
                world.disconnect(node);
            }
            world.pass(wait_ms).await;
            for node in cut.iter().filter(|_| wait_ms > 0) {
                world.heal(node);
            }
            world.pass(60_000).await;
            let now = living(world);
            assert!(before.iter().all(|p| now.contains(p)), "{wait_ms}: nothing was stopped");
            let incarnation = world.checks.log.fleet.store_incarnation();
            assert!(
                incarnation >= 2,
                "{wait_ms} ms: the rollback was not noticed\n{}",
                world.story.join("\n")
            );
            world.operator.scale(object(Kind::Deployment, "web"), 3).await.done();
            let works = |w: &World| w.checks.log.asked_to_end.len() == 3;
            world.until(20_000, works).await.expect("the control plane works on the store as it is");
        });
    }
}
