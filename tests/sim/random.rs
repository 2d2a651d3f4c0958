//! Random runs: an operator at work, a nemesis at work, all checkers; then peace, and everything must be as asked.

use harness::checks::{Found, Rule};
use harness::nemesis::{Nemesis, Temper};
use harness::seeds;
use harness::work::{Load, Work};
use harness::world::{LOOK_MS, SETTLE_MS, Shape, World};

const LOAD: Load = Load { deployments: 4, replicas: 14, files: 3, pause_ms: 6_000 };

/// One run; returns its trace and the world's verdict in words.
async fn one(world: &mut World, chaos_ms: u64) -> String {
    world.pass(4_000).await;
    let entropy = seeds::child(world.seed, "work");
    let work = Work::begin(world.operator.clone(), entropy, world.watch.clone(), LOAD);
    let mut nemesis = Nemesis::new(world.seed, Temper::default());
    let end = world.now_ms() + chaos_ms;
    while world.now_ms() < end && world.checks.found.is_empty() {
        world.pass(LOOK_MS).await;
        nemesis.act(world).await;
    }
    world.heal_everything().await;
    work.stop();
    world.until(120_000, |_| work.has_ended()).await.expect("the last request is answered");
    let took = world.settle(SETTLE_MS).await;
    world.final_checks();
    let now = world.now_ms();
    let history = work.history();
    let lost = history.lost(&world.checks.log);
    world.checks.found.extend(lost.into_iter().map(|detail| Found {
        at_ms: now,
        rule: Rule::AcknowledgedLost,
        detail,
    }));
    let hosts = &world.checks.hosts;
    let line = format!(
        "seed {}: {} requests acknowledged, {} unknown; {} transactions, {} starts, {} ends; settled in {took} ms; {}",
        world.seed,
        history.acknowledged,
        history.unknown,
        world.checks.log.transactions,
        hosts.starts,
        hosts.ends,
        world.trace()
    );
    world.story.extend(history.lines.iter().cloned());
    line
}

fn run_all(first: u64, usual: u64) {
    for seed in seeds::chosen(first, usual) {
        World::run(seed, Shape::default(), async |world: &mut World| {
            let line = one(world, 240_000).await;
            eprintln!("{line}");
            world.assert_unbroken();
        });
    }
}

#[test]
fn random_runs_keep_every_invariant() {
    run_all(1, 4);
}

#[test]
fn random_runs_keep_every_invariant_too() {
    run_all(101, 4);
}

#[test]
fn one_seed_is_one_run() {
    let run = || {
        World::run(77, Shape { hosts: 8, ..Shape::default() }, async |world: &mut World| {
            world.checks.log.lines = Some(Vec::new());
            one(world, 60_000).await;
            (world.trace(), world.checks.log.lines.take().unwrap_or_default())
        })
    };
    let (one, another) = (run(), run());
    let differs = one.1.iter().zip(&another.1).find(|(a, b)| a != b);
    assert_eq!(differs, None, "the first message that differs");
    assert_eq!(one.0, another.0);
}
