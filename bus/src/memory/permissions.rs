//! Who may say what to whom in the model: DESIGN.md 3.10 "Subjects", as data.

use ostler_schemas::{Name, NodeName};

use super::pattern::Pattern;

/// An account of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Account {
    /// Controllers; the only one with streams.
    Cp,
    /// Agents and canaries.
    Ag,
    /// Operators.
    Op,
}

impl Account {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Account::Cp => "CP",
            Account::Ag => "AG",
            Account::Op => "OP",
        }
    }
}

/// Who a connection is, as the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    Controller,
    Node(NodeName),
    Operator(Name),
    Canary(Name),
}

impl Identity {
    pub(super) fn account(&self) -> Account {
        match self {
            Identity::Controller => Account::Cp,
            Identity::Node(_) | Identity::Canary(_) => Account::Ag,
            Identity::Operator(_) => Account::Op,
        }
    }

    /// As `Nats-Request-Info` names it.
    pub(super) fn user(&self) -> String {
        match self {
            Identity::Controller => "controller".to_owned(),
            Identity::Node(node) => node.to_string(),
            Identity::Operator(name) => name.to_string(),
            Identity::Canary(server) => format!("_{server}"),
        }
    }
}

/// What a connection may publish and subscribe to, its own inbox apart.
#[derive(Debug, Clone)]
pub(super) struct Permissions {
    publish: Vec<Pattern>,
    subscribe: Vec<Pattern>,
}

impl Permissions {
    pub(super) fn of(identity: &Identity) -> Self {
        let (publish, subscribe) = match identity {
            Identity::Controller => (vec![">".to_owned()], vec![">".to_owned()]),
            Identity::Node(node) => (
                vec![
                    format!("get.doc.{node}.*"),
                    "get.tmpl.*".to_owned(),
                    "get.blob.*.*".to_owned(),
                    format!("get.grant.{node}"),
                    format!("put.grant.{node}"),
                    format!("put.report.{node}"),
                    format!("put.event.{node}.>"),
                    format!("beat.{node}"),
                    format!("api.{node}.>"),
                ],
                vec![format!("push.{node}.>")],
            ),
            Identity::Operator(name) => (vec![format!("api.{name}.>"), "$SRV.>".to_owned()], Vec::new()),
            Identity::Canary(server) => (vec![format!("beat._{server}")], Vec::new()),
        };
        let compile = |list: Vec<String>| list.iter().map(|t| Pattern::new(t)).collect();
        Self { publish: compile(publish), subscribe: compile(subscribe) }
    }

    pub(super) fn may_publish(&self, subject: &str) -> bool {
        self.publish.iter().any(|p| p.matches(subject))
    }

    pub(super) fn may_subscribe(&self, subject: &Pattern) -> bool {
        self.subscribe.iter().any(|p| p.covers(subject))
    }
}

/// How many replies pass back through an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// The first.
    Single,
    /// All.
    Streamed,
}

/// A service of CP under the name that another account knows it by.
#[derive(Debug, Clone)]
pub(super) struct Import {
    pub(super) local: Pattern,
    /// The subject in CP, with `{1}`, `{2}` … for what the wildcards stand for.
    pub(super) target: &'static str,
    /// The server tells CP who asks.
    pub(super) share: bool,
    pub(super) response: Response,
}

/// What an account imports from CP.
pub(super) fn imports(account: Account) -> Vec<Import> {
    let single = |local: &str, target| Import {
        local: Pattern::new(local),
        target,
        share: false,
        response: Response::Single,
    };
    let streamed = |local: &str, target, share| Import {
        local: Pattern::new(local),
        target,
        share,
        response: Response::Streamed,
    };
    match account {
        Account::Cp => Vec::new(),
        Account::Ag => vec![
            single("get.doc.*.*", "$JS.API.DIRECT.GET.KV_ostler.$KV.ostler.n.{1}.{2}"),
            single("get.tmpl.*", "$JS.API.DIRECT.GET.KV_ostler.$KV.ostler.t.{1}"),
            single("get.blob.*.*", "$JS.API.DIRECT.GET.KV_ostler_blob.$KV.ostler_blob.{1}.{2}"),
            single("get.grant.*", "$JS.API.DIRECT.GET.KV_ostler_grants.$KV.ostler_grants.g.{1}"),
            single("put.grant.*", "$KV.ostler_grants.g.{1}"),
            single("put.report.*", "$KV.ostler_observed.r.{1}"),
            single("put.event.*.>", "ostler.v1.event.node.{1}.{2}"),
            single("beat.*", "beat.{1}"),
            streamed("api.*.>", "api.{1}.{2}", true),
        ],
        Account::Op => vec![streamed("api.*.>", "api.{1}.{2}", true), streamed("$SRV.>", "$SRV.{1}", false)],
    }
}

/// The subjects of CP that are delivered to subscribers in AG as they are.
pub(super) const STREAM_EXPORT: &str = "push.*.>";
