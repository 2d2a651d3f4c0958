//! From trees to manifests. Every finding of every document is told at once.
//!
//! A document is looked at three times: field by field against the tables of [`super::schema`], then by rules that
//! concern several fields, then together with the other documents of the same `apply`. What needs the store (does
//! it exist, may it change) is the server's to check, with [`super::Manifest::finding`].

mod across;
mod actions;
mod artifacts;
mod bounds;
mod file;
mod labels;
mod life;
mod metadata;
mod probes;
mod process;
mod report;
mod scalars;
mod secret;
mod values;
mod variables;
mod walk;
mod workload;

use serde_json::{Map, Value as Json};

use super::finding::{Finding, FindingCode, Refusal};
use super::places::Places;
use super::schema::{DOCUMENT, spec_of};
use super::tree::{Document, Node, Problem, Value};
use super::typed::{self, Manifest};
use crate::ids::{Kind, Namespace};

pub(super) use artifacts::path_of as artifact_path;
pub(in crate::manifest) use file::Given;
pub use file::{MAX_CONTENT, decode_base64};
use report::Report;
pub(super) use secret::body as secret_body;
use walk::Walk;

/// Most objects of one `apply` (CONTRACT.md 1.3): two messages each, of a thousand in one atomic batch.
pub const MAX_OBJECTS: usize = 450;
/// Largest object, file contents apart (CONTRACT.md 1.3).
pub const MAX_OBJECT: usize = 128 << 10;

/// What the checker must know beside the text.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespace of objects that name none.
    pub default_namespace: Namespace,
    /// The server's limit of `replicas`.
    pub max_replicas: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { default_namespace: Namespace::default_namespace(), max_replicas: 5_000 }
    }
}

/// Checks the documents of one `apply`.
///
/// # Errors
/// A refusal with every finding, if there is any.
pub fn check(documents: Vec<Document>, options: &Options) -> Result<Vec<Manifest>, Refusal> {
    let documents = expand_lists(documents);
    let mut findings = Vec::new();
    let mut manifests = Vec::new();
    let mut refused = 0;
    let total = documents.len();
    for document in documents {
        match check_one(document, options) {
            Ok(manifest) => manifests.push(manifest),
            Err(mut more) => {
                refused += 1;
                more.sort_by_key(|finding| (finding.line, finding.column));
                findings.append(&mut more);
            }
        }
    }
    let mut together = across::check(&manifests, total);
    let mut objects: Vec<(Option<&str>, &str)> =
        together.iter().map(|finding| (finding.file.as_deref(), finding.object.as_str())).collect();
    objects.sort_unstable();
    objects.dedup();
    refused += objects.len();
    findings.append(&mut together);
    if findings.is_empty() {
        return Ok(manifests);
    }
    Err(Refusal { findings, refused: refused.min(total), documents: total })
}

/// Documents of `kind: List` stand for their items, also inside of other lists. [`check`] does this by itself; whoever
/// needs documents and manifests side by side does it before.
#[must_use]
pub fn expand_lists(documents: Vec<Document>) -> Vec<Document> {
    let mut out = Vec::new();
    let mut waiting: Vec<Document> = documents;
    waiting.reverse();
    while let Some(document) = waiting.pop() {
        let is_list = document.root.get("kind").and_then(Node::text) == Some("List");
        if !is_list || !document.problems.is_empty() {
            out.push(document);
            continue;
        }
        let Document { file, root, .. } = document;
        let items = match root.value {
            Value::Map(entries) => {
                entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.value)
            }
            Value::Scalar(_) | Value::List(_) => None,
        };
        match items {
            Some(Node { value: Value::List(items), .. }) => {
                waiting.extend(items.into_iter().rev().map(|item| Document::new(file.clone(), item)));
            }
            other => {
                let place = other.as_ref().map_or(root.place, |items| items.place);
                let message = "is a list of objects".to_owned();
                let problem =
                    Problem { place, field: "items".to_owned(), code: FindingCode::BadType, message };
                let list = Document::new(file, Node::null());
                out.push(Document { problems: vec![problem], is_whole: false, ..list });
            }
        }
    }
    out
}

