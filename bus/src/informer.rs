//! One informer of one bucket: everything that is stored, then every change, for as long as its receiver lives.
//!
//! It reads the bucket's state, begins a watch, and turns what it yields into [`InformerEvent`]s in a bounded channel:
//! a slow receiver slows the watch, nothing is dropped. When the watch ends, falls silent (no event, no heartbeat for
//! [`SILENCE_MS`], by its own clock: a watch may hang without an error, NATS.md trap T2) or stays behind the bucket, it
//! begins another after the last revision, with exponential backoff. From time to time, and after a long absence, it
//! reads everything again and tells what has vanished.
//!
//! Guarantees: entries come in the order of revisions, each at most once; writes of one transaction come in one
//! [`InformerEvent::Changes`] while the watch is live (those that were overwritten meanwhile are missing from it); a
//! bucket that has become another one (created anew, emptied, gone, or with a smaller last revision) is told by
//! [`InformerEvent::Reset`] before anything of the new one. Between a `Changes` and the next [`InformerEvent::Synced`]
//! after a `Lost` the picture may mix old and new revisions of different keys.
//!
//! [`tracker`] is the state machine, pure; this module is its IO.

pub mod tracker;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_schemas::time::Mono;
use ostler_schemas::{Bucket, Key, Revision};
use tokio::sync::mpsc;

use self::tracker::Tracker;
use crate::clock::ClockRef;
use crate::entropy::EntropyRef;
use crate::store::{BucketInfo, Entry, Read, ReadError, StoreRef, WatchError, WatchEvent};

/// What an informer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InformerEvent {
    /// Drop everything of this bucket: it has become another one.
    Reset {
        /// How that shows.
        reason: String,
    },
    /// Writes, deletions among them.
    Changes {
        /// In the order of revisions. May be empty: then only the revision counts.
        entries: Vec<Entry>,
        /// Everything up to here has been told.
        revision: Revision,
    },
    /// Keys that are no longer stored, without a trace: their next write is guarded on absence.
    Vanished {
        /// The keys.
        keys: Vec<Key>,
    },
    /// Everything stored has been told.
    Synced,
    /// The watch is lost; another one begins. Until the next `Synced` things may be missing.
    Lost {
        /// Why.
        reason: String,
    },
}

/// No event and no heartbeat (every 5 s) for this long: the watch is dead.
pub const SILENCE_MS: u64 = 10_000;
/// How often the bucket's state is compared with what has been seen.
const CHECK_MS: u64 = 10_000;
/// The first pause before another watch.
const BACKOFF_MIN_MS: u64 = 200;
/// The longest one.
const BACKOFF_MAX_MS: u64 = 15_000;
/// Everything is read again this often, give or take a quarter: against whatever a watch may have missed.
const RELIST_MS: u64 = 30 * 60_000;
/// After so long away deletions may have left no trace: markers are kept for 24 h.
const AWAY_MS: u64 = 12 * 3_600_000;
/// So many keys are compared before a watch resumes. A store that was rolled back and written to again shows that only
/// by its keys: some of the newest are rewritten all the time, so one would not do.
const COMPARED: usize = 24;
/// Events that wait for the receiver: enough to keep both sides busy.
const CHANNEL: usize = 64;

/// Starts an informer. It ends with its receiver.
#[must_use]
pub fn spawn(
    store: StoreRef,
    clock: ClockRef,
    entropy: EntropyRef,
    bucket: Bucket,
) -> mpsc::Receiver<InformerEvent> {
    let (events, receiver) = mpsc::channel(CHANNEL);
    let informer = Informer {
        store,
        clock,
        entropy,
        bucket,
        events,
        tracker: Tracker::new(),
        failures: 0,
        heard: Mono::default(),
    };
    tokio::spawn(informer.run());
    receiver
}

struct Informer {
    store: StoreRef,
    clock: ClockRef,
    entropy: EntropyRef,
    bucket: Bucket,
    events: mpsc::Sender<InformerEvent>,
    tracker: Tracker,
    /// Failures since the last success, for the backoff.
    failures: u32,
    /// When a watch last yielded something.
    heard: Mono,
}

/// The receiver is gone.
struct Closed;

/// How a watch ended.
enum End {
    /// Something is wrong with it.
    Lost(String),
    /// It is time to read everything again.
    Relist,
}

/// A watch and what is asked beside it.
struct Pump {
    watch: BoxStream<'static, Result<WatchEvent, WatchError>>,
    heard: Mono,
    check_at: Mono,
    check: Option<BoxFuture<'static, Result<BucketInfo, ReadError>>>,
    relist_at: Mono,
}

enum Happened {
    Closed,
    Event(Option<Result<WatchEvent, WatchError>>),
    Checked(Result<BucketInfo, ReadError>),
    CheckDue,
    Silent,
}

