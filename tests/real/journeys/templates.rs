//! Templates and folders: refused where they do not render, rendered for each node, put back, rolled out again.

use std::collections::BTreeMap;

use harness::fleet::{Fleet, Size, until};

fn held(fleet: &Fleet, path: &str) -> BTreeMap<String, String> {
    let nodes = fleet.phases().into_keys();
    nodes
        .filter_map(|node| Some((node.clone(), std::fs::read_to_string(fleet.file(&node, path)).ok()?)))
        .collect()
}

fn manifest(spec: &str) -> String {
    format!("apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: app-conf}}\nspec:\n{spec}")
}

const TEMPLATE: &str = "  path: /etc/app.conf\n  nodeSelector: {}\n  rollout: {waves: [100%], bake: 0s}\n  \
                        template: |\n    name = {{ node.name }}\n    rack = {{ node.labels.rack }}\n    port = {{ vars.port }}\n  \
                        vars: {port: 8080}\n  overrides:\n    - {nodes: [node-2], vars: {port: 8081}}\n";

#[test]
fn a_template_is_rendered_for_each_node() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    let apply = |text: &str| fleet.run_with(&["apply", "-f", "-", "--wait", "--timeout", "60s"], text);
    fleet.ok(&["label", "node/node-1", "rack=r1"]);
    let refused = apply(&manifest(TEMPLATE));
    assert_eq!(refused.code, 1, "{refused:?}");
    let words = "line 2, column 11: node.labels.rack is undefined on 1 of 2 nodes: node-2";
    assert!(refused.err.contains(words), "{refused:?}");
    assert!(fleet.get(&["configfiles"]).is_empty(), "refused whole");

    fleet.ok(&["label", "node/node-2", "rack=r2"]);
    apply(&manifest(TEMPLATE)).ok();
    let expected =
        |node: &str, rack: &str, port: u16| format!("name = {node}\nrack = {rack}\nport = {port}\n");
    let all = BTreeMap::from([
        ("node-1".to_owned(), expected("node-1", "r1", 8080)),
        ("node-2".to_owned(), expected("node-2", "r2", 8081)),
    ]);
    assert_eq!(held(&fleet, "/etc/app.conf"), all);
    let shown = fleet.ok(&["config", "render", "app-conf", "--node", "node-2"]);
    assert_eq!(shown, all["node-2"]);
    let yaml = fleet.ok(&["get", "configfile/app-conf", "-o", "yaml"]);
    assert!(yaml.contains("template: |") && yaml.contains("{{ node.labels.rack }}"), "{yaml}");
    // What was shown can be applied again.
    assert!(apply(&yaml).ok().contains("unchanged"));

    // A fact of one node changes: that node renders again, and the version stays.
    fleet.ok(&["label", "node/node-1", "rack=r9", "--overwrite"]);
    until("node-1 has its new rack", || {
        let now = held(&fleet, "/etc/app.conf");
        (now.get("node-1") == Some(&expected("node-1", "r9", 8080))).then_some(())
    });
    // Another hand is put right with what was rendered.
    std::fs::write(fleet.file("node-2", "/etc/app.conf"), "spoiled\n").expect("written");
    until("the file is put back", || {
        (held(&fleet, "/etc/app.conf")["node-2"] == all["node-2"]).then_some(())
    });
    // A pushed template is a new version.
    let push = ["config", "push", "app-conf", "--template", "-", "--wait", "--timeout", "60s"];
    let said = fleet.run_with(&push, "p={{ vars.port }}\n").ok();
    assert!(said.contains("version 2 (was 1)"), "{said}");
    assert_eq!(held(&fleet, "/etc/app.conf")["node-2"], "p=8081\n");
}

#[test]
fn several_files_are_one_version() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    let apply = |files: &str| {
        let spec = format!(
            "  path: /etc/app.d\n  nodeSelector: {{}}\n  onRemove: delete\n  rollout: {{waves: [100%], bake: 0s}}\n{files}"
        );
        fleet.run_with(&["apply", "-f", "-", "--wait", "--timeout", "60s"], &manifest(&spec)).ok()
    };
    let file = |name: &str| std::fs::read_to_string(fleet.file("node-1", &format!("/etc/app.d/{name}"))).ok();
    apply(
        "  files:\n    - {name: a.conf, content: one}\n    - {name: sub/b.conf, template: \"{{ node.name }}\"}\n",
    );
    assert_eq!((file("a.conf").as_deref(), file("sub/b.conf").as_deref()), (Some("one"), Some("node-1")));
    std::fs::write(fleet.file("node-1", "/etc/app.d/other"), "mine").expect("written");
    apply("  unlisted: delete\n  files:\n    - {name: a.conf, content: two}\n");
    until("what is not named is gone", || file("other").is_none().then_some(()));
    assert_eq!(file("a.conf").as_deref(), Some("two"));
    let diff = fleet.run(&["config", "diff", "app-conf"]).ends(1);
    assert!(diff.contains("-one") && diff.contains("+two"), "{diff}");
    fleet.ok(&["delete", "configfile/app-conf"]);
    until("the file is gone", || file("a.conf").is_none().then_some(()));
}
