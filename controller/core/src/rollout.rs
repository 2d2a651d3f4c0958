//! Rollouts: which version of an object is in force, how a new one is judged, and what follows when it fails.
//!
//! The one state machine behind Deployments and ConfigFiles (CONTRACT.md section 3), in its one-wave case:
//!
//! ```text
//!   new version --> Progressing --all healthy--> Baking --bake over--> Complete
//!                       ^  |                       |  |
//!                       |  +-- failure, deadline --+  +-- healthy no more: back to Progressing
//!                       |              |
//!          newer version|              +-- onFailure: pause -----------> Paused   (until a newer version)
//!                       |              +-- no good version before -----> Failed   (until healthy, or a newer version)
//!                       |              +-- rollback --> RollingBack --all healthy--> RolledBack
//!                       +---------------------------------- from every state
//! ```
//!
//! Guarantees: a version that failed is not tried again by itself, nor by a change of other fields; an automatic
//! rollback changes this state only, never a spec. Pure: what is healthy and what failed is told by the caller as a
//! [`Sight`].

use ostler_schemas::spec::{OnFailure, Rollout, Spec};
use ostler_schemas::time::{Now, Timestamp};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::{RolloutPhase, RolloutState};
use ostler_schemas::{ObjectRef, Uid, Version};

use crate::fleet::Fleet;
use crate::plan::{Plan, Telling};

/// A wave that has not moved for so long has failed (`progressDeadline`, CONTRACT.md section 3).
pub const PROGRESS_DEADLINE_MS: u64 = 600_000;

/// What a controller sees of the version in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Everything that can have the version has it and is well.
    pub healthy: bool,
    /// What has failed, for people.
    pub failure: Option<String>,
    /// Exits of the version's processes so far; 0 for files.
    pub exits: u64,
    /// Since when something is waited for that only a host can do; none while this controller itself moves on.
    pub waiting_since: Option<Timestamp>,
    /// What is so, in one line: `2 of 3 processes ready`.
    pub summary: String,
}

/// What a look at a rollout came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// The state from now on.
    pub state: RolloutState,
    /// What to tell.
    pub tell: Vec<(Reason, String)>,
    /// When time alone can change something.
    pub wake_in_ms: Option<u64>,
}

/// The state with the present spec taken in, and what to tell if that begins a rollout.
#[must_use]
pub fn admit(
    known: Option<&RolloutState>,
    object: &Object,
    now: Now,
) -> (RolloutState, Option<(Reason, String)>) {
    let version = object.metadata.version;
    let generation = object.metadata.generation.0;
    let Some(known) = known else {
        let state = begin(&RolloutState::default(), version, generation, now);
        return (state, Some((Reason::RolloutStarted, format!("version {version}"))));
    };
    let mut state = known.clone();
    state.generation = generation;
    if version <= known.target.max(known.failed) {
        return (state, None);
    }
    let from = known.target;
    if is_settled(known.phase) {
        state.current = from;
    }
    let state = begin(&state, version, generation, now);
    (state, Some((Reason::RolloutStarted, format!("version {version} replaces version {from}"))))
}

fn begin(before: &RolloutState, target: Version, generation: u64, now: Now) -> RolloutState {
    RolloutState {
        target,
        failed: Version(0),
        wave: 1,
        bake_ends_at: None,
        exits: 0,
        phase: RolloutPhase::Progressing,
        reason: String::new(),
        generation,
        started_at: Some(now.wall),
        finished_at: None,
        ..before.clone()
    }
}

/// Whether the target of this phase is held, rather than being brought about or left: then a newer version replaces it
/// and not what was there before it.
const fn is_settled(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Complete | RolloutPhase::RolledBack | RolloutPhase::Paused | RolloutPhase::Failed => {
            true
        }
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Unknown => false,
    }
}

/// Whether things must be left as they are until a person decides.
#[must_use]
pub const fn is_frozen(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Paused | RolloutPhase::Failed | RolloutPhase::Unknown => true,
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::Complete
        | RolloutPhase::RollingBack
        | RolloutPhase::RolledBack => false,
    }
}

/// Whether this phase waits for reports or time.
#[must_use]
pub const fn is_moving(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Failed => true,
        RolloutPhase::Complete | RolloutPhase::Paused | RolloutPhase::RolledBack | RolloutPhase::Unknown => {
            false
        }
    }
}

/// One step of the machine. `can_revert` says that the last good version can still be read.
#[must_use]
pub fn advance(state: RolloutState, sight: &Sight, rules: &Rollout, can_revert: bool, now: Now) -> Advance {
    let mut next = Advance { state, tell: Vec::new(), wake_in_ms: None };
    match next.state.phase {
        RolloutPhase::Progressing => progress(&mut next, sight, rules, can_revert, now),
        RolloutPhase::Baking => bake(&mut next, sight, rules, can_revert, now),
        RolloutPhase::RollingBack => {
            if sight.healthy {
                next.state.phase = RolloutPhase::RolledBack;
                next.state.finished_at = Some(now.wall);
                next.state.wave = 0;
                let (target, failed) = (next.state.target, next.state.failed);
                next.tell.push((
                    Reason::RolledBack,
                    format!("at version {target} again; version {failed} has failed"),
                ));
            }
        }
        // Nothing better is there to be held, so what has failed may still come right by itself.
        RolloutPhase::Failed => {
            if sight.healthy {
                next.state.failed = Version(0);
                next.state.finished_at = None;
                start_bake(&mut next, sight, rules, now);
            }
        }
        RolloutPhase::Complete | RolloutPhase::Paused | RolloutPhase::RolledBack | RolloutPhase::Unknown => {}
    }
    next
}

