//! What must hold on the node before a process starts: `configfile/app-conf@>=7`, `mount:/srv/db`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::InvalidSpec;
use crate::ids::{Kind, Name, Version};

/// One thing that a process waits for on its node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// A file of this namespace in sync, at least at this version.
    ConfigFile {
        /// The object.
        name: Name,
        /// The lowest version that will do; none takes any.
        at_least: Option<Version>,
    },
    /// A ready process of a workload of this namespace, on the same node.
    Workload {
        /// Deployment, StatefulSet, DaemonSet or Job.
        kind: Kind,
        /// The object.
        name: Name,
    },
    /// A ready process of this namespace, on the same node.
    Process {
        /// The process.
        name: Name,
    },
    /// Something is mounted at this absolute path.
    Mount(String),
    /// Something exists at this absolute path.
    Path(String),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::ConfigFile { name, at_least: None } => write!(f, "configfile/{name}"),
            Need::ConfigFile { name, at_least: Some(version) } => write!(f, "configfile/{name}@>={version}"),
            Need::Workload { kind, name } => write!(f, "{}/{name}", kind.lower()),
            Need::Process { name } => write!(f, "process/{name}"),
            Need::Mount(path) => write!(f, "mount:{path}"),
            Need::Path(path) => write!(f, "path:{path}"),
        }
    }
}

impl FromStr for Need {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Need, InvalidSpec> {
        if let Some((what, path)) = text.split_once(':') {
            return match what {
                "mount" if path.starts_with('/') => Ok(Need::Mount(path.to_owned())),
                "path" if path.starts_with('/') => Ok(Need::Path(path.to_owned())),
                _ => Err(not_a_need(text)),
            };
        }
        let (kind, rest) = text.split_once('/').ok_or_else(|| not_a_need(text))?;
        let (name, version) = match rest.split_once('@') {
            Some((name, bound)) => (name, Some(bound)),
            None => (rest, None),
        };
        let name: Name = name.parse().map_err(|e: crate::ids::InvalidId| InvalidSpec(e.to_string()))?;
        match (kind, version) {
            ("configfile", bound) => {
                let at_least = bound.map(|bound| read_bound(text, bound)).transpose()?;
                Ok(Need::ConfigFile { name, at_least })
            }
            ("process", None) => Ok(Need::Process { name }),
            ("deployment", None) => Ok(Need::Workload { kind: Kind::Deployment, name }),
            ("statefulset", None) => Ok(Need::Workload { kind: Kind::StatefulSet, name }),
            ("daemonset", None) => Ok(Need::Workload { kind: Kind::DaemonSet, name }),
            ("job", None) => Ok(Need::Workload { kind: Kind::Job, name }),
            _ => Err(not_a_need(text)),
        }
    }
}

fn read_bound(text: &str, bound: &str) -> Result<Version, InvalidSpec> {
    bound
        .strip_prefix(">=")
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|version: &u64| *version > 0)
        .map(Version)
        .ok_or_else(|| not_a_need(text))
}

fn not_a_need(text: &str) -> InvalidSpec {
    InvalidSpec(format!(
        "{text:?} is not a need: write configfile/NAME, configfile/NAME@>=7, deployment/NAME, process/NAME, \
         mount:/srv/db or path:/x"
    ))
}

impl Serialize for Need {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
