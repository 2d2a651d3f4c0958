//! A host dies with all that ran on it, is replaced elsewhere, and comes back.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use harness::fleet::{Fleet, Size, alive, kill, until};
use serde_json::Value;

use crate::work::{CONTENT, config_file, deployment};

/// A host that was started again: agent and holder, which end with this value and their processes before them.
struct Again {
    agent: Child,
    holder: Child,
    end: Command,
}

impl Drop for Again {
    fn drop(&mut self) {
        self.agent.kill().and_then(|()| self.agent.wait()).ok();
        // The holder's own way to end a host: processes first.
        self.end.status().ok();
        self.holder.kill().and_then(|()| self.holder.wait()).ok();
    }
}

/// The command line of a live process, from which the same can be started again.
fn words(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).expect("a live process");
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8(word.to_vec()).expect("text")).collect()
}

fn start(words: &[String], log: &Path) -> Child {
    let log = File::create(log).expect("a log");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("starts")
}

impl Again {
    fn start(fleet: &Fleet, agent: &[String], holder: &[String]) -> Self {
        let mut end = Command::new(&holder[0]);
        let folder = holder.iter().skip_while(|word| *word != "--dir").nth(1).expect("a folder");
        end.args(["holder", "--dir", folder, "--stop-all", "3000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let holder = start(holder, &fleet.folder().join("holder-again.log"));
        let agent = start(agent, &fleet.folder().join("agent-again.log"));
        Self { agent, holder, end }
    }
}

fn host(fleet: &Fleet, node: &str) -> Value {
    let state = fleet.state();
    let all = state["hosts"].as_array().expect("hosts");
    all.iter().find(|host| host["name"] == node).expect("the host").clone()
}

fn pid(host: &Value, of: &str) -> u32 {
    u32::try_from(host[of].as_u64().expect("a pid")).expect("a pid")
}

fn phase(fleet: &Fleet, node: &str) -> Option<String> {
    fleet.phases().remove(node)
}

#[test]
fn a_host_dies_is_replaced_and_comes_back() {
    let fleet = Fleet::start(Size::default());
    fleet.converges(&[deployment("web", 6), config_file("app-conf", "/etc/app.conf", CONTENT)].join("---\n"));
    let before = fleet.until_running("web", 6);
    let node = "node-2";
    let gone: Vec<u32> = before.values().filter(|p| p.node == node).map(|p| p.pid).collect();
    assert!(!gone.is_empty(), "some run on {node}: {before:?}");
    let host = host(&fleet, node);
    let (agent, holder) = (pid(&host, "agent"), pid(&host, "holder"));
    let (agent_words, holder_words) = (words(agent), words(holder));
    for pid in [agent, holder].into_iter().chain(gone.iter().copied()) {
        kill(pid);
    }

    until("the host is Lost", || phase(&fleet, node).filter(|phase| phase == "Lost"));
    let after = until("all run elsewhere", || {
        let now = fleet.running("web");
        (now.len() == 6 && now.values().all(|process| process.node != node)).then_some(now)
    });
    for (name, process) in before.iter().filter(|(_, process)| process.node != node) {
        assert_eq!(after.get(name), Some(process), "who was not there is not touched");
    }
    fleet.until_event("Lost", &format!("node/{node}"));

    // The same machine, switched on again: another boot, the same folders.
    let boot_id = fleet.file(node, "/etc/boot-id");
    std::fs::write(&boot_id, "0123456789abcdef0123456789abcdef\n").expect("written");
    std::fs::write(fleet.file(node, "/etc/app.conf"), "spoiled while nobody looked\n").expect("written");
    let _again = Again::start(&fleet, &agent_words, &holder_words);
    until("the host is Ready again", || phase(&fleet, node).filter(|phase| phase == "Ready"));
    until("its file is put back", || {
        let now = std::fs::read_to_string(fleet.file(node, "/etc/app.conf")).ok()?;
        (now == CONTENT).then_some(())
    });
    until("nothing is left of what ran there", || {
        let all = fleet.try_get(&["processes"])?;
        all.iter().all(|process| process["status"]["node"] != node).then_some(())
    });
    assert_eq!(fleet.until_running("web", 6), after, "those that replaced it stay");
    // It takes new work again: with two busy hosts beside it, it is the least loaded.
    fleet.converges(&deployment("more", 2));
    until("the host runs something", || {
        fleet
            .running("more")
            .into_values()
            .any(|process| process.node == node && alive(process.pid))
            .then_some(())
    });
}
