//! Every refusal, word for word, from files; what good manifests become; and that nothing panics.
//!
//! To renew the expected texts after a change of messages, run the tests with `OSTLER_WRITE_GOLDEN=1` and read the
//! difference.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ids::Sha256;
use crate::manifest::{
    Content, ManifestBody, decode_tree, detach_content, encode_tree, immutable_changes, read_documents,
    read_manifests, to_yaml, written_spec,
};
use crate::spec::{Source, Spec};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/manifests").join(name)
}

fn files(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder(name))
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().expect("has a name").to_string_lossy().into_owned();
        (name, std::fs::read(&path).expect("readable"))
    };
    paths.into_iter().map(read).collect()
}

fn compare(path: &Path, found: &str) {
    if std::env::var_os("OSTLER_WRITE_GOLDEN").is_some() {
        std::fs::write(path, found).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(expected == found, "{} differs; found:\n{found}", path.display());
}

fn over_the_wire(documents: &[Document]) -> Vec<Document> {
    documents
        .iter()
        .map(|document| decode_tree(&encode_tree(document)).expect("a tree that was read can travel"))
        .collect()
}

#[test]
fn refusals_are_word_for_word() {
    for (name, bytes) in files("bad") {
        let documents = read_documents(Some(&name), &bytes);
        let readable = documents.iter().all(|document| document.problems.is_empty());
        let travelled = over_the_wire(&documents);
        let refusal = check(documents, &Options::default()).expect_err(&name);
        compare(&folder("bad").join(&name).with_extension("txt"), &format!("{refusal}\n"));
        if readable {
            let again = check(travelled, &Options::default()).expect_err(&name);
            assert_eq!(again, refusal, "the server finds the same in {name}");
        }
    }
}

#[test]
fn good_manifests_become_complete_specs() {
    for (name, bytes) in files("good") {
        let manifests = read_manifests(Some(&name), &bytes, &Options::default())
            .unwrap_or_else(|refusal| panic!("{name} is refused:\n{refusal}"));
        let mut shown = String::new();
        for manifest in manifests {
            let (kind, name, namespace) = (manifest.kind, manifest.name.clone(), manifest.namespace.clone());
            let (labels, annotations) = (manifest.labels.clone(), manifest.annotations.clone());
            let mut contents: std::collections::BTreeMap<Sha256, Vec<u8>> = std::collections::BTreeMap::new();
            if let ManifestBody::ConfigFile(body) = &manifest.body {
                let alone = match &body.content {
                    Some(Content::Inline(bytes)) => Some(bytes),
                    Some(Content::Stored(_)) | None => None,
                };
                for bytes in alone.into_iter().chain(&body.files) {
                    contents.insert(Content::Inline(bytes.clone()).reference().sha256, bytes.clone());
                }
            }
            let spec = manifest.complete(None);
            let mut metadata = json!({ "name": name });
            if let Some(namespace) = namespace {
                metadata["namespace"] = json!(namespace);
            }
            metadata["labels"] = json!(labels);
            metadata["annotations"] = json!(annotations);
            let written = written_spec(&spec, &|content| contents.get(&content.sha256).cloned())
                .expect("has a JSON form");
            let object =
                json!({ "apiVersion": "ostler/v1", "kind": kind, "metadata": metadata, "spec": written });
            let yaml = to_yaml(&object);
            let again = read_manifests(None, yaml.as_bytes(), &Options::default())
                .unwrap_or_else(|refusal| panic!("what is shown is refused:\n{yaml}\n{refusal}"));
            assert_eq!(again.into_iter().map(|m| m.complete(None)).collect::<Vec<_>>(), [spec]);
            shown.push_str("---\n");
            shown.push_str(&yaml);
        }
        compare(&folder("good").join(&name).with_extension("complete"), &shown);
    }
}

fn one(text: &str) -> Manifest {
    let found = read_manifests(None, text.as_bytes(), &Options::default()).expect("is good");
    found.into_iter().next().expect("is one")
}

#[test]
fn the_defaults_of_manifests_are_those_of_the_type() {
    let process = one("{apiVersion: ostler/v1, kind: Process, metadata: {name: a}, spec: {command: [/x]}}");
    let of = crate::spec::ProcessTemplate::of(vec!["/x".to_owned()]);
    assert_eq!(process.body.process_template(), Some(&of));
    let read: crate::spec::ProcessTemplate =
        serde_json::from_value(serde_json::to_value(&of).expect("has a JSON form")).expect("reads");
    assert_eq!(read, of, "what is left out of the stored form is what nobody said");
}

const FILE: &str =
    "{apiVersion: ostler/v1, kind: ConfigFile, metadata: {name: a}, spec: {path: /a, nodeSelector: {}";

#[test]
fn what_has_a_verb_of_its_own_is_kept() {
    let with = one(&format!("{FILE}, content: x}}}}")).complete(None);
    let without = one(&format!("{FILE}}}}}"));
    assert_eq!(without.clone().complete(Some(&with)), with);
    let Spec::ConfigFile(spec) = without.complete(None) else { panic!("is a ConfigFile") };
    assert_eq!(spec.content, None);

    let head = "{apiVersion: ostler/v1, kind: Deployment, metadata: {name: a}, spec: {";
    let tail = "template: {spec: {command: [/x]}}}}";
    let three = one(&format!("{head} replicas: 3, {tail}")).complete(None);
    assert_eq!(one(&format!("{head}{tail}")).complete(Some(&three)), three);

    let node = "{apiVersion: ostler/v1, kind: Node, metadata: {name: a}";
    let cordoned =
        one(&format!("{node}, spec: {{unschedulable: true, reserved: {{cpu: 2}}}}}}")).complete(None);
    let Spec::Node(kept) = one(&format!("{node}}}")).complete(Some(&cordoned)) else { panic!("is a Node") };
    assert!(kept.unschedulable);
    assert_eq!(kept.reserved, crate::spec::Reserved::default(), "a field without a verb takes its default");
}

#[test]
fn large_content_is_sent_ahead() {
    let text = format!("{FILE}, contentBase64: aGVsbG8=}}}}");
    let mut documents = read_documents(None, text.as_bytes());
    assert_eq!(detach_content(&mut documents[0], 5), None);
    assert_eq!(detach_content(&mut documents[0], 4), Some(b"hello".to_vec()));
    let reference = Content::Inline(b"hello".to_vec()).reference();
    documents[0].content = Some(Source::Content(reference));
    let manifest = check(documents, &Options::default()).expect("is good").remove(0);
    let Spec::ConfigFile(spec) = manifest.complete(None) else { panic!("is a ConfigFile") };
    assert_eq!(spec.content, Some(reference));

    let mut both = read_documents(None, format!("{FILE}, content: x}}}}").as_bytes());
    both[0].content = Some(Source::Content(reference));
    let refusal = check(both, &Options::default()).expect_err("both are given");
    assert_eq!(refusal.findings[0].code, FindingCode::Conflicting);
}

/// An `apply` of the largest number of usual objects is one message of at most 1 MiB.
#[test]
fn trees_are_small_on_the_wire() {
    let usual = std::fs::read(folder("good").join("deployment.yaml")).expect("readable");
    let documents = read_documents(Some("deployment.yaml"), &usual);
    let size: usize = documents.iter().map(|document| encode_tree(document).len()).sum();
    assert!(size * MAX_OBJECTS < 1 << 20, "{size} bytes each");
}

#[test]
fn lists_in_lists_are_expanded() {
    let namespace = "{apiVersion: ostler/v1, kind: Namespace, metadata: {name: a}}";
    let text =
        format!("{{kind: List, items: [{{kind: List, items: [{namespace}]}}, {{kind: List, items: []}}]}}");
    assert_eq!(expand_lists(read_documents(None, text.as_bytes())).len(), 1);
}

fn messages(text: &str) -> Vec<String> {
    match read_manifests(None, text.as_bytes(), &Options::default()) {
        Ok(_) => Vec::new(),
        Err(refusal) => {
            refusal.findings.iter().map(|f| format!("{:?} {}: {}", f.code, f.field, f.message)).collect()
        }
    }
}

#[test]
fn what_is_too_large_says_how_large() {
    let content = "x".repeat((91 << 20) / 10);
    assert_eq!(
        messages(&format!("{FILE}, content: {content}}}}}")),
        ["TooLarge spec.content: is 9.1Mi, the limit is 8Mi"]
    );
    let process = |fields: &str| {
        format!(
            "{{apiVersion: ostler/v1, kind: Process, metadata: {{name: a}}, spec: {{command: [/x], {fields}}}}}"
        )
    };
    let env: Vec<String> = (0..501).map(|i| format!("{{name: A{i}, value: x}}")).collect();
    let found = messages(&process(&format!("env: [{}]", env.join(", "))));
    assert_eq!(found, ["TooLarge spec.env: has 501 entries, the limit is 500"]);
    let found = messages(&process(&format!("args: [{}]", "x".repeat(130 << 10))));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("TooLarge : is 130.") && found[0].ends_with("Ki, the limit is 128Ki"),
        "{found:?}"
    );
    let labels: Vec<String> = (0..65).map(|i| format!("l{i}: x")).collect();
    let found = messages(&process(&format!("nodeSelector: {{{}}}", labels.join(", "))));
    assert_eq!(found, ["TooLarge spec.nodeSelector: has 65 labels, the limit is 64"]);
    let note = "x".repeat(65 << 10);
    let found = messages(&format!(
        "{{apiVersion: ostler/v1, kind: Namespace, metadata: {{name: a, annotations: {{note: {note}}}}}}}"
    ));
    assert_eq!(found, ["TooLarge metadata.annotations: is 65.1Ki, the limit is 64Ki"]);
    let many: String = (0..451)
        .map(|i| format!("---\n{{apiVersion: ostler/v1, kind: Namespace, metadata: {{name: n{i}}}}}\n"))
        .collect();
    assert_eq!(messages(&many), ["TooLarge : has 451 objects, the limit is 450"]);
}

