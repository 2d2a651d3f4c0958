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
const LATER_VARIABLES: [&str; 2] = ["OSTLER_ORDINAL", "CREDENTIALS_DIRECTORY"];

/// Variables that a process has only where its template asks for them, and the field that does so.
const ASKED_VARIABLES: [(&str, &str); 6] = [
    ("OSTLER_ARTIFACTS", "artifacts"),
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
        if source.is_some_and(|from| from.get("fieldRef").is_none())
            && !report.has_at(&format!("{at}.valueFrom"))
        {
            let field = format!("{at}.valueFrom.fieldRef");
            report.hint(
                &field,
                FindingCode::MissingField,
                "is required",
                "for example {fieldPath: node.name}",
            );
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
    for (at, word) in words(spec, path) {
        references(word, &at, (&known, &later), report);
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
