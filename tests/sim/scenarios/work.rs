//! Rollouts, pushes and deletions under crashes.

use harness::operator::{configfile, deployment, object};
use harness::world::{SETTLE_MS, World};
use ostler_controller::actors::root::CHILDREN;
use ostler_schemas::{ControllerName, Kind};

use super::{content, deployed, end_well, insist, living, ready, small};

#[test]
fn a_push_is_finished_through_crashes() {
    World::run(41, small(), async |world: &mut World| {
        deployed(world, 3).await;
        for round in 0..6_usize {
            let text = format!("round {round}");
            content(world, &text);
            world.operator.push("app", text.as_bytes()).await.done();
            // A host that dies between any two steps of its write: the next life finishes it.
            let i = round % world.machines.len();
            let files = world.machines[i].files.clone();
            files.hang_after(Some(round as u64));
            world.pass(500).await;
            files.hang_after(None);
            if round % 2 == 0 {
                world.machines[i].power_off();
                world.machines[i].power_on();
            } else {
                world.machines[i].kill_agent();
            }
            if let Some(leader) = world.leader(ControllerName::ConfigFile) {
                world.replicas[leader].kill();
            }
            world.pass(1_000).await;
            world.start_everything().await;
            world.settle(SETTLE_MS).await;
            for machine in &world.machines {
                let there = machine.files.read("/etc/app.conf");
                assert_eq!(there.as_deref(), Some(text.as_bytes()), "{}", machine.node);
            }
        }
        end_well(world).await;
    });
}

#[test]
fn a_spoiled_file_is_put_back() {
    World::run(42, small(), async |world: &mut World| {
        deployed(world, 3).await;
        world.watch.allow(b"by hand");
        let owner = ostler_agent_core::file::Owner { uid: 7, gid: 7 };
        world.machines[0].files.with(|fs| fs.put_file("/etc/app.conf", b"by hand", 0o600, owner));
        world.machines[1].files.with(|fs| fs.take("/etc/app.conf"));
        let back = |w: &World| {
            w.machines.iter().all(|m| m.files.read("/etc/app.conf").as_deref() == Some(b"one".as_slice()))
        };
        let took = world.until(5_000, back).await.expect("put back");
        assert!(took <= 250, "after {took} ms");
        end_well(world).await;
    });
}

#[test]
fn a_rollout_is_finished_through_crashes() {
    World::run(43, small(), async |world: &mut World| {
        deployed(world, 8).await;
        world.operator.apply(&deployment("web", 8, 2)).await.done();
        for round in 0..8 {
            world.pass(700).await;
            if round % 2 == 0 {
                let leader =
                    world.leader(ControllerName::Deployment).or(world.leader(ControllerName::Scheduler));
                if let Some(leader) = leader {
                    world.replicas[leader].kill();
                }
            } else {
                world.machines[round % 6].kill_agent();
            }
            world.pass(700).await;
            world.start_everything().await;
        }
        world.settle(SETTLE_MS).await;
        assert_eq!(ready(world), 8);
        end_well(world).await;
    });
}

#[test]
fn a_deletion_cascades() {
    World::run(44, small(), async |world: &mut World| {
        deployed(world, 8).await;
        world.operator.delete(object(Kind::Deployment, "web")).await.done();
        world.operator.delete(object(Kind::ConfigFile, "app")).await.done();
        let leader = world.leader(ControllerName::Deployment).expect("somebody leads");
        world.replicas[leader].kill();
        world.settle(SETTLE_MS).await;
        let fleet = &world.checks.log.fleet;
        assert!(!fleet.objects.contains_key(&object(Kind::Deployment, "web")), "it is gone");
        assert!(!fleet.objects.contains_key(&object(Kind::ConfigFile, "app")), "it is gone");
        assert!(fleet.processes.is_empty(), "and so are its processes' records");
        world.start_everything().await;
        content(world, "three");
        world.operator.apply(&configfile("app", "three")).await.done();
        world.operator.apply(&deployment("web", 3, 3)).await.done();
        end_well(world).await;
    });
}

/// Found by seed 8: the record of what had been written was overwritten by the one before it.
#[test]
fn a_restarted_agent_knows_which_files_it_wrote() {
    World::run(45, small(), async |world: &mut World| {
        deployed(world, 3).await;
        for machine in &mut world.machines {
            machine.kill_agent();
        }
        world.operator.delete(object(Kind::ConfigFile, "app")).await.done();
        world.pass(10_000).await;
        end_well(world).await;
        assert!(world.machines.iter().all(|m| m.files.read("/etc/app.conf").is_none()), "removed everywhere");
    });
}

/// Every actor of every daemon fails in turn while a rollout and a push are on their way: each is started again, and
/// what was asked is done.
#[test]
fn any_actor_may_fail() {
    World::run(46, small(), async |world: &mut World| {
        deployed(world, 4).await;
        let before = living(world);
        for (round, child) in CHILDREN.into_iter().enumerate() {
            let text = format!("round {round}");
            content(world, &text);
            world.operator.push("app", text.as_bytes()).await.done();
            insist(world, &deployment("web", 4 + u32::try_from(round % 2).unwrap_or(0), 1)).await;
            for replica in &world.replicas {
                if let Some(life) = &replica.life {
                    life.daemon.crash(child);
                }
            }
            for machine in &world.machines {
                machine.crash_part(round);
            }
            world.settle(SETTLE_MS).await;
            for machine in &world.machines {
                let there = machine.files.read("/etc/app.conf");
                assert_eq!(there.as_deref(), Some(text.as_bytes()), "{} after {child:?}", machine.node);
            }
        }
        assert!(before.iter().filter(|p| living(world).contains(p)).count() >= 4, "work went on");
        end_well(world).await;
    });
}
