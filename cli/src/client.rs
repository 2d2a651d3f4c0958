//! One typed call per verb of the API, over the topic port.
//!
//! A request goes to `api.<caller>.<verb>`; its answer is a stream of messages numbered from 1 and closed by header
//! `Ostler-End` (DESIGN.md 3.10). Guarantees: a gap in the numbers is an error, never a shorter answer; silence is told
//! apart into "no bus", "no controller" and "no answer"; a request that nobody took is repeated for a while, one that
//! somebody may have taken is not. After a write this client reads no older state than its own write.

pub mod attend;
mod replies;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_bus::{EntropyRef, TopicRef};
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::spec::ContentRef;
use ostler_schemas::subject::{ApiSubject, Verb};
use ostler_schemas::v1::api::{
    ApplyReply, ApplyRequest, BlobReply, BlobRequest, CHUNK, ChangeReply, ConfigOp, ConfigReply,
    ConfigRequest, DeleteReply, DeleteRequest, EventsRequest, GetRequest, ListPage, ListRequest, LogsRequest,
    NodeRequest, PutRequest, RolloutReply, RolloutRequest, ScaleRequest, VersionReply, WatchRequest,
};
use ostler_schemas::v1::status::View;
use ostler_schemas::{Name, ObjectRef, Revision, headers};
use serde_bytes::ByteBuf;

pub use attend::Attendance;
pub use replies::Replies;

use crate::failure::{Failure, Unreachable};

/// How long a request that nobody took is repeated: a controller that was killed is back, or has been succeeded,
/// within 4 s (DESIGN.md section 8).
const PERSISTENCE: Duration = Duration::from_secs(6);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take: commits wait for synced replicas, and an apply may be large.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one part of what is read from memory may take. A replica that hangs is passed by asking again.
const READ_PATIENCE: Duration = Duration::from_secs(3);
/// How long a watch may be silent: the server sends keep-alives well within it.
const WATCH_PATIENCE: Duration = Duration::from_secs(20);
/// Messages pass the bus up to 1 MiB; what is more is refused here with advice instead of by the bus without.
const REQUEST_MAX: usize = 1_000_000;

/// A caller of the API.
pub struct Client {
    topic: TopicRef,
    caller: Name,
    servers: String,
    seen: AtomicU64,
    persistence: Duration,
    entropy: EntropyRef,
    attendance: Attendance,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("caller", &self.caller)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Calls as `caller`; `servers` is what messages name when nobody answers. Ids of answers come from `entropy`.
    #[must_use]
    pub fn new(topic: TopicRef, caller: Name, servers: String, entropy: EntropyRef) -> Self {
        let (seen, attendance) = (AtomicU64::new(0), Attendance::default());
        Self { topic, caller, servers, seen, persistence: PERSISTENCE, entropy, attendance }
    }

    /// With the program's own attendance, which takes leave of all answers when the program ends.
    #[must_use]
    pub fn with_attendance(mut self, attendance: Attendance) -> Self {
        self.attendance = attendance;
        self
    }

    /// With another time for which a request that nobody took is repeated.
    #[must_use]
    pub fn with_persistence(mut self, persistence: Duration) -> Self {
        self.persistence = persistence;
        self
    }

