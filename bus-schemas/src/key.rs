//! Every key of the store, built and parsed here.
//!
//! A key belongs to exactly one [`Bucket`]; who may write it, with which guards, is DESIGN.md section 3.3.
//! `Display` and [`Key::parse`] are inverse; parsing never panics and refuses everything that `Display` does not make.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ControllerName, Generation, Kind, Name, Namespace, NodeName, Sha256, Uid};

/// A set of keys with its own stream, revisions and durability. Revisions of different buckets are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Durable decisions: what cannot be recomputed.
    Objects,
    /// Reports and statuses: rebuilt by agents and controllers.
    Observed,
    /// The rights of nodes to run fenced work.
    Grants,
    /// File contents in chunks, by hash.
    Blobs,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Bucket; 4] = [Bucket::Objects, Bucket::Observed, Bucket::Grants, Bucket::Blobs];

    /// The bucket's name as the NATS tools know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Bucket::Objects => "ostler",
            Bucket::Observed => "ostler_observed",
            Bucket::Grants => "ostler_grants",
            Bucket::Blobs => "ostler_blob",
        }
    }

    /// The stream behind the bucket.
    #[must_use]
    pub const fn stream(self) -> &'static str {
        match self {
            Bucket::Objects => "KV_ostler",
            Bucket::Observed => "KV_ostler_observed",
            Bucket::Grants => "KV_ostler_grants",
            Bucket::Blobs => "KV_ostler_blob",
        }
    }

    /// What stands before a key in its subject, with the closing dot.
    #[must_use]
    pub const fn subject_prefix(self) -> &'static str {
        match self {
            Bucket::Objects => "$KV.ostler.",
            Bucket::Observed => "$KV.ostler_observed.",
            Bucket::Grants => "$KV.ostler_grants.",
            Bucket::Blobs => "$KV.ostler_blob.",
        }
    }
}

/// The name of an object: kind, namespace (none for cluster-wide kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The kind.
    pub kind: Kind,
    /// The namespace; `None` exactly for cluster-wide kinds.
    pub namespace: Option<Namespace>,
    /// The name.
    pub name: Name,
}

/// Stands for the namespace of cluster-wide objects in keys and subjects; no namespace can bear this name.
pub const NO_NAMESPACE: &str = "_";

impl ObjectRef {
    /// The namespace token of keys and subjects.
    #[must_use]
    pub fn namespace_token(&self) -> &str {
        self.namespace.as_ref().map_or(NO_NAMESPACE, Namespace::as_str)
    }

    /// As messages name it: `deployment/web`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}/{}", self.kind.lower(), self.name)
    }

    /// The object of a node.
    #[must_use]
    pub fn node(node: &NodeName) -> Option<Self> {
        Some(Self { kind: Kind::Node, namespace: None, name: node.as_str().parse().ok()? })
    }
}

/// `deployment/default/web`, `node/_/web-001`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.lower(), self.namespace_token(), self.name)
    }
}

/// What a decision state is about: an object or process by uid, or a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateSubject {
    /// An object or process.
    Uid(Uid),
    /// A node.
    Node(NodeName),
}

/// The documents of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentKind {
    /// What the node should run.
    Run,
    /// What files it should hold.
    Files,
    /// The values of Secrets that its processes are given, sealed to it.
    Secrets,
}

impl DocumentKind {
    /// All of them.
    pub const ALL: [DocumentKind; 3] = [DocumentKind::Run, DocumentKind::Files, DocumentKind::Secrets];

    /// As in keys and subjects.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DocumentKind::Run => "run",
            DocumentKind::Files => "files",
            DocumentKind::Secrets => "secrets",
        }
    }
}

