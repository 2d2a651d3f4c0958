//! Files of variables (`environmentFile`), read as systemd reads them (systemd.exec(5), `EnvironmentFile=`).
//!
//! One `NAME=value` in a line; empty lines and those that begin with `#` or `;` are skipped; white space around a
//! value is dropped; `\` before the end of a line joins the next one. In single quotes everything is text, in double
//! quotes `\` takes its meaning from `"`, `\`, `$` and a back quote; without quotes from anything. Nothing is expanded.
//!
//! Also as systemd, a line that is no assignment (`export A=1`) is passed over; its number is given back, so that
//! somebody can say so.

use std::iter::Peekable;
use std::str::Chars;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileVariables {
    /// Names and values, in order.
    pub variables: Vec<(String, String)>,
    /// Lines that are no assignments, from 1.
    pub passed_over: Vec<usize>,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Quotes that do not end.
    #[error("line {line}: the quotes are not closed")]
    OpenQuotes {
        /// Where they begin.
        line: usize,
    },
    /// A name that only Ostler gives values to.
    #[error("line {line}: {name} is a variable of Ostler's own")]
    Reserved {
        /// Where.
        line: usize,
        /// The name.
        name: String,
    },
    /// A zero byte, which no variable can have.
    #[error("line {line}: there is a zero byte in it")]
    ZeroByte {
        /// Where.
        line: usize,
    },
}

/// Reads a file.
///
/// # Errors
/// [`FileError`], with the number of the line.
pub fn parse(text: &str) -> Result<FileVariables, FileError> {
    let mut reader = Reader { chars: text.chars().peekable(), line: 1 };
    let mut all = FileVariables::default();
    while let Some(first) = reader.chars.peek().copied() {
        match first {
            '\n' | '\r' | ' ' | '\t' => {
                reader.next();
            }
            '#' | ';' => reader.skip_line(),
            _ => assignment(&mut reader, &mut all)?,
        }
    }
    Ok(all)
}

fn assignment(reader: &mut Reader<'_>, all: &mut FileVariables) -> Result<(), FileError> {
    let line = reader.line;
    let mut name = String::new();
    while let Some(next) = reader.chars.peek().copied().filter(|next| *next != '\n') {
        reader.next();
        if next == '=' {
            let value = reader.value()?;
            let name = name.trim_end();
            if !is_name(name) {
                all.passed_over.push(line);
            } else if name.starts_with("OSTLER_") {
                return Err(FileError::Reserved { line, name: name.to_owned() });
            } else if value.contains('\0') {
                return Err(FileError::ZeroByte { line });
            } else {
                all.variables.push((name.to_owned(), value));
            }
            return Ok(());
        }
        name.push(next);
    }
    all.passed_over.push(line);
    Ok(())
}

fn is_name(name: &str) -> bool {
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|next| next != '\n') {}
    }

    fn value(&mut self) -> Result<String, FileError> {
        let mut value = String::new();
        // Quotes count only where a value, or another part of it after quotes, begins.
        while let Some(next) = self.chars.peek().copied() {
            match next {
                '\n' => break,
                '\'' | '"' => {
                    self.next();
                    self.quoted(next, &mut value)?;
                }
                ' ' | '\t' | '\r' => {
                    self.next();
                }
                _ => self.bare(&mut value),
            }
        }
        Ok(value)
    }

    /// Up to the end of the line, without the white space there.
    fn bare(&mut self, value: &mut String) {
        let mut kept = value.len();
        while let Some(next) = self.chars.peek().copied().filter(|next| *next != '\n') {
            self.next();
            if next == '\\' {
                // At the end of a line it joins the next one.
                if let Some(escaped) = self.next().filter(|escaped| *escaped != '\n') {
                    value.push(escaped);
                    kept = value.len();
                }
                continue;
            }
            value.push(next);
            if !matches!(next, ' ' | '\t' | '\r') {
                kept = value.len();
            }
        }
        value.truncate(kept);
    }

    fn quoted(&mut self, quote: char, value: &mut String) -> Result<(), FileError> {
        let line = self.line;
        while let Some(next) = self.next() {
            if next == quote {
                return Ok(());
            }
            if next != '\\' || quote == '\'' {
                value.push(next);
                continue;
            }
            match self.next() {
                Some('\n') | None => {}
                Some(escaped @ ('"' | '\\' | '$' | '`')) => value.push(escaped),
                Some(other) => value.extend(['\\', other]),
            }
        }
        Err(FileError::OpenQuotes { line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).expect("reads").variables
    }

    fn value(text: &str) -> String {
        read(text).pop().expect("a variable").1
    }

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        for (text, expected) in [
            ("A=1\n", "1"),
            ("  A = two words  \n", "two words"),
            ("A=", ""),
            ("A='a \\ b # $c'\n", "a \\ b # $c"),
            ("A=\"say \\\"hi\\\" \\$x \\n\"", "say \"hi\" $x \\n"),
            ("A=one\\\n  two\n", "one  two"),
            ("A=a\\ b\\\\c", "a b\\c"),
            ("A=it's # no comment", "it's # no comment"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A='a' \"b\"", "ab"),
            ("A=b=c\r\n", "b=c"),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn comments_and_what_is_no_assignment_are_passed_over() {
        let all = parse("# A=1\n;B=2\n\nC=3\nexport D=4\nnothing\n1E=5\nF=6").expect("reads");
        assert_eq!(all.passed_over, [5, 6, 7]);
        let names: Vec<&str> = all.variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["C", "F"]);
    }

    #[test]
    fn what_would_be_wrong_is_refused_with_its_line() {
        assert_eq!(parse("A=1\nB=\"x\n\n"), Err(FileError::OpenQuotes { line: 2 }));
        let reserved = FileError::Reserved { line: 1, name: "OSTLER_UID".to_owned() };
        assert_eq!(parse("OSTLER_UID=1"), Err(reserved));
        assert_eq!(parse("A=\0"), Err(FileError::ZeroByte { line: 1 }));
    }
}
