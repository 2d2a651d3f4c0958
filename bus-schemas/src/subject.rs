//! Every subject that is not a key, built and parsed here.
//!
//! Agents and operators live in accounts of their own and see control-plane subjects through imports, some of them
//! renamed; a name here is what its user types. The control plane's side of a renamed one is given beside it.

use std::fmt;

use crate::ids::{ControllerName, Name, Namespace, NodeName, ReplicaId, Sha256};
use crate::key::{Bucket, DocumentKind, NO_NAMESPACE, ObjectRef};

/// Heard by every controller replica: all beats, canaries included.
pub const ALL_BEATS: &str = "beat.*";
/// Heard by the replica that answers a beat (queue group [`API_GROUP`]); the same subject as [`ALL_BEATS`].
pub const API_GROUP: &str = "q";
/// All beacons of controller replicas.
pub const ALL_BEACONS: &str = "beacon.*";
/// All events.
pub const ALL_EVENTS: &str = "ostler.v1.event.>";
/// All audit records.
pub const ALL_AUDIT: &str = "ostler.v1.audit.>";
/// Stream of the events.
pub const EVENTS_STREAM: &str = "OSTLER_EVENTS";
/// Stream of the audit records.
pub const AUDIT_STREAM: &str = "OSTLER_AUDIT";
/// All shipped output of processes.
pub const ALL_LOGS: &str = "ostler.v1.log.>";
/// Stream of the shipped output of processes.
pub const LOGS_STREAM: &str = "OSTLER_LOGS";
/// Begins the token of a canary in place of a node's name; no node name begins so.
pub const CANARY_MARK: char = '_';

/// Who sent a beat, from its subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BeatSource {
    /// A node.
    Node(NodeName),
    /// A canary that beats through one NATS server, named by the server.
    Canary(Name),
}

impl BeatSource {
    /// From `beat.<token>`.
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let token = subject.strip_prefix("beat.")?;
        match token.strip_prefix(CANARY_MARK) {
            Some(server) => server.parse().ok().map(BeatSource::Canary),
            None => token.parse().ok().map(BeatSource::Node),
        }
    }

    /// The subject that it beats on.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            BeatSource::Node(node) => format!("beat.{node}"),
            BeatSource::Canary(server) => format!("beat.{CANARY_MARK}{server}"),
        }
    }
}

/// The beacon of a controller replica.
#[must_use]
pub fn beacon(replica: &ReplicaId) -> String {
    format!("beacon.{replica}")
}

/// What a hint to a node is about. Hints bear no body and no trust: the node fetches the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// A document has a new revision.
    Document(DocumentKind),
    /// There are orders to fetch (logs, exec, queries).
    Ask,
}

impl Hint {
    /// The subject of a hint to `node`.
    #[must_use]
    pub fn subject(self, node: &NodeName) -> String {
        match self {
            Hint::Document(kind) => format!("push.{node}.{}", kind.as_str()),
            Hint::Ask => format!("push.{node}.ask"),
        }
    }

    /// From a subject, if it is a hint to `node`.
    #[must_use]
    pub fn parse(subject: &str, node: &NodeName) -> Option<Self> {
        let rest = subject.strip_prefix("push.")?.strip_prefix(node.as_str())?.strip_prefix('.')?;
        match rest {
            "run" => Some(Hint::Document(DocumentKind::Run)),
            "files" => Some(Hint::Document(DocumentKind::Files)),
            "secrets" => Some(Hint::Document(DocumentKind::Secrets)),
            "ask" => Some(Hint::Ask),
            _ => None,
        }
    }
}

/// All hints to a node.
#[must_use]
pub fn hints(node: &NodeName) -> String {
    format!("push.{node}.>")
}

/// The direct get of one literal key by appended subject: what CP exports and agents import under other names.
#[must_use]
pub fn direct_get(bucket: Bucket, key: &str) -> String {
    format!("$JS.API.DIRECT.GET.{}.{}{key}", bucket.stream(), bucket.subject_prefix())
}

/// As an agent asks for its document (in CP: [`direct_get`] of `n.<node>.<kind>`).
#[must_use]
pub fn get_document(node: &NodeName, kind: DocumentKind) -> String {
    format!("get.doc.{node}.{}", kind.as_str())
}

/// As an agent asks for a template or file spec (in CP: [`direct_get`] of `t.<sha256>`).
#[must_use]
pub fn get_template(hash: &Sha256) -> String {
    format!("get.tmpl.{hash}")
}

/// As an agent asks for a chunk of a blob (in CP: [`direct_get`] of `<sha256>.<n>`).
#[must_use]
pub fn get_blob(hash: &Sha256, chunk: u32) -> String {
    format!("get.blob.{hash}.{chunk}")
}

