//! One scenario for each row of the table that is about hooks, probes and notification.

use ostler_schemas::quantity::{Dur, Signal};
use ostler_schemas::spec::{ExitStatus, KillMode, ProcessType};

use super::model::{hook, probe};
use super::*;
use crate::holder::notify::Extend;

fn of(change: impl FnOnce(&mut ProcessTemplate)) -> ProcessTemplate {
    let mut template = template("/bin/a", Restart::Always);
    change(&mut template);
    template
}

/// Brings a unit to the point where its first effects are out.
fn begun(template: ProcessTemplate) -> (Unit, Vec<Effect>) {
    let mut unit = unit();
    unit.on(at(0), 0, Event::Gate(true));
    unit.on(at(0), 0, Event::Needs(None));
    unit.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template)));
    let effects = unit.on(at(0), 0, listed(vec![], vec![]));
    (unit, effects)
}

fn spawned(template: ProcessTemplate) -> Unit {
    let (mut unit, effects) = begun(template);
    assert_eq!(starts(&effects), 1, "{effects:?}");
    unit.on(at(0), 0, Event::Spawned(host_process(1, at(0))));
    unit
}

fn runs(effects: &[Effect]) -> Vec<(u64, Hook, String)> {
    let of = |run: &Run| (run.run, run.hook, run.exec.command.join(" "));
    effects.iter().filter_map(|e| if let Effect::Run(run) = e { Some(of(run)) } else { None }).collect()
}

fn ran(unit: &mut Unit, ms: u64, run: u64, end: HookEnd) -> Vec<Effect> {
    unit.on(at(ms), 0, Event::Ran { run, end })
}

fn failed() -> HookEnd {
    HookEnd::Failed("exited with code 1".to_owned())
}

fn said(unit: &mut Unit, ms: u64, said: Said) -> Vec<Effect> {
    unit.on(at(ms), 0, Event::Notified { incarnation: unit.record().incarnation, said })
}

fn probed(unit: &mut Unit, ms: u64, kind: ProbeKind, verdict: Verdict) -> Vec<Effect> {
    let incarnation = unit.record().incarnation;
    unit.on(at(ms), 0, Event::Probed { incarnation, kind, verdict })
}

fn bad() -> Verdict {
    Verdict::Bad("connection refused".to_owned())
}

fn kinds(unit: &Unit) -> Vec<ProbeKind> {
    unit.probing().iter().map(|asking| asking.kind).collect()
}

fn told(effects: &[Effect], reason: Reason) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Tell(r, _) if *r == reason))
}

fn stop_now(unit: &mut Unit, ms: u64, template: ProcessTemplate) -> Vec<Effect> {
    unit.on(at(ms), 0, Event::Want(wanted(1, Goal::Stop, template)))
}

#[test]
fn hooks_run_one_after_the_other_and_then_the_program() {
    let t = of(|t| t.exec_start_pre = vec![hook("/bin/pre1"), hook("/bin/pre2")]);
    let (mut unit, effects) = begun(t);
    assert_eq!(runs(&effects), [(1, Hook::StartPre, "/bin/pre1".to_owned())]);
    assert_eq!(unit.report().phase, ProcessPhase::Starting);
    let effects = ran(&mut unit, 1, 1, HookEnd::Success);
    assert_eq!(runs(&effects), [(2, Hook::StartPre, "/bin/pre2".to_owned())]);
    assert_eq!(ran(&mut unit, 1, 1, HookEnd::Success), [], "told twice");
    assert_eq!(starts(&ran(&mut unit, 2, 2, HookEnd::Success)), 1);
}

#[test]
fn a_hook_that_fails_is_a_failed_start_and_is_cleaned_up_after() {
    let t = of(|t| {
        t.exec_start_pre = vec![hook("/bin/pre1")];
        t.exec_stop_post = Some(hook("/bin/post"));
    });
    let (mut unit, _) = begun(t);
    let effects = ran(&mut unit, 1, 1, failed());
    assert!(told(&effects, Reason::StartFailed));
    assert_eq!(runs(&effects), [(2, Hook::StopPost, "/bin/post".to_owned())]);
    ran(&mut unit, 2, 2, HookEnd::Success);
    let report = unit.report();
    assert_eq!((report.phase, report.reason), (ProcessPhase::Pending, Some(Reason::StartFailed)));
    let next = unit.on(at(2_000), 0, Event::Tick);
    assert_eq!(runs(&next).len(), 1, "from the first hook on");
    ran(&mut unit, 2_001, 3, failed());
    assert_eq!(unit.report().restarts, 1, "failed starts count");
    assert_eq!(unit.report().exits, 0, "and are no exits");
}

