//! Typed names and identities. Each is checked when it is parsed; a value of such a type is always valid.
//!
//! `Display` and `FromStr` are inverse. With human-readable formats (JSON) every id is text; in MessagePack the
//! 128-bit and 256-bit ones are raw bytes, because a node document must stay small (64 bytes a process).

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not the id it should be. The message is fit for a user: it says what is allowed, with an example.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidId {
    message: String,
}

impl InvalidId {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// Longest DNS label (RFC 1035): names are one label so that they can be one subject token and one host name part.
pub const NAME_MAX: usize = 63;

/// Whether `text` is a DNS label: `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most [`NAME_MAX`] bytes.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    !bytes.is_empty()
        && bytes.len() <= NAME_MAX
        && bytes.iter().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

/// The nearest valid label to a text, offered in messages (`Web_1` gives `web-1`).
#[must_use]
pub fn nearest_label(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        let keep = if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
        if keep != '-' || !out.ends_with('-') {
            out.push(keep);
        }
    }
    let cut: String = out.trim_matches('-').chars().take(NAME_MAX).collect();
    let cut = cut.trim_matches('-');
    if cut.is_empty() { "web-1".to_owned() } else { cut.to_owned() }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr, $why:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    let why: fn(&str) -> String = $why;
                    Err(InvalidId::new(why(text)))
                }
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn not_a_name(text: &str) -> String {
    format!("{text:?} is not a name: use a-z, 0-9 and \"-\"; for example {}", nearest_label(text))
}

text_id! {
    /// The name of an object, unique per kind and namespace: a DNS label.
    Name, is_label, not_a_name
}
text_id! {
    /// A namespace: a DNS label.
    Namespace, is_label, not_a_name
}
text_id! {
    /// The name of a node: one DNS label, no dots, fixed at join. It is one token of the node's subjects and keys.
    NodeName, is_label, not_a_name
}
text_id! {
    /// The identity of one controller replica, chosen at start (its host name and a random part): a DNS label.
    ReplicaId, is_label, not_a_name
}

impl Namespace {
    /// The namespace that always exists.
    #[must_use]
    pub fn default_namespace() -> Self {
        Self("default".into())
    }
}

/// Number of hex digits of the short form of a uid, as shown and accepted by commands.
pub const SHORT_UID: usize = 8;

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// From raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
            /// The first eight hex digits, enough to tell ids apart in a table.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string()[..SHORT_UID].to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0u8; $len * 2];
                for (i, byte) in self.0.iter().enumerate() {
                    text[2 * i] = HEX[usize::from(byte >> 4)];
                    text[2 * i + 1] = HEX[usize::from(byte & 15)];
                }
                f.pad(std::str::from_utf8(&text).unwrap_or_default())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_hex(text)
                    .map(Self)
                    .ok_or_else(|| InvalidId::new(format!("{text:?} is not {}: write {} lower-case hex digits", $what, $len * 2)))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0) }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(D::Error::custom)
                } else {
                    let bytes = serde_bytes::ByteBuf::deserialize(d)?;
                    <[u8; $len]>::try_from(bytes.as_slice())
                        .map(Self)
                        .map_err(|_| D::Error::custom(concat!($what, " has another length")))
                }
            }
        }
    };
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let nibble = |b: u8| HEX.iter().position(|h| *h == b).and_then(|i| u8::try_from(i).ok());
    let mut out = [0u8; N];
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = nibble(digits[2 * i])? << 4 | nibble(digits[2 * i + 1])?;
    }
    Some(out)
}

byte_id! {
    /// The identity of an object or process for all time: 128 random bits, 32 hex digits.
    Uid, 16, "a uid"
}
byte_id! {
    /// The identity of one transaction: the same bytes are resent until the outcome is known.
    TxnId, 16, "a transaction id"
}
byte_id! {
    /// The SHA-256 (FIPS 180-4) of stored bytes; the name of templates, file specs and blobs.
    Sha256, 32, "a sha256"
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The next number.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse().map(Self).map_err(|_| InvalidId::new(format!("{text:?} is not a whole number")))
            }
        }
    };
}

number_id! {
    /// The store's sequence number of a write. Revisions of different buckets are never compared.
    Revision
}
number_id! {
    /// Counts the changes of one object's spec, from 1.
    Generation
}
number_id! {
    /// The integer that names what is rolled out: a workload's template, a file's content. From 1.
    Version
}