/// A key of the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `o.<kind>.<ns>.<name>`: an API object.
    Object(ObjectRef),
    /// `rev.<kind>.<ns>.<name>.<uid>.<generation>`: an immutable copy of a spec.
    SpecRevision(ObjectRef, Uid, Generation),
    /// `t.<sha256>`: an immutable process template or file spec.
    Template(Sha256),
    /// `p.<uid>.spec`: who a process belongs to; immutable.
    ProcessSpec(Uid),
    /// `p.<uid>.tmpl`: the template it should have.
    ProcessTemplate(Uid),
    /// `p.<uid>.bind`: its node.
    ProcessBind(Uid),
    /// `p.<uid>.goal`: what should become of it.
    ProcessGoal(Uid),
    /// `n.<node>.run`, `n.<node>.files`, `n.<node>.secrets`: a node document.
    NodeDocument(NodeName, DocumentKind),
    /// `s.<controller>.<uid or node>`: decision state of a controller.
    State(ControllerName, StateSubject),
    /// `lease.<c>`: who may act as the controller.
    Lease(ControllerName),
    /// `term.<c>`: the record of a leader's term.
    Term(ControllerName),
    /// `fence.<c>`: written in each batch of the leader, guarded on the term.
    Fence(ControllerName),
    /// `meta.incarnation`: the store's incarnation.
    MetaIncarnation,
    /// `meta.format_floor`: the oldest format that must be read.
    MetaFormatFloor,
    /// `r.<node>` (observed): the node's report.
    Report(NodeName),
    /// `st.<kind>.<ns>.<name>` (observed): status of an object.
    Status(ObjectRef),
    /// `g.<node>` (grants).
    Grant(NodeName),
    /// `<sha256>.<n>` (blobs): chunk n of a content, from 0.
    BlobChunk(Sha256, u32),
}

impl Key {
    /// The bucket that the key lies in.
    #[must_use]
    pub const fn bucket(&self) -> Bucket {
        match self {
            Key::Object(_)
            | Key::SpecRevision(..)
            | Key::Template(_)
            | Key::ProcessSpec(_)
            | Key::ProcessTemplate(_)
            | Key::ProcessBind(_)
            | Key::ProcessGoal(_)
            | Key::NodeDocument(..)
            | Key::State(..)
            | Key::Lease(_)
            | Key::Term(_)
            | Key::Fence(_)
            | Key::MetaIncarnation
            | Key::MetaFormatFloor => Bucket::Objects,
            Key::Report(_) | Key::Status(_) => Bucket::Observed,
            Key::Grant(_) => Bucket::Grants,
            Key::BlobChunk(..) => Bucket::Blobs,
        }
    }

    /// The subject under which the stream stores it.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{}{self}", self.bucket().subject_prefix())
    }

    /// The key of a stored message's subject.
    ///
    /// # Errors
    /// [`InvalidKey`] if the subject is of no bucket or not a key of it.
    pub fn from_subject(subject: &str) -> Result<Key, InvalidKey> {
        for bucket in Bucket::ALL {
            if let Some(rest) = subject.strip_prefix(bucket.subject_prefix()) {
                return Key::parse(bucket, rest);
            }
        }
        Err(InvalidKey { text: subject.chars().take(InvalidKey::SHOWN).collect() })
    }

    /// A key from its text.
    ///
    /// # Errors
    /// [`InvalidKey`] for everything that `Display` of a key of this bucket does not make.
    pub fn parse(bucket: Bucket, text: &str) -> Result<Key, InvalidKey> {
        let tokens: Vec<&str> = text.split('.').collect();
        let parsed = match bucket {
            Bucket::Objects => objects_key(&tokens),
            Bucket::Observed => observed_key(&tokens),
            Bucket::Grants => match tokens.as_slice() {
                ["g", node] => node.parse().ok().map(Key::Grant),
                _ => None,
            },
            Bucket::Blobs => match tokens.as_slice() {
                [hash, n] => hash.parse().ok().zip(number(n)).map(|(h, n)| Key::BlobChunk(h, n)),
                _ => None,
            },
        };
        parsed.ok_or_else(|| InvalidKey { text: text.chars().take(InvalidKey::SHOWN).collect() })
    }
}

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a key")]
pub struct InvalidKey {
    text: String,
}

impl InvalidKey {
    /// A hostile subject may be long; an error message shows this many characters of it.
    const SHOWN: usize = 120;
}

/// A decimal number in its one canonical form: no sign, no leading zeros.
fn number<T: std::str::FromStr + fmt::Display>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

fn lower_kind(text: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|k| k.lower() == text)
}

fn object_ref(kind: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
    let kind = lower_kind(kind)?;
    let namespace = match (kind.is_cluster_wide(), namespace) {
        (true, NO_NAMESPACE) => None,
        (false, text) => Some(text.parse().ok()?),
        (true, _) => return None,
    };
    Some(ObjectRef { kind, namespace, name: name.parse().ok()? })
}

