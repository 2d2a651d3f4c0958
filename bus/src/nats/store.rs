//! The store port on JetStream.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use ostler_schemas::time::Timestamp;
use ostler_schemas::{Bucket, Key, Revision, headers as names, subject};
use serde_json::{Value, json};

use super::commit;
use super::connect::Link;
use super::watch::{self, Consumer, Delivery, Start};
use super::wire::{self, CODE_NO_MESSAGE, CODE_NO_STREAM, CallError, MsgGet, Stored};
use crate::store::{
    BatchMark, BucketInfo, CommitError, Committed, Entry, Headers, Op, Read, ReadError, Record, Store, Txn,
    WatchError, WatchEvent, WatchFrom,
};

/// Status of a direct get of nothing.
const NOT_FOUND: u16 = 404;

/// The store of account CP.
#[derive(Debug)]
pub struct NatsStore {
    link: Link,
}

impl NatsStore {
    /// On a connection of a controller.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }
}

fn malformed(reason: impl Into<String>) -> ReadError {
    ReadError::Malformed { reason: reason.into() }
}

fn read_error(bucket: Bucket, error: CallError) -> ReadError {
    match error {
        CallError::Api(api) if api.err_code == CODE_NO_STREAM => ReadError::Missing { bucket: bucket.name() },
        CallError::Unreadable { reason } => malformed(reason),
        other @ (CallError::NotConnected
        | CallError::NoResponders { .. }
        | CallError::Silence { .. }
        | CallError::TooLarge { .. }
        | CallError::Api(_)) => ReadError::Unavailable { reason: other.to_string() },
    }
}

/// Headers that the store itself sets or reads; the rest is the writer's.
fn is_own_header(name: &str) -> bool {
    name.starts_with("Nats-") || name == names::KV_OPERATION
}

fn entry(stored: Stored) -> Option<Entry> {
    let key = Key::from_subject(&stored.subject).ok()?;
    let mut headers = Headers::new();
    for (name, value) in stored.headers.iter().filter(|(n, _)| !is_own_header(n)) {
        headers.set(name, value);
    }
    let batch = stored.headers.get(names::NATS_BATCH_ID).map(|id| BatchMark {
        id: id.to_owned(),
        last: stored.headers.get(names::NATS_BATCH_COMMIT).is_some(),
    });
    let op = match stored.headers.get(names::KV_OPERATION) {
        Some(_) => Op::Delete,
        None => Op::Put(stored.body),
    };
    Some(Entry { key, revision: Revision(stored.sequence), at: stored.at, op, headers, batch })
}

async fn get_from_leader(link: &Link, key: &Key) -> Result<Option<Entry>, ReadError> {
    let bucket = key.bucket();
    let method = format!("STREAM.MSG.GET.{}", bucket.stream());
    let got: MsgGet = match wire::api(link, &method, &json!({"last_by_subj": key.subject()})).await {
        Ok(got) => got,
        Err(CallError::Api(api)) if api.err_code == CODE_NO_MESSAGE => return Ok(None),
        Err(error) => return Err(read_error(bucket, error)),
    };
    let stored = got.into_stored().ok_or_else(|| malformed(format!("the message of {key}")))?;
    entry(stored).map(Some).ok_or_else(|| malformed(format!("the message of {key}")))
}

/// A message as a direct get returns it.
pub(super) fn from_direct(message: &async_nats::Message) -> Option<Stored> {
    let headers = wire::from_header_map(message.headers.as_ref());
    Some(Stored {
        subject: headers.get(names::NATS_SUBJECT)?.to_owned(),
        sequence: headers.get(names::NATS_SEQUENCE)?.parse().ok()?,
        at: headers.get(names::NATS_TIME_STAMP)?.parse().ok()?,
        body: message.payload.clone(),
        headers,
    })
}

async fn get_from_any(link: &Link, key: &Key) -> Result<Option<Entry>, ReadError> {
    let bucket = key.bucket();
    let subject = subject::direct_get(bucket, &key.to_string());
    let message = wire::ask(link, &subject, None, Bytes::new()).await.map_err(|e| read_error(bucket, e))?;
    match message.status.map(|s| s.as_u16()) {
        Some(NOT_FOUND) => return Ok(None),
        Some(status) if status >= 400 => {
            return Err(ReadError::Unavailable { reason: format!("status {status}") });
        }
        Some(_) | None => {}
    }
    let stored = from_direct(&message).ok_or_else(|| malformed(format!("the message of {key}")))?;
    entry(stored).map(Some).ok_or_else(|| malformed(format!("the message of {key}")))
}

async fn bucket_info(link: &Link, bucket: Bucket) -> Result<BucketInfo, ReadError> {
    let info = wire::stream_info(link, bucket.stream()).await.map_err(|e| read_error(bucket, e))?;
    let created: Timestamp = info.created.parse().map_err(|_| malformed("the stream's creation time"))?;
    Ok(BucketInfo {
        created,
        last: Revision(info.state.last_seq),
        messages: info.state.messages,
        bytes: info.state.bytes,
        bytes_max: info.config.get("max_bytes").and_then(Value::as_u64).unwrap_or(0),
    })
}

/// A watch being read: what it has still to say before it reads on.
struct Watching {
    consumer: Consumer,
    /// The last revision stored when it began. At it, everything that was stored has been said.
    target: u64,
    synced: bool,
    ready: VecDeque<WatchEvent>,
}

