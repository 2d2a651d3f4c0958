//! The steps of the machine: a wave starts, is judged, bakes, and is followed by the next or by the way back.

use ostler_schemas::Version;
use ostler_schemas::quantity::Window;
use ostler_schemas::spec::{OnFailure, Rollout};
use ostler_schemas::time::{Now, Timestamp, age};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::{Rank, RolloutHold, RolloutPhase, WaveTally};

use super::spread::Course;
use super::{Sight, Terms, Turn};

/// Most waves that are remembered: as many as a manifest can ask for. With groups there may be more; then the oldest
/// are forgotten.
const REMEMBERED: usize = 100;

/// Starts the next wave, if one is waited for, a window is open and somebody is there to take the version. Waves that
/// would reach nobody new are passed over, unless a person wants to be asked after them.
pub fn start(turn: &mut Turn, course: &Course, rules: &Rollout, now: Now) {
    let state = &mut turn.state;
    if !super::waits_to_start(state) {
        return;
    }
    if course.is_unheard() {
        state.reason = "waits for a node that beats".to_owned();
        return;
    }
    let first = state.wave <= 1;
    let waves = course.last_number();
    let from = state.wave.clamp(1, waves);
    for (number, end) in (course.first..).zip(&course.ends).skip_while(|(number, _)| *number < from) {
        let reaches_somebody = end.size > course.reached || (first && number == 1);
        if !reaches_somebody && number < waves && !rules.pause_after.contains(&number) {
            continue;
        }
        turn.state.wave = number;
        turn.state.waves = waves;
        if !reaches_somebody && number == waves {
            complete(turn, now);
        } else if !reaches_somebody {
            hold_after(turn);
        } else if let Some(opens) = closed_until(&rules.windows, now) {
            wait_for_window(turn, opens, now);
        } else {
            turn.state.wave_started_at = Some(now.wall);
            turn.state.wave_size = end.size;
            turn.state.wave_end = Some(end.rank);
            turn.state.reason = String::new();
            if rules.max_unavailable.is_none() {
                turn.state.spread = Some(end.rank);
            }
        }
        return;
    }
}

/// When the next window opens, if none is open; `None` of the moment where none ever does.
fn closed_until(windows: &[Window], now: Now) -> Option<Option<Timestamp>> {
    let is_closed = !windows.is_empty() && !windows.iter().any(|window| window.is_open(now.wall));
    is_closed.then(|| windows.iter().filter_map(|window| window.opens_at(now.wall)).min())
}

fn wait_for_window(turn: &mut Turn, opens: Option<Timestamp>, now: Now) {
    let when = opens.map_or_else(|| "never".to_owned(), |at| format!("at {at}"));
    let reason = format!("WaitingForWindow: wave {} may start {when}", turn.state.wave);
    if turn.state.reason != reason {
        turn.tell(Reason::WaitingForWindow, format!("version {}: {reason}", turn.state.target));
        turn.state.reason = reason;
    }
    if let Some(opens) = opens {
        turn.wake_in(opens.since_ms(now.wall));
    }
}

/// One step of the machine.
pub fn advance(turn: &mut Turn, sight: &Sight, terms: Terms<'_>, now: Now) {
    match turn.state.phase {
        RolloutPhase::Progressing if turn.state.wave_started_at.is_none() => {}
        RolloutPhase::Progressing => progress(turn, sight, terms, now),
        RolloutPhase::Baking => bake(turn, sight, terms, now),
        RolloutPhase::RollingBack => {
            if sight.is_healthy(tolerated(turn, sight, terms.rules)) {
                rolled_back(turn, now);
            }
        }
        // Nothing better is there to be held, so what has failed may still come right by itself.
        RolloutPhase::Failed => {
            if sight.is_healthy(tolerated(turn, sight, terms.rules)) {
                turn.state.failed = Version(0);
                turn.state.finished_at = None;
                start_bake(turn, sight, terms.rules, now);
            }
        }
        RolloutPhase::Complete | RolloutPhase::Paused | RolloutPhase::RolledBack | RolloutPhase::Unknown => {}
    }
}

