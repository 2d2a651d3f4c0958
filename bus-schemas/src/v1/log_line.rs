//! One line of a process's log, as hosts keep it and as it travels (docs/logs.md).
//!
//! Format 2, byte for byte what container runtimes write: `TIME STREAM FLAG TEXT`, with the time in UTC with
//! microseconds, the stream `stdout` or `stderr`, and the flag `F` for a whole line or `P` for a part whose rest is the
//! next line of the same stream. Lines whose stream is `ostler` are said by the host itself: see [`Note`]. Format 1,
//! of older holders, has milliseconds and no flag; a part has a `+` after its stream. Which of the two a line is shows
//! by the length of its time, so that both may be in one file.
//!
//! Reading never fails: what is no such line is nothing ([`parse`] gives `None`), and whoever reads shows it as it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Uid;

/// The format that is written.
pub const FORMAT: u32 = 2;

/// The longest text of a line, so that an endless one costs bounded memory: 16 KiB, as container runtimes cut them.
pub const TEXT_MAX: usize = 16 << 10;

/// Most bytes of a line of either format, its newline included.
pub const LINE_MAX: usize = TEXT_MAX + 64;

/// A time as it is written: `2026-11-20T10:15:00.123456Z`.
pub type Stamp = [u8; STAMP];

const STAMP: usize = 27;
/// `2026-11-20T10:15:00.123Z`.
const STAMP_1: usize = 24;
const DAY_US: u64 = 86_400_000_000;

/// Which of its outputs a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl FromStr for LogStream {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            other => Err(format!("{other:?} is no stream: write stdout or stderr")),
        }
    }
}

/// Who says a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The process.
    Process(LogStream),
    /// The host: a [`Note`].
    Host,
}

/// A line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was read from the process, in microseconds since 1970.
    pub at_us: u64,
    /// Who says it.
    pub source: Source,
    /// Its rest is the next line of the same stream.
    pub partial: bool,
    /// What it says, without the newline.
    pub text: &'a [u8],
}

/// What a host says about a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The first line of each file: the how-manieth it is, and how many bytes all earlier ones had.
    Part {
        /// Its number, from 1.
        part: u64,
        /// Bytes of all files before it, whether they are still kept or not.
        after: u64,
    },
    /// An incarnation begins.
    Begins {
        /// The process.
        uid: Uid,
        /// Its how-manieth start.
        incarnation: u64,
    },
    /// Lines are missing here.
    Lost {
        /// How many.
        lines: u64,
        /// Why.
        why: String,
    },
    /// Bytes of a file that went before they were read; only on the way to a reader, never in a file.
    Overtaken {
        /// How many; none if that cannot be known.
        bytes: Option<u64>,
    },
    /// Something that a newer host says.
    Other(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { part, after } => write!(f, "log format={FORMAT} part={part} after={after}"),
            Self::Begins { uid, incarnation } => write!(f, "incarnation {incarnation} of {uid} begins"),
            Self::Lost { lines, why } => write!(f, "{lines} lines lost: {why}"),
            Self::Overtaken { bytes: Some(bytes) } => {
                write!(f, "{bytes} bytes lost: rotated away before they were read")
            }
            Self::Overtaken { bytes: None } => {
                f.write_str("an unknown number of bytes lost: rotated away before they were read")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Note {
    /// Reads the text of a line whose source is the host.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let words: Vec<&str> = text.split(' ').collect();
        let known = match words.as_slice() {
            ["log", _, part, after] => number_after(part, "part=")
                .zip(number_after(after, "after="))
                .map(|(part, after)| Self::Part { part, after }),
            ["incarnation", incarnation, "of", uid, "begins"] => uid
                .parse()
                .ok()
                .zip(incarnation.parse().ok())
                .map(|(uid, incarnation)| Self::Begins { uid, incarnation }),
            [lines, "lines", "lost:", why @ ..] => {
                lines.parse().ok().map(|lines| Self::Lost { lines, why: why.join(" ") })
            }
            ["an", "unknown", "number", "of", "bytes", ..] => Some(Self::Overtaken { bytes: None }),
            [bytes, "bytes", "lost:", ..] => {
                bytes.parse().ok().map(|bytes| Self::Overtaken { bytes: Some(bytes) })
            }
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other(text.into_owned()))
    }

    /// The whole line.
    #[must_use]
    pub fn line(&self, at_us: u64) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, &stamp(at_us), (Source::Host, false), &[self.to_string().as_bytes()]);
        out
    }
}

fn number_after(word: &str, prefix: &str) -> Option<u64> {
    word.strip_prefix(prefix)?.parse().ok()
}

/// Appends a line of format 2 whose text is given in parts.
pub fn push(out: &mut Vec<u8>, stamp: &Stamp, (source, partial): (Source, bool), text: &[&[u8]]) {
    out.extend_from_slice(stamp);
    out.extend_from_slice(match (source, partial) {
        (Source::Process(LogStream::Stdout), false) => b" stdout F ",
        (Source::Process(LogStream::Stdout), true) => b" stdout P ",
        (Source::Process(LogStream::Stderr), false) => b" stderr F ",
        (Source::Process(LogStream::Stderr), true) => b" stderr P ",
        (Source::Host, false | true) => b" ostler F ",
    });
    for part in text {
        out.extend_from_slice(part);
    }
    out.push(b'\n');
}

