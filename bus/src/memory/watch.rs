//! Watches and readers of records: cursors on a stream, with the heartbeats and silences of a push consumer.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use ostler_schemas::{Bucket, Revision};
use tokio::time::Instant;

use super::conn::Conn;
use super::pattern::Pattern;
use super::state::State;
use super::store::{REQUEST_TIMEOUT_MS, entry};
use super::stream::Stored;
use crate::store::{ReadError, Record, WatchError, WatchEvent, WatchFrom};

/// A consumer's idle heartbeat (NATS.md section 4).
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Without anything for this long the reader of a consumer gives up: two heartbeats have been missed.
const SILENCE: Duration = Duration::from_secs(12);

/// What faults do to a watch.
#[derive(Debug)]
pub(super) struct WatchFlags {
    pub(super) party: String,
    /// Ended, with an error.
    pub(super) ended: bool,
    /// Silent for ever, without an error.
    pub(super) hung: bool,
}

/// A consumer.
struct Consumer {
    conn: Arc<Conn>,
    id: u64,
    stream: &'static str,
    consumers: u64,
    /// The next sequence to look at.
    next: u64,
    opened: Instant,
    heard: Instant,
    /// A message under way, and when it arrives.
    due: (u64, Instant),
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.conn.shared.state().watches.remove(&self.id);
    }
}

enum Step {
    Message(Box<Stored>),
    /// Nothing more is stored.
    End,
    Hung,
    Failed(String),
    Wait(Instant),
}

fn failed(reason: &str) -> Step {
    Step::Failed(reason.to_owned())
}

impl Consumer {
    /// Opens a consumer at a sequence. Also says up to where messages are pending.
    async fn open(conn: Arc<Conn>, stream: &'static str, from: WatchFrom) -> Result<(Self, u64), ReadError> {
        let party = conn.party.clone();
        let opened = conn.exchange(REQUEST_TIMEOUT_MS, move |state| {
            let found = state.streams.get(stream).map(|s| (s.consumers, s.last))?;
            let id = state.fresh_id();
            state.watches.insert(id, WatchFlags { party, ended: false, hung: false });
            Some((id, found))
        });
        let (id, (consumers, last)) = match opened.await {
            Some(Some(opened)) => opened,
            Some(None) => return Err(ReadError::Missing { bucket: stream }),
            None => return Err(ReadError::Unavailable { reason: "no answer in time".to_owned() }),
        };
        let now = Instant::now();
        let next = match from {
            WatchFrom::Everything => 1,
            WatchFrom::After(revision) => revision.0.saturating_add(1),
        };
        Ok((Self { conn, id, stream, consumers, next, opened: now, heard: now, due: (0, now) }, last))
    }

    fn step(&mut self, state: &mut State, now: Instant) -> Step {
        let Some(flags) = state.watches.get(&self.id) else { return failed("the consumer is gone") };
        if flags.ended {
            return failed("the consumer was deleted");
        }
        if flags.hung {
            return Step::Hung;
        }
        let stream = state.streams.get(self.stream).filter(|s| s.consumers == self.consumers);
        let Some(stream) = stream.filter(|_| state.reaches(self.conn.id)) else {
            let until = self.heard + SILENCE;
            return if until <= now { failed("missed idle heartbeat") } else { Step::Wait(until) };
        };
        let Some(stored) = stream.at_or_after(self.next) else { return Step::End };
        let stored = stored.clone();
        if self.due.0 != stored.seq {
            let delay = Duration::from_millis(state.faults.watch_delay_ms(&self.conn.party));
            self.due = (stored.seq, self.due.1.max(stored.stored.max(self.opened) + delay));
        }
        if self.due.1 > now {
            return Step::Wait(self.due.1);
        }
        self.next = stored.seq + 1;
        self.heard = now;
        Step::Message(Box::new(stored))
    }

