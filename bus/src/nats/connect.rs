//! One connection of one identity: always TLS, always an NKey, verified against the bus's own certificate authority.
//!
//! [`Bus::connect`] returns at once; the connection is made, and made again, in the background, with jitter. What it is
//! worth at a moment tells [`LinkState`]. Buffers of the client never hide an outage: requests and publications without
//! a connection fail at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Event, ReconnectToServer, Server};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::store::NatsStore;
use super::topic::NatsTopic;
use crate::entropy::EntropyRef;
use crate::layout::Identity;
use crate::store::StoreRef;
use crate::topic::{LinkState, TopicRef};

/// A half-open link is noticed after two of these (the client's own limit of missed answers).
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The longest that any single request of the adapter waits for its answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause between attempts; it doubles with each.
const RECONNECT_FIRST_MS: u64 = 50;
/// The longest pause: a thousand agents coming back within these two seconds, spread by jitter, are no storm.
const RECONNECT_MOST_MS: u64 = 2_000;
/// Events waiting to be counted. More than this at once are errors of one kind, of which the first tell enough.
const EVENTS_WAITING: usize = 1_024;

/// Section `[bus]` of a settings file, as [`crate::setup`] writes it. Daemons embed it in their own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusFile {
    /// URLs of every NATS server (`tls://host:port`).
    pub servers: Vec<String>,
    /// File with this party's key.
    pub credentials: PathBuf,
    /// File with the certificate authority.
    pub ca: PathBuf,
    /// Controllers only: file with the key of the canaries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<PathBuf>,
    /// Controllers only: who may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<PathBuf>,
}

impl BusFile {
    /// With relative paths resolved against `folder`, the folder of the settings file.
    #[must_use]
    pub fn resolved(mut self, folder: &Path) -> Self {
        let optional = [&mut self.canary, &mut self.identities];
        let all = [&mut self.credentials, &mut self.ca].into_iter().chain(optional.into_iter().flatten());
        for path in all {
            *path = folder.join(&path);
        }
        self
    }

    /// The connection of `identity`, whose key this section names.
    ///
    /// # Errors
    /// [`ConnectError::NoKey`] if it names none for it.
    pub fn config(&self, identity: Identity) -> Result<Config, ConnectError> {
        let key = match &identity {
            Identity::Canary { .. } => self.canary.clone(),
            Identity::Controller
            | Identity::Node(_)
            | Identity::Simulated(_)
            | Identity::Operator(_)
            | Identity::View => Some(self.credentials.clone()),
        };
        let credentials = key.ok_or_else(|| ConnectError::NoKey { caller: identity.caller() })?;
        let name = identity.caller();
        Ok(Config { servers: self.servers.clone(), credentials, ca: self.ca.clone(), identity, name })
    }
}

/// What a connection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// URLs of the servers (`tls://host:port`).
    pub servers: Vec<String>,
    /// File with the key.
    pub credentials: PathBuf,
    /// File with the certificate authority.
    pub ca: PathBuf,
    /// Whose key it is.
    pub identity: Identity,
    /// How the server's connection list names it.
    pub name: String,
}

/// Why a connection could not even be begun. A server that is not there is no error: see [`LinkState`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings name no key for this identity.
    #[error("the settings name no key for {caller}")]
    NoKey {
        /// The identity.
        caller: String,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The key file holds no key.
    #[error("{} holds no user's NKey seed", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// No server, or one without TLS.
    #[error("{url:?} is not a server's URL: write it as tls://host:port")]
    Url {
        /// What was given.
        url: String,
    },
    /// The client refused the settings.
    #[error("cannot begin a connection")]
    Client {
        /// What the client met.
        #[source]
        source: async_nats::ConnectError,
    },
}

/// One connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Link {
    client: Client,
    state: watch::Receiver<LinkState>,
    own_inbox: Arc<str>,
    choice: Arc<Mutex<Choice>>,
    /// Numbers batches and inboxes of this connection.
    counter: Arc<AtomicU64>,
    /// Random per connection, so that no two connections make one batch id.
    nonce: u64,
}

