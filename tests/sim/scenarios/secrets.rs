//! Secrets while leaders, nodes and keys come and go: every process that lives was started with a value that was in force
//! when its version began, and in the end all have the last one.

use std::collections::BTreeSet;

use harness::operator::{deployment, object};
use harness::world::{SETTLE_MS, World};
use ostler_bus::sealing::KeyPair;
use ostler_schemas::{ControllerName, Kind};

use super::{busiest, end_well, insist, living, ready, small};

fn secret(value: &str) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: Secret\nmetadata: {{name: db}}\nspec: {{stringData: {{password: {value}}}}}\n"
    )
}

/// `web`, whose processes have the Secret as a file and start anew with it.
fn web(replicas: u32) -> String {
    let uses = "      credentials: [{name: p, secretKeyRef: {name: db, key: password}}]\n      rollOnSecretChange: true\n";
    deployment("web", replicas, 1) + uses
}

/// What living processes were given.
fn given(world: &World) -> BTreeSet<String> {
    let value = |(node, key): (ostler_schemas::NodeName, ostler_agent_core::holder::protocol::ProcKey)| {
        let machine = world.machines.iter().find(|m| m.node == node)?;
        let folder = machine.host.credentials(key.uid)?;
        Some(String::from_utf8_lossy(folder.files.first()?.1.reveal()).into_owned())
    };
    living(world).into_iter().map(|found| value(found).unwrap_or_else(|| "nothing".to_owned())).collect()
}

fn only(value: &str) -> BTreeSet<String> {
    BTreeSet::from([value.to_owned()])
}

#[test]
fn a_changed_secret_is_rolled_out_over_failovers_lost_nodes_and_new_keys() {
    World::run(71, small(), async |world: &mut World| {
        world.pass(4_000).await;
        world.operator.apply(&secret("one")).await.done();
        world.operator.apply(&web(9)).await.done();
        world.settle(SETTLE_MS).await;
        assert_eq!((ready(world), given(world)), (9, only("one")));

        world.tell("the leader dies as the secret changes");
        let leader = world.leader(ControllerName::Secret).expect("somebody leads");
        world.replicas[leader].kill();
        insist(world, &secret("two")).await;
        world
            .until(120_000, |w| ready(w) == 9 && given(w) == only("two"))
            .await
            .expect("all have the second");

        world.tell("a node dies: its replacements are given what it had");
        let dies = busiest(world);
        world.machines[dies].power_off();
        world.until(60_000, |w| ready(w) == 9).await.expect("replaced");
        assert_eq!(given(world), only("two"));

        world.tell("an agent has another key from now on");
        let other = busiest(world);
        let entropy = harness::seeds::child(71, "another key");
        world.machines[other].keys = ostler_bus::sealing::KeyRing::new(vec![KeyPair::generate(&*entropy)]);
        world.machines[other].kill_agent();
        world.start_agent(other).await;
        insist(world, &secret("three")).await;
        world
            .until(120_000, |w| ready(w) == 9 && given(w) == only("three"))
            .await
            .expect("all have the third");

        world.tell("nobody uses it any more");
        world.operator.delete(object(Kind::Secret, "db")).await;
        assert!(world.checks.log.fleet.objects.contains_key(&object(Kind::Secret, "db")), "it is in use");
        world.operator.delete(object(Kind::Deployment, "web")).await.done();
        world
            .until(120_000, |w| w.checks.log.fleet.secrets_documents.values().all(|d| d.entries.is_empty()))
            .await
            .expect("no node has any");
        world.operator.delete(object(Kind::Secret, "db")).await.done();
        end_well(world).await;
    });
}