/// Reads a line of either format, with or without its newline.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if let Some(at_us) = line.get(..STAMP).and_then(read_stamp) {
        let rest = line.get(STAMP..)?;
        let (word, text) = rest.split_at_checked(10)?;
        let (source, partial) = match word {
            b" stdout F " => (Source::Process(LogStream::Stdout), false),
            b" stdout P " => (Source::Process(LogStream::Stdout), true),
            b" stderr F " => (Source::Process(LogStream::Stderr), false),
            b" stderr P " => (Source::Process(LogStream::Stderr), true),
            b" ostler F " => (Source::Host, false),
            _ => return None,
        };
        return Some(Line { at_us, source, partial, text });
    }
    let at_us = line.get(..STAMP_1).and_then(read_stamp)?;
    let rest = line.get(STAMP_1..)?.strip_prefix(b" ")?;
    let end = rest.iter().position(|b| *b == b' ')?;
    let (source, partial) = match rest.get(..end)? {
        b"stdout" => (Source::Process(LogStream::Stdout), false),
        b"stdout+" => (Source::Process(LogStream::Stdout), true),
        b"stderr" => (Source::Process(LogStream::Stderr), false),
        b"stderr+" => (Source::Process(LogStream::Stderr), true),
        b"ostler" => (Source::Host, false),
        _ => return None,
    };
    Some(Line { at_us, source, partial, text: rest.get(end + 1..)? })
}

/// How a moment is written; the year 9999 is the last.
#[must_use]
pub fn stamp(unix_us: u64) -> Stamp {
    // The last microsecond that has four digits of years.
    let us = unix_us.min(253_402_300_799_999_999);
    let (year, month, day) = civil(us / DAY_US);
    let in_day = us % DAY_US;
    let (seconds, fraction) = (in_day / 1_000_000, in_day % 1_000_000);
    let mut out = *b"0000-00-00T00:00:00.000000Z";
    let fields = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, seconds / 3_600),
        (14, 2, seconds / 60 % 60),
        (17, 2, seconds % 60),
        (20, 6, fraction),
    ];
    for (at, digits, mut value) in fields {
        for digit in out.iter_mut().skip(at).take(digits).rev() {
            *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
        }
    }
    out
}

/// The moment of a time of either format.
fn read_stamp(text: &[u8]) -> Option<u64> {
    let shape = |at: usize, byte: u8| text.get(at) == Some(&byte);
    let well = shape(4, b'-') && shape(7, b'-') && shape(10, b'T') && shape(13, b':') && shape(16, b':');
    if !well || !shape(19, b'.') || text.last() != Some(&b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| {
        text.get(from..to)?
            .iter()
            .try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
    };
    let fraction = number(20, text.len() - 1)?;
    let fraction = if text.len() == STAMP { fraction } else { fraction * 1_000 };
    let days = days_of(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days * DAY_US + (hour * 3_600 + minute * 60 + second) * 1_000_000 + fraction)
}

/// The date of the day with this number since 1970-01-01, in years that begin in March so that the leap day is the
/// last one.
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

/// The number of a day since 1970-01-01.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(at: u64) -> String {
        String::from_utf8(stamp(at).to_vec()).expect("digits")
    }

    #[test]
    fn stamps_are_rfc_3339_in_microseconds() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(text(1_795_169_700_123_456), "2026-11-20T10:15:00.123456Z");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn both_formats_are_read() {
        let line = parse(b"2026-11-20T10:15:00.123456Z stdout P text\n").expect("a line");
        assert_eq!((line.at_us, line.partial, line.text), (1_795_169_700_123_456, true, &b"text"[..]));
        let old = parse(b"2026-11-20T10:15:00.123Z stderr+ F x").expect("a line");
        assert_eq!((old.at_us, old.partial, old.text), (1_795_169_700_123_000, true, &b"F x"[..]));
        assert_eq!(old.source, Source::Process(LogStream::Stderr));
        let empty = parse(b"2026-11-20T10:15:00.123456Z stdout F \n").expect("a line");
        assert_eq!(empty.text, b"");
    }

    #[test]
    fn notes_are_read_as_they_are_written() {
        let uid: Uid = "0123456789abcdef0123456789abcdef".parse().expect("a uid");
        for note in [
            Note::Part { part: 17, after: 178_257_920 },
            Note::Begins { uid, incarnation: 3 },
            Note::Lost { lines: 7, why: "the disk was too slow".to_owned() },
            Note::Overtaken { bytes: Some(9) },
            Note::Overtaken { bytes: None },
            Note::Other("hello".to_owned()),
        ] {
            let line = note.line(5);
            let line = parse(&line).expect("a line");
            assert_eq!((Note::parse(line.text), line.source), (note, Source::Host));
        }
    }

    proptest! {
        #[test]
        fn times_are_read_as_they_are_written(at in 0u64..253_402_300_799_999_999) {
            prop_assert_eq!(read_stamp(&stamp(at)), Some(at));
        }

        #[test]
        fn garbage_is_no_line_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (parse(&bytes), Note::parse(&bytes));
        }

        #[test]
        fn what_is_nearly_a_line_is_no_panic(cut in 0usize..60, at in 0usize..50, byte in any::<u8>()) {
            let mut line = b"2026-11-20T10:15:00.123456Z stdout F some text\n".to_vec();
            if let Some(place) = line.get_mut(at) {
                *place = byte;
            }
            line.truncate(cut);
            let _ignored = parse(&line);
        }
    }
}
