//! Drift as an operator sees it, and the ways in and out: adopted, compared with what was there before, released.

use std::fs;
use std::process::{Command, Stdio};

use harness::fleet::{Fleet, Size, until};
use serde_json::Value;

const PATH: &str = "/etc/app.conf";

fn items(text: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(text).expect("JSON");
    value["items"].as_array().expect("a list").clone()
}

fn push(fleet: &Fleet, content: &str, more: &[&str]) -> String {
    let words = ["config", "push", "app-conf", "--file", "-", "--bake", "0s", "--wait", "--timeout", "60s"];
    fleet.run_with(&[&words, more].concat(), content).ok()
}

fn is_there(fleet: &Fleet, node: &str, content: &str) -> bool {
    fs::read_to_string(fleet.file(node, PATH)).is_ok_and(|held| held == content)
}

#[test]
fn a_writer_is_named_or_said_to_be_unknown_and_a_fight_ends_with_a_retry() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    push(&fleet, "a = 1\nb = 2\n", &["--path", PATH, "--all-nodes"]);
    let at = fleet.file("node-2", PATH);
    let script = format!("echo 'c = 3' >> {}; read line", at.display());
    let mut shell =
        Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("starts");
    let event = fleet.until_event("DriftRepaired", "configfile/app-conf");
    let message = event["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("1 line put back; "), "{message}");
    until("it is put back", || is_there(&fleet, "node-2", "a = 1\nb = 2\n").then_some(()));
    fleet.ok(&["config", "status", "app-conf", "--wait", "--timeout", "60s"]);
    let rows = items(&fleet.ok(&["config", "status", "app-conf", "-o", "json"]));
    let row = rows.iter().find(|row| row["node"] == "node-2").expect("a row");
    let drift = &row["lastDrift"];
    assert!(drift["diff"].as_str().is_some_and(|diff| diff.contains("+c = 3")), "{drift}");
    match drift["pid"].as_u64() {
        Some(pid) => {
            assert_eq!((pid, &drift["unknown"]), (u64::from(shell.id()), &Value::Null), "{drift}");
            assert!(message.contains(&format!("(pid {pid}, uid ")), "{message}");
        }
        None => assert!(drift["unknown"].is_string() && drift["exe"].is_null(), "{drift}"),
    }
    drop(shell.stdin.take());
    shell.wait().expect("ends");

    // The same change again and again is a fight; it is told once, and given in to.
    let script = format!("while :; do echo theirs > {}; done", at.display());
    let mut fighter = Command::new("/bin/sh").args(["-c", &script]).spawn().expect("starts");
    fleet.until_event("Contested", "configfile/app-conf");
    let status = fleet.run(&["config", "status", "app-conf", "--wait", "--timeout", "1s"]);
    assert_eq!(status.code, 2, "{status:?}");
    assert!(status.out.contains("Contested") && status.out.contains("put back 3 times in 10m"), "{status:?}");
    fighter.kill().expect("ends");
    fighter.wait().expect("ends");
    let told = fleet.count("Contested") + fleet.count("DriftRepaired") + fleet.count("DriftFound");
    assert!(told <= 4, "a fight is no flood of events: {told}");
    let again = push(&fleet, "a = 1\nb = 2\n", &["--retry"]);
    assert!(again.contains("version 2 (was 1)"), "{again}");
    until("it is put back for good", || is_there(&fleet, "node-2", "a = 1\nb = 2\n").then_some(()));
    fleet.ok(&["config", "status", "app-conf", "--wait", "--timeout", "60s"]);
}

#[test]
fn what_hosts_have_is_adopted_compared_and_released() {
    let fleet = Fleet::start(Size { agents: 3, ..Size::default() });
    for (node, content) in [("node-1", "a = 1\n"), ("node-2", "a = 1\n"), ("node-3", "a = odd\n")] {
        let at = fleet.file(node, PATH);
        fs::create_dir_all(at.parent().expect("a folder")).expect("made");
        fs::write(at, content).expect("written");
    }
    let groups = items(&fleet.ok(&["config", "adopt", "--path", PATH, "--all-nodes", "-o", "json"]));
    let nodes: Vec<usize> = groups.iter().map(|g| g["nodes"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(nodes, [2, 1], "{groups:?}");
    let table = fleet.ok(&["config", "adopt", "--path", PATH, "--all-nodes"]);
    assert!(table.starts_with("HASH ") && table.contains("node-3"), "{table}");
    let hash = groups[0]["sha256"].as_str().expect("a hash").to_owned();
    let words = ["config", "adopt", "--path", PATH, "--all-nodes", "--pick", &hash[..8], "--wait"];
    let said = fleet.ok(&words);
    assert!(said.contains("configfile/app-conf version 1 created"), "{said}");
    until("all have it", || {
        ["node-1", "node-2", "node-3"].iter().all(|node| is_there(&fleet, node, "a = 1\n")).then_some(())
    });
    assert_eq!(fleet.run(&words).code, 1, "it is there already");

    let diff = fleet.run(&["config", "diff", "app-conf", "--original", "--node", "node-3"]).ends(1);
    assert!(diff.contains("-a = odd") && diff.contains("+a = 1"), "{diff}");
    let same = fleet.run(&["config", "diff", "app-conf", "--original", "--node", "node-1"]).ends(0);
    assert_eq!(same, "");
    assert_eq!(fleet.run(&["config", "diff", "app-conf", "--original"]).code, 2, "of which host?");

    let said = fleet.ok(&["config", "release", "app-conf", "--reason", "managed elsewhere", "--wait"]);
    assert!(said.contains("released: version 1 stays on 3 nodes"), "{said}");
    assert!(fleet.get(&["configfiles"]).is_empty());
    fleet.until_event("Released", "configfile/app-conf");
    for node in ["node-1", "node-2", "node-3"] {
        assert!(is_there(&fleet, node, "a = 1\n"), "{node} keeps it");
    }
}
