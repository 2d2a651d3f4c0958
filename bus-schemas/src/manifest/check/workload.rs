//! Rules of Deployments and of rollouts.

use serde_json::{Map, Value as Json};

use super::report::Report;
use super::walk::not_supported;
use super::{Options, Parts, process};
use crate::manifest::finding::FindingCode;
use crate::quantity::CountOrPercent;

pub(super) fn check(parts: &Parts<'_>, options: &Options, report: &mut Report) {
    let replicas = parts.spec.get("replicas").and_then(Json::as_u64);
    if let Some(replicas) = replicas.filter(|replicas| *replicas > u64::from(options.max_replicas)) {
        let message = format!("is {replicas}, the limit is {}", options.max_replicas);
        report.add("spec.replicas", FindingCode::TooLarge, message);
    }
    strategy(parts.spec, report);
    rollout(parts.spec, report);
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

/// Waves rise and end with everything. That the form is right is said before that only `[100%]` is served, so that
/// a manifest for a later version can be made right today.
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
    for (index, pair) in shares.windows(2).enumerate() {
        let rises = match (pair[0], pair[1]) {
            (CountOrPercent::Count(before), CountOrPercent::Count(after)) => after > before,
            (CountOrPercent::Percent(before), CountOrPercent::Percent(after)) => after > before,
            (CountOrPercent::Count(_), CountOrPercent::Percent(_)) => true,
            (CountOrPercent::Percent(_), CountOrPercent::Count(_)) => false,
        };
        if !rises {
            let message = format!("waves must rise: {} after {}", pair[1], pair[0]);
            report.add(&format!("{AT}[{}]", index + 1), FindingCode::BadValue, message);
            return;
        }
    }
    if shares.first().is_some_and(|first| first.is_zero()) {
        report.add(&format!("{AT}[0]"), FindingCode::OutOfRange, "must be at least 1, found 0");
    } else if shares.last() != Some(&CountOrPercent::ALL) {
        report.add(AT, FindingCode::BadValue, "the last wave must be 100%");
    } else if shares.len() > 1 {
        let message = format!("more than one wave {}", not_supported("choice"));
        report.hint(AT, FindingCode::NotSupported, message, "write [100%]");
    }
}
