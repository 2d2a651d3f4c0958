//! Files: pushed, seen, compared, put back, taken back.

use std::collections::BTreeMap;

use harness::fleet::{Fleet, Size, until};
use serde_json::Value;

use crate::work::deployment;

fn contents(fleet: &Fleet, path: &str) -> BTreeMap<String, String> {
    let nodes = fleet.phases().into_keys();
    nodes
        .filter_map(|node| Some((node.clone(), std::fs::read_to_string(fleet.file(&node, path)).ok()?)))
        .collect()
}

#[track_caller]
fn all_hold(fleet: &Fleet, path: &str, content: &str) {
    let now = contents(fleet, path);
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(now.values().all(|held| held == content), "{now:?}");
}

fn rows(text: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(text).expect("JSON");
    value["items"].as_array().expect("a list").clone()
}

fn push(fleet: &Fleet, content: &str, more: &[&str]) -> harness::fleet::Done {
    let words = ["config", "push", "app-conf", "--file", "-", "--bake", "0s", "--wait", "--timeout", "60s"];
    fleet.run_with(&[&words, more].concat(), content)
}

#[test]
fn a_file_is_pushed_compared_put_back_and_rolled_back() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    let path = "/etc/app.conf";
    // Not made yet, and it is not said where it goes.
    assert_eq!(push(&fleet, "a = 1\n", &[]).code, 1);
    let said = push(&fleet, "a = 1\n", &["--path", path, "--all-nodes", "--reason", "first"]).ok();
    assert!(said.contains("configfile/app-conf version 1"), "{said}");
    all_hold(&fleet, path, "a = 1\n");

    let said = push(&fleet, "a = 2\n", &["--reason", "second"]).ok();
    assert!(said.contains("version 2 (was 1)"), "{said}");
    all_hold(&fleet, path, "a = 2\n");
    let again = push(&fleet, "a = 2\n", &[]).ok();
    assert!(again.contains("unchanged"), "{again}");
    assert_eq!(push(&fleet, "a = 3\n", &["--if-version", "1"]).code, 1, "it is version 2");

    let status = rows(&fleet.ok(&["config", "status", "app-conf", "-o", "json"]));
    assert!(status.iter().all(|row| row["state"] == "InSync" && row["version"] == 2), "{status:?}");
    let history = rows(&fleet.ok(&["config", "history", "app-conf", "-o", "json"]));
    assert_eq!(history.len(), 2, "{history:?}");
    // As diff does, it ends with 1 where there are differences.
    let diff = fleet.run(&["config", "diff", "app-conf"]).ends(1);
    assert!(diff.contains("-a = 1") && diff.contains("+a = 2"), "{diff}");

    std::fs::write(fleet.file("node-2", path), "spoiled\n").expect("written");
    until("the file is put back", || {
        (contents(&fleet, path).get("node-2").map(String::as_str) == Some("a = 2\n")).then_some(())
    });
    fleet.until_event("DriftRepaired", "configfile/app-conf");

    let words = ["config", "rollback", "app-conf", "--reason", "back", "--wait", "--timeout", "60s"];
    let said = fleet.ok(&words);
    assert!(said.contains("version 3"), "{said}");
    all_hold(&fleet, path, "a = 1\n");
}

#[test]
fn a_process_waits_for_what_it_needs() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    let process = deployment("web", 1)
        .replace("      command:", "      needs: [configfile/app-conf@>=2]\n      command:");
    push(&fleet, "a = 1\n", &["--path", "/etc/app.conf", "--all-nodes"]).ok();
    fleet.run_with(&["apply", "-f", "-"], &process).ok();
    fleet.until_event("NeedsNotMet", "process/web");
    // The event may be there before the report that says the same.
    until("the process says what it waits for", || {
        let waiting = fleet.get(&["processes"]);
        let status = &waiting.first()?["status"];
        let named = status["message"].as_str().is_some_and(|m| m.contains("here is 1"));
        (status["phase"] == "Pending" && status["reason"] == "NeedsNotMet" && named).then_some(())
    });
    let done = fleet.run(&["wait", "deployment/web", "--for=condition=Available", "--timeout", "1s"]);
    assert_eq!(done.code, 2, "{done:?}");
    push(&fleet, "a = 2\n", &[]).ok();
    fleet.until_running("web", 1);
    // In use: not deleted without force.
    let refused = fleet.run(&["delete", "configfile/app-conf"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("deployment/web"), "{refused:?}");
    fleet.ok(&["delete", "configfile/app-conf", "--force"]);
    assert!(fleet.get(&["configfiles"]).is_empty());
    assert_eq!(contents(&fleet, "/etc/app.conf").len(), 2, "what is on the hosts stays, by default");
}
