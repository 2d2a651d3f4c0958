//! From a context to a caller of the API.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::layout::Identity;
use ostler_bus::nats::{Bus, Config};
use ostler_schemas::Namespace;

use crate::args::Global;
use crate::client::{Client, Notice};
use crate::context::{Context, Contexts};
use crate::failure::{Failure, Unreachable};

/// How long a first connection may take: a few attempts against servers that are just starting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// A person who waits for longer wonders what for.
const WONDERS: Duration = Duration::from_secs(2);

/// A caller, and the namespace that it means by default.
#[derive(Debug)]
pub struct Session {
    /// The caller.
    pub client: Client,
    /// The namespace of commands that name none.
    pub namespace: Namespace,
    /// What the context is called.
    pub context: String,
    /// Keeps the connection.
    pub bus: Option<Bus>,
}

/// The namespace of a command: its own, else the context's, else `default`.
///
/// # Errors
/// When it is no name.
pub fn namespace(global: &Global, context: Option<&Context>) -> Result<Namespace, Failure> {
    match &global.namespace {
        Some(text) => text.parse().map_err(|error| Failure::message(format!("namespace: {error}"))),
        None => Ok(context.and_then(|c| c.namespace.clone()).unwrap_or_else(Namespace::default_namespace)),
    }
}

/// Connects as the context says.
///
/// # Errors
/// When there is no context, or no connection comes about.
pub async fn session(global: &Global) -> Result<Session, Failure> {
    let (name, context) = Contexts::of_user()?.resolve(global.context.as_deref())?;
    let namespace = namespace(global, Some(&context))?;
    let servers = context.servers.join(", ");
    let config = Config {
        servers: context.servers.clone(),
        credentials: context.credentials.clone(),
        ca: context.ca.clone(),
        identity: Identity::Operator(context.user.clone()),
        name: format!("{} ({})", Identity::Operator(context.user.clone()).caller(), std::process::id()),
    };
    let entropy = SeededEntropy::from_system().map_err(|error| Failure::local("cannot draw keys", error))?;
    let entropy: EntropyRef = Arc::new(entropy);
    let bus = Bus::connect(&config, &entropy)
        .await
        .map_err(|error| Failure::local(&format!("context {name}"), causes(&error)))?;
    let patience = global.request_timeout.to_std().min(CONNECT_PATIENCE);
    let notice: Option<Notice> = std::io::stderr().is_terminal().then(|| {
        let say: Notice = Arc::new(|text: &str| eprintln!("{text}"));
        say
    });
    if !connected(&bus, patience, notice.as_ref(), &servers).await {
        let state = bus.topic.link().borrow().clone();
        let why = state.last_error.map(|e| format!(" ({e})")).unwrap_or_default();
        return Err(Failure::Unreachable(Box::new(Unreachable {
            what: format!("the bus cannot be reached{why}"),
            tried: format!("{servers} as {}, for {}s (context {name})", context.user, patience.as_secs()),
            next:
                "see that nats-server runs there and that the context is the right one: ostler context ls; \
                   the hosts go on with what they have meanwhile"
                    .to_owned(),
        })));
    }
    let mut client = Client::new(bus.topic.clone(), context.user, servers, entropy)
        .with_persistence(global.request_timeout.to_std())
        .with_attendance(global.attendance.clone());
    if let Some(notice) = notice {
        client = client.with_notice(notice);
    }
    Ok(Session { client, namespace, context: name, bus: Some(bus) })
}

/// Waits for the first connection; tells a person who waits for long what for.
async fn connected(bus: &Bus, patience: Duration, notice: Option<&Notice>, servers: &str) -> bool {
    let first = WONDERS.min(patience);
    if bus.connected(first).await {
        return true;
    }
    if patience <= first {
        return false;
    }
    if let Some(notice) = notice {
        notice(&format!("still waiting: for a connection to {servers}"));
    }
    bus.connected(patience - first).await
}

/// An error and what caused it, in one line.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
