//! What a template is rendered with on a node: the file's values for it, and what is known of the node.
//!
//! Both stand in what is stored for the node, so what it renders follows from that alone: `config render` shows it
//! without asking, and a node that is alone renders the same after a restart.

use std::collections::BTreeMap;

use ostler_schemas::spec::{ConfigFileSpec, Labels, Spec};
use ostler_schemas::v1::document::{FileVars, NodeFacts};
use ostler_schemas::v1::object::Object;
use ostler_schemas::{NodeName, Version};

use crate::fleet::Fleet;
use crate::rollout;

/// Labels that agents set begin so.
const BY_AGENT: &str = "ostler/";

/// What templates may say of a node; none of one that has never reported. Reports are kept in memory only: while one
/// is missing, what was last known of the node stays.
#[must_use]
pub fn facts_of(fleet: &Fleet, node: &NodeName) -> Option<NodeFacts> {
    let (object, spec) = fleet.node(node)?;
    let vars = spec.vars.clone();
    if let Some(report) = fleet.reports.get(node) {
        let facts = &report.facts;
        return Some(NodeFacts {
            hostname: facts.hostname.clone(),
            labels: fleet.node_labels(node),
            vars,
            addresses: BTreeMap::from([("internal".to_owned(), facts.address.clone())]),
            cpu: facts.cpu,
            memory: facts.memory,
        });
    }
    let known = fleet.files_documents.get(node)?.value.node.as_deref()?;
    let mut labels: Labels = known.labels.clone();
    labels.retain(|key, _| key.starts_with(BY_AGENT));
    labels.extend(object.metadata.labels.clone());
    Some(NodeFacts { labels, vars, ..known.clone() })
}

/// The values of one version for a node; none where nothing in it is rendered.
#[must_use]
pub fn values_of(
    fleet: &Fleet,
    object: &Object,
    version: Version,
    (node, labels): (&NodeName, &Labels),
) -> Option<FileVars> {
    let Spec::ConfigFile(then) = rollout::spec_of_version(fleet, object, version)? else { return None };
    values_for(then, (node, labels))
}

/// Likewise of a spec.
#[must_use]
pub fn values_for(spec: &ConfigFileSpec, (node, labels): (&NodeName, &Labels)) -> Option<FileVars> {
    spec.has_template().then(|| FileVars { vars: spec.vars_for(node, labels) })
}
