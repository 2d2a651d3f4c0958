//! From the bytes of a process to the lines of its log (`ostler_schemas::v1::log_line`).
//!
//! A line is written when its newline comes, when it reaches [`LINE_MAX`], or when the process has ended. A line
//! that was cut because of its length is a part (`P`): the next line of that stream goes on where it stopped. Text is
//! passed on byte by byte; what is not UTF-8 stays what it is.

pub mod about;
pub mod filter;
pub mod spec;

use ostler_schemas::v1::log_line::{self, Source, Stamp};

pub use ostler_schemas::v1::log_line::LogStream as Stream;

/// The longest line, so that an endless one costs bounded memory: 16 KiB, as container runtimes cut them.
pub const LINE_MAX: usize = log_line::TEXT_MAX;

/// Cuts one stream into lines. Keeps only the line that has not ended yet.
#[derive(Debug)]
pub struct LineCutter {
    stream: Stream,
    partial: Vec<u8>,
}

impl LineCutter {
    /// For one stream of one process.
    #[must_use]
    pub const fn new(stream: Stream) -> Self {
        Self { stream, partial: Vec::new() }
    }

    /// For a stream whose last line had begun before.
    #[must_use]
    pub fn going_on(stream: Stream, partial: &[u8]) -> Self {
        Self { stream, partial: partial.to_vec() }
    }

    /// The line that has not ended yet.
    #[must_use]
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Takes what was read at `stamp` and appends whole lines to `out`. Returns how many.
    pub fn push(&mut self, stamp: &Stamp, bytes: &[u8], out: &mut Vec<u8>) -> u64 {
        let mut lines = 0;
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (mut text, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            lines += self.cut(stamp, &mut text, out);
            self.write(stamp, text, false, out);
            lines += 1;
        }
        lines += self.cut(stamp, &mut rest, out);
        self.partial.extend_from_slice(rest);
        lines
    }

    /// The stream has ended: its last line too, newline or not. Returns how many lines that were.
    pub fn finish(&mut self, stamp: &Stamp, out: &mut Vec<u8>) -> u64 {
        if self.partial.is_empty() {
            return 0;
        }
        self.write(stamp, b"", false, out);
        1
    }

    /// Writes parts until what is left of the text fits into a line.
    fn cut(&mut self, stamp: &Stamp, text: &mut &[u8], out: &mut Vec<u8>) -> u64 {
        let mut lines = 0;
        while self.partial.len() + text.len() > LINE_MAX {
            let (head, rest) = text.split_at(LINE_MAX - self.partial.len());
            self.write(stamp, head, true, out);
            *text = rest;
            lines += 1;
        }
        lines
    }

    fn write(&mut self, stamp: &Stamp, text: &[u8], cut: bool, out: &mut Vec<u8>) {
        // Taking it gives the memory back: a quiet process costs none.
        let partial = std::mem::take(&mut self.partial);
        log_line::push(out, stamp, (Source::Process(self.stream), cut), &[&partial, text]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: u64 = 1_795_169_700_123_456;

    /// The lines as the reader understands them: whether it is a part, and the text.
    fn cut(parts: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let (mut cutter, mut out) = (LineCutter::new(Stream::Stdout), Vec::new());
        let stamp = log_line::stamp(AT);
        let mut lines: u64 = parts.iter().map(|part| cutter.push(&stamp, part, &mut out)).sum();
        lines += cutter.finish(&stamp, &mut out);
        let read: Vec<_> = out
            .split_inclusive(|b| *b == b'\n')
            .map(|line| log_line::parse(line).unwrap())
            .map(|line| (line.partial, line.text.to_vec()))
            .collect();
        assert_eq!(lines, read.len() as u64);
        read
    }

    fn whole(texts: &[&str]) -> Vec<(bool, Vec<u8>)> {
        texts.iter().map(|text| (false, text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn lines_are_joined_over_reads_and_the_last_needs_no_newline() {
        assert_eq!(cut(&[b"on", b"e\ntwo\n", b"\nthr", b"ee"]), whole(&["one", "two", "", "three"]));
    }

    #[test]
    fn a_line_is_written_as_documented() {
        let (mut cutter, mut out) = (LineCutter::new(Stream::Stderr), Vec::new());
        cutter.push(&log_line::stamp(AT), b"text\n", &mut out);
        assert_eq!(out, b"2026-11-20T10:15:00.123456Z stderr F text\n");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_says_so() {
        let long = vec![b'x'; LINE_MAX + 3];
        assert_eq!(cut(&[&long, b"\n"]), [(true, vec![b'x'; LINE_MAX]), (false, b"xxx".to_vec())]);
        // Exactly as long as a line may be: whole.
        assert_eq!(cut(&[&long[3..], b"\n"]), [(false, vec![b'x'; LINE_MAX])]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_however_reads_are_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..2_000),
            long in 0usize..40_000,
            step in 1usize..700,
        ) {
            let mut bytes = bytes;
            let at = bytes.len() / 2;
            bytes.splice(at..at, std::iter::repeat_n(b'y', long));
            let once = cut(&[&bytes]);
            let parts: Vec<&[u8]> = bytes.chunks(step).collect();
            prop_assert_eq!(&cut(&parts), &once);
            let mut text = Vec::new();
            for (partial, line) in once {
                text.extend_from_slice(&line);
                if !partial {
                    text.push(b'\n');
                }
            }
            if !bytes.is_empty() && bytes.last() != Some(&b'\n') {
                bytes.push(b'\n');
            }
            prop_assert_eq!(text, bytes);
        }
    }
}
