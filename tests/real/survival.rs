//! Whatever of the control plane is killed, work goes on untouched, and what is asked afterwards comes to be.

use std::collections::BTreeSet;

use harness::fleet::{Fleet, Size, kill, until};
use serde_json::Value;

use crate::work::{Untouched, config_file, deployment, settle};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Controllers,
    Servers,
    Agents,
}

fn pids(state: &Value, victim: Victim) -> Vec<u64> {
    let (list, field) = match victim {
        Victim::Controllers => ("controllers", "pid"),
        Victim::Servers => ("servers", "pid"),
        Victim::Agents => ("hosts", "agent"),
    };
    let items = state[list].as_array().expect("a list");
    items.iter().filter_map(|item| item[field].as_u64()).collect()
}

/// Kills all of these at once and waits until others stand in their place.
fn kill_all(fleet: &Fleet, victims: &[Victim], untouched: &Untouched) {
    let state = fleet.state();
    let dead: BTreeSet<u64> = victims.iter().flat_map(|victim| pids(&state, *victim)).collect();
    for pid in &dead {
        kill(u32::try_from(*pid).expect("a pid"));
    }
    untouched.holds_on_the_hosts();
    until(&format!("{victims:?} run again"), || {
        let now = fleet.state();
        victims
            .iter()
            .all(|victim| {
                let after = pids(&now, *victim);
                after.len() == pids(&state, *victim).len() && after.iter().all(|pid| !dead.contains(pid))
            })
            .then_some(())
    });
    fleet.nodes_become(&["Ready"]);
    untouched.holds(fleet);
}

#[test]
fn killed_one_by_one_and_all_at_once_nothing_happens_to_work() {
    let fleet = Fleet::start(Size::default());
    let untouched = settle(&fleet);
    let rounds: [&[Victim]; 4] = [
        &[Victim::Controllers],
        &[Victim::Servers],
        &[Victim::Agents],
        &[Victim::Controllers, Victim::Servers, Victim::Agents],
    ];
    for (number, victims) in rounds.into_iter().enumerate() {
        kill_all(&fleet, victims, &untouched);
        let (name, path) = (format!("after-{number}"), format!("/etc/after-{number}.conf"));
        fleet.converges(&[deployment(&name, 1), config_file(&name, &path, "x = 1\n")].join("---\n"));
        for node in fleet.phases().into_keys() {
            let content = std::fs::read_to_string(fleet.file(&node, &path)).expect("the new file");
            assert_eq!(content, "x = 1\n");
        }
        untouched.holds(&fleet);
    }
}

#[test]
fn what_is_wanted_while_everything_is_down_comes_when_it_is_up() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    fleet.converges(&deployment("web", 2));
    let before = fleet.until_running("web", 2);
    let (name, victim) = before.iter().next().expect("a process");
    let state = fleet.state();
    for victims in [Victim::Controllers, Victim::Servers, Victim::Agents] {
        for pid in pids(&state, victims) {
            kill(u32::try_from(pid).expect("a pid"));
        }
    }
    // Its holder sees the end of this process while nobody else is there to be told.
    kill(victim.pid);
    let after = until("the process runs again, its end accounted for", || {
        let now = fleet.running("web");
        now.get(name).filter(|process| process.restarts == 1).cloned()
    });
    assert_eq!(after.node, victim.node, "it is started again where it was");
    assert_ne!(after.pid, victim.pid);
    fleet.until_event("Exited", "process/web");
    let others = fleet.until_running("web", 2).into_iter().filter(|(other, _)| other != name);
    assert!(others.into_iter().all(|(other, process)| before[&other] == process), "the others go on");
    assert_eq!(fleet.count("Evicted"), 0);
}
