//! From a process's log as its host keeps it (`TIMESTAMP stdout TEXT`) to the output as the process wrote it.
//!
//! A line that was cut because of its length is marked `stdout+` and goes on in the next: here it is one again. Lines of
//! `ostler` itself tell what was lost, and are no output. What does not look like such a line is passed on as it is:
//! nothing of a log is ever left out here.

/// A line that does not end within so much is no line of a log, whose longest is 16 KiB; memory stays bounded.
const LINE_MAX: usize = 64 << 10;
/// How long a time is: `2026-11-20T10:15:00.123Z`.
const STAMP: usize = 24;

/// What a log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Output.
    Text(&'a [u8]),
    /// Something about the output.
    Note(&'a [u8]),
}

/// Cuts what arrives into lines. Keeps only the line that has not ended yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
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
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                tell(said(&self.partial))?;
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// Nothing more arrives: what is left of a line.
    ///
    /// # Errors
    /// That of `tell`.
    pub fn finish<E>(&mut self, tell: impl FnOnce(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let rest = std::mem::take(&mut self.partial);
        if rest.is_empty() { Ok(()) } else { tell(said(&rest)) }
    }
}

fn said(line: &[u8]) -> Piece<'_> {
    let Some((source, text)) = split(line) else { return Piece::Text(line) };
    match source {
        b"stdout" | b"stderr" => Piece::Text(text),
        b"stdout+" | b"stderr+" => Piece::Text(text.strip_suffix(b"\n").unwrap_or(text)),
        b"ostler" => Piece::Note(text.strip_suffix(b"\n").unwrap_or(text)),
        _ => Piece::Text(line),
    }
}

/// The source and the text of a line.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (stamp, rest) = line.split_at_checked(STAMP)?;
    let is_stamp = stamp.get(4) == Some(&b'-') && stamp.get(10) == Some(&b'T') && stamp.ends_with(b"Z");
    let rest = rest.strip_prefix(b" ")?;
    let end = rest.iter().position(|b| *b == b' ')?;
    let (source, text) = rest.split_at(end);
    is_stamp.then_some((source, text.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-20T10:15:00.123Z";

    /// What is told of a log that arrives in parts of `size`: output, and notes in brackets.
    fn told(log: &str, size: usize) -> String {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let mut tell = |piece: Piece<'_>| {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Note(text) => out.extend([b"[", text, b"]"].concat()),
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
            "{AT} stdout one\n{AT} stderr  two\n{AT} stdout \n{AT} stdout+ thr\n{AT} stdout ee\n\
             {AT} ostler 3 lines lost: disk full\n{AT} stdout end"
        );
        for size in [1, 7, 4_096] {
            assert_eq!(told(&log, size), "one\n two\n\nthree\n[3 lines lost: disk full]end");
        }
    }

    #[test]
    fn what_is_no_line_of_a_log_is_passed_on() {
        for text in ["", "\n", "plain\n", &format!("{AT}\n"), &format!("{AT} stdout"), &format!("{AT} x y\n")]
        {
            assert_eq!(told(text, 5), text);
        }
        let endless = "x".repeat(3 * LINE_MAX + 1);
        assert_eq!(told(&endless, 1_000), endless);
    }
}
