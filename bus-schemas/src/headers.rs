//! Names of message headers. Ostler's own say in plain text what an operator needs, so that `nats sub` reads well
//! without decoding a body; the server's are those of NATS JetStream.

/// Media type of the body: [`MSGPACK`].
pub const CONTENT_TYPE: &str = "Content-Type";
/// The value of [`CONTENT_TYPE`] for envelopes.
pub const MSGPACK: &str = "application/msgpack";
/// Schema version of the body, for example `1`.
pub const SCHEMA: &str = "Ostler-Schema";
/// Kind of the envelope's body, for example `RunDocument`.
pub const KIND: &str = "Ostler-Kind";
/// The object that the message is about, for example `deployment/default/web`.
pub const OBJECT: &str = "Ostler-Object";
/// A reason of CONTRACT.md section 8.
pub const REASON: &str = "Ostler-Reason";
/// One line for people.
pub const MESSAGE: &str = "Ostler-Message";
/// `Normal` or `Warning`, on events.
pub const TYPE: &str = "Ostler-Type";
/// Who caused it, for example `user/anna`.
pub const ACTOR: &str = "Ostler-Actor";
/// `id/i/n`: message i of n of a transaction; the same when it is resent.
pub const TXN: &str = "Ostler-Txn";
/// Epoch of the leader that wrote it.
pub const EPOCH: &str = "Ostler-Epoch";
/// How many occurrences an event message stands for, where its source coalesced.
pub const COUNT: &str = "Ostler-Count";
/// Closes a streamed reply: `ok`, `error` or `lost=N`.
pub const END: &str = "Ostler-End";
/// Number of a message in a streamed reply, from 1.
pub const SEQ: &str = "Ostler-Seq";
/// Objects revision that the answering replica must have reached (read your own writes).
pub const MIN_REVISION: &str = "Ostler-Min-Revision";
/// Objects revision that an answer was made at.
pub const REVISION: &str = "Ostler-Revision";
/// `1` on a request that is sent again because its answer did not come: it bears the `Ostler-Txn` of the first.
pub const RESEND: &str = "Ostler-Resend";
/// Uid of the object whose marker of deletion this is on.
pub const UID: &str = "Ostler-Uid";
/// On the marker of a deletion: the transaction that asked for it, where the marker itself was written later.
pub const CAUSE: &str = "Ostler-Cause";
/// On shipped output: which bytes of which log it is (`v1::stretch`).
pub const STRETCH: &str = "Ostler-Stretch";
/// Trace context (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// JetStream: guard, the expected last sequence of the subject.
pub const NATS_EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// JetStream: guard on another subject of the same stream; literal subjects only.
pub const NATS_EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
/// JetStream: identity of an atomic batch.
pub const NATS_BATCH_ID: &str = "Nats-Batch-Id";
/// JetStream: position in the batch, from 1.
pub const NATS_BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
/// JetStream: `1` on the last message of a batch.
pub const NATS_BATCH_COMMIT: &str = "Nats-Batch-Commit";
/// JetStream KV: `DEL` or `PURGE` marks a deletion.
pub const KV_OPERATION: &str = "KV-Operation";
/// Direct get: subject of the stored message.
pub const NATS_SUBJECT: &str = "Nats-Subject";
/// Direct get and republish: sequence of the stored message.
pub const NATS_SEQUENCE: &str = "Nats-Sequence";
/// Direct get: when it was stored.
pub const NATS_TIME_STAMP: &str = "Nats-Time-Stamp";
/// Service import with `share`: who the requester is, written by the server.
pub const NATS_REQUEST_INFO: &str = "Nats-Request-Info";
