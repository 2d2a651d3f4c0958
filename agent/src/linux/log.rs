//! Reads the log files that the holder writes: `current.log`, and `current.log.1` and on for what was rotated away.
//!
//! A reader keeps the file that it reads open, so rotation never takes it away. When rotation has overtaken it, because
//! whoever reads is slower than the process writes, the reader goes on with the oldest file that is left, and says how
//! many bytes it missed. It never reads ahead of whoever asks it. What is no line of a log is passed on as it is.

pub(super) mod ship;
mod start;
pub(super) mod sweep;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ostler_agent_core::holder::lines::about::{About, Window};
use ostler_agent_core::holder::lines::filter::LineFilter;
use ostler_schemas::v1::log_line::{Note, Source, parse};

use super::ledger::blocking;
use crate::ports::{LogPiece, LogQuery, LogReader};

/// Bytes read at once.
const READ: usize = 256 << 10;
/// Bytes looked at for one piece: a filter that wants little must not keep its thread for long.
const LOOK: u64 = 8 << 20;
/// What lies beside a log is never longer.
const ABOUT_MAX: u64 = 64 << 10;
/// Rotated files that are looked for.
const ROTATED_MAX: usize = 1_000;

/// The log of one process.
#[derive(Debug, Clone)]
pub struct ProcessLog {
    current: PathBuf,
}

impl ProcessLog {
    /// Below `dir`, as the holder lays them out.
    #[must_use]
    pub fn new(dir: &Path, namespace: &str, name: &str) -> Self {
        Self { current: dir.join(namespace).join(name).join("current.log") }
    }

    /// What is written down beside it.
    #[must_use]
    pub fn about(&self) -> About {
        let mut bytes = Vec::new();
        let file = File::open(self.current.with_file_name("about"));
        // Without it everything is one stretch.
        file.and_then(|file| file.take(ABOUT_MAX).read_to_end(&mut bytes)).ok();
        About::parse(&bytes)
    }

    /// A reader that stands before the first line that is wanted.
    ///
    /// # Errors
    /// If a file is there and cannot be read, or if there is no previous incarnation.
    pub fn open(&self, query: &LogQuery) -> io::Result<LogFollower> {
        let about = self.about();
        let us = |at: ostler_schemas::time::Timestamp| at.0.saturating_mul(1_000);
        let asked = Window {
            from_us: query.filter.since.map_or(0, us),
            to_us: query.filter.until.map_or(u64::MAX, us),
        };
        let uid = query.uid.or_else(|| about.beginnings.last().map(|b| b.uid));
        let whose = match (query.filter.previous, uid) {
            (false, Some(uid)) => about.of(uid),
            (false, None) => Window::ALL,
            (true, uid) => uid.and_then(|uid| about.previous(uid)).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "it has no incarnation before the present one")
            })?,
        };
        let filter = LineFilter::new(asked.within(whose), query.filter.stream);
        let open = match query.tail {
            Some(lines) => start::last_lines(&self.files(), &filter, lines)?,
            None => start::not_before(&self.files(), &filter)?,
        };
        Ok(LogFollower { log: self.clone(), filter, open })
    }

    /// The newest first.
    fn files(&self) -> Vec<PathBuf> {
        let rotated = (1..=ROTATED_MAX).map(|n| {
            let mut path = self.current.clone().into_os_string();
            path.push(format!(".{n}"));
            PathBuf::from(path)
        });
        std::iter::once(self.current.clone()).chain(rotated.take_while(|path| path.exists())).collect()
    }
}

/// A place in a file.
#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    offset: u64,
    /// Bytes of all files up to the end of this one, as its first line says.
    before: Option<u64>,
}

