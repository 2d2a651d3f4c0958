//! What is wrong with a manifest, where, and what to write instead; and how a refusal is told.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;

/// Where something stands: line and column count from 1; 0 means that the place is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl Place {
    /// Whether there is a place at all.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.line > 0
    }
}

/// What sort of refusal a finding is. Programs decide by it; its names never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are the codes of CONTRACT.md 1.5, described there")]
pub enum FindingCode {
    UnknownField,
    MissingField,
    BadType,
    BadValue,
    OutOfRange,
    BadChoice,
    Conflicting,
    Duplicate,
    Immutable,
    NotFound,
    NotSupported,
    Conflict,
    PathConflict,
    Unrenderable,
    Forbidden,
    QuotaExceeded,
    TooLarge,
    /// A code of a newer server.
    #[serde(other)]
    Unknown,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The file it stands in, as the user named it.
    #[serde(default)]
    pub file: Option<String>,
    /// The line, from 1; 0 if there is none.
    pub line: u32,
    /// The column, from 1; 0 if there is none.
    pub column: u32,
    /// The object: `deployment/web`. Empty when the text could not be read so far.
    pub object: String,
    /// The path of the field: `spec.template.spec.ports[0].port`. Empty when the whole document is meant.
    pub field: String,
    /// What sort of refusal it is.
    pub code: FindingCode,
    /// What was found and what is expected.
    pub message: String,
    /// What to do, where the message alone does not say it.
    #[serde(default)]
    pub hint: Option<String>,
}

impl Finding {
    /// The whole of a request is too large: no object and no place has it.
    #[must_use]
    pub fn too_much(message: String) -> Self {
        Self {
            file: None,
            line: 0,
            column: 0,
            object: String::new(),
            field: String::new(),
            code: FindingCode::TooLarge,
            message,
            hint: Some("split it into parts that may take effect apart".to_owned()),
        }
    }
}

impl fmt::Display for Finding {
    /// `FILE:LINE:COLUMN: KIND/NAME: FIELD: MESSAGE`; parts that are not known are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Place { line: self.line, column: self.column };
        match (&self.file, place.is_known()) {
            (Some(file), true) => write!(f, "{}:{}:{}: ", one_line(file), self.line, self.column)?,
            (Some(file), false) => write!(f, "{}: ", one_line(file))?,
            (None, true) => write!(f, "{}:{}: ", self.line, self.column)?,
            (None, false) => {}
        }
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{}: ", one_line(part))?;
            }
        }
        f.write_str(&one_line(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "; {}", one_line(hint)),
            None => Ok(()),
        }
    }
}

/// One finding is one line, and a terminal does nothing but show it, whatever a manifest holds.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Everything that is wrong with one `apply`. Nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In the order of files, then of places.
    pub findings: Vec<Finding>,
    /// How many documents have findings.
    pub refused: usize,
    /// How many documents there are.
    pub documents: usize,
}

impl Refusal {
    /// Whether anything was refused for want of permission; such a refusal has an exit code of its own.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.findings.iter().any(|finding| finding.code == FindingCode::Forbidden)
    }

    /// The form of `-o json`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        json!({ "kind": "Refusal", "findings": self.findings })
    }

    /// The last line of the text form.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = self.findings.len();
        let findings = if count == 1 { "finding" } else { "findings" };
        let documents = if self.documents == 1 { "document" } else { "documents" };
        format!(
            "refused: {count} {findings} in {} of {} {documents}; nothing was changed",
            self.refused, self.documents
        )
    }
}

impl fmt::Display for Refusal {
    /// One line for each finding, then the summary; no line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        f.write_str(&self.summary())
    }
}

impl std::error::Error for Refusal {}