#[test]
fn a_hook_that_was_lost_counts_for_nothing() {
    let (mut unit, _) = begun(of(|t| t.exec_start_pre = vec![hook("/bin/pre1")]));
    ran(&mut unit, 1, 1, HookEnd::Lost("the holder went away".to_owned()));
    assert_eq!((unit.record().starts, unit.record().failures.len()), (0, 0));
    assert_eq!(runs(&unit.on(at(6_000), 0, Event::Tick)).len(), 1, "tried again");
}

#[test]
fn a_stop_while_hooks_run_kills_them() {
    let t = of(|t| t.exec_start_pre = vec![hook("/bin/pre1")]);
    let (mut unit, _) = begun(t.clone());
    let effects = stop_now(&mut unit, 1, t);
    assert!(effects.contains(&Effect::Cancel(1)), "{effects:?}");
    assert_eq!(unit.report().phase, ProcessPhase::Stopped);
    assert_eq!(ran(&mut unit, 2, 1, HookEnd::Success), []);
}

#[test]
fn another_template_while_hooks_run_is_prepared_at_once() {
    let (mut unit, _) = begun(of(|t| t.exec_start_pre = vec![hook("/bin/pre1")]));
    let other = of(|t| t.exec_start_pre = vec![hook("/bin/other")]);
    let effects = unit.on(at(1), 0, Event::Want(wanted(2, Goal::Run, other)));
    assert!(effects.contains(&Effect::Cancel(1)));
    assert_eq!(runs(&effects), [(2, Hook::StartPre, "/bin/other".to_owned())]);
    assert_eq!(unit.record().incarnation, 2);
}

#[test]
fn notify_is_up_when_it_says_so_and_shows_its_status() {
    let mut unit = spawned(of(|t| {
        t.kind = ProcessType::Notify;
        t.readiness_probe = Some(probe());
        t.liveness_probe = Some(probe());
    }));
    assert_eq!((unit.report().phase, unit.report().ready), (ProcessPhase::Starting, false));
    assert_eq!(kinds(&unit), [], "nothing is asked before it is up");
    said(&mut unit, 10, Said { status: "loading".to_owned(), ..Said::default() });
    assert_eq!(unit.report().message.as_deref(), Some("loading"));
    said(&mut unit, 20, Said { ready: true, status: "42 users".to_owned(), ..Said::default() });
    assert_eq!(unit.report().phase, ProcessPhase::Running);
    assert_eq!(kinds(&unit), [ProbeKind::Liveness, ProbeKind::Readiness]);
    probed(&mut unit, 30, ProbeKind::Readiness, Verdict::Good);
    assert!(unit.report().ready && unit.report().ready_at == Some(at(30).wall));
    assert_eq!(unit.report().message.as_deref(), Some("42 users"));
    said(&mut unit, 40, Said { ready: true, stopping: true, ..Said::default() });
    assert!(!unit.report().ready, "what says that it stops gets no more work");
}

#[test]
fn what_is_said_before_its_start_is_told_is_not_lost() {
    let (mut unit, _) = begun(of(|t| t.kind = ProcessType::Notify));
    said(&mut unit, 1, Said { ready: true, ..Said::default() });
    unit.on(at(2), 0, Event::Spawned(host_process(1, at(0))));
    assert!(unit.report().ready);
}

#[test]
fn a_start_that_takes_too_long_is_killed_and_counts() {
    let t = of(|t| {
        t.kind = ProcessType::Notify;
        t.timeout_start_sec = Dur::from_secs(20);
        t.exec_stop = Some(hook("/bin/stop"));
        t.pre_stop_delay = Dur::from_secs(9);
    });
    let mut unit = spawned(t);
    assert_eq!(unit.wake_at(), Some(Mono(20_000)));
    let effects = unit.on(at(20_000), 0, Event::Tick);
    assert!(told(&effects, Reason::StartTimeout));
    assert_eq!((stops(&effects), runs(&effects).len()), (1, 0), "neither delay nor execStop");
    dies(&mut unit, at(20_010), 100, exit(1, HowEnded::Signal(15), at(20_010)));
    assert_eq!(unit.exits()[0].reason, ExitReason::StartTimeout);
    assert_eq!(unit.report().reason, Some(Reason::StartTimeout));
    assert_eq!(unit.record().failures.len(), 1);
}

