//! The holder's handles on one incarnation: its pidfd, its pipes, its log.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use ostler_agent_core::holder::lines::{LineCutter, Stream};
use ostler_agent_core::holder::protocol::{LogCounters, LogTo, ProcKey};
use ostler_schemas::v1::log_line::Stamp;

use super::child::{READY, RECORD};
use super::launch::Told;
use super::log_writer::{LogId, LogTarget, LogWriter, Room};
use super::poll::Source;
use super::proc_tree::Root;

/// Bytes taken at the end of a tree: more than both pipes hold, but not for ever if someone else still writes.
const LAST_MAX: usize = 4 << 20;

/// One incarnation.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) root: Root,
    /// Its number in the poll set and in the log writer.
    pub(super) slot: LogId,
    /// None when the main process was gone before this holder came.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) fifos: [PathBuf; 2],
    pub(super) stdout: Outlet,
    pub(super) stderr: Outlet,
    pub(super) target: Arc<LogTarget>,
    pub(super) counters: LogCounters,
    /// Until the child is the program.
    pub(super) start: Option<Start>,
    /// The main process was seen to end.
    pub(super) ended: bool,
}

/// A child on its way to be the program.
#[derive(Debug)]
pub(super) struct Start {
    /// Dropped when it was let go, or to end it.
    pub(super) go: Option<OwnedFd>,
    pub(super) report: File,
    pub(super) said: Vec<u8>,
    pub(super) told: Told,
}

/// What the child's pipe says so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StartNews {
    /// Nothing final.
    Wait,
    /// It is the program.
    Runs,
    /// It could not: the step and the errno.
    Failed(u8, i32),
    /// It was killed before.
    Died,
}

impl Start {
    /// Reads what the child said.
    pub(super) fn news(&mut self) -> StartNews {
        let mut buffer = [0u8; 64];
        loop {
            match self.report.read(&mut buffer) {
                Ok(0) => return judge(&self.said),
                Ok(n) => self.said.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return StartNews::Wait,
            }
        }
    }
}

fn judge(said: &[u8]) -> StartNews {
    let mut news = StartNews::Died;
    for record in said.chunks_exact(RECORD) {
        let [what, errno @ ..] = record else { continue };
        let errno = <[u8; 4]>::try_from(errno).map_or(0, i32::from_le_bytes);
        news = if *what == READY { StartNews::Runs } else { StartNews::Failed(*what, errno) };
    }
    news
}

/// The holder's end of one output.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) fifo: Option<File>,
    /// The process waits until its log has room.
    pub(super) waits: bool,
    stream: Stream,
    cutter: LineCutter,
}

impl Outlet {
    pub(super) fn new(fifo: Option<File>, stream: Stream) -> Self {
        Self { fifo, waits: false, stream, cutter: LineCutter::new(stream) }
    }

    /// An output whose last line had begun before.
    pub(super) fn going_on(fifo: Option<File>, stream: Stream, partial: &[u8]) -> Self {
        Self { fifo, waits: false, stream, cutter: LineCutter::going_on(stream, partial) }
    }

    /// The line that has not ended yet.
    pub(super) fn partial(&self) -> &[u8] {
        self.cutter.partial()
    }
}

impl Live {
    pub(super) fn key(&self) -> ProcKey {
        self.root.key
    }

    /// Its outputs, each with its source in the poll set.
    pub(super) fn outlets(&mut self) -> [(&mut Outlet, Source); 2] {
        let slot = self.slot;
        [&mut self.stdout, &mut self.stderr].map(|outlet| {
            let source = Source::Output(outlet.stream, slot);
            (outlet, source)
        })
    }

    /// Moves what waits in one output to the log, as much as the buffer takes. Returns how many bytes.
    pub(super) fn drain(
        &mut self,
        stream: Stream,
        buffer: &mut [u8],
        (stamp, logs): (&Stamp, &LogWriter),
    ) -> usize {
        let (outlet, to) = match stream {
            Stream::Stdout => (&mut self.stdout, self.target.stdout()),
            Stream::Stderr => (&mut self.stderr, self.target.stderr()),
        };
        let Some(fifo) = &mut outlet.fifo else { return 0 };
        // Nothing to read, or an interruption: the poll set calls again.
        let Ok(n) = fifo.read(buffer) else { return 0 };
        self.counters.bytes += n as u64;
        if to == LogTo::Null {
            return n;
        }
        let mut lines = Vec::with_capacity(n + n / 2);
        let count = outlet.cutter.push(stamp, buffer.get(..n).unwrap_or_default(), &mut lines);
        self.counters.lines += count;
        if stream == Stream::Stderr {
            self.counters.errors += count;
        }
        if count > 0 {
            outlet.waits = logs.append(self.slot, &self.target, &lines, count) == Room::Full;
        }
        n
    }

    /// Moves everything that waits in both outputs.
    pub(super) fn drain_all(&mut self, buffer: &mut [u8], (stamp, logs): (&Stamp, &LogWriter)) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut total = 0;
            while total < LAST_MAX {
                match self.drain(stream, buffer, (stamp, logs)) {
                    0 => break,
                    n => total += n,
                }
            }
        }
    }

    /// The outputs have ended: their last lines too.
    pub(super) fn finish(&mut self, stamp: &Stamp, logs: &LogWriter) {
        let mut lines = Vec::new();
        let count =
            self.stdout.cutter.finish(stamp, &mut lines) + self.stderr.cutter.finish(stamp, &mut lines);
        if count > 0 {
            // Nothing is drained any more: the last lines wait here, however many there are.
            let _: Room = logs.append(self.slot, &self.target, &lines, count);
        }
        logs.finish(self.slot, &self.target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_pipe_means_what_was_said_last() {
        assert_eq!(judge(&[]), StartNews::Died);
        assert_eq!(judge(&[READY, 0, 0, 0, 0]), StartNews::Runs);
        assert_eq!(judge(&[9, 2, 0, 0, 0]), StartNews::Failed(9, 2));
        assert_eq!(judge(&[READY, 0, 0, 0, 0, 10, 13, 0, 0, 0]), StartNews::Failed(10, 13));
    }
}
