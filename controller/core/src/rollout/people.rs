//! What people order about a rollout on its way: pause, resume, abort.
//!
//! `paused` is part of the spec and holds for as long as it stands there. Resume and abort are orders in the object's
//! metadata: each has a number and is taken in once, so a leader that takes over neither forgets nor repeats one.

use ostler_schemas::Version;
use ostler_schemas::spec::Spec;
use ostler_schemas::time::Now;
use ostler_schemas::v1::object::{Object, RolloutAct, RolloutOrder};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::{RolloutHold, RolloutPhase, RolloutState};

use super::machine::fail;
use super::{Terms, Turn};

/// Takes in what people have ordered.
#[must_use]
pub fn heed(state: RolloutState, object: &Object, terms: Terms<'_>, now: Now) -> Turn {
    let mut turn = Turn::of(state);
    if let Some(order) = object.metadata.order.as_ref().filter(|order| order.n > turn.state.orders) {
        turn.state.orders = order.n;
        // An order about a version that has been replaced or left meanwhile is about nothing.
        if order.version == turn.state.target {
            obey(&mut turn, order, terms, now);
        }
    }
    match (is_paused(&object.spec), turn.state.phase) {
        (true, RolloutPhase::Progressing | RolloutPhase::Baking) => pause(&mut turn, object),
        (false, RolloutPhase::Paused) if turn.state.hold == Some(RolloutHold::Person) => {
            go_on(&mut turn, now);
            turn.tell(Reason::Resumed, format!("version {}", turn.state.target));
        }
        (_, _) => {}
    }
    turn
}

const fn is_paused(spec: &Spec) -> bool {
    match spec {
        Spec::Deployment(spec) => spec.paused,
        Spec::ConfigFile(spec) => spec.paused,
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Secret(_) => false,
    }
}

fn obey(turn: &mut Turn, order: &RolloutOrder, terms: Terms<'_>, now: Now) {
    let why = order.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match (order.act, turn.state.phase) {
        (RolloutAct::Resume, RolloutPhase::Paused) => {
            resume(turn, now);
            turn.tell(Reason::Resumed, format!("version {} by {}{why}", order.version, order.actor));
        }
        (
            RolloutAct::Abort,
            RolloutPhase::Progressing | RolloutPhase::Baking | RolloutPhase::Paused | RolloutPhase::Failed,
        ) => abort(turn, &format!("aborted by {}{why}", order.actor), terms, now),
        (
            RolloutAct::Resume | RolloutAct::Abort | RolloutAct::Unknown,
            RolloutPhase::Progressing
            | RolloutPhase::Baking
            | RolloutPhase::Complete
            | RolloutPhase::Paused
            | RolloutPhase::RollingBack
            | RolloutPhase::RolledBack
            | RolloutPhase::Failed
            | RolloutPhase::Unknown,
        ) => {}
    }
}

fn pause(turn: &mut Turn, object: &Object) {
    let by = object.metadata.touched.get("spec.paused").map(|touch| format!(" by {}", touch.actor));
    turn.state.phase = RolloutPhase::Paused;
    turn.state.hold = Some(RolloutHold::Person);
    turn.state.bake_ends_at = None;
    turn.state.reason = format!("paused{}", by.unwrap_or_default());
    let message = format!("version {}: {}", turn.state.target, turn.state.reason);
    turn.tell(Reason::Paused, message);
}

/// Goes on where it stood. What was waited for gets its time anew.
fn go_on(turn: &mut Turn, now: Now) {
    turn.state.phase = RolloutPhase::Progressing;
    turn.state.hold = None;
    turn.state.reason = String::new();
    turn.state.finished_at = None;
    if turn.state.wave_started_at.is_some() {
        turn.state.wave_started_at = Some(now.wall);
    }
}

fn resume(turn: &mut Turn, now: Now) {
    match turn.state.hold {
        Some(RolloutHold::AfterWave) => {
            go_on(turn, now);
            turn.state.wave += 1;
            turn.state.wave_started_at = None;
        }
        // Who goes on has seen what failed; only more than that is a failure from now on.
        Some(RolloutHold::Failure) | None => {
            go_on(turn, now);
            turn.state.failed = Version(0);
            turn.state.pardoned = turn.state.failures;
        }
        Some(RolloutHold::Person) => go_on(turn, now),
        Some(RolloutHold::Unknown) => {}
    }
}

/// A person gives the version up. Without a version to go back to it stays where it is, and goes no further.
fn abort(turn: &mut Turn, why: &str, terms: Terms<'_>, now: Now) {
    let back = terms.can_revert && turn.state.last_good > Version(0);
    if back {
        turn.state.pardoned = 0;
        fail(turn, why, true, now);
        return;
    }
    turn.state.phase = RolloutPhase::Paused;
    turn.state.hold = Some(RolloutHold::Failure);
    turn.state.failed = turn.state.target;
    turn.state.bake_ends_at = None;
    turn.state.finished_at = Some(now.wall);
    turn.state.reason = format!("{why}; there is no version to go back to");
    let message = format!("version {}: {}", turn.state.target, turn.state.reason);
    turn.tell(Reason::Paused, message);
}
