//! Checked manifests: what a user asked for, with the fields that were left out still told apart.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use sha2::Digest;

use super::check::{Given, Options, Parts, artifact_path};
use super::finding::{Finding, FindingCode, Place};
use super::places::Places;
use crate::ids::{Kind, Name, Namespace, Revision, Sha256, Version};
use crate::sealing::Hidden;
use crate::spec::{
    ConfigFileSpec, ContentRef, DeploymentSpec, Labels, NamespaceSpec, NodeSpec, ProcessSpec,
    ProcessTemplate, Reserved, Rollout, SecretSpec, SecretValue, Source, Spec, Strategy, Taint, Template,
    TextMap, Vars,
};

/// One object as a user asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Its namespace; none for cluster-wide kinds.
    pub namespace: Option<Namespace>,
    /// Its labels. Those that agents set on Nodes are left out: the server keeps the ones it has.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: TextMap,
    /// The revision that the object must still have.
    pub revision_guard: Option<Revision>,
    /// What is asked for.
    pub body: ManifestBody,
    /// Where it was written.
    pub origin: Origin,
}

/// What is asked for, kind by kind. Fields that are kept when left out are `Option`; every other default is filled in.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are kinds, described at their types")]
pub enum ManifestBody {
    Node(NodeBody),
    Namespace(NamespaceSpec),
    Process(Box<ProcessSpec>),
    Deployment(Box<DeploymentBody>),
    ConfigFile(Box<ConfigFileBody>),
    Secret(Box<SecretBody>),
}

/// Of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeBody {
    /// Kept when left out.
    pub unschedulable: Option<bool>,
    /// Kept when left out.
    pub taints: Option<Vec<Taint>>,
    /// Kept when left out.
    pub vars: Option<Vars>,
    /// What is left to programs outside Ostler.
    pub reserved: Reserved,
}

/// Of a Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentBody {
    /// Kept when left out.
    pub replicas: Option<u32>,
    /// How old processes are exchanged for new ones.
    pub strategy: Strategy,
    /// Whether rollouts stand still; kept when left out.
    pub paused: Option<bool>,
    /// How a new version is watched.
    pub rollout: Rollout,
    /// What each process is.
    pub template: Template,
}

/// Of a ConfigFile.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFileBody {
    /// What is in it; kept when left out.
    pub content: Option<Content>,
    /// Whether that is rendered for each node.
    pub is_template: bool,
    /// What is in its several files, in their order.
    pub files: Vec<Vec<u8>>,
    /// Whether rollouts stand still; kept when left out.
    pub paused: Option<bool>,
    /// Everything else; its `content` and `template` are none.
    pub spec: ConfigFileSpec,
}

/// Of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretBody {
    /// Whether its values can never change.
    pub immutable: bool,
    /// What it is to have; everything that it has is kept when left out.
    pub values: Option<SecretWish>,
}

/// All that a Secret is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretWish {
    /// The names of values that stay as they are.
    pub keep: BTreeSet<String>,
    /// Values that are given.
    pub given: BTreeMap<String, GivenValue>,
}

/// A value that is given: as it was written, or, from the edge of the API server on, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenValue {
    /// As it was written.
    Plain(Hidden),
    /// Sealed.
    Sealed(SecretValue),
}

impl SecretBody {
    /// What a Secret has after this, that had `kept` before. A value that was not sealed has its size and no more.
    fn complete(self, kept: Option<&SecretSpec>) -> SecretSpec {
        let had = kept.map(|spec| spec.values.clone()).unwrap_or_default();
        let values = match self.values {
            None => had,
            Some(SecretWish { keep, given }) => {
                let mut values: BTreeMap<String, SecretValue> =
                    had.into_iter().filter(|(key, _)| keep.contains(key)).collect();
                values.extend(given.into_iter().map(|(key, value)| match value {
                    GivenValue::Sealed(value) => (key, value),
                    GivenValue::Plain(plain) => {
                        (key, SecretValue { size: plain.size(), since: Version(0), sealed: None })
                    }
                }));
                values
            }
        };
        SecretSpec { immutable: self.immutable, values }
    }
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The bytes themselves.
    Inline(Vec<u8>),
    /// Bytes that were sent ahead.
    Stored(ContentRef),
}

impl Content {
    /// The name of the bytes in the blob store.
    #[must_use]
    pub fn reference(&self) -> ContentRef {
        match self {
            Content::Inline(bytes) => reference(bytes),
            Content::Stored(reference) => *reference,
        }
    }
}

