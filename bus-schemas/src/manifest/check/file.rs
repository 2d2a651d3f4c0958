//! Rules of ConfigFiles: where a file may be, what may be in it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::Parts;
use super::report::Report;
use super::scalars::Bad;
use crate::manifest::finding::FindingCode;
use crate::quantity::Mode;

/// Largest content of a file (CONTRACT.md 1.3).
pub const MAX_CONTENT: usize = 8 << 20;

/// Folders below which no file is managed: the kernel's, and Ostler's own.
const NEVER_BELOW: [&str; 7] =
    ["/proc", "/sys", "/dev", "/etc/ostler", "/var/lib/ostler", "/run/ostler", "/var/log/ostler"];

/// `PATH_MAX` of Linux without its NUL, and `NAME_MAX` less what the temporary name beside the file adds.
const LONGEST_PATH: usize = 4_095;
const LONGEST_PART: usize = 240;

pub(super) fn check_path(path: &str) -> Result<(), Bad> {
    let bad = |why: &str| Err(Bad::value(format!("{path:?} {why}")));
    if !path.starts_with('/') {
        return bad("is not an absolute path: begin with /");
    }
    if path.len() > 1 && path.ends_with('/') {
        return bad("ends with /: a file is meant, not a folder");
    }
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return bad("is not in normal form: write it without //, . and ..");
    }
    if path.chars().any(char::is_control) {
        return bad("has a control character");
    }
    if path.len() > LONGEST_PATH || parts.iter().any(|part| part.len() > LONGEST_PART) {
        return bad("is too long for a path");
    }
    if let Some(folder) = NEVER_BELOW
        .into_iter()
        .find(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    {
        return Err(Bad::value(format!("{path:?} is below {folder}, where no file can be managed")));
    }
    let name = parts.last().copied().unwrap_or_default();
    if name.starts_with('.') && name.ends_with(".ostler") {
        return bad("has the form of Ostler's temporary files");
    }
    Ok(())
}

/// Checks a ConfigFile; gives what is in it, if anything is.
pub(super) fn check(parts: &Parts<'_>, report: &mut Report) -> Option<Vec<u8>> {
    let given = |name: &str| parts.spec.get(name).and_then(Json::as_str);
    if let Some(mode) = given("mode").and_then(|mode| mode.parse::<Mode>().ok())
        && mode.has_special_bits()
    {
        let message = format!("must be between \"0000\" and \"0777\" (no set-uid bits), found \"{mode}\"");
        report.add("spec.mode", FindingCode::OutOfRange, message);
    }
    let (content, encoded) = (given("content"), given("contentBase64"));
    if content.is_some() && encoded.is_some() {
        let at = "spec.contentBase64";
        report.key(at, FindingCode::Conflicting, "cannot be given together with content", None);
        return None;
    }
    let (field, bytes) = match (content, encoded) {
        (Some(text), _) => ("spec.content", text.as_bytes().to_vec()),
        (None, Some(encoded)) => match decode_base64(encoded) {
            Some(bytes) => ("spec.contentBase64", bytes),
            None => {
                report.add(
                    "spec.contentBase64",
                    FindingCode::BadValue,
                    "is not base64 (RFC 4648, with padding)",
                );
                return None;
            }
        },
        (None, None) => return None,
    };
    if bytes.len() > MAX_CONTENT {
        report.too_large(field, bytes.len(), MAX_CONTENT);
        return None;
    }
    Some(bytes)
}

/// The bytes of `contentBase64`; line breaks and spaces do not count.
#[must_use]
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let dense: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD.decode(dense).ok()
}
