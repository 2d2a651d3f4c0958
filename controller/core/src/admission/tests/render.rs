//! Templates: what must render, on which nodes, and how a refusal reads.

use ostler_schemas::manifest::{Finding, FindingCode};
use ostler_schemas::spec::{Spec, Var};
use ostler_schemas::v1::report::{Facts, Report};
use ostler_schemas::{Key, Kind};

use super::super::{Apply, ApplyOptions, Decision};
use super::{applied, findings, try_apply};
use crate::status::rig::{Rig, node_name, object};

const FILE: &str = "{apiVersion: ostler/v1, kind: ConfigFile, metadata: {name: app}, spec: {path: /etc/app.conf, nodeSelector: {}";

fn file(more: &str) -> String {
    format!("{FILE}, {more}}}}}\n")
}

fn fleet(nodes: &[&str]) -> Rig {
    let mut rig = Rig::new();
    for (n, node) in (1..).zip(nodes) {
        rig.node(node, n);
        let facts = Facts { hostname: format!("{node}.example.net"), ..Facts::default() };
        rig.put(&Key::Report(node_name(node)), &Report { facts, ..Report::default() });
    }
    rig
}

/// Runs the checks of a decision as the server does, a few nodes at a time.
fn run(rig: &Rig, decision: &Decision) -> Vec<Finding> {
    let mut out = Vec::new();
    for check in &decision.renders {
        let needed = decision.contents.iter().find(|needed| needed.content == check.content());
        let bytes = needed.and_then(|needed| needed.bytes.clone()).expect("came with the request");
        if let Some(found) = check.look_at_literal(&bytes) {
            out.extend(found);
            continue;
        }
        match check.begin(&rig.fleet, &bytes) {
            Ok(mut running) => {
                while running.step(1) {}
                out.extend(running.finish());
            }
            Err(finding) => out.push(*finding),
        }
    }
    out
}

fn tried(rig: &Rig, yaml: &str) -> Apply {
    try_apply(rig, yaml, &ApplyOptions::default()).expect("admitted so far")
}

fn told(rig: &Rig, yaml: &str) -> Vec<String> {
    run(rig, &tried(rig, yaml).decision).iter().map(ToString::to_string).collect()
}

#[test]
fn a_template_renders_on_every_node_or_is_refused_with_their_names() {
    let mut rig = fleet(&["web-1", "web-2", "web-3"]);
    let label = |rig: &mut Rig, node: &str, rack: &str| {
        let name = object(Kind::Node, node);
        let mut changed = (*rig.fleet.objects[&name].value).clone();
        changed.metadata.labels.insert("rack".to_owned(), rack.to_owned());
        rig.put(&Key::Object(name), &changed);
    };
    label(&mut rig, "web-1", "r1");
    let yaml = file("template: \"a\\nrack = {{ node.labels.rack }} {{ vars.port }}\\n\", vars: {port: 1}");
    assert_eq!(
        told(&rig, &yaml),
        [
            "m.yaml:1:122: configfile/app: spec.template: line 2, column 11: node.labels.rack is undefined on 2 of 3 \
          nodes: web-2, web-3; set it or write {{ node.labels.rack | default(\"…\") }}"
        ]
    );
    label(&mut rig, "web-2", "r2");
    label(&mut rig, "web-3", "r3");
    assert_eq!(told(&rig, &yaml), [""; 0]);
    let without = file("template: \"{{ vars.port }}\"");
    assert_eq!(run(&rig, &tried(&rig, &without).decision)[0].code, FindingCode::Unrenderable);
}

#[test]
fn what_is_no_template_is_refused_without_any_node() {
    let rig = Rig::new();
    let found = run(&rig, &tried(&rig, &file("template: \"{{ vars. }}\"")).decision);
    assert_eq!(found[0].code, FindingCode::Unrenderable);
    assert!(found[0].message.starts_with("line 1"), "{}", found[0].message);
    let found = run(&rig, &tried(&rig, &file("template: \"{{ service('db') }}\"")).decision);
    assert_eq!(found[0].code, FindingCode::NotSupported);
}

#[test]
fn what_is_not_written_in_its_syntax_is_refused_before_it_is_stored() {
    let mut rig = fleet(&["web-1", "web-2"]);
    let literal = |text: &str| file(&format!("content: {text:?}, validator: {{syntax: json}}"));
    assert_eq!(told(&rig, &literal("{\n  \"a\": 1\n}\n")), [""; 0]);
    assert_eq!(
        told(&rig, &literal("{\n  \"a\": 1,\n}\n")),
        ["m.yaml:1:121: configfile/app: spec.content: line 3, column 1: is not json: key must be a string"]
    );
    let name = object(Kind::Node, "web-2");
    let mut changed = (*rig.fleet.objects[&name].value).clone();
    changed.metadata.labels.insert("rack".to_owned(), "7,".to_owned());
    rig.put(&Key::Object(name), &changed);
    let template = "template: \"[{{ node.labels.rack | default('1') }}]\", validator: {syntax: json}";
    let found = told(&rig, &file(template));
    let place = "m.yaml:1:122: configfile/app: spec.template: rendered, line 1, column 4: is not json: ";
    assert!(found.len() == 1 && found[0].starts_with(place), "{found:?}");
    assert!(found[0].ends_with(" on 1 of 2 nodes: web-2"), "{found:?}");
}

