//! Requests to the API and its answers, verb by verb (DESIGN.md 3.10).
//!
//! A request goes to `api.<caller>.<verb>`, its body an envelope. Every answer is a stream of messages numbered by
//! header `Ostler-Seq`; the last one bears `Ostler-End: ok` or `Ostler-End: error`, the latter with an [`ApiError`] as
//! body. An `ok` end may bear the last body itself.

mod content;
mod exec;
mod host_file;
mod hosts;
mod logs;
mod rollout;
mod trial;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::event::Event;
use super::object::Object;
use super::report::FileState;
use super::status::View;
use crate::codec::Wire;
use crate::ids::{Generation, Kind, Namespace, NodeName, Revision, Sha256, TxnId, Uid, Version};
use crate::key::ObjectRef;
use crate::manifest::{Finding, Refusal};
use crate::spec::{ContentRef, Taint, TaintEffect};
use crate::time::Timestamp;

pub use content::{ConfigOp, ConfigPush, ConfigRender, ConfigReply, ConfigRequest, ConfigVersion};
pub use exec::{
    EXEC_CHUNK, EXEC_COMMAND_MAX, EXEC_INPUT_MAX, EXEC_UNREAD, ExecCommand, ExecEnded, ExecInput, ExecItem,
    ExecOutput, ExecRefused, ExecRequest, ExecScreen, RelayInput, RelayPoll,
};
pub use host_file::{HostAnswer, HostFile, HostFileAsk, HostFiles, HostsOf, HostsWish};
pub use hosts::{Ask, AskOp, AsksReply, AsksRequest, BlobReply, BlobRequest, RegisterReply, RegisterRequest};
pub use logs::{LOGS_PROCESSES, LOGS_PROCESSES_MAX, LOGS_WINDOW, LogFilter, LogsOf, LogsRequest};
pub use rollout::{RolloutChange, RolloutOp, RolloutReply, RolloutRequest, RolloutVersion};
pub use trial::{ConfigTry, FileTrial, TrialAnswer, TrialNode, TrialReply, TrialState};

/// Size of a chunk of a blob.
pub const CHUNK: usize = 512 << 10;
/// Contents up to this size may travel inside a request; larger ones go first by `blob`.
pub const INLINE_MAX: usize = 64 << 10;
/// The documents of one apply, encoded. 450 objects of 128 KiB would be 56 MiB, which nobody writes by hand and a
/// controller should not hold for several callers at once; 450 of 36 KiB pass.
pub const DOCUMENTS_MAX: usize = 16 << 20;
/// Objects of one page of a list.
pub const PAGE: usize = 500;

