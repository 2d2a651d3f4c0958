//! Unified diffs.

use similar::TextDiff;

/// Lines around a change.
const CONTEXT: usize = 3;

/// A unified diff with these names; empty when the texts are the same.
#[must_use]
pub fn unified(before: &str, after: &str, names: (&str, &str), colour: bool) -> String {
    if before == after {
        return String::new();
    }
    let text = TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(names.0, names.1)
        .to_string();
    if !colour {
        return text;
    }
    text.lines().fold(String::new(), |mut out, line| {
        let paint = match line.as_bytes().first() {
            Some(b'+') => Some("32"),
            Some(b'-') => Some("31"),
            Some(b'@') => Some("36"),
            Some(_) | None => None,
        };
        match paint {
            Some(code) => out.push_str(&format!("\x1b[{code}m{line}\x1b[0m\n")),
            None => out.push_str(&format!("{line}\n")),
        }
        out
    })
}
