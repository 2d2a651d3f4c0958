//! What nodes and processes take, on a live fleet.

use harness::fleet::{Fleet, Size, until};
use serde_json::Value;

/// Two processes that work without a pause, and one that sleeps.
const BUSY: &str = "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {name: busy}\nspec:\n  replicas: 2\n  template:\n    \
                    spec: {command: [/bin/sh, -c, \"while :; do :; done\"]}\n\
                    ---\napiVersion: ostler/v1\nkind: Process\nmetadata: {name: lazy}\nspec: {command: [/bin/sleep, \"100000\"]}\n";

fn items(text: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(text).expect("json");
    list["items"].as_array().cloned().unwrap_or_default()
}

fn column<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = table.lines();
    let at = lines.next().and_then(|head| head.split_whitespace().position(|word| word == name));
    let at = at.unwrap_or_else(|| panic!("no column {name} in\n{table}"));
    lines.filter_map(|line| line.split_whitespace().nth(at)).collect()
}

#[test]
fn top_shows_who_is_busy() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    fleet.converges(BUSY);
    fleet.until_running("busy", 2);

    let table = until("the busy ones come first", || {
        let table = fleet.ok(&["top", "processes"]);
        let names = column(&table, "NAME");
        (names.len() == 3 && names[..2].iter().all(|name| name.starts_with("busy-"))).then_some(table)
    });
    for name in ["CPU", "MEMORY", "TASKS"] {
        assert!(column(&table, name).iter().all(|cell| *cell != "?"), "{table}");
    }
    let all = items(&fleet.ok(&["top", "ps", "-o", "json", "--sort-by", "name"]));
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|one| one["kind"] == "ProcessUsage" && one["usage"]["memory"].is_string()));
    assert_eq!(
        fleet.ok(&["top", "ps", "-A"]).lines().next().map(|head| head.starts_with("NAMESPACE")),
        Some(true)
    );
    let node = all[0]["node"].as_str().expect("a node").to_owned();
    let there = items(&fleet.ok(&["top", "ps", "--node", &node, "-o", "json"]));
    assert!(!there.is_empty() && there.iter().all(|one| one["node"] == node.as_str()));

    let nodes = fleet.ok(&["top", "nodes"]);
    assert_eq!(column(&nodes, "NAME").len(), 2, "{nodes}");
    assert!(column(&nodes, "CPU%").iter().all(|cell| cell.ends_with('%')), "{nodes}");
    let wide = fleet.ok(&["get", "ps", "-o", "wide"]);
    assert!(column(&wide, "PID").iter().all(|cell| *cell != "-"), "{wide}");
    let told = fleet.ok(&["describe", "process/lazy"]);
    assert!(told.lines().any(|line| line.contains("Usage:") && line.contains("memory")), "{told}");
    assert_eq!(fleet.run(&["top", "nodes", "--sort-by", "tasks"]).code, 1);
    assert_eq!(fleet.run(&["top", "deployments"]).code, 1);
}
