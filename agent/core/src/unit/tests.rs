//! The machine, event by event: what it did before there were hooks and probes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ostler_schemas::spec::{ProcessTemplate, Restart};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::v1::report::ExitReason;
use ostler_schemas::{Namespace, Uid, Version};

use super::*;

mod fetching;
mod held;
mod model;
mod rows;

pub(crate) fn template(command: &str, restart: Restart) -> ProcessTemplate {
    ProcessTemplate { restart, ..ProcessTemplate::of(vec![command.to_owned()]) }
}

fn wanted(version: u64, goal: Goal, template: ProcessTemplate) -> Wanted {
    let hash = ostler_schemas::hash::sha256(format!("{version} {template:?}").as_bytes());
    Wanted {
        version: Version(version),
        goal,
        token: Token::default(),
        ports: BTreeMap::new(),
        hash,
        restart_hash: Some(template.restart_hash()),
        template: Some(Arc::new(template)),
    }
}

fn unit() -> Unit {
    Unit::new(record())
}

fn record() -> UnitRecord {
    UnitRecord::new(
        Uid::from_bytes([1; 16]),
        Namespace::default_namespace(),
        "web-1".parse().expect("a name"),
    )
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Timestamp(1_000_000 + ms) }
}

fn host_process(incarnation: u64, now: Now) -> HostProcess {
    let pid = 100 + u32::try_from(incarnation).unwrap_or(0);
    HostProcess {
        incarnation,
        pid,
        started_at: now.wall,
        cgroup: None,
        log_path: None,
        said: Said::default(),
    }
}

fn listed(alive: Vec<HostProcess>, exits: Vec<HostExit>) -> Event {
    Event::Listed { alive, leftovers: vec![], exits, boot: "b1".to_owned() }
}

fn exit(incarnation: u64, how: HowEnded, now: Now) -> HostExit {
    HostExit { incarnation, seq: incarnation, how, oom: false, watchdog: false, at: now.wall }
}

/// The main process ends, and nothing else is left.
fn dies(unit: &mut Unit, now: Now, dice: u64, exit: HostExit) -> Vec<Effect> {
    let incarnation = exit.incarnation;
    let mut effects = unit.on(now, dice, Event::Exited(exit));
    effects.extend(unit.on(now, dice, Event::TreeEmpty(incarnation)));
    effects
}

/// Brings a unit to Running at `at(0)` and returns it.
fn running(restart: Restart) -> Unit {
    let mut unit = unit();
    unit.on(at(0), 0, Event::Gate(true));
    unit.on(at(0), 0, Event::Needs(None));
    unit.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", restart))));
    let effects = unit.on(at(0), 0, listed(vec![], vec![]));
    assert!(matches!(effects.as_slice(), [Effect::Persist, Effect::Start(_)]), "{effects:?}");
    unit.on(at(0), 0, Event::Spawned(host_process(1, at(0))));
    assert_eq!(unit.report().phase, ProcessPhase::Running);
    assert!(unit.report().ready);
    unit
}

fn starts(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Start(_))).count()
}

fn stops(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Stop { .. })).count()
}

#[test]
fn nothing_starts_before_the_host_has_told_what_lives() {
    let mut unit = unit();
    unit.on(at(0), 0, Event::Gate(true));
    unit.on(at(0), 0, Event::Needs(None));
    let effects = unit.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", Restart::Always))));
    assert_eq!(starts(&effects), 0);
}

#[test]
fn needs_and_gate_hold_a_start_back_and_say_so() {
    let mut unit = unit();
    let mut needy = template("/bin/a", Restart::Always);
    needy.needs = vec!["configfile/app-conf".parse().expect("a need")];
    unit.on(at(0), 0, listed(vec![], vec![]));
    unit.on(at(0), 0, Event::Want(wanted(1, Goal::Run, needy)));
    unit.on(at(0), 0, Event::Gate(true));
    let missing = Event::Needs(Some("needs configfile/app-conf".to_owned()));
    let told = unit.on(at(0), 0, missing.clone());
    assert!(matches!(told.as_slice(), [Effect::Tell(Reason::NeedsNotMet, _)]), "{told:?}");
    assert_eq!(unit.on(at(0), 0, missing), [], "said once");
    assert_eq!(unit.report().reason, Some(Reason::NeedsNotMet));
    assert_eq!(starts(&unit.on(at(1), 0, Event::Needs(None))), 1);
}

