//! Where a reader starts: before the last lines, or before the first one of a time.
//!
//! Both look from the end, block by block, so that the last lines of a large log cost what the lines cost.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ostler_agent_core::holder::lines::filter::LineFilter;

use super::Open;

/// Bytes looked at at once.
const BLOCK: u64 = 64 << 10;

/// A line that does not end within so much is no line: it is counted as one where it is cut.
const GARBAGE: usize = 1 << 20;

/// Before the last `wanted` lines; `files` come newest first.
pub(super) fn last_lines(files: &[PathBuf], filter: &LineFilter, wanted: u64) -> io::Result<Option<Open>> {
    let mut oldest = None;
    let mut count = 0;
    for path in files {
        let Some(mut open) = Open::at(path, 0)? else { continue };
        let found = search(
            &open.file,
            |line| {
                if filter.counts(line) {
                    count += 1;
                }
                // One more than is wanted: parts of the first wanted line lie between the two.
                count > wanted
            },
            filter,
        )?;
        if let Some(offset) = found {
            open.offset = offset;
            return Ok(Some(open));
        }
        oldest = Some(path);
    }
    oldest.map_or(Ok(None), |path| Open::at(path, 0))
}

/// Before the first line that may lie in the filter's stretch.
pub(super) fn not_before(files: &[PathBuf], filter: &LineFilter) -> io::Result<Option<Open>> {
    let from_us = filter.window().from_us;
    let is_older = |path: &Path| {
        path.metadata().is_ok_and(|meta| {
            let us = meta.mtime().saturating_mul(1_000_000).saturating_add(meta.mtime_nsec() / 1_000);
            u64::try_from(us).is_ok_and(|us| us < from_us)
        })
    };
    // A file that was last written to before has nothing of it; the newest may yet get something.
    let oldest = files.iter().enumerate().take_while(|(n, path)| *n == 0 || !is_older(path)).last();
    let Some((_, path)) = oldest else { return Ok(None) };
    let Some(mut open) = Open::at(path, 0)? else { return Ok(None) };
    if from_us > 0 {
        let offset = search(&open.file, |_| false, filter)?;
        open.offset = offset.unwrap_or(0);
    }
    Ok(Some(open))
}

/// Looks at the lines of a file from its end. The offset after the line at which `stops` says so, or after a block of
/// which all lines are before the stretch.
fn search(file: &File, mut stops: impl FnMut(&[u8]) -> bool, filter: &LineFilter) -> io::Result<Option<u64>> {
    let mut at = file.metadata()?.len();
    // The beginning of a line whose end was looked at before.
    let mut tail: Vec<u8> = Vec::new();
    let mut is_end = true;
    while at > 0 {
        let start = at.saturating_sub(BLOCK);
        let mut bytes = vec![0; usize::try_from(at - start).unwrap_or(0)];
        file.read_exact_at(&mut bytes, start)?;
        bytes.append(&mut tail);
        at = start;
        if is_end {
            // A line that is being written is not there yet.
            bytes.truncate(memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1));
            is_end = bytes.is_empty();
        }
        let whole = if start == 0 || bytes.len() > GARBAGE {
            0
        } else {
            memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |at| at + 1)
        };
        let (mut end, mut all_before) = (bytes.len(), whole < bytes.len());
        while end > whole {
            let head = bytes.get(whole..end - 1).unwrap_or_default();
            let begin = memchr::memrchr(b'\n', head).map_or(whole, |at| whole + at + 1);
            let line = bytes.get(begin..end).unwrap_or_default();
            if stops(line) {
                return Ok(Some(start + end as u64));
            }
            all_before &= filter.is_before(line);
            end = begin;
        }
        if all_before {
            return Ok(Some(start + bytes.len() as u64));
        }
        bytes.truncate(whole);
        tail = bytes;
    }
    Ok(None)
}
