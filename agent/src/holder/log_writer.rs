//! Writes the lines of all processes to their files, on a thread of its own.
//!
//! The poll loop must go on draining pipes when the disk is slow, and a write to a file cannot be made not to
//! wait. So the loop hands lines over under a lock that is never held during IO, and what does not fit is dropped
//! and counted. Once the disk takes lines again, one line in the log says how many are missing and why.
//!
//! Files are opened for each batch: thousands of quiet processes then cost no descriptors, and a file that was
//! moved or deleted by hand is made anew.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ostler_agent_core::holder::lines::{lost_line, stamp};
use ostler_agent_core::holder::protocol::LogSpec;

/// Bytes of lines one process may have waiting: four full pipes' worth, a second of ordinary chatter.
const PENDING_EACH: usize = 256 << 10;

/// Bytes of lines all processes together may have waiting, so that a hanging disk costs bounded memory.
const PENDING_ALL: usize = 8 << 20;

/// How many logs with unconfessed losses are remembered: on a disk that stays full, ended processes add up.
const OWED_MAX: usize = 4_096;

/// How soon a disk that refused lines is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the end of the holder waits for the disk.
const FLUSH: Duration = Duration::from_secs(2);

/// Which log: the loop's number of the incarnation.
pub(super) type LogId = u64;

/// One log's files.
#[derive(Debug)]
pub(super) struct LogTarget {
    current: PathBuf,
    file_max: u64,
    files: u32,
}

impl LogTarget {
    pub(super) fn new(spec: &LogSpec, namespace: &str, name: &str) -> Arc<Self> {
        Arc::new(Self {
            current: PathBuf::from(spec.current(namespace, name)),
            // A batch is never split over files, so a file must have room for one.
            file_max: spec.file_max.max(PENDING_EACH as u64),
            files: spec.files.max(1),
        })
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.current.clone().into_os_string();
        path.push(format!(".{number}"));
        PathBuf::from(path)
    }
}

#[derive(Debug)]
struct Pending {
    target: Arc<LogTarget>,
    bytes: Vec<u8>,
    lines: u64,
    /// Lines dropped after `bytes` for want of room.
    dropped: u64,
    /// The incarnation is gone: forget the log once everything is written.
    last: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: BTreeMap<LogId, Pending>,
    bytes: usize,
    /// Lines lost so far, by log.
    lost: BTreeMap<LogId, u64>,
    busy: bool,
}

/// The loop's end of it.
#[derive(Debug, Clone)]
pub(super) struct LogWriter {
    shared: Arc<(Mutex<Shared>, Condvar, Condvar)>,
}

