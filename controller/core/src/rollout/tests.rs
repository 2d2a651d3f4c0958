use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::OnFailure;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::object::{RolloutAct, RolloutOrder};
use ostler_schemas::v1::state::{Rank, RolloutHold};
use proptest::prelude::*;

use super::spread::Course;
use super::*;
use crate::status::rig;

mod model;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Timestamp(rig::NOW.0 + ms) }
}

fn rules(on_failure: OnFailure) -> Rollout {
    Rollout { bake: Dur::from_secs(10), on_failure, ..rig::rollout() }
}

fn waves(text: &[&str]) -> Rollout {
    let waves = text.iter().map(|wave| wave.parse().expect("a wave")).collect();
    Rollout { waves, ..rules(OnFailure::Rollback) }
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
    Sight { settled: true, members: 1, well: 1, exits, ..Sight::default() }
}

fn failing() -> Sight {
    let mut failures = Failures::default();
    failures.add(|| "it broke".to_owned());
    Sight { settled: true, members: 1, failures, ..Sight::default() }
}

fn waiting(since: Option<u64>) -> Sight {
    let waiting_since = since.map(|ms| at(ms).wall);
    Sight { settled: true, members: 1, waiting: 1, waiting_since, ..Sight::default() }
}

/// One look: people are heeded, a wave starts if it may, and is judged.
fn look(state: RolloutState, object: &Object, sight: &Sight, terms: Terms<'_>, now: Now) -> Turn {
    let mut turn = heed(state, object, terms, now);
    let course = Course::of_replicas(terms.rules, 10, &turn.state);
    start(&mut turn, &course, terms.rules, now);
    advance(&mut turn, sight, terms, now);
    turn
}

fn step(state: RolloutState, sight: &Sight, rules: &Rollout, can_revert: bool, now: Now) -> Turn {
    let object = object(state.target.0.max(state.failed.0));
    look(state, &object, sight, Terms { rules, can_revert }, now)
}

/// The state after a version has completed.
fn good(version: u64) -> RolloutState {
    let (state, _) = admit(None, &object(version), at(0));
    let state = step(state, &healthy(0), &rules(OnFailure::Rollback), false, at(0)).state;
    let state = step(state, &healthy(0), &rules(OnFailure::Rollback), false, at(10_000)).state;
    assert_eq!((state.phase, state.last_good), (RolloutPhase::Complete, Version(version)));
    state
}

fn phases(next: &Turn) -> (RolloutPhase, Vec<Reason>) {
    (next.state.phase, next.tell.iter().map(|(reason, _)| *reason).collect())
}

fn order(n: u64, act: RolloutAct, version: u64) -> Option<RolloutOrder> {
    let (actor, at) = (rig::user(), rig::NOW);
    Some(RolloutOrder { n, act, version: Version(version), actor, at, reason: None })
}

#[test]
fn a_failure_goes_back_pauses_or_stays() {
    let (state, told) = admit(Some(&good(1)), &object(2), at(20_000));
    assert_eq!(told.map(|(reason, _)| reason), Some(Reason::RolloutStarted));
    assert_eq!((state.current, state.target, state.last_good), (Version(1), Version(2), Version(1)));
    let back = step(state.clone(), &failing(), &rules(OnFailure::Rollback), true, at(20_000));
    assert_eq!(phases(&back), (RolloutPhase::RollingBack, vec![Reason::WaveFailed, Reason::RolloutFailed]));
    assert_eq!((back.state.target, back.state.failed), (Version(1), Version(2)));
    let done = step(back.state, &healthy(0), &rules(OnFailure::Rollback), true, at(30_000));
    assert_eq!(phases(&done), (RolloutPhase::RolledBack, vec![Reason::RolledBack]));
    let pause = step(state.clone(), &failing(), &rules(OnFailure::Pause), true, at(20_000));
    assert_eq!(phases(&pause), (RolloutPhase::Paused, vec![Reason::WaveFailed, Reason::Paused]));
    let stays = step(state, &failing(), &rules(OnFailure::Rollback), false, at(20_000));
    assert_eq!(phases(&stays), (RolloutPhase::Failed, vec![Reason::WaveFailed, Reason::RolloutFailed]));
}

