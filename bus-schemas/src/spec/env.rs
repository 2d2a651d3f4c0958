//! Variables of a process's environment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{InvalidSpec, SecretKeyRef};

/// One variable. Exactly one of `value` and `value_from` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value, in which `$(NAME)` stands for variables named before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where its value is taken from when the process starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// A source of values outside the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvSource {
    /// A fact of the process or its node.
    FieldRef(FieldRef),
    /// A value of a Secret.
    SecretKeyRef(SecretKeyRef),
}

impl EnvSource {
    /// The fact, if it is one.
    #[must_use]
    pub fn field_path(&self) -> Option<&FieldPath> {
        match self {
            EnvSource::FieldRef(field) => Some(&field.field_path),
            EnvSource::SecretKeyRef(_) => None,
        }
    }

    /// The value of a Secret, if it is one.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretKeyRef> {
        match self {
            EnvSource::SecretKeyRef(secret) => Some(secret),
            EnvSource::FieldRef(_) => None,
        }
    }
}

/// Names a fact of the process or its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// Which one.
    pub field_path: FieldPath,
}

/// The facts that a variable can be taken from. Written `metadata.name`, `node.labels['rack']` and so on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldPath {
    /// `metadata.name`
    Name,
    /// `metadata.namespace`
    Namespace,
    /// `metadata.uid`
    Uid,
    /// `metadata.labels['k']`: of the process
    Label(String),
    /// `node.name`
    NodeName,
    /// `node.hostname`
    NodeHostname,
    /// `node.labels['k']`
    NodeLabel(String),
    /// `node.vars['k']`: a known path that this version refuses, because Nodes have no `vars` yet
    NodeVar(String),
    /// `node.addresses['internal']`
    NodeAddress(String),
    /// `resources.limits.cpu`
    LimitCpu,
    /// `resources.limits.memory`
    LimitMemory,
}

/// The paths without a key.
const PLAIN: [(&str, FieldPath); 7] = [
    ("metadata.name", FieldPath::Name),
    ("metadata.namespace", FieldPath::Namespace),
    ("metadata.uid", FieldPath::Uid),
    ("node.name", FieldPath::NodeName),
    ("node.hostname", FieldPath::NodeHostname),
    ("resources.limits.cpu", FieldPath::LimitCpu),
    ("resources.limits.memory", FieldPath::LimitMemory),
];

type Keyed = fn(String) -> FieldPath;

/// The paths that take a key in brackets.
const KEYED: [(&str, Keyed); 4] = [
    ("metadata.labels", FieldPath::Label),
    ("node.labels", FieldPath::NodeLabel),
    ("node.vars", FieldPath::NodeVar),
    ("node.addresses", FieldPath::NodeAddress),
];

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldPath::Name => f.write_str("metadata.name"),
            FieldPath::Namespace => f.write_str("metadata.namespace"),
            FieldPath::Uid => f.write_str("metadata.uid"),
            FieldPath::Label(key) => write!(f, "metadata.labels['{key}']"),
            FieldPath::NodeName => f.write_str("node.name"),
            FieldPath::NodeHostname => f.write_str("node.hostname"),
            FieldPath::NodeLabel(key) => write!(f, "node.labels['{key}']"),
            FieldPath::NodeVar(key) => write!(f, "node.vars['{key}']"),
            FieldPath::NodeAddress(key) => write!(f, "node.addresses['{key}']"),
            FieldPath::LimitCpu => f.write_str("resources.limits.cpu"),
            FieldPath::LimitMemory => f.write_str("resources.limits.memory"),
        }
    }
}

impl FromStr for FieldPath {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<FieldPath, InvalidSpec> {
        if let Some((_, path)) = PLAIN.into_iter().find(|(name, _)| *name == text) {
            return Ok(path);
        }
        for (prefix, make) in KEYED {
            let key = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix("['")?.strip_suffix("']"));
            match key {
                Some(key) if prefix == "node.addresses" && key != "internal" => {
                    return Err(InvalidSpec(format!("{key:?} is not one of internal")));
                }
                Some(key) if !key.is_empty() && !key.contains('\'') => return Ok(make(key.to_owned())),
                Some(_) | None => {}
            }
        }
        Err(InvalidSpec(format!(
            "{text:?} is not a field path: write metadata.name, metadata.namespace, metadata.uid, \
             metadata.labels['k'], node.name, node.hostname, node.labels['k'], node.addresses['internal'], \
             resources.limits.cpu or resources.limits.memory"
        )))
    }
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FieldPath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
