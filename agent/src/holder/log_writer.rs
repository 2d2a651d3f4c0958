//! Writes the lines of all processes to where they go, on a thread of its own.
//!
//! The poll loop must go on draining pipes when the disk is slow, and a write to a file cannot be made not to
//! wait. So the loop hands lines over under a lock that is never held during IO, and what does not fit is dropped
//! and counted. Once the disk takes lines again, one line in the log says how many are missing and why.
//!
//! A process that asked for it waits instead (`logs.overflow: block`): nothing of it is dropped, its pipe is left alone
//! while too much of it waits here ([`Room::Full`]), and [`LogWriter::room`] wakes the loop when there is room again.
//! Only what such processes leave in their pipes when they end is dropped and counted once [`PENDING_HARD`] wait: on a
//! disk that stays full, one that is started again and again must not fill the memory instead.
//!
//! Files are opened for each batch: thousands of quiet processes then cost no descriptors, and a file that was
//! moved or deleted by hand is made anew.

mod files;
mod journal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ostler_agent_core::holder::protocol::{LogSpec, LogTo};
use ostler_schemas::v1::log_line::{self, Note};
use rustix::event::{EventfdFlags, eventfd};

pub(super) use files::LogTarget;
use journal::Journal;

/// Bytes of lines one process may have waiting: sixteen full pipes' worth, so that a writer that gets no CPU for some
/// tens of milliseconds costs a loud process nothing.
const PENDING_EACH: usize = 1 << 20;

/// Bytes of lines all processes together may have waiting, so that a hanging disk costs bounded memory.
const PENDING_ALL: usize = 16 << 20;

/// Bytes of lines that all processes together may have waiting, those included that wait rather than lose lines.
const PENDING_HARD: usize = 4 * PENDING_ALL;

/// How many logs with unconfessed losses are remembered: on a disk that stays full, ended processes add up.
const OWED_MAX: usize = 4_096;

/// How soon a disk that refused lines is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the end of the holder waits for the disk.
const FLUSH: Duration = Duration::from_secs(2);

/// Which log: the loop's number of the incarnation.
pub(super) type LogId = u64;

/// Whether more may be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It may.
    Free,
    /// The process waits until there is room again.
    Full,
}

#[derive(Debug)]
struct Pending {
    target: Arc<LogTarget>,
    bytes: Vec<u8>,
    /// Lines dropped after `bytes` for want of room.
    dropped: u64,
    /// The incarnation began, then.
    begins: Option<u64>,
    /// The sizes may have been changed.
    tidy: bool,
    /// The incarnation is gone: forget the log once everything is written.
    last: bool,
    /// It was refused, and is not tried again before.
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct Queues {
    pending: BTreeMap<LogId, Pending>,
    bytes: usize,
    /// Lines lost so far, by log.
    lost: BTreeMap<LogId, u64>,
    /// Logs whose processes wait for room.
    full: BTreeSet<LogId>,
    busy: bool,
}

#[derive(Debug)]
struct Shared {
    queues: Mutex<Queues>,
    /// Something was handed over.
    work: Condvar,
    /// Everything is written.
    idle: Condvar,
    /// Readable when logs that were full have room.
    room: OwnedFd,
}

/// The loop's end of it.
#[derive(Debug, Clone)]
pub(super) struct LogWriter(Arc<Shared>);

impl LogWriter {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let writer = Self::idle()?;
        writer.run(Journal::at(Path::new(journal::SOCKET)))?;
        Ok(writer)
    }

    fn idle() -> io::Result<Self> {
        let room = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (work, idle) = (Condvar::new(), Condvar::new());
        Ok(Self(Arc::new(Shared { queues: Mutex::default(), work, idle, room })))
    }

