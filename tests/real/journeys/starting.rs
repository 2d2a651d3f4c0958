//! What becomes of processes that are not ready, or do not start.

use std::net::TcpListener;

use harness::fleet::{Fleet, Size, until};

use crate::work::deployment;

#[test]
fn a_probe_decides_when_a_process_is_ready() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    // The test itself is what the probe looks at: it decides when the process is ready, and when it is not.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let probe = format!(
        "      readinessProbe: {{tcpSocket: {{port: {port}, host: 127.0.0.1}}, period: 1s, failureThreshold: 1}}\n      command:"
    );
    fleet.run_with(&["apply", "-f", "-"], &deployment("web", 1).replace("      command:", &probe)).ok();
    let started = until("it runs, and is not ready", || {
        let all = fleet.try_get(&["processes"])?;
        let status = &all.first()?["status"];
        (status["phase"] == "Running" && status["ready"] == false).then(|| status["pid"].as_u64())?
    });
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let ready = fleet.until_running("web", 1);
    assert_eq!(ready.values().next().map(|process| u64::from(process.pid)), Some(started));
    drop(listener);
    until("it is not ready any more", || fleet.running("web").is_empty().then_some(()));
    let all = fleet.get(&["processes"]);
    assert_eq!(all[0]["status"]["pid"].as_u64(), Some(started), "readiness restarts nothing");
    fleet.until_event("ProbeFailed", "process/web");
}

#[test]
fn a_process_that_fails_again_and_again_is_replaced_at_its_limit() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    let limits = "      restartSec: 100ms\n      startLimitBurst: 3\n      command: [/bin/sh, -c, \"echo no; exit 3\"]\n";
    let mut text = deployment("web", 1);
    text.truncate(text.find("      command:").expect("a command"));
    fleet.run_with(&["apply", "-f", "-"], &(text + limits)).ok();
    let first = until("a process is in a crash loop", || {
        let all = fleet.try_get(&["processes"])?;
        let looping = all.iter().find(|process| process["status"]["reason"] == "CrashLoop")?;
        Some(looping["metadata"]["uid"].as_str()?.to_owned())
    });
    fleet.until_event("CrashLoop", "process/web");
    until("its owner has made another", || {
        let all = fleet.try_get(&["processes"])?;
        all.iter().any(|process| process["metadata"]["uid"] != first.as_str()).then_some(())
    });
    let exits = fleet.events().into_iter().filter(|event| event["reason"] == "Exited").collect::<Vec<_>>();
    assert!(
        exits.iter().any(|event| event["message"].as_str().is_some_and(|m| m.contains('3'))),
        "{exits:?}"
    );
}
