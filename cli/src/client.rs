//! One typed call per verb of the API, over the topic port.
//!
//! A request goes to `api.<caller>.<verb>`; its answer is a stream of messages numbered from 1 and closed by header
//! `Ostler-End` (DESIGN.md 3.10). Guarantees: a gap in the numbers is an error, never a shorter answer; silence is told
//! apart into "no bus", "no controller" and "no answer"; a request that was not answered is sent again for a while, and
//! takes effect once (see the module `asking`). After a write this client reads no older state than its own write.

mod asking;
pub mod attend;
pub mod exec;
mod replies;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ostler_bus::{EntropyRef, TopicRef};
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::spec::{ContentRef, Spec};
use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::{
    ApplyReply, ApplyRequest, BlobReply, BlobRequest, CHUNK, ChangeReply, ConfigOp, ConfigReply,
    ConfigRequest, DeleteReply, DeleteRequest, EventsRequest, GetRequest, HostAnswer, HostFiles, ListPage,
    ListRequest, LogsRequest, NodeRequest, PutRequest, RolloutOp, RolloutReply, RolloutRequest, ScaleRequest,
    TrialNode, TrialReply, VersionReply, WatchRequest,
};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::status::View;
use ostler_schemas::v1::usage::{TopReply, TopRequest};
use ostler_schemas::{Name, ObjectRef, Revision};
use serde_bytes::ByteBuf;

pub use attend::Attendance;
pub use replies::Replies;

use crate::failure::Failure;
use crate::render::object::Contents;

/// How long a request is repeated that nobody answers: a controller that was killed is back, or has been succeeded,
/// within 4 s; three servers of the bus elect a leader of a stream within 5 to 10 s (DESIGN.md section 8).
pub const PERSISTENCE: Duration = Duration::from_secs(15);
/// How long a watch may be silent: the server sends keep-alives well within it.
const WATCH_PATIENCE: Duration = Duration::from_secs(20);
/// Messages pass the bus up to 1 MiB; what is more is refused here with advice instead of by the bus without.
pub const REQUEST_MAX: usize = 1_000_000;

/// A caller of the API.
pub struct Client {
    topic: TopicRef,
    caller: Name,
    servers: String,
    seen: AtomicU64,
    persistence: Duration,
    entropy: EntropyRef,
    attendance: Attendance,
    notice: Option<Notice>,
    noticed: AtomicBool,
    waiting: Mutex<asking::Waiting>,
}