async fn begin_watch(link: &Link, bucket: Bucket, from: WatchFrom) -> Result<Watching, String> {
    let info = bucket_info(link, bucket).await.map_err(|e| e.to_string())?;
    let target = info.last.0;
    let start = match from {
        WatchFrom::Everything => Start::LastOfEach,
        // Beyond the last revision the server waits until the stream has grown so far: whether the bucket is another
        // one than it was is for who watches to ask, by its state.
        WatchFrom::After(revision) => Start::At(revision.0 + 1),
    };
    let filter = format!("{}>", bucket.subject_prefix());
    let consumer = watch::begin(link, bucket.stream(), &filter, start).await?;
    let mut ready = VecDeque::new();
    let synced = consumer.pending == 0;
    if synced {
        ready.push_back(WatchEvent::Synced);
    }
    Ok(Watching { consumer, target, synced, ready })
}

impl Watching {
    async fn next(&mut self) -> Result<WatchEvent, String> {
        if let Some(event) = self.ready.pop_front() {
            return Ok(event);
        }
        let (event, all_said) = match self.consumer.next().await? {
            Delivery::Message(stored, none_pending) => {
                let revision = Revision(stored.sequence);
                let all_said = none_pending || revision.0 >= self.target;
                (entry(stored).map_or(WatchEvent::Foreign(revision), WatchEvent::Entry), all_said)
            }
            Delivery::Idle => (WatchEvent::Idle, true),
        };
        if all_said && !self.synced {
            self.synced = true;
            if event == WatchEvent::Idle {
                return Ok(WatchEvent::Synced);
            }
            self.ready.push_back(WatchEvent::Synced);
        }
        Ok(event)
    }
}

enum Phase<B, R> {
    Begin(B),
    Run(R),
    End,
}

fn watch_stream(
    link: Link,
    bucket: Bucket,
    from: WatchFrom,
) -> BoxStream<'static, Result<WatchEvent, WatchError>> {
    let ended = |reason| WatchError { reason };
    futures::stream::unfold(Phase::Begin(link), move |phase| async move {
        let mut watching = match phase {
            Phase::Begin(link) => match begin_watch(&link, bucket, from).await {
                Ok(watching) => watching,
                Err(reason) => return Some((Err(ended(reason)), Phase::End)),
            },
            Phase::Run(watching) => watching,
            Phase::End => return None,
        };
        match watching.next().await {
            Ok(event) => Some((Ok(event), Phase::Run(watching))),
            Err(reason) => Some((Err(ended(reason)), Phase::End)),
        }
    })
    .boxed()
}

/// What a reading of records begins with.
struct Wanted {
    link: Link,
    stream: &'static str,
    filter: String,
    from: u64,
}

type RecordPhase = Phase<Wanted, (Consumer, bool)>;

/// One step of reading records: a record, or an error and the end, or the end.
async fn next_record(phase: RecordPhase, follow: bool) -> Option<(Result<Record, ReadError>, RecordPhase)> {
    let unavailable = |reason| ReadError::Unavailable { reason };
    let (mut consumer, said_all) = match phase {
        Phase::Begin(w) => match watch::begin(&w.link, w.stream, &w.filter, Start::At(w.from)).await {
            Ok(consumer) => {
                let nothing = consumer.pending == 0;
                (consumer, nothing)
            }
            Err(reason) => return Some((Err(unavailable(reason)), Phase::End)),
        },
        Phase::Run(state) => state,
        Phase::End => return None,
    };
    if said_all && !follow {
        return None;
    }
    loop {
        match consumer.next().await {
            Ok(Delivery::Message(stored, none_pending)) => {
                let record = Record {
                    subject: stored.subject,
                    sequence: stored.sequence,
                    at: stored.at,
                    headers: stored.headers,
                    body: stored.body,
                };
                return Some((Ok(record), Phase::Run((consumer, none_pending))));
            }
            Ok(Delivery::Idle) if follow => {}
            Ok(Delivery::Idle) => return None,
            Err(reason) => return Some((Err(unavailable(reason)), Phase::End)),
        }
    }
}

impl Store for NatsStore {
    fn get<'a>(&'a self, key: &'a Key, read: Read) -> BoxFuture<'a, Result<Option<Entry>, ReadError>> {
        match read {
            Read::Leader => get_from_leader(&self.link, key).boxed(),
            Read::Any => get_from_any(&self.link, key).boxed(),
        }
    }

    fn commit<'a>(&'a self, txn: &'a Txn) -> BoxFuture<'a, Result<Committed, CommitError>> {
        commit::commit(&self.link, txn).boxed()
    }

    fn watch(&self, bucket: Bucket, from: WatchFrom) -> BoxStream<'static, Result<WatchEvent, WatchError>> {
        watch_stream(self.link.clone(), bucket, from)
    }

    fn info(&self, bucket: Bucket) -> BoxFuture<'_, Result<BucketInfo, ReadError>> {
        bucket_info(&self.link, bucket).boxed()
    }

    fn purge_marker<'a>(&'a self, key: &'a Key, revision: Revision) -> BoxFuture<'a, Result<(), ReadError>> {
        async move {
            // Up to, not including, this sequence: a later write of the key stays.
            let request = json!({"filter": key.subject(), "seq": revision.0 + 1});
            let method = format!("STREAM.PURGE.{}", key.bucket().stream());
            let _: Value =
                wire::api(&self.link, &method, &request).await.map_err(|e| read_error(key.bucket(), e))?;
            Ok(())
        }
        .boxed()
    }

    fn append<'a>(
        &'a self,
        subject: &'a str,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'a, Result<u64, CommitError>> {
        async move { commit::append(&self.link, subject, &headers, body).await }.boxed()
    }

    fn records(
        &self,
        stream: &'static str,
        filter: &str,
        from: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Record, ReadError>> {
        let wanted = Wanted { link: self.link.clone(), stream, filter: filter.to_owned(), from };
        futures::stream::unfold(Phase::Begin(wanted), move |phase| next_record(phase, follow)).boxed()
    }
}
