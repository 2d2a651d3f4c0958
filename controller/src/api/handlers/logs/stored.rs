//! Output of a process from the bus, where its namespace ships it: for when its node is lost, or the process is gone.
//!
//! Parts come in the order in which the node stored them; what was stored twice is told by its stretch and shown once.
//! A tail, or the incarnation before the last one, is found by a first reading that keeps numbers only, so that memory
//! is bounded whatever is asked. Few such readings go on at once: each is a consumer of the stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use ostler_bus::StoreRef;
use ostler_bus::store::{ReadError, Record};
use ostler_schemas::subject::{LOGS_STREAM, LogSubject};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::{LogFilter, LogsRequest};
use ostler_schemas::v1::log_line::{Line, Note, Source, parse};
use ostler_schemas::v1::stretch::{Follows, Seen, Stretch};
use ostler_schemas::{Name, Namespace, NodeName, Uid, headers};
use tokio::sync::{Semaphore, mpsc};

use crate::api::asks::Chunk;

/// Parts that wait to be passed on: of one reading at most this often 64 KiB.
const QUEUED: usize = 4;

/// How a reading ends that found nothing of the process at all.
pub(super) const NOTHING: &str = "nothing";

/// Which output is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) subject: LogSubject,
    pub(super) uid: Uid,
    pub(super) tail: Option<u64>,
    pub(super) filter: LogFilter,
}

impl Wanted {
    pub(super) fn new(subject: LogSubject, uid: Uid, request: &LogsRequest) -> Self {
        Self { subject, uid, tail: request.tail, filter: request.filter.clone() }
    }
}

/// Whose output of that name is stored: the node and the uid that stored last, and when.
pub(super) async fn last_of(
    store: &StoreRef,
    namespace: &Namespace,
    process: &Name,
) -> Result<Option<(NodeName, Uid, Timestamp)>, ReadError> {
    let filter = LogSubject::of_any_node(namespace, process);
    let mut records = store.records(LOGS_STREAM, &filter, 1, false);
    let mut last = None;
    while let Some(record) = records.next().await {
        let record = record?;
        let subject = LogSubject::parse(&record.subject);
        if let Some((subject, stretch)) = subject.zip(stretch_of(&record)) {
            last = Some((subject.node, stretch.uid, record.at));
        }
    }
    Ok(last)
}

/// Reads it into a channel, part by part; the last chunk says how it ended.
pub(super) async fn read(
    store: StoreRef,
    at_once: Arc<Semaphore>,
    wanted: Wanted,
    chunks: mpsc::Sender<Chunk>,
) {
    // It is never closed.
    let Ok(_place) = at_once.acquire_owned().await else { return };
    let mut seq = 0;
    let end = match send(&store, &wanted, &chunks, &mut seq).await {
        Ok(true) => Chunk::of(seq + 1, Bytes::new(), Some("ok"), None),
        Ok(false) => Chunk::of(seq + 1, Bytes::new(), Some(NOTHING), None),
        Err(error) => {
            Chunk::of(seq + 1, Bytes::new(), Some("error"), Some(format!("stored output: {error}")))
        }
    };
    // Whoever asked may be gone.
    chunks.send(end).await.ok();
}

pub(super) fn channel() -> (mpsc::Sender<Chunk>, mpsc::Receiver<Chunk>) {
    mpsc::channel(QUEUED)
}

async fn send(
    store: &StoreRef,
    wanted: &Wanted,
    chunks: &mpsc::Sender<Chunk>,
    seq: &mut u64,
) -> Result<bool, ReadError> {
    let plan = plan(store, wanted).await?;
    let mut sieve = Sieve::new(wanted, plan.window);
    let mut records = store.records(LOGS_STREAM, &wanted.subject.to_string(), plan.from, false);
    let mut skip = plan.skip;
    while let Some(record) = records.next().await {
        let record = record?;
        let mut out = Vec::new();
        sieve.sift(&record, |line, counts| {
            if skip > 0 {
                skip -= u64::from(counts);
            } else {
                out.extend_from_slice(line);
            }
        });
        if out.is_empty() {
            continue;
        }
        *seq += 1;
        if chunks.send(Chunk::of(*seq, out.into(), None, None)).await.is_err() {
            break;
        }
    }
    Ok(plan.found || sieve.found)
}

/// A stretch of time, in microseconds since 1970: from the first moment on, before the second.
type Window = (u64, u64);

/// Where a reading begins.
struct Plan {
    from: u64,
    /// Lines that are not wanted there.
    skip: u64,
    window: Window,
    /// Something of it is stored.
    found: bool,
}