impl Informer {
    async fn run(mut self) {
        self.heard = self.clock.mono();
        let mut relist_at = Mono::default();
        loop {
            let now = self.clock.mono();
            let whole = now >= relist_at || now.since_ms(self.heard) >= AWAY_MS;
            let end = match self.watch(whole, &mut relist_at).await {
                Ok(end) => end,
                Err(Closed) => return,
            };
            match end {
                End::Relist => {}
                End::Lost(reason) => {
                    if self.tell(vec![InformerEvent::Lost { reason }]).await.is_err()
                        || self.pause().await.is_err()
                    {
                        return;
                    }
                }
            }
        }
    }

    async fn tell(&self, events: Vec<InformerEvent>) -> Result<(), Closed> {
        for event in events {
            self.events.send(event).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), Closed> {
        let ms = (BACKOFF_MIN_MS << self.failures.min(10)).min(BACKOFF_MAX_MS);
        self.failures += 1;
        let sleep = self.clock.sleep_ms(ms + self.entropy.below(ms / 2));
        tokio::select! {
            biased;
            () = self.events.closed() => Err(Closed),
            () = sleep => Ok(()),
        }
    }

    /// One watch, from its beginning to its end.
    async fn watch(&mut self, whole: bool, relist_at: &mut Mono) -> Result<End, Closed> {
        let info = match self.store.info(self.bucket).await {
            Ok(info) => info,
            Err(error) => {
                if matches!(error, ReadError::Missing { .. }) {
                    let events = self.tracker.gone();
                    self.tell(events).await?;
                }
                return Ok(End::Lost(error.to_string()));
            }
        };
        let events = self.tracker.begin(&info);
        self.tell(events).await?;
        match self.is_rolled_back(whole).await {
            Ok(false) => {}
            Ok(true) => {
                let events = self.tracker.rolled_back(&info);
                self.tell(events).await?;
            }
            Err(error) => return Ok(End::Lost(error.to_string())),
        }
        let from = self.tracker.from(whole);
        let now = self.clock.mono();
        let mut pump = Pump {
            watch: self.store.watch(self.bucket, from),
            heard: now,
            check_at: now.plus_ms(CHECK_MS),
            check: None,
            relist_at: if self.tracker.is_listing() { now.plus_ms(self.relist_in()) } else { *relist_at },
        };
        *relist_at = Mono::default();
        let end = self.pump(&mut pump).await?;
        if !self.tracker.is_listing() {
            *relist_at = pump.relist_at;
        }
        Ok(end)
    }

    /// Whether the bucket holds an older write of some key than was told: revisions of a key never go down but with the
    /// store. The last revision alone hides it once the store has been written to again.
    async fn is_rolled_back(&self, whole: bool) -> Result<bool, ReadError> {
        if whole {
            // Everything is read in any case.
            return Ok(false);
        }
        for (key, told) in self.tracker.newest(COMPARED) {
            let found = self.store.get(&key, Read::Leader).await?;
            if found.is_some_and(|entry| entry.revision < told) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn relist_in(&self) -> u64 {
        RELIST_MS - RELIST_MS / 4 + self.entropy.below(RELIST_MS / 2)
    }

    async fn pump(&mut self, pump: &mut Pump) -> Result<End, Closed> {
        loop {
            match self.next(pump).await {
                Happened::Closed => return Err(Closed),
                Happened::Silent => return Ok(End::Lost("the watch is silent".to_owned())),
                Happened::Event(None) => return Ok(End::Lost("the watch ended".to_owned())),
                Happened::Event(Some(Err(error))) => return Ok(End::Lost(error.reason)),
                Happened::Event(Some(Ok(event))) => {
                    if event == WatchEvent::Synced {
                        self.failures = 0;
                    }
                    let events = self.tracker.take(event);
                    self.tell(events).await?;
                    // Measured after telling: a slow receiver is not a silent watch.
                    pump.heard = self.clock.mono();
                    self.heard = pump.heard;
                }
                Happened::CheckDue => {
                    self.tracker.asked();
                    let (store, bucket) = (self.store.clone(), self.bucket);
                    pump.check = Some(Box::pin(async move { store.info(bucket).await }));
                }
                Happened::Checked(answer) => {
                    pump.check = None;
                    pump.check_at = self.clock.mono().plus_ms(CHECK_MS);
                    // An unanswered check says nothing about the watch.
                    if let Some(why) = answer.ok().and_then(|info| self.tracker.check(&info)) {
                        return Ok(End::Lost(why));
                    }
                }
            }
            if self.clock.mono() >= pump.relist_at && !self.tracker.is_listing() {
                return Ok(End::Relist);
            }
        }
    }

    async fn next(&self, pump: &mut Pump) -> Happened {
        let silence = self.clock.sleep_until(pump.heard.plus_ms(SILENCE_MS));
        let (check_at, check) = (pump.check_at, &mut pump.check);
        let checked = async {
            match check {
                Some(check) => Happened::Checked(check.await),
                None => {
                    self.clock.sleep_until(check_at).await;
                    Happened::CheckDue
                }
            }
        };
        tokio::select! {
            biased;
            () = self.events.closed() => Happened::Closed,
            event = pump.watch.next() => Happened::Event(event),
            happened = checked => happened,
            () = silence => Happened::Silent,
        }
    }
}

#[cfg(test)]
mod tests;
