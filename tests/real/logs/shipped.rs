//! A namespace that ships its output: it outlives its host.

use futures::StreamExt as _;
use harness::fleet::{Fleet, Size, kill, until};
use ostler_bus::layout::Identity;
use ostler_schemas::subject::LOGS_STREAM;
use ostler_schemas::v1::log_line::{Source, parse};

use super::counting;

const NAMESPACE: &str = "apiVersion: ostler/v1
kind: Namespace
metadata: {name: default}
spec: {logs: {ship: true}}
";

/// The highest number of a process that is stored.
fn stored(fleet: &Fleet, name: &str) -> u32 {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bus = fleet.connect(Identity::Controller).await;
        let filter = format!("ostler.v1.log.*.default.{name}");
        let mut records = bus.store.expect("a store").records(LOGS_STREAM, &filter, 1, false);
        let mut highest = 0;
        while let Some(record) = records.next().await {
            let body = record.expect("readable").body;
            for line in body.split(|b| *b == b'\n').filter_map(parse) {
                if matches!(line.source, Source::Process(_)) {
                    let number = std::str::from_utf8(line.text).ok().and_then(|text| text.parse().ok());
                    highest = highest.max(number.unwrap_or(0));
                }
            }
        }
        highest
    })
}

fn daemon(fleet: &Fleet, name: &str) -> u32 {
    u32::try_from(fleet.daemons()[name]).expect("a pid")
}

#[test]
fn stored_output_is_shown_when_its_host_is_dead_and_when_its_process_is_gone() {
    let fleet = Fleet::start(Size::default());
    fleet.run_with(&["apply", "-f", "-"], NAMESPACE).ok();
    let described = fleet.ok(&["describe", "namespace/default"]);
    assert!(described.contains("OSTLER_LOGS"), "{described}");
    fleet.converges(&counting("count", 1, (100_000, "0.02")));
    let (name, process) = fleet.until_running("count", 1).pop_first().expect("a process");
    until("some of it is stored", || (stored(&fleet, &name) > 50).then_some(()));

    // The agent dies alone: the next one goes on where it was.
    kill(daemon(&fleet, &format!("agent {}", process.node)));
    let before = stored(&fleet, &name);
    until("more of it is stored", || (stored(&fleet, &name) > before + 50).then_some(()));

    // The host dies.
    for pid in [
        daemon(&fleet, &format!("agent {}", process.node)),
        daemon(&fleet, &format!("holder {}", process.node)),
        process.pid,
    ] {
        kill(pid);
    }
    let last = stored(&fleet, &name);
    until("the host is Lost", || (fleet.phases().get(&process.node)? == "Lost").then_some(()));
    let done = fleet.run(&["logs", &name]);
    assert_eq!(done.code, 0, "{done:?}");
    let shown: Vec<u32> = done.out.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(shown, (1..=shown.len() as u32).collect::<Vec<_>>(), "each line once, in order");
    assert!(shown.len() >= last as usize, "{} of {last}", shown.len());
    assert!(done.err.contains("is lost") && done.err.contains("stored on the bus"), "{}", done.err);
    let tail = fleet.run(&["logs", &name, "--tail", "2"]);
    assert_eq!(tail.out.lines().count(), 2, "{tail:?}");

    // What ended in order is stored to its last line, and shown when nothing of it is left.
    fleet.converges(&counting("brief", 1, (60, "0.01")));
    let (name, _) = fleet.until_running("brief", 1).pop_first().expect("a process");
    until("it has said everything", || (stored(&fleet, &name) == 60).then_some(()));
    fleet.ok(&["delete", "deployment/brief", "--timeout", "60s"]);
    let done = fleet.run(&["logs", &name]);
    assert!(done.err.contains("is gone"), "{done:?}");
    let shown: Vec<u32> = done.out.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(shown, (1..=60).collect::<Vec<_>>());
}