    /// `apply`.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyReply, Failure> {
        let reply: ApplyReply = self.call(Verb::Apply, request).await?;
        self.saw(reply.revision);
        Ok(reply)
    }

    /// `get`: one object.
    ///
    /// # Errors
    /// `NotFound` among others.
    pub async fn get(&self, request: &GetRequest) -> Result<View, Failure> {
        self.call(Verb::Get, request).await
    }

    /// `list`: all pages.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn list(&self, request: &ListRequest) -> Result<ListPage, Failure> {
        let mut whole = ListPage { items: Vec::new(), revision: Revision(0), warnings: Vec::new() };
        let mut replies = self.open(Verb::List, request).await?;
        while let Some(body) = replies.next().await? {
            let page: ListPage = decode(&body)?;
            whole.items.extend(page.items);
            whole.revision = whole.revision.max(page.revision);
            for warning in page.warnings {
                if !whole.warnings.contains(&warning) {
                    whole.warnings.push(warning);
                }
            }
        }
        Ok(whole)
    }

    /// `watch`: bodies are `WatchMessage`s until the caller drops the stream.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn watch(&self, list: ListRequest) -> Result<Replies, Failure> {
        Ok(self.open(Verb::Watch, &WatchRequest { list }).await?.with_patience(WATCH_PATIENCE))
    }

    /// `delete`.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn delete(&self, request: &DeleteRequest) -> Result<DeleteReply, Failure> {
        let reply: DeleteReply = self.call(Verb::Delete, request).await?;
        self.saw(reply.revision);
        Ok(reply)
    }

    /// `scale`.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn scale(&self, request: &ScaleRequest) -> Result<ChangeReply, Failure> {
        self.change(Verb::Scale, request).await
    }

    /// `put`.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn put(&self, request: &PutRequest) -> Result<ChangeReply, Failure> {
        self.change(Verb::Put, request).await
    }

    /// `node`.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn node(&self, request: &NodeRequest) -> Result<ChangeReply, Failure> {
        self.change(Verb::Node, request).await
    }

    async fn change<T: Wire>(&self, verb: Verb, request: &T) -> Result<ChangeReply, Failure> {
        let reply: ChangeReply = self.call(verb, request).await?;
        self.saw(reply.revision);
        Ok(reply)
    }

    /// `rollout`: the object with its status.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn rollout(&self, object: ObjectRef) -> Result<View, Failure> {
        let reply: RolloutReply = self.call(Verb::Rollout, &RolloutRequest { object }).await?;
        Ok(reply.view)
    }

    /// `config`: all parts of the answer.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn config(&self, request: &ConfigRequest) -> Result<Vec<ConfigReply>, Failure> {
        let mut replies = self.open(Verb::Config, request).await?;
        let mut parts = Vec::new();
        while let Some(body) = replies.next().await? {
            let part: ConfigReply = decode(&body)?;
            if let ConfigReply::Changed { revision, .. } = &part {
                self.saw(*revision);
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// The content of a version of a ConfigFile; none = the present one.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn content(&self, object: &ObjectRef, version: Option<u64>) -> Result<Vec<u8>, Failure> {
        let Some(namespace) = object.namespace.clone() else {
            return Err(Failure::message(format!("{} has no content", object.short())));
        };
        let op = ConfigOp::Content { version: version.map(ostler_schemas::Version) };
        let parts = self.config(&ConfigRequest { name: object.name.clone(), namespace, op }).await?;
        let mut content = Vec::new();
        for part in parts {
            match part {
                ConfigReply::Content(bytes) => content.extend_from_slice(&bytes),
                ConfigReply::Changed { .. } | ConfigReply::Status(_) | ConfigReply::History(_) => {
                    return Err(unexpected());
                }
            }
        }
        Ok(content)
    }

    /// `events`: bodies are `EventRecord`s.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn events(&self, request: &EventsRequest) -> Result<Replies, Failure> {
        Ok(self.open(Verb::Events, request).await?.with_patience(WATCH_PATIENCE))
    }

    /// `logs`: bodies are raw lines.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn logs(&self, request: &LogsRequest) -> Result<Replies, Failure> {
        Ok(self.open(Verb::Logs, request).await?.with_patience(WATCH_PATIENCE))
    }

    /// Sends a content ahead, chunk by chunk.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn blob(&self, content: ContentRef, bytes: &[u8]) -> Result<(), Failure> {
        for (chunk, part) in (0u32..).zip(bytes.chunks(CHUNK)) {
            let request = BlobRequest { content, chunk, bytes: ByteBuf::from(part) };
            let _reply: BlobReply = self.call(Verb::Blob, &request).await?;
        }
        Ok(())
    }

    /// The version of the replica that answers.
    ///
    /// # Errors
    /// Silence, mostly.
    pub async fn version(&self) -> Result<VersionReply, Failure> {
        let mut replies = self.send(Verb::Get, Bytes::new()).await?;
        let body = replies.only().await?;
        decode(&body)
    }

    fn saw(&self, revision: Revision) {
        self.seen.fetch_max(revision.0, Ordering::Relaxed);
    }

    async fn call<T: Wire, R: Wire>(&self, verb: Verb, request: &T) -> Result<R, Failure> {
        let body = encode(request)?;
        let deadline = tokio::time::Instant::now() + self.persistence;
        loop {
            let answer = match self.send(verb, body.clone()).await {
                Ok(mut replies) => replies.only().await,
                Err(failure) => Err(failure),
            };
            match answer {
                Err(failure) if may_repeat(verb, &failure) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failure) => return Err(failure),
                Ok(body) => return decode(&body),
            }
        }
    }

    async fn open<T: Wire>(&self, verb: Verb, request: &T) -> Result<Replies, Failure> {
        let body = encode(request)?;
        let deadline = tokio::time::Instant::now() + self.persistence;
        loop {
            let mut replies = self.send(verb, body.clone()).await?;
            if verb == Verb::Logs {
                // A quiet process is no silence of the server: nothing can be asked of the first part.
                return Ok(replies);
            }
            match replies.peek().await {
                Err(failure) if may_repeat(verb, &failure) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failure) => return Err(failure),
                Ok(()) => return Ok(replies),
            }
        }
    }

    /// Sends until somebody takes it, or patience ends.
    async fn send(&self, verb: Verb, body: Bytes) -> Result<Replies, Failure> {
        let subject = ApiSubject { caller: self.caller.clone(), verb, rest: None }.subject();
        let mut head = Headers::new().with(headers::CONTENT_TYPE, headers::MSGPACK);
        let seen = self.seen.load(Ordering::Relaxed);
        if seen > 0 {
            head.set(headers::MIN_REVISION, seen.to_string());
        }
        // An id of its own for each: the farewell to an answer that broke must not end the one that follows it.
        let id = lasts(verb).then(|| self.entropy.txn());
        if let Some(id) = id {
            head.set(headers::TXN, id.to_string());
        }
        let deadline = tokio::time::Instant::now() + self.persistence;
        loop {
            let message = Outgoing::new(subject.clone(), body.clone()).with_headers(head.clone());
            let stream =
                self.topic.request_many(message).await.map_err(|error| self.no_bus(&error.reason))?;
            let patience = if is_read(verb) { READ_PATIENCE } else { PATIENCE };
            let mut replies = Replies::new(stream, self.place(&subject))
                .with_patience(patience)
                .asked(is_read(verb) || lasts(verb));
            if !replies.nobody_listens().await {
                return Ok(match id {
                    Some(id) => replies.attended(self.attendance.attend(&self.topic, &self.caller, id)),
                    None => replies,
                });
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(self.no_controller(&subject));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn place(&self, subject: &str) -> String {
        let link = self.topic.link();
        let state = link.borrow();
        let server = state.server.as_ref().map(|s| format!(" (connected to {s})")).unwrap_or_default();
        format!("{subject} through {}{server}", self.servers)
    }

    fn no_bus(&self, reason: &str) -> Failure {
        Failure::Unreachable(Box::new(Unreachable {
            what: format!("no connection to the bus: {reason}"),
            tried: self.servers.clone(),
            next: "see that nats-server runs and that the context names it: ostler context show".to_owned(),
        }))
    }

    fn no_controller(&self, subject: &str) -> Failure {
        Failure::Unreachable(Box::new(Unreachable {
            what: "the bus answers, but no controller does".to_owned(),
            tried: format!("{} for {}s", self.place(subject), self.persistence.as_secs()),
            next: "see that an ostler-controller runs; the hosts go on with what they have meanwhile"
                .to_owned(),
        }))
    }
}

/// Whether a verb changes nothing and is answered from memory.
fn is_read(verb: Verb) -> bool {
    matches!(verb, Verb::Get | Verb::List | Verb::Watch | Verb::Rollout)
}

/// Whether an answer may go on for as long as somebody reads it.
fn lasts(verb: Verb) -> bool {
    matches!(verb, Verb::Watch | Verb::Logs | Verb::Events)
}

/// Whether nothing can have come of the request: it was not carried out, or there is nothing to carry out.
fn may_repeat(verb: Verb, failure: &Failure) -> bool {
    let silence = matches!(failure, Failure::Unreachable(_));
    failure.is_nothing_done() && (!silence || is_read(verb))
}

fn unexpected() -> Failure {
    Failure::message(
        "the server answered something else than was asked; are client and server of one version? See: ostler version",
    )
}

/// The body of an answer.
pub(crate) fn decode<T: Wire>(body: &[u8]) -> Result<T, Failure> {
    codec::decode(body).map_err(|error| {
        Failure::message(format!(
            "cannot read the server's answer: {error}; are client and server of one version? See: ostler version"
        ))
    })
}

fn encode<T: Wire>(request: &T) -> Result<Bytes, Failure> {
    let bytes = codec::encode(request).map_err(|error| Failure::local("cannot send the request", error))?;
    if bytes.len() > REQUEST_MAX {
        return Err(Failure::message(format!(
            "the request has {} bytes, the limit is {REQUEST_MAX}: split it into parts that may take effect apart",
            bytes.len()
        )));
    }
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
pub(crate) mod tests;
