//! Logs of simulated processes: in memory, never rotated. How far they are shipped survives the agent, like the logs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ostler_agent_core::holder::lines::about::Window;
use ostler_agent_core::holder::lines::filter::LineFilter;
use ostler_bus::layout::LOG_BYTES_MAX;
use ostler_schemas::v1::stretch::Stretch;
use ostler_schemas::{Name, Namespace, Uid};

use crate::context::lock;
use crate::ports::{LogName, LogPiece, LogQuery, LogReader, LogShipper, Parcel};

/// All logs of a host.
pub(super) type Logs = Arc<Mutex<BTreeMap<(Namespace, Name), Vec<u8>>>>;

/// How far one is shipped: whose it is, what is stored, and to where a parcel was begun; nothing once it is finished.
pub(super) type Marks = Arc<Mutex<BTreeMap<LogName, (Uid, usize, usize)>>>;

struct Shipper {
    logs: Logs,
    marks: Marks,
    key: LogName,
}

/// From where it was left off.
pub(super) fn ship((logs, marks): (&Logs, &Marks), key: LogName, uid: Uid) -> Box<dyn LogShipper> {
    lock(marks).entry(key.clone()).or_insert((uid, 0, 0));
    Box::new(Shipper { logs: Arc::clone(logs), marks: Arc::clone(marks), key })
}

impl Shipper {
    fn parcel(&mut self) -> Option<Parcel> {
        let (logs, mut marks) = (lock(&self.logs), lock(&self.marks));
        let (uid, stored, begun) = marks.get_mut(&self.key)?;
        let log = logs.get(&self.key)?;
        if *begun == *stored {
            *begun = log.len().min(*stored + LOG_BYTES_MAX);
        }
        let bytes = log.get(*stored..*begun).filter(|bytes| !bytes.is_empty())?;
        let stretch = Stretch { uid: *uid, era: 1, from: *stored as u64, to: *begun as u64 };
        Some(Parcel { bytes: Bytes::copy_from_slice(bytes), stretch })
    }
}

impl LogShipper for Shipper {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Parcel>, String>> {
        std::future::ready(Ok(self.parcel())).boxed()
    }

    fn stored(&mut self) {
        if let Some((_, stored, begun)) = lock(&self.marks).get_mut(&self.key) {
            *stored = *begun;
        }
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>> {
        lock(&self.marks).remove(&self.key);
        std::future::ready(Ok(())).boxed()
    }
}

struct Reader {
    logs: Logs,
    key: (Namespace, Name),
    offset: usize,
    filter: LineFilter,
}

/// Before the first line that is wanted.
pub(super) fn open(logs: &Logs, key: (Namespace, Name), query: &LogQuery) -> Box<dyn LogReader> {
    let us = |at: ostler_schemas::time::Timestamp| at.0.saturating_mul(1_000);
    let window =
        Window { from_us: query.filter.since.map_or(0, us), to_us: query.filter.until.map_or(u64::MAX, us) };
    let filter = LineFilter::new(window, query.filter.stream);
    let mut offset = 0;
    if let (Some(log), Some(wanted)) = (lock(logs).get(&key), query.tail) {
        let lines: Vec<&[u8]> = log.split_inclusive(|b| *b == b'\n').collect();
        let mut count = 0;
        let keep = lines.iter().rev().take_while(|line| {
            count += u64::from(filter.counts(line));
            count <= wanted
        });
        offset = log.len() - keep.map(|line| line.len()).sum::<usize>();
    }
    Box::new(Reader { logs: Arc::clone(logs), key, offset, filter })
}

impl Reader {
    fn read(&mut self) -> LogPiece {
        let logs = lock(&self.logs);
        let log = logs.get(&self.key).map(Vec::as_slice).unwrap_or_default();
        let new = log.get(self.offset..).unwrap_or_default();
        let wanted: Vec<&[u8]> =
            new.split_inclusive(|b| *b == b'\n').filter(|line| self.filter.wants(line)).collect();
        self.offset = log.len();
        LogPiece { bytes: Bytes::from(wanted.concat()), at_end: new.is_empty(), over: false }
    }
}

impl LogReader for Reader {
    fn next(&mut self) -> BoxFuture<'_, Result<LogPiece, String>> {
        std::future::ready(Ok(self.read())).boxed()
    }
}