/// The name of bytes in the blob store.
fn reference(bytes: &[u8]) -> ContentRef {
    ContentRef { sha256: Sha256::from_bytes(sha2::Sha256::digest(bytes).into()), size: bytes.len() as u64 }
}

/// Where a manifest was written; used to locate what is found wrong with it later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file, as the user named it.
    pub file: Option<String>,
    /// The places of its fields.
    pub places: Places,
}

impl ManifestBody {
    /// The template of its processes, if it has any.
    #[must_use]
    pub fn process_template(&self) -> Option<&ProcessTemplate> {
        match self {
            ManifestBody::Process(spec) => Some(&spec.0),
            ManifestBody::Deployment(body) => Some(&body.template.spec),
            ManifestBody::Node(_)
            | ManifestBody::Namespace(_)
            | ManifestBody::ConfigFile(_)
            | ManifestBody::Secret(_) => None,
        }
    }
}

impl Manifest {
    /// `deployment/web`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind.lower(), self.name)
    }

    /// Something that is wrong with `field` of it, located.
    #[must_use]
    pub fn finding(&self, field: &str, code: FindingCode, message: impl Into<String>) -> Finding {
        let Place { line, column } = self.origin.places.value(field);
        let (file, object, field) = (self.origin.file.clone(), self.label(), field.to_owned());
        Finding { file, line, column, object, field, code, message: message.into(), hint: None }
    }

    /// The complete spec: what was left out and is kept comes from the existing object, else is its default.
    /// An existing spec of another kind counts as none.
    #[must_use]
    pub fn complete(self, existing: Option<&Spec>) -> Spec {
        match self.body {
            ManifestBody::Namespace(spec) => Spec::Namespace(spec),
            ManifestBody::Process(spec) => Spec::Process(spec),
            ManifestBody::Node(body) => {
                let kept = match existing {
                    Some(Spec::Node(kept)) => kept.clone(),
                    Some(_) | None => NodeSpec::default(),
                };
                Spec::Node(NodeSpec {
                    unschedulable: body.unschedulable.unwrap_or(kept.unschedulable),
                    taints: body.taints.unwrap_or(kept.taints),
                    reserved: body.reserved,
                    vars: body.vars.unwrap_or(kept.vars),
                })
            }
            ManifestBody::Secret(body) => {
                let kept = match existing {
                    Some(Spec::Secret(kept)) => Some(&**kept),
                    Some(_) | None => None,
                };
                Spec::Secret(Box::new(body.complete(kept)))
            }
            ManifestBody::Deployment(body) => {
                let kept = match existing {
                    Some(Spec::Deployment(kept)) => (kept.replicas, kept.paused),
                    Some(_) | None => (1, false),
                };
                let DeploymentBody { replicas, strategy, paused, rollout, template } = *body;
                let (replicas, paused) = (replicas.unwrap_or(kept.0), paused.unwrap_or(kept.1));
                Spec::Deployment(Box::new(DeploymentSpec { replicas, strategy, paused, rollout, template }))
            }
            ManifestBody::ConfigFile(body) => {
                let mut spec = body.spec;
                match (&body.content, existing) {
                    (Some(content), _) if body.is_template => spec.template = Some(content.reference()),
                    (Some(content), _) => spec.content = Some(content.reference()),
                    (None, Some(Spec::ConfigFile(kept))) if !spec.is_folder() => {
                        spec.content = kept.content;
                        spec.template = kept.template;
                    }
                    (None, Some(_) | None) => {}
                }
                spec.paused = match (body.paused, existing) {
                    (Some(paused), _) => paused,
                    (None, Some(Spec::ConfigFile(kept))) => kept.paused,
                    (None, Some(_) | None) => false,
                };
                Spec::ConfigFile(Box::new(spec))
            }
        }
    }
}

/// Makes the manifest of what a document was found to say.
pub(super) fn build(
    parts: &Parts<'_>,
    content: (Given, Option<Source>),
    options: &Options,
) -> Result<Manifest, String> {
    let metadata = parts.metadata;
    let text = |name: &str| metadata.get(name).and_then(Json::as_str);
    let name = text("name").unwrap_or_default().parse::<Name>().map_err(|e| e.to_string())?;
    let namespace = match (parts.kind.is_cluster_wide(), text("namespace")) {
        (true, _) => None,
        (false, Some(given)) => Some(given.parse::<Namespace>().map_err(|e| e.to_string())?),
        (false, None) => Some(options.default_namespace.clone()),
    };
    let mut labels: Labels = from(metadata.get("labels"))?;
    if parts.kind == Kind::Node {
        labels.retain(|key, _| !key.starts_with("ostler/"));
    }
    Ok(Manifest {
        kind: parts.kind,
        name,
        namespace,
        labels,
        annotations: from(metadata.get("annotations"))?,
        revision_guard: metadata.get("revision").and_then(Json::as_u64).map(Revision),
        body: body(parts, content)?,
        origin: Origin::default(),
    })
}