/// As an agent stores its report (in CP: the subject of key `r.<node>`). Three literal tokens come first: see the bus's
/// layout on messages that cross between accounts twice.
#[must_use]
pub fn put_report(node: &NodeName) -> String {
    format!("put.node.report.{node}")
}

/// What callers may ask the API for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the verbs of DESIGN.md 3.10, each documented at its request type")]
pub enum Verb {
    Apply,
    Get,
    List,
    Watch,
    Delete,
    Scale,
    Config,
    Rollout,
    Logs,
    Events,
    Node,
    Asks,
    Relay,
    Put,
    Blob,
    Register,
    Top,
    Exec,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 18] = [
        Verb::Apply,
        Verb::Get,
        Verb::List,
        Verb::Watch,
        Verb::Delete,
        Verb::Scale,
        Verb::Config,
        Verb::Rollout,
        Verb::Logs,
        Verb::Events,
        Verb::Node,
        Verb::Asks,
        Verb::Relay,
        Verb::Put,
        Verb::Blob,
        Verb::Register,
        Verb::Top,
        Verb::Exec,
    ];

    /// As in the subject.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Apply => "apply",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Delete => "delete",
            Verb::Scale => "scale",
            Verb::Config => "config",
            Verb::Rollout => "rollout",
            Verb::Logs => "logs",
            Verb::Events => "events",
            Verb::Node => "node",
            Verb::Asks => "asks",
            Verb::Relay => "relay",
            Verb::Put => "put",
            Verb::Blob => "blob",
            Verb::Register => "register",
            Verb::Top => "top",
            Verb::Exec => "exec",
        }
    }

    /// From the token of a subject.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Verb::ALL.into_iter().find(|v| v.as_str() == text)
    }

    /// Whether any replica may answer alone (queue group). `asks` and `relay` go to all: the replica that holds the
    /// caller's request answers.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        !matches!(self, Verb::Asks | Verb::Relay)
    }

    /// What an endpoint subscribes to: `api.*.<verb>`, and below it for [`Verb::Relay`].
    #[must_use]
    pub fn endpoint(self) -> String {
        match self {
            Verb::Relay => "api.*.relay.*".to_owned(),
            Verb::Apply
            | Verb::Get
            | Verb::List
            | Verb::Watch
            | Verb::Delete
            | Verb::Scale
            | Verb::Config
            | Verb::Rollout
            | Verb::Logs
            | Verb::Events
            | Verb::Node
            | Verb::Asks
            | Verb::Put
            | Verb::Blob
            | Verb::Register
            | Verb::Top
            | Verb::Exec => format!("api.*.{}", self.as_str()),
        }
    }
}

/// A request to the API: `api.<caller>.<verb>[.<rest>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSubject {
    /// The caller's token, proved by permissions: a user's or node's name.
    pub caller: Name,
    /// The verb.
    pub verb: Verb,
    /// For `relay`: the id of the ask.
    pub rest: Option<String>,
}

impl ApiSubject {
    /// From a subject.
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let mut tokens = subject.split('.');
        if tokens.next()? != "api" {
            return None;
        }
        let caller = tokens.next()?.parse().ok()?;
        let verb = Verb::parse(tokens.next()?)?;
        let rest = tokens.next().map(str::to_owned);
        tokens.next().is_none().then_some(Self { caller, verb, rest })
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> String {
        let verb = self.verb.as_str();
        match &self.rest {
            Some(rest) => format!("api.{}.{verb}.{rest}", self.caller),
            None => format!("api.{}.{verb}", self.caller),
        }
    }
}

/// Which party an event comes from; the bus proves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventSource {
    /// A controller.
    Controller(ControllerName),
    /// The API.
    Api,
    /// A node's agent.
    Node(NodeName),
}

/// The subject of an event, and what it tells without the body.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventSubject {
    /// Where it comes from.
    pub source: EventSource,
    /// What it is about.
    pub object: ObjectRef,
    /// The reason, CamelCase (CONTRACT.md section 8).
    pub reason: String,
}