    fn run(&self, journal: Journal) -> io::Result<()> {
        let theirs = self.clone();
        // Writing files needs little stack.
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).stack_size(128 << 10);
        thread.spawn(move || Disk { writer: theirs, journal, owed: BTreeMap::new() }.write_for_ever())?;
        Ok(())
    }

    /// Whether this host has what a process's output needs; else why not.
    pub(super) fn serves(spec: &LogSpec) -> Result<(), String> {
        let to_journal = [spec.stdout, spec.stderr].contains(&LogTo::Journal);
        if to_journal && !Path::new(journal::SOCKET).exists() {
            return Err(format!(
                "its output goes to the journal, and this host has none: {}",
                journal::SOCKET
            ));
        }
        Ok(())
    }

    /// An incarnation begins now.
    pub(super) fn begin(&self, id: LogId, target: &Arc<LogTarget>) {
        let mut queues = self.lock();
        queues.of(id, target).begins = Some(unix_us());
        self.0.work.notify_one();
    }

    /// The sizes were changed.
    pub(super) fn change(&self, id: LogId, target: &Arc<LogTarget>) {
        let mut queues = self.lock();
        let pending = queues.of(id, target);
        pending.target = Arc::clone(target);
        pending.tidy = true;
        self.0.work.notify_one();
    }

    /// Hands over whole lines, or counts them as lost.
    pub(super) fn append(&self, id: LogId, target: &Arc<LogTarget>, bytes: &[u8], lines: u64) -> Room {
        let mut queues = self.lock();
        let room = PENDING_ALL.saturating_sub(queues.bytes);
        let may_wait = target.block && queues.bytes.saturating_add(bytes.len()) <= PENDING_HARD;
        let pending = queues.of(id, target);
        // After a dropped line later ones are dropped too, so that the gap is one and said in its place.
        let fits = bytes.len() <= room && pending.bytes.len() + bytes.len() <= PENDING_EACH;
        let taken = pending.dropped == 0 && (may_wait || fits);
        if taken {
            pending.bytes.extend_from_slice(bytes);
            queues.bytes += bytes.len();
        } else {
            pending.dropped += lines;
            *queues.lost.entry(id).or_default() += lines;
        }
        let full = target.block && !fits;
        if full {
            queues.full.insert(id);
        }
        drop(queues);
        self.0.work.notify_one();
        if full { Room::Full } else { Room::Free }
    }

    /// Nothing more comes for this log.
    pub(super) fn finish(&self, id: LogId, target: &Arc<LogTarget>) {
        let mut queues = self.lock();
        queues.of(id, target).last = true;
        queues.full.remove(&id);
        self.0.work.notify_one();
    }

    /// Readable when there is something for [`LogWriter::with_room`].
    pub(super) fn room(&self) -> &OwnedFd {
        &self.0.room
    }

    /// The logs that were full and have room again.
    pub(super) fn with_room(&self) -> Vec<LogId> {
        let mut count = [0; 8];
        // Nothing to read: somebody was here before.
        rustix::io::read(&self.0.room, &mut count).ok();
        let mut queues = self.lock();
        let free: Vec<LogId> = queues.full.iter().copied().filter(|id| queues.has_room(*id)).collect();
        for id in &free {
            queues.full.remove(id);
        }
        free
    }

    /// Lines lost of one log.
    pub(super) fn lost(&self, id: LogId) -> u64 {
        self.lock().lost.get(&id).copied().unwrap_or(0)
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn flush(&self) {
        let queues = self.lock();
        let waits = |queues: &mut Queues| queues.busy || !queues.pending.is_empty();
        drop(self.0.idle.wait_timeout_while(queues, FLUSH, waits));
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // No code panics while it holds the lock; if it did, the lines would still be worth writing.
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next log with something to write, in turn. None after a while when `impatient`.
    fn next(&self, after: &mut LogId, impatient: bool) -> Option<(LogId, Pending)> {
        let mut queues = self.lock();
        queues.busy = false;
        loop {
            if let Some((id, pending)) = queues.take_after(*after) {
                queues.busy = true;
                *after = id;
                if queues.full.iter().any(|id| queues.has_room(*id)) {
                    // It is nonblocking, and a counter that is full wakes just as well.
                    rustix::io::write(&self.0.room, &1u64.to_ne_bytes()).ok();
                }
                return Some((id, pending));
            }
            if queues.pending.is_empty() {
                self.0.idle.notify_all();
            }
            if impatient || !queues.pending.is_empty() {
                let (guard, timeout) =
                    self.0.work.wait_timeout(queues, RETRY).unwrap_or_else(PoisonError::into_inner);
                queues = guard;
                if timeout.timed_out() && impatient && queues.pending.is_empty() {
                    return None;
                }
            } else {
                queues = self.0.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Gives lines back that the disk refused and that must not be lost; they are tried again in a while.
    fn put_back(&self, id: LogId, batch: &Pending, rest: &[u8]) {
        let mut queues = self.lock();
        let later = queues.of(id, &batch.target);
        let mut bytes = rest.to_vec();
        bytes.append(&mut later.bytes);
        later.bytes = bytes;
        later.last |= batch.last;
        later.not_before = Some(Instant::now() + RETRY);
        queues.bytes += rest.len();
    }
}

impl Queues {
    fn of(&mut self, id: LogId, target: &Arc<LogTarget>) -> &mut Pending {
        self.pending.entry(id).or_insert_with(|| Pending {
            target: Arc::clone(target),
            bytes: Vec::new(),
            dropped: 0,
            begins: None,
            tidy: false,
            last: false,
            not_before: None,
        })
    }

    fn has_room(&self, id: LogId) -> bool {
        let waits = self.pending.get(&id).map_or(0, |pending| pending.bytes.len());
        waits <= PENDING_EACH / 2 && self.bytes <= PENDING_ALL / 2
    }

    /// Takes the first log after this one, in a circle, that may be tried now.
    fn take_after(&mut self, after: LogId) -> Option<(LogId, Pending)> {
        let waits = self.pending.values().any(|pending| pending.not_before.is_some());
        let now = waits.then(Instant::now);
        let may = |pending: &Pending| match (pending.not_before, now) {
            (Some(at), Some(now)) => at <= now,
            (Some(_) | None, _) => true,
        };
        let later = self.pending.range(after.saturating_add(1)..);
        let id = later.chain(self.pending.range(..=after)).find(|(_, p)| may(p)).map(|(id, _)| *id)?;
        let pending = self.pending.remove(&id)?;
        self.bytes -= pending.bytes.len();
        Some((id, pending))
    }
}

/// The thread's end of it.
struct Disk {
    writer: LogWriter,
    journal: Journal,
    owed: BTreeMap<LogId, Owed>,
}

impl Disk {
    fn write_for_ever(mut self) {
        let mut after: LogId = 0;
        loop {
            match self.writer.next(&mut after, !self.owed.is_empty()) {
                Some((id, batch)) => self.write_batch(id, &batch),
                None => self.owed.retain(|_, owed| !owed.pay(&mut self.journal)),
            }
        }
    }

    fn write_batch(&mut self, id: LogId, batch: &Pending) {
        let debt = self.owed.entry(id).or_insert_with(|| Owed::new(&batch.target));
        debt.target = Arc::clone(&batch.target);
        debt.begins = batch.begins.or(debt.begins);
        debt.tidy |= batch.tidy || batch.begins.is_some();
        let result = if debt.pay(&mut self.journal) {
            write(&batch.target, &batch.bytes, &mut self.journal)
        } else {
            Err((0, io::Error::other(debt.why.clone())))
        };
        let mut last = batch.last;
        match result {
            Ok(()) => {}
            Err((done, error)) => {
                let rest = batch.bytes.get(done..).unwrap_or_default();
                if batch.target.block && !rest.is_empty() {
                    last = false;
                    self.writer.put_back(id, batch, rest);
                } else {
                    let lines = memchr::memchr_iter(b'\n', rest).count() as u64;
                    debt.add(lines, &error.to_string());
                    *self.writer.lock().lost.entry(id).or_default() += lines;
                }
            }
        }
        debt.add(batch.dropped, "they came faster than the disk takes them");
        if debt.pay(&mut self.journal) || self.owed.len() > OWED_MAX {
            self.owed.remove(&id);
        }
        if last {
            self.writer.lock().lost.remove(&id);
        }
    }
}

/// What a log has not been told yet.
#[derive(Debug)]
struct Owed {
    target: Arc<LogTarget>,
    /// Its incarnation began.
    begins: Option<u64>,
    tidy: bool,
    /// Lines that were lost.
    lines: u64,
    why: String,
}

impl Owed {
    fn new(target: &Arc<LogTarget>) -> Self {
        Self { target: Arc::clone(target), begins: None, tidy: false, lines: 0, why: String::new() }
    }

    fn add(&mut self, lines: u64, why: &str) {
        if lines > 0 {
            self.lines += lines;
            why.clone_into(&mut self.why);
        }
    }

    /// Whether nothing is owed any more.
    fn pay(&mut self, journal: &mut Journal) -> bool {
        if self.lines > 0 {
            let note = Note::Lost { lines: self.lines, why: self.why.clone() };
            if write_note(&self.target, &note, journal).is_ok() {
                self.lines = 0;
            }
        }
        if self.lines == 0 && self.target.notes() == LogTo::File {
            self.pay_files();
        }
        self.lines == 0
    }

    /// What is not told to the files now is told later; no line waits for it.
    fn pay_files(&mut self) {
        if let Some(at) = self.begins
            && self.target.begin(at).is_ok()
        {
            self.begins = None;
        }
        if self.tidy && self.target.tidy().is_ok() {
            self.tidy = false;
        }
    }
}

fn write_note(target: &LogTarget, note: &Note, journal: &mut Journal) -> Result<(), (usize, io::Error)> {
    let line = note.line(unix_us());
    match target.notes() {
        LogTo::File => target.write(&line),
        LogTo::Journal => journal.write(target, &line),
        LogTo::Null => Ok(()),
    }
}

/// Writes lines to where their streams go. What was not written is told by how many bytes were.
fn write(target: &LogTarget, bytes: &[u8], journal: &mut Journal) -> Result<(), (usize, io::Error)> {
    if target.stdout == target.stderr {
        return write_to(target.stdout, target, (bytes, journal));
    }
    let mut done = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let sink = log_line::parse(line).map_or(LogTo::File, |line| target.sink(line.source));
        write_to(sink, target, (line, &mut *journal)).map_err(|(part, error)| (done + part, error))?;
        done += line.len();
    }
    Ok(())
}

fn write_to(
    sink: LogTo,
    target: &LogTarget,
    (bytes, journal): (&[u8], &mut Journal),
) -> Result<(), (usize, io::Error)> {
    match sink {
        LogTo::File => target.write(bytes),
        LogTo::Journal => journal.write(target, bytes),
        LogTo::Null => Ok(()),
    }
}

/// Microseconds since 1970.
pub(super) fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