#[test]
fn a_superseded_version_leaves_the_good_one_to_go_back_to() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let (next, _) = admit(Some(&state), &object(3), at(1));
    assert_eq!((next.current, next.target, next.last_good), (Version(1), Version(3), Version(1)));
    assert_eq!((state.seed, next.seed), (Version(2), Version(2)), "it goes first where that one went first");
}

#[test]
fn an_exit_while_baking_fails_and_a_pause_of_health_begins_the_bake_anew() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let rules = rules(OnFailure::Rollback);
    let baking = step(state, &healthy(4), &rules, true, at(0));
    assert_eq!(phases(&baking), (RolloutPhase::Baking, vec![Reason::WaveHealthy]));
    assert_eq!(baking.wake_in_ms, Some(10_000));
    let failed = step(baking.state.clone(), &healthy(5), &rules, true, at(5000));
    assert_eq!(failed.state.phase, RolloutPhase::RollingBack);
    let again = step(baking.state.clone(), &waiting(None), &rules, true, at(5000));
    assert_eq!((again.state.phase, again.state.bake_ends_at), (RolloutPhase::Progressing, None));
    let over = step(baking.state, &healthy(4), &rules, true, at(10_000));
    assert_eq!(phases(&over), (RolloutPhase::Complete, vec![Reason::RolloutComplete]));
}

#[test]
fn a_clock_that_was_set_back_does_not_prolong_the_bake() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(50_000_000));
    let rules = rules(OnFailure::Rollback);
    let baking = step(state, &healthy(0), &rules, true, at(50_000_000)).state;
    let earlier = step(baking, &healthy(0), &rules, true, at(0));
    assert_eq!(earlier.wake_in_ms, Some(10_000));
}

#[test]
fn the_deadline_counts_from_the_last_progress() {
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let rules = rules(OnFailure::Rollback);
    let early = step(state.clone(), &waiting(Some(100_000)), &rules, true, at(600_000));
    assert_eq!((early.state.phase, early.wake_in_ms), (RolloutPhase::Progressing, Some(100_000)));
    let late = step(state.clone(), &waiting(Some(0)), &rules, true, at(600_000));
    assert_eq!(late.state.phase, RolloutPhase::RollingBack);
    let moving = step(state.clone(), &waiting(None), &rules, true, at(9_000_000));
    assert_eq!(moving.state.phase, RolloutPhase::Progressing, "this controller was away, and moves on now");
    let short = Rollout { progress_deadline: Dur::from_secs(60), ..rules };
    let late = step(state, &waiting(Some(0)), &short, true, at(60_000));
    assert_eq!(late.state.phase, RolloutPhase::RollingBack);
}

#[test]
fn a_phase_of_a_newer_version_is_left_alone() {
    let state = RolloutState { phase: RolloutPhase::Unknown, target: Version(1), ..RolloutState::default() };
    let next = step(state.clone(), &failing(), &rules(OnFailure::Rollback), true, at(0));
    assert_eq!((next.state, next.tell), (state, vec![]));
}

#[test]
fn waves_follow_each_other_when_each_has_baked() {
    let rules = Rollout { pause_after: vec![2], ..waves(&["1", "20%", "50%", "100%"]) };
    let (mut state, _) = admit(Some(&good(1)), &object(2), at(0));
    let mut clock = 0;
    let mut sizes = Vec::new();
    for _ in 0..40 {
        if state.phase == RolloutPhase::Paused {
            assert_eq!((state.hold, state.wave), (Some(RolloutHold::AfterWave), 2));
            let again = step(state.clone(), &healthy(0), &rules, true, at(clock));
            assert_eq!(again.state, state, "nobody but a person goes on");
            let resumed = Object {
                metadata: ostler_schemas::v1::object::Metadata {
                    order: order(1, RolloutAct::Resume, 2),
                    ..object(2).metadata
                },
                ..object(2)
            };
            let terms = Terms { rules: &rules, can_revert: true };
            let turn = look(state, &resumed, &waiting(None), terms, at(clock));
            assert!(turn.tell.iter().any(|(reason, _)| *reason == Reason::Resumed));
            state = turn.state;
            assert_eq!(state.wave, 3);
        }
        state = step(state, &healthy(0), &rules, true, at(clock)).state;
        sizes.push(state.wave_size);
        clock += 5_000;
    }
    assert_eq!(state.phase, RolloutPhase::Complete);
    sizes.dedup();
    assert_eq!(sizes, [1, 2, 5, 10]);
    let past: Vec<u32> = state.past.iter().map(|past| past.wave).collect();
    assert_eq!(past, [1, 2, 3, 4]);
}