impl Open {
    fn at(path: &Path, offset: u64) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        let mut first = [0; 128];
        let n = file.read_at(&mut first, 0)?;
        let line = first.get(..n).unwrap_or_default().split(|b| *b == b'\n').next().unwrap_or_default();
        let before = match parse(line).filter(|line| line.source == Source::Host) {
            Some(line) => match Note::parse(line.text) {
                Note::Part { after, .. } => Some(after),
                Note::Begins { .. } | Note::Lost { .. } | Note::Overtaken { .. } | Note::Other(_) => None,
            },
            None => None,
        };
        Ok(Some(Self { file, inode, offset, before }))
    }

    /// The next bytes that are whole lines; none at the end, or before a line that is being written.
    fn read(&mut self, is_last: bool) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; READ];
        let n = self.file.read_at(&mut bytes, self.offset)?;
        bytes.truncate(n);
        let whole = memchr::memrchr(b'\n', &bytes).map(|at| at + 1);
        // No line is so long, and none goes on in another file.
        let whole = whole.unwrap_or(if n == READ || !is_last { n } else { 0 });
        bytes.truncate(whole);
        self.offset += whole as u64;
        Ok(bytes)
    }
}

/// Reads one log from a place on.
#[derive(Debug)]
pub struct LogFollower {
    log: ProcessLog,
    filter: LineFilter,
    /// None before there is any file.
    open: Option<Open>,
}

impl LogFollower {
    /// The next lines that are wanted.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn next_piece(&mut self) -> io::Result<LogPiece> {
        let mut out = Vec::new();
        let mut looked = 0;
        while out.is_empty() && looked < LOOK {
            if self.open.is_none() {
                self.open = self.oldest()?;
            }
            let Some(open) = &mut self.open else { return Ok(self.end_for_now(out)) };
            // Looked at before the read: what is appended after it is found by the next one.
            let is_last = inode(&self.log.current) == Some(open.inode);
            let bytes = open.read(is_last)?;
            looked += bytes.len() as u64;
            if bytes.is_empty() {
                if is_last || !self.go_on(&mut out)? {
                    return Ok(self.end_for_now(out));
                }
                continue;
            }
            for line in bytes.split_inclusive(|b| *b == b'\n') {
                if self.filter.wants(line) {
                    out.extend_from_slice(line);
                }
            }
        }
        Ok(LogPiece { bytes: Bytes::from(out), at_end: false, over: false })
    }

    fn end_for_now(&self, out: Vec<u8>) -> LogPiece {
        let at_end = out.is_empty();
        LogPiece { bytes: Bytes::from(out), at_end, over: at_end && unix_us() >= self.filter.window().to_us }
    }

    fn oldest(&self) -> io::Result<Option<Open>> {
        for path in self.log.files().iter().rev() {
            if let Some(open) = Open::at(path, 0)? {
                return Ok(Some(open));
            }
        }
        Ok(None)
    }

    /// This file is read to its end, and is not the newest: the one after it. Whether there is one.
    fn go_on(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(old) = &self.open else { return Ok(false) };
        let files = self.log.files();
        let place = files.iter().position(|path| inode(path) == Some(old.inode));
        let next = match place {
            Some(place) => match place.checked_sub(1).and_then(|newer| files.get(newer)) {
                Some(path) => Open::at(path, 0)?,
                None => None,
            },
            None => self.oldest()?,
        };
        // Between two renames there may be none: it is there at the next look.
        let Some(next) = next else { return Ok(false) };
        let missed = match (old.before, next.before) {
            (Some(before), Some(after)) => Some(after.saturating_sub(before.saturating_add(old.offset))),
            (_, _) => None,
        };
        // The file after a file that is still there has nothing between.
        if place.is_none() && missed != Some(0) {
            out.extend_from_slice(&Note::Overtaken { bytes: missed }.line(unix_us()));
        }
        self.open = Some(next);
        Ok(true)
    }
}

impl LogReader for Option<LogFollower> {
    fn next(&mut self) -> BoxFuture<'_, Result<LogPiece, String>> {
        let reader = self.take();
        async move {
            let mut reader = reader.ok_or("the log was given up")?;
            let (back, piece) = blocking(move || {
                let piece = reader.next_piece();
                Ok((reader, piece))
            })
            .await?;
            *self = Some(back);
            piece.map_err(|error| format!("the log cannot be read: {error}"))
        }
        .boxed()
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
