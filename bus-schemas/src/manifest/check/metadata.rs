//! Rules about names, namespaces and labels that depend on the kind.

use serde_json::Value as Json;

use super::Parts;
use super::labels::{AGENTS, OWN_PREFIX};
use super::report::Report;
use crate::ids::Kind;
use crate::manifest::finding::FindingCode;

/// Room for what is appended to the names of processes (CONTRACT.md 1.3).
const fn longest_name(kind: Kind) -> usize {
    match kind {
        Kind::Deployment | Kind::DaemonSet | Kind::Job => 51,
        Kind::StatefulSet => 57,
        Kind::CronJob => 40,
        Kind::Node
        | Kind::Namespace
        | Kind::Process
        | Kind::ConfigFile
        | Kind::Secret
        | Kind::Service
        | Kind::ResourceQuota
        | Kind::Role
        | Kind::RoleBinding
        | Kind::PriorityClass => crate::ids::NAME_MAX,
    }
}

pub(super) fn check(parts: &Parts<'_>, report: &mut Report) {
    let kind = parts.kind;
    let name = parts.metadata.get("name").and_then(Json::as_str).unwrap_or_default();
    let longest = longest_name(kind);
    if name.len() > longest {
        let message = format!("must have at most {longest} characters on a {kind}, found {}", name.len());
        report.add("metadata.name", FindingCode::OutOfRange, message);
    }
    if kind.is_cluster_wide() && parts.metadata.contains_key("namespace") {
        let message = format!("a {kind} is in no namespace: leave it out");
        report.key("metadata.namespace", FindingCode::BadValue, message, None);
    }
    if kind != Kind::Node {
        refuse_own(parts.metadata.get("labels"), "metadata.labels", report);
    }
    if kind == Kind::Deployment {
        let labels = parts.spec.get("template").and_then(|t| t.pointer("/metadata/labels"));
        refuse_own(labels, "spec.template.metadata.labels", report);
    }
}

/// Only Nodes have labels of agents; elsewhere they could only mislead.
fn refuse_own(labels: Option<&Json>, path: &str, report: &mut Report) {
    for key in labels.and_then(Json::as_object).into_iter().flat_map(|labels| labels.keys()) {
        if key.starts_with(OWN_PREFIX) && AGENTS.contains(&key.as_str()) {
            let message = format!("{key:?} is not allowed: labels below ostler/ are Ostler's own");
            report.add(&crate::manifest::tree::join(path, key), FindingCode::BadValue, message);
        }
    }
}
