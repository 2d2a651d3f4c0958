//! Controllers that go, come, and are late.

use harness::operator::{deployment, object};
use harness::planted::{Hold, Plant};
use harness::world::{Shape, World};
use ostler_bus::memory::faults::Cut;
use ostler_bus::sim_clock::ResumeOrder;
use ostler_bus::store::Txn;
use ostler_schemas::{ControllerName, Key, Kind};

use super::{deployed, end_well, insist, living, ready, small, wanted};

/// DESIGN.md section 8: a crashed leader is succeeded within this, and the work it left is taken up.
const FAILOVER_MS: u64 = 4_000;

#[test]
fn an_apply_right_after_the_leader_died_converges() {
    for victim in [ControllerName::Scheduler, ControllerName::Deployment, ControllerName::Node] {
        World::run(21, small(), async |world: &mut World| {
            deployed(world, 4).await;
            let leader = world.leader(victim).expect("somebody leads");
            world.tell(format!("the leader of {victim} dies"));
            world.replicas[leader].kill();
            world.operator.apply(&deployment("web", 8, 1)).await.done();
            let took = world.until(20_000, |w| ready(w) == 8).await.expect("converges");
            assert!(took <= FAILOVER_MS + 1_000, "{victim}: {took} ms after the leader died");
            end_well(world).await;
        });
    }
}

#[test]
fn a_leader_that_stops_in_order_is_succeeded_at_once() {
    World::run(22, small(), async |world: &mut World| {
        deployed(world, 4).await;
        let leader = world.leader(ControllerName::Scheduler).expect("somebody leads");
        let life = world.replicas[leader].life.take().expect("it runs");
        life.daemon.stop().await;
        let another = |w: &World| w.leader(ControllerName::Scheduler).is_some_and(|l| l != leader);
        let took = world.until(10_000, another).await.expect("succeeded");
        assert!(took <= 1_000, "succeeded after {took} ms");
        end_well(world).await;
    });
}

#[test]
fn all_controllers_may_die() {
    World::run(23, small(), async |world: &mut World| {
        deployed(world, 6).await;
        let before = living(world);
        for replica in &mut world.replicas {
            replica.kill();
        }
        world.pass(120_000).await;
        assert_eq!(living(world), before, "nothing stopped and nothing started");
        world.start_everything().await;
        world.pass(30_000).await;
        assert_eq!(living(world), before, "nor when they came back");
        assert!(world.checks.log.asked_to_end.is_empty());
        end_well(world).await;
    });
}

/// A one-way cut makes two replicas believe that they lead: the old one still hears, but is not heard.
#[test]
fn two_leaders_duel_and_one_of_them_acts() {
    for (seed, cut) in [(24, Cut::Outbound), (25, Cut::Inbound), (26, Cut::Both)] {
        World::run(seed, small(), async |world: &mut World| {
            deployed(world, 4).await;
            for round in 2..8_u32 {
                let leader = world.leader(ControllerName::Scheduler).expect("somebody leads");
                let name = world.replicas[leader].name.clone();
                world.cut(&name, cut);
                world.pass(3_500).await;
                insist(world, &deployment("web", 4 + round % 3, u64::from(round))).await;
                world.heal(&name);
                world.pass(2_500).await;
            }
            end_well(world).await;
        });
    }
}

pub(crate) fn by_scheduler(txn: &Txn) -> bool {
    txn.writes.iter().any(|w| matches!(w.key, Key::ProcessBind(_)))
}

fn by_deployment(txn: &Txn) -> bool {
    txn.writes.iter().any(|w| matches!(w.key, Key::ProcessSpec(_)))
}

/// A world in which every replica can be stopped before it writes.
pub(crate) fn holding(mut plant: Plant) -> (Shape, Vec<Hold>) {
    let holds: Vec<Hold> = (0..3).map(|_| Hold::default()).collect();
    plant.holds = holds.iter().cloned().enumerate().collect();
    (Shape { plant, ..small() }, holds)
}

/// Stops the leader of `c` between decision and write, lets another take over, then lets the old one go on.
async fn zombie(world: &mut World, holds: &[Hold], c: ControllerName, matches: fn(&Txn) -> bool) {
    deployed(world, 4).await;
    let old = world.leader(c).expect("somebody leads");
    holds[old].arm(matches);
    world.operator.scale(object(Kind::Deployment, "web"), 7).await.done();
    world.until(5_000, |_| !holds[old].held().is_empty()).await.expect("it was about to write");
    let gate = world.replicas[old].life.as_ref().map(|l| l.gate.clone()).expect("it runs");
    world.tell(format!("ctl-{} stops between its decision and its write", old + 1));
    gate.pause();
    world.until(20_000, |w| w.leader(c).is_some_and(|l| l != old)).await.expect("another takes over");
    world.until(20_000, |w| ready(w) == 7).await.expect("the successor does the work");
    world.tell(format!("ctl-{} goes on", old + 1));
    holds[old].release();
    gate.resume(ResumeOrder::TimersFirst);
    world.pass(20_000).await;
}

#[test]
fn the_write_of_a_leader_that_slept_is_refused() {
    for (c, matches) in [
        (ControllerName::Scheduler, by_scheduler as fn(&Txn) -> bool),
        (ControllerName::Deployment, by_deployment as fn(&Txn) -> bool),
    ] {
        let (shape, holds) = holding(Plant::default());
        World::run(27, shape, async |world: &mut World| {
            zombie(world, &holds, c, matches).await;
            assert_eq!(wanted(world), Some(7));
            assert_eq!(ready(world), 7);
            end_well(world).await;
        });
    }
}

#[test]
fn a_leader_that_is_paused_again_and_again_harms_nothing() {
    for order in [ResumeOrder::TimersFirst, ResumeOrder::BacklogFirst] {
        World::run(28, small(), async |world: &mut World| {
            deployed(world, 6).await;
            for round in 0..6 {
                let leader = world.leader(ControllerName::Node).expect("somebody leads");
                let gate = world.replicas[leader].life.as_ref().map(|l| l.gate.clone()).expect("runs");
                gate.pause();
                world.pass(1_500 + 1_000 * round).await;
                gate.resume(order);
                world.pass(6_000).await;
            }
            assert!(world.checks.log.asked_to_end.is_empty(), "nobody was lost");
            end_well(world).await;
        });
    }
}