#[test]
fn restarts_back_off_and_end_in_a_crash_loop() {
    let mut unit = running(Restart::Always);
    let mut now = 0;
    for (n, expected_ms) in [(1u64, 1000u64), (2, 2000), (3, 4000), (4, 8000)] {
        let died = at(now + 10);
        let effects = dies(&mut unit, died, 100, exit(n, HowEnded::Code(1), died));
        assert!(effects.contains(&Effect::Acknowledge { incarnation: n, seq: n }));
        let due = unit.wake_at().expect("a delay").0 - died.mono.0;
        assert!(due.abs_diff(expected_ms) <= expected_ms / 10, "{due} after {n} failures");
        now = died.mono.0 + due;
        assert_eq!(starts(&unit.on(at(now), 0, Event::Tick)), 1);
        unit.on(at(now), 0, Event::Spawned(host_process(n + 1, at(now))));
    }
    dies(&mut unit, at(now + 10), 0, exit(5, HowEnded::Code(1), at(now + 10)));
    let report = unit.report();
    assert_eq!((report.phase, report.reason), (ProcessPhase::Failed, Some(Reason::CrashLoop)));
    assert_eq!((report.restarts, report.exits), (4, 5));
    let other = wanted(2, Goal::Run, template("/bin/b", Restart::Always));
    assert_eq!(starts(&unit.on(at(now + 20), 0, Event::Want(other))), 1, "another template is tried at once");
}

#[test]
fn a_new_agent_waits_out_the_delay_of_the_one_before() {
    let mut before = running(Restart::Always);
    for n in 1..=3u64 {
        let died = at(n * 10_000);
        dies(&mut before, died, 100, exit(n, HowEnded::Code(1), died));
        if n < 3 {
            let due = at(before.wake_at().expect("a delay").0);
            before.on(due, 0, Event::Tick);
            before.on(due, 0, Event::Spawned(host_process(n + 1, due)));
        }
    }
    let due = before.wake_at().expect("a delay");
    let found = |now: Now, boot: &str| {
        let mut after = Unit::new(before.record().clone());
        after.on(now, 0, Event::Gate(true));
        after.on(now, 0, Event::Needs(None));
        let want = wanted(1, Goal::Run, template("/bin/a", Restart::Always));
        after.on(now, 0, Event::Want(want));
        let listed = Event::Listed { alive: vec![], leftovers: vec![], exits: vec![], boot: boot.to_owned() };
        let started = starts(&after.on(now, 0, listed));
        (started, after)
    };
    let (started, mut after) = found(at(31_000), "b1");
    assert_eq!((started, after.wake_at()), (0, Some(due)));
    assert_eq!(after.report().message, before.report().message, "and says the same");
    assert_eq!(starts(&after.on(at(due.0), 0, Event::Tick)), 1);
    let long_ago = Now { mono: Mono(31_000), wall: Timestamp(5) };
    let waits_ms = found(long_ago, "b1").1.wake_at().expect("a delay").0 - 31_000;
    assert!(waits_ms <= 4_400, "no clock that was set makes it longer: {waits_ms}");
    assert_eq!(found(at(31_000), "b2").0, 1, "a reboot ends it");
}

#[test]
fn a_long_run_forgives() {
    let mut unit = running(Restart::Always);
    for n in 1..=20u64 {
        let died = at(n * 700_000);
        dies(&mut unit, died, 100, exit(n, HowEnded::Code(1), died));
        let due = unit.wake_at().expect("a delay");
        assert!(due.0 - died.mono.0 <= 1100, "the first delay again");
        let now = at(due.0);
        unit.on(now, 0, Event::Tick);
        unit.on(now, 0, Event::Spawned(host_process(n + 1, now)));
    }
    assert_eq!(unit.exits().len(), EXITS_KEPT);
    assert_eq!(unit.report().exits, 20);
}

#[test]
fn policies_end_as_they_say() {
    for (restart, code, phase) in [
        (Restart::Never, 0, ProcessPhase::Succeeded),
        (Restart::Never, 3, ProcessPhase::Failed),
        (Restart::OnFailure, 0, ProcessPhase::Succeeded),
        (Restart::OnFailure, 3, ProcessPhase::Pending),
        (Restart::Always, 0, ProcessPhase::Pending),
    ] {
        let mut unit = running(restart);
        dies(&mut unit, at(5), 0, exit(1, HowEnded::Code(code), at(5)));
        assert_eq!(unit.report().phase, phase, "{restart:?} after code {code}");
    }
}