fn check_one(document: Document, options: &Options) -> Result<Manifest, Vec<Finding>> {
    let Document { file, root, problems, is_whole, content } = document;
    let mut report = Report::new(file, label_of(&root), Places::of(&root));
    for problem in problems {
        report.at(problem.place, &problem.field, problem.code, problem.message);
    }
    if !is_whole {
        return Err(report.into_findings());
    }
    let Value::Map(_) = &root.value else {
        let message = "is a map with apiVersion, kind, metadata and spec".to_owned();
        report.at(root.place, "", FindingCode::BadType, message);
        return Err(report.into_findings());
    };
    let mut walk = Walk::new(&mut report);
    let head = walk.object(&root, &DOCUMENT, "");
    let kind = kind_of(&root).filter(|kind| kind.is_served());
    let Some(kind) = kind else {
        return Err(report.into_findings());
    };
    let spec = check_spec(&root, kind, &mut report);
    let metadata = head.get("metadata").and_then(Json::as_object).cloned().unwrap_or_default();
    let parts = Parts { kind, metadata: &metadata, spec: &spec };
    metadata::check(&parts, &mut report);
    let given = rules(&parts, options, &mut report);
    if (given.alone.is_some() || !given.files.is_empty()) && content.is_some() {
        report.add(
            "spec.content",
            FindingCode::Conflicting,
            "cannot be given together with content sent ahead",
        );
    }
    let size = size_of(&spec) + size_of(&metadata);
    if size > MAX_OBJECT {
        report.too_large("", size, MAX_OBJECT);
    }
    match typed::build(&parts, (given, content), options) {
        _ if report.has_findings() => Err(report.into_findings()),
        Ok(manifest) => Ok(Manifest { origin: report.into_origin(), ..manifest }),
        Err(error) => {
            // The tables and the types disagree: our mistake, told as a finding because a refusal loses nothing.
            report.add("spec", FindingCode::BadValue, error);
            Err(report.into_findings())
        }
    }
}

/// How much text an object is, file contents and values of Secrets apart.
fn size_of(fields: &Map<String, Json>) -> usize {
    let is_content =
        |name: &str| matches!(name, "content" | "contentBase64" | "template" | "stringData" | "data");
    let is_apart = |name: &str, value: &Json| {
        is_content(name) && (value.is_string() || matches!(name, "stringData" | "data"))
    };
    let counted = fields.iter().filter(|(name, value)| !is_apart(name, value));
    let size = |(name, value): (&String, &Json)| match (name.as_str(), value) {
        ("files", Json::Array(items)) => items.iter().filter_map(Json::as_object).map(size_of).sum(),
        (_, value) => value.to_string().len(),
    };
    counted.map(|field| field.0.len() + size(field)).sum()
}

/// What was found in a document, defaults filled in where they are the same for all kinds.
pub(super) struct Parts<'a> {
    pub(super) kind: Kind,
    pub(super) metadata: &'a Map<String, Json>,
    pub(super) spec: &'a Map<String, Json>,
}

fn check_spec(root: &Node, kind: Kind, report: &mut Report) -> Map<String, Json> {
    let empty = Node { place: root.place, value: Value::Map(Vec::new()) };
    let example = match kind {
        Kind::Deployment => Some("for example {template: {spec: {command: [/usr/bin/app]}}}"),
        Kind::ConfigFile => Some("for example {path: /etc/app.conf, nodeSelector: {}}"),
        // There is nothing that must be said of them.
        Kind::Namespace | Kind::Node => None,
        Kind::Secret => Some("for example {stringData: {password: …}}"),
        Kind::Process
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Job
        | Kind::CronJob
        | Kind::Service
        | Kind::ResourceQuota
        | Kind::Role
        | Kind::RoleBinding
        | Kind::PriorityClass => Some("for example {command: [/usr/bin/app]}"),
    };
    let spec = match (root.get("spec"), example) {
        (Some(spec), _) => spec,
        (None, Some(example)) => {
            report.hint("spec", FindingCode::MissingField, "is required", example);
            return Map::new();
        }
        (None, None) => &empty,
    };
    let mut walk = Walk::new(report);
    match &spec.value {
        Value::Map(_) => walk.object(spec, spec_of(kind), "spec"),
        Value::Scalar(_) | Value::List(_) => {
            report.add("spec", FindingCode::BadType, "is a map of fields");
            Map::new()
        }
    }
}

/// The rules of each kind. What is in a ConfigFile comes out as bytes.
fn rules(parts: &Parts<'_>, options: &Options, report: &mut Report) -> Given {
    match parts.kind {
        Kind::Process => process::check(parts, parts.spec, "spec", report),
        Kind::Deployment => workload::check(parts, options, report),
        Kind::ConfigFile => {
            workload::rollout(parts.spec, report);
            actions::check(parts, report);
            return file::check(parts, report);
        }
        Kind::Node => labels::distinct_taints(parts.spec, report),
        Kind::Secret => secret::check(parts.spec, report),
        Kind::Namespace
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Job
        | Kind::CronJob
        | Kind::Service
        | Kind::ResourceQuota
        | Kind::Role
        | Kind::RoleBinding
        | Kind::PriorityClass => {}
    }
    Given::default()
}

fn kind_of(root: &Node) -> Option<Kind> {
    let text = root.get("kind").and_then(Node::text)?;
    Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
}

/// `deployment/web`, as far as it is known.
fn label_of(root: &Node) -> String {
    let kind = root.get("kind").and_then(Node::text);
    let name = root.get("metadata").and_then(|m| m.get("name")).and_then(Node::text);
    match (kind, name) {
        (None, None) => String::new(),
        (kind, name) => {
            let kind = kind.unwrap_or("?").to_lowercase();
            // A name of any length may stand here; a finding must stay one readable line.
            let short: String = name.unwrap_or("?").chars().take(80).collect();
            format!("{}/{short}", kind.chars().take(40).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests;
