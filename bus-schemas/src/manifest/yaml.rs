//! Values as YAML, in clean block style: what `get -o yaml` shows and `apply` takes back.

use serde_json::{Map, Value as Json};

use super::tree::{Scalar, ScalarType};

/// Writes a value as a YAML document, with a line break at the end.
///
/// Reading it again gives the same value. Text stands plain only where no reader of YAML 1.1 or 1.2 takes it for
/// anything else, and as a `|` block when it has several lines.
#[must_use]
pub fn to_yaml(value: &Json) -> String {
    let mut out = String::new();
    match value {
        Json::Object(map) if !map.is_empty() => write_map(&mut out, map, 0),
        Json::Array(items) if !items.is_empty() => write_list(&mut out, items, 0),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => {
            write_inline(&mut out, value, 0);
        }
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

const STEP: usize = 2;
/// A key before a colon may have 1,024 characters in YAML; a longer one stands alone after a question mark.
const LONGEST_KEY: usize = 1_000;

fn indent(out: &mut String, by: usize) {
    out.extend(std::iter::repeat_n(' ', by));
}

fn write_map(out: &mut String, map: &Map<String, Json>, at: usize) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            indent(out, at);
        }
        let key = one_line(key);
        let is_long = key.len() > LONGEST_KEY;
        if is_long {
            out.push_str("? ");
        }
        out.push_str(&key);
        if is_long {
            out.push('\n');
            indent(out, at);
        }
        out.push(':');
        match value {
            Json::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                indent(out, at + STEP);
                write_map(out, inner, at + STEP);
            }
            Json::Array(items) if !items.is_empty() => {
                // Where a key stands alone its value must stand further in.
                let inside = if is_long { at + STEP } else { at };
                out.push('\n');
                indent(out, inside);
                write_list(out, items, inside);
            }
            Json::Null
            | Json::Bool(_)
            | Json::Number(_)
            | Json::String(_)
            | Json::Array(_)
            | Json::Object(_) => {
                out.push(' ');
                write_inline(out, value, at + STEP);
            }
        }
    }
}

fn write_list(out: &mut String, items: &[Json], at: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            indent(out, at);
        }
        out.push_str("- ");
        match item {
            Json::Object(map) if !map.is_empty() => write_map(out, map, at + STEP),
            Json::Array(inner) if !inner.is_empty() => write_list(out, inner, at + STEP),
            Json::Null
            | Json::Bool(_)
            | Json::Number(_)
            | Json::String(_)
            | Json::Array(_)
            | Json::Object(_) => {
                write_inline(out, item, at + STEP);
            }
        }
    }
}

/// A scalar or something empty, to the end of its line or block; `at` is where lines of a block begin.
fn write_inline(out: &mut String, value: &Json, at: usize) {
    match value {
        Json::String(text) if is_block(text) => {
            write_block(out, text, at.max(STEP));
            return;
        }
        Json::String(text) => out.push_str(&one_line(text)),
        Json::Null => out.push_str("null"),
        Json::Bool(flag) => out.push_str(&flag.to_string()),
        Json::Number(number) => out.push_str(&number.to_string()),
        Json::Array(_) => out.push_str("[]"),
        Json::Object(_) => out.push_str("{}"),
    }
    out.push('\n');
}

/// Whether text has lines that a block shows as they are. The first line must hold a character that is no space,
/// because from it readers take the indentation.
fn is_block(text: &str) -> bool {
    let printable = |c: char| c == '\n' || c == '\t' || is_plainly_printable(c);
    let first = text.split('\n').next().unwrap_or_default();
    text.contains('\n') && first.starts_with(|c: char| c != ' ' && c != '\t') && text.chars().all(printable)
}

fn write_block(out: &mut String, text: &str, at: usize) {
    let body = text.trim_end_matches('\n');
    let (mark, lines) = match text.len() - body.len() {
        0 => ("|-", body),
        1 => ("|", body),
        // Every line break at the end counts.
        _ => ("|+", &text[..text.len() - 1]),
    };
    out.push_str(mark);
    out.push('\n');
    for line in lines.split('\n') {
        if !line.is_empty() {
            indent(out, at);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// Text on one line: plain if nobody can misread it, else in double quotes.
fn one_line(text: &str) -> String {
    if is_safe_plain(text) { text.to_owned() } else { quote(text) }
}

fn is_safe_plain(text: &str) -> bool {
    /// Words that YAML 1.1 takes for booleans or merging, in any case.
    const OLD_WORDS: [&str; 7] = ["yes", "no", "on", "off", "y", "n", "="];
    let begins_well =
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '$' | '.'));
    // `-c` and `--listen` are words; `- c` and `---` are not.
    let dashes = text.trim_start_matches('-');
    let is_option = text.len() - dashes.len() <= 2 && dashes.starts_with(|c: char| c.is_ascii_alphabetic());
    let inside =
        |c: char| c.is_ascii_alphanumeric() || "/_$.-+@%=(),;<>^~ '\"&*!|?#:".contains(c) || c > '\u{a0}';
    (begins_well || is_option)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("...")
        && text.chars().all(|c| inside(c) && is_plainly_printable(c))
        && !OLD_WORDS.contains(&text.to_ascii_lowercase().as_str())
        && Scalar::plain(text.to_owned()).kind() == ScalarType::Text
        && !looks_numeric(text)
}

/// YAML 1.1 knows more numbers: `1_000`, `0b1`, `1:30`, dates. Text that is digits and marks only is quoted.
fn looks_numeric(text: &str) -> bool {
    let marks = |b: u8| b.is_ascii_digit() || b"_-+.:,eExXbBoOtTzZ ".contains(&b) || b.is_ascii_hexdigit();
    text.as_bytes().first().is_some_and(|b| b.is_ascii_digit() || *b == b'.') && text.bytes().all(marks)
}

/// Characters that are one visible character or a space to every reader.
fn is_plainly_printable(c: char) -> bool {
    let invisible =
        matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{85}' | '\u{a0}')
            || ('\u{200b}'..='\u{200f}').contains(&c)
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c);
    !c.is_control() && !invisible
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_plainly_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                out.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
