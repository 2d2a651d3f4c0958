//! Malformed objects of every kind, past the checks of the command line: refused whole, every one.

use harness::fleet::{Fleet, Size};
use ostler_cli::client::Client;
use ostler_cli::failure::Failure;
use ostler_schemas::Kind;
use ostler_schemas::manifest::{Document, encode_tree, read_documents};
use ostler_schemas::v1::api::{ApplyRequest, ManifestDocument};
use serde_bytes::ByteBuf;

use crate::work::deployment;

/// Specs that no kind accepts.
const SPECS: [&str; 13] = [
    "5",
    "[]",
    "[a, {b: c}]",
    "text",
    "true",
    "{unknown: 1}",
    "{replicas: -1, path: /etc/x, nodeSelector: {}, command: [relative]}",
    "{replicas: 1e999, template: {spec: {command: []}}, path: relative, nodeSelector: 3}",
    "{template: 5, path: /proc/x, nodeSelector: {}, command: 'a text', unschedulable: maybe}",
    "{template: {spec: {command: [/bin/true], env: {a: b}}}, path: '/etc/../x', nodeSelector: {}, taints: 5, command: [[]]}",
    "{template: {spec: {command: [/bin/true], restartSec: 10}}, path: '', nodeSelector: {}, command: [''], unknown: {}}",
    "{template: {spec: {command: [/bin/true, \"$(NOBODY)\"]}}, path: /etc/x, nodeSelector: {}, mode: 0644, command: [/x, \"$(NO)\"], taints: [{key: ''}]}",
    "{template: {spec: {command: [/bin/true], resources: {limits: {memory: 128m}}}}, path: \"/etc/\\u0007\", nodeSelector: {}, command: [/x], ports: 1, taints: [1]}",
];
/// Metadata that no kind accepts.
const METADATA: [&str; 6] = [
    "5",
    "{}",
    "{name: Web_1}",
    "{name: 'a/b'}",
    "{name: ok, labels: [a]}",
    "{name: ok, annotations: {a: {b: c}}, revision: -1}",
];

fn tree(yaml: &str) -> Vec<u8> {
    let documents: Vec<Document> = read_documents(Some("hostile.yaml"), yaml.as_bytes());
    documents.first().map(encode_tree).unwrap_or_default()
}

fn request(trees: Vec<Vec<u8>>) -> ApplyRequest {
    let document = |tree| ManifestDocument { file: None, tree: ByteBuf::from(tree), content: None };
    let documents = trees.into_iter().map(document).collect();
    ApplyRequest { documents, content: None, force: true, retry: false, dry_run: false, reason: None }
}

/// All of them, each with a name for messages.
fn hostile() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let kind = kind.as_str();
        for spec in SPECS {
            let yaml =
                format!("apiVersion: ostler/v1\nkind: {kind}\nmetadata: {{name: bad}}\nspec: {spec}\n");
            all.push((format!("{kind} with spec {spec}"), tree(&yaml)));
        }
        for metadata in METADATA {
            let yaml = format!("apiVersion: ostler/v1\nkind: {kind}\nmetadata: {metadata}\nspec: {{}}\n");
            all.push((format!("{kind} with metadata {metadata}"), tree(&yaml)));
        }
        let deep = format!("{}1{}", "{a: ".repeat(62), "}".repeat(62));
        let yaml = format!("apiVersion: ostler/v1\nkind: {kind}\nmetadata: {{name: bad}}\nspec: {deep}\n");
        all.push((format!("{kind} with depth"), tree(&yaml)));
        let wide: String = (0..20_000).map(|n| format!("  k{n}: {n}\n")).collect();
        let yaml = format!("apiVersion: ostler/v1\nkind: {kind}\nmetadata: {{name: bad}}\nspec:\n{wide}");
        all.push((format!("{kind} with width"), tree(&yaml)));
    }
    for (number, yaml) in
        ["5", "[]", "apiVersion: ostler/v2\nkind: Node\n", "kind: Deployment\n", "kind: 5\n"]
            .iter()
            .enumerate()
    {
        all.push((format!("document {number}"), tree(yaml)));
    }
    for cut in [0, 1, 40, 200] {
        let mut whole = tree(&deployment("bad", 1));
        whole.truncate(cut);
        all.push((format!("a tree cut after {cut} bytes"), whole));
    }
    all
}

async fn refused(client: &Client, what: &str, trees: Vec<Vec<u8>>) {
    match client.apply(&request(trees)).await {
        Err(Failure::Refused(_)) => {}
        // Not even a tree: there is nothing whose findings could be listed.
        Err(Failure::Api(error)) => assert!(format!("{:?}", error.code) == "Invalid", "{what}: {error:?}"),
        Err(failure) => panic!("{what}: {failure}"),
        Ok(reply) => panic!("{what} was accepted: {:?}", reply.results),
    }
}

#[test]
fn of_every_kind_are_refused_whole() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    let daemons = fleet.daemons();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (client, _bus) = fleet.operator().await;
        for (what, tree) in hostile() {
            refused(&client, &what, vec![tree]).await;
        }
        // One bad document takes the good ones with it.
        let good = tree(&deployment("good", 1));
        let bad = tree("apiVersion: ostler/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: 5\n");
        refused(&client, "a good and a bad one", vec![good, bad]).await;
        refused(&client, "451 documents", vec![tree(&deployment("many", 1)); 451]).await;
    });
    assert_eq!(fleet.daemons(), daemons, "no daemon has ended: {}", fleet.log());
    for kind in ["deployments", "processes", "configfiles"] {
        assert!(fleet.get(&[kind]).is_empty(), "nothing is stored: {kind}");
    }
    fleet.converges(&deployment("good", 1));
}