#[test]
fn a_refusal_as_json() {
    let refusal =
        read_manifests(Some("a.yaml"), b"kind: Namespace\nmetadata: {name: a}\n", &Options::default())
            .expect_err("apiVersion is missing");
    assert_eq!(
        refusal.to_json(),
        json!({"kind": "Refusal", "findings": [{"file": "a.yaml", "line": 1, "column": 1, "object": "namespace/a",
            "field": "apiVersion", "code": "MissingField", "message": "is required", "hint": "write ostler/v1"}]})
    );
    assert_eq!(refusal.summary(), "refused: 1 finding in 1 of 1 document; nothing was changed");
}

#[test]
fn what_cannot_change_is_named() {
    let at =
        |path: &str| one(&format!("{FILE}}}}}").replace("path: /a", &format!("path: {path}"))).complete(None);
    assert_eq!(immutable_changes(&at("/etc/a"), &at("/etc/a")), []);
    let message =
        "cannot change after creation (is /etc/app.conf, asked /etc/app2.conf): create another object";
    assert_eq!(
        immutable_changes(&at("/etc/app.conf"), &at("/etc/app2.conf")),
        [("spec.path", message.to_owned())]
    );
}

/// Text that is nearly a manifest: a good one with pieces exchanged.
fn nearly() -> impl Strategy<Value = String> {
    let sources: Vec<String> = ["good", "bad"]
        .into_iter()
        .flat_map(files)
        .filter_map(|(_, bytes)| String::from_utf8(bytes).ok())
        .collect();
    let piece = "[-a-z0-9:&*!|>'\"{}\\[\\],?%~$() \n]{0,8}";
    (prop::sample::select(sources), any::<prop::sample::Index>(), 0usize..20, piece).prop_map(
        |(text, at, cut, piece)| {
            let chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            let end = (at + cut).min(chars.len());
            let before: String = chars[..at].iter().collect();
            let after: String = chars[end..].iter().collect();
            format!("{before}{piece}{after}")
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ignored = read_manifests(None, &bytes, &Options::default());
    }

    #[test]
    fn nearly_good_manifests_never_panic(text in nearly()) {
        match read_manifests(Some("x"), text.as_bytes(), &Options::default()) {
            Ok(manifests) => {
                for manifest in manifests {
                    let spec = manifest.complete(None);
                    let json = spec.to_json().map_err(|e| TestCaseError::fail(e.to_string()))?;
                    let back = Spec::from_json(spec.kind(), json).map_err(|e| TestCaseError::fail(e.to_string()))?;
                    prop_assert_eq!(back, Some(spec));
                }
            }
            Err(refusal) => {
                let internal = |f: &Finding| f.message.contains("invalid type") || f.message.contains("missing field");
                prop_assert!(!refusal.findings.iter().any(internal), "{}", refusal);
                prop_assert!(!refusal.to_string().is_empty());
            }
        }
    }
}