fn progress(next: &mut Advance, sight: &Sight, rules: &Rollout, can_revert: bool, now: Now) {
    if let Some(failure) = &sight.failure {
        fail(next, failure, rules, can_revert, now);
    } else if sight.healthy {
        start_bake(next, sight, rules, now);
    } else if let Some(since) = sight.waiting_since {
        let waited = now.wall.since_ms(since);
        if waited >= PROGRESS_DEADLINE_MS {
            let message = format!("no progress for {}: {}", ostler_schemas::time::age(waited), sight.summary);
            next.tell.push((Reason::ProgressDeadline, message.clone()));
            fail(next, &message, rules, can_revert, now);
        } else {
            next.wake_in_ms = Some(PROGRESS_DEADLINE_MS - waited);
        }
    }
}

fn start_bake(next: &mut Advance, sight: &Sight, rules: &Rollout, now: Now) {
    let bake_ms = rules.bake.as_millis();
    let version = next.state.target;
    next.tell.push((Reason::WaveHealthy, format!("version {version}: {}", sight.summary)));
    if bake_ms == 0 {
        complete(next, now);
        return;
    }
    next.state.phase = RolloutPhase::Baking;
    next.state.bake_ends_at = Some(Timestamp(now.wall.0.saturating_add(bake_ms)));
    next.state.exits = sight.exits;
    next.state.reason = String::new();
    next.wake_in_ms = Some(bake_ms);
}

fn bake(next: &mut Advance, sight: &Sight, rules: &Rollout, can_revert: bool, now: Now) {
    if let Some(failure) = &sight.failure {
        fail(next, failure, rules, can_revert, now);
    } else if sight.exits > next.state.exits {
        fail(next, "a process exited while baking", rules, can_revert, now);
    } else if !sight.healthy {
        next.state.phase = RolloutPhase::Progressing;
        next.state.bake_ends_at = None;
    } else {
        // A wall clock that was set back must not make the bake longer than it was asked to be.
        let longest = Timestamp(now.wall.0.saturating_add(rules.bake.as_millis()));
        let ends = next.state.bake_ends_at.map_or(longest, |at| at.min(longest));
        if now.wall >= ends {
            complete(next, now);
        } else {
            next.state.bake_ends_at = Some(ends);
            next.wake_in_ms = Some(ends.since_ms(now.wall));
        }
    }
}

fn complete(next: &mut Advance, now: Now) {
    next.state.phase = RolloutPhase::Complete;
    next.state.last_good = next.state.target;
    next.state.failed = Version(0);
    next.state.bake_ends_at = None;
    next.state.finished_at = Some(now.wall);
    next.state.reason = String::new();
    next.state.wave = 0;
    next.tell.push((Reason::RolloutComplete, format!("version {}", next.state.target)));
}

fn fail(next: &mut Advance, failure: &str, rules: &Rollout, can_revert: bool, now: Now) {
    let bad = next.state.target;
    let good = next.state.last_good;
    next.tell.push((Reason::WaveFailed, format!("version {bad}: {failure}")));
    next.state.failed = bad;
    next.state.bake_ends_at = None;
    next.state.finished_at = Some(now.wall);
    next.state.reason = failure.to_owned();
    match rules.on_failure {
        OnFailure::Pause => {
            next.state.phase = RolloutPhase::Paused;
            next.tell.push((Reason::Paused, format!("version {bad} has failed; onFailure is pause")));
        }
        OnFailure::Rollback if good == Version(0) || !can_revert => {
            next.state.phase = RolloutPhase::Failed;
            let why = if good == Version(0) {
                "no version before it has completed".to_owned()
            } else {
                format!("version {good}, the last good one, is not kept any more")
            };
            next.tell.push((Reason::RolloutFailed, format!("version {bad} has failed and {why}")));
        }
        OnFailure::Rollback => {
            next.state.phase = RolloutPhase::RollingBack;
            next.state.current = bad;
            next.state.target = good;
            next.state.finished_at = None;
            next.tell.push((
                Reason::RolloutFailed,
                format!("version {bad} has failed; going back to version {good}"),
            ));
        }
    }
}

/// The spec of one version of an object: the present one if it has that version, else the newest kept revision of it.
#[must_use]
pub fn spec_of_version<'a>(fleet: &'a Fleet, object: &'a Object, version: Version) -> Option<&'a Spec> {
    if object.metadata.version == version {
        return Some(&object.spec);
    }
    let of = object.object_ref();
    revisions_of(fleet, &of, object.metadata.uid)
        .filter(|(_, revision)| revision.version == version)
        .last()
        .map(|(_, revision)| &revision.value.spec)
}

/// Kept revisions of an object, by rising generation.
pub fn revisions_of<'a>(
    fleet: &'a Fleet,
    of: &ObjectRef,
    uid: Uid,
) -> impl Iterator<
    Item = (ostler_schemas::Generation, &'a crate::fleet::Stored<ostler_schemas::v1::object::SpecRevision>),
> {
    let first = (of.clone(), uid, ostler_schemas::Generation(0));
    let last = (of.clone(), uid, ostler_schemas::Generation(u64::MAX));
    fleet.spec_revisions.range(first..=last).map(|((_, _, generation), revision)| (*generation, revision))
}

/// Adds what a rollout tells to a plan.
pub fn tell(plan: &mut Plan, object: &Object, tell: impl IntoIterator<Item = (Reason, String)>) {
    let told = tell.into_iter().map(|(reason, message)| Telling {
        object: object.object_ref(),
        uid: Some(object.metadata.uid),
        node: None,
        reason,
        message,
    });
    plan.tell.extend(told);
}

#[cfg(test)]
mod tests;