/// How many failures are borne: those that the rules allow of this wave, or those that a person has seen.
fn tolerated(turn: &Turn, sight: &Sight, rules: &Rollout) -> u32 {
    rules.max_failures.round_down(sight.members).max(turn.state.pardoned)
}

fn progress(turn: &mut Turn, sight: &Sight, terms: Terms<'_>, now: Now) {
    let tolerated = tolerated(turn, sight, terms.rules);
    if sight.failures.count > tolerated {
        turn.state.failures = sight.failures.count;
        fail_by_rules(turn, &sight.failures.text(), terms, now);
    } else if sight.is_healthy(tolerated) {
        start_bake(turn, sight, terms.rules, now);
    } else if let Some(since) = sight.waiting_since {
        let (waited, deadline) = (now.wall.since_ms(since), terms.rules.progress_deadline.as_millis());
        if waited >= deadline {
            let message = format!("no progress for {}: {}", age(waited), sight.summary);
            turn.tell(Reason::ProgressDeadline, message.clone());
            turn.state.failures = sight.failures.count;
            fail_by_rules(turn, &message, terms, now);
        } else {
            turn.wake_in(deadline - waited);
        }
    }
}

fn start_bake(turn: &mut Turn, sight: &Sight, rules: &Rollout, now: Now) {
    let bake_ms = rules.bake.as_millis();
    let (version, wave, waves) = (turn.state.target, turn.state.wave.max(1), turn.state.waves.max(1));
    let which = if waves > 1 { format!(", wave {wave} of {waves}") } else { String::new() };
    turn.tell(Reason::WaveHealthy, format!("version {version}{which}: {}", sight.summary));
    if bake_ms == 0 {
        wave_over(turn, sight, rules, now);
        return;
    }
    turn.state.phase = RolloutPhase::Baking;
    turn.state.bake_ends_at = Some(Timestamp(now.wall.0.saturating_add(bake_ms)));
    turn.state.exits = sight.exits;
    turn.state.reason = String::new();
    turn.wake_in(bake_ms);
}

fn bake(turn: &mut Turn, sight: &Sight, terms: Terms<'_>, now: Now) {
    let tolerated = tolerated(turn, sight, terms.rules);
    let exits = u32::try_from(sight.exits.saturating_sub(turn.state.exits)).unwrap_or(u32::MAX);
    if sight.failures.count.saturating_add(exits) > tolerated {
        turn.state.failures = sight.failures.count;
        let mut why = sight.failures.text();
        if why.is_empty() {
            "a process exited while baking".clone_into(&mut why);
        }
        fail_by_rules(turn, &why, terms, now);
    } else if !sight.is_healthy(tolerated) {
        turn.state.phase = RolloutPhase::Progressing;
        turn.state.bake_ends_at = None;
    } else {
        // A wall clock that was set back must not make the bake longer than it was asked to be.
        let longest = Timestamp(now.wall.0.saturating_add(terms.rules.bake.as_millis()));
        let ends = turn.state.bake_ends_at.map_or(longest, |at| at.min(longest));
        if now.wall >= ends {
            wave_over(turn, sight, terms.rules, now);
        } else {
            turn.state.bake_ends_at = Some(ends);
            turn.wake_in(ends.since_ms(now.wall));
        }
    }
}

fn wave_over(turn: &mut Turn, sight: &Sight, rules: &Rollout, now: Now) {
    let state = &mut turn.state;
    let past = WaveTally {
        wave: state.wave.max(1),
        size: sight.members,
        healthy: sight.well,
        failed: sight.failures.count,
        offline: sight.offline,
        at: now.wall,
    };
    state.past.push(past);
    if state.past.len() > REMEMBERED {
        state.past.remove(0);
    }
    state.bake_ends_at = None;
    // A state of before there were waves knows no number of them: it was in its last one.
    if state.wave >= state.waves {
        complete(turn, now);
    } else if rules.pause_after.contains(&state.wave) {
        hold_after(turn);
    } else {
        state.phase = RolloutPhase::Progressing;
        state.wave += 1;
        state.wave_started_at = None;
        turn.wake_in(0);
    }
}

