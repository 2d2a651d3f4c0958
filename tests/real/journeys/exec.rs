//! Commands beside a process: pipes, a terminal, how they end, and what is remembered of them.

use std::process::{Command, Stdio};

use harness::fleet::{Fleet, Size};

use crate::work::deployment;

#[test]
fn commands_run_beside_a_process_and_end_as_they_say() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    fleet.run_with(&["apply", "-f", "-"], &deployment("web", 1)).ok();
    let running = fleet.until_running("web", 1);
    let name = running.keys().next().expect("a process").clone();

    let done = fleet.run(&["exec", &name, "--", "/bin/sh", "-c", "echo $OSTLER_NAME; echo err >&2; exit 7"]);
    assert_eq!((done.code, done.out.trim(), done.err.trim()), (7, name.as_str(), "err"));
    let echoed = fleet.run_with(&["exec", "-i", "deployment/web", "--", "cat"], &"x".repeat(300_000)).ok();
    assert_eq!(echoed.len(), 300_000);
    fleet.run(&["exec", "deployment/web", "--", "/bin/sh", "-c", "kill -9 $$"]).ends(137);
    let told = fleet.run(&["exec", &name, "--", "/no/such/program"]).ends(1);
    assert_eq!(told, "error: exec /no/such/program: No such file or directory\n");
    let told = fleet.run(&["exec", "-t", &name, "--", "true"]).ends(1);
    assert!(told.contains("-t needs a terminal"), "{told}");
    assert_eq!(fleet.until_running("web", 1), running, "a command is no part of its process");

    fleet.ok(&["scale", "deployment/web", "--replicas", "2"]);
    fleet.until_running("web", 2);
    let told = fleet.run(&["exec", "deployment/web", "--", "true"]).ends(1);
    assert!(told.contains("has 2 processes, choose one: web-"), "{told}");
}

#[test]
fn a_terminal_is_passed_through_and_given_back_whatever_happens() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: python3, which plays the person at the terminal, is not installed");
        return;
    }
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    fleet.run_with(&["apply", "-f", "-"], &deployment("web", 1)).ok();
    fleet.until_running("web", 1);
    let daemons = fleet.daemons();
    let agent = daemons.iter().find(|(name, _)| name.starts_with("agent")).map(|(_, pid)| *pid);
    let agent = agent.unwrap_or_else(|| panic!("no agent among {daemons:?}"));
    let ostler = fleet.command(&["version"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/real/journeys/exec.py");
    let mut person = Command::new("python3");
    person.arg(script).arg(ostler.get_program()).arg("deployment/web").arg(agent.to_string());
    for (name, value) in ostler.get_envs() {
        match value {
            Some(value) => person.env(name, value),
            None => person.env_remove(name),
        };
    }
    let done = person.output().expect("python3 starts");
    let said = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(said.0.trim(), "done", "{said:?}");
}
