//! Another hand that never stops writing: every reader finds a whole version or what that hand wrote, the agent gives in
//! to it after three repairs, and a person's push ends it.

use harness::operator::configfile;
use harness::world::World;
use ostler_schemas::v1::report::{FileState, Writer};

use super::{content, deployed, end_well, insist, small};

const PATH: &str = "/etc/app.conf";

fn writer() -> Writer {
    Writer { pid: 8123, uid: Some(1001), exe: Some("/usr/bin/python3".to_owned()), ..Writer::default() }
}

/// What the first host reports of the file: its state, how often it was put back, and its message.
fn reported(world: &World) -> Option<(FileState, u64, String)> {
    let node = &world.machines[0].node;
    let report = world.checks.log.fleet.reports.get(node)?;
    let file = report.value.file_states.iter().find(|file| file.path == PATH)?;
    let repairs = file.last_drift.as_ref().map_or(0, |drift| drift.repairs);
    Some((file.state, repairs, file.message.clone().unwrap_or_default()))
}

#[test]
fn a_hand_that_never_stops_is_given_in_to_and_a_push_ends_it() {
    World::run(71, small(), async |world: &mut World| {
        deployed(world, 1).await;
        let all =
            |w: &World, text: &[u8]| w.machines.iter().all(|m| m.files.read(PATH).as_deref() == Some(text));
        for n in 0..600_u64 {
            let theirs = format!("by another hand {n}");
            world.watch.allow(theirs.as_bytes());
            world.machines[0].files.write_as(PATH, theirs.as_bytes(), writer());
            world.pass(100).await;
            if n == 300 {
                // What was fought over before the agent died is fought over still.
                world.machines[0].kill_agent();
                world.start_agent(0).await;
            }
        }
        world
            .until(10_000, |w| reported(w).is_some_and(|(state, ..)| state == FileState::Contested))
            .await
            .expect("given in");
        let (_, repairs, message) = reported(world).expect("reported");
        assert!((3..=5).contains(&repairs), "three, and one a minute: {repairs}");
        assert!(message.contains("other writer python3, uid 1001"), "{message}");
        let looks = world.machines[0].files.looks();
        assert!(looks < 400, "{looks} reads of 600 changes in a minute");
        // The hand rests; nothing is put back sooner than the pace allows, and a push is a person's act.
        content(world, "two");
        insist(world, &configfile("app", "two")).await;
        world.until(60_000, |w| all(w, b"two")).await.expect("a push ends every truce");
        end_well(world).await;
    });
}
