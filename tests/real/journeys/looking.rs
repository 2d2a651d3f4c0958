//! Apply and look: the verbs of every day with their words and exit codes.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use harness::fleet::{Fleet, Size, kill};

use crate::work::deployment;

fn manifest(fleet: &Fleet, name: &str, text: &str) -> String {
    let file = fleet.folder().join(name);
    std::fs::write(&file, text).expect("written");
    file.to_str().expect("text").to_owned()
}

fn apply_and_compare(fleet: &Fleet) {
    let three = manifest(fleet, "web.yaml", &deployment("web", 3));
    assert!(fleet.run(&["diff", "-f", &three]).ends(1).contains("+  replicas: 3"));
    let said = fleet.ok(&["apply", "-f", &three, "--wait", "--reason", "a first try"]);
    assert!(said.contains("deployment/web created"), "{said}");
    assert!(fleet.ok(&["apply", "-f", &three]).contains("deployment/web unchanged"));
    assert_eq!(fleet.ok(&["diff", "-f", &three]), "");
    fleet.ok(&["validate", "-f", &three]);

    let bad = manifest(fleet, "bad.yaml", &deployment("web", 3).replace("replicas", "replicsa"));
    let refused = fleet.run(&["apply", "-f", &bad]).ends(1);
    assert!(
        refused.contains(":5:3: deployment/web: spec.replicsa: unknown field; did you mean replicas?"),
        "{refused}"
    );
    assert_eq!(fleet.run(&["diff", "-f", &bad]).code, 2);

    let said = fleet.ok(&["scale", "deployment/web", "--replicas", "2"]);
    assert!(said.contains("deployment/web scaled"), "{said}");
    fleet.until_running("web", 2);
    // The manifest would undo what scale did: said, and refused.
    let undone = fleet.run(&["apply", "-f", &three]).ends(1);
    assert!(undone.contains("scale") && undone.contains("user/dev"), "{undone}");
    fleet.ok(&["apply", "-f", &three, "--force", "--wait"]);
    fleet.until_running("web", 3);
}

fn look(fleet: &Fleet) {
    let table = fleet.ok(&["get", "deployments"]);
    assert!(table.starts_with("NAME  READY  UP-TO-DATE  VERSION  ROLLOUT"), "{table}");
    assert_eq!(fleet.ok(&["get", "deploy", "-o", "name"]).trim(), "deployment/web");
    assert_eq!(fleet.ok(&["get", "deploy/web", "-o", "jsonpath={.status.ready}"]).trim(), "3");
    let yaml = fleet.ok(&["get", "deploy/web", "-o", "yaml"]);
    // What is shown can be applied as it is.
    assert!(fleet.run_with(&["apply", "-f", "-"], &yaml).ok().contains("unchanged"));
    let wide = fleet.ok(&["get", "ps", "-o", "wide"]);
    assert!(
        wide.lines().next().is_some_and(|head| head.contains("PID") && head.contains("LAST-EXIT")),
        "{wide}"
    );
    let described = fleet.ok(&["describe", "deployment/web"]);
    assert!(described.contains("Processes:") && described.contains("Events:"), "{described}");
    let events = fleet.ok(&["events", "deployment/web"]);
    assert!(events.contains("RolloutComplete") && events.contains("Scaled"), "{events}");
    let node = fleet.ok(&["describe", "node/node-1"]);
    assert!(node.contains("Ready"), "{node}");
    let version = fleet.ok(&["version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert_eq!(fleet.run(&["get", "deployment/nobody"]).code, 1);
    assert_eq!(fleet.run(&["get", "unicorns"]).code, 1);
    assert_eq!(fleet.run(&["wait", "deploy/web", "--for=condition=Available", "--timeout", "30s"]).code, 0);
    assert_eq!(
        fleet.run(&["wait", "deploy/web", "--for=jsonpath={.status.ready}=7", "--timeout", "1s"]).code,
        2
    );
    assert_eq!(fleet.run(&["rollout", "status", "deployment/web"]).code, 0);
    assert_eq!(fleet.run(&["--context", "/nowhere/context.json", "get", "nodes"]).code, 1);
}

fn read_logs(fleet: &Fleet) {
    let running = fleet.until_running("web", 3);
    let name = running.keys().next().expect("a process");
    let text = fleet.ok(&["logs", name]);
    assert!(text.starts_with(&format!("up {name}")), "{text}");
    let last = fleet.ok(&["logs", name, "--tail", "1"]);
    assert_eq!(last.lines().count(), 1, "{last}");

    // Followed through a restart of the process: what the next incarnation says comes, too.
    let mut command = fleet.command(&["logs", "-f", name]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ostler starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let up = format!("up {name}");
    assert_eq!(lines.next().expect("a line").expect("text"), up);
    kill(running[name].pid);
    assert_eq!(lines.next().expect("another line").expect("text"), up, "said by the next incarnation");
    child.kill().and_then(|()| child.wait()).expect("ended");
}

#[test]
fn apply_look_read_and_delete() {
    let fleet = Fleet::start(Size::default());
    apply_and_compare(&fleet);
    look(&fleet);
    read_logs(&fleet);
    let pids: Vec<u32> = fleet.until_running("web", 3).values().map(|process| process.pid).collect();
    let said = fleet.ok(&["delete", "deployment/web", "--timeout", "60s"]);
    assert!(said.contains("deployment/web deleted"), "{said}");
    assert!(fleet.get(&["processes"]).is_empty(), "deleted means that its processes are gone");
    assert!(pids.into_iter().all(|pid| !harness::fleet::alive(pid)));
    assert_eq!(fleet.run(&["delete", "deployment/web"]).code, 1);
    fleet.ok(&["delete", "deployment/web", "--ignore-not-found"]);
}

#[test]
fn without_a_bus_it_is_said_what_was_tried() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    let context = fleet.setup().join("operators/dev/context.json");
    let text = std::fs::read_to_string(&context).expect("a context");
    let dead = fleet.folder().join("dead.json");
    let port = fleet.state()["ports"][0]["port"].to_string();
    let key = context.with_file_name("operator.nk");
    let ca = context.with_file_name("ca.pem");
    let text = text
        .replace(&port, "1")
        .replace("operator.nk", key.to_str().expect("text"))
        .replace("\"ca.pem\"", &format!("{:?}", ca.to_str().expect("text")));
    std::fs::write(&dead, text).expect("written");
    let done = fleet.run(&["--context", dead.to_str().expect("text"), "get", "nodes"]);
    assert_eq!(done.code, 4, "{done:?}");
    assert!(done.err.contains("tls://127.0.0.1:1") && done.err.contains("next:"), "{done:?}");
}