/// Tells a person what takes long.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

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
        let waiting = Mutex::new(asking::Waiting::Bus);
        let (persistence, notice, noticed) = (PERSISTENCE, None, AtomicBool::new(false));
        Self { topic, caller, servers, seen, persistence, entropy, attendance, notice, noticed, waiting }
    }

    /// Says what it waits for when an answer takes longer than people like.
    #[must_use]
    pub fn with_notice(mut self, notice: Notice) -> Self {
        self.notice = Some(notice);
        self
    }

    /// With the program's own attendance, which takes leave of all answers when the program ends.
    #[must_use]
    pub fn with_attendance(mut self, attendance: Attendance) -> Self {
        self.attendance = attendance;
        self
    }

    /// With another time for which a request that nobody answers is repeated.
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
        let parts = self.order_apply(request).await?;
        let mut whole: Option<ApplyReply> = None;
        for body in parts {
            let part: ApplyReply = decode(&body)?;
            match &mut whole {
                Some(whole) => whole.results.extend(part.results),
                None => whole = Some(part),
            }
        }
        let whole = whole.ok_or_else(empty)?;
        self.saw(whole.revision);
        Ok(whole)
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
        for body in self.ask(Verb::List, request).await? {
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

    /// `top`: all parts of the answer.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn top(&self, request: &TopRequest) -> Result<TopReply, Failure> {
        let mut whole = TopReply::default();
        let mut replies = self.open(Verb::Top, request).await?;
        while let Some(body) = replies.next().await? {
            let TopReply { processes, unanswered } = decode(&body)?;
            whole.processes.extend(processes);
            whole.unanswered.extend(unanswered);
        }
        Ok(whole)
    }

    /// `delete`.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn delete(&self, request: &DeleteRequest) -> Result<DeleteReply, Failure> {
        let reply: DeleteReply = last(self.order(Verb::Delete, request).await?)?;
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
        let reply: ChangeReply = last(self.order(verb, request).await?)?;
        self.saw(reply.revision);
        Ok(reply)
    }

    /// `rollout`: the object with its status, or the versions that are kept.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn rollout(&self, object: ObjectRef, op: RolloutOp) -> Result<RolloutReply, Failure> {
        self.call(Verb::Rollout, &RolloutRequest { object, op, reason: None }).await
    }

    /// A change of a rollout.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn change_rollout(&self, request: &RolloutRequest) -> Result<RolloutReply, Failure> {
        let reply: RolloutReply = last(self.order(Verb::Rollout, request).await?)?;
        if let Some(change) = &reply.change {
            self.saw(change.revision);
        }
        Ok(reply)
    }

    /// `config`: all parts of the answer.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn config(&self, request: &ConfigRequest) -> Result<Vec<ConfigReply>, Failure> {
        let bodies = match &request.op {
            ConfigOp::Push(_) | ConfigOp::Rollback { .. } | ConfigOp::Release { .. } => {
                self.order(Verb::Config, request).await?
            }
            ConfigOp::Status { .. }
            | ConfigOp::History
            | ConfigOp::Content { .. }
            | ConfigOp::Hosts(_)
            | ConfigOp::Try(_)
            | ConfigOp::Render(_) => self.ask(Verb::Config, request).await?,
        };
        let mut parts = Vec::new();
        for body in bodies {
            let part: ConfigReply = decode(&body)?;
            if let ConfigReply::Changed { revision, .. } = &part {
                self.saw(*revision);
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// Files as hosts have them, and the bytes of the one that was asked for.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn host_files(&self, request: &ConfigRequest) -> Result<(Vec<HostAnswer>, Vec<u8>), Failure> {
        let (mut nodes, mut bytes) = (Vec::new(), Vec::new());
        for body in self.ask(Verb::Config, request).await? {
            let part: HostFiles = decode(&body)?;
            nodes.extend(part.nodes);
            bytes.extend_from_slice(&part.bytes);
        }
        Ok((nodes, bytes))
    }

    /// What would become of a file on every node, tried there.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn config_try(&self, request: &ConfigRequest) -> Result<Vec<TrialNode>, Failure> {
        let mut nodes = Vec::new();
        for body in self.ask(Verb::Config, request).await? {
            let part: TrialReply = decode(&body)?;
            nodes.extend(part.nodes);
        }
        Ok(nodes)
    }

    /// The content of a version of a ConfigFile; none = the present one.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn content(&self, object: &ObjectRef, version: Option<u64>) -> Result<Vec<u8>, Failure> {
        self.content_of(object, (version, None)).await
    }

    /// What is in the files of a ConfigFile as an object has it, by hash; nothing for other kinds.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn contents(&self, object: &Object) -> Result<Contents, Failure> {
        let Spec::ConfigFile(spec) = &object.spec else { return Ok(Contents::new()) };
        let mut contents = Contents::new();
        for part in spec.parts() {
            let sha256 = part.source.reference().sha256;
            let name = Some(part.name).filter(|name| !name.is_empty());
            let version = Some(object.metadata.version.0).filter(|version| *version > 0);
            contents.insert(sha256, self.content_of(&object.object_ref(), (version, name)).await?);
        }
        Ok(contents)
    }

    /// Likewise; of several files the one that is named.
    ///
    /// # Errors
    /// A refusal, or silence.
    pub async fn content_of(
        &self,
        object: &ObjectRef,
        (version, part): (Option<u64>, Option<&str>),
    ) -> Result<Vec<u8>, Failure> {
        let Some(namespace) = object.namespace.clone() else {
            return Err(Failure::message(format!("{} has no content", object.short())));
        };
        let (version, part) = (version.map(ostler_schemas::Version), part.map(str::to_owned));
        let op = ConfigOp::Content { version, part };
        let parts = self.config(&ConfigRequest { name: object.name.clone(), namespace, op }).await?;
        let mut content = Vec::new();
        for part in parts {
            match part {
                ConfigReply::Content(bytes) => content.extend_from_slice(&bytes),
                ConfigReply::Changed { .. }
                | ConfigReply::Status(_)
                | ConfigReply::History(_)
                | ConfigReply::Rendered { .. } => return Err(unexpected()),
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
        last(self.bare(Verb::Get).await?)
    }

    fn saw(&self, revision: Revision) {
        self.seen.fetch_max(revision.0, Ordering::Relaxed);
    }

    async fn call<T: Wire, R: Wire>(&self, verb: Verb, request: &T) -> Result<R, Failure> {
        last(self.ask(verb, request).await?)
    }
}

/// Whether an answer may go on for as long as somebody reads it.
fn lasts(verb: Verb) -> bool {
    matches!(verb, Verb::Watch | Verb::Logs | Verb::Events)
}

fn last<R: Wire>(mut parts: Vec<Bytes>) -> Result<R, Failure> {
    decode(&parts.pop().ok_or_else(empty)?)
}

fn empty() -> Failure {
    Failure::message("the server closed its answer without saying anything")
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