async fn plan(store: &StoreRef, wanted: &Wanted) -> Result<Plan, ReadError> {
    let us = |at: Timestamp| at.0.saturating_mul(1_000);
    let asked = (wanted.filter.since.map_or(0, us), wanted.filter.until.map_or(u64::MAX, us));
    let window = if wanted.filter.previous {
        let (from, to) = previous(store, wanted).await?;
        (from.max(asked.0), to.min(asked.1))
    } else {
        asked
    };
    let Some(tail) = wanted.tail else { return Ok(Plan { from: 1, skip: 0, window, found: false }) };
    let mut sieve = Sieve::new(wanted, window);
    let mut records = store.records(LOGS_STREAM, &wanted.subject.to_string(), 1, false);
    // Parts with lines that count, the oldest that is needed first, and how many lines they have together.
    let mut parts: VecDeque<(u64, u64)> = VecDeque::new();
    let (mut total, mut after) = (0u64, 1);
    while let Some(record) = records.next().await {
        let record = record?;
        let mut lines = 0;
        sieve.sift(&record, |_, counts| lines += u64::from(counts));
        after = record.sequence + 1;
        if lines > 0 {
            parts.push_back((record.sequence, lines));
            total += lines;
        }
        while let Some((_, oldest)) = parts.front()
            && total - oldest >= tail
        {
            total -= oldest;
            parts.pop_front();
        }
    }
    let from = parts.front().map_or(after, |(sequence, _)| *sequence);
    Ok(Plan { from, skip: total.saturating_sub(tail), window, found: sieve.found })
}

/// When the incarnation before the last one began and ended; nothing if there was only one.
async fn previous(store: &StoreRef, wanted: &Wanted) -> Result<Window, ReadError> {
    let mut begins: BTreeMap<u64, u64> = BTreeMap::new();
    let mut sieve = Sieve::new(wanted, (0, u64::MAX));
    let mut records = store.records(LOGS_STREAM, &wanted.subject.to_string(), 1, false);
    while let Some(record) = records.next().await {
        sieve.sift(&record?, |line, _| {
            if let Some((at_us, Note::Begins { incarnation, .. })) = note_of(line) {
                begins.insert(incarnation, at_us);
                while begins.len() > 2 {
                    begins.pop_first();
                }
            }
        });
    }
    let mut times = begins.into_values();
    Ok(match (times.next(), times.next()) {
        (Some(from), Some(to)) => (from, to),
        (_, _) => (u64::MAX, 0),
    })
}

fn note_of(line: &[u8]) -> Option<(u64, Note)> {
    let line = parse(line).filter(|line| line.source == Source::Host)?;
    Some((line.at_us, Note::parse(line.text)))
}

fn stretch_of(record: &Record) -> Option<Stretch> {
    record.headers.get(headers::STRETCH)?.parse().ok()
}

/// Takes the lines that are wanted out of parts in their order.
struct Sieve<'a> {
    wanted: &'a Wanted,
    window: Window,
    seen: Seen,
    /// What is no line of a log goes with the line before it.
    inside: bool,
    /// A part of this process came.
    found: bool,
}

impl<'a> Sieve<'a> {
    fn new(wanted: &'a Wanted, window: Window) -> Self {
        Self { wanted, window, seen: Seen::default(), inside: window.0 == 0, found: false }
    }

    /// Tells each line that is wanted, and whether it ends what a reader counts as a line.
    fn sift(&mut self, record: &Record, mut tell: impl FnMut(&[u8], bool)) {
        let Some(stretch) = stretch_of(record).filter(|s| s.uid == self.wanted.uid) else { return };
        self.found = true;
        match self.seen.take(&stretch) {
            Follows::Again => return,
            Follows::Next => {}
            Follows::After(bytes) => {
                let at_us = parse(&record.body).map_or(record.at.0 * 1_000, |line| line.at_us);
                tell(&Note::Other(format!("{bytes} bytes are missing in the stream")).line(at_us), false);
            }
        }
        for line in record.body.split_inclusive(|b| *b == b'\n') {
            let read = parse(line);
            if self.wants(read.as_ref()) {
                let counts = read.is_none_or(|l| !l.partial && l.source != Source::Host);
                tell(line, counts);
            }
        }
    }

    fn wants(&mut self, line: Option<&Line<'_>>) -> bool {
        let Some(line) = line else { return self.inside };
        self.inside = self.window.0 <= line.at_us && line.at_us < self.window.1;
        self.inside
            && match line.source {
                Source::Process(stream) => self.wanted.filter.stream.is_none_or(|wanted| wanted == stream),
                Source::Host => true,
            }
    }
}
