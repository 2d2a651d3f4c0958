//! How a process says that it is up, how it is told things, and what is kept of its output.

use serde_json::{Map, Value as Json};

use super::process::{text, unique};
use super::report::Report;
use super::scalars::read_choice;
use crate::ids::Kind;
use crate::manifest::finding::FindingCode;
use crate::quantity::{Mode, Signal, Size};

/// Smaller files would be rotated with every few lines.
const LEAST_LOG: Size = Size::from_bytes(4 << 10);

pub(super) fn check(kind: Kind, spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let given = |name: &str| spec.get(name).and_then(Json::as_str);
    let ty = given("type");
    // A Deployment keeps its processes running; what ends with success is no part of one.
    let served: &[&str] = if kind == Kind::Deployment { &["exec", "notify"] } else { &[] };
    if let Some(found) = ty.filter(|ty| !served.is_empty() && read_choice(ty, served, &[]).is_err()) {
        let message = format!("{found:?} is not one of {} on a {kind}", served.join(", "));
        report.add(&format!("{path}.type"), FindingCode::BadChoice, message);
    }
    let mut together = |name: &str, message: &str| {
        if spec.contains_key(name) {
            report.key(&format!("{path}.{name}"), FindingCode::Conflicting, message, None);
        }
    };
    match ty {
        Some("oneshot") => {
            let message =
                "cannot be given together with type oneshot: it is ready once it has ended with success";
            for name in ["startupProbe", "livenessProbe", "readinessProbe"] {
                together(name, message);
            }
        }
        Some("notify") => {
            let message = "cannot be given together with type notify: READY=1 says that it is up";
            together("startupProbe", message);
        }
        Some(_) | None => {}
    }
    if ty.is_some_and(|ty| ty != "notify") {
        together("watchdogSec", "needs type notify");
    }
    for name in ["killSignal", "reloadSignal"] {
        signal(name, given(name), path, report);
    }
    if let Some(mode) = given("umask").and_then(|mode| mode.parse::<Mode>().ok())
        && mode.has_special_bits()
    {
        let message = format!("must be between \"0000\" and \"0777\", found \"{mode}\"");
        report.add(&format!("{path}.umask"), FindingCode::OutOfRange, message);
    }
    unique(spec, path, "successExitStatus", report);
    logs(spec, path, report);
}

/// Signals that no program hears cannot ask it for anything. To kill at once is a way to stop.
fn signal(name: &str, given: Option<&str>, path: &str, report: &mut Report) {
    let (deaf, other): (&[&str], _) = match name {
        "reloadSignal" => (&["SIGKILL", "SIGSTOP"], Signal::HUP),
        _ => (&["SIGSTOP"], Signal::TERM),
    };
    if let Some(found) = given.filter(|found| deaf.contains(found)) {
        let message = format!("{found} cannot be heard by a program: write for example {other}");
        report.add(&format!("{path}.{name}"), FindingCode::BadValue, message);
    }
}

fn logs(spec: &Map<String, Json>, path: &str, report: &mut Report) {
    let size = spec.get("logs").and_then(|logs| text(logs, "maxSize")).and_then(|s| s.parse::<Size>().ok());
    if let Some(size) = size.filter(|size| *size < LEAST_LOG) {
        let message = format!("must be at least {LEAST_LOG}, found {size}");
        report.add(&format!("{path}.logs.maxSize"), FindingCode::OutOfRange, message);
    }
}