fn body(parts: &Parts<'_>, content: (Given, Option<Source>)) -> Result<ManifestBody, String> {
    let mut spec = parts.spec.clone();
    match parts.kind {
        Kind::Namespace => from(Some(&Json::Object(spec))).map(ManifestBody::Namespace),
        Kind::Node => from(Some(&Json::Object(spec))).map(ManifestBody::Node),
        Kind::Process => {
            fill_template(&mut spec, "none");
            from(Some(&Json::Object(spec))).map(|spec| ManifestBody::Process(Box::new(spec)))
        }
        Kind::Deployment => {
            fill_deployment(&mut spec);
            from(Some(&Json::Object(spec))).map(|body| ManifestBody::Deployment(Box::new(body)))
        }
        Kind::ConfigFile => file_body(spec, content).map(|body| ManifestBody::ConfigFile(Box::new(body))),
        Kind::Secret => super::check::secret_body(&spec).map(|body| ManifestBody::Secret(Box::new(body))),
        Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Job
        | Kind::CronJob
        | Kind::Service
        | Kind::ResourceQuota
        | Kind::Role
        | Kind::RoleBinding
        | Kind::PriorityClass => Err(format!("kind {} is not served", parts.kind)),
    }
}

/// A ConfigFile, its contents by name.
fn file_body(
    mut spec: Map<String, Json>,
    (given, stored): (Given, Option<Source>),
) -> Result<ConfigFileBody, String> {
    for field in ["content", "contentBase64", "template"] {
        spec.remove(field);
    }
    let items = spec.get_mut("files").and_then(Json::as_array_mut).into_iter().flatten();
    let mut files = Vec::new();
    for (item, bytes) in items.filter_map(Json::as_object_mut).zip(given.files) {
        for field in ["content", "contentBase64", "template"] {
            item.remove(field);
        }
        let field = if bytes.is_template { "template" } else { "content" };
        let reference = serde_json::to_value(reference(&bytes.bytes)).map_err(|e| e.to_string())?;
        item.insert(field.to_owned(), reference);
        files.push(bytes.bytes);
    }
    let paused = spec.remove("paused").and_then(|paused| paused.as_bool());
    let spec = from(Some(&Json::Object(spec)))?;
    let (is_template, content) = match (given.alone, stored) {
        (Some(bytes), _) => (bytes.is_template, Some(Content::Inline(bytes.bytes))),
        (None, Some(Source::Template(reference))) => (true, Some(Content::Stored(reference))),
        (None, Some(Source::Content(reference))) => (false, Some(Content::Stored(reference))),
        (None, None) => (false, None),
    };
    Ok(ConfigFileBody { content, is_template, files, paused, spec })
}

/// Defaults that depend on another field or on the kind.
fn fill_deployment(spec: &mut Map<String, Json>) {
    if let Some(Json::Object(strategy)) = spec.get_mut("strategy")
        && strategy.get("type").and_then(Json::as_str) == Some("RollingUpdate")
    {
        let quarter = || serde_json::json!({ "maxSurge": "25%", "maxUnavailable": "25%" });
        strategy.entry("rollingUpdate").or_insert_with(quarter);
    }
    if let Some(Json::Object(template)) = spec.get_mut("template").and_then(|t| t.get_mut("spec")) {
        fill_template(template, "replace");
    }
}

/// Likewise in a template.
fn fill_template(template: &mut Map<String, Json>, limit_action: &str) {
    template.entry("startLimitAction").or_insert_with(|| Json::from(limit_action));
    for artifact in template.get_mut("artifacts").and_then(Json::as_array_mut).into_iter().flatten() {
        let path = artifact_path(artifact).map(str::to_owned);
        if let (Json::Object(artifact), Some(path)) = (artifact, path) {
            artifact.insert("path".to_owned(), Json::from(path));
        }
    }
}

fn from<T: DeserializeOwned>(value: Option<&Json>) -> Result<T, String> {
    T::deserialize(value.unwrap_or(&Json::Null)).map_err(|e| e.to_string())
}
