use ostler_schemas::quantity::Dur;
use ostler_schemas::time::Mono;
use proptest::prelude::*;

use super::*;
use crate::status::rig;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Timestamp(rig::NOW.0 + ms) }
}

fn rules(on_failure: OnFailure) -> Rollout {
    Rollout { bake: Dur::from_secs(10), on_failure, ..rig::rollout() }
}

fn object(version: u64) -> Object {
    let mut rig = rig::Rig::new();
    let name = rig::object(ostler_schemas::Kind::Deployment, "web");
    let spec = Spec::Deployment(Box::new(rig::deployment_spec(1, "x")));
    let mut object = rig.object(name, rig::uid(1), spec);
    object.metadata.version = Version(version);
    object.metadata.generation = ostler_schemas::Generation(version);
    object
}

fn healthy(exits: u64) -> Sight {
    Sight { healthy: true, exits, ..Sight::default() }
}

fn failing() -> Sight {
    Sight { failure: Some("it broke".to_owned()), ..Sight::default() }
}

/// The state after a version has completed.
fn good(version: u64) -> RolloutState {
    let (state, _) = admit(None, &object(version), at(0));
    let state = advance(state, &healthy(0), &rules(OnFailure::Rollback), false, at(0)).state;
    let state = advance(state, &healthy(0), &rules(OnFailure::Rollback), false, at(10_000)).state;
    assert_eq!((state.phase, state.last_good), (RolloutPhase::Complete, Version(version)));
    state
}

fn phases(next: &Advance) -> (RolloutPhase, Vec<Reason>) {
    (next.state.phase, next.tell.iter().map(|(reason, _)| *reason).collect())
}

#[test]
fn a_failure_goes_back_pauses_or_stays() {
    let (state, told) = admit(Some(&good(1)), &object(2), at(20_000));
    assert_eq!(told.map(|(reason, _)| reason), Some(Reason::RolloutStarted));
    assert_eq!((state.current, state.target, state.last_good), (Version(1), Version(2), Version(1)));
    let back = advance(state.clone(), &failing(), &rules(OnFailure::Rollback), true, at(20_000));
    assert_eq!(phases(&back), (RolloutPhase::RollingBack, vec![Reason::WaveFailed, Reason::RolloutFailed]));
    assert_eq!((back.state.target, back.state.failed), (Version(1), Version(2)));
    let done = advance(back.state, &healthy(0), &rules(OnFailure::Rollback), true, at(30_000));
    assert_eq!(phases(&done), (RolloutPhase::RolledBack, vec![Reason::RolledBack]));
    let pause = advance(state.clone(), &failing(), &rules(OnFailure::Pause), true, at(20_000));
    assert_eq!(phases(&pause), (RolloutPhase::Paused, vec![Reason::WaveFailed, Reason::Paused]));
    let stays = advance(state, &failing(), &rules(OnFailure::Rollback), false, at(20_000));
    assert_eq!(phases(&stays), (RolloutPhase::Failed, vec![Reason::WaveFailed, Reason::RolloutFailed]));
    assert_eq!((stays.state.target, stays.state.failed), (Version(2), Version(2)));
}

#[test]
fn a_failed_version_is_not_begun_again_but_a_newer_one_is() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let state = advance(state, &failing(), &rules(OnFailure::Rollback), true, at(0)).state;
    let mut same = object(2);
    same.metadata.generation = ostler_schemas::Generation(9);
    let (state, told) = admit(Some(&state), &same, at(1));
    assert_eq!((told, state.target, state.generation), (None, Version(1), 9));
    let (state, told) = admit(Some(&state), &object(3), at(2));
    assert!(told.is_some());
    assert_eq!((state.target, state.failed, state.last_good), (Version(3), Version(0), Version(1)));
}

#[test]
fn a_superseded_version_leaves_the_good_one_to_go_back_to() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let (state, _) = admit(Some(&state), &object(3), at(1));
    assert_eq!((state.current, state.target, state.last_good), (Version(1), Version(3), Version(1)));
}

