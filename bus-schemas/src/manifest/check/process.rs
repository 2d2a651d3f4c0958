//! Rules of the process template that concern several fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::report::Report;
use super::scalars::read_choice;
use super::{Parts, artifacts, bounds, life, probes, variables};
use crate::ids::Kind;
use crate::manifest::finding::FindingCode;
use crate::quantity::Dur;

/// Checks the template whose fields are at `path`.
pub(super) fn check(parts: &Parts<'_>, spec: &Map<String, Json>, path: &str, report: &mut Report) {
    restarts(parts.kind, spec, path, report);
    artifacts::check(spec, path, report);
    life::check(parts.kind, spec, path, report);
    variables::check(spec, path, report);
    ports(spec, path, report);
    bounds::check(spec, path, report);
    probes::check(spec, path, report);
    tolerations(spec, path, report);
    needs(spec, path, report);
    credentials(spec, path, report);
}

pub(super) fn list<'a>(spec: &'a Map<String, Json>, name: &str) -> &'a [Json] {
    spec.get(name).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn text<'a>(value: &'a Json, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Json::as_str)
}

/// A Deployment keeps its processes running, so only `always` makes sense; a Process has nobody to replace it.
fn restarts(kind: Kind, spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let choice = |name: &str| spec.get(name).and_then(Json::as_str);
    let mut only = |name: &str, allowed: &[&str]| {
        if let Some(found) = choice(name).filter(|found| read_choice(found, allowed, &[]).is_err()) {
            let message = format!("{found:?} is not one of {} on a {kind}", allowed.join(", "));
            report.add(&format!("{path}.{name}"), FindingCode::BadChoice, message);
        }
    };
    if kind == Kind::Deployment {
        only("restart", &["always"]);
    } else {
        only("startLimitAction", &["none"]);
    }
    let time = |name: &str| choice(name).and_then(|text| text.parse::<Dur>().ok());
    if let (Some(first), Some(longest)) = (time("restartSec"), time("restartMaxDelaySec"))
        && first > longest
    {
        let message = format!("must be at most restartMaxDelaySec {longest}, found {first}");
        report.add(&format!("{path}.restartSec"), FindingCode::OutOfRange, message);
    }
}

fn ports(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut numbers: BTreeMap<(u64, &str), String> = BTreeMap::new();
    for (index, port) in list(spec, "ports").iter().enumerate() {
        let at = format!("{path}.ports[{index}]");
        if let Some(name) = text(port, "name") {
            let here = format!("{at}.name");
            match names.get(name) {
                Some(first) => report.duplicate(&here, first),
                None => {
                    names.insert(name, here);
                }
            }
        }
        let number = port.get("port").and_then(Json::as_u64).filter(|number| *number > 0);
        if let (Some(number), Some(protocol)) = (number, text(port, "protocol")) {
            let here = format!("{at}.port");
            match numbers.get(&(number, protocol)) {
                Some(first) => report.duplicate(&here, first),
                None => {
                    numbers.insert((number, protocol), here);
                }
            }
        }
    }
}

fn tolerations(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        let at = format!("{path}.tolerations[{index}]");
        let exists = text(toleration, "operator") == Some("Exists");
        if exists && text(toleration, "value").is_some_and(|value| !value.is_empty()) {
            report.add(&format!("{at}.value"), FindingCode::Conflicting, "must be empty with Exists");
        }
        if text(toleration, "operator") == Some("Equal")
            && text(toleration, "key").is_none()
            && !report.has_at(&at)
        {
            report.hint(
                &format!("{at}.key"),
                FindingCode::MissingField,
                "is required with Equal",
                "or write operator: Exists",
            );
        }
        if toleration.get("tolerationTime").is_some()
            && text(toleration, "effect").is_some_and(|e| e != "NoExecute")
        {
            report.key(
                &format!("{at}.tolerationTime"),
                FindingCode::Conflicting,
                "needs effect NoExecute",
                None,
            );
        }
    }
}

fn needs(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    unique(spec, path, "needs", report);
}

/// Two credentials of one name would be one file.
fn credentials(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    for (index, credential) in list(spec, "credentials").iter().enumerate() {
        let Some(name) = text(credential, "name") else { continue };
        let at = format!("{path}.credentials[{index}].name");
        match first.get(name) {
            Some(before) => report.duplicate(&at, before),
            None => {
                first.insert(name, at);
            }
        }
    }
}

/// Tells entries of a list of scalars that stand in it before.
pub(super) fn unique(spec: &Map<String, Json>, path: &str, name: &str, report: &mut Report) {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for (index, entry) in list(spec, name).iter().enumerate().filter(|(_, entry)| !entry.is_null()) {
        let at = format!("{path}.{name}[{index}]");
        match first.get(&entry.to_string()) {
            Some(before) => report.duplicate(&at, before),
            None => {
                first.insert(entry.to_string(), at);
            }
        }
    }
}
