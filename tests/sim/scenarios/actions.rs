//! What follows changes of files, while agents die: once for each version, or known to be unknown.

use std::collections::BTreeMap;

use harness::checks::Rule;
use harness::operator::{deployment, object};
use harness::planted::Plant;
use harness::world::{SETTLE_MS, Shape, World};
use ostler_agent::sim::Program;
use ostler_schemas::v1::report::FileState;
use ostler_schemas::{Kind, Uid};

use super::{content, deployed, end_well, living, small};

/// How long the command takes: agents die before, in the middle and after.
const ACT_MS: u64 = 300;

fn manifest(text: &str, actions: &str) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: app}}\nspec:\n  path: /etc/app.conf\n  \
         nodeSelector: {{}}\n  content: \"{text}\"\n  onRemove: delete\n  onChange: [{actions}]\n  \
         rollout: {{waves: [100%], bake: 0s, maxFailures: 100%}}\n"
    )
}

const EXEC: &str = "{exec: {command: [/act/app, $(OSTLER_VERSION)], timeout: 5s}}";
const RESTART: &str = "{restart: {processSelector: {matchLabels: {app: web}}}}";

fn slow(world: &World) {
    for machine in &world.machines {
        machine.host.program("/act/app", Program { exits: Some((ACT_MS, 0)), ..Program::default() });
    }
}

/// Pushes version after version while agents die; returns how often nobody knows what became of an action.
async fn pushes(world: &mut World, rounds: u64) -> u64 {
    slow(world);
    let mut unknown = 0;
    for round in 1..=rounds {
        let text = format!("round {round}");
        content(world, &text);
        world.operator.apply(&manifest(&text, EXEC)).await.done();
        // Somewhere between the push and the end of what follows from it.
        world.pass(round * 137 % 900).await;
        let count = world.machines.len();
        for which in [round, round * 3 + 1] {
            world.machines[usize::try_from(which).unwrap_or(0) % count].kill_agent();
        }
        world.pass(200).await;
        world.start_everything().await;
        world.pass(12_000).await;
        unknown += judge(world, round);
    }
    unknown
}

/// Everybody has run it for the version that it holds, or says that nobody knows.
fn judge(world: &World, version: u64) -> u64 {
    let fleet = &world.checks.log.fleet;
    let Some(app) = fleet.objects.get(&object(Kind::ConfigFile, "app")) else { return 0 };
    assert_eq!(app.metadata.version.0, version);
    let mut unknown = 0;
    for machine in &world.machines {
        let report = fleet.reports.get(&machine.node).and_then(|r| r.value.file(&app.metadata.uid));
        let report = report.unwrap_or_else(|| panic!("{} has said nothing", machine.node));
        let ran = world.checks.acts.last(&machine.node, "/act/app");
        let is_of_it = ran.is_some_and(|(of, _)| of == version.to_string());
        match report.state {
            FileState::InSync => {
                assert!(is_of_it && ran.is_some_and(|(_, success)| success), "{}: {ran:?}", machine.node);
            }
            FileState::Failed => {
                let said = report.message.as_deref().unwrap_or_default();
                assert!(said.contains("unknown"), "{}: {said}", machine.node);
                unknown += 1;
            }
            state => panic!("{} is {state:?}: {:?}", machine.node, report.message),
        }
    }
    unknown
}

#[test]
fn a_command_is_run_once_for_each_version_whatever_dies() {
    World::run(91, small(), async |world: &mut World| {
        world.pass(4_000).await;
        let unknown = pushes(world, 20).await;
        assert!(unknown > 0, "some agent died in the middle of it");
        assert!(world.checks.acts.runs > 60, "{}", world.checks.acts.runs);
        // A version that nothing befalls makes everything well again.
        content(world, "calm");
        world.operator.apply(&manifest("calm", EXEC)).await.done();
        world.settle(SETTLE_MS).await;
        assert_eq!(judge(world, 21), 0);
        end_well(world).await;
    });
}

#[test]
fn an_agent_that_forgets_what_it_has_begun_is_caught() {
    let found = World::run(
        92,
        Shape { plant: Plant { forgets_begun: true, ..Plant::default() }, ..small() },
        async |world: &mut World| {
            world.pass(4_000).await;
            slow(world);
            for round in 1..=8_u64 {
                let text = format!("round {round}");
                content(world, &text);
                world.operator.apply(&manifest(&text, EXEC)).await.done();
                world.pass(round * 137 % 900).await;
                for machine in &mut world.machines {
                    machine.kill_agent();
                }
                world.start_everything().await;
                world.pass(12_000).await;
            }
            world.broken()
        },
    );
    assert!(found.contains(&Rule::ActedTwice), "{found:?}");
}

fn incarnations(world: &World) -> BTreeMap<Uid, u64> {
    living(world).into_iter().map(|(_, key)| (key.uid, key.incarnation)).collect()
}

#[test]
fn processes_are_restarted_once_for_each_version_whatever_dies() {
    World::run(93, small(), async |world: &mut World| {
        deployed(world, 8).await;
        let labels = "  template:\n    metadata: {labels: {app: web}}\n";
        let labelled = deployment("web", 8, 1).replace("  template:\n", labels);
        world.operator.apply(&labelled).await.done();
        world.settle(SETTLE_MS).await;
        for round in 1..=6_u64 {
            let before = incarnations(world);
            assert_eq!(before.len(), 8);
            // These are to end, and no others: how often each does is what is counted here.
            world.checks.hosts.excused.extend(living(world).into_iter().map(|(_, key)| key));
            let text = format!("restart {round}");
            content(world, &text);
            world.operator.apply(&manifest(&text, RESTART)).await.done();
            world.pass(round * 97 % 500).await;
            let count = world.machines.len();
            world.machines[usize::try_from(round).unwrap_or(0) % count].kill_agent();
            world.pass(200).await;
            world.start_everything().await;
            world.settle(SETTLE_MS).await;
            let after = incarnations(world);
            for (uid, incarnation) in &before {
                assert_eq!(after.get(uid), Some(&(incarnation + 1)), "round {round}: {uid}");
            }
        }
        end_well(world).await;
    });
}
