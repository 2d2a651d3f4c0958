//! From the bytes of a process to the lines of its log: `TIMESTAMP stdout TEXT`.
//!
//! A line is written when its newline comes, when it reaches [`LINE_MAX`], or when the process has ended. A line
//! that was cut because of its length bears `stdout+` instead of `stdout`: the next line of that stream goes on
//! where it stopped. Text is passed on byte by byte; what is not UTF-8 stays what it is.

use std::fmt::Write as _;

/// The longest line, so that an endless one costs bounded memory: 16 KiB, as container runtimes cut them.
pub const LINE_MAX: usize = 16 << 10;

/// Which of its outputs a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

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
    pub fn push(&mut self, stamp: &str, bytes: &[u8], out: &mut Vec<u8>) -> u64 {
        let mut lines = 0;
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (mut text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                Some(_) | None => (piece, false),
            };
            while self.partial.len() + text.len() > LINE_MAX {
                let (head, rest) = text.split_at(LINE_MAX - self.partial.len());
                self.write(stamp, head, true, out);
                text = rest;
                lines += 1;
            }
            if ended {
                self.write(stamp, text, false, out);
                lines += 1;
            } else {
                self.partial.extend_from_slice(text);
            }
        }
        lines
    }

    /// The stream has ended: its last line too, newline or not. Returns how many lines that were.
    pub fn finish(&mut self, stamp: &str, out: &mut Vec<u8>) -> u64 {
        if self.partial.is_empty() {
            return 0;
        }
        self.write(stamp, b"", false, out);
        1
    }

    fn write(&mut self, stamp: &str, text: &[u8], cut: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(stamp.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.stream.as_str().as_bytes());
        out.extend_from_slice(if cut { b"+ " } else { b" " });
        // Taking it gives the memory back: a quiet process costs none.
        out.extend_from_slice(&std::mem::take(&mut self.partial));
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

/// The line that says how many were lost, written as soon as the disk takes lines again.
#[must_use]
pub fn lost_line(stamp: &str, lost: u64, why: &str) -> String {
    format!("{stamp} ostler {lost} lines lost: {why}\n")
}

/// RFC 3339 with milliseconds, in UTC: `2026-11-20T10:15:00.123Z`.
#[must_use]
pub fn stamp(unix_ms: u64) -> String {
    const DAY_MS: u64 = 86_400_000;
    let (year, month, day) = civil(unix_ms / DAY_MS);
    let ms = unix_ms % DAY_MS;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    let mut text = String::with_capacity(24);
    // Writing to a String cannot fail.
    write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
        .unwrap_or_default();
    text
}

/// The date of the day with this number since 1970-01-01, in years that begin in March so that the leap day is
/// the last one.
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(parts: &[&[u8]]) -> String {
        let mut cutter = LineCutter::new(Stream::Stdout);
        let mut out = Vec::new();
        for part in parts {
            cutter.push("T", part, &mut out);
        }
        cutter.finish("T", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn stamps_are_rfc_3339_in_milliseconds() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(951_782_400_001), "2000-02-29T00:00:00.001Z");
        assert_eq!(stamp(1_795_169_700_123), "2026-11-20T10:15:00.123Z");
        assert_eq!(stamp(4_102_444_799_999), "2099-12-31T23:59:59.999Z");
    }

    #[test]
    fn lines_are_joined_over_reads_and_the_last_needs_no_newline() {
        assert_eq!(
            cut(&[b"on", b"e\ntwo\n", b"\nthr", b"ee"]),
            "T stdout one\nT stdout two\nT stdout \nT stdout three\n"
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_says_so() {
        let long = vec![b'x'; LINE_MAX + 3];
        let text = cut(&[&long, b"\n"]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], format!("T stdout+ {}", "x".repeat(LINE_MAX)));
        assert_eq!(lines[1], "T stdout xxx");
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_however_reads_are_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..2_000),
            step in 1usize..700,
        ) {
            let whole = {
                let mut cutter = LineCutter::new(Stream::Stderr);
                let mut out = Vec::new();
                let lines = cutter.push("", &bytes, &mut out) + cutter.finish("", &mut out);
                prop_assert_eq!(lines, out.split_inclusive(|b| *b == b'\n').count() as u64);
                out
            };
            let mut cutter = LineCutter::new(Stream::Stderr);
            let mut parts = Vec::new();
            for part in bytes.chunks(step) {
                cutter.push("", part, &mut parts);
            }
            cutter.finish("", &mut parts);
            prop_assert_eq!(&parts, &whole);
            let text: Vec<u8> = whole
                .split_inclusive(|b| *b == b'\n')
                .flat_map(|line| line[" stderr ".len()..].iter().copied())
                .collect();
            let mut expected = bytes.clone();
            if !expected.is_empty() && expected.last() != Some(&b'\n') {
                expected.push(b'\n');
            }
            prop_assert_eq!(text, expected);
        }
    }
}
