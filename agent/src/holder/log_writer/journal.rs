//! Lines to the host's journal, in its native protocol: one datagram of `FIELD=value` lines for each.
//!
//! The text of a line has no newline in it and is at most 16 KiB, so the short form of the protocol serves. A journal
//! that hangs must not keep the writer from the files of other processes: it has a moment to take a line, and after a
//! failure it is not asked again for a while.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ostler_agent_core::holder::protocol::ProcKey;
use ostler_schemas::v1::log_line::{self, Line, Source};

use super::files::LogTarget;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// How long it may take to take one line: its queue is short, and it empties it in bursts.
const PATIENCE: Duration = Duration::from_millis(200);

/// How soon it is asked again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// `info`, as systemd gives to the output of services.
const PRIORITY: &str = "6";

/// The way to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    not_before: Option<Instant>,
}

impl Journal {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: None, not_before: None }
    }

    /// Sends lines. What was not sent is told by how many bytes were.
    pub(super) fn write(&mut self, target: &LogTarget, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if let Some(line) = log_line::parse(line) {
                self.send(&entry(target, &line)).map_err(|error| (done, error))?;
            }
            done += line.len();
        }
        Ok(())
    }

    fn send(&mut self, entry: &[u8]) -> io::Result<()> {
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Err(io::Error::other("the journal does not take lines"));
        }
        self.not_before = None;
        let result = self.try_send(entry);
        if result.is_err() {
            self.not_before = Some(Instant::now() + PAUSE);
            self.socket = None;
        }
        result
    }

    fn try_send(&mut self, entry: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket
            }
        };
        socket.send_to(entry, &self.path)?;
        self.socket = Some(socket);
        Ok(())
    }
}

fn entry(target: &LogTarget, line: &Line<'_>) -> Vec<u8> {
    let ProcKey { uid, incarnation } = target.key;
    let mut out = Vec::with_capacity(line.text.len() + 256);
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(b'\n');
    };
    field("MESSAGE", line.text);
    field("PRIORITY", PRIORITY.as_bytes());
    field("SYSLOG_IDENTIFIER", target.name.as_bytes());
    field("OSTLER_NAMESPACE", target.namespace.as_bytes());
    field("OSTLER_PROCESS", target.name.as_bytes());
    field("OSTLER_UID", uid.to_string().as_bytes());
    field("OSTLER_INCARNATION", incarnation.to_string().as_bytes());
    let stream = match line.source {
        Source::Process(stream) => stream.as_str(),
        Source::Host => "ostler",
    };
    field("OSTLER_STREAM", stream.as_bytes());
    if line.partial {
        field("OSTLER_PARTIAL", b"1");
    }
    out
}
