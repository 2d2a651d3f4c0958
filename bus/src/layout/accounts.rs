//! Who may say what: identities, their permission lists, and what crosses between accounts.

use ostler_schemas::{Name, NodeName};

use super::{Account, Block};

/// A beat that nobody answers in this time will not be answered: the server forgets where the answer should have gone.
const BEAT_THRESHOLD_MS: u64 = 2_000;
/// Requests that the store answers: the client's own patience.
const STORE_THRESHOLD_MS: u64 = 5_000;
/// The longest pause between two messages of a streamed answer. Whoever streams says something more often than this.
const STREAM_THRESHOLD_MS: u64 = 120_000;

/// How something crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Requests towards the exporter, answers back.
    Service {
        /// How long the server keeps the way back open.
        threshold_ms: u64,
        /// Whether one request may get several answers.
        streamed: bool,
        /// Whether the server tells the exporter who asks (`Nats-Request-Info`).
        share: bool,
    },
    /// Messages towards the importer.
    Stream,
}

/// One subject that account CP lets another account use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// Who imports.
    pub to: Account,
    /// How.
    pub flow: Flow,
    /// The subject in CP.
    pub subject: &'static str,
    /// The importer's name for it, if it is another.
    pub local: Option<&'static str>,
}

const STORE: Flow = Flow::Service { threshold_ms: STORE_THRESHOLD_MS, streamed: false, share: false };
const API: Flow = Flow::Service { threshold_ms: STREAM_THRESHOLD_MS, streamed: true, share: true };
const DISCOVERY: Flow = Flow::Service { threshold_ms: STORE_THRESHOLD_MS, streamed: true, share: false };

const fn to(to: Account, flow: Flow, subject: &'static str) -> Crossing {
    Crossing { to, flow, subject, local: None }
}

const fn renamed(to: Account, flow: Flow, subject: &'static str, local: &'static str) -> Crossing {
    Crossing { to, flow, subject, local: Some(local) }
}

/// Everything that crosses. Whatever is added here opens CP: only literal subjects and single tokens whose meaning the
/// importer's permissions fix, never `$JS.API.>`. Two traps, both tried by the tests of attacks on real servers:
///
/// * NATS does not check where a *reply* goes. Across an import it is rewritten, so it cannot name a subject of CP; but
///   on one server it may name another *import* of the requester's own account, and then the message crosses again,
///   its wildcards filled from the third token of the rewritten subject. So a renamed import that writes has three
///   literal tokens before its first wildcard: what crosses again then ends in an empty token and lands nowhere.
/// * Whoever has a JetStream of his own account can aim a stored message at an import of that account, unchanged. So no
///   importer has one, and nobody outside CP can create a consumer, which publishes wherever its creator says.
pub const CROSSINGS: [Crossing; 35] = [
    renamed(Account::Ag, STORE, "$JS.API.DIRECT.GET.KV_ostler.$KV.ostler.n.*.*", "get.doc.*.*"),
    renamed(Account::Ag, STORE, "$JS.API.DIRECT.GET.KV_ostler.$KV.ostler.t.*", "get.tmpl.*"),
    renamed(Account::Ag, STORE, "$JS.API.DIRECT.GET.KV_ostler_blob.$KV.ostler_blob.*.*", "get.blob.*.*"),
    renamed(Account::Ag, STORE, "$JS.API.DIRECT.GET.KV_ostler_grants.$KV.ostler_grants.g.*", "get.grant.*"),
    renamed(Account::Ag, STORE, "$KV.ostler_grants.g.*", "put.node.grant.*"),
    renamed(Account::Ag, STORE, "$KV.ostler_observed.r.*", "put.node.report.*"),
    renamed(Account::Ag, STORE, "ostler.v1.event.node.*.>", "put.event.*.>"),
    renamed(Account::Ag, STORE, "ostler.v1.log.*.*.*", "put.node.log.*.*.*"),
    to(
        Account::Ag,
        Flow::Service { threshold_ms: BEAT_THRESHOLD_MS, streamed: false, share: false },
        "beat.*",
    ),
    to(Account::Ag, API, "api.*.>"),
    to(Account::Ag, Flow::Stream, "push.*.>"),
    to(Account::Op, API, "api.*.>"),
    to(Account::Op, DISCOVERY, "$SRV.>"),
    to(Account::View, STORE, "$JS.API.INFO"),
    to(Account::View, STORE, "$JS.API.STREAM.NAMES"),
    to(Account::View, STORE, "$JS.API.STREAM.LIST"),
    to(Account::View, STORE, "$JS.API.STREAM.INFO.KV_ostler"),
    to(Account::View, STORE, "$JS.API.STREAM.INFO.KV_ostler_observed"),
    to(Account::View, STORE, "$JS.API.STREAM.INFO.OSTLER_EVENTS"),
    to(Account::View, STORE, "$JS.API.STREAM.INFO.OSTLER_AUDIT"),
    to(Account::View, STORE, "$JS.API.STREAM.MSG.GET.KV_ostler"),
    to(Account::View, STORE, "$JS.API.STREAM.MSG.GET.KV_ostler_observed"),
    to(Account::View, STORE, "$JS.API.STREAM.MSG.GET.OSTLER_EVENTS"),
    to(Account::View, STORE, "$JS.API.STREAM.MSG.GET.OSTLER_AUDIT"),
    // A batched get has many answers; one of a literal key has its subject appended.
    to(Account::View, DISCOVERY, "$JS.API.DIRECT.GET.KV_ostler"),
    to(Account::View, DISCOVERY, "$JS.API.DIRECT.GET.KV_ostler_observed"),
    to(Account::View, DISCOVERY, "$JS.API.DIRECT.GET.OSTLER_EVENTS"),
    to(Account::View, DISCOVERY, "$JS.API.DIRECT.GET.OSTLER_AUDIT"),
    to(Account::View, STORE, "$JS.API.DIRECT.GET.KV_ostler.>"),
    to(Account::View, STORE, "$JS.API.DIRECT.GET.KV_ostler_observed.>"),
    to(Account::View, STORE, "$JS.API.DIRECT.GET.OSTLER_EVENTS.>"),
    to(Account::View, STORE, "$JS.API.DIRECT.GET.OSTLER_AUDIT.>"),
    to(Account::View, DISCOVERY, "$SRV.>"),
    renamed(Account::View, Flow::Stream, "feed.event.>", "ostler.v1.event.>"),
    renamed(Account::View, Flow::Stream, "feed.audit.>", "ostler.v1.audit.>"),
];

