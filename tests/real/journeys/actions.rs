//! What follows a change of a file: commands, reloads, restarts; and a version whose action fails comes back.

use harness::fleet::{Done, Fleet, Size, until};

use crate::work::deployment;

const PATH: &str = "/etc/app.conf";

fn manifest(actions: &str) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: app-conf}}\nspec:\n  path: {PATH}\n  \
         nodeSelector: {{}}\n  rollout: {{waves: [1, 100%], bake: 0s}}\n  onChange:\n{actions}"
    )
}

/// Notes each version in a file of the node.
const NOTE: &str =
    "    - exec: {command: [/bin/sh, -c, \"echo $(OSTLER_VERSION) >> $(OSTLER_ROOT)/ran\"], timeout: 20s}\n";
const RELOAD: &str = "    - reload: {processSelector: {matchLabels: {app: web}}}\n";
const RESTART: &str = "    - restart: {processSelector: {matchLabels: {app: web}}}\n";
const FAILING: &str = "    - exec: {command: [/bin/sh, -c, \"echo this is no good; test $(OSTLER_VERSION) -lt 4\"], timeout: 20s}\n";

fn push(fleet: &Fleet, content: &str) -> Done {
    let words = ["config", "push", "app-conf", "--file", "-", "--bake", "0s", "--wait", "--timeout", "90s"];
    fleet.run_with(&words, content)
}

fn lines(fleet: &Fleet, node: &str, path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(fleet.file(node, path)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_reads_a_file_hears_of_its_change_and_a_version_that_fails_comes_back() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    let reload = "      execReload: {command: [/bin/sh, -c, \"echo again >> $(OSTLER_ROOT)/reloads\"]}\n      command:";
    fleet.run_with(&["apply", "-f", "-"], &deployment("web", 2).replace("      command:", reload)).ok();
    let first = fleet.until_running("web", 2);
    fleet.run_with(&["apply", "-f", "-"], &manifest(&format!("{NOTE}{RELOAD}"))).ok();
    push(&fleet, "a = 1\n").ok();
    push(&fleet, "a = 2\n").ok();
    // A push that was waited for is one whose actions are done.
    for node in ["node-1", "node-2"] {
        assert_eq!(lines(&fleet, node, "/ran"), ["1", "2"], "{node}");
    }
    let reloads: usize = ["node-1", "node-2"].iter().map(|n| lines(&fleet, n, "/reloads").len()).sum();
    assert_eq!(reloads, 4, "each process, each version");
    assert_eq!(fleet.until_running("web", 2), first, "nobody was restarted");
    fleet.until_event("ActionRun", "configfile/app-conf");

    fleet.run_with(&["apply", "-f", "-"], &manifest(RESTART)).ok();
    push(&fleet, "a = 3\n").ok();
    let second = fleet.until_running("web", 2);
    assert!(second.iter().all(|(name, now)| first[name].pid != now.pid), "{first:?} {second:?}");
    assert!(second.values().all(|now| now.restarts == 1), "{second:?}");

    fleet.run_with(&["apply", "-f", "-"], &manifest(FAILING)).ok();
    let failed = push(&fleet, "a = 4\n");
    assert_eq!(failed.code, 2, "{failed:?}");
    until("the version before is back", || {
        let held: Vec<String> =
            ["node-1", "node-2"].iter().flat_map(|node| lines(&fleet, node, PATH)).collect();
        (held == ["a = 3", "a = 3"]).then_some(())
    });
    let event = fleet.until_event("ActionFailed", "configfile/app-conf");
    let said = event["message"].as_str().unwrap_or_default();
    assert!(said.contains("this is no good") && said.contains("exited with code 1"), "{event}");
    until("the rollout has returned", || {
        let file = fleet.try_get(&["configfile", "app-conf"])?;
        let status = &file.first()?["status"];
        (status["version"] == 3 && status["failedVersion"] == 4).then_some(())
    });
}
