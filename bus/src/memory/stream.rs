//! One stream of the model: messages by sequence, guards, limits. Pure: moments come in as values.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ostler_schemas::headers as names;
use ostler_schemas::time::Timestamp;
use tokio::time::Instant;

use crate::layout;
use crate::store::{BatchMark, Headers, TXN_WRITES_MAX};

/// What a stream is for.
#[derive(Debug, Clone)]
pub(super) struct StreamSpec {
    pub(super) name: &'static str,
    /// It stores every subject below this prefix.
    pub(super) prefix: String,
    /// Keeps the last message of each subject only.
    pub(super) history_one: bool,
    /// Takes atomic batches.
    pub(super) atomic: bool,
    pub(super) bytes_max: u64,
    /// Largest message, with its headers.
    pub(super) message_max: u64,
    /// When full, drops the oldest; else refuses the newest.
    pub(super) discard_old: bool,
}

impl From<layout::StreamSpec> for StreamSpec {
    fn from(spec: layout::StreamSpec) -> Self {
        // Every stream of ours stores all that is below one prefix.
        let prefix = spec.subjects.first().map(|s| s.trim_end_matches('>').to_owned()).unwrap_or_default();
        Self {
            name: spec.name,
            prefix,
            history_one: spec.last_only,
            atomic: spec.atomic,
            bytes_max: spec.max_bytes,
            message_max: u64::from(spec.max_msg_size),
            discard_old: spec.discard == layout::Discard::Old,
        }
    }
}

/// A stored message.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) subject: String,
    pub(super) at: Timestamp,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) batch: Option<BatchMark>,
    /// When, on the runtime's clock: deliveries are delayed from here.
    pub(super) stored: Instant,
}

impl Stored {
    fn size(&self) -> u64 {
        size_of(&self.subject, &self.headers, &self.body)
    }

    pub(super) fn is_marker(&self) -> bool {
        matches!(self.headers.get(names::KV_OPERATION), Some("DEL" | "PURGE"))
    }
}

/// A message on its way into a stream.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) subject: String,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    /// The subject that must have this last sequence.
    pub(super) guard: Option<(String, u64)>,
}

/// An API error of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u32,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Whether a guard did not hold.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.code, WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_CONSTANT)
    }

    /// Whether the same message may be taken later.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self.code, STORE_FAILED | INSUFFICIENT | TOO_MANY_BATCHES)
    }
}

pub(super) const WRONG_LAST_SEQUENCE: u32 = 10071;
pub(super) const WRONG_LAST_SEQUENCE_CONSTANT: u32 = 10164;
pub(super) const STORE_FAILED: u32 = 10077;
pub(super) const INSUFFICIENT: u32 = 10047;
pub(super) const BATCH_DISABLED: u32 = 10174;
pub(super) const BATCH_TOO_LARGE: u32 = 10199;
pub(super) const TOO_MANY_BATCHES: u32 = 10210;
pub(super) const ROLLUP_DENIED: u32 = 10111;
pub(super) const TTL_DENIED: u32 = 10166;
pub(super) const TOO_LARGE: u32 = 10054;

/// A stream.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) spec: StreamSpec,
    pub(super) created: Timestamp,
    pub(super) last: u64,
    messages: BTreeMap<u64, Stored>,
    by_subject: BTreeMap<String, u64>,
    bytes: u64,
    /// The last write of a subject before the present one, and when it was replaced: what a stale replica answers.
    replaced: BTreeMap<String, (Instant, Option<Stored>)>,
    /// Changes when consumers are lost with the stream.
    pub(super) consumers: u64,
    /// The disk is full.
    pub(super) full: bool,
}

fn size_of(subject: &str, headers: &Headers, body: &Bytes) -> u64 {
    let headers: usize = headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
    (subject.len() + headers + body.len()) as u64
}