    /// The next message, or `End` when there is none for now and `at_end` has not been said, or a heartbeat.
    async fn advance(&mut self, mut at_end: impl FnMut() -> bool) -> Advance {
        loop {
            self.conn.gate.ports().await;
            let shared = Arc::clone(&self.conn.shared);
            let changed = shared.changed.notified();
            let now = Instant::now();
            let step = self.step(&mut shared.state(), now);
            let wake = match step {
                Step::Message(stored) => return Advance::Message(stored),
                Step::Failed(reason) => return Advance::Failed(reason),
                Step::Hung => return std::future::pending().await,
                Step::End => {
                    if at_end() {
                        self.heard = now;
                        return Advance::End;
                    }
                    let beat = self.heard + HEARTBEAT;
                    if beat <= now {
                        self.heard = now;
                        return Advance::Idle;
                    }
                    beat
                }
                Step::Wait(at) => at,
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

enum Advance {
    Message(Box<Stored>),
    End,
    Idle,
    Failed(String),
}

/// Where a watch of a bucket stands.
enum Phase {
    Closed(Arc<Conn>, WatchFrom),
    /// Until what was stored at first is through: messages up to this sequence.
    Initial(Consumer, u64),
    /// A message that came first after the initial ones.
    Held(Consumer, Box<Stored>),
    Live(Consumer),
    Over,
}

pub(super) fn bucket(
    conn: Arc<Conn>,
    bucket: Bucket,
    from: WatchFrom,
) -> BoxStream<'static, Result<WatchEvent, WatchError>> {
    futures::stream::unfold(Phase::Closed(conn, from), move |phase| next_event(phase, bucket)).boxed()
}

type Yielded = Option<(Result<WatchEvent, WatchError>, Phase)>;

fn over(reason: impl Into<String>) -> Yielded {
    Some((Err(WatchError { reason: reason.into() }), Phase::Over))
}

fn event(stored: &Stored) -> WatchEvent {
    entry(stored).map_or(WatchEvent::Foreign(Revision(stored.seq)), WatchEvent::Entry)
}

async fn next_event(mut phase: Phase, bucket: Bucket) -> Yielded {
    loop {
        phase = match phase {
            Phase::Closed(conn, from) => match Consumer::open(conn, bucket.stream(), from).await {
                Ok((consumer, last)) => Phase::Initial(consumer, last),
                Err(error) => return over(error.to_string()),
            },
            Phase::Initial(mut consumer, last) => match consumer.advance(|| true).await {
                Advance::Message(stored) if stored.seq > last => {
                    return Some((Ok(WatchEvent::Synced), Phase::Held(consumer, stored)));
                }
                Advance::Message(stored) => {
                    return Some((Ok(event(&stored)), Phase::Initial(consumer, last)));
                }
                Advance::End => return Some((Ok(WatchEvent::Synced), Phase::Live(consumer))),
                Advance::Idle => return Some((Ok(WatchEvent::Idle), Phase::Initial(consumer, last))),
                Advance::Failed(reason) => return over(reason),
            },
            Phase::Held(consumer, stored) => return Some((Ok(event(&stored)), Phase::Live(consumer))),
            Phase::Live(mut consumer) => match consumer.advance(|| false).await {
                Advance::Message(stored) => return Some((Ok(event(&stored)), Phase::Live(consumer))),
                Advance::End => Phase::Live(consumer),
                Advance::Idle => return Some((Ok(WatchEvent::Idle), Phase::Live(consumer))),
                Advance::Failed(reason) => return over(reason),
            },
            Phase::Over => return None,
        };
    }
}

/// Where a reader of records stands.
enum Reading {
    Closed(Arc<Conn>),
    Open(Consumer),
    Over,
}

pub(super) fn records(
    conn: Arc<Conn>,
    (stream, filter): (&'static str, &str),
    from: u64,
    follow: bool,
) -> BoxStream<'static, Result<Record, ReadError>> {
    let filter = Pattern::new(filter);
    futures::stream::unfold(Reading::Closed(conn), move |reading| {
        next_record(reading, (stream, filter.clone()), from, follow)
    })
    .boxed()
}

async fn next_record(
    mut reading: Reading,
    (stream, filter): (&'static str, Pattern),
    from: u64,
    follow: bool,
) -> Option<(Result<Record, ReadError>, Reading)> {
    loop {
        reading = match reading {
            Reading::Closed(conn) => {
                let after = WatchFrom::After(Revision(from.saturating_sub(1)));
                match Consumer::open(conn, stream, after).await {
                    Ok((consumer, _)) => Reading::Open(consumer),
                    Err(error) => return Some((Err(error), Reading::Over)),
                }
            }
            Reading::Open(mut consumer) => match consumer.advance(|| !follow).await {
                Advance::Message(stored) if filter.matches(&stored.subject) => {
                    return Some((Ok(record(*stored)), Reading::Open(consumer)));
                }
                Advance::Message(_) | Advance::Idle => Reading::Open(consumer),
                Advance::End => return None,
                Advance::Failed(reason) => {
                    return Some((Err(ReadError::Unavailable { reason }), Reading::Over));
                }
            },
            Reading::Over => return None,
        };
    }
}

fn record(stored: Stored) -> Record {
    Record {
        subject: stored.subject,
        sequence: stored.seq,
        at: stored.at,
        headers: stored.headers,
        body: stored.body,
    }
}