macro_rules! wire {
    ($($name:ident)+) => { $(impl Wire for $name { const KIND: &'static str = stringify!($name); })+ };
}
wire! {
    ApplyRequest ApplyReply GetRequest ListRequest ListPage WatchRequest WatchMessage DeleteRequest DeleteReply
    ScaleRequest ConfigRequest ConfigReply RolloutRequest RolloutReply EventsRequest EventRecord NodeRequest PutRequest
    ChangeReply LogsRequest BlobRequest BlobReply RegisterRequest RegisterReply AsksRequest AsksReply ApiError VersionReply
    ExecRequest ExecOutput ExecInput RelayPoll RelayInput TrialAnswer TrialReply
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// What kind of failure.
    pub code: ApiErrorCode,
    /// What, where and why, for people.
    pub message: String,
    /// What to do next, for people.
    pub hint: Option<String>,
    /// The findings of a refusal.
    pub findings: Vec<Finding>,
    /// The transaction, when its outcome is not known.
    pub txn: Option<TxnId>,
}

/// The kinds of failure; each has one exit code of the CLI (CONTRACT.md section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ApiErrorCode {
    /// The input was refused: see the findings. Nothing was stored.
    Refused,
    /// There is no such object.
    NotFound,
    /// Somebody else changed it in between.
    Conflict,
    /// The caller may not do this.
    Forbidden,
    /// The request itself could not be read, or asks for something that this server does not know.
    Invalid,
    /// Nothing was done because something is not ready; try again.
    Unavailable,
    /// It may or may not have been done; `txn` names it.
    Unknown,
    /// A code of a newer version.
    #[serde(other)]
    Other,
}

/// `apply`: all documents take effect together or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyRequest {
    /// The documents, each a tree in the wire form of [`crate::manifest`], encoded.
    pub documents: Vec<ManifestDocument>,
    /// The documents again, where they do not fit into one message: an encoded [`ManifestDocuments`] that was sent
    /// ahead by `blob`. Then `documents` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentRef>,
    /// Overrides refusals with code `Conflict`; audited.
    pub force: bool,
    /// Tries a version again that was rolled back from.
    pub retry: bool,
    /// Only says what would be done; nothing is stored.
    pub dry_run: bool,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// The documents of an apply that is larger than one message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestDocuments {
    /// As in [`ApplyRequest`].
    pub documents: Vec<ManifestDocument>,
}

impl Wire for ManifestDocuments {
    const KIND: &'static str = "ManifestDocuments";
    const LIMIT: usize = DOCUMENTS_MAX;
}

impl ManifestDocuments {
    /// The refusal of so many encoded bytes.
    #[must_use]
    pub fn too_large(found: u64) -> Refusal {
        // Rounded up, so that what is over the limit never looks as if it were not.
        let tenths = found.saturating_mul(10).div_ceil(1 << 20);
        let (found, limit) = (format!("{}.{}Mi", tenths / 10, tenths % 10), DOCUMENTS_MAX >> 20);
        let finding =
            Finding::too_much(format!("the documents are {found} together, the limit is {limit}Mi"));
        Refusal { findings: vec![finding], refused: 1, documents: 1 }
    }
}

/// One document of an apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestDocument {
    /// File that it came from, for findings.
    pub file: Option<String>,
    /// The encoded tree (`manifest::encode_tree`).
    pub tree: ByteBuf,
    /// Content of a ConfigFile that was sent ahead by `blob` and stands for `content` or `contentBase64`.
    pub content: Option<ContentRef>,
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyReply {
    /// In the order of the documents.
    pub results: Vec<ApplyResult>,
    /// Objects revision that the changes are visible at.
    pub revision: Revision,
    /// The transaction.
    pub txn: TxnId,
}

/// What an apply did to one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyResult {
    /// The object.
    pub object: ObjectRef,
    /// Its uid.
    pub uid: Uid,
    /// What happened.
    pub outcome: ApplyOutcome,
    /// Its generation now.
    pub generation: Generation,
    /// Its version now.
    pub version: Version,
    /// Things to know that are no refusals.
    pub warnings: Vec<String>,
    /// In a dry run: the object as it is.
    pub before: Option<Object>,
    /// In a dry run: the object as it would be.
    pub after: Option<Object>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of CONTRACT.md 1.4")]
pub enum ApplyOutcome {
    Created,
    Configured,
    Unchanged,
}

/// `get`: one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetRequest {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; ignored for cluster-wide kinds.
    pub namespace: Namespace,
    /// Its name, or the first 8 digits (or all 32) of its uid; for nodes also the host's full name.
    pub name: String,
}

/// Which objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListRequest {
    /// The kind.
    pub kind: Kind,
    /// One namespace; none = all.
    pub namespace: Option<Namespace>,
    /// Label requirements, all of which must hold.
    pub labels: Vec<LabelRequirement>,
    /// Only these names; empty = all.
    pub names: Vec<String>,
}

/// One requirement of `-l`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: LabelOperator,
    /// With what.
    pub values: Vec<String>,
}

/// Operators of label requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in Kubernetes: CONTRACT.md 1.2")]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl LabelRequirement {
    /// Whether labels meet it.
    #[must_use]
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let number = |text: &String| text.parse::<i64>().ok();
        let bound = self.values.first().and_then(number);
        match self.operator {
            LabelOperator::In => value.is_some_and(|v| self.values.contains(v)),
            LabelOperator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
            LabelOperator::Gt => value.and_then(number).zip(bound).is_some_and(|(v, b)| v > b),
            LabelOperator::Lt => value.and_then(number).zip(bound).is_some_and(|(v, b)| v < b),
        }
    }
}

/// A page of a list; all pages of one list are of one revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListPage {
    /// Ordered by namespace and name.
    pub items: Vec<View>,
    /// Objects revision that the list is of.
    pub revision: Revision,
    /// What is true of the whole answer and must be said before it: `data is 41s old: …`.
    pub warnings: Vec<String>,
}

