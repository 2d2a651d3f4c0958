//! What one agent may do on the bus, over a [`crate::Topic`] of its account.
//!
//! Everything goes through imports into the control plane's account (DESIGN.md 3.10): direct gets of the node's own
//! documents and of immutable things by hash, guarded writes of its own report, beats, events, requests to the API.
//!
//! Guarantees: what is read by hash has that hash; a document read is the one asked for; a direct get may be stale,
//! so a caller keeps what is newer. Hints are only hints: anybody who can send one can send a false one.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use ostler_schemas::hash::sha256;
use ostler_schemas::headers as names;
use ostler_schemas::key::DocumentKind;
use ostler_schemas::spec::ContentRef;
use ostler_schemas::subject::{self, ApiSubject, BeatSource, EventSubject, Hint, LogSubject, Verb};
use ostler_schemas::{Key, Name, NodeName, Revision, Sha256};
use serde::Deserialize;
use tokio::sync::watch;

use crate::clock::ClockRef;
use crate::store::{CommitError, Expect, Headers};
use crate::topic::{LinkState, Message, Outgoing, RequestError, TopicError, TopicRef};

/// A direct get is answered in a millisecond, or the answer is lost: then the next one should be asked for soon.
const GET_TIMEOUT_MS: u64 = 2_000;
/// A beat's answer is worth nothing after two beats.
const BEAT_TIMEOUT_MS: u64 = 2_000;
/// A stored report is synced on several servers: as the store's own requests.
const PUT_TIMEOUT_MS: u64 = 5_000;
/// A document as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its revision.
    pub revision: Revision,
    /// The value; `None` for the marker of a deletion.
    pub value: Option<Bytes>,
    /// Headers stored with it, and the server's own.
    pub headers: Headers,
}

/// A failed read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No answer. Worth a retry.
    #[error("no answer")]
    Request(#[from] RequestError),
    /// An answer that is not what was asked for.
    #[error("the answer to {subject} is unreadable: {reason}")]
    Malformed {
        /// What was asked.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is stored under the hash, or not all of it yet.
    #[error("{hash} is not in the store")]
    Missing {
        /// The hash.
        hash: Sha256,
    },
    /// Something else is stored under the hash.
    #[error("what is stored as {hash} is something else")]
    WrongHash {
        /// The hash.
        hash: Sha256,
    },
}

impl FetchError {
    /// Whether asking again may help.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            FetchError::Request(_) | FetchError::Missing { .. } => true,
            FetchError::Malformed { .. } | FetchError::WrongHash { .. } => false,
        }
    }
}

/// A hint to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hinted {
    /// What it is about.
    pub hint: Hint,
    /// The revision that caused it, if it says one.
    pub revision: Option<Revision>,
    /// The revision before that one: another than the last one seen means that a hint was lost.
    pub previous: Option<Revision>,
}

/// One agent's way to the bus.
#[derive(Clone)]
pub struct NodeLink {
    topic: TopicRef,
    node: NodeName,
    clock: ClockRef,
}

impl fmt::Debug for NodeLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeLink").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Acknowledgement of JetStream.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Whether the server's error code says that a guard did not hold, on one server or on three.
const fn is_conflict(err_code: u32) -> bool {
    matches!(err_code, 10071 | 10164)
}

/// The outcome that an acknowledgement tells.
fn outcome(body: &[u8]) -> Result<Revision, CommitError> {
    let ack: Ack = serde_json::from_slice(body).map_err(|error| CommitError::Unknown {
        reason: format!("the acknowledgement is unreadable: {error}"),
    })?;
    match ack.error {
        None if ack.seq > 0 && !ack.duplicate => Ok(Revision(ack.seq)),
        None => Err(CommitError::Unknown { reason: "the acknowledgement is of another message".to_owned() }),
        Some(error) if is_conflict(error.err_code) => Err(CommitError::Conflict),
        Some(error) => Err(CommitError::Refused {
            reason: format!("{} ({})", error.description, error.err_code),
            // Storage is used up (10023, 10047, 10077), or the server says that it is a matter of time.
            retryable: matches!(error.err_code, 10023 | 10047 | 10077) || matches!(error.code, 429 | 503),
        }),
    }
}

/// The revision in `wrong last sequence: 4711`. Only a hint: it is used as the guard of the next write, which decides.
fn last_revision(body: &[u8]) -> Option<Revision> {
    let error = serde_json::from_slice::<Ack>(body).ok()?.error?;
    error.description.rsplit(' ').next()?.parse().ok()
}