#[test]
fn a_changed_node_must_render_what_it_has() {
    let mut rig = fleet(&["web-1"]);
    let template = "{{ node.vars.site }}";
    let both = format!(
        "{}---\n{{apiVersion: ostler/v1, kind: Node, metadata: {{name: web-1}}, spec: {{vars: {{site: ams}}}}}}\n",
        file(&format!("template: \"{template}\""))
    );
    let done = tried(&rig, &both);
    assert_eq!(run(&rig, &done.decision), []);
    applied(&mut rig, &both);
    let (_, spec) = rig.fleet.node(&node_name("web-1")).expect("is there");
    assert_eq!(spec.vars.get("site"), Some(&Var::Text("ams".to_owned())));
    // Left out, they are kept; taken away, the template does not render any more.
    let kept = "{apiVersion: ostler/v1, kind: Node, metadata: {name: web-1}, spec: {}}";
    let Some(Spec::Node(after)) = tried(&rig, kept).results[0].after.as_ref().map(|o| o.spec.clone()) else {
        panic!("is a Node")
    };
    assert!(after.vars.contains_key("site"));
    let gone = kept.replace("spec: {}", "spec: {vars: {}}");
    let check = &tried(&rig, &gone).decision.renders;
    assert_eq!(check.len(), 1);
    let mut running = check[0].begin(&rig.fleet, template.as_bytes()).expect("is a template");
    while running.step(8) {}
    let found = running.finish();
    assert_eq!((found[0].object.as_str(), found[0].field.as_str()), ("node/web-1", "spec.vars"));
}

#[test]
fn a_version_rises_with_all_that_is_rendered_from() {
    let mut rig = fleet(&["web-1"]);
    let version = |rig: &mut Rig, more: &str| applied(rig, &file(more)).results[0].version.0;
    assert_eq!(version(&mut rig, "template: x"), 1);
    assert_eq!(version(&mut rig, "template: x"), 1);
    assert_eq!(version(&mut rig, "template: x, vars: {a: 1}"), 2);
    assert_eq!(
        version(&mut rig, "template: x, vars: {a: 1}, overrides: [{nodes: [web-1], vars: {a: 2}}]"),
        3
    );
    assert_eq!(version(&mut rig, "vars: {a: 1}, overrides: [{nodes: [web-1], vars: {a: 2}}]"), 3);
    assert_eq!(version(&mut rig, "drift: warn, template: x, vars: {a: 1}"), 4);
    assert_eq!(version(&mut rig, "content: x"), 5);
    let found = findings(&rig, &file("vars: {a: 1}"));
    assert_eq!(found[0].to_string(), "m.yaml:1:118: configfile/app: spec.vars: vars need template");
}

#[test]
fn several_files_are_one_version_and_never_become_one_file() {
    let mut rig = fleet(&["web-1"]);
    let several = file("files: [{name: a, content: x}, {name: b, template: \"{{ node.hostname }}\"}]");
    let done = applied(&mut rig, &several);
    assert_eq!(
        (done.results[0].version.0, done.decision.contents.len(), done.decision.renders.len()),
        (1, 2, 1)
    );
    let found = findings(&rig, &file("content: x"));
    assert_eq!((found[0].code, found[0].field.as_str()), (FindingCode::Immutable, "spec.files"));
    // A path in the folder is taken, for files and for folders of others.
    for other in
        ["path: /etc/app.conf/b, nodeSelector: {}, content: x", "path: /etc/app.conf, nodeSelector: {}"]
    {
        let yaml = format!(
            "{{apiVersion: ostler/v1, kind: ConfigFile, metadata: {{name: other}}, spec: {{{other}}}}}"
        );
        assert_eq!(findings(&rig, &yaml)[0].code, FindingCode::PathConflict, "{other}");
    }
    let beside = "{apiVersion: ostler/v1, kind: ConfigFile, metadata: {name: other}, spec: {path: /etc/app.conf/c, nodeSelector: {}, content: x}}";
    applied(&mut rig, beside);
    let all = file("unlisted: delete, files: [{name: a, content: x}]");
    assert_eq!(findings(&rig, &all)[0].code, FindingCode::PathConflict, "it would remove the other's file");
}