#[test]
fn an_exit_while_baking_fails_and_a_pause_of_health_begins_the_bake_anew() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let rules = rules(OnFailure::Rollback);
    let baking = advance(state, &healthy(4), &rules, true, at(0));
    assert_eq!(phases(&baking), (RolloutPhase::Baking, vec![Reason::WaveHealthy]));
    assert_eq!(baking.wake_in_ms, Some(10_000));
    let failed = advance(baking.state.clone(), &healthy(5), &rules, true, at(5000));
    assert_eq!(failed.state.phase, RolloutPhase::RollingBack);
    let again = advance(baking.state.clone(), &Sight::default(), &rules, true, at(5000));
    assert_eq!((again.state.phase, again.state.bake_ends_at), (RolloutPhase::Progressing, None));
    let over = advance(baking.state, &healthy(4), &rules, true, at(10_000));
    assert_eq!(phases(&over), (RolloutPhase::Complete, vec![Reason::RolloutComplete]));
}

#[test]
fn a_clock_that_was_set_back_does_not_prolong_the_bake() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(50_000_000));
    let rules = rules(OnFailure::Rollback);
    let baking = advance(state, &healthy(0), &rules, true, at(50_000_000)).state;
    let earlier = advance(baking, &healthy(0), &rules, true, at(0));
    assert_eq!(earlier.wake_in_ms, Some(10_000));
}

#[test]
fn the_deadline_counts_from_the_last_progress() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let rules = rules(OnFailure::Rollback);
    let waiting = |since: u64| Sight { waiting_since: Some(at(since).wall), ..Sight::default() };
    let early = advance(state.clone(), &waiting(100_000), &rules, true, at(600_000));
    assert_eq!((early.state.phase, early.wake_in_ms), (RolloutPhase::Progressing, Some(100_000)));
    let late = advance(state.clone(), &waiting(0), &rules, true, at(600_000));
    assert_eq!(late.state.phase, RolloutPhase::RollingBack);
    let moving = advance(state, &Sight::default(), &rules, true, at(9_000_000));
    assert_eq!(moving.state.phase, RolloutPhase::Progressing, "this controller was away, and moves on now");
}

#[test]
fn a_phase_of_a_newer_version_is_left_alone() {
    let state = RolloutState { phase: RolloutPhase::Unknown, target: Version(1), ..RolloutState::default() };
    let next = advance(state.clone(), &failing(), &rules(OnFailure::Rollback), true, at(0));
    assert_eq!((next.state, next.tell), (state, vec![]));
}

fn sight() -> impl Strategy<Value = Sight> {
    let failure = prop::option::weighted(0.2, Just("it broke".to_owned()));
    (any::<bool>(), failure, 0_u64..4, prop::option::of(0_u64..2_000_000)).prop_map(
        |(healthy, failure, exits, since)| Sight {
            healthy: healthy && failure.is_none(),
            failure,
            exits,
            waiting_since: since.map(|ms| at(ms).wall),
            summary: String::new(),
        },
    )
}

proptest! {
    /// Over any history: the good version only ever is one that has completed, a version that was left is never come
    /// back to but by a newer one, and after enough good news every rollout ends.
    #[test]
    fn every_history_is_sound(
        events in prop::collection::vec((sight(), prop::bool::weighted(0.2), any::<bool>(), 0_u64..30_000), 0..60)
    ) {
        let mut version = 1;
        let (mut state, _) = admit(None, &object(1), at(0));
        let mut clock = 0;
        let mut given_up = Vec::new();
        for (sight, newer, pause, ms) in events {
            clock += ms;
            version += u64::from(newer);
            state = admit(Some(&state), &object(version), at(clock)).0;
            let on_failure = if pause { OnFailure::Pause } else { OnFailure::Rollback };
            let before = state.clone();
            let next = advance(state, &sight, &rules(on_failure), before.last_good.0 > 0, at(clock));
            state = next.state;
            prop_assert!(state.last_good == before.last_good || state.phase == RolloutPhase::Complete);
            if state.phase == RolloutPhase::RollingBack && before.phase != RolloutPhase::RollingBack {
                given_up.push(before.target);
            }
            prop_assert!(!given_up.contains(&state.target), "{state:?}");
            prop_assert!(state.bake_ends_at.is_some() == (state.phase == RolloutPhase::Baking));
        }
        for _ in 0..4 {
            clock += 10_000;
            state = advance(state, &healthy(u64::MAX), &rules(OnFailure::Rollback), true, at(clock)).state;
        }
        let over = matches!(
            state.phase,
            RolloutPhase::Complete | RolloutPhase::RolledBack | RolloutPhase::Paused
        );
        prop_assert!(over, "{state:?}");
    }
}
