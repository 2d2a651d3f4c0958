//! From a process's log as its host keeps it (`ostler_schemas::v1::log_line`) to the output as the process wrote it.
//!
//! A line that was cut because of its length comes in parts: here it is one again. Lines of the host itself tell about
//! the log, and are no output. What does not look like such a line is passed on as it is: nothing of a log is ever left
//! out here.

use std::collections::BTreeMap;

use ostler_schemas::v1::log_line::{self, LogStream, Note, Source};

/// A line that does not end within so much is no line of a log; memory stays bounded.
const LINE_MAX: usize = 64 << 10;
/// Parts of one line are joined up to so much; what is longer is told in several pieces.
const JOINED_MAX: usize = 256 << 10;

/// What a log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Output.
    Text(Text<'a>),
    /// Something about the output.
    Note(Note),
}

/// Output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// When its end was read from the process, in microseconds since 1970; none of what is no line of a log.
    pub at_us: Option<u64>,
    /// Where the process wrote it.
    pub stream: Option<LogStream>,
    /// What it wrote, without the newline.
    pub text: &'a [u8],
    /// Whether a newline follows.
    pub ends: bool,
}

/// Cuts what arrives into lines. Keeps only lines that have not ended yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    parts: BTreeMap<LogStream, Vec<u8>>,
}

impl Lines {
    /// Takes what arrived; `tell` gets what it says, in order.
    ///
    /// # Errors
    /// The first of `tell`.
    pub fn push<E>(
        &mut self,
        bytes: &[u8],
        mut tell: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            if self.partial.is_empty() && part.ends_with(b"\n") {
                self.line(part, &mut tell)?;
                continue;
            }
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                let line = std::mem::take(&mut self.partial);
                self.line(&line, &mut tell)?;
            }
        }
        Ok(())
    }

    /// Nothing more arrives: what is left of lines.
    ///
    /// # Errors
    /// That of `tell`.
    pub fn finish<E>(&mut self, mut tell: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            self.line(&rest, &mut tell)?;
        }
        for (stream, text) in std::mem::take(&mut self.parts) {
            tell(Piece::Text(Text { at_us: None, stream: Some(stream), text: &text, ends: false }))?;
        }
        Ok(())
    }

    fn line<E>(&mut self, line: &[u8], tell: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let (body, ends) = match line.split_last() {
            Some((b'\n', body)) => (body, true),
            Some(_) | None => (line, false),
        };
        let Some(read) = log_line::parse(body) else {
            return tell(Piece::Text(Text { at_us: None, stream: None, text: body, ends }));
        };
        let stream = match read.source {
            Source::Host => return tell(Piece::Note(Note::parse(read.text))),
            Source::Process(stream) => stream,
        };
        let (at_us, ends) = (Some(read.at_us), ends && !read.partial);
        match self.parts.remove(&stream) {
            None if ends => tell(Piece::Text(Text { at_us, stream: Some(stream), text: read.text, ends })),
            before => {
                let mut text = before.unwrap_or_default();
                text.extend_from_slice(read.text);
                if ends || text.len() > JOINED_MAX {
                    return tell(Piece::Text(Text { at_us, stream: Some(stream), text: &text, ends }));
                }
                self.parts.insert(stream, text);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-20T10:15:00.123456Z";
    const OLD: &str = "2026-11-20T10:15:00.123Z";

    /// What is told of a log that arrives in parts of `size`: output, and notes in brackets.
    fn told(log: &str, size: usize) -> String {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let mut tell = |piece: Piece<'_>| {
            match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text.text);
                    out.extend_from_slice(if text.ends { b"\n" } else { b"" });
                }
                Piece::Note(note) => out.extend_from_slice(format!("[{note}]").as_bytes()),
            }
            Ok::<(), ()>(())
        };
        for part in log.as_bytes().chunks(size) {
            lines.push(part, &mut tell).expect("told");
        }
        lines.finish(&mut tell).expect("told");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn output_is_as_the_process_wrote_it() {
        let log = format!(
            "{AT} stdout F one\n{AT} stderr F  two\n{AT} stdout F \n{AT} stdout P thr\n{AT} stderr F err\n\
             {AT} stdout F ee\n{AT} ostler F 3 lines lost: disk full\n{AT} stdout F end"
        );
        for size in [1, 7, 4_096] {
            assert_eq!(told(&log, size), "one\n two\n\nerr\nthree\n[3 lines lost: disk full]end");
        }
    }

    #[test]
    fn so_is_that_of_older_hosts() {
        let log = format!(
            "{OLD} stdout one\n{OLD} stdout+ thr\n{OLD} stdout ee\n{OLD} ostler 3 lines lost: disk full\n"
        );
        for size in [1, 7, 4_096] {
            assert_eq!(told(&log, size), "one\nthree\n[3 lines lost: disk full]");
        }
    }

    #[test]
    fn what_is_no_line_of_a_log_is_passed_on() {
        for text in
            ["", "\n", "plain\n", &format!("{AT}\n"), &format!("{AT} stdout"), &format!("{AT} x F y\n")]
        {
            assert_eq!(told(text, 5), text);
        }
        let endless = "x".repeat(3 * LINE_MAX + 1);
        assert_eq!(told(&endless, 1_000), endless);
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let part = format!("{AT} stdout P {}\n", "x".repeat(16 << 10));
        let text = told(&part.repeat(100), 100_000);
        assert_eq!(text.len(), 100 * (16 << 10));
    }
}
