//! The output of one process on its way to the bus: cut into parcels, and how far it is.
//!
//! Guarantees: lines are taken in the order of the log, each once for as long as the files are there; a parcel that was
//! begun has the same bounds whenever it is made again, so that readers can tell; what rotation took before it was
//! stored is counted and said in the next parcel. At most one parcel's bytes are in memory while it is made, none in
//! between, and no file is open while there is nothing to do.
//!
//! How far it is lies beside the log, in `shipped`: `UID ERA STORED BEGUN STATE`, in place and of fixed length. It is
//! not synced: after a crash of the host an older one costs parcels that come again. Files of older holders, which do not
//! say how many bytes were before them, are passed over.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ostler_agent_core::holder::lines::about::About;
use ostler_bus::layout::LOG_BYTES_MAX;
use ostler_schemas::Uid;
use ostler_schemas::v1::log_line::{Note, Source, parse};
use ostler_schemas::v1::stretch::Stretch;

use super::{Open, ProcessLog, inode, sweep, unix_us};
use crate::linux::ledger::blocking;
use crate::ports::{LogName, LogShipper, Parcel};

/// The record has this length, so that writing it anew never leaves the end of a longer one.
const RECORD: usize = 128;
/// Room for the note on what was overtaken, in the first parcel after it.
const NOTE_ROOM: usize = 256;

/// How far a log is shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Whose the last output was.
    uid: Uid,
    era: u64,
    /// Everything before is stored.
    stored: u64,
    /// The end of a parcel that may be stored, or the same.
    begun: u64,
    finished: bool,
}

impl Mark {
    fn record(&self) -> Vec<u8> {
        let state = if self.finished { "done" } else { "open" };
        let text = format!("{} {} {} {} {state}", self.uid, self.era, self.stored, self.begun);
        let mut record = vec![b' '; RECORD];
        for (place, byte) in record.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        record
    }

    fn parse(record: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(record).ok()?;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [uid, era, stored, begun, state] = words.as_slice() else { return None };
        let number = |word: &str| word.parse::<u64>().ok();
        let (stored, begun) = (number(stored)?, number(begun)?);
        let mark =
            Self { uid: uid.parse().ok()?, era: number(era)?, stored, begun, finished: *state == "done" };
        (stored <= begun).then_some(mark)
    }

    fn read(path: &Path) -> Option<Self> {
        let mut record = [0; RECORD];
        let n = File::open(path).and_then(|file| file.read_at(&mut record, 0)).ok()?;
        Self::parse(record.get(..n)?)
    }
}

