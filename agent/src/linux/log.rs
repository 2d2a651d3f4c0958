//! Reads the log files that the holder writes: `current.log`, and `current.log.1` and on for what was rotated away.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::ports::{LogPiece, LogPlace};

/// Most bytes of one piece.
const PIECE_MAX: u64 = 1 << 20;
/// Rotated files that are looked for; the holder keeps five.
const ROTATED_MAX: usize = 20;

/// The log of one process.
pub struct ProcessLog {
    current: PathBuf,
}

impl ProcessLog {
    /// Below `dir`, as the holder lays them out.
    #[must_use]
    pub fn new(dir: &Path, namespace: &str, name: &str) -> Self {
        Self { current: dir.join(namespace).join(name).join("current.log") }
    }

    /// Oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let rotated = |n: usize| {
            let mut path = self.current.clone().into_os_string();
            path.push(format!(".{n}"));
            PathBuf::from(path)
        };
        let mut files: Vec<PathBuf> = (1..=ROTATED_MAX).map(rotated).take_while(|p| p.exists()).collect();
        files.reverse();
        files.push(self.current.clone());
        files
    }

    /// The last lines, or the last megabyte.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn tail(&self, lines: Option<u64>) -> io::Result<LogPiece> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut next = LogPlace::default();
        let wanted = lines.unwrap_or(u64::MAX);
        for path in self.files().into_iter().rev() {
            let Some((part, place)) = read_end(&path, PIECE_MAX - bytes.len() as u64)? else { continue };
            if path == self.current {
                next = place;
            }
            bytes.splice(0..0, part);
            if count_lines(&bytes) > wanted || bytes.len() as u64 >= PIECE_MAX {
                break;
            }
        }
        Ok(LogPiece { bytes: Bytes::from(last_lines(bytes, wanted)), next })
    }

    /// What came after a place.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn more(&self, from: LogPlace) -> io::Result<LogPiece> {
        let files = self.files();
        let at = files.iter().position(|path| inode(path) == Some(from.file));
        let Some(at) = at else {
            // Rotated away entirely, or nothing was there yet: from the start of what there is.
            let oldest = files.iter().find(|path| path.exists());
            return oldest
                .map_or_else(|| Ok(LogPiece { bytes: Bytes::new(), next: from }), |path| read_from(path, 0));
        };
        let piece = read_from(&files[at], from.offset)?;
        match files.get(at + 1) {
            // That file is read to its end, and there is a newer one.
            Some(newer) if piece.bytes.is_empty() && newer.exists() => read_from(newer, 0),
            Some(_) | None => Ok(piece),
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|m| m.ino())
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_end(path: &Path, most: u64) -> io::Result<Option<(Vec<u8>, LogPlace)>> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let meta = file.metadata()?;
    let from = meta.len().saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let whole = whole_lines(&bytes);
    bytes.truncate(whole);
    Ok(Some((bytes, LogPlace { file: meta.ino(), offset: from + whole as u64 })))
}

fn read_from(path: &Path, offset: u64) -> io::Result<LogPiece> {
    let Some(mut file) = open(path)? else {
        return Ok(LogPiece { bytes: Bytes::new(), next: LogPlace { file: 0, offset } });
    };
    let meta = file.metadata()?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(PIECE_MAX).read_to_end(&mut bytes)?;
    let whole = whole_lines(&bytes);
    bytes.truncate(whole);
    Ok(LogPiece {
        bytes: Bytes::from(bytes),
        next: LogPlace { file: meta.ino(), offset: offset + whole as u64 },
    })
}

/// How many bytes are whole lines: a line that is being written is read when it is finished.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

fn last_lines(bytes: Vec<u8>, wanted: u64) -> Vec<u8> {
    let skip = count_lines(&bytes).saturating_sub(wanted);
    let Some(before) = skip.checked_sub(1) else { return bytes };
    let breaks = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n');
    let from = breaks.map(|(at, _)| at + 1).nth(usize::try_from(before).unwrap_or(usize::MAX)).unwrap_or(0);
    bytes[from..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_and_goes_on_through_rotation() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("default/web");
        std::fs::create_dir_all(&folder).expect("makes it");
        let log = ProcessLog::new(dir.path(), "default", "web");
        let current = folder.join("current.log");
        std::fs::write(&current, "a\nb\nc\npart").expect("writes");
        let piece = log.tail(Some(2)).expect("reads");
        assert_eq!(&piece.bytes[..], b"b\nc\n");
        std::fs::write(&current, "a\nb\nc\npartial\n").expect("writes");
        let piece = log.more(piece.next).expect("reads");
        assert_eq!(&piece.bytes[..], b"partial\n");
        std::fs::rename(&current, folder.join("current.log.1")).expect("rotates");
        std::fs::write(&current, "new\n").expect("writes");
        let piece = log.more(piece.next).expect("reads");
        assert_eq!(&piece.bytes[..], b"new\n");
        assert!(log.more(piece.next).expect("reads").bytes.is_empty());
        assert_eq!(&log.tail(Some(2)).expect("reads").bytes[..], b"partial\nnew\n");
    }
}
