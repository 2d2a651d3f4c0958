//! Reading of templates. Nesting is that of `range` and filters; both are bounded.

use serde_json::Value;

use super::{Comparison, Filter, Part, Step};

/// Deeper nesting than anybody writes; recursion is bounded by it.
const MAX_DEPTH: usize = 16;

/// The parts of a template.
pub(super) fn template(text: &str) -> Result<Vec<Part>, String> {
    let mut rest = text;
    let parts = parts(&mut rest, 0)?;
    if rest.is_empty() { Ok(parts) } else { Err("{end} without {range}".to_owned()) }
}

fn parts(rest: &mut &str, depth: usize) -> Result<Vec<Part>, String> {
    if depth > MAX_DEPTH {
        return Err("ranges nest too deep".to_owned());
    }
    let mut out = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            out.push(Part::Text(std::mem::take(rest).to_owned()));
            break;
        };
        if open > 0 {
            out.push(Part::Text(rest[..open].to_owned()));
        }
        let close = closing(&rest[open + 1..]).ok_or("a { is not closed")?;
        let inner = rest[open + 1..open + 1 + close].trim();
        if inner == "end" {
            if depth == 0 {
                *rest = &rest[open..];
                return Ok(out);
            }
            *rest = &rest[open + close + 2..];
            return Ok(out);
        }
        *rest = &rest[open + close + 2..];
        if let Some(path) = inner.strip_prefix("range ") {
            let over = steps(path.trim(), depth)?;
            out.push(Part::Range(over, parts(rest, depth + 1)?));
        } else if inner.starts_with(['"', '\'']) {
            out.push(Part::Text(quoted(inner)?));
        } else {
            out.push(Part::Path(steps(inner, depth)?));
        }
    }
    if depth > 0 { Err("{range} without {end}".to_owned()) } else { Ok(out) }
}

/// Where the brace closes, quotes apart.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            (Some(_) | None, _) => {}
        }
    }
    None
}

fn quoted(text: &str) -> Result<String, String> {
    let mark = text.chars().next().ok_or("a text is empty")?;
    let inner = text
        .strip_prefix(mark)
        .and_then(|t| t.strip_suffix(mark))
        .filter(|_| text.len() > 1)
        .ok_or_else(|| format!("{text} is not closed"))?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some(other)) => out.push(other),
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

fn steps(text: &str, depth: usize) -> Result<Vec<Step>, String> {
    if depth > MAX_DEPTH {
        return Err("filters nest too deep".to_owned());
    }
    let mut rest = text.trim();
    rest = rest.strip_prefix(['$', '@']).unwrap_or(rest);
    let mut out = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            let (name, left) = name(after)?;
            out.push(Step::Below(name));
            rest = left;
        } else if let Some(after) = rest.strip_prefix(".*") {
            out.push(Step::All);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() || after.starts_with('[') {
                rest = after;
                continue;
            }
            let (name, left) = name(after)?;
            out.push(Step::Field(name));
            rest = left;
        } else if let Some(after) = rest.strip_prefix('[') {
            let close = bracket(after).ok_or("a [ is not closed")?;
            out.push(subscript(after[..close].trim(), depth)?);
            rest = &after[close + 1..];
        } else {
            return Err(format!("{rest:?} is no step; steps begin with . or ["));
        }
    }
    Ok(out)
}

/// A field's name; `\.` is a dot in it.
fn name(text: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => {
                end = at;
                break;
            }
            c if c.is_whitespace() || "()=!<>]".contains(c) => return Err(format!("{c:?} in a name")),
            c => out.push(c),
        }
    }
    if out.is_empty() { Err("a name is missing after a dot".to_owned()) } else { Ok((out, &text[end..])) }
}

/// Where the bracket closes, nested ones and quotes apart.
fn bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (Some(_) | None, _) => {}
        }
    }
    None
}

fn subscript(text: &str, depth: usize) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if text.starts_with(['"', '\'']) {
        return quoted(text).map(Step::Field);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return self::filter(filter.trim(), depth + 1).map(Step::Filter);
    }
    let number = |part: &str| part.trim().parse::<i64>().map_err(|_| format!("[{text}] is no index"));
    match text.split_once(':') {
        Some((from, to)) => {
            let bound = |part: &str| if part.trim().is_empty() { Ok(None) } else { number(part).map(Some) };
            Ok(Step::Slice(bound(from)?, bound(to)?))
        }
        None => number(text).map(Step::Index),
    }
}

fn filter(text: &str, depth: usize) -> Result<Filter, String> {
    let signs = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    for (sign, comparison) in signs {
        if let Some((left, right)) = text.split_once(sign) {
            let path = steps(left.trim(), depth)?;
            return Ok(Filter { path, test: Some((comparison, literal(right.trim())?)) });
        }
    }
    Ok(Filter { path: steps(text, depth)?, test: None })
}

fn literal(text: &str) -> Result<Value, String> {
    if text.starts_with(['"', '\'']) {
        return quoted(text).map(Value::String);
    }
    serde_json::from_str(text).map_err(|_| format!("{text:?} is no value: quote texts"))
}
