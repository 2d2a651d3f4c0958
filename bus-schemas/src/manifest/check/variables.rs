//! Variables of a process: each is given once, has one source, and words refer only to what is there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::process::{list, text};
use super::report::Report;
use super::walk::not_supported;
use crate::manifest::finding::FindingCode;
use crate::manifest::schema::suggest;
use crate::spec::{GIVEN_VARIABLES, Piece, pieces, port_variable};

/// Variables that processes will have once what sets them is served.
const LATER_VARIABLES: [&str; 1] = ["OSTLER_ORDINAL"];

/// Variables that a process has only where its template asks for them, and the field that does so.
const ASKED_VARIABLES: [(&str, &str); 7] = [
    ("OSTLER_ARTIFACTS", "artifacts"),
    ("CREDENTIALS_DIRECTORY", "credentials"),
    ("WATCHDOG_USEC", "watchdogSec"),
    ("STATE_DIRECTORY", "stateDirectory"),
    ("CACHE_DIRECTORY", "cacheDirectory"),
    ("LOGS_DIRECTORY", "logsDirectory"),
    ("RUNTIME_DIRECTORY", "runtimeDirectory"),
];

/// A variable that is in the environment and no word can refer to: each start has another, made after its words.
const LATE_VARIABLE: &str = "NOTIFY_SOCKET";

/// Whether the template asks for what sets a variable of [`ASKED_VARIABLES`].
fn asks_for(spec: &Map<String, Json>, field: &str) -> bool {
    match spec.get(field) {
        Some(Json::Array(entries)) => !entries.is_empty(),
        Some(value) => !value.is_null(),
        None => false,
    }
}

/// Variables are unique, have one source, and refer only to what is there before them.
pub(super) fn check(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let mut known: BTreeSet<String> = GIVEN_VARIABLES.map(str::to_owned).into();
    // What asks for it may be what was refused.
    let refused = |field: &str| report.has_at(&format!("{path}.{field}"));
    let asked = ASKED_VARIABLES.into_iter().filter(|(_, field)| asks_for(spec, field) || refused(field));
    known.extend(asked.map(|(name, _)| name.to_owned()));
    known.extend(list(spec, "ports").iter().filter_map(|port| text(port, "name")).map(port_variable));
    let env = list(spec, "env");
    let later: BTreeSet<&str> = env.iter().filter_map(|variable| text(variable, "name")).collect();
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    for (index, variable) in env.iter().enumerate().filter(|(_, variable)| variable.is_object()) {
        let at = format!("{path}.env[{index}]");
        let value = text(variable, "value");
        match (value, variable.get("valueFrom")) {
            (Some(_), Some(_)) => report.key(
                &format!("{at}.valueFrom"),
                FindingCode::Conflicting,
                "cannot be given together with value",
                None,
            ),
            (None, None) if !report.has_at(&at) => {
                report.hint(
                    &format!("{at}.value"),
                    FindingCode::MissingField,
                    "is required",
                    "or give valueFrom",
                );
            }
            (None | Some(_), None) | (None, Some(_)) => {}
        }
        let source = variable.get("valueFrom");
        if let Some(source) = source.filter(|_| !report.has_at(&format!("{at}.valueFrom"))) {
            one_source(source, &at, report);
        }
        references(value.unwrap_or_default(), &format!("{at}.value"), (&known, &later), report);
        let Some(name) = text(variable, "name") else {
            continue;
        };
        match first.get(name) {
            Some(before) => report.duplicate(&format!("{at}.name"), &format!("{before}.name")),
            None => {
                first.insert(name, at);
                known.insert(name.to_owned());
            }
        }
    }
    let hidden = hidden(env);
    for (at, word) in words(spec, path) {
        references(word, &at, (&known, &later), report);
        for piece in pieces(word) {
            if let Piece::Variable(name) = piece
                && hidden.contains(name)
            {
                let message = format!(
                    "$({name}) has a secret in it, and everybody on a host sees the words of a command"
                );
                report.hint(
                    &at,
                    FindingCode::BadValue,
                    message,
                    "let the program read the variable, or use credentials",
                );
            }
        }
    }
}