fn hold_after(turn: &mut Turn) {
    let state = &mut turn.state;
    state.phase = RolloutPhase::Paused;
    state.hold = Some(RolloutHold::AfterWave);
    state.reason =
        format!("pauseAfter: wave {} of {} is healthy; rollout resume goes on", state.wave, state.waves);
    let message = format!("version {}: {}", state.target, state.reason);
    turn.tell(Reason::Paused, message);
}

fn complete(turn: &mut Turn, now: Now) {
    let state = &mut turn.state;
    state.phase = RolloutPhase::Complete;
    state.last_good = state.target;
    state.failed = Version(0);
    over(turn, now);
    turn.state.reason = String::new();
    turn.tell(Reason::RolloutComplete, format!("version {}", turn.state.target));
}

fn rolled_back(turn: &mut Turn, now: Now) {
    turn.state.phase = RolloutPhase::RolledBack;
    over(turn, now);
    let (target, failed) = (turn.state.target, turn.state.failed);
    turn.tell(Reason::RolledBack, format!("at version {target} again; version {failed} has failed"));
}

/// The target is in force everywhere. Nothing is kept that only matters on the way.
fn over(turn: &mut Turn, now: Now) {
    let state = &mut turn.state;
    state.finished_at = Some(now.wall);
    state.bake_ends_at = None;
    state.wave = 0;
    state.wave_started_at = None;
    state.spread = None;
    state.wave_end = None;
    state.hold = None;
    state.failures = 0;
    state.pardoned = 0;
    state.baseline = None;
}

fn fail_by_rules(turn: &mut Turn, failure: &str, terms: Terms<'_>, now: Now) {
    let (bad, good) = (turn.state.target, turn.state.last_good);
    match terms.rules.on_failure {
        OnFailure::Pause => {
            turn.tell(Reason::WaveFailed, format!("version {bad}: {failure}"));
            given_up(turn, failure, now);
            turn.state.phase = RolloutPhase::Paused;
            turn.state.hold = Some(RolloutHold::Failure);
            turn.tell(Reason::Paused, format!("version {bad} has failed; onFailure is pause"));
        }
        OnFailure::Rollback => fail(turn, failure, good > Version(0) && terms.can_revert, now),
    }
}

fn given_up(turn: &mut Turn, failure: &str, now: Now) {
    turn.state.failed = turn.state.target;
    turn.state.bake_ends_at = None;
    turn.state.finished_at = Some(now.wall);
    failure.clone_into(&mut turn.state.reason);
}

/// The version has failed: back to the last good one, if there is one to go back to.
pub(super) fn fail(turn: &mut Turn, failure: &str, can_go_back: bool, now: Now) {
    let (bad, good) = (turn.state.target, turn.state.last_good);
    turn.tell(Reason::WaveFailed, format!("version {bad}: {failure}"));
    given_up(turn, failure, now);
    if !can_go_back {
        turn.state.phase = RolloutPhase::Failed;
        let why = if good == Version(0) {
            "no version before it has completed".to_owned()
        } else {
            format!("version {good}, the last good one, is not kept any more")
        };
        turn.tell(Reason::RolloutFailed, format!("version {bad} has failed and {why}"));
        return;
    }
    let state = &mut turn.state;
    state.phase = RolloutPhase::RollingBack;
    state.current = bad;
    state.bad = bad;
    state.target = good;
    state.finished_at = None;
    state.hold = None;
    state.spread = None;
    state.wave_end = Some(Rank::LAST);
    turn.tell(Reason::RolloutFailed, format!("version {bad} has failed; going back to version {good}"));
}
