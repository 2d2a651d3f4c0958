//! What a process may use and may do: amounts are in order, capabilities within their bounds, lists without repetition.

use serde_json::{Map, Value as Json};

use super::process::{list, text, unique};
use super::report::Report;
use crate::manifest::finding::FindingCode;
use crate::quantity::{Cpu, Size};

pub(super) fn check(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    resources(spec, path, report);
    memory(spec, path, report);
    capabilities(spec, path, report);
    let lists = [
        "supplementaryGroups",
        "ambientCapabilities",
        "capabilityBoundingSet",
        "stateDirectory",
        "cacheDirectory",
        "logsDirectory",
        "runtimeDirectory",
        "readOnlyPaths",
    ];
    for name in lists {
        unique(spec, path, name, report);
    }
    environment_files(spec, path, report);
}

fn amount<'a>(spec: &'a Map<String, Json>, side: &str, what: &str) -> Option<&'a str> {
    spec.get("resources").and_then(|resources| text(resources.get(side)?, what))
}

fn resources(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let mut above = |what: &str, is_above: fn(&str, &str) -> bool| {
        if let (Some(request), Some(limit)) = (amount(spec, "requests", what), amount(spec, "limits", what))
            && is_above(request, limit)
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

/// What is kept for it, where it is slowed, where it is killed: rising.
fn memory(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let size = |text: Option<&str>| text.and_then(|text| text.parse::<Size>().ok());
    let given = |name: &str| size(spec.get(name).and_then(Json::as_str));
    let (min, high) = (given("memoryMin"), given("memoryHigh"));
    let limit = size(amount(spec, "limits", "memory"));
    let mut check = |name: &str, lower: Option<Size>, what: &str, upper: Option<Size>| match (lower, upper) {
        (Some(lower), Some(upper)) if lower > upper => {
            let message = format!("must be at most {what} {upper}, found {lower}");
            report.add(&format!("{path}.{name}"), FindingCode::OutOfRange, message);
            true
        }
        (Some(_) | None, Some(_) | None) => false,
    };
    if !check("memoryMin", min, "memoryHigh", high) {
        check("memoryMin", min, "the limit", limit);
    }
    check("memoryHigh", high, "the limit", limit);
    if high.is_some_and(|high| high.as_bytes() == 0) {
        let message = "must be at least 1, found 0; leave it out for no limit";
        report.add(&format!("{path}.memoryHigh"), FindingCode::OutOfRange, message);
    }
}

/// A process cannot have what it can never have.
fn capabilities(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let bounds = spec.get("capabilityBoundingSet").and_then(Json::as_array);
    // A bad entry of the bounds may be the one that is missed.
    let Some(bounds) = bounds.filter(|bounds| !bounds.iter().any(Json::is_null)) else { return };
    for (index, capability) in list(spec, "ambientCapabilities").iter().enumerate() {
        if let Some(name) = capability.as_str().filter(|_| !bounds.contains(capability)) {
            let at = format!("{path}.ambientCapabilities[{index}]");
            let message = format!("{name} is not in capabilityBoundingSet");
            report.hint(&at, FindingCode::Conflicting, message, "add it there, or leave out the set");
        }
    }
}

fn environment_files(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let files = list(spec, "environmentFile");
    for (index, file) in files.iter().enumerate() {
        let same =
            |before: &Json| text(before, "path").is_some() && text(before, "path") == text(file, "path");
        if let Some(before) = files.iter().take(index).position(same) {
            let at = |index: usize| format!("{path}.environmentFile[{index}].path");
            report.duplicate(&at(index), &at(before));
        }
    }
}
