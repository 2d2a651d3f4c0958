//! What an object refers to: its namespace, what it needs, its node, and who else wants its path.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::manifest::{Finding, FindingCode, Manifest};
use ostler_schemas::spec::{
    ConfigFileSpec, Labels, Need, ProcessTemplate, SecretKeyRef, SecretSpec, Spec, selects,
};
use ostler_schemas::{Kind, Namespace, NodeName, ObjectRef};

use super::render::FutureNodes;
use crate::fleet::Fleet;

/// The objects as they will be: the snapshot, and over it those of the request.
pub(super) struct Future<'a> {
    fleet: &'a Fleet,
    asked: BTreeMap<ObjectRef, Spec>,
}

impl<'a> Future<'a> {
    pub(super) fn new(fleet: &'a Fleet) -> Self {
        Self { fleet, asked: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, object: ObjectRef, spec: Spec) {
        self.asked.insert(object, spec);
    }

    fn exists(&self, object: &ObjectRef) -> bool {
        self.asked.contains_key(object)
            || self.fleet.objects.get(object).is_some_and(|o| !o.value.is_deleting())
    }

    pub(super) fn has_namespace(&self, namespace: &Namespace) -> bool {
        namespace_ref(namespace).is_some_and(|object| self.exists(&object))
    }

    /// Every ConfigFile but `except`, as it will be.
    fn files(&self, except: &ObjectRef) -> Vec<(ObjectRef, &ConfigFileSpec)> {
        let stored = self.fleet.of_kind(Kind::ConfigFile).filter(|(_, o)| !o.value.is_deleting());
        let mut all: BTreeMap<&ObjectRef, &Spec> = stored.map(|(name, o)| (name, &o.value.spec)).collect();
        all.extend(self.asked.iter());
        all.remove(except);
        let file = |(name, spec): (&ObjectRef, &'_ Spec)| match spec {
            Spec::ConfigFile(_) => Some(name.clone()),
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
                None
            }
        };
        let names: Vec<ObjectRef> = all.iter().filter_map(|(n, s)| file((n, s))).collect();
        names.into_iter().filter_map(|name| self.file(&name).map(|spec| (name, spec))).collect()
    }

    fn file(&self, name: &ObjectRef) -> Option<&ConfigFileSpec> {
        let spec = self.asked.get(name).or_else(|| self.fleet.objects.get(name).map(|o| &o.value.spec))?;
        match spec {
            Spec::ConfigFile(spec) => Some(spec),
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
                None
            }
        }
    }

    /// Who has the path already on nodes that are selected, and where.
    pub(super) fn path_conflicts(&self, object: &ObjectRef, spec: &ConfigFileSpec) -> Vec<String> {
        let claims = spec.claims();
        let rivals: Vec<_> = self
            .files(object)
            .into_iter()
            .filter_map(|(name, other)| Some((name, other, claims.collides_with(&other.claims())?)))
            .collect();
        if rivals.is_empty() {
            return Vec::new();
        }
        let selected = selected(self.fleet, spec);
        let conflict = |(name, other, path): (ObjectRef, &ConfigFileSpec, String)| {
            let both: Vec<&NodeName> = selected
                .iter()
                .filter(|n| selects(&other.node_selector, &self.fleet.node_labels(n)))
                .collect();
            let example = both.first()?;
            let owner = format!("{}/{}/{}", name.kind.lower(), name.namespace_token(), name.name);
            Some(format!(
                "{path} is already managed on {} of the selected nodes by {owner} (for example {example})",
                both.len()
            ))
        };
        rivals.into_iter().filter_map(conflict).collect()
    }

    /// Labels of a node as they will be.
    fn labels(&self, node: &NodeName, nodes: &FutureNodes) -> Labels {
        let mut labels = self.fleet.node_labels(node);
        if let Some((asked, _)) = nodes.get(node) {
            labels.retain(|key, _| key.starts_with("ostler/"));
            labels.extend(asked.clone());
        }
        labels
    }

    /// The nodes that a ConfigFile will select.
    pub(super) fn selected(&self, spec: &ConfigFileSpec, nodes: &FutureNodes) -> Vec<NodeName> {
        let all = self.fleet.nodes().map(|(node, _, _)| node);
        all.filter(|node| selects(&spec.node_selector, &self.labels(node, nodes))).collect()
    }

    /// The ConfigFiles that a node will have.
    pub(super) fn files_of(&self, node: &NodeName, nodes: &FutureNodes) -> Vec<&ConfigFileSpec> {
        let labels = self.labels(node, nodes);
        let stored = self.fleet.of_kind(Kind::ConfigFile).filter(|(_, o)| !o.value.is_deleting());
        let names: BTreeSet<&ObjectRef> = stored.map(|(name, _)| name).chain(self.asked.keys()).collect();
        let files = names.into_iter().filter_map(|name| self.file(name));
        files.filter(|spec| spec.has_template() && selects(&spec.node_selector, &labels)).collect()
    }

    /// Overrides that concern no node which has the file: worth a word, and no mistake.
    pub(super) fn idle_overrides(&self, spec: &ConfigFileSpec) -> Vec<String> {
        let mut out = Vec::new();
        for (index, other) in spec.overrides.iter().enumerate() {
            for node in &other.nodes {
                let is_selected = self.fleet.node(node).is_some()
                    && selects(&spec.node_selector, &self.fleet.node_labels(node));
                if !is_selected {
                    out.push(format!("overrides[{index}] names node {node}, which does not have the file"));
                }
            }
        }
        out
    }

    /// Findings and warnings about what a manifest refers to. `spec` is its complete one.
    pub(super) fn check(&self, manifest: &Manifest, spec: &Spec) -> (Vec<Finding>, Vec<String>) {
        let (mut findings, mut warnings) = (Vec::new(), Vec::new());
        let Some(template) = spec.process_template() else { return (findings, warnings) };
        let base = if manifest.kind == Kind::Deployment { "spec.template.spec" } else { "spec" };
        for (i, need) in template.needs.iter().enumerate() {
            let target = |kind, name: &ostler_schemas::Name| ObjectRef {
                kind,
                namespace: manifest.namespace.clone(),
                name: name.clone(),
            };
            let (target, must_exist) = match need {
                Need::ConfigFile { name, .. } => (target(Kind::ConfigFile, name), true),
                Need::Workload { kind, name } => (target(*kind, name), false),
                Need::Process { name } => (target(Kind::Process, name), false),
                Need::Mount(_) | Need::Path(_) => continue,
            };
            if self.exists(&target) {
                continue;
            }
            let namespace = target.namespace_token().to_owned();
            let message =
                format!("refers to {}, which does not exist in namespace {namespace}", target.short());
            if must_exist {
                findings.push(manifest.finding(
                    &format!("{base}.needs[{i}]"),
                    FindingCode::NotFound,
                    message,
                ));
            } else {
                warnings.push(format!("{message} yet: until it does, the processes wait"));
            }
        }
        findings.extend(self.secrets(manifest, template, base));
        if let Some(node) = template.node_name.as_ref().filter(|n| self.fleet.node(n).is_none()) {
            warnings.push(format!("node {node} is not registered: until it is, the processes wait"));
        }
        (findings, warnings)
    }
}

