//! INI: what its many readers have in common, since nobody has written its grammar down.
//!
//! A line is empty, a comment (`;` or `#`), a `[section]`, a `key = value` or `key: value`, a key alone (one word), a
//! directive (`!include …`), or goes on with the value before: it is indented, or the line before ends with `\`.

use super::Fault;

pub(super) fn check(text: &str) -> Result<(), Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((offset, c)) =
        text.char_indices().find(|(_, c)| c.is_control() && !"\t\n\r\u{c}".contains(*c))
    {
        return Err(Fault::at(text, offset, format!("has the control character U+{:04X}", u32::from(c))));
    }
    // Whether a value is open that the next line may go on with, and whether it must.
    let (mut may, mut must) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let is_indented = line.starts_with([' ', '\t']);
        let word = line.trim();
        let goes_on = must || (may && is_indented && !word.is_empty());
        must = line.ends_with('\\') && !word.starts_with([';', '#']);
        if goes_on || word.is_empty() || word.starts_with([';', '#']) {
            continue;
        }
        let column = line.chars().take_while(|c| c.is_whitespace()).count() + 1;
        may = judge(word).map_err(|why| Fault { line: number, column, why: why.to_owned() })?;
    }
    Ok(())
}

/// Whether a line opens a value; an error if it is nothing at all.
fn judge(word: &str) -> Result<bool, &'static str> {
    if let Some(rest) = word.strip_prefix('[') {
        let (name, after) = rest.split_once(']').ok_or("a section ends with ]")?;
        if name.trim().is_empty() {
            return Err("the section has no name");
        }
        let after = after.trim_start_matches(']').trim_start();
        return match after.is_empty() || after.starts_with([';', '#']) {
            true => Ok(false),
            false => Err("there is something after the ] of the section"),
        };
    }
    if word.starts_with('!') {
        return Ok(false);
    }
    match word.find(['=', ':']) {
        Some(0) => Err("the value has no key"),
        Some(_) => Ok(true),
        None if word.contains(char::is_whitespace) => Err("is no [section], no key = value and no comment"),
        None => Ok(true),
    }
}
