//! Named scenarios.

use harness::operator::{configfile, deployment};
use harness::world::{SETTLE_MS, Shape, World};

#[test]
fn a_calm_world_does_as_it_is_asked() {
    World::run(1, Shape::default(), async |world: &mut World| {
        world.pass(5_000).await;
        world.watch.allow(b"v1\n");
        world.watch.manage("/etc/app.conf");
        let web = deployment("web", 12, 1);
        world.operator.apply(&web).await.done();
        world.operator.apply(&configfile("app", "v1\\n")).await.done();
        let took = world.settle(SETTLE_MS).await;
        world.final_checks();
        eprintln!("settled after {took} ms; {} transactions", world.checks.log.transactions);
        world.assert_unbroken();
    });
}