/// Who connects. Each has a key of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The controllers, all replicas.
    Controller,
    /// What the controllers beat as, through each of these servers, to tell a dead node from a dead server.
    Canary {
        /// The servers.
        servers: Vec<Name>,
    },
    /// A node's agent.
    Node(NodeName),
    /// Simulated agents, which share a connection.
    Simulated(Block),
    /// A person or program that uses the API.
    Operator(Name),
    /// Whoever looks with the stock NATS tools.
    View,
}

impl Identity {
    /// The account that it belongs to.
    #[must_use]
    pub const fn account(&self) -> Account {
        match self {
            Identity::Controller => Account::Cp,
            Identity::Canary { .. } | Identity::Node(_) | Identity::Simulated(_) => Account::Ag,
            Identity::Operator(_) => Account::Op,
            Identity::View => Account::View,
        }
    }

    /// Its name as a caller: unique among all identities of a bus. Those that are not nodes or operators begin with
    /// `_`, which no name can.
    #[must_use]
    pub fn caller(&self) -> String {
        match self {
            Identity::Controller => "_controller".to_owned(),
            Identity::Canary { .. } => "_canary".to_owned(),
            Identity::Node(node) => node.to_string(),
            Identity::Simulated(block) => block.to_string(),
            Identity::Operator(user) => user.to_string(),
            Identity::View => "_view".to_owned(),
        }
    }

    /// What its reply subjects begin with. Nobody else may listen there.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.caller())
    }
}

/// What one identity may do. What is not listed is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects that it may publish to.
    pub publish_allow: Vec<String>,
    /// Exceptions from these.
    pub publish_deny: Vec<String>,
    /// Subjects that it may subscribe to.
    pub subscribe_allow: Vec<String>,
}

fn list(subjects: &[&str]) -> Vec<String> {
    subjects.iter().map(|s| (*s).to_owned()).collect()
}

/// The permission list of an identity. Everybody may publish into the inbox that only it can hear: a round trip
/// through the server, by which a client knows that its subscriptions are in force.
#[must_use]
pub fn permissions(identity: &Identity) -> Permissions {
    let mut lists = own_permissions(identity);
    let inbox = format!("{}.>", identity.inbox_prefix());
    lists.publish_allow.push(inbox.clone());
    lists.subscribe_allow.push(inbox);
    lists
}

fn own_permissions(identity: &Identity) -> Permissions {
    match identity {
        Identity::Controller => Permissions {
            // `_R_.>` is where the server expects answers to requests from other accounts.
            publish_allow: list(&[
                "$JS.API.>",
                "$JS.FC.>",
                "$KV.>",
                "ostler.v1.>",
                "push.*.ask",
                "beacon.*",
                "_R_.>",
            ]),
            publish_deny: Vec::new(),
            subscribe_allow: list(&["api.*.>", "beat.*", "beacon.*", "$SRV.>"]),
        },
        Identity::Canary { servers } => Permissions {
            publish_allow: servers.iter().map(|s| format!("beat._{s}")).collect(),
            ..Permissions::default()
        },
        Identity::Node(node) => nodes(std::slice::from_ref(node)),
        Identity::Simulated(block) => nodes(block.nodes()),
        Identity::Operator(user) => Permissions {
            publish_allow: vec![format!("api.{user}.>"), "$SRV.>".to_owned()],
            ..Permissions::default()
        },
        Identity::View => view(),
    }
}

/// What agents of these nodes may do: each what is its node's, and read what has a hash for a name.
fn nodes(nodes: &[NodeName]) -> Permissions {
    let own = |node: &NodeName| {
        [
            format!("api.{node}.>"),
            format!("beat.{node}"),
            format!("get.doc.{node}.*"),
            format!("get.grant.{node}"),
            format!("put.node.report.{node}"),
            format!("put.node.grant.{node}"),
            format!("put.event.{node}.>"),
            format!("put.node.log.{node}.*.*"),
        ]
    };
    let mut publish_allow = list(&["get.tmpl.*", "get.blob.*.*"]);
    publish_allow.extend(nodes.iter().flat_map(own));
    let subscribe_allow = nodes.iter().map(|node| format!("push.{node}.>")).collect();
    Permissions { publish_allow, publish_deny: Vec::new(), subscribe_allow }
}

/// Everything that VIEW imports, and nothing more: its imports only read.
fn view() -> Permissions {
    let imported = |service: bool| {
        let of_view = CROSSINGS.iter().filter(move |c| c.to == Account::View);
        let wanted = of_view.filter(move |c| matches!(c.flow, Flow::Service { .. }) == service);
        wanted.map(|c| c.local.unwrap_or(c.subject).to_owned()).collect()
    };
    Permissions { publish_allow: imported(true), publish_deny: Vec::new(), subscribe_allow: imported(false) }
}