/// Every kind of object, in the order in which lists show them. Kinds that this version does not serve are known
/// names: they are refused with `NotSupported`, never with "unknown".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are the kinds of CONTRACT.md section 4, described there")]
pub enum Kind {
    Node,
    Namespace,
    Process,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    ConfigFile,
    Secret,
    Service,
    ResourceQuota,
    Role,
    RoleBinding,
    PriorityClass,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 15] = [
        Kind::Node,
        Kind::Namespace,
        Kind::Process,
        Kind::Deployment,
        Kind::StatefulSet,
        Kind::DaemonSet,
        Kind::Job,
        Kind::CronJob,
        Kind::ConfigFile,
        Kind::Secret,
        Kind::Service,
        Kind::ResourceQuota,
        Kind::Role,
        Kind::RoleBinding,
        Kind::PriorityClass,
    ];

    /// As in `kind:` of a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.words().0
    }

    /// Lower case, as in `deployment/web`, in keys and in subjects.
    #[must_use]
    pub const fn lower(self) -> &'static str {
        self.words().1
    }

    /// The plural, as in `get deployments`.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        self.words().2
    }

    /// Short forms that commands accept.
    #[must_use]
    pub const fn short_forms(self) -> &'static [&'static str] {
        self.words().3
    }

    /// Whether objects of this kind live outside namespaces.
    #[must_use]
    pub const fn is_cluster_wide(self) -> bool {
        matches!(self, Kind::Node | Kind::Namespace | Kind::PriorityClass)
    }

    /// Whether this version of Ostler serves the kind; the others are reserved names.
    #[must_use]
    pub const fn is_served(self) -> bool {
        matches!(
            self,
            Kind::Node | Kind::Namespace | Kind::Process | Kind::Deployment | Kind::ConfigFile | Kind::Secret
        )
    }

    /// By any accepted form: `Deployment`, `deployment`, `deployments`, `deploy`. Case matters only for the first.
    #[must_use]
    pub fn by_any_name(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| {
            text == k.as_str() || text == k.lower() || text == k.plural() || k.short_forms().contains(&text)
        })
    }

    const fn words(self) -> (&'static str, &'static str, &'static str, &'static [&'static str]) {
        match self {
            Kind::Node => ("Node", "node", "nodes", &["no"]),
            Kind::Namespace => ("Namespace", "namespace", "namespaces", &["ns"]),
            Kind::Process => ("Process", "process", "processes", &["ps"]),
            Kind::Deployment => ("Deployment", "deployment", "deployments", &["deploy"]),
            Kind::StatefulSet => ("StatefulSet", "statefulset", "statefulsets", &["sts"]),
            Kind::DaemonSet => ("DaemonSet", "daemonset", "daemonsets", &["ds"]),
            Kind::Job => ("Job", "job", "jobs", &[]),
            Kind::CronJob => ("CronJob", "cronjob", "cronjobs", &["cj"]),
            Kind::ConfigFile => ("ConfigFile", "configfile", "configfiles", &["cf"]),
            Kind::Secret => ("Secret", "secret", "secrets", &[]),
            Kind::Service => ("Service", "service", "services", &["svc"]),
            Kind::ResourceQuota => ("ResourceQuota", "resourcequota", "resourcequotas", &[]),
            Kind::Role => ("Role", "role", "roles", &[]),
            Kind::RoleBinding => ("RoleBinding", "rolebinding", "rolebindings", &[]),
            Kind::PriorityClass => ("PriorityClass", "priorityclass", "priorityclasses", &[]),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = InvalidId;
    /// The exact name, or the lower-case form of keys and subjects.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Kind::ALL
            .into_iter()
            .find(|k| text == k.as_str() || text == k.lower())
            .ok_or_else(|| InvalidId::new(format!("{text:?} is not a kind")))
    }
}

/// The closed list of controllers: each has a lease, a term and a fence of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants are the controllers of DESIGN.md section 2")]
pub enum ControllerName {
    Node,
    Scheduler,
    Process,
    Deployment,
    ConfigFile,
    Secret,
    Garbage,
}

impl ControllerName {
    /// Every controller of this version.
    pub const ALL: [ControllerName; 7] = [
        ControllerName::Node,
        ControllerName::Scheduler,
        ControllerName::Process,
        ControllerName::Deployment,
        ControllerName::ConfigFile,
        ControllerName::Secret,
        ControllerName::Garbage,
    ];

    /// As it stands in keys and subjects.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ControllerName::Node => "node",
            ControllerName::Scheduler => "scheduler",
            ControllerName::Process => "process",
            ControllerName::Deployment => "deployment",
            ControllerName::ConfigFile => "configfile",
            ControllerName::Secret => "secret",
            ControllerName::Garbage => "garbage",
        }
    }
}

impl fmt::Display for ControllerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ControllerName {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        ControllerName::ALL
            .into_iter()
            .find(|c| c.as_str() == text)
            .ok_or_else(|| InvalidId::new(format!("{text:?} is not a controller")))
    }
}

/// Who did something: `user/anna`, `node/web-001`, `controller/scheduler`. Written into objects, events and audit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// A person or program with an operator's credentials.
    User(Name),
    /// A node's agent.
    Node(NodeName),
    /// A controller.
    Controller(ControllerName),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::User(name) => write!(f, "user/{name}"),
            Actor::Node(name) => write!(f, "node/{name}"),
            Actor::Controller(name) => write!(f, "controller/{name}"),
        }
    }
}

impl FromStr for Actor {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('/') {
            Some(("user", name)) => name.parse().map(Actor::User),
            Some(("node", name)) => name.parse().map(Actor::Node),
            Some(("controller", name)) => name.parse().map(Actor::Controller),
            Some(_) | None => Err(InvalidId::new(format!("{text:?} is not an actor: write user/NAME"))),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
