//! Rules of ConfigFiles: where a file may be, what may be in it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use super::Parts;
use super::report::Report;
use super::scalars::Bad;
use crate::manifest::finding::FindingCode;
use crate::manifest::schema::suggest;
use crate::quantity::Mode;
use crate::spec::{CANDIDATE, Piece, VALIDATOR_VARIABLES, pieces};

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

/// What a ConfigFile says is in its file or files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::manifest) struct Given {
    /// In the one file.
    pub(in crate::manifest) alone: Option<Bytes>,
    /// In each of several files, in their order.
    pub(in crate::manifest) files: Vec<Bytes>,
}

/// The bytes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::manifest) struct Bytes {
    /// Whether they are rendered for each node.
    pub(in crate::manifest) is_template: bool,
    /// As they were given.
    pub(in crate::manifest) bytes: Vec<u8>,
}

/// Checks a ConfigFile; gives what is in it.
pub(super) fn check(parts: &Parts<'_>, report: &mut Report) -> Given {
    check_mode(parts.spec, "spec.mode", report);
    let alone = source(parts.spec, "spec", report);
    let items = parts.spec.get("files").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if !items.is_empty()
        && let Some(field) = SOURCES.into_iter().find(|field| parts.spec.contains_key(*field))
    {
        let message = format!("cannot be given together with {field}");
        report.key("spec.files", FindingCode::Conflicting, message, None);
    }
    let files = check_files(items, parts.spec, report);
    let is_deleting = parts.spec.get("unlisted").and_then(Json::as_str) == Some("delete");
    if is_deleting && items.is_empty() {
        report.key("spec.unlisted", FindingCode::Conflicting, "needs files", None);
    }
    overrides(parts.spec, report);
    validator(parts.spec, report);
    let given = Given { alone, files };
    let mut all = given.alone.iter().chain(&given.files).peekable();
    if all.peek().is_some() && !all.any(|bytes| bytes.is_template) {
        values_need_template(parts.spec, report);
    }
    given
}

/// The fields that say what is in a file; one at most is given.
const SOURCES: [&str; 3] = ["content", "contentBase64", "template"];

fn check_mode(fields: &Map<String, Json>, at: &str, report: &mut Report) {
    let mode = fields.get("mode").and_then(Json::as_str).and_then(|mode| mode.parse::<Mode>().ok());
    if let Some(mode) = mode.filter(|mode| mode.has_special_bits()) {
        let message = format!("must be between \"0000\" and \"0777\" (no set-uid bits), found \"{mode}\"");
        report.add(at, FindingCode::OutOfRange, message);
    }
}

/// What the fields of one file say is in it.
fn source(fields: &Map<String, Json>, at: &str, report: &mut Report) -> Option<Bytes> {
    let mut given = SOURCES.into_iter().filter(|field| fields.contains_key(*field));
    let field = given.next()?;
    if let Some(other) = given.next() {
        let message = format!("cannot be given together with {field}");
        report.key(&format!("{at}.{other}"), FindingCode::Conflicting, message, None);
        return None;
    }
    let text = fields.get(field).and_then(Json::as_str)?;
    let path = format!("{at}.{field}");
    let bytes = if field == "contentBase64" {
        let Some(bytes) = decode_base64(text) else {
            report.add(&path, FindingCode::BadValue, "is not base64 (RFC 4648, with padding)");
            return None;
        };
        bytes
    } else {
        text.as_bytes().to_vec()
    };
    if bytes.len() > MAX_CONTENT {
        report.too_large(&path, bytes.len(), MAX_CONTENT);
        return None;
    }
    Some(Bytes { is_template: field == "template", bytes })
}