fn objects_key(tokens: &[&str]) -> Option<Key> {
    let key = match tokens {
        ["o", kind, ns, name] => Key::Object(object_ref(kind, ns, name)?),
        ["rev", kind, ns, name, uid, generation] => {
            Key::SpecRevision(object_ref(kind, ns, name)?, uid.parse().ok()?, Generation(number(generation)?))
        }
        ["t", hash] => Key::Template(hash.parse().ok()?),
        ["p", uid, part] => {
            let uid: Uid = uid.parse().ok()?;
            match *part {
                "spec" => Key::ProcessSpec(uid),
                "tmpl" => Key::ProcessTemplate(uid),
                "bind" => Key::ProcessBind(uid),
                "goal" => Key::ProcessGoal(uid),
                _ => return None,
            }
        }
        ["n", node, "run"] => Key::NodeDocument(node.parse().ok()?, DocumentKind::Run),
        ["n", node, "files"] => Key::NodeDocument(node.parse().ok()?, DocumentKind::Files),
        ["n", node, "secrets"] => Key::NodeDocument(node.parse().ok()?, DocumentKind::Secrets),
        ["s", controller, subject] => {
            Key::State(controller.parse().ok()?, state_subject(controller, subject)?)
        }
        ["lease", c] => Key::Lease(c.parse().ok()?),
        ["term", c] => Key::Term(c.parse().ok()?),
        ["fence", c] => Key::Fence(c.parse().ok()?),
        ["meta", "incarnation"] => Key::MetaIncarnation,
        ["meta", "format_floor"] => Key::MetaFormatFloor,
        _ => return None,
    };
    Some(key)
}

/// The node controller's state is by node name, every other controller's by uid. A node may be named with 32 hex
/// digits, so the controller decides which it is, never the look of the text.
fn state_subject(controller: &str, text: &str) -> Option<StateSubject> {
    if controller == ControllerName::Node.as_str() {
        text.parse().ok().map(StateSubject::Node)
    } else {
        text.parse().ok().map(StateSubject::Uid)
    }
}

fn observed_key(tokens: &[&str]) -> Option<Key> {
    match tokens {
        ["r", node] => node.parse().ok().map(Key::Report),
        ["st", kind, ns, name] => object_ref(kind, ns, name).map(Key::Status),
        _ => None,
    }
}

impl fmt::Display for StateSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateSubject::Uid(uid) => write!(f, "{uid}"),
            StateSubject::Node(node) => write!(f, "{node}"),
        }
    }
}

struct Dotted<'a>(&'a ObjectRef);

impl fmt::Display for Dotted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0.kind.lower(), self.0.namespace_token(), self.0.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Object(o) => write!(f, "o.{}", Dotted(o)),
            Key::SpecRevision(o, uid, generation) => write!(f, "rev.{}.{uid}.{generation}", Dotted(o)),
            Key::Template(hash) => write!(f, "t.{hash}"),
            Key::ProcessSpec(uid) => write!(f, "p.{uid}.spec"),
            Key::ProcessTemplate(uid) => write!(f, "p.{uid}.tmpl"),
            Key::ProcessBind(uid) => write!(f, "p.{uid}.bind"),
            Key::ProcessGoal(uid) => write!(f, "p.{uid}.goal"),
            Key::NodeDocument(node, kind) => write!(f, "n.{node}.{}", kind.as_str()),
            Key::State(c, subject) => write!(f, "s.{c}.{subject}"),
            Key::Lease(c) => write!(f, "lease.{c}"),
            Key::Term(c) => write!(f, "term.{c}"),
            Key::Fence(c) => write!(f, "fence.{c}"),
            Key::MetaIncarnation => f.write_str("meta.incarnation"),
            Key::MetaFormatFloor => f.write_str("meta.format_floor"),
            Key::Report(node) => write!(f, "r.{node}"),
            Key::Status(o) => write!(f, "st.{}", Dotted(o)),
            Key::Grant(node) => write!(f, "g.{node}"),
            Key::BlobChunk(hash, n) => write!(f, "{hash}.{n}"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests;