/// The variables that have a value of a Secret in them, also by way of another one.
fn hidden(env: &[Json]) -> BTreeSet<&str> {
    let mut hidden = BTreeSet::new();
    for variable in env {
        let Some(name) = text(variable, "name") else { continue };
        let is_secret = variable.pointer("/valueFrom/secretKeyRef").is_some();
        let refers = pieces(text(variable, "value").unwrap_or_default());
        if is_secret || refers.into_iter().any(|p| matches!(p, Piece::Variable(v) if hidden.contains(v))) {
            hidden.insert(name);
        }
    }
    hidden
}

/// A variable is taken from one place.
fn one_source(source: &Json, at: &str, report: &mut Report) {
    match (source.get("fieldRef"), source.get("secretKeyRef")) {
        (None, None) => report.hint(
            &format!("{at}.valueFrom.fieldRef"),
            FindingCode::MissingField,
            "is required",
            "for example {fieldPath: node.name}; or give secretKeyRef",
        ),
        (Some(_), Some(_)) => report.key(
            &format!("{at}.valueFrom.secretKeyRef"),
            FindingCode::Conflicting,
            "cannot be given together with fieldRef",
            None,
        ),
        (Some(_), None) | (None, Some(_)) => {}
    }
}

/// Every word of every command of the template, with where it stands.
pub(super) fn words<'a>(spec: &'a Map<String, Json>, path: &str) -> Vec<(String, &'a str)> {
    let mut out = Vec::new();
    let mut take = |at: String, words: Option<&'a Json>| {
        for (index, word) in words.and_then(Json::as_array).into_iter().flatten().enumerate() {
            out.push((format!("{at}[{index}]"), word.as_str().unwrap_or_default()));
        }
    };
    for field in ["command", "args"] {
        take(format!("{path}.{field}"), spec.get(field));
    }
    for (index, hook) in list(spec, "execStartPre").iter().enumerate() {
        take(format!("{path}.execStartPre[{index}].command"), hook.get("command"));
    }
    for field in ["execReload", "execStop", "execStopPost"] {
        take(format!("{path}.{field}.command"), spec.get(field).and_then(|hook| hook.get("command")));
    }
    for field in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let exec = spec.get(field).and_then(|probe| probe.get("exec"));
        take(format!("{path}.{field}.exec.command"), exec.and_then(|exec| exec.get("command")));
    }
    out
}

type Names<'a> = (&'a BTreeSet<String>, &'a BTreeSet<&'a str>);

fn references(value: &str, path: &str, (known, later): Names<'_>, report: &mut Report) {
    for piece in pieces(value) {
        let Piece::Variable(name) = piece else {
            continue;
        };
        if known.contains(name) || report.is_full() {
            continue;
        }
        if name == LATE_VARIABLE {
            let message =
                format!("$({name}) is made after the words of a start: the program reads the variable");
            report.add(path, FindingCode::BadValue, message);
        } else if LATER_VARIABLES.contains(&name) {
            let message = format!("$({name}) {}", not_supported("variable"));
            report.add(path, FindingCode::NotSupported, message);
        } else if later.contains(name) {
            let message = format!("$({name}) is given later: a variable can use only those before it");
            report.add(path, FindingCode::BadValue, message);
        } else if let Some((_, field)) = ASKED_VARIABLES.into_iter().find(|(asked, _)| *asked == name) {
            let message = format!("$({name}) is not a variable of this process: it needs {field}");
            report.add(path, FindingCode::BadValue, message);
        } else {
            let message = format!("$({name}) is not a variable of this process");
            let hint = match suggest(name, known.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean $({meant})? or write $$({name}) to keep it as it is"),
                None => format!("write $$({name}) to keep it as it is"),
            };
            report.hint(path, FindingCode::BadValue, message, hint);
        }
    }
}