#[test]
fn waves_that_reach_nobody_new_are_passed_over() {
    let rules = waves(&["1", "2%", "3%", "100%"]);
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let state = step(state, &healthy(0), &rules, true, at(0)).state;
    let state = step(state, &healthy(0), &rules, true, at(10_000)).state;
    let state = step(state, &healthy(0), &rules, true, at(10_000)).state;
    assert_eq!((state.wave, state.wave_size), (4, 10));
}

#[test]
fn failures_are_borne_as_far_as_the_rules_allow() {
    let mut sight = Sight { settled: true, members: 10, well: 9, ..Sight::default() };
    sight.failures.add(|| "n3: broken".to_owned());
    let rules = Rollout { max_failures: "10%".parse().expect("a share"), ..rules(OnFailure::Rollback) };
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let borne = step(state, &sight, &rules, true, at(0));
    assert_eq!(borne.state.phase, RolloutPhase::Baking);
    sight.failures.add(|| "n4: broken".to_owned());
    sight.well = 8;
    let failed = step(borne.state, &sight, &rules, true, at(1));
    assert_eq!(failed.state.phase, RolloutPhase::RollingBack);
    assert_eq!(failed.state.reason, "n3: broken; n4: broken");
}

#[test]
fn a_wave_waits_for_its_window() {
    // NOW is a Friday, 08:00 UTC.
    let rules = Rollout {
        windows: vec!["Fri 09:00-10:00 UTC".parse().expect("a window")],
        ..rules(OnFailure::Rollback)
    };
    let window = &rules.windows[0];
    let opens = window.opens_at(at(0).wall).expect("it opens").0 - at(0).wall.0;
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let waits = step(state, &healthy(0), &rules, true, at(0));
    assert_eq!(phases(&waits), (RolloutPhase::Progressing, vec![Reason::WaitingForWindow]));
    assert!(waits.state.wave_started_at.is_none() && waits.wake_in_ms == Some(opens), "{waits:?}");
    let still = step(waits.state, &healthy(0), &rules, true, at(1));
    assert_eq!(still.tell, [], "told once");
    let open = step(still.state, &healthy(0), &rules, true, at(opens));
    assert_eq!(open.state.phase, RolloutPhase::Baking);
}

#[test]
fn people_pause_resume_and_abort() {
    let rules = rules(OnFailure::Rollback);
    let terms = Terms { rules: &rules, can_revert: true };
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let mut paused = object(2);
    if let Spec::Deployment(spec) = &mut paused.spec {
        spec.paused = true;
    }
    let held = look(state, &paused, &failing(), terms, at(0));
    assert_eq!(phases(&held), (RolloutPhase::Paused, vec![Reason::Paused]), "nothing is judged meanwhile");
    let resumed = look(held.state, &object(2), &healthy(0), terms, at(5_000));
    assert_eq!(resumed.state.phase, RolloutPhase::Baking);
    let mut aborted = object(2);
    aborted.metadata.order = order(1, RolloutAct::Abort, 2);
    let back = look(resumed.state.clone(), &aborted, &waiting(None), terms, at(6_000));
    assert_eq!((back.state.phase, back.state.target), (RolloutPhase::RollingBack, Version(1)));
    let once =
        look(resumed.state.clone(), &aborted, &healthy(0), Terms { can_revert: false, ..terms }, at(6_000));
    assert_eq!((once.state.phase, once.state.hold), (RolloutPhase::Paused, Some(RolloutHold::Failure)));
    aborted.metadata.order = order(1, RolloutAct::Abort, 1);
    let other = look(resumed.state, &aborted, &healthy(0), terms, at(6_000));
    assert_eq!(other.state.phase, RolloutPhase::Baking, "it was about another version");
}

