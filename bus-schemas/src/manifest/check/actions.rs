//! Rules of what follows a change of a file: each action does one thing to one thing, words refer to what there is.

use serde_json::Value as Json;

use super::Parts;
use super::probes;
use super::process::list;
use super::report::Report;
use crate::manifest::finding::FindingCode;
use crate::manifest::schema::suggest;
use crate::spec::{ACTION_VARIABLES, Piece, UNIT_KINDS, is_unit_name, pieces};

/// What an action can do, in the order in which it is told.
const VERBS: [&str; 3] = ["reload", "restart", "exec"];
/// What reload and restart can be done to.
const TARGETS: [&str; 2] = ["processSelector", "unit"];

pub(super) fn check(parts: &Parts<'_>, report: &mut Report) {
    for (index, action) in list(parts.spec, "onChange").iter().enumerate() {
        let at = format!("spec.onChange[{index}]");
        one_of(action, &VERBS, &at, report);
        for verb in ["reload", "restart"] {
            if let Some(target) = action.get(verb) {
                check_target(target, &format!("{at}.{verb}"), report);
            }
        }
        check_words(action.pointer("/exec/command"), &format!("{at}.exec.command"), report);
    }
    if let Some(probe) = parts.spec.get("probe") {
        probes::check_of_file(probe, "spec.probe", report);
        check_words(probe.pointer("/exec/command"), "spec.probe.exec.command", report);
    }
}

/// Exactly one of these fields is given.
fn one_of(value: &Json, fields: &[&str], at: &str, report: &mut Report) {
    if !value.is_object() {
        return;
    }
    let mut given = fields.iter().filter(|field| value.get(**field).is_some());
    match given.next() {
        None if !report.has_at(at) => {
            let hint = format!("give one of {}", fields.join(", "));
            report.hint(at, FindingCode::MissingField, "does nothing", hint);
        }
        None => {}
        Some(first) => {
            for other in given {
                let message = format!("cannot be given together with {first}");
                report.key(&format!("{at}.{other}"), FindingCode::Conflicting, message, None);
            }
        }
    }
}

fn check_target(target: &Json, at: &str, report: &mut Report) {
    one_of(target, &TARGETS, at, report);
    if let Some(unit) = target.get("unit").and_then(Json::as_str)
        && !is_unit_name(unit)
    {
        let message = format!("{unit:?} is not the name of a unit that can be reloaded or restarted");
        let hint = format!("write it whole, with one of {}", UNIT_KINDS.join(" "));
        report.hint(&format!("{at}.unit"), FindingCode::BadValue, message, hint);
    }
    if let Some(selector) = target.get("processSelector") {
        check_selector(selector, &format!("{at}.processSelector"), report);
    }
}

fn check_selector(selector: &Json, at: &str, report: &mut Report) {
    let is_empty = |field: &str| match selector.get(field) {
        Some(Json::Object(map)) => map.is_empty(),
        Some(Json::Array(list)) => list.is_empty(),
        Some(_) | None => true,
    };
    if is_empty("matchLabels") && is_empty("matchExpressions") && !report.has_at(at) {
        let hint = "name some, for example {matchLabels: {app: web}}";
        report.hint(at, FindingCode::MissingField, "selects every process of the namespace", hint);
    }
    let expressions = selector.get("matchExpressions").and_then(Json::as_array);
    for (index, expression) in expressions.into_iter().flatten().enumerate() {
        let at = format!("{at}.matchExpressions[{index}].values");
        let values: Vec<&str> = expression
            .get("values")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        let operator = expression.get("operator").and_then(Json::as_str).unwrap_or_default();
        let wrong = match operator {
            "In" | "NotIn" if values.is_empty() => Some("must not be empty"),
            "Exists" | "DoesNotExist" if !values.is_empty() => Some("must be empty"),
            "Gt" | "Lt" if values.len() != 1 || values[0].parse::<i64>().is_err() => {
                Some("must be one whole number")
            }
            _ => None,
        };
        if let Some(wrong) = wrong.filter(|_| !report.has_at(&at)) {
            report.add(&at, FindingCode::BadValue, format!("{wrong} with {operator}"));
        }
    }
}

/// Words of a command that belongs to a file refer to the variables that it has.
fn check_words(command: Option<&Json>, at: &str, report: &mut Report) {
    for (index, word) in command.and_then(Json::as_array).into_iter().flatten().enumerate() {
        for piece in pieces(word.as_str().unwrap_or_default()) {
            let Piece::Variable(name) = piece else { continue };
            if ACTION_VARIABLES.contains(&name) || report.is_full() {
                continue;
            }
            let message = format!("$({name}) is not a variable of this command");
            let hint = match suggest(name, ACTION_VARIABLES) {
                Some(meant) => format!("did you mean $({meant})? or write $$({name}) to keep it as it is"),
                None => format!("write $$({name}) to keep it as it is"),
            };
            report.hint(&format!("{at}[{index}]"), FindingCode::BadValue, message, hint);
        }
    }
}
