//! JSON (RFC 8259): one value, nothing after it.

use serde::de::IgnoredAny;

use super::{Fault, MAX_DEPTH};

pub(super) fn check(text: &str) -> Result<(), Fault> {
    // The parser keeps no value, and no stack for what lies in one another: so that is counted here.
    if let Some(offset) = too_deep(text) {
        return Err(Fault::at(text, offset, format!("lies more than {MAX_DEPTH} deep")));
    }
    let done = serde_json::from_str::<IgnoredAny>(text);
    done.map(drop).map_err(|error| {
        let words = error.to_string();
        let why = words.rsplit_once(" at line ").map_or(words.as_str(), |(why, _)| why);
        Fault { line: error.line(), column: error.column(), why: why.to_owned() }
    })
}

/// Where too many lists and maps are open.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(offset);
                }
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}
