//! Whether a text is written in the syntax that its reader expects.
//!
//! Pure, and the same on every machine, as rendering is: controllers check what they admit, agents check what they are
//! about to put in place. Nothing is built that the text does not contain: aliases of YAML are not expanded.
//!
//! Guarantees: a refusal names line and column; time and memory are bounded by the size of the text ([`MAX_CHECKED`]
//! and [`MAX_TOML`]), and nesting by [`MAX_DEPTH`], whatever the bytes are.
//!
//! Not here: what the values mean. That is known to the program that reads them, and asked of it by a command.

use std::fmt;

use ostler_schemas::spec::Syntax;

mod ini;
mod json;
mod toml_text;
mod yaml;

#[cfg(test)]
mod tests;

/// Largest text that is checked: the largest content of a file.
pub const MAX_CHECKED: usize = 8 << 20;
/// Largest TOML text that is checked. Its parser keeps every value with its place, up to a hundred bytes for each byte
/// of text: more than this would be felt on a small host.
pub const MAX_TOML: usize = 1 << 20;
/// How deep lists and maps may lie in one another: no reader that is in use takes more.
pub const MAX_DEPTH: usize = 128;
/// Longest reason that is told: parsers quote what they found.
const WORDS: usize = 200;

/// A text that is not written in the syntax that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct Misspelt {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// Of which syntax it is none.
    pub syntax: Syntax,
    /// Why.
    pub why: String,
}

impl fmt::Display for Misspelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: is not {}: {}", self.line, self.column, self.syntax, self.why)
    }
}

impl Misspelt {
    /// Without what the parser says: of a text with a secret in it, that may be a part of the secret.
    #[must_use]
    pub fn discreet(&self) -> String {
        format!("line {}, column {}: is not {}", self.line, self.column, self.syntax)
    }
}

/// Where and why, before it is said of which syntax.
struct Fault {
    line: usize,
    column: usize,
    why: String,
}

impl Fault {
    fn at(text: &str, offset: usize, why: impl Into<String>) -> Fault {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Fault { line, column, why: why.into() }
    }
}

/// Checks a text.
///
/// # Errors
/// Where and why it is not written so.
pub fn check(syntax: Syntax, bytes: &[u8]) -> Result<(), Misspelt> {
    examine(syntax, bytes).map_err(|Fault { line, column, why }| {
        let why = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect();
        Misspelt { line: line.max(1), column: column.max(1), syntax, why }
    })
}

fn examine(syntax: Syntax, bytes: &[u8]) -> Result<(), Fault> {
    let most = match syntax {
        Syntax::Toml => MAX_TOML,
        Syntax::Json | Syntax::Yaml | Syntax::Ini | Syntax::Unknown => MAX_CHECKED,
    };
    if bytes.len() > most {
        let why =
            format!("it has {} bytes, and is checked up to {most}; check it with a command", bytes.len());
        return Err(Fault { line: 1, column: 1, why });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let found = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
            return Err(Fault::at(good, good.len(), format!("byte 0x{found:02x} is not UTF-8")));
        }
    };
    match syntax {
        Syntax::Json => json::check(text),
        Syntax::Yaml => yaml::check(text),
        Syntax::Toml => toml_text::check(text),
        Syntax::Ini => ini::check(text),
        // A bad file must never exist: what cannot be checked is not written.
        Syntax::Unknown => Err(Fault::at("", 0, "this version does not know the syntax")),
    }
}
