//! Logs of simulated processes: in memory, never rotated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ostler_agent_core::holder::lines::about::Window;
use ostler_agent_core::holder::lines::filter::LineFilter;
use ostler_schemas::{Name, Namespace};

use crate::context::lock;
use crate::ports::{LogPiece, LogQuery, LogReader};

/// All logs of a host.
pub(super) type Logs = Arc<Mutex<BTreeMap<(Namespace, Name), Vec<u8>>>>;

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
