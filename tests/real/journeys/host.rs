//! A person on the host itself, while the bus is away: looks, holds, stops; everybody sees it when the bus is back.

use std::process::{Command, Output};

use harness::fleet::{Fleet, Size, programs, until};

use crate::work::deployment;

/// A server that hangs until this is dropped.
struct Hanging(u64);

impl Hanging {
    fn new(pid: u64) -> Self {
        signal("-STOP", pid);
        Self(pid)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

pub(super) fn signal(which: &str, pid: u64) {
    let done = Command::new("kill").args([which, &pid.to_string()]).status().expect("kill runs");
    assert!(done.success(), "kill {which} {pid}");
}

/// `ostler-agent …` on this host: its exit code and what it said.
pub(super) fn on_host(fleet: &Fleet, node: &str, words: &[&str]) -> (i32, String) {
    let host = fleet.folder().join("dev/hosts").join(node);
    let mut command = Command::new(programs().join("ostler-agent"));
    for (flag, folder) in
        [("--run-dir", "run"), ("--state-dir", "state"), ("--log-dir", "root/var/log/ostler")]
    {
        command.arg(flag).arg(host.join(folder));
    }
    let Output { status, stdout, stderr } = command.args(words).output().expect("ostler-agent runs");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap_or(-1), text)
}

#[test]
fn what_is_held_while_the_bus_is_away_is_seen_by_everybody_afterwards() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    fleet.converges(&deployment("web", 1));
    let name = fleet.until_running("web", 1).into_keys().next().expect("one runs");
    let server =
        fleet.daemons().into_iter().find(|(who, _)| who.starts_with("pid nats")).expect("a server").1;
    {
        let _hanging = Hanging::new(server);
        until("the agent is alone", || {
            let (code, text) = on_host(&fleet, "node-1", &["status"]);
            (code == 1 && text.contains("alone since")).then_some(())
        });
        let (code, text) = on_host(&fleet, "node-1", &["why", &name]);
        assert!(code == 0 && text.contains("deployment/web"), "{code} {text}");
        let (code, text) =
            on_host(&fleet, "node-1", &["hold", &name, "--for", "1h", "--reason", "core dump"]);
        assert!(code == 0 && text.contains("core dump"), "{code} {text}");
        let (code, text) = on_host(&fleet, "node-1", &["events"]);
        assert!(code == 0 && text.contains("core dump"), "{code} {text}");
        assert_eq!(on_host(&fleet, "node-1", &["restart", &name]).0, 1, "it is held");
    }
    fleet.until_event("Held", &format!("process/{name}"));
    until("the process is shown as held", || {
        let shown = fleet.get(&["processes"]);
        let status = &shown.iter().find(|p| p["metadata"]["name"] == name.as_str())?["status"];
        let told = status["message"].as_str().is_some_and(|m| m.contains("core dump"));
        (status["phase"] == "Running" && status["reason"] == "Held" && told).then_some(())
    });
    until("and its node", || fleet.ok(&["get", "nodes"]).contains("Ready,Held").then_some(()));
    assert_eq!(on_host(&fleet, "node-1", &["release", "--all"]).0, 0);
    until("nothing is held", || (!fleet.ok(&["get", "nodes"]).contains("Held")).then_some(()));
}
