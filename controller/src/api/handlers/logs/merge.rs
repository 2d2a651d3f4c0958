//! Which lines of several logs are next: the oldest of those that wait.
//!
//! Lines of one log stay in their order whatever their times say. A log that may still have older lines on the way is
//! waited for by the caller of this; here only what is there counts.

use bytes::Bytes;
use ostler_schemas::v1::log_line::{Note, Source, parse};

/// Lines that wait, and the time of the first.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Bytes,
    at_us: u64,
}

impl Block {
    /// `last_us` is the time of the line before: what has none goes with it.
    pub(super) fn new(bytes: Bytes, last_us: u64) -> Self {
        let at_us = time_of(&bytes).unwrap_or(last_us);
        Self { bytes, at_us }
    }

    /// When its first line was written.
    pub(super) const fn at_us(&self) -> u64 {
        self.at_us
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the lines up to the first that is younger than `until_us`, but at least one.
    pub(super) fn take_until(&mut self, until_us: u64) -> Bytes {
        if until_us == u64::MAX {
            return std::mem::take(&mut self.bytes);
        }
        let mut end = 0;
        loop {
            let rest = &self.bytes[end..];
            if rest.is_empty() {
                break;
            }
            let at_us = time_of(rest).unwrap_or(self.at_us);
            if end > 0 && at_us > until_us {
                self.at_us = at_us;
                break;
            }
            self.at_us = at_us;
            end += memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        }
        self.bytes.split_to(end)
    }
}

fn time_of(bytes: &[u8]) -> Option<u64> {
    parse(first_line(bytes)).map(|line| line.at_us)
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.get(..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())).unwrap_or_default()
}

/// What hosts say to have lost in these lines; a loss of unknown size counts as one.
pub(super) fn confessed(bytes: &[u8]) -> u64 {
    let mut lost = 0u64;
    for line in bytes.split(|b| *b == b'\n') {
        let Some(line) = parse(line).filter(|line| line.source == Source::Host) else { continue };
        lost = lost.saturating_add(match Note::parse(line.text) {
            Note::Lost { lines, .. } => lines,
            Note::Overtaken { .. } => 1,
            Note::Part { .. } | Note::Begins { .. } | Note::Other(_) => 0,
        });
    }
    lost
}

#[cfg(test)]
mod tests {
    use ostler_schemas::v1::log_line::{LogStream, push, stamp};

    use super::*;

    fn line(at: u64, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, &stamp(at), (Source::Process(LogStream::Stdout), false), &[text.as_bytes()]);
        out
    }

    #[test]
    fn a_block_is_taken_line_by_line_as_far_as_it_is_older() {
        let bytes =
            [line(5, "a"), b"plain\n".to_vec(), line(9, "b"), line(7, "back"), line(12, "c")].concat();
        let mut block = Block::new(bytes.into(), 0);
        assert_eq!(block.at_us(), 5);
        assert_eq!(block.take_until(6), [line(5, "a"), b"plain\n".to_vec()].concat());
        assert_eq!(block.at_us(), 9);
        assert_eq!(block.take_until(8), [line(9, "b"), line(7, "back")].concat(), "at least one");
        assert_eq!(block.take_until(u64::MAX), line(12, "c"));
        assert!(block.is_empty());
    }

    #[test]
    fn losses_are_counted() {
        let lost = Note::Lost { lines: 7, why: "x".to_owned() }.line(1);
        let overtaken = Note::Overtaken { bytes: None }.line(1);
        assert_eq!(confessed(&[lost, line(2, "3 lines lost: said by the process"), overtaken].concat()), 8);
    }
}