impl LogWriter {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let writer = Self { shared: Arc::new((Mutex::default(), Condvar::new(), Condvar::new())) };
        let theirs = writer.clone();
        // Writing files needs little stack.
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).stack_size(128 << 10);
        thread.spawn(move || theirs.write_for_ever())?;
        Ok(writer)
    }

    /// Hands over whole lines, or counts them as lost.
    pub(super) fn append(&self, id: LogId, target: &Arc<LogTarget>, bytes: &[u8], lines: u64) {
        let mut shared = self.lock();
        let room = PENDING_ALL.saturating_sub(shared.bytes);
        let pending = shared.pending.entry(id).or_insert_with(|| Pending::new(target));
        // After a dropped line later ones are dropped too, so that the gap is one and said in its place.
        if pending.dropped == 0 && bytes.len() <= room && pending.bytes.len() + bytes.len() <= PENDING_EACH {
            pending.bytes.extend_from_slice(bytes);
            pending.lines += lines;
            shared.bytes += bytes.len();
        } else {
            pending.dropped += lines;
            *shared.lost.entry(id).or_default() += lines;
        }
        self.shared.1.notify_one();
    }

    /// Nothing more comes for this log.
    pub(super) fn finish(&self, id: LogId, target: &Arc<LogTarget>) {
        let mut shared = self.lock();
        shared.pending.entry(id).or_insert_with(|| Pending::new(target)).last = true;
        self.shared.1.notify_one();
    }

    /// Lines lost of one log.
    pub(super) fn lost(&self, id: LogId) -> u64 {
        self.lock().lost.get(&id).copied().unwrap_or(0)
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn flush(&self) {
        let shared = self.lock();
        let waits = |shared: &mut Shared| shared.busy || !shared.pending.is_empty();
        drop(self.shared.2.wait_timeout_while(shared, FLUSH, waits));
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // No code panics while it holds the lock; if it did, the lines would still be worth writing.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self) {
        let mut owed: BTreeMap<LogId, Owed> = BTreeMap::new();
        let mut after: LogId = 0;
        loop {
            let Some((id, batch)) = self.next(&mut after, !owed.is_empty()) else {
                owed.retain(|_, owed| !owed.pay());
                continue;
            };
            let Pending { target, bytes, lines, dropped, last } = batch;
            let debt = owed.entry(id).or_insert_with(|| Owed::new(&target));
            let failed = if debt.pay() { write(&target, &bytes).err() } else { Some(debt.error()) };
            if let Some(error) = failed {
                debt.add(lines, &error.to_string());
                *self.lock().lost.entry(id).or_default() += lines;
            }
            debt.add(dropped, "the disk was too slow");
            if debt.pay() || owed.len() > OWED_MAX {
                owed.remove(&id);
            }
            if last {
                self.lock().lost.remove(&id);
            }
        }
    }

    /// The next log with something to write, in turn. None after a while when `impatient`.
    fn next(&self, after: &mut LogId, impatient: bool) -> Option<(LogId, Pending)> {
        let mut shared = self.lock();
        shared.busy = false;
        loop {
            let next = shared.pending.range(after.saturating_add(1)..).next();
            let id = next.or_else(|| shared.pending.iter().next()).map(|(id, _)| *id);
            if let Some((id, pending)) = id.and_then(|id| Some((id, shared.pending.remove(&id)?))) {
                shared.bytes -= pending.bytes.len();
                shared.busy = true;
                *after = id;
                return Some((id, pending));
            }
            self.shared.2.notify_all();
            if impatient {
                let (guard, timeout) =
                    self.shared.1.wait_timeout(shared, RETRY).unwrap_or_else(PoisonError::into_inner);
                shared = guard;
                if timeout.timed_out() && shared.pending.is_empty() {
                    return None;
                }
            } else {
                shared = self.shared.1.wait(shared).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Pending {
    fn new(target: &Arc<LogTarget>) -> Self {
        Self { target: Arc::clone(target), bytes: Vec::new(), lines: 0, dropped: 0, last: false }
    }
}

/// Lines that were lost and have not been confessed in the log yet.
#[derive(Debug)]
struct Owed {
    target: Arc<LogTarget>,
    lines: u64,
    why: String,
}

impl Owed {
    fn new(target: &Arc<LogTarget>) -> Self {
        Self { target: Arc::clone(target), lines: 0, why: String::new() }
    }

    fn add(&mut self, lines: u64, why: &str) {
        if lines > 0 {
            self.lines += lines;
            why.clone_into(&mut self.why);
        }
    }

    fn error(&self) -> io::Error {
        io::Error::other(self.why.clone())
    }

    /// Whether nothing is owed any more.
    fn pay(&mut self) -> bool {
        if self.lines == 0 {
            return true;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let line = lost_line(&stamp(now), self.lines, &self.why);
        if write(&self.target, line.as_bytes()).is_ok() {
            self.lines = 0;
        }
        self.lines == 0
    }
}

/// Appends all of `bytes` or nothing, after a rotation if they would not fit.
fn write(target: &LogTarget, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut file = open(&target.current)?;
    let mut size = file.metadata()?.len();
    if size > 0 && size + bytes.len() as u64 > target.file_max {
        rotate(target)?;
        file = open(&target.current)?;
        size = file.metadata()?.len();
    }
    file.write_all(bytes).inspect_err(|_| {
        // A torn line would be read as something the process said. If even this fails there is nothing left to try.
        drop(file.set_len(size));
    })
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
            options.open(path)
        }
        other => other,
    }
}

fn rotate(target: &LogTarget) -> io::Result<()> {
    if target.files == 1 {
        return fs::remove_file(&target.current);
    }
    for number in (1..target.files - 1).rev() {
        match fs::rename(target.numbered(number), target.numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(&target.current, target.numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dir: &Path, file_max: u64, files: u32) -> Arc<LogTarget> {
        let spec = LogSpec { dir: dir.display().to_string(), file_max, files };
        LogTarget::new(&spec, "default", "web")
    }

    #[test]
    fn lines_are_written_and_files_rotate_within_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path(), 1, 3);
        for n in 0..400 {
            write(&target, format!("{n:07} {}\n", "x".repeat(9_991)).as_bytes()).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path().join("default/web"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["current.log", "current.log.1", "current.log.2"]);
        for name in names {
            assert!(
                fs::metadata(dir.path().join("default/web").join(name)).unwrap().len() <= PENDING_EACH as u64
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_confessed_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path(), 64 << 20, 2);
        let writer = LogWriter { shared: Arc::new((Mutex::default(), Condvar::new(), Condvar::new())) };
        // No thread yet: a disk that takes nothing.
        let line = [b"x".repeat(1_023), b"\n".to_vec()].concat();
        for _ in 0..1_000 {
            writer.append(7, &target, &line, 1);
        }
        assert_eq!(writer.lost(7), 1_000 - 256);
        let theirs = writer.clone();
        std::thread::spawn(move || theirs.write_for_ever());
        writer.flush();
        writer.append(7, &target, b"after\n", 1);
        writer.flush();
        let text = fs::read_to_string(dir.path().join("default/web/current.log")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 256 + 2);
        assert!(lines[256].ends_with("ostler 744 lines lost: the disk was too slow"), "{}", lines[256]);
        assert_eq!(lines[257], "after");
    }
}