#[test]
fn who_resumes_after_a_failure_has_seen_it() {
    let rules = rules(OnFailure::Pause);
    let terms = Terms { rules: &rules, can_revert: true };
    let (state, _) = admit(Some(&good(1)), &object(2), at(0));
    let mut sight = failing();
    sight.members = 3;
    sight.well = 2;
    let held = look(state, &object(2), &sight, terms, at(0)).state;
    assert_eq!(held.phase, RolloutPhase::Paused);
    let mut resumed = object(2);
    resumed.metadata.order = order(1, RolloutAct::Resume, 2);
    let state = look(held, &resumed, &sight, terms, at(1)).state;
    assert_eq!((state.phase, state.failed), (RolloutPhase::Baking, Version(0)));
    sight.failures.add(|| "another".to_owned());
    sight.well = 1;
    let again = look(state, &resumed, &sight, terms, at(2)).state;
    assert_eq!(again.phase, RolloutPhase::Paused, "more than that is a failure again");
}

#[test]
fn nothing_is_well_on_the_word_of_nobody() {
    let gone = Sight { settled: true, members: 3, offline: 3, ..Sight::default() };
    assert!(!gone.is_healthy(0));
    assert!(Sight { settled: true, ..Sight::default() }.is_healthy(0), "nobody is to have it");
}

#[test]
fn more_memory_than_the_rules_bear_is_told() {
    let rules =
        Rollout { max_memory_increase: Some("40%".parse().expect("a share")), ..rules(OnFailure::Rollback) };
    let measure = |memory| Measure { memory, error_lines: 0 };
    assert_eq!(excess(&rules, &measure(100), &measure(140)), None);
    assert!(excess(&rules, &measure(100), &measure(141)).is_some());
    assert_eq!(excess(&rules, &measure(0), &measure(141)), None, "of nothing before nothing can be said");
}

fn sight() -> impl Strategy<Value = Sight> {
    (any::<bool>(), prop::bool::weighted(0.2), 0_u64..4, prop::option::of(0_u64..2_000_000)).prop_map(
        |(is_well, fails, exits, since)| {
            let base = if fails {
                failing()
            } else if is_well {
                healthy(0)
            } else {
                waiting(since)
            };
            Sight { exits, ..base }
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
        let rules = |on_failure| Rollout { on_failure, ..waves(&["1", "50%", "100%"]) };
        for (sight, newer, pause, ms) in events {
            clock += ms;
            version += u64::from(newer);
            state = admit(Some(&state), &object(version), at(clock)).0;
            let on_failure = if pause { OnFailure::Pause } else { OnFailure::Rollback };
            let before = state.clone();
            let next = step(state, &sight, &rules(on_failure), before.last_good.0 > 0, at(clock));
            state = next.state;
            prop_assert!(state.last_good == before.last_good || state.phase == RolloutPhase::Complete);
            if state.phase == RolloutPhase::RollingBack && before.phase != RolloutPhase::RollingBack {
                given_up.push(before.target);
            }
            prop_assert!(!given_up.contains(&state.target), "{state:?}");
            prop_assert!(state.bake_ends_at.is_some() == (state.phase == RolloutPhase::Baking));
        }
        for _ in 0..12 {
            clock += 10_000;
            state = step(state, &healthy(u64::MAX), &rules(OnFailure::Rollback), true, at(clock)).state;
        }
        let over = matches!(
            state.phase,
            RolloutPhase::Complete | RolloutPhase::RolledBack | RolloutPhase::Paused
        );
        prop_assert!(over, "{state:?}");
    }
}

#[test]
fn ranks_are_drawn_anew_for_each_version() {
    let uid = rig::uid(1);
    let of = |seed: u64, n: u32| spread::rank(&uid, Version(seed), None, &rig::node_name(&format!("n{n}")));
    let first = |seed: u64| (0..50).min_by_key(|n| of(seed, *n));
    assert!((1..20).any(|seed| first(seed) != first(0)));
    assert!((0..50).all(|n| of(3, n) == of(3, n) && of(3, n) < Rank::LAST));
}