/// Whether `text` can be the reason of an event: CamelCase letters and digits, one token.
#[must_use]
pub fn is_reason(text: &str) -> bool {
    text.len() <= 40
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

impl EventSubject {
    /// From a subject.
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let tokens: Vec<&str> = subject.strip_prefix("ostler.v1.event.")?.split('.').collect();
        let [plane, source, kind, namespace, name, reason] = tokens.as_slice() else { return None };
        let source = match (*plane, *source) {
            ("cp", "api") => EventSource::Api,
            ("cp", controller) => EventSource::Controller(controller.parse().ok()?),
            ("node", node) => EventSource::Node(node.parse().ok()?),
            (_, _) => return None,
        };
        let kind = crate::ids::Kind::ALL.into_iter().find(|k| k.lower() == *kind)?;
        let namespace: Option<Namespace> = match *namespace {
            NO_NAMESPACE => None,
            text => Some(text.parse().ok()?),
        };
        let object = ObjectRef { kind, namespace, name: name.parse().ok()? };
        is_reason(reason).then(|| Self { source, object, reason: (*reason).to_owned() })
    }

    /// What a node's agent publishes on instead (in CP the same as [`EventSubject`]'s own text).
    #[must_use]
    pub fn put_subject(&self, node: &NodeName) -> String {
        let o = &self.object;
        format!("put.event.{node}.{}.{}.{}.{}", o.kind.lower(), o.namespace_token(), o.name, self.reason)
    }
}

impl fmt::Display for EventSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ostler.v1.event.")?;
        match &self.source {
            EventSource::Controller(c) => write!(f, "cp.{c}")?,
            EventSource::Api => f.write_str("cp.api")?,
            EventSource::Node(node) => write!(f, "node.{node}")?,
        }
        let o = &self.object;
        write!(f, ".{}.{}.{}.{}", o.kind.lower(), o.namespace_token(), o.name, self.reason)
    }
}

/// The subject of a process's shipped output. The bus proves the node, and nothing but the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSubject {
    /// The node that it ran on.
    pub node: NodeName,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub process: Name,
}

impl LogSubject {
    /// From a subject.
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let tokens: Vec<&str> = subject.strip_prefix("ostler.v1.log.")?.split('.').collect();
        let [node, namespace, process] = tokens.as_slice() else { return None };
        let (node, namespace) = (node.parse().ok()?, namespace.parse().ok()?);
        Some(Self { node, namespace, process: process.parse().ok()? })
    }

    /// What a node's agent publishes on instead. Three literal tokens come first: see the bus's layout on messages
    /// that cross between accounts twice.
    #[must_use]
    pub fn put_subject(&self) -> String {
        format!("put.node.log.{}.{}.{}", self.node, self.namespace, self.process)
    }

    /// The output of processes of one name on whatever nodes.
    #[must_use]
    pub fn of_any_node(namespace: &Namespace, process: &Name) -> String {
        format!("ostler.v1.log.*.{namespace}.{process}")
    }
}

impl fmt::Display for LogSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ostler.v1.log.{}.{}.{}", self.node, self.namespace, self.process)
    }
}

/// Audit record of a request: `ostler.v1.audit.<caller>.<verb>.<intent|outcome>`.
#[must_use]
pub fn audit(caller: &Name, verb: Verb, phase: &str) -> String {
    format!("ostler.v1.audit.{caller}.{}.{phase}", verb.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Kind;

    #[test]
    fn event_subjects_read_back() {
        let object = ObjectRef {
            kind: Kind::Deployment,
            namespace: Some(Namespace::default_namespace()),
            name: "web".parse().expect("a name"),
        };
        let node: NodeName = "n1".parse().expect("a name");
        for source in
            [EventSource::Api, EventSource::Controller(ControllerName::Node), EventSource::Node(node)]
        {
            let subject = EventSubject { source, object: object.clone(), reason: "Scaled".to_owned() };
            assert_eq!(EventSubject::parse(&subject.to_string()), Some(subject));
        }
        assert_eq!(EventSubject::parse("ostler.v1.event.cp.king.deployment.default.web.Scaled"), None);
        assert_eq!(EventSubject::parse("ostler.v1.event.cp.api.deployment.default.web.scaled"), None);
    }

    #[test]
    fn canaries_are_no_nodes() {
        let canary = BeatSource::Canary("s1".parse().expect("a name"));
        assert_eq!(canary.subject(), "beat._s1");
        assert_eq!(BeatSource::parse("beat._s1"), Some(canary));
        assert_eq!(BeatSource::parse("beat.*"), None);
    }

    proptest! {
        #[test]
        fn parsing_is_total(text in "[-_.a-zA-Z0-9*>]{0,80}") {
            if let Some(subject) = EventSubject::parse(&text) {
                prop_assert_eq!(subject.to_string(), text.clone());
            }
            if let Some(subject) = ApiSubject::parse(&text) {
                prop_assert_eq!(subject.subject(), text.clone());
            }
            if let Some(log) = LogSubject::parse(&text) {
                prop_assert_eq!(log.to_string(), text.clone());
            }
            if let Some(source) = BeatSource::parse(&text) {
                prop_assert_eq!(source.subject(), text);
            }
        }
    }
}
