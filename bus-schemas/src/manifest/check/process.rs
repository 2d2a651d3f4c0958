//! Rules of the process template that concern several fields.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::Parts;
use super::report::Report;
use super::scalars::read_choice;
use super::walk::not_supported;
use crate::ids::Kind;
use crate::manifest::finding::FindingCode;
use crate::manifest::schema::suggest;
use crate::quantity::{Cpu, Dur, Size};
use crate::spec::{GIVEN_VARIABLES, Piece, pieces, port_variable};

/// Variables that processes will have once what sets them is served.
const LATER_VARIABLES: [&str; 6] = [
    "OSTLER_ARTIFACTS",
    "OSTLER_ORDINAL",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "CREDENTIALS_DIRECTORY",
    "STATE_DIRECTORY",
];

/// Checks the template whose fields are at `path`.
pub(super) fn check(parts: &Parts<'_>, spec: &Map<String, Json>, path: &str, report: &mut Report) {
    restarts(parts.kind, spec, path, report);
    variables(spec, path, report);
    ports(spec, path, report);
    resources(spec, path, report);
    probe(spec, path, report);
    tolerations(spec, path, report);
    needs(spec, path, report);
}

fn list<'a>(spec: &'a Map<String, Json>, name: &str) -> &'a [Json] {
    spec.get(name).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Json, name: &str) -> Option<&'a str> {
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

/// Variables are unique, have one source, and refer only to what is there before them.
fn variables(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let mut known: BTreeSet<String> = GIVEN_VARIABLES.map(str::to_owned).into();
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
    for field in ["command", "args"] {
        for (index, word) in list(spec, field).iter().enumerate() {
            let at = format!("{path}.{field}[{index}]");
            references(word.as_str().unwrap_or_default(), &at, (&known, &later), report);
        }
    }
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
        if LATER_VARIABLES.contains(&name) {
            // The first word of a command has its own finding.
            if !report.has_at(path) {
                let message = format!("$({name}) {}", not_supported("variable"));
                report.add(path, FindingCode::NotSupported, message);
            }
        } else if later.contains(name) {
            let message = format!("$({name}) is given later: a variable can use only those before it");
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

fn resources(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let amount = |side: &str, what: &str| {
        spec.get("resources").and_then(|r| r.get(side)?.get(what)).and_then(Json::as_str).map(str::to_owned)
    };
    let mut above = |what: &str, is_above: fn(&str, &str) -> bool| {
        if let (Some(request), Some(limit)) = (amount("requests", what), amount("limits", what))
            && is_above(&request, &limit)
        {
            let message = format!("must be at most the limit {limit}, found {request}");
            report.add(&format!("{path}.resources.requests.{what}"), FindingCode::OutOfRange, message);
        }
    };
    above(
        "cpu",
        |request, limit| matches!((request.parse::<Cpu>(), limit.parse::<Cpu>()), (Ok(r), Ok(l)) if r > l),
    );
    above(
        "memory",
        |request, limit| matches!((request.parse::<Size>(), limit.parse::<Size>()), (Ok(r), Ok(l)) if r > l),
    );
}

fn probe(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let Some(probe) = spec.get("readinessProbe") else {
        return;
    };
    let path = format!("{path}.readinessProbe");
    match (probe.get("httpGet"), probe.get("tcpSocket")) {
        (Some(_), Some(_)) => {
            let at = format!("{path}.tcpSocket");
            report.key(&at, FindingCode::Conflicting, "cannot be given together with httpGet", None);
        }
        (None, None) if !report.has_at(&path) => {
            report.hint(&path, FindingCode::MissingField, "asks nothing", "give one of httpGet, tcpSocket");
        }
        (None | Some(_), None) | (None, Some(_)) => {}
    }
    let names = || list(spec, "ports").iter().filter_map(|port| text(port, "name"));
    for action in ["httpGet", "tcpSocket"] {
        let Some(name) = probe.get(action).and_then(|action| text(action, "port")) else {
            continue;
        };
        if !names().any(|known| known == name) {
            let message = format!("{name:?} is not a name in ports");
            let hint = match suggest(name, names()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "give a number, or add it to ports".to_owned(),
            };
            report.hint(&format!("{path}.{action}.port"), FindingCode::NotFound, message, hint);
        }
    }
    if let Some(url) = probe.get("httpGet").and_then(|get| text(get, "path"))
        && !url.starts_with('/')
    {
        let message = format!("{url:?} is not the path of a URL: begin with /");
        report.add(&format!("{path}.httpGet.path"), FindingCode::BadValue, message);
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
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    for (index, need) in list(spec, "needs").iter().enumerate() {
        let Some(need) = need.as_str() else {
            continue;
        };
        let at = format!("{path}.needs[{index}]");
        match first.get(need) {
            Some(before) => report.duplicate(&at, before),
            None => {
                first.insert(need, at);
            }
        }
    }
}
