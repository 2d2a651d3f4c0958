//! Probes: each asks one question, of a port that there is.

use serde_json::{Map, Value as Json};

use super::process::{list, text};
use super::report::Report;
use crate::manifest::finding::FindingCode;
use crate::manifest::schema::suggest;

/// What a probe can do, in the order in which they are told.
const ACTIONS: [&str; 3] = ["httpGet", "tcpSocket", "exec"];

pub(super) fn check(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    for name in ["startupProbe", "livenessProbe", "readinessProbe"] {
        if let Some(probe) = spec.get(name) {
            let path = format!("{path}.{name}");
            one_action(probe, &path, report);
            ports(spec, probe, &path, report);
            // One good answer is enough to be up, and to be alive: as in Kubernetes.
            let successes = probe.get("successThreshold").and_then(Json::as_u64);
            if let Some(found) = successes.filter(|found| *found != 1 && name != "readinessProbe") {
                let message = format!("must be 1 in a {name}, found {found}");
                report.add(&format!("{path}.successThreshold"), FindingCode::OutOfRange, message);
            }
        }
    }
}

/// Of a file: it has no ports of its own, so they have numbers.
pub(super) fn check_of_file(probe: &Json, path: &str, report: &mut Report) {
    one_action(probe, path, report);
    for action in ["httpGet", "tcpSocket"] {
        let port = probe.get(action).and_then(|action| text(action, "port"));
        if let Some(name) = port {
            let message = format!("{name:?} is the name of a port, and a file has none");
            report.hint(&format!("{path}.{action}.port"), FindingCode::NotFound, message, "give its number");
        }
    }
    url(probe, path, report);
}

fn one_action(probe: &Json, path: &str, report: &mut Report) {
    let mut given = ACTIONS.into_iter().filter(|action| probe.get(action).is_some());
    match given.next() {
        None if !report.has_at(path) => {
            let actions = ACTIONS.join(", ");
            report.hint(path, FindingCode::MissingField, "asks nothing", format!("give one of {actions}"));
        }
        None => {}
        Some(first) => {
            for action in given {
                let message = format!("cannot be given together with {first}");
                report.key(&format!("{path}.{action}"), FindingCode::Conflicting, message, None);
            }
        }
    }
}

fn ports(spec: &Map<String, Json>, probe: &Json, path: &str, report: &mut Report) {
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
    url(probe, path, report);
}

fn url(probe: &Json, path: &str, report: &mut Report) {
    if let Some(url) = probe.get("httpGet").and_then(|get| text(get, "path"))
        && !url.starts_with('/')
    {
        let message = format!("{url:?} is not the path of a URL: begin with /");
        report.add(&format!("{path}.httpGet.path"), FindingCode::BadValue, message);
    }
}
