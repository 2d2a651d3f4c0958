//! Artifacts: each has a place of its own, and a program that is one is among them.

use serde_json::{Map, Value as Json};

use super::process::{list, text};
use super::report::Report;
use super::values::last_part;
use super::variables::words;
use super::walk::IN_ARTIFACTS;
use crate::manifest::finding::FindingCode;
use crate::manifest::schema::suggest;
use crate::quantity::Mode;

/// Where an artifact lies: as given, else the last part of its source, if that can be the name of a file.
pub(in crate::manifest) fn path_of(artifact: &Json) -> Option<&str> {
    text(artifact, "path").or_else(|| text(artifact, "source").and_then(last_part))
}

pub(super) fn check(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let artifacts = list(spec, "artifacts");
    for (index, artifact) in artifacts.iter().enumerate() {
        let at = format!("{path}.artifacts[{index}]");
        let is_archive = text(artifact, "unpack") != Some("none");
        if text(artifact, "path") == Some(".") && !is_archive {
            let message = "\".\" is a folder: only an archive can be laid there";
            report.hint(
                &format!("{at}.path"),
                FindingCode::BadValue,
                message,
                "name the file, or set unpack",
            );
        }
        if path_of(artifact).is_none() && text(artifact, "source").is_some() && !report.has_at(&at) {
            let message = "is required where source does not end with the name of a file";
            report.hint(&format!("{at}.path"), FindingCode::MissingField, message, "for example bin/web");
        }
        special_bits(artifact, &at, report);
        places(artifacts, index, path, report);
    }
    for (at, word) in words(spec, path).into_iter().filter(|(at, _)| at.ends_with("command[0]")) {
        program(word, artifacts, &at, report);
    }
}

/// What is fetched must not be able to change who runs it.
fn special_bits(artifact: &Json, at: &str, report: &mut Report) {
    if let Some(mode) = text(artifact, "mode").and_then(|mode| mode.parse::<Mode>().ok())
        && mode.has_special_bits()
    {
        let message = format!("must be between \"0000\" and \"0777\" (no set-uid bits), found \"{mode}\"");
        report.add(&format!("{at}.mode"), FindingCode::OutOfRange, message);
    }
}

/// No two have one path, and none lies below a file.
fn places(artifacts: &[Json], index: usize, path: &str, report: &mut Report) {
    let Some(here) = artifacts.get(index).and_then(path_of) else { return };
    for (other, before) in artifacts.iter().enumerate().filter(|(other, _)| *other != index) {
        let Some(there) = path_of(before) else { continue };
        let at = format!("{path}.artifacts[{index}].path");
        if here == there && other < index {
            return report.duplicate(&at, &format!("{path}.artifacts[{other}].path"));
        }
        let is_file = text(before, "unpack") == Some("none");
        if is_file && here.strip_prefix(there).is_some_and(|rest| rest.starts_with('/')) {
            let message = format!("{here:?} lies below artifacts[{other}], which is a file");
            return report.add(&at, FindingCode::Conflicting, message);
        }
    }
}

/// A program that should be one of them is. What is in an archive cannot be known here.
fn program(word: &str, artifacts: &[Json], at: &str, report: &mut Report) {
    let Some(program) = word.strip_prefix(IN_ARTIFACTS) else { return };
    let known = || artifacts.iter().filter_map(path_of);
    let is_plain = |artifact: &Json| text(artifact, "unpack") == Some("none");
    // Without any there is a finding already, and words with variables are known only on the host.
    if artifacts.is_empty() || !artifacts.iter().all(is_plain) || program.contains("$(") {
        return;
    }
    if !known().any(|path| path == program) {
        let message = format!("{program:?} is not the path of an artifact");
        let hint = match suggest(program, known()) {
            Some(meant) => format!("did you mean {IN_ARTIFACTS}{meant}?"),
            None => "add it to artifacts".to_owned(),
        };
        report.hint(at, FindingCode::NotFound, message, hint);
    }
}
