//! Simulated hosts under real servers and controllers: `ostler sim agents`.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use harness::fleet::{Fleet, Running, Size, heard, term, until};
use serde_json::Value;

use crate::work::{CONTENT, config_file, deployment};

/// How many simulated hosts there are, and how many of them go.
const HOSTS: usize = 20;
const GOING: usize = 2;

/// `ostler sim agents` for some of the nodes, once all of them have settled.
fn agents(fleet: &Fleet, first: usize, count: usize, more: &[&str]) -> Child {
    let ready = fleet.folder().join(format!("agents-{first}.json"));
    let (first, count) = (first.to_string(), count.to_string());
    let words = ["sim", "agents", "--first", &first, "--nodes", &count, "--ready-file"];
    let mut command = fleet.command(&words);
    command.arg(&ready).args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("ostler starts");
    until("the simulated agents have settled", || ready.exists().then_some(()));
    child
}

fn end(child: Child) {
    term(child.id());
    let (status, out, err) = heard(child, harness::fleet::PATIENCE);
    assert!(status.is_some_and(|status| status.success()), "{out}{err}");
    assert!(out.contains("simulated agents run") && err.contains("ending"), "{out}{err}");
}

/// The states of a ConfigFile on the nodes.
fn states(fleet: &Fleet, file: &str) -> Option<Vec<(String, String)>> {
    let done = fleet.run(&["config", "status", file, "-o", "json"]);
    let value: Value = serde_json::from_str(&done.out).ok()?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let rows = value["items"].as_array()?.iter();
    Some(rows.map(|row| (text(&row["node"]), text(&row["state"]))).collect())
}

fn until_states(fleet: &Fleet, file: &str, state: &str, count: usize) -> Vec<String> {
    until(&format!("{count} nodes say {state} of {file}"), || {
        let all = states(fleet, file)?.into_iter().filter(|(_, s)| s == state);
        let nodes: Vec<String> = all.map(|(node, _)| node).collect();
        (nodes.len() == count).then_some(nodes)
    })
}

/// Only on simulated hosts, and two processes fill one of these.
fn simulated(manifest: &str) -> String {
    let selected = manifest.replace("nodeSelector: {}", "nodeSelector: {simulated: 'true'}");
    let template =
        "      nodeSelector: {simulated: 'true'}\n      resources: {requests: {cpu: 3}}\n      command:";
    selected.replace("      command:", template)
}

#[test]
fn simulated_hosts_take_files_and_processes_and_are_lost_when_they_end() {
    let folder = tempfile::Builder::new().prefix("ostler-real-").tempdir().expect("a folder").keep();
    let count = HOSTS.to_string();
    let size = Size { agents: 1, ..Size::default() };
    let fleet = Fleet::start_in(folder, size, &["--simulated".as_ref(), count.as_ref()]);
    let refused = fleet.run(&["sim", "agents", "--nodes", "21"]);
    assert!(refused.code == 1 && refused.err.contains("nodes 1 to 20"), "{refused:?}");
    let stay = agents(&fleet, 1, HOSTS - GOING, &["--latency", "2ms"]);
    let go = agents(&fleet, HOSTS - GOING + 1, GOING, &[]);
    fleet.nodes_become(&["Ready"]);
    assert_eq!(fleet.phases().len(), HOSTS + 1);

    // Two fill a host: every host has some.
    let web = deployment("web", 2 * HOSTS as u32);
    fleet.converges(&simulated(&[web, config_file("app-conf", "/etc/app.conf", CONTENT)].join("---\n")));
    let going = |node: &str| node == "sim-00019" || node == "sim-00020";
    let on = |running: &BTreeMap<String, Running>| running.values().filter(|p| going(&p.node)).count();
    let running = fleet.until_running("web", 2 * HOSTS);
    assert!(running.values().all(|p| p.node.starts_with("sim-")), "{running:?}");
    assert_eq!(on(&running), 2 * GOING, "{running:?}");
    until_states(&fleet, "app-conf", "InSync", HOSTS);

    end(go);
    let left = fleet.until_running("web", 2 * (HOSTS - GOING));
    assert_eq!(on(&left), 0, "{left:?}");
    assert!(left.iter().all(|(name, process)| running.get(name) == Some(process)), "others are not touched");
    fleet.until_event("Evicted", "process/web");
    assert_eq!(until_states(&fleet, "app-conf", "Offline", GOING), ["sim-00019", "sim-00020"]);

    // Hosts that are simulated anew have booted, and hold what all hold.
    let back = agents(&fleet, HOSTS - GOING + 1, GOING, &["--fail", "bad=100%"]);
    until_states(&fleet, "app-conf", "InSync", HOSTS);
    assert_eq!(on(&fleet.until_running("web", 2 * HOSTS)), 2 * GOING);
    // On these everything fails that contains a word.
    let text = config_file("app-conf", "/etc/app.conf", "bad = 1\n");
    let text = simulated(&text).replace("bake: 0s", "bake: 0s, waves: ['100%'], maxFailures: '100%'");
    fleet.run_with(&["apply", "-f", "-"], &text).ok();
    assert_eq!(until_states(&fleet, "app-conf", "Failed", GOING), ["sim-00019", "sim-00020"]);
    until_states(&fleet, "app-conf", "InSync", HOSTS - GOING);
    end(back);
    end(stay);
}