impl NodeLink {
    /// Over a connection of the node's own.
    #[must_use]
    pub fn new(topic: TopicRef, node: NodeName, clock: ClockRef) -> Self {
        Self { topic, node, clock }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    async fn get(&self, subject: String, key: &Key) -> Result<Option<Stored>, FetchError> {
        let answer =
            self.topic.request(Outgoing::new(subject.as_str(), Bytes::new()), GET_TIMEOUT_MS).await?;
        let malformed = |reason: String| FetchError::Malformed { subject: subject.clone(), reason };
        match answer.status {
            None => {}
            Some(404) => return Ok(None),
            Some(status) => return Err(malformed(format!("status {status}"))),
        }
        let is_it = answer.headers.get(names::NATS_SUBJECT) == Some(key.subject().as_str());
        let revision = answer.headers.get(names::NATS_SEQUENCE).and_then(|s| s.parse().ok());
        let Some(revision) = revision.filter(|_| is_it) else {
            return Err(malformed("it is not of the key".to_owned()));
        };
        let deleted = answer.headers.get(names::KV_OPERATION).is_some();
        let value = (!deleted).then_some(answer.body);
        Ok(Some(Stored { revision, value, headers: answer.headers }))
    }

    /// The node's document; `None` if there never was one. May be stale.
    ///
    /// # Errors
    /// [`FetchError::Request`] or [`FetchError::Malformed`].
    pub async fn get_document(&self, kind: DocumentKind) -> Result<Option<Stored>, FetchError> {
        let key = Key::NodeDocument(self.node.clone(), kind);
        self.get(subject::get_document(&self.node, kind), &key).await
    }

    /// The stored bytes of a template or file spec.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get_template(&self, hash: Sha256) -> Result<Bytes, FetchError> {
        let found = self.get(subject::get_template(&hash), &Key::Template(hash)).await?;
        let bytes = found.and_then(|s| s.value).ok_or(FetchError::Missing { hash })?;
        if sha256(&bytes) == hash { Ok(bytes) } else { Err(FetchError::WrongHash { hash }) }
    }

