//! Deployments: counts of processes, and the rollout as the controller's state has it.

use ostler_schemas::spec::{DeploymentSpec, Rollout};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::object::{Applied, Object};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::{EventType, Reason};
use ostler_schemas::v1::report::{Condition, ProcessPhase};
use ostler_schemas::v1::state::{RolloutPhase, RolloutState, WaveTally};
use ostler_schemas::v1::status::{DeploymentStatus, RolloutStatus};
use ostler_schemas::{ControllerName, Version};

use super::{Lens, condition, count, process};
use crate::deployment::is_failure;
use crate::fleet::Stored;
use crate::rollout::is_moving;

/// What the processes of a Deployment are like.
#[derive(Debug, Default)]
struct Tally {
    replicas: u32,
    updated: u32,
    ready: u32,
    healthy: u32,
    failed: u32,
    offline: u32,
    /// The first process that is not well, for the message.
    worst: Option<String>,
    ready_since: Option<Timestamp>,
    /// The first processes of the version that are not ready.
    waits_for: Vec<String>,
    /// The first that have failed, and why.
    failures: Vec<String>,
}

/// Most processes that are named.
const NAMED: usize = 3;

impl Tally {
    fn wave(&self, state: &RolloutState, spec: &DeploymentSpec) -> Option<WaveTally> {
        let at = state.wave_started_at?;
        let index = usize::try_from(state.wave).ok()?.checked_sub(1)?;
        let size = spec.rollout.waves.get(index).map_or(spec.replicas, |wave| wave.round_up(spec.replicas));
        Some(WaveTally {
            wave: state.wave,
            size: size.min(spec.replicas),
            healthy: self.healthy,
            failed: self.failed,
            offline: self.offline,
            at,
        })
    }
}

pub(super) fn status(lens: &Lens<'_>, object: &Stored<Object>, spec: &DeploymentSpec) -> DeploymentStatus {
    let metadata = &object.value.metadata;
    let state = lens.fleet.rollouts.get(&(ControllerName::Deployment, metadata.uid));
    let version = state.map_or(metadata.version, |s| s.target);
    let tally = tally(lens, object, version, state.map(|s| &*s.value));
    let (_, may_be_unavailable) = spec.strategy.bounds(spec.replicas);
    let rollout = state.map(|s| RolloutStatus {
        total: spec.replicas,
        updated: tally.updated,
        healthy: tally.healthy,
        failed: tally.failed,
        offline: tally.offline,
        present: tally.wave(s, spec),
        waits_for: if is_moving(s.phase) { tally.waits_for.clone() } else { Vec::new() },
        failures: tally.failures.clone(),
        ..rollout(s, &spec.rollout, &metadata.applied)
    });
    let since = state.and_then(|s| s.finished_at.or(s.started_at)).unwrap_or(metadata.creation_timestamp);
    let enough =
        tally.ready >= spec.replicas.saturating_sub(may_be_unavailable).max(u32::from(spec.replicas > 0));
    let available = condition(
        "Available",
        enough,
        if enough { "EnoughReady" } else { "TooFewReady" },
        format!("{} of {} ready", tally.ready, spec.replicas),
        tally.ready_since.unwrap_or(metadata.creation_timestamp),
    );
    DeploymentStatus {
        version,
        last_good_version: state.map_or(Version(0), |s| s.last_good),
        failed_version: state.map_or(Version(0), |s| s.failed),
        replicas: tally.replicas,
        updated: tally.updated,
        ready: tally.ready,
        unavailable: spec.replicas.saturating_sub(tally.ready),
        rollout,
        observed_generation: state.map_or(0, |s| s.generation),
        conditions: vec![
            available,
            progressing(state.map(|s| &*s.value), since),
            degraded(state.map(|s| &*s.value), tally.worst, since),
        ],
        epoch: state.map(|s| s.epoch).unwrap_or_default(),
    }
}