impl Future<'_> {
    /// Every value of a Secret that a template refers to must be there, unless it can do without.
    fn secrets(&self, manifest: &Manifest, template: &ProcessTemplate, base: &str) -> Vec<Finding> {
        let variables = template.env.iter().enumerate().filter_map(|(i, variable)| {
            let secret = variable.value_from.as_ref()?.secret()?;
            Some((format!("{base}.env[{i}].valueFrom.secretKeyRef"), secret))
        });
        let credentials = template.credentials.iter().enumerate().map(|(i, credential)| {
            (format!("{base}.credentials[{i}].secretKeyRef"), &credential.secret_key_ref)
        });
        let missing = |(field, secret): (String, &SecretKeyRef)| {
            let (namespace, name) = (manifest.namespace.clone(), secret.name.clone());
            let target = ObjectRef { kind: Kind::Secret, namespace, name };
            let message = match self.secret(&target) {
                None => format!(
                    "refers to {}, which does not exist in namespace {}",
                    target.short(),
                    target.namespace_token()
                ),
                Some(found) if found.values.contains_key(&secret.key) => return None,
                Some(_) => format!("refers to {}, which has no value {:?}", target.short(), secret.key),
            };
            Some(manifest.finding(&field, FindingCode::NotFound, message))
        };
        variables.chain(credentials).filter(|(_, secret)| !secret.optional).filter_map(missing).collect()
    }

    fn secret(&self, name: &ObjectRef) -> Option<&SecretSpec> {
        match self.asked.get(name) {
            Some(Spec::Secret(spec)) => Some(spec),
            Some(_) => None,
            None => crate::secret::find(self.fleet, name).map(|(_, spec)| spec),
        }
    }
}

pub(super) fn namespace_ref(namespace: &Namespace) -> Option<ObjectRef> {
    Some(ObjectRef { kind: Kind::Namespace, namespace: None, name: namespace.as_str().parse().ok()? })
}

/// The nodes that a ConfigFile selects, by name.
pub(super) fn selected(fleet: &Fleet, spec: &ConfigFileSpec) -> Vec<NodeName> {
    let nodes = fleet.nodes().map(|(node, _, _)| node);
    nodes.filter(|node| selects(&spec.node_selector, &fleet.node_labels(node))).collect()
}

/// The objects whose processes need this ConfigFile, as `deployment/web`.
pub(super) fn users_of_file(fleet: &Fleet, file: &ObjectRef) -> Vec<String> {
    let needs = |spec: &Spec| {
        let needs = spec.process_template().map(|t| t.needs.as_slice()).unwrap_or_default();
        needs.iter().any(|n| matches!(n, Need::ConfigFile { name, .. } if *name == file.name))
    };
    fleet
        .objects
        .iter()
        .filter(|(name, o)| {
            name.namespace == file.namespace && !o.value.is_deleting() && needs(&o.value.spec)
        })
        .map(|(name, _)| name.short())
        .collect()
}
