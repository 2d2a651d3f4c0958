//! Who calls: the subject's token, proved by permissions, and what the server says of the connection, must agree.

use std::collections::BTreeMap;

use ostler_bus::topic::Message;
use ostler_schemas::subject::{ApiSubject, Verb};
use ostler_schemas::{Actor, Name, NodeName, headers};
use serde::Deserialize;

/// The account of agents.
const AGENTS: &str = "AG";
/// The account of operators.
const OPERATORS: &str = "OP";

/// Everybody who may call, and how the bus names them.
#[derive(Debug, Clone, Default)]
pub struct Identities(BTreeMap<Name, Known>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    role: Role,
    account: String,
    user: String,
}

/// What a caller may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Asks for orders, relays, registers.
    Node,
    /// Everything else.
    Operator,
}

/// A list of identities that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the list of identities")]
pub struct InvalidIdentities(#[source] serde_json::Error);

#[derive(Deserialize)]
struct Listed {
    name: String,
    account: String,
    nkey: String,
}

impl Identities {
    /// From `identities.json`: `[{name, account, nkey}]`. Entries that are no callers of the API (the controllers
    /// themselves, viewers) are passed over.
    ///
    /// # Errors
    /// If it is not such a list.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidIdentities> {
        let listed: Vec<Listed> = serde_json::from_slice(bytes).map_err(InvalidIdentities)?;
        let callers = listed.into_iter().filter_map(|l| Some((l.name.parse().ok()?, l.account, l.nkey)));
        Ok(callers.collect())
    }
}

/// Name, account, and what the bus calls the user.
impl FromIterator<(Name, String, String)> for Identities {
    fn from_iter<I: IntoIterator<Item = (Name, String, String)>>(callers: I) -> Self {
        let known = |(name, account, user): (Name, String, String)| {
            let role = match account.as_str() {
                AGENTS => Role::Node,
                OPERATORS => Role::Operator,
                _ => return None,
            };
            Some((name, Known { role, account, user }))
        };
        Self(callers.into_iter().filter_map(known).collect())
    }
}

/// A caller whose identity is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) name: Name,
    pub(super) role: Role,
}

impl Caller {
    pub(super) fn actor(&self) -> Actor {
        match (self.role, self.name.as_str().parse::<NodeName>()) {
            (Role::Node, Ok(node)) => Actor::Node(node),
            (Role::Node, Err(_)) | (Role::Operator, _) => Actor::User(self.name.clone()),
        }
    }

    pub(super) fn node(&self) -> Option<NodeName> {
        match self.role {
            Role::Node => self.name.as_str().parse().ok(),
            Role::Operator => None,
        }
    }
}

/// What the server writes about a requester when a request crosses into another account.
#[derive(Deserialize)]
struct RequestInfo {
    #[serde(default)]
    acc: String,
    #[serde(default)]
    user: String,
}

/// Why a caller is not who its subject says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The server says nothing: the request did not cross an import.
    NotTold,
    /// No such caller is known.
    Stranger,
    /// Somebody else.
    Other,
}

impl Mismatch {
    pub(super) const fn message(self) -> &'static str {
        match self {
            Mismatch::NotTold => "the bus does not say who asks",
            Mismatch::Stranger => "this name is not in the server's list of identities",
            Mismatch::Other => "the bus says that another asks than the subject names",
        }
    }
}

/// Proves the caller of a message.
pub(super) fn prove(
    identities: &Identities,
    subject: &ApiSubject,
    message: &Message,
) -> Result<Caller, Mismatch> {
    let info = message.headers.get(headers::NATS_REQUEST_INFO).ok_or(Mismatch::NotTold)?;
    let info: RequestInfo = serde_json::from_str(info).map_err(|_| Mismatch::NotTold)?;
    let known = identities.0.get(&subject.caller).ok_or(Mismatch::Stranger)?;
    if info.acc != known.account || info.user != known.user {
        return Err(Mismatch::Other);
    }
    Ok(Caller { name: subject.caller.clone(), role: known.role })
}

/// Whether a caller may use a verb at all. `relay` is for both: nodes relay, operators attend their streams.
pub(super) const fn may(role: Role, verb: Verb) -> bool {
    match role {
        Role::Node => matches!(verb, Verb::Asks | Verb::Relay | Verb::Register),
        Role::Operator => !matches!(verb, Verb::Asks | Verb::Register),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ostler_bus::store::Headers;

    use super::*;

    fn message(info: Option<&str>) -> Message {
        let mut head = Headers::new();
        if let Some(info) = info {
            head.set(headers::NATS_REQUEST_INFO, info);
        }
        Message {
            subject: "api.anna.get".to_owned(),
            reply: None,
            headers: head,
            body: Bytes::new(),
            status: None,
        }
    }

    #[test]
    fn both_proofs_must_agree() {
        let text = r#"[{"name":"anna","account":"OP","nkey":"UA"},{"name":"n1","account":"AG","nkey":"UN"},
            {"name":"_controller","account":"CP","nkey":"UC"}]"#;
        let identities = Identities::from_json(text.as_bytes()).expect("reads");
        let subject = ApiSubject::parse("api.anna.get").expect("a subject");
        let prove = |info: Option<&str>| prove(&identities, &subject, &message(info));
        let anna = prove(Some(r#"{"acc":"OP","user":"UA"}"#)).expect("anna");
        assert_eq!(anna.actor().to_string(), "user/anna");
        assert_eq!(prove(None), Err(Mismatch::NotTold));
        assert_eq!(prove(Some("garbage")), Err(Mismatch::NotTold));
        assert_eq!(prove(Some(r#"{"acc":"AG","user":"UA"}"#)), Err(Mismatch::Other));
        assert_eq!(prove(Some(r#"{"acc":"OP","user":"UN"}"#)), Err(Mismatch::Other));
        let stranger = ApiSubject::parse("api.eve.get").expect("a subject");
        let info = message(Some(r#"{"acc":"OP","user":"UA"}"#));
        assert_eq!(super::prove(&identities, &stranger, &info), Err(Mismatch::Stranger));
        assert!(Identities::from_json(b"{").is_err());
    }

    #[test]
    fn nodes_and_operators_share_only_the_relay() {
        for verb in Verb::ALL.into_iter().filter(|v| *v != Verb::Relay) {
            assert_ne!(may(Role::Node, verb), may(Role::Operator, verb), "{verb:?}");
        }
    }
}
