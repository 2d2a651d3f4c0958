//! Rules of Deployments and of rollouts.

use serde_json::{Map, Value as Json};

use super::report::Report;
use super::{Options, Parts, process};
use crate::manifest::finding::FindingCode;
use crate::quantity::CountOrPercent;
use crate::spec::check_waves;

pub(super) fn check(parts: &Parts<'_>, options: &Options, report: &mut Report) {
    let replicas = parts.spec.get("replicas").and_then(Json::as_u64);
    if let Some(replicas) = replicas.filter(|replicas| *replicas > u64::from(options.max_replicas)) {
        let message = format!("is {replicas}, the limit is {}", options.max_replicas);
        report.add("spec.replicas", FindingCode::TooLarge, message);
    }
    strategy(parts.spec, report);
    rollout(parts.spec, report);
    only_of_files(parts.spec, report);
    let template =
        parts.spec.get("template").and_then(|template| template.get("spec")).and_then(Json::as_object);
    if let Some(template) = template {
        process::check(parts, template, "spec.template.spec", report);
    }
}

fn strategy(spec: &Map<String, Json>, report: &mut Report) {
    let Some(strategy) = spec.get("strategy") else {
        return;
    };
    let Some(update) = strategy.get("rollingUpdate") else {
        return;
    };
    if strategy.get("type").and_then(Json::as_str) == Some("Recreate") {
        let at = "spec.strategy.rollingUpdate";
        report.key(at, FindingCode::Conflicting, "needs strategy.type RollingUpdate", None);
    }
    let is_zero = |name: &str| update.get(name).and_then(share).is_some_and(CountOrPercent::is_zero);
    if is_zero("maxSurge") && is_zero("maxUnavailable") {
        let message = "maxSurge and maxUnavailable cannot both be 0";
        report.add("spec.strategy.rollingUpdate", FindingCode::Conflicting, message);
    }
}

fn share(value: &Json) -> Option<CountOrPercent> {
    match value {
        Json::Number(number) => {
            number.as_u64().and_then(|n| u32::try_from(n).ok()).map(CountOrPercent::Count)
        }
        Json::String(text) => text.parse().ok(),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Waves rise and end with everything.
pub(super) fn rollout(spec: &Map<String, Json>, report: &mut Report) {
    const AT: &str = "spec.rollout.waves";
    let Some(waves) = spec.get("rollout").and_then(|rollout| rollout.get("waves")).and_then(Json::as_array)
    else {
        return;
    };
    let shares: Vec<CountOrPercent> = waves.iter().filter_map(share).collect();
    if shares.len() < waves.len() {
        return;
    }
    if let Err(bad) = check_waves(&shares) {
        let at = bad.index.map_or_else(|| AT.to_owned(), |index| format!("{AT}[{index}]"));
        let code = if bad.index == Some(0) { FindingCode::OutOfRange } else { FindingCode::BadValue };
        report.add(&at, code, bad.message);
        return;
    }
    pauses(spec, shares.len(), report);
}

/// A pause after the last wave would never be seen: the rollout is complete then.
fn pauses(spec: &Map<String, Json>, waves: usize, report: &mut Report) {
    let after = spec.get("rollout").and_then(|r| r.get("pauseAfter")).and_then(Json::as_array);
    for (index, wave) in after.into_iter().flatten().enumerate() {
        if let Some(wave) = wave.as_u64().filter(|wave| *wave >= waves as u64) {
            let at = format!("spec.rollout.pauseAfter[{index}]");
            let message = format!("there is nothing after wave {wave} of {waves}");
            report.add(&at, FindingCode::OutOfRange, message);
        }
    }
}

/// What only files have: processes are paced by their strategy and placed by the scheduler.
fn only_of_files(spec: &Map<String, Json>, report: &mut Report) {
    let Some(rollout) = spec.get("rollout").and_then(Json::as_object) else { return };
    for (field, hint) in [
        ("maxUnavailable", "write spec.strategy.rollingUpdate.maxUnavailable"),
        ("groupBy", "the scheduler places processes; use topologySpreadConstraints"),
    ] {
        if rollout.contains_key(field) {
            let at = format!("spec.rollout.{field}");
            report.hint(&at, FindingCode::Conflicting, "is for ConfigFiles only", hint);
        }
    }
}
