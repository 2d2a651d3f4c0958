//! Manifests from any bytes.

use std::collections::BTreeMap;

use ostler_schemas::Sha256;
use ostler_schemas::hash::sha256;
use ostler_schemas::manifest::{
    Content, Manifest, ManifestBody, Node, Options, check, decode_tree, encode_tree, read_documents, to_yaml,
    written_spec,
};
use ostler_schemas::spec::Spec;

/// Reads and checks `data` as a file of manifests. A tree travels unharmed and is checked to the same words; what is
/// good has a complete spec that survives its JSON form and is good again as the YAML that `get` shows.
pub fn manifests(data: &[u8]) {
    let documents = read_documents(Some("fuzz.yaml"), data);
    let readable = documents.iter().all(|document| document.problems.is_empty());
    let mut travelled = Vec::new();
    for document in &documents {
        let again = decode_tree(&encode_tree(document));
        assert!(again.as_ref().is_ok_and(|again| again.root == document.root), "a tree travels");
        travelled.extend(again);
        shown(&document.root);
    }
    let here = check(documents, &Options::default());
    if readable {
        let there = check(travelled, &Options::default());
        assert_eq!(here.as_ref().err(), there.as_ref().err(), "the server finds what the client finds");
    }
    match here {
        Ok(manifests) => manifests.into_iter().for_each(good),
        Err(refusal) => {
            assert!(!refusal.findings.is_empty() && refusal.refused <= refusal.documents);
            assert!(
                refusal.to_string().lines().count() == refusal.findings.len() + 1,
                "a finding is one line"
            );
        }
    }
}

fn shown(root: &Node) {
    let json = root.to_json();
    let again = read_documents(None, to_yaml(&json).as_bytes());
    assert!(again.iter().all(|document| document.problems.is_empty()), "what is shown can be read");
    let read = again.first().map_or(serde_json::Value::Null, |document| document.root.to_json());
    assert_eq!(read, json, "what is shown is what was meant");
}

/// The bytes that a manifest gives, by their names: the server has them when it shows the object.
fn contents(body: &ManifestBody) -> BTreeMap<Sha256, Vec<u8>> {
    let ManifestBody::ConfigFile(body) = body else { return BTreeMap::new() };
    let whole = body.content.iter().filter_map(|content| match content {
        Content::Inline(bytes) => Some(bytes),
        Content::Stored(_) => None,
    });
    whole.chain(&body.files).map(|bytes| (sha256(bytes), bytes.clone())).collect()
}

fn good(manifest: Manifest) {
    let (kind, name) = (manifest.kind, manifest.name.clone());
    let contents = contents(&manifest.body);
    let spec = manifest.complete(None);
    let json = spec.to_json().ok();
    let back = json.and_then(|json| Spec::from_json(kind, json).ok().flatten());
    assert_eq!(back.as_ref(), Some(&spec), "a spec survives its JSON form");
    let object = serde_json::json!({
        "apiVersion": "ostler/v1", "kind": kind, "metadata": { "name": name }, "spec": written_spec(&spec, &|content| contents.get(&content.sha256).cloned()).ok(),
    });
    let again = check(read_documents(None, to_yaml(&object).as_bytes()), &Options::default());
    let again: Option<Vec<Manifest>> = again.ok();
    let content_of = |spec: &Spec| match spec {
        Spec::ConfigFile(file) => file.content,
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => None,
    };
    let completed =
        again.and_then(|found| found.into_iter().next()).map(|manifest| manifest.complete(Some(&spec)));
    assert_eq!(completed.as_ref().map(content_of), Some(content_of(&spec)));
    assert_eq!(completed, Some(spec), "what is shown can be applied and changes nothing");
}