#[test]
fn more_time_is_given_when_it_is_asked_for() {
    let t = of(|t| {
        t.kind = ProcessType::Notify;
        t.timeout_start_sec = Dur::from_secs(20);
    });
    let mut unit = spawned(t);
    let extend = Some(Extend { at: at(15_000).wall.0, ms: 60_000 });
    said(&mut unit, 15_000, Said { extend, ..Said::default() });
    assert_eq!(unit.wake_at(), Some(Mono(75_000)));
    said(&mut unit, 16_000, Said { extend, ..Said::default() });
    assert_eq!(unit.wake_at(), Some(Mono(75_000)), "told again, asked for once");
}

#[test]
fn a_startup_probe_gates_the_others_and_its_failure_is_a_start_timeout() {
    let t = of(|t| {
        t.startup_probe = Some(probe());
        t.liveness_probe = Some(probe());
        t.readiness_probe = Some(probe());
    });
    let mut unit = spawned(t.clone());
    assert_eq!(kinds(&unit), [ProbeKind::Startup]);
    assert_eq!(stops(&probed(&mut unit, 1, ProbeKind::Liveness, bad())), 0, "not up: not judged");
    probed(&mut unit, 2, ProbeKind::Startup, Verdict::Good);
    assert_eq!(kinds(&unit), [ProbeKind::Liveness, ProbeKind::Readiness]);
    let mut unit = spawned(t);
    let effects = probed(&mut unit, 2, ProbeKind::Startup, bad());
    assert!(told(&effects, Reason::StartTimeout) && stops(&effects) == 1);
}

#[test]
fn a_liveness_probe_that_fails_is_an_orderly_stop_and_a_restart() {
    let mut unit = spawned(of(|t| {
        t.liveness_probe = Some(probe());
        t.pre_stop_delay = Dur::from_secs(5);
    }));
    let effects = probed(&mut unit, 1_000, ProbeKind::Liveness, bad());
    assert!(told(&effects, Reason::ProbeFailed) && stops(&effects) == 0);
    assert_eq!((unit.report().phase, unit.report().ready), (ProcessPhase::Stopping, false));
    assert_eq!(stops(&unit.on(at(6_000), 0, Event::Tick)), 1, "after preStopDelay");
    dies(&mut unit, at(6_500), 100, exit(1, HowEnded::Signal(15), at(6_500)));
    let report = unit.report();
    assert_eq!((report.phase, report.reason), (ProcessPhase::Pending, Some(Reason::ProbeFailed)));
    assert!(unit.exits()[0].why.as_deref().is_some_and(|why| why.contains("livenessProbe")));
    assert_eq!(starts(&unit.on(at(7_700), 0, Event::Tick)), 1);
}

#[test]
fn the_stop_sequence_goes_through_all_its_steps() {
    let t = of(|t| {
        t.pre_stop_delay = Dur::from_secs(5);
        t.exec_stop = Some(hook("/bin/stop"));
        t.exec_stop_post = Some(hook("/bin/post"));
        t.timeout_stop_sec = Dur::from_secs(45);
    });
    let mut unit = spawned(t.clone());
    let effects = stop_now(&mut unit, 100, t);
    assert_eq!((stops(&effects), runs(&effects).len()), (0, 0));
    assert!(!unit.is_ready(), "out of the endpoints first");
    let effects = unit.on(at(5_100), 0, Event::Tick);
    assert_eq!(runs(&effects), [(1, Hook::Stop, "/bin/stop".to_owned())]);
    let effects = ran(&mut unit, 5_200, 1, HookEnd::Success);
    assert!(
        effects.contains(&Effect::Stop { incarnation: 1, signal: None, grace_ms: 45_000 }),
        "{effects:?}"
    );
    let effects = unit.on(at(50_300), 0, Event::Exited(exit(1, HowEnded::Signal(9), at(50_300))));
    assert_eq!(runs(&effects), [], "something of it may still live");
    let effects = unit.on(at(50_301), 0, Event::TreeEmpty(1));
    assert_eq!(runs(&effects), [(2, Hook::StopPost, "/bin/post".to_owned())]);
    assert_eq!(unit.report().phase, ProcessPhase::Stopping);
    ran(&mut unit, 50_400, 2, failed());
    assert_eq!(unit.report().phase, ProcessPhase::Stopped);
    assert_eq!(unit.exits()[0].reason, ExitReason::StopTimeout);
}

#[test]
fn an_exec_stop_that_fails_is_followed_by_the_signal() {
    let t = of(|t| t.exec_stop = Some(hook("/bin/stop")));
    let mut unit = spawned(t.clone());
    assert_eq!(runs(&stop_now(&mut unit, 1, t)).len(), 1);
    let effects = ran(&mut unit, 2, 1, failed());
    let signal = Some(Signal::TERM);
    assert!(effects.contains(&Effect::Stop { incarnation: 1, signal, grace_ms: 30_000 }), "{effects:?}");
}

