//! What users ask for, kind by kind, as it is stored: complete, every default filled in.
//!
//! These are plain data with the field names of manifests. They are made by [`crate::manifest`], which checks; a
//! value of these types that was read from the store is trusted to have been checked by the API server. A field
//! that is not served yet is not here at all.

mod action;
mod claims;
mod configfile;
mod deployment;
mod env;
mod expand;
pub mod features;
mod life;
mod need;
mod node;
mod placement;
mod probe;
mod process;
mod restarts;
mod rollout;
mod secret;
mod selector;
mod validator;
mod vars;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Kind;

pub use action::{ACTION_VARIABLES, Action, ActionKind, ActionTarget, Renewal, UNIT_KINDS, is_unit_name};
pub use claims::{Claims, Taken};
pub use configfile::{
    ConfigFileSpec, ContentRef, Drift, FileItem, OnExisting, OnRemove, Override, Part, Source, Unlisted,
};
pub use deployment::{DeploymentSpec, RollingUpdate, Strategy, StrategyType};
pub use env::{EnvSource, EnvVar, FieldPath, FieldRef};
pub use expand::{GIVEN_VARIABLES, Piece, expand, is_variable_name, pieces, port_variable};
pub use life::{
    Artifact, Capability, CpuList, EnvironmentFile, Exec, ExitStatus, KillMode, Logs, OutputTo, Overflow,
    ProcessType, Unpack,
};
pub use need::Need;
pub use node::{NamespaceLogs, NamespaceSpec, NodeSpec, Reserved, Taint, TaintEffect};
pub use placement::{Labels, Toleration, TolerationOperator, selects, tolerates};
pub use probe::{Header, HttpGet, PortRef, Probe, ProbeAction, ProbeExec, Scheme, TcpSocket};
pub use process::{
    Amounts, LimitAction, Port, ProcessSpec, ProcessTemplate, Protocol, Requests, Resources, Restart,
    TASKS_MAX, Template, TemplateMeta, WEIGHT,
};
pub use rollout::{BadWaves, OnFailure, Rollout, check_waves};
pub use secret::{
    Credential, MAX_SECRET, MAX_SECRET_VALUE, SecretKeyRef, SecretNeeds, SecretSpec, SecretValue,
    is_secret_key,
};
pub use selector::{Requirement, Selector, SelectorOperator};
pub use validator::{CANDIDATE, Syntax, VALIDATOR_VARIABLES, Validator};
pub use vars::{InvalidVar, MAX_VAR_DEPTH, MAX_VARS, Var, Vars, vars_size};

/// Why a text or value is not what a spec needs; the message is fit for a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSpec(pub(crate) String);

/// The spec of an object of any served kind. As a value it names its kind: `{"Deployment": {…}}`; its bare fields,
/// as under `spec:` of a manifest, are [`Spec::to_json`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are kinds, described at their types")]
pub enum Spec {
    Node(NodeSpec),
    Namespace(NamespaceSpec),
    Process(Box<ProcessSpec>),
    Deployment(Box<DeploymentSpec>),
    ConfigFile(Box<ConfigFileSpec>),
    Secret(Box<SecretSpec>),
}

impl Spec {
    /// The kind of object that has such a spec.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Spec::Node(_) => Kind::Node,
            Spec::Namespace(_) => Kind::Namespace,
            Spec::Process(_) => Kind::Process,
            Spec::Deployment(_) => Kind::Deployment,
            Spec::ConfigFile(_) => Kind::ConfigFile,
            Spec::Secret(_) => Kind::Secret,
        }
    }

    /// The fields under `spec:`, as JSON.
    ///
    /// # Errors
    /// Never for specs made by this crate: they have text keys only.
    pub fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
        match self {
            Spec::Node(spec) => serde_json::to_value(spec),
            Spec::Namespace(spec) => serde_json::to_value(spec),
            Spec::Process(spec) => serde_json::to_value(spec),
            Spec::Deployment(spec) => serde_json::to_value(spec),
            Spec::ConfigFile(spec) => serde_json::to_value(spec),
            // As it can be applied again: what it has is kept, and no value is said.
            Spec::Secret(spec) => Ok(serde_json::json!({
                "immutable": spec.immutable,
                "keep": spec.values.keys().collect::<Vec<_>>(),
            })),
        }
    }

    /// A complete spec of `kind` from the JSON of [`Spec::to_json`]; `None` for kinds that are not served, and for a
    /// Secret, whose JSON does not say its values.
    ///
    /// # Errors
    /// When a field is missing or has another type. No defaults are filled in: manifests go through
    /// [`crate::manifest`].
    pub fn from_json(kind: Kind, body: serde_json::Value) -> Result<Option<Spec>, serde_json::Error> {
        Ok(match kind {
            Kind::Node => Some(Spec::Node(serde_json::from_value(body)?)),
            Kind::Namespace => Some(Spec::Namespace(serde_json::from_value(body)?)),
            Kind::Process => Some(Spec::Process(serde_json::from_value(body)?)),
            Kind::Deployment => Some(Spec::Deployment(serde_json::from_value(body)?)),
            Kind::ConfigFile => Some(Spec::ConfigFile(serde_json::from_value(body)?)),
            Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::Job
            | Kind::CronJob
            | Kind::Secret
            | Kind::Service
            | Kind::ResourceQuota
            | Kind::Role
            | Kind::RoleBinding
            | Kind::PriorityClass => None,
        })
    }

    /// The template of its processes, if it has any: a Deployment's, or a Process itself.
    #[must_use]
    pub fn process_template(&self) -> Option<&ProcessTemplate> {
        match self {
            Spec::Process(spec) => Some(&spec.0),
            Spec::Deployment(spec) => Some(&spec.template.spec),
            Spec::Node(_) | Spec::Namespace(_) | Spec::ConfigFile(_) | Spec::Secret(_) => None,
        }
    }
}

impl Spec {
    /// The same for changing it.
    #[must_use]
    pub fn process_template_mut(&mut self) -> Option<&mut ProcessTemplate> {
        match self {
            Spec::Process(spec) => Some(&mut spec.0),
            Spec::Deployment(spec) => Some(&mut spec.template.spec),
            Spec::Node(_) | Spec::Namespace(_) | Spec::ConfigFile(_) | Spec::Secret(_) => None,
        }
    }

    /// As anybody may see it, and as it is kept: a Secret without its values.
    #[must_use]
    pub fn without_values(&self) -> Spec {
        match self {
            Spec::Secret(spec) => Spec::Secret(Box::new(spec.without_values())),
            Spec::Process(_)
            | Spec::Deployment(_)
            | Spec::Node(_)
            | Spec::Namespace(_)
            | Spec::ConfigFile(_) => self.clone(),
        }
    }

    /// The template as it is stored for processes to be made from, with the labels that they get: the template's own,
    /// or those of a Process itself, whose object has `labels`.
    #[must_use]
    pub fn template_to_store(&self, labels: &Labels) -> Option<ProcessTemplate> {
        let labels = match self {
            Spec::Deployment(spec) => &spec.template.metadata.labels,
            Spec::Process(_) | Spec::Node(_) | Spec::Namespace(_) | Spec::ConfigFile(_) | Spec::Secret(_) => {
                labels
            }
        };
        self.process_template().map(|template| ProcessTemplate { labels: labels.clone(), ..template.clone() })
    }
}

/// A map of texts, in a fixed order.
pub type TextMap = BTreeMap<String, String>;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