    /// A whole content.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get_blob(&self, content: &ContentRef) -> Result<Bytes, FetchError> {
        let hash = content.sha256;
        let mut bytes = BytesMut::new();
        let mut chunk = 0;
        while (bytes.len() as u64) < content.size {
            let found = self.get(subject::get_blob(&hash, chunk), &Key::BlobChunk(hash, chunk)).await?;
            let part = found.and_then(|s| s.value).ok_or(FetchError::Missing { hash })?;
            // An empty chunk would be asked for for ever; one too many is of another content.
            if part.is_empty() || (bytes.len() + part.len()) as u64 > content.size {
                return Err(FetchError::WrongHash { hash });
            }
            bytes.extend_from_slice(&part);
            chunk += 1;
        }
        let bytes = bytes.freeze();
        if sha256(&bytes) == hash { Ok(bytes) } else { Err(FetchError::WrongHash { hash }) }
    }

    /// Stores the node's report over the one that `expect` names. After [`CommitError::Unknown`] the next report is
    /// written over either: a conflict then means that this one was stored.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn put_report(
        &self,
        body: Bytes,
        headers: Headers,
        expect: Expect,
    ) -> Result<Revision, CommitError> {
        self.put_report_or_last(body, headers, expect).await.map_err(|(error, _)| error)
    }

    /// As [`Self::put_report`], and with a conflict the revision that the report has now, where the server says it:
    /// an agent that lost its memory has no other way to learn it.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn put_report_or_last(
        &self,
        body: Bytes,
        headers: Headers,
        expect: Expect,
    ) -> Result<Revision, (CommitError, Option<Revision>)> {
        let headers = headers.with(names::NATS_EXPECTED, expect.sequence().to_string());
        let message = Outgoing::new(subject::put_report(&self.node), body).with_headers(headers);
        match self.topic.request(message, PUT_TIMEOUT_MS).await {
            Ok(answer) => outcome(&answer.body).map_err(|error| {
                let last = (error == CommitError::Conflict).then(|| last_revision(&answer.body)).flatten();
                (error, last)
            }),
            Err(RequestError::Timeout { .. }) => {
                Err((CommitError::Unknown { reason: "no acknowledgement in time".to_owned() }, None))
            }
            Err(error @ (RequestError::NoResponders { .. } | RequestError::Disconnected { .. })) => {
                Err((CommitError::Refused { reason: error.to_string(), retryable: true }, None))
            }
        }
    }

    /// Sends a beat and waits two seconds for its answer.
    ///
    /// # Errors
    /// [`RequestError`]: `NoResponders` means that no controller runs, not that the connection is bad.
    pub async fn beat(&self, headers: Headers, body: Bytes) -> Result<Bytes, RequestError> {
        let subject = BeatSource::Node(self.node.clone()).subject();
        let message = Outgoing::new(subject, body).with_headers(headers);
        self.topic.request(message, BEAT_TIMEOUT_MS).await.map(|answer| answer.body)
    }

    /// Publishes an event, best effort. Its source is this node, whatever `event` says.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn publish_event(
        &self,
        event: &EventSubject,
        headers: Headers,
        body: Bytes,
    ) -> Result<(), TopicError> {
        let message = Outgoing::new(event.put_subject(&self.node), body).with_headers(headers);
        self.topic.publish(message).await
    }

    /// Stores output of a process of this node, and waits until it is stored. Another node's is refused by the bus.
    ///
    /// # Errors
    /// [`CommitError`]; after [`CommitError::Unknown`] it is sent again, and its headers tell readers.
    pub async fn ship_log(
        &self,
        subject: &LogSubject,
        headers: Headers,
        body: Bytes,
    ) -> Result<Revision, CommitError> {
        let message = Outgoing::new(subject.put_subject(), body).with_headers(headers);
        match self.topic.request(message, PUT_TIMEOUT_MS).await {
            Ok(answer) => outcome(&answer.body),
            Err(RequestError::Timeout { .. }) => {
                Err(CommitError::Unknown { reason: "no acknowledgement in time".to_owned() })
            }
            Err(error @ (RequestError::NoResponders { .. } | RequestError::Disconnected { .. })) => {
                Err(CommitError::Refused { reason: error.to_string(), retryable: true })
            }
        }
    }

    /// Hints to this node, from now on.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn hints(&self) -> Result<BoxStream<'static, Hinted>, TopicError> {
        let messages = self.topic.subscribe(&subject::hints(&self.node), None).await?;
        let node = self.node.clone();
        let hints = messages.filter_map(move |message| {
            let number = |name| message.headers.get(name).and_then(|s| s.parse().ok());
            let hinted = Hint::parse(&message.subject, &node).map(|hint| Hinted {
                hint,
                revision: number(names::NATS_SEQUENCE),
                previous: number(LAST_SEQUENCE),
            });
            std::future::ready(hinted)
        });
        Ok(hints.boxed())
    }

    /// Asks the API. The answer is a stream of messages; header `Ostler-End` is on the last one. The stream itself
    /// does not end: the caller brings its patience.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn api(
        &self,
        verb: Verb,
        rest: Option<String>,
        headers: Headers,
        body: Bytes,
    ) -> Result<BoxStream<'static, Message>, TopicError> {
        let Some(caller) = self.caller() else {
            return Err(TopicError { reason: format!("{} cannot call the API", self.node) });
        };
        let subject = ApiSubject { caller, verb, rest }.subject();
        self.topic.request_many(Outgoing::new(subject, body).with_headers(headers)).await
    }

    /// Asks the API and waits for the whole answer, at most `patience_ms` for each message of it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn api_collect(
        &self,
        (verb, rest): (Verb, Option<String>),
        headers: Headers,
        body: Bytes,
        patience_ms: u64,
    ) -> Result<Vec<Message>, RequestError> {
        let subject = format!("api.{}.{}", self.node, verb.as_str());
        let mut answers = self
            .api(verb, rest, headers, body)
            .await
            .map_err(|error| RequestError::Disconnected { reason: error.reason })?;
        let mut collected = Vec::new();
        loop {
            let next = tokio::select! {
                biased;
                next = answers.next() => next,
                () = self.clock.sleep_ms(patience_ms) => None,
            };
            let Some(message) = next else { return Err(RequestError::Timeout { subject }) };
            if message.status == Some(503) {
                return Err(RequestError::NoResponders { subject });
            }
            let ended = message.headers.get(names::END).is_some();
            collected.push(message);
            if ended {
                return Ok(collected);
            }
        }
    }

    fn caller(&self) -> Option<Name> {
        self.node.as_str().parse().ok()
    }

    /// The state of the connection.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.topic.link()
    }

    /// Drops the connection and makes another, to another server if there is one.
    pub async fn reconnect(&self) {
        self.topic.reconnect().await;
    }
}

/// On republished messages: the revision of the subject before this one.
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";

#[cfg(test)]
mod tests;