/// `watch`: the objects as they are, then every change of object or status, until the caller stops listening.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchRequest {
    /// Which objects.
    pub list: ListRequest,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchMessage {
    /// What happened; none on the message that says that all present objects have been sent, and on keep-alives.
    pub change: Option<WatchChange>,
    /// The object; its last state when it was deleted.
    pub view: Option<View>,
}

/// What happened to a watched object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of CONTRACT.md section 5")]
pub enum WatchChange {
    Added,
    Modified,
    Deleted,
}

/// `delete`: marks the object; it goes when its dependents are gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteRequest {
    /// The object.
    pub object: ObjectRef,
    /// Overrides refusals (still in use).
    pub force: bool,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// What a delete did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteReply {
    /// The object's uid.
    pub uid: Uid,
    /// Whether it is gone already; else its dependents are being ended first.
    pub gone: bool,
    /// Objects revision of the change.
    pub revision: Revision,
}

/// `scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleRequest {
    /// The workload.
    pub object: ObjectRef,
    /// How many.
    pub replicas: u32,
    /// Only if it is so many now.
    pub if_replicas: Option<u32>,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// `put`: labels and annotations of any object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PutRequest {
    /// The object.
    pub object: ObjectRef,
    /// Labels to set, or (none) to remove.
    pub labels: BTreeMap<String, Option<String>>,
    /// Whether a label that has another value may be overwritten.
    pub overwrite: bool,
}

/// `node`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRequest {
    /// The node: its name or the host's full name.
    pub node: String,
    /// What to do.
    pub change: NodeChange,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// What `node` can change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeChange {
    /// Take no new processes.
    Cordon,
    /// Take them again.
    Uncordon,
    /// Set taints, and remove those of these keys (and effects).
    Taint {
        /// To set; one of the same key and effect is replaced.
        set: Vec<Taint>,
        /// To remove: key, and effect (none = all).
        remove: Vec<(String, Option<TaintEffect>)>,
    },
}

/// The answer to small changes of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeReply {
    /// The object.
    pub object: ObjectRef,
    /// Whether anything was written.
    pub changed: bool,
    /// One line for people: what was and what is.
    pub message: String,
    /// Objects revision that the change is visible at.
    pub revision: Revision,
}

/// `events`: stored ones, oldest first, then new ones if followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventsRequest {
    /// Only of this object, by kind and name; a Deployment's includes those of its processes.
    pub object: Option<ObjectRef>,
    /// Only of this namespace; none = all.
    pub namespace: Option<Namespace>,
    /// Only of this node.
    pub node: Option<NodeName>,
    /// Go on with new ones.
    pub follow: bool,
    /// Not older than this.
    pub since: Option<Timestamp>,
}

/// One stored event message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// The event; none on the message that says that all stored ones have been sent, and on keep-alives.
    pub event: Option<Event>,
    /// Its sequence in the stream of events.
    pub sequence: u64,
    /// When the oldest stored event was stored, on the closing message.
    pub reaches_back_to: Option<Timestamp>,
}

/// The version of a server, in the answer's `VersionReply` to `get` of nothing: see `ostler version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionReply {
    /// Version of the controller.
    pub version: String,
}

/// What a relay chunk bears: body = bytes, header `Ostler-Seq` = its number from 1, and on the last one `Ostler-End`.
/// The agent sends each as a request; the answer is the credit: the number of chunks that may follow unanswered.
pub const RELAY_WINDOW: usize = 16;

/// Filter of `config status --state`.
#[must_use]
pub fn file_state_by_name(text: &str) -> Option<FileState> {
    let all = [
        ("Failed", FileState::Failed),
        ("Contested", FileState::Contested),
        ("Drifted", FileState::Drifted),
        ("Offline", FileState::Offline),
        ("Held", FileState::Held),
        ("Applying", FileState::Applying),
        ("Pending", FileState::Pending),
        ("InSync", FileState::InSync),
    ];
    all.into_iter().find(|(name, _)| *name == text).map(|(_, state)| state)
}

/// A content's reference.
#[must_use]
pub fn content_ref(bytes: &[u8]) -> ContentRef {
    let sha256: Sha256 = crate::hash::sha256(bytes);
    ContentRef { sha256, size: bytes.len() as u64 }
}
