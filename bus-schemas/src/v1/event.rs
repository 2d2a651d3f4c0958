//! Events: the narrative. One message per occurrence; the reader adds up COUNT, FIRST and LAST.

use serde::{Deserialize, Serialize};

use super::reason::{EventType, Reason};
use crate::codec::Wire;
use crate::ids::{Actor, NodeName, Revision, TxnId, Uid};
use crate::key::ObjectRef;
use crate::time::Timestamp;

/// Something that happened to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Whether it is how things should go.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// Why, one word.
    pub reason: Reason,
    /// What it is about.
    pub object: ObjectRef,
    /// Uid of the object, where known.
    pub uid: Option<Uid>,
    /// The node that it happened on, if it happened on one.
    pub node: Option<NodeName>,
    /// What happened, one line for people.
    pub message: String,
    /// How many occurrences this message stands for, at least 1.
    pub count: u64,
    /// The first of them.
    pub first_time: Timestamp,
    /// The last of them.
    pub last_time: Timestamp,
    /// Who caused it.
    pub actor: Option<Actor>,
    /// The objects revision that caused it.
    pub cause_revision: Option<Revision>,
    /// The transaction that caused it.
    pub txn: Option<TxnId>,
}

impl Wire for Event {
    const KIND: &'static str = "Event";
    const LIMIT: usize = 32 << 10;
}

/// What was asked of the API, and what came of it; one txn in both phases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Who asked.
    pub actor: Actor,
    /// What for.
    pub verb: String,
    /// About which objects, at most 50; more are counted in `objects_more`.
    pub objects: Vec<ObjectRef>,
    /// Objects beyond those.
    pub objects_more: u64,
    /// `intent`, `done`, `refused`, `failed`, `unknown`.
    pub phase: String,
    /// Why, for people.
    pub message: String,
    /// The reason that the caller gave.
    pub reason: Option<String>,
    /// Requests that this record stands for (refusals are aggregated).
    pub count: u64,
    /// When.
    pub at: Timestamp,
    /// The transaction.
    pub txn: TxnId,
}

impl Wire for AuditRecord {
    const KIND: &'static str = "AuditRecord";
    const LIMIT: usize = 64 << 10;
}