impl Link {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Whether a request has any chance now.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Unique within all connections, short.
    pub(super) fn unique(&self) -> String {
        let n = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}{n:x}", self.nonce & 0xffff_ffff)
    }

    pub(super) fn inbox(&self) -> String {
        format!("{}.{}", self.own_inbox, self.unique())
    }

    /// A round trip through the server. Commands of one connection are taken in order, so what was sent before is in
    /// force.
    pub(super) async fn round_trip(&self) -> Result<(), String> {
        use futures::StreamExt as _;
        let inbox = self.inbox();
        let mut echo = self.client.subscribe(inbox.clone()).await.map_err(|e| e.to_string())?;
        self.client.publish(inbox, bytes::Bytes::new()).await.map_err(|e| e.to_string())?;
        match tokio::time::timeout(REQUEST_TIMEOUT, echo.next()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("the connection is closed".to_owned()),
            Err(_) => Err("the server did not answer".to_owned()),
        }
    }

    /// Drops the connection and makes another, to another server if there is one.
    pub(super) async fn leave_server(&self) {
        {
            let mut choice = self.choice.lock().unwrap_or_else(PoisonError::into_inner);
            choice.avoid = choice.current.clone();
        }
        // Fails only if the client is closed, and then there is nothing to connect again.
        drop(self.client.force_reconnect().await);
    }

    /// The version of the server, once connected.
    #[must_use]
    pub fn server_version(&self) -> Option<String> {
        self.client.try_server_info().map(|info| info.version)
    }
}

/// What [`Bus::connect`] yields.
#[derive(Clone)]
pub struct Bus {
    /// Messages.
    pub topic: TopicRef,
    /// The store, for the one identity that may reach it: the controllers.
    pub store: Option<StoreRef>,
    /// The connection itself, for provisioning.
    pub link: Link,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Bus {
    /// Begins a connection. Needs a running tokio runtime. A server that cannot be reached is tried again for ever.
    ///
    /// # Errors
    /// [`ConnectError`] if the settings or files are unusable.
    pub async fn connect(config: &Config, entropy: &EntropyRef) -> Result<Bus, ConnectError> {
        let link = link(config, entropy).await?;
        let store: Option<StoreRef> = match config.identity {
            Identity::Controller => Some(Arc::new(NatsStore::new(link.clone()))),
            Identity::Canary { .. }
            | Identity::Node(_)
            | Identity::Simulated(_)
            | Identity::Operator(_)
            | Identity::View => None,
        };
        Ok(Bus { topic: Arc::new(NatsTopic::new(link.clone())), store, link })
    }

    /// Done when there is a connection; false if there is none within `patience`.
    pub async fn connected(&self, patience: Duration) -> bool {
        let mut state = self.link.watch();
        let wait = state.wait_for(|s| s.connected);
        matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(_)))
    }
}

fn seed(path: &Path) -> Result<String, ConnectError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConnectError::Read { path: path.to_owned(), source })?;
    let seed = text.trim().to_owned();
    match nkeys::KeyPair::from_seed(&seed) {
        Ok(pair) if pair.public_key().starts_with('U') => Ok(seed),
        Ok(_) | Err(_) => Err(ConnectError::Key { path: path.to_owned() }),
    }
}

fn addresses(config: &Config) -> Result<Vec<async_nats::ServerAddr>, ConnectError> {
    let bad = |url: &str| ConnectError::Url { url: url.to_owned() };
    if config.servers.is_empty() {
        return Err(bad(""));
    }
    let parse = |url: &String| {
        if !url.starts_with("tls://") {
            return Err(bad(url));
        }
        url.parse().map_err(|_| bad(url))
    };
    config.servers.iter().map(parse).collect()
}

/// Which server is tried next.
#[derive(Debug, Default)]
struct Choice {
    /// The one tried last, which is the one connected to, if any is.
    current: Option<String>,
    /// The one that its user has just left.
    avoid: Option<String>,
    /// Attempts since the last connection.
    attempts: u32,
    was_connected: bool,
}

