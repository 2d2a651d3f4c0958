//! Why a template cannot be rendered, told by place.

use minijinja::{Error, ErrorKind};

use crate::limits::MAX_RENDERED;

/// Where and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{}", self.text())]
pub struct Unrenderable {
    /// Line, from 1; 0 if it is the whole.
    pub line: u32,
    /// Column in characters, from 1; 0 if it is not known.
    pub column: u32,
    /// Why.
    pub why: Why,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is no template.
    Syntax(String),
    /// It asks for something that is not there: this expression, where it can be told.
    Undefined(Option<String>),
    /// A secret cannot be had.
    Secret(String),
    /// It does, or makes, too much.
    TooMuch(String),
    /// Anything else.
    Other(String),
}

impl Unrenderable {
    pub(crate) fn too_large() -> Unrenderable {
        let message = format!("the rendered file is larger than {}Mi", MAX_RENDERED >> 20);
        Unrenderable { line: 0, column: 0, why: Why::TooMuch(message) }
    }

    /// Bytes that are no text.
    #[must_use]
    pub fn not_text() -> Unrenderable {
        Unrenderable { line: 0, column: 0, why: Why::Syntax("a template is UTF-8 text".to_owned()) }
    }

    pub(crate) fn of(error: &Error, source: &str, secret: Option<String>) -> Unrenderable {
        let range = error.range().filter(|r| r.start < r.end && r.end <= source.len());
        let range = range.map(|r| path_begin(source, r.start)..r.end);
        let line = error.line().and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
        let (line, column) = match range.as_ref().and_then(|r| source.get(..r.start)) {
            Some(before) => place(before),
            None => (line, 0),
        };
        let expression = range.and_then(|r| source.get(r)).map(str::trim).filter(|e| is_short(e));
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let why = match (secret, error.kind()) {
            (Some(why), _) => Why::Secret(why),
            (None, ErrorKind::SyntaxError | ErrorKind::BadEscape) => Why::Syntax(detail),
            (None, ErrorKind::UndefinedError) => Why::Undefined(expression.map(str::to_owned)),
            (None, ErrorKind::OutOfFuel) => {
                Why::TooMuch("it does too much: a loop too long or too many".to_owned())
            }
            (None, _) => Why::Other(detail),
        };
        Unrenderable { line, column, why }
    }

    /// The reason without the place.
    #[must_use]
    pub fn reason(&self) -> String {
        match &self.why {
            Why::Undefined(Some(expression)) => format!("{expression} is undefined"),
            Why::Undefined(None) => "a value is undefined".to_owned(),
            Why::Syntax(text) | Why::Secret(text) | Why::TooMuch(text) | Why::Other(text) => text.clone(),
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match &self.why {
            Why::Undefined(expression) => {
                let expression = expression.as_deref().unwrap_or("x");
                Some(format!("set it or write {{{{ {expression} | default(\"…\") }}}}"))
            }
            Why::Syntax(_) | Why::Secret(_) | Why::TooMuch(_) | Why::Other(_) => None,
        }
    }

    /// `line 3, column 14`, as far as it is known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        match (self.line, self.column) {
            (0, _) => None,
            (line, 0) => Some(format!("line {line}")),
            (line, column) => Some(format!("line {line}, column {column}")),
        }
    }

    fn text(&self) -> String {
        let place = self.place().map(|place| format!("{place}: ")).unwrap_or_default();
        let advice = self.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{place}{}{advice}", self.reason())
    }
}

/// Where the path begins that leads to a place: the engine points at the part that failed, people read the whole.
fn path_begin(source: &str, at: usize) -> usize {
    let is_path = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'[' | b']' | b'"' | b'\'');
    let before = source.as_bytes().get(..at).unwrap_or_default();
    let begin = at - before.iter().rev().take_while(|b| is_path(b)).count();
    if source.is_char_boundary(begin) { begin } else { at }
}

/// Line and column of what comes after a text.
fn place(before: &str) -> (u32, u32) {
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// An expression that fits a line of people.
fn is_short(expression: &str) -> bool {
    !expression.is_empty() && expression.len() <= 80 && !expression.contains('\n')
}
