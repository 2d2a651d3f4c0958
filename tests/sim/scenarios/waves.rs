//! Waves while leaders die: a version goes no further than was borne out, and in the end it is everywhere.

use std::collections::BTreeMap;

use harness::operator::object;
use harness::world::{SETTLE_MS, World};
use ostler_schemas::v1::document::FileGoal;
use ostler_schemas::v1::report::FileState;
use ostler_schemas::v1::state::RolloutPhase;
use ostler_schemas::{ControllerName, Kind};

use super::{content, end_well, small};

const BAKE_MS: u64 = 5_000;
/// Of six hosts `[1, 50%, 100%]`.
const SIZES: [usize; 3] = [1, 3, 6];

fn manifest(text: &str) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: app}}\nspec:\n  path: /etc/app.conf\n  \
         nodeSelector: {{}}\n  content: \"{text}\"\n  onRemove: delete\n  \
         rollout: {{waves: [1, 50%, 100%], bake: 5s, maxUnavailable: 2}}\n"
    )
}

/// How many nodes were told a version, and how many are well with it.
fn counts(world: &World, version: u64) -> (usize, usize) {
    let fleet = &world.checks.log.fleet;
    let Some(app) = fleet.objects.get(&object(Kind::ConfigFile, "app")) else { return (0, 0) };
    let uid = app.metadata.uid;
    let told = fleet.files_documents.values().filter(|document| {
        document.entries.iter().any(|e| e.u == uid && e.v.0 == version && e.g == FileGoal::Hold)
    });
    let well = fleet.reports.values().filter(|report| {
        report.value.file(&uid).is_some_and(|f| f.v.0 == version && f.state == FileState::InSync)
    });
    (told.count(), well.count())
}

fn phase(world: &World) -> Option<RolloutPhase> {
    let fleet = &world.checks.log.fleet;
    let uid = fleet.objects.get(&object(Kind::ConfigFile, "app"))?.metadata.uid;
    fleet.rollouts.get(&(ControllerName::ConfigFile, uid)).map(|state| state.phase)
}

#[test]
fn waves_go_on_under_another_leader() {
    World::run(47, small(), async |world: &mut World| {
        world.pass(4_000).await;
        content(world, "one");
        world.operator.apply(&manifest("one")).await.done();
        world.settle(SETTLE_MS).await;
        content(world, "two");
        world.operator.apply(&manifest("two")).await.done();
        let mut well_since: BTreeMap<usize, u64> = BTreeMap::new();
        let mut most = 0;
        for round in 0..200_usize {
            world.pass(250).await;
            let (told, well) = counts(world, 2);
            let now = world.now_ms();
            for size in SIZES {
                if well >= size {
                    well_since.entry(size).or_insert(now);
                }
            }
            for pair in SIZES.windows(2) {
                let baked = well_since.get(&pair[0]).is_some_and(|since| now + 500 >= since + BAKE_MS);
                assert!(told <= pair[0] || baked, "{told} nodes were told before {} had baked", pair[0]);
            }
            most = most.max(told.saturating_sub(well));
            if round % 12 == 5
                && let Some(leader) = world.leader(ControllerName::ConfigFile)
            {
                world.replicas[leader].kill();
                world.start_replica(leader).await;
            }
            if phase(world) == Some(RolloutPhase::Complete) && told == 6 {
                break;
            }
        }
        assert_eq!(phase(world), Some(RolloutPhase::Complete));
        assert!(most <= 2, "{most} nodes were at it at one time");
        end_well(world).await;
    });
}
