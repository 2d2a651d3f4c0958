//! Bugs planted on purpose, each caught by a checker: a checker that never caught anything is not trusted.
//!
//! Each test also runs the same story without the bug: what catches the bug must not catch its absence.

use std::collections::BTreeSet;

use harness::checks::Rule;
use harness::operator::{deployment, object};
use harness::planted::{Backlog, Plant};
use harness::world::{Shape, World};
use ostler_bus::sim_clock::ResumeOrder;
use ostler_bus::store::Txn;
use ostler_controller_core::liveness::Limits;
use ostler_schemas::{ControllerName, Key, Kind, ObjectRef};

use crate::scenarios::control::{by_scheduler, holding};
use crate::scenarios::{content, deployed, living, ready, small};

/// A leader's binding is under way while its processes are taken back and another leader takes over: no key that it
/// writes has changed, so only the term can refuse it.
#[test]
fn a_leader_without_a_fence_is_caught() {
    let broken = |plant: Plant| {
        let (shape, holds) = holding(plant);
        World::run(61, shape, async |world: &mut World| {
            deployed(world, 4).await;
            let web = object(Kind::Deployment, "web");
            let old = world.leader(ControllerName::Scheduler).expect("somebody leads");
            holds[old].arm(by_scheduler);
            world.operator.scale(web.clone(), 7).await.done();
            world.until(5_000, |_| !holds[old].held().is_empty()).await.expect("it is under way");
            world.operator.scale(web, 4).await.done();
            world.pass(1_000).await;
            let gate = world.replicas[old].life.as_ref().map(|l| l.gate.clone()).expect("it runs");
            gate.pause();
            let other = |w: &World| w.leader(ControllerName::Scheduler).is_some_and(|l| l != old);
            world.until(20_000, other).await.expect("another takes over");
            world.pass(5_000).await;
            holds[old].release();
            gate.resume(ResumeOrder::BacklogFirst);
            world.pass(10_000).await;
            world.broken()
        })
    };
    assert_eq!(broken(Plant::default()), BTreeSet::new());
    let found = broken(Plant { no_fence: true, ..Plant::default() });
    assert!(found.contains(&Rule::OldLeader), "{found:?}");
}

fn of_web(txn: &Txn) -> bool {
    let web = object(Kind::Deployment, "web");
    txn.writes.iter().any(|w| matches!(&w.key, Key::Object(ObjectRef { name, .. }) if *name == web.name))
}

/// Two people change one object through two replicas, the first of which is late.
#[test]
fn a_write_without_a_guard_on_its_own_key_is_caught() {
    let broken = |plant: Plant| {
        let (shape, holds) = holding(plant);
        World::run(62, shape, async |world: &mut World| {
            deployed(world, 2).await;
            holds.iter().for_each(|h| h.arm(of_web));
            let late = world.operator.clone();
            let late = tokio::spawn(async move { late.scale(object(Kind::Deployment, "web"), 5).await });
            world.until(5_000, |_| holds.iter().any(|h| !h.held().is_empty())).await.expect("it is held");
            let held = holds.iter().position(|h| !h.held().is_empty()).expect("one of them");
            holds.iter().enumerate().filter(|(i, _)| *i != held).for_each(|(_, h)| h.release());
            // Whichever replica takes it: the one that is late holds its own writes only.
            loop {
                let again = world.operator.clone();
                let asked = tokio::spawn(async move { again.apply(&deployment("web", 3, 7)).await });
                if world.until(2_000, |_| asked.is_finished()).await.is_some() {
                    break;
                }
            }
            holds[held].release();
            world.until(60_000, |_| late.is_finished()).await.expect("answered");
            world.pass(5_000).await;
            world.broken()
        })
    };
    assert_eq!(broken(Plant::default()), BTreeSet::new());
    let plant = Plant { no_own_key: true, ..Plant::default() };
    assert!(broken(plant).contains(&Rule::GenerationForked));
}

#[test]
fn an_agent_that_takes_absence_for_a_command_is_caught() {
    let broken = |plant: Plant| {
        World::run(63, Shape { plant, ..small() }, async |world: &mut World| {
            deployed(world, 6).await;
            let past = world.remember();
            world.operator.scale(object(Kind::Deployment, "web"), 12).await.done();
            for text in ["two", "three", "four", "five"] {
                content(world, text);
                world.operator.push("app", text.as_bytes()).await.done();
            }
            world.until(10_000, |w| ready(w) == 12).await.expect("scaled");
            world.pass(6_000).await;
            assert_eq!(living(world).len(), 12);
            world.roll_back(past);
            world.pass(60_000).await;
            world.broken()
        })
    };
    assert_eq!(broken(Plant::default()), BTreeSet::new());
    let plant = Plant { absence_stops: true, ..Plant::default() };
    assert!(broken(plant).contains(&Rule::EndedUnasked));
}

#[test]
fn silence_judged_before_the_backlog_is_read_is_caught() {
    let broken = |limits: Limits| {
        let backlog = Backlog::default();
        let plant = Plant { backlog: Some(backlog.clone()), ..Plant::default() };
        World::run(64, Shape { plant, limits, ..small() }, async |world: &mut World| {
            deployed(world, 6).await;
            world.pass(10_000).await;
            world.tell("beats pile up, timers go on");
            backlog.pile_up(true);
            world.pass(8_000).await;
            backlog.pile_up(false);
            world.pass(20_000).await;
            world.broken()
        })
    };
    assert_eq!(broken(Limits::default()), BTreeSet::new());
    let hasty = Limits { canary_ms: u64::MAX / 4, settle_ms: 0, ..Limits::default() };
    assert!(broken(hasty).contains(&Rule::FalseVerdict));
}

/// Replicas of the store that lag answer agents with the document before the last one.
#[test]
fn an_agent_that_follows_any_document_is_caught() {
    let broken = |plant: Plant| {
        World::run(65, Shape { plant, ..small() }, async |world: &mut World| {
            deployed(world, 6).await;
            content(world, "two");
            world.operator.push("app", b"two").await.done();
            let there = |w: &World| {
                w.machines.iter().all(|m| m.files.read("/etc/app.conf").as_deref() == Some(b"two".as_slice()))
            };
            world.until(5_000, there).await.expect("pushed");
            world.faults.stale_lag_ms(600_000);
            world.faults.stale_reads("", 10_000);
            // Hints come seldom in a world where nothing changes; everything is read again after a minute and a half.
            world.pass(100_000).await;
            world.broken()
        })
    };
    assert_eq!(broken(Plant::default()), BTreeSet::new());
    let found = broken(Plant { no_epoch: true, ..Plant::default() });
    assert!(found.contains(&Rule::FileFellBack), "{found:?}");
}