#[test]
fn a_process_that_ends_under_exec_stop_waits_for_it() {
    let t = of(|t| {
        t.exec_stop = Some(hook("/bin/stop"));
        t.exec_stop_post = Some(hook("/bin/post"));
    });
    let mut unit = spawned(t.clone());
    stop_now(&mut unit, 1, t);
    let effects = dies(&mut unit, at(2), 0, exit(1, HowEnded::Code(0), at(2)));
    assert_eq!(runs(&effects), []);
    assert_eq!(runs(&ran(&mut unit, 3, 1, HookEnd::Success)).len(), 1, "then execStopPost");
}

#[test]
fn a_stop_is_resumed_by_the_next_agent_where_it_was() {
    let t = of(|t| {
        t.exec_stop = Some(hook("/bin/stop"));
        t.exec_stop_post = Some(hook("/bin/post"));
    });
    let mut unit = spawned(t.clone());
    probed(&mut unit, 1, ProbeKind::Readiness, Verdict::Good);
    stop_now(&mut unit, 2, t.clone());
    let restarted = |record: &UnitRecord, event: Event| {
        let mut next = Unit::new(record.clone());
        next.on(at(10), 0, Event::Gate(true));
        next.on(at(10), 0, Event::Needs(None));
        next.on(at(10), 0, Event::Want(wanted(1, Goal::Stop, t.clone())));
        let effects = next.on(at(10), 0, event);
        (next, effects)
    };
    let alive = || listed(vec![host_process(1, at(0))], vec![]);
    let (mut next, effects) = restarted(unit.record(), alive());
    assert_eq!(runs(&effects).len(), 1, "execStop again: at least once");
    ran(&mut next, 11, 1, HookEnd::Success);
    let (next, effects) = restarted(next.record(), alive());
    assert_eq!((runs(&effects).len(), stops(&effects)), (0, 1), "asked before: asked again");
    let ended = listed(vec![], vec![exit(1, HowEnded::Code(0), at(12))]);
    let (next, effects) = restarted(next.record(), ended);
    assert_eq!(runs(&effects).len(), 1, "execStopPost");
    let (mut next, effects) = restarted(next.record(), listed(vec![], vec![]));
    assert_eq!(runs(&effects).len(), 1, "and again, for nobody knows what became of it");
    ran(&mut next, 13, 1, HookEnd::Success);
    assert_eq!(next.report().phase, ProcessPhase::Stopped);
}

#[test]
fn what_is_left_of_a_tree_holds_up_the_end_until_it_is_gone() {
    let mut unit = running(Restart::Always);
    unit.on(at(1), 0, Event::Want(wanted(1, Goal::Stop, template("/bin/a", Restart::Always))));
    unit.on(at(2), 0, Event::Exited(exit(1, HowEnded::Signal(15), at(2))));
    assert_eq!(unit.report().phase, ProcessPhase::Stopping);
    let left = Event::Listed { alive: vec![], leftovers: vec![1], exits: vec![], boot: "b1".to_owned() };
    unit.on(at(3), 0, left);
    assert_eq!(unit.report().phase, ProcessPhase::Stopping);
    let due = unit.wake_at().expect("a deadline");
    assert_eq!(stops(&unit.on(at(due.0), 0, Event::Tick)), 1, "asked for again");
    unit.on(at(due.0 + 1), 0, listed(vec![], vec![]));
    assert_eq!(unit.report().phase, ProcessPhase::Stopped);
}

#[test]
fn what_kill_mode_process_leaves_behind_is_not_waited_for() {
    let t = of(|t| t.kill_mode = KillMode::Process);
    let mut unit = spawned(t.clone());
    stop_now(&mut unit, 1, t);
    unit.on(at(2), 0, Event::Exited(exit(1, HowEnded::Signal(15), at(2))));
    assert_eq!(unit.report().phase, ProcessPhase::Stopped);
}

