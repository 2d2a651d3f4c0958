//! Answers: messages numbered from 1, the last of them marked.

use bytes::Bytes;
use ostler_bus::TopicRef;
use ostler_bus::store::Headers;
use ostler_bus::topic::{Message, Outgoing};
use ostler_schemas::codec::{self, EncodeError, Wire};
use ostler_schemas::v1::api::{ApiError, ApiErrorCode};
use ostler_schemas::{Revision, headers};

/// Characters of an error's message in a header.
const LINE: usize = 200;

/// The way back to a caller.
pub(super) struct Responder {
    topic: TopicRef,
    to: String,
    sent: u64,
    ended: bool,
    /// The objects revision that the answer is made at.
    pub(super) revision: Option<Revision>,
}

/// The caller is out of reach; there is nobody to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl Responder {
    /// `None` for a message that wants no answer.
    pub(super) fn to(topic: &TopicRef, message: &Message) -> Option<Self> {
        let to = message.reply.clone().filter(|r| !r.is_empty())?;
        Some(Self { topic: topic.clone(), to, sent: 0, ended: false, revision: None })
    }

    fn message(&mut self, body: Bytes, kind: &str, end: Option<String>) -> Outgoing {
        self.sent += 1;
        let mut head = Headers::new().with(headers::SEQ, self.sent.to_string());
        if !kind.is_empty() {
            head.set(headers::CONTENT_TYPE, headers::MSGPACK);
            head.set(headers::SCHEMA, "1");
            head.set(headers::KIND, kind);
        }
        if let Some(revision) = self.revision {
            head.set(headers::REVISION, revision.to_string());
        }
        if let Some(end) = end {
            head.set(headers::END, end);
            self.ended = true;
        }
        Outgoing::new(self.to.clone(), body).with_headers(head)
    }

    /// Sends what nobody may be there to hear any more.
    async fn try_send(&mut self, body: Bytes, kind: &str, end: Option<String>) {
        if self.send(body, kind, end).await.is_err() {
            tracing::debug!(to = self.to, "nobody was told");
        }
    }

    async fn send(&mut self, body: Bytes, kind: &str, end: Option<String>) -> Result<(), Gone> {
        let message = self.message(body, kind, end);
        self.topic.publish(message).await.map_err(|error| {
            tracing::debug!(%error, "an answer could not be sent");
            Gone
        })
    }

    /// How many messages were sent so far.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// One part of the answer.
    pub(super) async fn part<T: Wire>(&mut self, value: &T) -> Result<(), ApiError> {
        let bytes = encode(value)?;
        self.send(bytes, T::KIND, None).await.map_err(gone)
    }

    /// Bytes of a log, and whose.
    pub(super) async fn raw_of(&mut self, bytes: Bytes, object: &str) -> Result<(), ApiError> {
        let mut message = self.message(bytes, "", None);
        message.headers.set(headers::OBJECT, object);
        self.topic.publish(message).await.map_err(|_| gone(Gone))
    }

    /// Something about the answer, for people.
    pub(super) async fn note(&mut self, text: &str) -> Result<(), ApiError> {
        let mut message = self.message(Bytes::new(), "", None);
        // Names and words of nodes are in it: a header is one line.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        message.headers.set(headers::MESSAGE, text);
        self.topic.publish(message).await.map_err(|_| gone(Gone))
    }

    /// A part that is encoded already.
    pub(super) async fn raw(&mut self, bytes: Bytes) -> Result<(), ApiError> {
        self.send(bytes, "", None).await.map_err(gone)
    }

    /// The last body, and the end.
    pub(super) async fn last<T: Wire>(&mut self, value: &T) -> Result<(), ApiError> {
        let bytes = encode(value)?;
        self.send(bytes, T::KIND, Some("ok".to_owned())).await.map_err(gone)
    }

    /// The answer to a relay's chunk: how many may follow unanswered.
    pub(super) async fn credit(&mut self, chunks: usize) {
        // A node that does not hear of its credit sends the chunk again.
        self.try_send(Bytes::from(chunks.to_string()), "", Some("ok".to_owned())).await;
    }

    /// The end, if it has not been told yet. `lost` parts are said.
    pub(super) async fn end(&mut self, lost: u64) {
        if !self.ended {
            let end = if lost > 0 { format!("lost={lost}") } else { "ok".to_owned() };
            // A caller that is gone needs no end.
            self.try_send(Bytes::new(), "", Some(end)).await;
        }
    }

    /// The end in failure.
    pub(super) async fn fail(&mut self, error: &ApiError) {
        if self.ended {
            return;
        }
        let bytes = codec::encode(error).or_else(|_| codec::encode(&shortened(error))).unwrap_or_default();
        let mut message = self.message(Bytes::from(bytes), ApiError::KIND, Some("error".to_owned()));
        // One line for whoever looks at headers, or at the counts of the service.
        message.headers.set(headers::MESSAGE, error.message.chars().take(LINE).collect::<String>());
        if self.topic.publish(message).await.is_err() {
            tracing::debug!(to = self.to, "nobody was told");
        }
    }

    /// Says that the stream lives.
    pub(super) async fn keep_alive(&mut self) -> Result<(), ApiError> {
        self.send(Bytes::new(), "", None).await.map_err(gone)
    }
}

/// Findings beyond what one message holds are left out, and that is said.
fn shortened(error: &ApiError) -> ApiError {
    const KEPT: usize = 100;
    let findings = error.findings.iter().take(KEPT).cloned().collect();
    let message = format!("{} (only the first {KEPT} are told)", error.message);
    ApiError { findings, message, ..error.clone() }
}

/// The error of a handler whose caller is gone; it reaches nobody, and ends the handler.
fn gone(_: Gone) -> ApiError {
    ApiError {
        code: ApiErrorCode::Unavailable,
        message: "the caller is gone".to_owned(),
        hint: None,
        findings: Vec::new(),
        txn: None,
    }
}

pub(super) fn encode<T: Wire>(value: &T) -> Result<Bytes, ApiError> {
    let say = |error: EncodeError| {
        let message = format!("the answer does not fit into a message: {error}");
        let hint = Some("ask for less at once".to_owned());
        ApiError { code: ApiErrorCode::Invalid, message, hint, findings: Vec::new(), txn: None }
    };
    codec::encode(value).map(Bytes::from).map_err(say)
}
