//! Changes whose answer never comes: the controller that works on them is killed, again and again.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::fleet::{Fleet, Size, kill, until};
use serde_json::Value;

use crate::work::deployment;

/// So many deaths are met at least.
const KILLS: usize = 6;
/// So many changes of each kind are made at least: some of them meet the moment in which a controller dies.
const ROUNDS: u64 = 20;

fn generation(fleet: &Fleet, object: &str) -> u64 {
    fleet.get(&[object])[0]["metadata"]["generation"].as_u64().expect("a generation")
}

/// Whether a controller says that it serves: its process alone is there long before.
fn is_ready(controller: &Value) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(controller["http"].as_str()?).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    ask().is_some_and(|answer| answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
}

/// Kills one controller after another, each when it is back, until told to stop.
fn kill_controllers(fleet: &Fleet, stop: &AtomicBool, killed: &AtomicUsize) {
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let state = fleet.state();
        let all = state["controllers"].as_array().cloned().unwrap_or_default();
        let pids: Vec<u64> = all.iter().filter_map(|c| c["pid"].as_u64()).collect();
        // One at a time: somebody must be there to take what is sent again.
        let turn = killed.load(Ordering::Relaxed) % pids.len().max(1);
        let victim = pids.get(turn).copied().filter(|pid| *pid != last);
        if let Some(pid) = victim.and_then(|pid| u32::try_from(pid).ok()) {
            last = u64::from(pid);
            kill(pid);
            killed.fetch_add(1, Ordering::Relaxed);
            until("the controller is back", || {
                let state = fleet.state();
                let all = state["controllers"].as_array()?.clone();
                let another = all.iter().all(|c| c["pid"].as_u64() != Some(last));
                (another && state["http"].as_array()?.iter().all(is_ready)).then_some(())
            });
        }
    }
}

#[test]
fn every_change_is_made_once_while_controllers_are_killed() {
    let fleet = Fleet::start(Size { agents: 1, controllers: 2, ..Size::default() });
    fleet.converges(&deployment("web", 0));
    let push =
        ["config", "push", "app", "--file", "-", "--path", "/etc/app.conf", "--all-nodes", "--bake", "0s"];
    fleet.run_with(&push, "a = 0\n").ok();
    fleet.run_with(&push, "a = 1\n").ok();
    let (web, app) = (generation(&fleet, "deployment/web"), generation(&fleet, "configfile/app"));
    let (stop, killed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rounds = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_controllers(&fleet, &stop, &killed));
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut round = 0;
            while round < ROUNDS || killed.load(Ordering::Relaxed) < KILLS {
                round += 1;
                let manifest = deployment("web", 0).replace("sleep 1", &format!("sleep 1.{round}"));
                let said = fleet.run_with(&["apply", "-f", "-"], &manifest).ok();
                assert!(said.contains("deployment/web configured"), "{said}");
                // To the version before the present one, each time: made twice, it would make two versions.
                let before = round.to_string();
                let said = fleet.ok(&["config", "rollback", "app", "--to-version", &before]);
                assert!(said.contains(&format!("version {}", round + 2)), "{said}");
            }
            round
        }));
        stop.store(true, Ordering::Relaxed);
        killer.join().expect("the killer");
        changes.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!(generation(&fleet, "deployment/web"), web + rounds);
    assert_eq!(generation(&fleet, "configfile/app"), app + rounds);
}