#[test]
fn a_stop_ends_it_and_a_lower_goal_does_not_bring_it_back() {
    let mut unit = running(Restart::Always);
    let stop = unit.on(at(1), 0, Event::Want(wanted(1, Goal::Stop, template("/bin/a", Restart::Always))));
    assert_eq!(stops(&stop), 1);
    assert_eq!(unit.report().phase, ProcessPhase::Stopping);
    let again = unit.on(at(2), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", Restart::Always))));
    assert_eq!((stops(&again), starts(&again)), (0, 0));
    dies(&mut unit, at(3), 0, exit(1, HowEnded::Signal(15), at(3)));
    assert_eq!(unit.report().phase, ProcessPhase::Stopped);
    unit.on(at(4), 0, Event::Unwanted);
    assert!(unit.is_retired());
}

#[test]
fn sigkill_after_the_grace_is_told_as_such() {
    let mut unit = running(Restart::Always);
    unit.on(at(1), 0, Event::Want(wanted(1, Goal::Gone, template("/bin/a", Restart::Always))));
    dies(&mut unit, at(30_000), 0, exit(1, HowEnded::Signal(9), at(30_000)));
    assert_eq!(unit.exits()[0].reason, ExitReason::StopTimeout);
    assert_eq!(unit.exits()[0].signal.as_deref(), Some("SIGKILL"));
}

#[test]
fn an_in_place_change_keeps_the_process() {
    let mut unit = running(Restart::Always);
    let mut next = template("/bin/a", Restart::Always);
    next.limit_nofile = ostler_schemas::quantity::Rlimit::new(10, 20).expect("a limit");
    let effects = unit.on(at(1), 0, Event::Want(wanted(2, Goal::Run, next)));
    assert_eq!(stops(&effects), 0);
    assert!(effects.iter().any(|e| matches!(e, Effect::Adjust { incarnation: 1, .. })));
    assert_eq!((unit.report().v, unit.report().i), (Version(2), 1));
}

#[test]
fn another_command_is_an_ordered_stop_and_the_next_incarnation() {
    let mut unit = running(Restart::Always);
    let effects = unit.on(at(1), 0, Event::Want(wanted(2, Goal::Run, template("/bin/b", Restart::Always))));
    assert_eq!((stops(&effects), starts(&effects)), (1, 0));
    let effects = dies(&mut unit, at(2), 0, exit(1, HowEnded::Signal(15), at(2)));
    assert_eq!(starts(&effects), 1);
    assert_eq!(unit.record().incarnation, 2);
    assert_eq!(unit.record().streak, 0);
}

#[test]
fn what_ran_is_adopted_by_the_next_agent() {
    let before = running(Restart::Always);
    let mut after = Unit::new(before.record().clone());
    after.on(at(0), 0, Event::Gate(true));
    after.on(at(0), 0, Event::Needs(None));
    after.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", Restart::Always))));
    let effects = after.on(at(0), 0, listed(vec![host_process(1, at(0))], vec![]));
    assert_eq!((starts(&effects), stops(&effects)), (0, 0), "{effects:?}");
    assert_eq!((after.report().phase, after.report().restarts), (ProcessPhase::Running, 0));
}

#[test]
fn an_agent_without_memory_keeps_what_it_finds() {
    let mut unit = unit();
    unit.on(at(0), 0, Event::Gate(true));
    unit.on(at(0), 0, Event::Needs(None));
    let effects = unit.on(at(0), 0, listed(vec![host_process(7, at(0))], vec![]));
    assert_eq!(stops(&effects), 0);
    assert_eq!(unit.report().phase, ProcessPhase::Orphan);
    assert!(unit.orphan().is_some());
    let want = Event::Want(wanted(3, Goal::Run, template("/bin/a", Restart::Always)));
    assert_eq!(stops(&unit.on(at(1), 0, want)), 0);
    assert_eq!(unit.report().phase, ProcessPhase::Running);
    assert_eq!(unit.report().i, 7);
}

#[test]
fn an_exit_that_nobody_saw_is_unknown_and_says_why() {
    let before = running(Restart::Always);
    let mut after = Unit::new(before.record().clone());
    after.on(at(0), 0, Event::Gate(true));
    after.on(at(0), 0, Event::Needs(None));
    after.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", Restart::Always))));
    let rebooted = Event::Listed { alive: vec![], leftovers: vec![], exits: vec![], boot: "b2".to_owned() };
    let effects = after.on(at(0), 0, rebooted);
    assert_eq!(starts(&effects), 1, "a reboot is no failure of the process");
    assert_eq!(after.exits()[0].reason, ExitReason::Unknown);
    assert_eq!(after.exits()[0].why.as_deref(), Some("the host was restarted"));
    assert!(after.record().failures.is_empty());
}

#[test]
fn an_orphan_that_ends_is_not_started_again() {
    let mut unit = running(Restart::Always);
    unit.on(at(1), 0, Event::Unwanted);
    assert_eq!(unit.report().phase, ProcessPhase::Orphan);
    let effects = dies(&mut unit, at(2), 0, exit(1, HowEnded::Code(0), at(2)));
    assert_eq!(starts(&effects), 0);
    assert!(unit.is_retired());
}
