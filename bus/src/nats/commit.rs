//! A transaction as one guarded message or one atomic batch, and what the server's answers mean.
//!
//! A batch takes effect at its last message. So everything that fails before that message is sent is a definite refusal,
//! and everything silent after it is unknown.

use async_nats::HeaderMap;
use async_nats::client::PublishErrorKind;
use bytes::Bytes;
use ostler_schemas::headers as names;
use serde::Deserialize;

use super::connect::Link;
use super::wire::{self, ApiError, CallError};
use crate::store::{CommitError, Committed, Guard, Headers, Op, TXN_WRITES_MAX, Txn, Write};

/// An expected sequence was not the one found.
const WRONG_LAST_SEQUENCE: u64 = 10071;
/// The same, where another write of the subject was in flight (replicated streams).
const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10164;
/// A message id of the batch is known: for a resend it means that the batch took effect.
const BATCH_DUPLICATE: u64 = 10201;
/// The batch has a gap: a message of it was lost, or the server forgot it.
const BATCH_INCOMPLETE: u64 = 10176;
/// Too many batches are open.
const BATCH_TOO_MANY: u64 = 10210;
/// JetStream is between leaders. Whether it took the message before it said so is not told.
const NOT_AVAILABLE: u64 = 10008;
/// A stream's byte limit is reached.
const STREAM_FULL: u64 = 10077;
/// The server's or account's storage is used up.
const NO_RESOURCES: u64 = 10023;
/// The same for the account.
const NO_STORAGE: u64 = 10047;

/// The server's answer to a stored message.
#[derive(Debug, Deserialize)]
struct Ack {
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    count: Option<usize>,
}

fn unknown(reason: impl Into<String>) -> CommitError {
    CommitError::Unknown { reason: reason.into() }
}

fn refused(retryable: bool, reason: impl Into<String>) -> CommitError {
    CommitError::Refused { reason: reason.into(), retryable }
}

fn from_api(error: &ApiError) -> CommitError {
    match error.err_code {
        // For a resend none of these is an answer yet: see crate::definite.
        WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_CONSTANT | BATCH_DUPLICATE => CommitError::Conflict,
        NOT_AVAILABLE => unknown(error.to_string()),
        BATCH_INCOMPLETE | BATCH_TOO_MANY | STREAM_FULL | NO_RESOURCES | NO_STORAGE => {
            refused(true, error.to_string())
        }
        _ => refused(error.code == 503 || error.code == 429, error.to_string()),
    }
}

/// What a failed request means for the transaction that it would have completed.
fn from_call(error: CallError) -> CommitError {
    match error {
        CallError::NotConnected | CallError::NoResponders { .. } => refused(true, error.to_string()),
        CallError::TooLarge { .. } => refused(false, error.to_string()),
        CallError::Silence { .. } | CallError::Unreadable { .. } => unknown(error.to_string()),
        CallError::Api(api) => from_api(&api),
    }
}

/// What a failed request means for a transaction that it does not complete: nothing took effect.
fn before_the_end(error: CallError) -> CommitError {
    match from_call(error) {
        CommitError::Unknown { reason } => refused(true, reason),
        definite @ (CommitError::Conflict | CommitError::Refused { .. }) => definite,
    }
}

fn message(txn: &Txn, i: usize, write: &Write) -> (String, HeaderMap, Bytes) {
    let mut headers = write.headers.clone();
    headers.set(names::TXN, format!("{}/{}/{}", txn.id, i + 1, txn.writes.len()));
    let expect = match &write.guard {
        Guard::Own(expect) => expect,
        Guard::Other(key, expect) => {
            headers.set(names::NATS_EXPECTED_SUBJECT, key.subject());
            expect
        }
    };
    headers.set(names::NATS_EXPECTED, expect.sequence().to_string());
    let body = match &write.op {
        Op::Put(body) => body.clone(),
        Op::Delete => {
            headers.set(names::KV_OPERATION, "DEL");
            Bytes::new()
        }
    };
    (write.key.subject(), wire::header_map(&headers), body)
}

fn committed(payload: &[u8], count: usize) -> Result<Committed, CommitError> {
    let ack: Ack = wire::parse(payload).map_err(from_call)?;
    if ack.duplicate || ack.count.is_some_and(|n| n != count) {
        return Err(unknown("the server's acknowledgement is of another transaction"));
    }
    Ok(Committed { last: ostler_schemas::Revision(ack.seq), count })
}

/// Runs a transaction.
pub(super) async fn commit(link: &Link, txn: &Txn) -> Result<Committed, CommitError> {
    let count = txn.writes.len();
    assert!(count > 0, "a transaction writes something");
    if count > TXN_WRITES_MAX {
        return Err(refused(false, format!("{count} writes, at most {TXN_WRITES_MAX} are one transaction")));
    }
    if !link.is_connected() {
        return Err(refused(true, "not connected"));
    }
    if count == 1 {
        let (subject, headers, body) = message(txn, 0, &txn.writes[0]);
        let answer = wire::ask(link, &subject, Some(headers), body).await.map_err(from_call)?;
        return committed(&answer.payload, 1);
    }
    batch(link, txn).await
}

async fn batch(link: &Link, txn: &Txn) -> Result<Committed, CommitError> {
    let count = txn.writes.len();
    // A fresh id for each attempt: the server may still hold the beginning of the last one.
    let id = format!("{}.{}", txn.id, link.unique());
    for (i, write) in txn.writes.iter().enumerate() {
        let (subject, mut headers, body) = message(txn, i, write);
        headers.insert(names::NATS_BATCH_ID, id.as_str());
        headers.insert(names::NATS_BATCH_SEQUENCE, (i + 1).to_string().as_str());
        if i + 1 == count {
            headers.insert(names::NATS_BATCH_COMMIT, "1");
            let answer = wire::ask(link, &subject, Some(headers), body).await.map_err(from_call)?;
            return committed(&answer.payload, count);
        }
        if i == 0 {
            // Whether the server takes batches at all is answered here: by nothing, if it does.
            let answer = wire::ask(link, &subject, Some(headers), body).await.map_err(before_the_end)?;
            if !answer.payload.is_empty() {
                wire::parse::<serde_json::Value>(&answer.payload).map_err(before_the_end)?;
                return Err(refused(false, "the stream takes no batches"));
            }
        } else if let Err(error) = link.client().publish_with_headers(subject, headers, body).await {
            let too_large = error.kind() == PublishErrorKind::MaxPayloadExceeded;
            return Err(refused(!too_large, error.to_string()));
        }
    }
    Err(refused(false, "an empty transaction"))
}

/// Appends to an append-only stream.
pub(super) async fn append(
    link: &Link,
    subject: &str,
    headers: &Headers,
    body: Bytes,
) -> Result<u64, CommitError> {
    let answer = wire::ask(link, subject, Some(wire::header_map(headers)), body).await.map_err(from_call)?;
    let ack: Ack = wire::parse(&answer.payload).map_err(from_call)?;
    Ok(ack.seq)
}