#[test]
fn a_oneshot_is_ready_once_it_has_done_its_work() {
    let mut unit = spawned(of(|t| t.kind = ProcessType::Oneshot));
    assert!(!unit.is_ready());
    dies(&mut unit, at(5), 0, exit(1, HowEnded::Code(3), at(5)));
    assert_eq!(unit.report().phase, ProcessPhase::Pending, "a failure is tried again");
    unit.on(at(2_000), 0, Event::Tick);
    unit.on(at(2_000), 0, Event::Spawned(host_process(2, at(2_000))));
    let effects = dies(&mut unit, at(2_005), 0, exit(2, HowEnded::Code(0), at(2_005)));
    assert!(told(&effects, Reason::Completed));
    assert_eq!((unit.report().phase, unit.report().ready), (ProcessPhase::Succeeded, true));
    let mut next = Unit::new(unit.record().clone());
    next.on(at(3_000), 0, listed(vec![], vec![]));
    assert!(next.is_ready(), "for the next agent, too");
}

#[test]
fn other_ends_may_be_a_success() {
    for (how, phase) in [
        (HowEnded::Code(143), ProcessPhase::Succeeded),
        (HowEnded::Signal(10), ProcessPhase::Succeeded),
        (HowEnded::Code(1), ProcessPhase::Failed),
    ] {
        let mut unit = spawned(of(|t| {
            t.restart = Restart::Never;
            t.success_exit_status = vec![ExitStatus::Code(143), "SIGUSR1".parse().expect("a signal")];
        }));
        dies(&mut unit, at(5), 0, exit(1, how.clone(), at(5)));
        assert_eq!(unit.report().phase, phase, "{how:?}");
    }
}

#[test]
fn the_watchdog_is_told_as_such() {
    let mut unit = running(Restart::Always);
    let exit = HostExit { watchdog: true, ..exit(1, HowEnded::Signal(6), at(5)) };
    dies(&mut unit, at(5), 0, exit);
    assert_eq!(unit.exits()[0].reason, ExitReason::Watchdog);
}

#[test]
fn a_reload_is_a_signal_or_a_command() {
    let mut unit = running(Restart::Always);
    let effects = unit.on(at(1), 0, Event::Ask(Ask::Reload));
    assert!(effects.contains(&Effect::Signal { incarnation: 1, signal: Signal::HUP }));
    assert!(told(&effects, Reason::Reloaded));
    let mut unit = spawned(of(|t| t.exec_reload = Some(hook("/bin/reload"))));
    let effects = unit.on(at(1), 0, Event::Ask(Ask::Reload));
    assert_eq!(runs(&effects), [(1, Hook::Reload, "/bin/reload".to_owned())]);
    assert_eq!(unit.on(at(1), 0, Event::Ask(Ask::Reload)), [], "one at a time");
    assert!(told(&ran(&mut unit, 2, 1, HookEnd::Success), Reason::Reloaded));
    assert_eq!(unit.report().i, 1);
}

#[test]
fn a_restart_that_was_asked_for_is_orderly_and_no_failure() {
    let mut unit = running(Restart::Always);
    assert_eq!(stops(&unit.on(at(1), 0, Event::Ask(Ask::Restart))), 1);
    let effects = dies(&mut unit, at(2), 0, exit(1, HowEnded::Signal(15), at(2)));
    assert_eq!(starts(&effects), 1);
    assert!(unit.record().failures.is_empty());
}

#[test]
fn readiness_outlives_the_agent() {
    let t = of(|t| t.readiness_probe = Some(probe()));
    let mut unit = spawned(t.clone());
    probed(&mut unit, 1, ProbeKind::Readiness, Verdict::Good);
    let mut next = Unit::new(unit.record().clone());
    next.on(at(5), 0, Event::Want(wanted(1, Goal::Run, t)));
    next.on(at(5), 0, listed(vec![host_process(1, at(0))], vec![]));
    assert!(next.is_ready());
    assert_eq!(next.report().ready_at, Some(at(1).wall));
    assert!(next.probing().iter().all(|asking| asking.good));
}

#[test]
fn a_stop_uses_the_terms_of_what_runs_and_not_of_what_is_wanted() {
    let mut unit = spawned(of(|t| t.kill_signal = Signal::KILL));
    let effects = unit.on(at(1), 0, Event::Want(wanted(2, Goal::Run, template("/bin/b", Restart::Always))));
    let signal = Some(Signal::KILL);
    assert!(effects.contains(&Effect::Stop { incarnation: 1, signal, grace_ms: 30_000 }), "{effects:?}");
}

#[test]
fn a_listing_that_is_older_than_an_exit_brings_nothing_back() {
    let mut unit = running(Restart::Never);
    dies(&mut unit, at(5), 0, exit(1, HowEnded::Code(0), at(5)));
    unit.on(at(6), 0, listed(vec![host_process(1, at(0))], vec![]));
    assert_eq!(unit.report().phase, ProcessPhase::Succeeded);
}