fn tally(
    lens: &Lens<'_>,
    object: &Stored<Object>,
    version: Version,
    rollout: Option<&RolloutState>,
) -> Tally {
    let mut out = Tally::default();
    let phase = rollout.map_or(RolloutPhase::Progressing, |s| s.phase);
    let is_judged = rollout.is_some_and(|s| s.failed == version && version > Version(0));
    for (uid, records) in lens.fleet.processes_of(&object.value.metadata.uid) {
        let Some(spec) = records.spec.as_ref().filter(|_| records.goal() == Goal::Run) else { continue };
        let has_version = records.template.as_ref().is_some_and(|t| t.version == version);
        let status = process::status(lens, uid, records, spec.value.at, version);
        let ready = status.ready == Some(true);
        out.replicas += 1;
        out.updated += u32::from(has_version);
        out.ready += u32::from(ready);
        out.healthy += u32::from(ready && has_version);
        // Of a version that has failed, what is not ready was not ready in time.
        let failed = lens.said(uid).report.is_some_and(|r| is_failure(phase, r)) || (is_judged && !ready);
        let warns = |r: Reason| r.event_type() == EventType::Warning;
        let unwell = status.phase == ProcessPhase::Failed || status.reason.is_some_and(warns);
        let offline = status.phase == ProcessPhase::Unknown;
        out.offline += u32::from(offline);
        out.failed += u32::from(failed && has_version && !offline);
        out.ready_since = out.ready_since.max(status.ready_at.or(status.started_at));
        if has_version && !ready && out.waits_for.len() < NAMED {
            out.waits_for.push(format!("process {}", spec.name));
        }
        if failed && has_version && !offline && out.failures.len() < NAMED {
            let why = status.message.as_deref().unwrap_or("was not ready in time");
            out.failures.push(format!("process {}: {why}", spec.name));
        }
        if (unwell || offline) && out.worst.is_none() {
            let what = status.reason.map_or(status.phase.as_str(), Reason::as_str);
            let message = status.message.map(|m| format!(": {m}")).unwrap_or_default();
            out.worst = Some(format!("process/{} {what}{message}", spec.name));
        }
    }
    out
}

/// The part of a rollout's status that is the same for all kinds; the counts are filled in by the caller.
pub(super) fn rollout(state: &RolloutState, rules: &Rollout, applied: &Applied) -> RolloutStatus {
    let waves = if state.waves > 0 { state.waves } else { count(rules.waves.len()) };
    RolloutStatus {
        state: state.phase,
        from_version: state.current,
        to_version: state.target,
        // One that is over stands at its last wave.
        wave: if state.phase == RolloutPhase::Complete { waves } else { state.wave },
        waves,
        bake: Some(rules.bake),
        bake_ends_at: state.bake_ends_at,
        total: 0,
        updated: 0,
        healthy: 0,
        failed: 0,
        offline: 0,
        started_at: state.started_at,
        finished_at: state.finished_at,
        actor: Some(applied.actor.clone()),
        reason: applied.reason.clone(),
        message: state.reason.clone(),
        present: None,
        past: state.past.clone(),
        hold: state.hold,
        waits_for: Vec::new(),
        failures: Vec::new(),
    }
}

fn progressing(state: Option<&RolloutState>, since: Timestamp) -> Condition {
    let Some(state) = state else {
        return condition(
            "Progressing",
            true,
            "NotLookedAt",
            "the controller has not looked at it yet",
            since,
        );
    };
    let moves = match state.phase {
        RolloutPhase::Progressing | RolloutPhase::Baking | RolloutPhase::RollingBack => true,
        RolloutPhase::Complete
        | RolloutPhase::Paused
        | RolloutPhase::RolledBack
        | RolloutPhase::Failed
        | RolloutPhase::Unknown => false,
    };
    condition("Progressing", moves, state.phase.as_str(), state.reason.clone(), since)
}

/// Whether something about the object is not well: a version that failed, or parts that have failed or are offline.
pub(super) fn degraded(state: Option<&RolloutState>, worst: Option<String>, since: Timestamp) -> Condition {
    let bad_phase = state.filter(|s| matches!(s.phase, RolloutPhase::RolledBack | RolloutPhase::Failed));
    match (bad_phase, worst) {
        (Some(state), _) => condition("Degraded", true, state.phase.as_str(), state.reason.clone(), since),
        (None, Some(worst)) => condition("Degraded", true, "PartsFailed", worst, since),
        (None, None) => condition("Degraded", false, "AllWell", "", since),
    }
}
