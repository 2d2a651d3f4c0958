//! The topic port: messages without durability, between parties that the bus has identified.
//!
//! Delivery is at most once. A request either gets its replies or an error that says which kind of silence it met.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_schemas::Name;
use tokio::sync::watch;

use crate::store::Headers;

/// A shared connection.
pub type TopicRef = Arc<dyn Topic>;

/// A message received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The subject that it was sent to.
    pub subject: String,
    /// Where to answer. Never trusted for anything else: a sender chooses it freely (NATS.md, trap T1).
    pub reply: Option<String>,
    /// Headers.
    pub headers: Headers,
    /// Body.
    pub body: Bytes,
    /// Status of a server's own answer (404 not found, 408 timeout); `None` for ordinary messages.
    pub status: Option<u16>,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The subject.
    pub subject: String,
    /// Headers.
    pub headers: Headers,
    /// Body.
    pub body: Bytes,
}

impl Outgoing {
    /// A message without headers.
    #[must_use]
    pub fn new(subject: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { subject: subject.into(), headers: Headers::new(), body: body.into() }
    }

    /// With these headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nobody serves the subject: the server said so at once.
    #[error("nobody answers {subject}")]
    NoResponders {
        /// The subject.
        subject: String,
    },
    /// No answer in time. A missing permission looks the same.
    #[error("no answer from {subject} in time")]
    Timeout {
        /// The subject.
        subject: String,
    },
    /// This party has no connection.
    #[error("not connected: {reason}")]
    Disconnected {
        /// What happened.
        reason: String,
    },
}

/// A failed publish or subscribe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bus did not take it: {reason}")]
pub struct TopicError {
    /// What happened.
    pub reason: String,
}

/// The state of this party's connection, always the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Whether there is a connection.
    pub connected: bool,
    /// The server, where it has told its name.
    pub server: Option<Name>,
    /// Grows with every new connection.
    pub connection: u64,
    /// Messages dropped so far because this party was too slow to take them.
    pub dropped: u64,
    /// Errors that the server has sent (permission violations among them) so far.
    pub errors: u64,
    /// The last of those errors.
    pub last_error: Option<String>,
}

/// An endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, `[A-Za-z0-9_-]+`.
    pub name: String,
    /// What it subscribes to.
    pub subject: String,
    /// Whether replicas share the requests (queue group), or each gets all of them.
    pub shared: bool,
}

/// A NATS micro service: discoverable by `nats service ls|info|stats`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name, `[A-Za-z0-9_-]+`.
    pub name: String,
    /// Its version (semantic versioning).
    pub version: String,
    /// One line for people.
    pub description: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A connection in one account under one identity.
pub trait Topic: Send + Sync + 'static {
    /// Sends a message; done when it is on its way, which is no promise that anybody gets it.
    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), TopicError>>;

    /// Messages of a subject (wildcards allowed); of a queue group only this member's share. Ends with the connection
    /// for good only; a reconnect is survived. The subscription is in force when the future is done.
    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
        queue: Option<&'a str>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Message>, TopicError>>;

    /// Sends a request and waits for one answer.
    fn request(&self, message: Outgoing, timeout_ms: u64) -> BoxFuture<'_, Result<Message, RequestError>>;

    /// Sends a request whose answers are several messages. The stream never ends by itself: the caller stops at
    /// header `Ostler-End`, or after its own patience. A subject without responders yields one message of status 503.
    fn request_many(
        &self,
        message: Outgoing,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>>;

    /// Serves: one stream of the requests of all endpoints.
    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>>;

    /// The state of the connection.
    fn link(&self) -> watch::Receiver<LinkState>;

    /// Drops the connection and makes another, to another server if there is one.
    fn reconnect(&self) -> BoxFuture<'_, ()>;
}
