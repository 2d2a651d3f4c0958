//! Answers that last: watches, logs, followed events.
//!
//! The bus does not tell whether anybody still listens to an answer that crosses accounts. So a caller may attend its
//! stream: its request bears a transaction id in header `Ostler-Txn`, and it sends an empty message to
//! `api.<caller>.relay.<id>`, with the number of messages that it has read in header `Ostler-Seq`, at least every [`ATTENDED_MS`]; one with header `Ostler-End` ends the stream at once. All
//! replicas hear these; the one that holds the stream heeds them. A stream that nobody attends lasts as long as the
//! limits say. Beyond a caller's share its oldest stream ends, so that what is left over from before never keeps it
//! from what it wants now.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ostler_bus::ClockRef;
use ostler_bus::topic::Message;
use ostler_controller_core::admission::unavailable;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::api::ApiError;
use ostler_schemas::{Name, TxnId, headers};
use tokio::sync::{Notify, watch};

/// An attended stream that was not heard of for so long has lost its caller: three renewals of 5 s.
const ATTENDED_MS: u64 = 15_000;
/// How often a stream is looked at.
const LOOK_MS: u64 = 2_500;

struct Open {
    serial: u64,
    attended: Option<TxnId>,
    heard: Mono,
    /// How many messages the caller has read.
    read: watch::Sender<u64>,
    end: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    next: u64,
    by_caller: BTreeMap<Name, VecDeque<Open>>,
}

/// The streams of this replica.
#[derive(Default)]
pub(super) struct Streams(Mutex<Table>);

/// A stream that is open until this is dropped.
pub(super) struct Stream<'a> {
    streams: &'a Streams,
    caller: Name,
    serial: u64,
    begun: Mono,
    end: Arc<Notify>,
}

impl Streams {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream; beyond `share` the caller's oldest one is ended.
    pub(super) fn open(&self, caller: &Name, message: &Message, share: usize, now: Mono) -> Stream<'_> {
        let attended = message.headers.get(headers::TXN).and_then(|text| text.parse().ok());
        let end = Arc::new(Notify::new());
        let mut table = self.table();
        table.next += 1;
        let serial = table.next;
        let open = table.by_caller.entry(caller.clone()).or_default();
        let read = watch::Sender::new(0);
        open.push_back(Open { serial, attended, heard: now, read, end: Arc::clone(&end) });
        if open.len() > share
            && let Some(oldest) = open.pop_front()
        {
            oldest.end.notify_one();
        }
        Stream { streams: self, caller: caller.clone(), serial, begun: now, end }
    }

    /// How far the caller of a stream has read it; none if it does not attend it.
    pub(super) fn reading(&self, caller: &Name, message: &Message) -> Option<watch::Receiver<u64>> {
        let id = message.headers.get(headers::TXN)?.parse::<TxnId>().ok()?;
        let table = self.table();
        let open = table.by_caller.get(caller)?.iter().rev().find(|o| o.attended == Some(id))?;
        Some(open.read.subscribe())
    }

    /// A caller attends a stream of its own, or ends it.
    pub(super) fn attend(&self, caller: &Name, id: &str, message: &Message, now: Mono) {
        let Ok(id) = id.parse::<TxnId>() else { return };
        let mut table = self.table();
        let mine = table.by_caller.get_mut(caller).into_iter().flatten();
        for open in mine.filter(|o| o.attended == Some(id)) {
            open.heard = now;
            let read = message.headers.get(headers::SEQ).and_then(|text| text.parse::<u64>().ok());
            open.read.send_if_modified(|known| match read.filter(|read| *read > *known) {
                Some(read) => {
                    *known = read;
                    true
                }
                None => false,
            });
            if message.headers.get(headers::END).is_some() {
                open.end.notify_one();
            }
        }
    }
}

impl Stream<'_> {
    fn heard(&self) -> Option<Mono> {
        let table = self.streams.table();
        let open = table.by_caller.get(&self.caller)?.iter().find(|o| o.serial == self.serial)?;
        open.attended.map(|_| open.heard)
    }

    /// Done when the stream should end for another reason than its own; says why.
    pub(super) async fn over(&self, clock: &ClockRef, lasts_ms: u64) -> ApiError {
        loop {
            tokio::select! {
                biased;
                () = self.end.notified() => {
                    return unavailable("ended: its caller ended it, or opened more streams than are its share");
                }
                () = clock.sleep_ms(LOOK_MS) => {}
            }
            let now = clock.mono();
            if self.heard().is_some_and(|at| now.since_ms(at) >= ATTENDED_MS) {
                return unavailable("ended: its caller was not heard of any more");
            }
            if self.heard().is_none() && now.since_ms(self.begun) >= lasts_ms {
                return unavailable(format!("ended: it has lasted {}s; begin another", lasts_ms / 1_000));
            }
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        let mut table = self.streams.table();
        if let Some(open) = table.by_caller.get_mut(&self.caller) {
            open.retain(|o| o.serial != self.serial);
            if open.is_empty() {
                table.by_caller.remove(&self.caller);
            }
        }
    }
}
