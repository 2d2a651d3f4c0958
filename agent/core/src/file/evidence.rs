//! What a drift was: how contents differ, whose hand it was, and the words for both.
//!
//! Guarantees: bounded in size; what has a secret in it shows no line of it; a hand that is not known is said to be
//! unknown and why, never guessed. Not here: how contents are compared and who asks the kernel (the shell).

use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::report::{DriftReport, Writer};

use super::{Sight, Written};

/// Most bytes of a diff in a report: a screen of lines. The whole is on the host: `ostler-agent files diff`.
pub const DIFF_SHOWN: usize = 2048;
/// Why there is no diff of what has a secret in it.
const SECRET: &str = "it has a secret in it";

/// How one content differs from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Lines that came and lines that went; none where they were not compared.
    pub lines: Option<(u32, u32)>,
    /// A short unified diff, or why there is none.
    pub text: Result<String, String>,
}

/// Whose hand was at a path last, other than ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hand {
    /// Nobody asked.
    #[default]
    Unasked,
    /// The kernel told.
    Known(Writer),
    /// It did not, for this reason.
    Unknown(String),
}

impl Sight {
    /// Whose hand changed one of these files: one that is known, before reasons why none is.
    fn hand(&self, names: &[String]) -> &Hand {
        let seen = names.iter().filter_map(|name| self.parts.get(name).or_else(|| self.unlisted.get(name)));
        let hands: Vec<&Hand> = seen.map(|seen| &seen.hand).collect();
        let is_known = |hand: &&&Hand| matches!(hand, Hand::Known(_));
        let is_unknown = |hand: &&&Hand| matches!(hand, Hand::Unknown(_));
        let found = hands.iter().find(is_known).or_else(|| hands.iter().find(is_unknown));
        found.copied().unwrap_or(&Hand::Unasked)
    }

    /// Everything that is told of a drift, but for the numbers that the record keeps.
    pub(super) fn evidence(&self, at: Timestamp, target: &Written, is_secret: bool) -> DriftReport {
        let names: Vec<String> = self.differing(target).into_iter().map(|(name, _)| name).collect();
        let (writer, no_writer) = match self.hand(&names) {
            Hand::Unasked => (None, None),
            Hand::Known(writer) => (Some(writer.clone()), None),
            Hand::Unknown(why) => (None, Some(why.clone())),
        };
        let (mut lines, mut text, mut no_diff) = (None, String::new(), None);
        for name in &names {
            let Some(difference) = self.parts.get(name).and_then(|seen| seen.diff.as_ref()) else { continue };
            if let Some((came, went)) = difference.lines {
                let (before_came, before_went) = lines.unwrap_or((0u32, 0u32));
                lines = Some((before_came.saturating_add(came), before_went.saturating_add(went)));
            }
            match &difference.text {
                _ if is_secret => no_diff = Some(SECRET.to_owned()),
                Ok(diff) if name.is_empty() => text.push_str(diff),
                Ok(diff) => text.push_str(&format!("--- {name}\n{diff}")),
                Err(why) => no_diff = Some(why.clone()),
            }
        }
        let diff = (!text.is_empty()).then(|| shortened(text));
        DriftReport {
            at,
            what: self.differences(target),
            diff,
            lines,
            no_diff,
            writer,
            no_writer,
            ..DriftReport::default()
        }
    }
}

/// Whole lines of a text, as many as are shown.
#[must_use]
pub fn shortened(mut text: String) -> String {
    if text.len() <= DIFF_SHOWN {
        return text;
    }
    let mut end = DIFF_SHOWN;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let end = text[..end].rfind('\n').map_or(end, |at| at + 1);
    let left = text[end..].lines().count();
    text.truncate(end);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("… ({left} more lines)\n"));
    text
}

/// `3 lines`, `mode`, `the missing file`.
pub(super) fn what_text(drift: &DriftReport) -> String {
    let lines = drift.lines.map(|(came, went)| came.max(went)).filter(|lines| *lines > 0);
    match (drift.what.as_str(), lines) {
        ("missing", _) => "the missing file".to_owned(),
        (what, Some(lines)) if what == "content" || what.starts_with("content, ") => {
            let word = if lines == 1 { "line" } else { "lines" };
            format!("{lines} {word}{}", what.strip_prefix("content").unwrap_or_default())
        }
        (what, _) => what.to_owned(),
    }
}

/// `written by python3.11 (pid 8123, uid 1001 deploy)`, or why that is not known; none if nobody asked.
pub(super) fn hand_text(drift: &DriftReport) -> Option<String> {
    let verb = match drift.what.as_str() {
        "missing" => "removed",
        "mode" | "owner" | "mode, owner" => "changed",
        _ => "written",
    };
    let known = drift.writer.as_ref().map(|writer| format!("{verb} by {}", writer.text()));
    known.or_else(|| drift.no_writer.as_ref().map(|why| format!("writer unknown ({why})")))
}

/// `other writer python3.11 (ansible), uid 1001`.
pub(super) fn rival_text(drift: Option<&DriftReport>) -> String {
    let writer = drift.and_then(|drift| drift.writer.as_ref());
    let why = drift.and_then(|drift| drift.no_writer.as_ref());
    match (writer, why) {
        (Some(writer), _) => format!("other writer {}", writer.short_text()),
        (None, Some(why)) => format!("other writer unknown ({why})"),
        (None, None) => "another writer changes it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_diff_is_cut_at_a_line_and_says_so() {
        let long = "+a line of some length\n".repeat(200);
        let short = shortened(long);
        assert!(short.len() < DIFF_SHOWN + 40 && short.ends_with(" more lines)\n"), "{short}");
        let shown = short.lines().count() - 1;
        assert!(short.contains(&format!("({} more lines)", 200 - shown)));
        assert_eq!(shortened("+é".to_owned()), "+é");
        let wide = shortened("é".repeat(DIFF_SHOWN));
        assert!(wide.contains("more lines"), "one line without an end is cut between characters");
    }

    #[test]
    fn words_say_what_is_known_and_no_more() {
        let mut drift =
            DriftReport { what: "content, mode".to_owned(), lines: Some((1, 3)), ..DriftReport::default() };
        assert_eq!((what_text(&drift), hand_text(&drift)), ("3 lines, mode".to_owned(), None));
        drift.no_writer = Some("needs CAP_SYS_ADMIN".to_owned());
        assert_eq!(hand_text(&drift).as_deref(), Some("writer unknown (needs CAP_SYS_ADMIN)"));
        drift.writer = Some(Writer { pid: 9, ..Writer::default() });
        drift.what = "missing".to_owned();
        assert_eq!(hand_text(&drift).as_deref(), Some("removed by pid 9"));
        assert_eq!(what_text(&drift), "the missing file");
    }
}