fn check_files(items: &[Json], spec: &Map<String, Json>, report: &mut Report) -> Vec<Bytes> {
    let folder = spec.get("path").and_then(Json::as_str).unwrap_or("/x");
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut out, mut size) = (Vec::new(), 0);
    for (index, item) in items.iter().enumerate() {
        let Some(fields) = item.as_object() else { continue };
        let at = format!("spec.files[{index}]");
        check_mode(fields, &format!("{at}.mode"), report);
        if let Some(name) = fields.get("name").and_then(Json::as_str) {
            let name_at = format!("{at}.name");
            if name == "." {
                report.add(&name_at, FindingCode::BadValue, "\".\" is the folder: name a file in it");
            } else if let Err(bad) = check_path(&format!("{folder}/{name}")) {
                bad.tell(&name_at, report);
            }
            match seen.get(name) {
                Some(first) => report.duplicate(&name_at, &format!("spec.files[{first}].name")),
                None => {
                    seen.insert(name, index);
                }
            }
            let above =
                name.match_indices('/').map(|(end, _)| &name[..end]).find(|above| seen.contains_key(above));
            if let Some(above) = above {
                let message = format!("{above} is a file of this list and cannot be a folder, too");
                report.add(&name_at, FindingCode::Conflicting, message);
            }
        }
        let is_missing =
            |field: &str| !fields.contains_key(field) && !report.concerns(&format!("{at}.{field}"));
        if SOURCES.into_iter().all(is_missing) {
            let example = "give one of content, contentBase64 and template";
            report.hint(&format!("{at}.content"), FindingCode::MissingField, "is required", example);
        }
        if let Some(bytes) = source(fields, &at, report) {
            size += bytes.bytes.len();
            out.push(bytes);
        }
    }
    if size > MAX_CONTENT {
        report.too_large("spec.files", size, MAX_CONTENT);
    }
    out
}

fn overrides(spec: &Map<String, Json>, report: &mut Report) {
    let items = spec.get("overrides").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let Some(fields) = item.as_object() else { continue };
        let at = format!("spec.overrides[{index}]");
        let names = fields.get("nodes").and_then(Json::as_array);
        if names.is_some_and(Vec::is_empty) {
            report.add(&format!("{at}.nodes"), FindingCode::BadValue, "names no node");
        }
        match (fields.contains_key("nodeSelector"), names.is_some()) {
            (true, true) => {
                let message = "cannot be given together with nodeSelector";
                report.key(&format!("{at}.nodes"), FindingCode::Conflicting, message, None);
            }
            (false, false) => {
                let example = "give nodeSelector, for example {role: web}, or nodes, for example [web-017]";
                report.hint(&format!("{at}.nodeSelector"), FindingCode::MissingField, "is required", example);
            }
            (true, false) | (false, true) => {}
        }
    }
}

/// A validator looks at something, and its command at the candidate: else it would judge the file that is there.
fn validator(spec: &Map<String, Json>, report: &mut Report) {
    let Some(fields) = spec.get("validator").and_then(Json::as_object) else { return };
    let at = "spec.validator";
    let Some(words) = fields.get("command").and_then(Json::as_array) else {
        let is_missing =
            |field: &str| !fields.contains_key(field) && !report.has_at(&format!("{at}.{field}"));
        if is_missing("command") && is_missing("syntax") {
            let example =
                "give command, for example [\"/usr/sbin/app\", \"--check\", \"$(FILE)\"], or syntax";
            report.hint(&format!("{at}.command"), FindingCode::MissingField, "is required", example);
        } else if is_missing("command") && fields.contains_key("user") {
            report.key(&format!("{at}.user"), FindingCode::Conflicting, "needs command", None);
        }
        return;
    };
    let mut names_candidate = false;
    for (index, word) in words.iter().filter_map(Json::as_str).enumerate() {
        for piece in pieces(word) {
            let Piece::Variable(name) = piece else { continue };
            names_candidate |= name == CANDIDATE;
            if !VALIDATOR_VARIABLES.contains(&name) {
                let message = format!("$({name}) is not a variable of a validator");
                let hint = match suggest(name, VALIDATOR_VARIABLES) {
                    Some(meant) => {
                        format!("did you mean $({meant})? or write $$({name}) to keep it as it is")
                    }
                    None => format!("write $$({name}) to keep it as it is"),
                };
                report.hint(&format!("{at}.command[{index}]"), FindingCode::BadValue, message, hint);
            }
        }
    }
    if !names_candidate {
        let message = "must name $(FILE), else it checks the old file";
        report.add(&format!("{at}.command"), FindingCode::BadValue, message);
    }
}

fn values_need_template(spec: &Map<String, Json>, report: &mut Report) {
    for field in ["vars", "overrides"] {
        let is_given = match spec.get(field) {
            Some(Json::Object(fields)) => !fields.is_empty(),
            Some(Json::Array(items)) => !items.is_empty(),
            Some(_) | None => false,
        };
        if is_given {
            report.key(
                &format!("spec.{field}"),
                FindingCode::Conflicting,
                format!("{field} need template"),
                None,
            );
        }
    }
}

/// The bytes of `contentBase64`; line breaks and spaces do not count.
#[must_use]
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let dense: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD.decode(dense).ok()
}