/// How a file looks from outside. Numbers of inodes come again with rotation, and so may lengths: files that hold nothing
/// but their first line are told apart by when that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Looks {
    fn of(meta: &fs::Metadata) -> Self {
        Self { inode: meta.ino(), len: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// One log.
#[derive(Debug)]
pub(crate) struct Shipper {
    log: ProcessLog,
    path: PathBuf,
    mark: Mark,
    open: Option<Open>,
    /// The growing file when everything in it had been stored.
    quiet: Option<Looks>,
    /// The parcel that may be on its way.
    begun: Option<Stretch>,
}

/// Logs below `dir` whose shipping was not finished.
pub(crate) fn unfinished(dir: &Path) -> Vec<(LogName, Uid)> {
    let begun = |(namespace, name): (String, String)| {
        let mark = Mark::read(&dir.join(&namespace).join(&name).join("shipped"))?;
        let log = (namespace.parse().ok()?, name.parse().ok()?);
        (!mark.finished).then_some((log, mark.uid))
    };
    sweep::names(dir).into_iter().filter_map(begun).collect()
}

impl Shipper {
    /// From where it was left off; a log that was never shipped from the oldest that is kept.
    pub(crate) fn open(log: ProcessLog, uid: Uid) -> Self {
        let path = log.current.with_file_name("shipped");
        let fresh = Mark { uid, era: unix_us(), stored: 0, begun: 0, finished: false };
        let mark = Mark::read(&path).unwrap_or(fresh);
        Self { log, path, mark: Mark { finished: false, ..mark }, open: None, quiet: None, begun: None }
    }

    /// A disk that is full must not keep from being shipped what is on it: then this is remembered here only.
    fn note_down(&self) {
        if let Err(error) = self.save() {
            tracing::debug!(path = %self.path.display(), %error, "how far a log is shipped was not written down");
        }
    }

    fn save(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o640).open(&self.path)?;
        file.write_all_at(&self.mark.record(), 0)
    }

    /// The next parcel.
    pub(crate) fn parcel(&mut self) -> io::Result<Option<Parcel>> {
        if self.begun.take().is_some() {
            // It was not stored: from its beginning again.
            self.open = None;
        }
        let parcel = self.make()?;
        self.begun = parcel.as_ref().map(|p| p.stretch);
        Ok(parcel)
    }

    fn make(&mut self) -> io::Result<Option<Parcel>> {
        let current = fs::metadata(&self.log.current).ok().map(|meta| Looks::of(&meta));
        if current.is_none() || current == self.quiet {
            return Ok(None);
        }
        let (from, mut note) = (self.mark.stored, Vec::new());
        let mut at = from;
        loop {
            if self.open.is_none() && !self.find(&mut at, &mut note)? {
                break;
            }
            let Some(open) = &mut self.open else { break };
            let is_last = inode(&self.log.current) == Some(open.inode);
            // What was begun before is cut where it was cut then.
            let begun = self.mark.begun.checked_sub(at).filter(|left| *left > 0);
            let room = LOG_BYTES_MAX - NOTE_ROOM;
            let room = begun.and_then(|left| usize::try_from(left).ok()).map_or(room, |left| left.min(room));
            let bytes = read(open, room, is_last)?;
            if bytes.is_empty() {
                let file = open.inode;
                self.open = None;
                if is_last
                    || !self.find(&mut at, &mut note)?
                    || self.open.as_ref().map(|o| o.inode) == Some(file)
                {
                    break;
                }
                continue;
            }
            let cut = cut(&bytes, &self.log.about(), self.mark.uid);
            at += cut.taken as u64;
            open.offset += cut.taken as u64;
            if cut.lines.is_empty() && note.is_empty() {
                continue;
            }
            // The file is where the next parcel begins once this one is stored.
            let stretch = Stretch { uid: cut.uid, era: self.mark.era, from: from.min(at), to: at };
            note.extend_from_slice(&cut.lines);
            self.mark.begun = self.mark.begun.max(at);
            self.note_down();
            return Ok(Some(Parcel { bytes: Bytes::from(note), stretch }));
        }
        self.open = None;
        self.quiet = current;
        if at > self.mark.stored {
            // Nothing but what is of use to readers of files only.
            (self.mark.stored, self.mark.begun) = (at, at.max(self.mark.begun));
        }
        Ok(None)
    }

    /// Opens the file that has position `at`. When it is gone, the oldest that is left, with a note; when there never
    /// was such a position, because somebody took the files away, all that is there begins another era.
    fn find(&mut self, at: &mut u64, note: &mut Vec<u8>) -> io::Result<bool> {
        let mut known = Vec::new();
        for path in self.log.files() {
            if let Some(open) = Open::at(&path, 0)?
                && let Some(before) = open.before
            {
                known.push((before, open));
            }
        }
        let is_new = self.mark.stored == 0 && self.mark.begun == 0;
        let Some(oldest) = known.last().map(|(before, _)| *before) else { return Ok(false) };
        let Some((before, newest)) = known.first() else { return Ok(false) };
        let end = before + newest.file.metadata()?.len();
        if *at > end {
            self.mark = Mark { era: unix_us().max(self.mark.era + 1), stored: 0, begun: 0, ..self.mark };
            *at = oldest;
        } else if *at < oldest {
            if !is_new {
                note.extend_from_slice(&Note::Overtaken { bytes: Some(oldest - *at) }.line(unix_us()));
            }
            *at = oldest;
            self.mark.begun = self.mark.begun.max(oldest);
        }
        let Some((before, mut open)) = known.into_iter().find(|(before, _)| before <= at) else {
            return Ok(false);
        };
        open.offset = *at - before;
        self.open = Some(open);
        Ok(true)
    }

    fn has_stored(&mut self) {
        if let Some(Stretch { uid, to, .. }) = self.begun.take() {
            // What was begun may reach further: when rotation took the beginning of it, that is told in a parcel before.
            self.mark = Mark { uid, stored: to, begun: self.mark.begun.max(to), ..self.mark };
        }
    }

    fn has_finished(&mut self) -> io::Result<()> {
        self.mark.finished = true;
        match self.save() {
            // The log went with its process, and what is written down with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Whole lines at the place where a file is open, at most `room` bytes; a longer line is cut.
fn read(open: &Open, room: usize, is_last: bool) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; room];
    let n = open.file.read_at(&mut bytes, open.offset)?;
    bytes.truncate(n);
    let whole = memchr::memrchr(b'\n', &bytes).map(|at| at + 1);
    bytes.truncate(whole.unwrap_or(if n == room || !is_last { n } else { 0 }));
    Ok(bytes)
}

/// Lines of one process from the beginning of some bytes.
struct Cut {
    lines: Vec<u8>,
    uid: Uid,
    taken: usize,
}

fn cut(bytes: &[u8], about: &About, before: Uid) -> Cut {
    let mut cut = Cut { lines: Vec::with_capacity(bytes.len()), uid: before, taken: 0 };
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let read = parse(line);
        let note = read.as_ref().filter(|l| l.source == Source::Host).map(|l| Note::parse(l.text));
        let uid = match (&note, &read) {
            (Some(Note::Begins { uid, .. }), _) => *uid,
            (Some(Note::Part { .. }), _) => {
                cut.taken += line.len();
                continue;
            }
            (_, Some(line)) => about.whose(line.at_us).unwrap_or(cut.uid),
            (_, None) => cut.uid,
        };
        if uid != cut.uid && !cut.lines.is_empty() {
            break;
        }
        cut.uid = uid;
        cut.lines.extend_from_slice(line);
        cut.taken += line.len();
    }
    cut
}

impl LogShipper for Option<Shipper> {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Parcel>, String>> {
        let shipper = self.take();
        async move {
            let mut shipper = shipper.ok_or("the log was given up")?;
            let (back, parcel) = blocking(move || {
                let parcel = shipper.parcel();
                Ok((shipper, parcel))
            })
            .await?;
            *self = Some(back);
            parcel.map_err(|error| format!("the log cannot be read: {error}"))
        }
        .boxed()
    }

    fn stored(&mut self) {
        if let Some(shipper) = self {
            shipper.has_stored();
        }
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>> {
        let shipper = self.take();
        async move {
            let mut shipper = shipper.ok_or("the log was given up")?;
            blocking(move || shipper.has_finished().map_err(|error| error.to_string())).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
