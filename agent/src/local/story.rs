//! The latest of the agent's own story, in a file: readable with the bus down, the agent down, and after a boot.
//!
//! Guarantees: telling never waits for the disk; the files stay below [`FILE_MAX`] each, two of them. Not here: the
//! journal (which has more) and the events on the bus (which are for everybody).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ostler_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Size at which a file becomes the one before: some thousands of lines.
pub const FILE_MAX: u64 = 1 << 20;
/// Lines that may wait for the disk; what comes beyond that is counted.
const WAITING: usize = 1024;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Why.
    pub reason: String,
    /// Of what: `process/default/web-1`.
    pub object: String,
    /// For people.
    pub message: String,
}

/// The newer file; the older one is beside it.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("events.ndjson")
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("old.ndjson")
}

/// Writes the story, on a thread of its own.
pub(crate) struct Teller {
    lines: SyncSender<Line>,
    lost: u64,
}

impl Teller {
    /// None, with a warning, if there can be no thread: the story is also in the journal.
    pub(crate) fn start(path: PathBuf) -> Option<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("story".to_owned());
        match thread.spawn(move || write_all(&path, &waiting)) {
            Ok(_) => Some(Self { lines, lost: 0 }),
            Err(error) => {
                tracing::warn!(%error, "the story is not kept on this host");
                None
            }
        }
    }

    pub(crate) fn tell(&mut self, mut line: Line) {
        if self.lost > 0 {
            line.message = format!("{} ({} before this one were not kept)", line.message, self.lost);
        }
        match self.lines.try_send(line) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }
}

fn write_all(path: &Path, waiting: &Receiver<Line>) {
    let mut warned = false;
    while let Ok(line) = waiting.recv() {
        match write(path, &line) {
            Ok(()) => warned = false,
            Err(error) if !warned => {
                warned = true;
                tracing::warn!(%error, path = %path.display(), "the story is not kept");
            }
            Err(_) => {}
        }
    }
}

fn write(path: &Path, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    if fs::metadata(path).is_ok_and(|meta| meta.len() + bytes.len() as u64 > FILE_MAX) {
        fs::rename(path, older(path))?;
    }
    let mut file: File = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.write_all(&bytes)
}

/// The last `count` lines, oldest first.
///
/// # Errors
/// If they are there and cannot be read.
pub fn last(state_dir: &Path, count: usize) -> io::Result<Vec<Line>> {
    let newer = path(state_dir);
    let mut lines: Vec<Line> = Vec::new();
    for file in [older(&newer), newer] {
        match fs::read(&file) {
            // A line that was cut short by a loss of power is no line.
            Ok(bytes) => {
                lines.extend(bytes.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
        }
    }
    let surplus = lines.len().saturating_sub(count);
    Ok(lines.split_off(surplus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_is_bounded_and_its_end_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let line = |n: u64| Line {
            at: Timestamp(n),
            kind: "Normal".to_owned(),
            reason: "Started".to_owned(),
            object: "process/default/web-1".to_owned(),
            message: format!("{n} {}", "x".repeat(20_000)),
        };
        for n in 0..200 {
            write(&path(dir.path()), &line(n)).expect("writes");
        }
        let size: u64 = fs::read_dir(dir.path())
            .expect("lists")
            .map(|entry| entry.and_then(|e| e.metadata()).expect("there").len())
            .sum();
        assert!(size <= 2 * FILE_MAX, "{size}");
        let last = last(dir.path(), 3).expect("reads");
        assert_eq!(last.iter().map(|l| l.at.0).collect::<Vec<_>>(), vec![197, 198, 199]);
    }
}
