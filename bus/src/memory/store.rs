//! The store port on the model.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_schemas::headers as names;
use ostler_schemas::{Bucket, Key, Revision};
use tokio::time::Instant;

use super::conn::Conn;
use super::state::State;
use super::stream::{Draft, Refusal, Stored, Stream};
use super::watch;
use crate::store::{
    BucketInfo, CommitError, Committed, Entry, Guard, Headers, Op, Read, ReadError, Record, Store, Txn,
    WatchError, WatchEvent, WatchFrom,
};

/// How long a request waits for its answer, as the client's `request_timeout` (NATS.md, appendix B).
pub(super) const REQUEST_TIMEOUT_MS: u64 = 5_000;

/// A controller's store.
pub(super) struct MemoryStore {
    conn: Arc<Conn>,
}

impl MemoryStore {
    pub(super) fn new(conn: Arc<Conn>) -> Self {
        Self { conn }
    }

    async fn read<T: Send + 'static>(
        &self,
        bucket: Bucket,
        read: impl FnOnce(&mut State, &'static str) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let answer = self.conn.exchange(REQUEST_TIMEOUT_MS, move |state| {
            if state.streams.contains_key(bucket.stream()) {
                read(state, bucket.stream())
            } else {
                Err(ReadError::Missing { bucket: bucket.name() })
            }
        });
        answer.await.unwrap_or_else(|| Err(ReadError::Unavailable { reason: "no answer in time".to_owned() }))
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut State) -> Result<T, CommitError> + Send + 'static,
    ) -> Result<T, CommitError> {
        self.conn.gate.ports().await;
        if !self.conn.is_connected() {
            // Nothing was sent.
            let reason = "not connected".to_owned();
            return Err(CommitError::Refused { reason, retryable: true });
        }
        let answer = self.conn.exchange(REQUEST_TIMEOUT_MS, write).await;
        answer.unwrap_or_else(|| Err(CommitError::Unknown { reason: "no answer in time".to_owned() }))
    }
}

impl From<Refusal> for CommitError {
    fn from(refusal: Refusal) -> Self {
        if refusal.is_conflict() {
            CommitError::Conflict
        } else {
            let reason = format!("{} ({})", refusal.text, refusal.code);
            CommitError::Refused { reason, retryable: refusal.is_retryable() }
        }
    }
}

/// The messages of a transaction.
fn drafts(txn: &Txn) -> Result<Vec<Draft>, CommitError> {
    let (bucket, count) = (txn.bucket(), txn.writes.len());
    let mut out = Vec::with_capacity(count);
    for (i, write) in txn.writes.iter().enumerate() {
        if write.key.bucket() != bucket {
            let reason = "a transaction writes to one bucket".to_owned();
            return Err(CommitError::Refused { reason, retryable: false });
        }
        let headers = write.headers.clone().with(names::TXN, format!("{}/{}/{count}", txn.id, i + 1));
        let (headers, body) = match &write.op {
            Op::Put(body) => (headers, body.clone()),
            Op::Delete => (headers.with(names::KV_OPERATION, "DEL"), Bytes::new()),
        };
        let mut headers = headers;
        let guard = match &write.guard {
            Guard::Own(expect) => (write.key.subject(), expect.sequence()),
            Guard::Other(key, expect) if key.bucket() == bucket => (key.subject(), expect.sequence()),
            Guard::Other(..) => {
                let reason = "a guard is on a key of the same bucket".to_owned();
                return Err(CommitError::Refused { reason, retryable: false });
            }
        };
        // The server stores the headers of guards too.
        headers.set(names::NATS_EXPECTED, guard.1.to_string());
        if guard.0 != write.key.subject() {
            headers.set(names::NATS_EXPECTED_SUBJECT, guard.0.clone());
        }
        out.push(Draft { subject: write.key.subject(), headers, body, guard: Some(guard) });
    }
    Ok(out)
}