impl Choice {
    /// One of the servers that failed least, at random, with the pause before it is tried. The very first attempt
    /// waits for nothing; all later ones are spread, because a lost server is lost to everybody at once.
    fn next(&mut self, servers: &[Server], entropy: &EntropyRef) -> Option<ReconnectToServer> {
        let others = servers.iter().filter(|s| Some(s.addr.as_url_str()) != self.avoid.as_deref());
        let mut candidates: Vec<&Server> = others.collect();
        if candidates.is_empty() {
            candidates = servers.iter().collect();
        }
        let least = candidates.iter().map(|s| s.failed_attempts).min()?;
        candidates.retain(|s| s.failed_attempts == least);
        let which = usize::try_from(entropy.below(candidates.len() as u64)).unwrap_or(0);
        let addr = candidates.get(which)?.addr.clone();
        let first = !self.was_connected && self.attempts == 0;
        let delay = if first { Duration::ZERO } else { pause(self.attempts, entropy) };
        self.attempts += 1;
        self.current = Some(addr.as_url_str().to_owned());
        Some(ReconnectToServer { addr, delay: Some(delay) })
    }

    fn connected(&mut self) {
        self.was_connected = true;
        self.attempts = 0;
        self.avoid = None;
    }
}

/// The pause after so many attempts, anywhere between half and all of what doubling gives.
fn pause(attempts: u32, entropy: &EntropyRef) -> Duration {
    let most = (RECONNECT_FIRST_MS << attempts.min(10)).min(RECONNECT_MOST_MS);
    Duration::from_millis(most / 2 + entropy.below(most / 2 + 1))
}

async fn link(config: &Config, entropy: &EntropyRef) -> Result<Link, ConnectError> {
    let seed = seed(&config.credentials)?;
    // The client would report a missing file only as one failed attempt after another.
    std::fs::File::open(&config.ca)
        .map_err(|source| ConnectError::Read { path: config.ca.clone(), source })?;
    let addresses = addresses(config)?;
    let own_inbox = config.identity.inbox_prefix();
    let (events_in, events) = mpsc::channel(EVENTS_WAITING);
    let choice: Arc<Mutex<Choice>> = Arc::default();
    let (chooser, random) = (choice.clone(), entropy.clone());
    let client = async_nats::ConnectOptions::with_nkey(seed)
        .name(&config.name)
        .custom_inbox_prefix(&own_inbox)
        .require_tls(true)
        .add_root_certificates(config.ca.clone())
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .max_reconnects(None)
        .retry_on_initial_connect()
        .ignore_discovered_servers()
        .reconnect_to_server_callback(move |servers, _| {
            let next = chooser.lock().unwrap_or_else(PoisonError::into_inner).next(&servers, &random);
            std::future::ready(next)
        })
        .event_callback(move |event| {
            let events_in = events_in.clone();
            async move {
                // Full means that hundreds are waiting to be counted already.
                drop(events_in.try_send(event));
            }
        })
        .connect(addresses)
        .await
        .map_err(|source| ConnectError::Client { source })?;
    let (state_in, state) = watch::channel(LinkState::default());
    tokio::spawn(observe(client.clone(), events, choice.clone(), state_in));
    let nonce = entropy.number();
    Ok(Link { client, state, own_inbox: own_inbox.into(), choice, counter: Arc::default(), nonce })
}

/// Turns the client's events into a [`LinkState`], until the client is gone.
async fn observe(
    client: Client,
    mut events: mpsc::Receiver<Event>,
    choice: Arc<Mutex<Choice>>,
    out: watch::Sender<LinkState>,
) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            // Nobody looks any more: every handle of the connection is dropped.
            () = out.closed() => None,
        };
        let Some(event) = event else { return };
        if event == Event::Connected {
            choice.lock().unwrap_or_else(PoisonError::into_inner).connected();
        }
        let server = client.try_server_info().and_then(|info| info.server_name.parse().ok());
        out.send_modify(|state| note(state, event, server));
    }
}

fn note(state: &mut LinkState, event: Event, server: Option<ostler_schemas::Name>) {
    match event {
        Event::Connected => {
            state.connected = true;
            state.connection += 1;
            state.server = server;
        }
        Event::Disconnected | Event::Closed => {
            state.connected = false;
            state.server = None;
        }
        Event::SlowConsumer(_) => state.dropped += 1,
        Event::ServerError(error) => {
            state.errors += 1;
            state.last_error = Some(error.to_string());
        }
        Event::ClientError(error) => state.last_error = Some(error.to_string()),
        Event::LameDuckMode | Event::Draining => {}
    }
}