impl Stream {
    pub(super) fn new(spec: StreamSpec, created: Timestamp, consumers: u64) -> Self {
        Self {
            spec,
            created,
            last: 0,
            messages: BTreeMap::new(),
            by_subject: BTreeMap::new(),
            bytes: 0,
            replaced: BTreeMap::new(),
            consumers,
            full: false,
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last message of a subject.
    pub(super) fn last_of(&self, subject: &str) -> Option<&Stored> {
        self.by_subject.get(subject).and_then(|seq| self.messages.get(seq))
    }

    /// As a replica would answer that lags by up to `lag_ms`.
    pub(super) fn stale_last_of(&self, subject: &str, now: Instant, lag_ms: u64) -> Option<&Stored> {
        match self.replaced.get(subject) {
            Some((at, before)) if now.duration_since(*at).as_millis() < u128::from(lag_ms) => before.as_ref(),
            Some(_) | None => self.last_of(subject),
        }
    }

    /// The first message at or after a sequence.
    pub(super) fn at_or_after(&self, seq: u64) -> Option<&Stored> {
        self.messages.range(seq..).next().map(|(_, m)| m)
    }

    /// Every message, oldest first.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.messages.values()
    }

    /// Stores messages as one: all at consecutive sequences, or none. Returns the last sequence.
    pub(super) fn store(
        &mut self,
        drafts: Vec<Draft>,
        batch: Option<&str>,
        (at, now): (Timestamp, Instant),
    ) -> Result<u64, Refusal> {
        self.check(&drafts, batch.is_some())?;
        let count = drafts.len();
        for (i, draft) in drafts.into_iter().enumerate() {
            let batch = batch.map(|id| BatchMark { id: id.to_owned(), last: i + 1 == count });
            self.last += 1;
            self.insert(Stored {
                seq: self.last,
                subject: draft.subject,
                at,
                headers: draft.headers,
                body: draft.body,
                batch,
                stored: now,
            });
        }
        while self.spec.discard_old && self.bytes > self.spec.bytes_max {
            let Some(&oldest) = self.messages.keys().next() else { break };
            self.remove(oldest);
        }
        Ok(self.last)
    }

    fn check(&self, drafts: &[Draft], batch: bool) -> Result<(), Refusal> {
        if batch && !self.spec.atomic {
            return Err(Refusal::new(BATCH_DISABLED, "batch publish is disabled"));
        }
        if drafts.len() > TXN_WRITES_MAX {
            return Err(Refusal::new(BATCH_TOO_LARGE, "batch publish sequence exceeds server limit"));
        }
        let mut written: BTreeSet<&str> = BTreeSet::new();
        let mut added = 0;
        let mut freed = 0;
        for draft in drafts {
            let size = size_of(&draft.subject, &draft.headers, &draft.body);
            if size > self.spec.message_max {
                return Err(Refusal::new(TOO_LARGE, "message size exceeds maximum allowed"));
            }
            if let Some((subject, expected)) = &draft.guard {
                if written.contains(subject.as_str()) {
                    return Err(Refusal::new(WRONG_LAST_SEQUENCE_CONSTANT, "wrong last sequence"));
                }
                let last = self.last_of(subject).map_or(0, |m| m.seq);
                if last != *expected {
                    return Err(Refusal::new(WRONG_LAST_SEQUENCE, format!("wrong last sequence: {last}")));
                }
            }
            if self.spec.history_one && written.insert(&draft.subject) {
                freed += self.last_of(&draft.subject).map_or(0, Stored::size);
            }
            added += size;
        }
        if self.full {
            return Err(Refusal::new(INSUFFICIENT, "insufficient resources"));
        }
        if !self.spec.discard_old && self.bytes + added > self.spec.bytes_max + freed {
            return Err(Refusal::new(STORE_FAILED, "maximum bytes exceeded"));
        }
        Ok(())
    }

    fn insert(&mut self, stored: Stored) {
        self.bytes += stored.size();
        let before = self.by_subject.insert(stored.subject.clone(), stored.seq);
        if self.spec.history_one {
            let before = before.and_then(|seq| self.take(seq));
            self.replaced.insert(stored.subject.clone(), (stored.stored, before));
        }
        self.messages.insert(stored.seq, stored);
    }

    fn take(&mut self, seq: u64) -> Option<Stored> {
        let stored = self.messages.remove(&seq)?;
        self.bytes -= stored.size();
        Some(stored)
    }

    /// Removes a message without a trace.
    pub(super) fn remove(&mut self, seq: u64) {
        if let Some(stored) = self.take(seq)
            && self.by_subject.get(&stored.subject) == Some(&seq)
        {
            self.by_subject.remove(&stored.subject);
            self.replaced.remove(&stored.subject);
        }
    }

    /// What is left of a memory stream after all servers have restarted: the same stream, empty, sequences from 0.
    pub(super) fn empty(&mut self) {
        *self = Self::new(self.spec.clone(), self.created, self.consumers + 1);
    }
}

#[cfg(test)]
mod tests;