/// A stored message as an entry; `None` if its subject is not a key of ours.
pub(super) fn entry(stored: &Stored) -> Option<Entry> {
    let key = Key::from_subject(&stored.subject).ok()?;
    let mut headers = Headers::new();
    for (name, value) in stored.headers.iter() {
        if !name.starts_with("Nats-") && name != names::KV_OPERATION {
            headers.set(name, value);
        }
    }
    let op = if stored.is_marker() { Op::Delete } else { Op::Put(stored.body.clone()) };
    let batch = stored.batch.clone();
    Some(Entry { key, revision: Revision(stored.seq), at: stored.at, op, headers, batch })
}

fn info(stream: &Stream) -> BucketInfo {
    BucketInfo {
        created: stream.created,
        last: Revision(stream.last),
        messages: stream.count(),
        bytes: stream.bytes(),
        bytes_max: stream.spec.bytes_max,
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, key: &'a Key, read: Read) -> BoxFuture<'a, Result<Option<Entry>, ReadError>> {
        let (key, party) = (key.clone(), self.conn.party.clone());
        Box::pin(self.read(key.bucket(), move |state, stream| {
            let lag_ms = match read {
                Read::Leader => 0,
                Read::Any => state.faults.stale_lag_ms(Some(&party)),
            };
            let stored =
                state.streams[stream].stale_last_of(&key.subject(), Instant::now(), lag_ms).and_then(entry);
            Ok(stored)
        }))
    }

    fn commit<'a>(&'a self, txn: &'a Txn) -> BoxFuture<'a, Result<Committed, CommitError>> {
        Box::pin(async move {
            let drafts = drafts(txn)?;
            let (bucket, count) = (txn.bucket(), drafts.len());
            let batch = (count > 1).then(|| txn.id.to_string());
            let guards_another = txn.writes.iter().any(|w| matches!(w.guard, Guard::Other(..)));
            let party = self.conn.party.clone();
            self.write(move |state| {
                if let Some(refusal) = state.faults.refuse_commit(&party, guards_another) {
                    return Err(refusal.into());
                }
                let last = state.store(bucket.stream(), drafts, batch.as_deref())?;
                Ok(Committed { last: Revision(last), count })
            })
            .await
        })
    }

    fn watch(&self, bucket: Bucket, from: WatchFrom) -> BoxStream<'static, Result<WatchEvent, WatchError>> {
        watch::bucket(Arc::clone(&self.conn), bucket, from)
    }

    fn info(&self, bucket: Bucket) -> BoxFuture<'_, Result<BucketInfo, ReadError>> {
        Box::pin(self.read(bucket, |state, stream| Ok(info(&state.streams[stream]))))
    }

    fn purge_marker<'a>(&'a self, key: &'a Key, revision: Revision) -> BoxFuture<'a, Result<(), ReadError>> {
        let subject = key.subject();
        Box::pin(self.read(key.bucket(), move |state, stream| {
            if let Some(stream) = state.streams.get_mut(stream)
                && stream.last_of(&subject).is_some_and(|m| m.seq == revision.0 && m.is_marker())
            {
                stream.remove(revision.0);
            }
            Ok(())
        }))
    }

    fn append<'a>(
        &'a self,
        subject: &'a str,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'a, Result<u64, CommitError>> {
        let subject = subject.to_owned();
        Box::pin(self.write(move |state| {
            let Some(stream) = state.stream_of(&subject).map(|s| s.spec.name) else {
                let reason = format!("no stream stores {subject}");
                return Err(CommitError::Refused { reason, retryable: true });
            };
            let draft = Draft { subject, headers, body, guard: None };
            Ok(state.store(stream, vec![draft], None)?)
        }))
    }

    fn records(
        &self,
        stream: &'static str,
        filter: &str,
        from: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Record, ReadError>> {
        watch::records(Arc::clone(&self.conn), (stream, filter), from, follow)
    }
}
