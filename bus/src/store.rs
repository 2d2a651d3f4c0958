//! The store port: guarded transactions, reads and watches on [`Bucket`]s.
//!
//! Guarantees of every implementation:
//! * A transaction takes effect whole or not at all, at consecutive revisions, in order.
//! * Every write carries a guard; there is no blind put.
//! * An outcome is one of done, conflict, refused, **unknown**. Unknown means that it may or may not have happened:
//!   see [`crate::definite`].
//! * [`Read::Any`] may be stale; [`Read::Leader`] is not, except while an old leader has not yet noticed its end. So
//!   decisions end in a guarded write, never in a read.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_schemas::time::Timestamp;
use ostler_schemas::{Bucket, Key, Revision, TxnId};

/// A shared store.
pub type StoreRef = Arc<dyn Store>;

/// Most writes of one transaction: the limit of an atomic batch of NATS (ADR-50).
pub const TXN_WRITES_MAX: usize = 1000;

/// Headers of a message in order. Names are matched exactly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more header; a header of that name is replaced. Line breaks in the value become spaces, because a
    /// header is one line.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a header.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value: String = value.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a guard expects the last revision of a key to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key was never written, or its marker has been purged.
    Absent,
    /// The last write of the key, be it a value or the marker of a deletion, has this revision.
    Revision(Revision),
}

impl Expect {
    /// What to expect after having seen `last`.
    #[must_use]
    pub fn after(last: Option<Revision>) -> Self {
        last.map_or(Expect::Absent, Expect::Revision)
    }

    /// As the server writes it: 0 for absent.
    #[must_use]
    pub fn sequence(self) -> u64 {
        match self {
            Expect::Absent => 0,
            Expect::Revision(revision) => revision.0,
        }
    }
}

/// The condition of one write. Literal keys only: wildcard guards are unsafe on replicated streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// On the written key itself.
    Own(Expect),
    /// On another key of the same bucket. In a batch it may be written *later* in the batch, not earlier.
    Other(Key, Expect),
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Stores a value.
    Put(Bytes),
    /// Stores the marker of a deletion.
    Delete,
}

/// One guarded write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// Value or deletion.
    pub op: Op,
    /// The condition.
    pub guard: Guard,
    /// Plain-text headers stored with it. The transaction's own header is added by the store.
    pub headers: Headers,
}

/// A set of writes to one bucket that takes effect whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// Its identity. A resend bears the same.
    pub id: TxnId,
    /// At least one, at most [`TXN_WRITES_MAX`], all in one bucket.
    pub writes: Vec<Write>,
}

impl Txn {
    /// The bucket of its writes.
    ///
    /// # Panics
    /// If there are none: that is a bug of the caller.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        assert!(!self.writes.is_empty(), "a transaction writes something");
        self.writes[0].key.bucket()
    }
}

/// A transaction that took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Revision of the last write.
    pub last: Revision,
    /// Number of writes.
    pub count: usize,
}

impl Committed {
    /// The revision of write `i`, from 0.
    #[must_use]
    pub fn revision(&self, i: usize) -> Revision {
        Revision(self.last.0 + 1 + i as u64 - self.count as u64)
    }
}

/// Why a transaction has no success to report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A guard did not hold. Nothing was stored.
    #[error("conflict: something was written in between")]
    Conflict,
    /// The store will not take it, now or at all; `retryable` tells which. Nothing was stored.
    #[error("refused by the store: {reason}")]
    Refused {
        /// What the store said.
        reason: String,
        /// Whether the same transaction may succeed later (a full disk, too many batches in flight).
        retryable: bool,
    },
    /// It may or may not have taken effect.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// What happened to the request.
        reason: String,
    },
}

/// A failed read. Always worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No answer in time, or no connection.
    #[error("the store did not answer: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// The bucket's stream does not exist.
    #[error("bucket {bucket} does not exist")]
    Missing {
        /// The bucket's name.
        bucket: &'static str,
    },
    /// The store holds something that is not ours.
    #[error("the store answered with something unreadable: {reason}")]
    Malformed {
        /// What was found.
        reason: String,
    },
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// From the stream's leader.
    Leader,
    /// From any replica; may be stale.
    Any,
}

/// Where a message stands in its atomic batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMark {
    /// The batch.
    pub id: String,
    /// Whether it is the last message of the batch.
    pub last: bool,
}

/// The last write of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Revision of the write.
    pub revision: Revision,
    /// When the store took it (the store's clock).
    pub at: Timestamp,
    /// Value, or the marker of a deletion.
    pub op: Op,
    /// Headers stored with it.
    pub headers: Headers,
    /// Its place in a batch, if it was written by one.
    pub batch: Option<BatchMark>,
}

impl Entry {
    /// The value, unless it is a marker.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        match &self.op {
            Op::Put(bytes) => Some(bytes),
            Op::Delete => None,
        }
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFrom {
    /// The last write of every key, then what follows.
    Everything,
    /// Writes after this revision.
    After(Revision),
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// A write, in the order of revisions.
    Entry(Entry),
    /// A write whose key is not ours: skipped, but its revision counts.
    Foreign(Revision),
    /// Everything stored when the watch began has been yielded.
    Synced,
    /// Nothing new; the watch lives.
    Idle,
}

/// Why a watch ended. Begin another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the watch ended: {reason}")]
pub struct WatchError {
    /// What happened.
    pub reason: String,
}

/// A bucket's state. A smaller `last`, another `created` or an empty bucket means a new store incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketInfo {
    /// When the stream was created.
    pub created: Timestamp,
    /// The last revision; 0 if nothing was ever written.
    pub last: Revision,
    /// Messages stored.
    pub messages: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// The byte limit; 0 if there is none.
    pub bytes_max: u64,
}

/// A stored message of an append-only stream (events, audit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its subject.
    pub subject: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the store took it.
    pub at: Timestamp,
    /// Headers.
    pub headers: Headers,
    /// Body.
    pub body: Bytes,
}

/// The store.
pub trait Store: Send + Sync + 'static {
    /// The last write of `key`; `None` if there never was one.
    fn get<'a>(&'a self, key: &'a Key, read: Read) -> BoxFuture<'a, Result<Option<Entry>, ReadError>>;

    /// Runs a transaction. One write is a single guarded message, more are an atomic batch. Every message gets
    /// header `Ostler-Txn: id/i/n`, i from 1.
    fn commit<'a>(&'a self, txn: &'a Txn) -> BoxFuture<'a, Result<Committed, CommitError>>;

    /// Watches a bucket. The stream ends after its first error.
    fn watch(&self, bucket: Bucket, from: WatchFrom) -> BoxStream<'static, Result<WatchEvent, WatchError>>;

    /// The state of a bucket.
    fn info(&self, bucket: Bucket) -> BoxFuture<'_, Result<BucketInfo, ReadError>>;

    /// Removes the marker of a deleted key, if `revision` is still its last write. Leaves no trace, so only markers
    /// older than every informer's patience (24 h) may go.
    fn purge_marker<'a>(&'a self, key: &'a Key, revision: Revision) -> BoxFuture<'a, Result<(), ReadError>>;

    /// Appends to the stream that stores `subject` (events, audit), waiting for its acknowledgement.
    fn append<'a>(
        &'a self,
        subject: &'a str,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'a, Result<u64, CommitError>>;

    /// Records of an append-only stream whose subject matches `filter`, from sequence `from` on, oldest first; the
    /// stream of results goes on with new records for ever if `follow`, else ends with the last stored one.
    fn records(
        &self,
        stream: &'static str,
        filter: &str,
        from: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Record, ReadError>>;
}
