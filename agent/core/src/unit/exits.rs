//! How incarnations end, and what follows from it: `execStopPost`, restart, delay, the end of trying.

use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::{KillMode, ProcessType, Restart};
use ostler_schemas::time::age;
use ostler_schemas::v1::report::{ExitReason, ExitReport};

use super::{
    Delayed, Effect, Ended, Ending, Hook, HostExit, HowEnded, Mono, Over, ProcessPhase, Reason, Stage, State,
    StopWhy, Stopping, Turn, Unit,
};

/// Exits of one process that are kept; older ones are only counted. A process that restarts at its slowest leaves
/// this many in a quarter of an hour, so a reader that is away for less misses none.
pub const EXITS_KEPT: usize = 16;

/// Most doublings of the delay: 2^20 s is longer than any delay that can be asked for.
const DOUBLINGS: u32 = 20;

/// The kernel's number of SIGKILL.
const SIGKILL: i32 = 9;

impl Unit {
    pub(super) fn exited(&mut self, exit: &HostExit, turn: &mut Turn) {
        let acknowledge = Effect::Acknowledge { incarnation: exit.incarnation, seq: exit.seq };
        let is_current = self.is_current(exit.incarnation);
        if !is_current && exit.incarnation <= self.record.exited_through {
            // Recorded, but perhaps not durable yet: making it so again costs nothing when it is.
            turn.persist();
            turn.push(acknowledge);
            return;
        }
        let report = self.exit_report(exit);
        let (text, reason) = (describe(&report), event_reason(&report));
        self.record.incarnation = self.record.incarnation.max(exit.incarnation);
        self.record_exit(report);
        if is_current {
            self.current_ended(exit, (reason, text), turn);
        } else {
            turn.tell(reason, text);
        }
        turn.persist();
        turn.push(acknowledge);
    }

    fn current_ended(&mut self, exit: &HostExit, (reason, text): (Reason, String), turn: &mut Turn) {
        let terms = self.terms();
        let success = terms.is_success(&exit.how);
        let completes = success && (terms.kind == ProcessType::Oneshot || terms.restart != Restart::Always);
        let Some(current) = &mut self.record.current else { return };
        if current.started_at.is_none() {
            // It ended before its start was told.
            current.started_at = Some(exit.at);
            self.record.starts += 1;
        }
        if current.stop.is_none() && !completes {
            turn.tell(reason, text.clone());
        }
        let ran_ms = current.started_at.map_or(0, |at| exit.at.since_ms(at));
        self.conclude(Over::Ran { success, host: false, ran_ms, reason, text }, false, turn);
    }

    fn exit_report(&self, exit: &HostExit) -> ExitReport {
        let current = self.record.current.as_ref().filter(|c| c.incarnation == exit.incarnation);
        let stop = current.and_then(|c| c.stop.as_ref());
        let asked = stop.is_some_and(|stop| stop.asked);
        let signal_asked = i32::from(self.terms().kill_signal.number());
        let (code, signal, reason, why) = match &exit.how {
            HowEnded::Code(code) => (Some(*code), None, ExitReason::Exited, None),
            HowEnded::Signal(n) if *n == SIGKILL && asked && signal_asked != SIGKILL => {
                (None, Some(signal_name(*n)), ExitReason::StopTimeout, None)
            }
            HowEnded::Signal(n) => (None, Some(signal_name(*n)), ExitReason::Signaled, None),
            HowEnded::Unknown(why) => (None, None, ExitReason::Unknown, Some(why.clone())),
        };
        let reason = match stop.map(|stop| stop.why) {
            _ if exit.oom => ExitReason::OutOfMemory,
            _ if exit.watchdog => ExitReason::Watchdog,
            Some(StopWhy::StartTimeout) => ExitReason::StartTimeout,
            Some(StopWhy::Goal | StopWhy::Replace | StopWhy::Probe | StopWhy::Asked) | None => reason,
        };
        let own_fault = |why: StopWhy| matches!(why, StopWhy::StartTimeout | StopWhy::Probe);
        let why = why.or_else(|| stop.filter(|stop| own_fault(stop.why)).map(|stop| stop.text.clone()));
        ExitReport { u: self.record.uid, i: exit.incarnation, seq: 0, code, signal, reason, why, at: exit.at }
    }

    pub(super) fn record_exit(&mut self, mut report: ExitReport) {
        self.record.exits_total += 1;
        report.seq = self.record.exits_total;
        self.record.exited_through = self.record.exited_through.max(report.i);
        self.record.exits.push(report);
        let excess = self.record.exits.len().saturating_sub(EXITS_KEPT);
        self.record.exits.drain(..excess);
    }

    /// The current incarnation is over. What follows waits until nothing of its tree is left (`empty`) and its
    /// `execStopPost` has run.
    pub(super) fn conclude(&mut self, over: Over, empty: bool, turn: &mut Turn) {
        let terms = self.terms();
        let Some(current) = self.record.current.take() else { return };
        let hook = match &self.state {
            State::Stopping(Stopping { stage: Stage::Hook(hook), .. }) => Some(*hook),
            State::Running(running) => {
                turn.effects.extend(running.reload.map(|hook| Effect::Cancel(hook.run)));
                None
            }
            State::Stopping(_)
            | State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Ended => None,
        };
        // What `killMode: process` leaves behind is meant to stay.
        let empty = empty || terms.kill_mode == KillMode::Process;
        let again = Self::stop_again(turn, terms.timeout_stop_ms);
        self.record.ending = Some(Ending {
            incarnation: current.incarnation,
            template: current.template,
            version: current.version,
            terms,
            stop: current.stop.map(|stop| stop.why),
            over,
        });
        self.state = State::Clearing { again, hook, empty };
        turn.persist();
        self.go_on_clearing(turn);
    }

    pub(super) fn tree_empty(&mut self, incarnation: u64, turn: &mut Turn) {
        let ours = self.record.ending.as_ref().is_some_and(|ending| ending.incarnation == incarnation);
        if let State::Clearing { empty, .. } = &mut self.state
            && ours
        {
            *empty = true;
            self.go_on_clearing(turn);
        }
    }

    /// What an ending is due to do now.
    pub(super) fn go_on_clearing(&mut self, turn: &mut Turn) {
        let Some(ending) = &self.record.ending else { return };
        match self.state {
            State::Clearing { hook: None, empty: true, .. } => self.clean(0, turn),
            State::Clearing { again, hook, empty: false } if turn.now.mono >= again => {
                // The holder has killed it long ago, or cannot; or its word was lost: asking makes it say so.
                turn.push(Effect::Stop { incarnation: ending.incarnation, signal: None, grace_ms: 0 });
                let again = Self::stop_again(turn, 0);
                self.state = State::Clearing { again, hook, empty: false };
            }
            State::Cleaning { hook: None, again, lost } if turn.now.mono >= again => self.clean(lost, turn),
            State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Running(_)
            | State::Stopping(_)
            | State::Ended => {}
        }
    }

    /// `execStopPost`, where there is something to clean up.
    fn clean(&mut self, lost: u32, turn: &mut Turn) {
        let Some(ending) = &self.record.ending else { return };
        let booted = matches!(ending.over, Over::Ran { host: true, .. });
        match ending.terms.exec_stop_post.clone().filter(|_| !booted) {
            Some(exec) => {
                let hook = self.run(Hook::StopPost, exec, turn);
                self.state = State::Cleaning { hook: Some(hook), again: Mono(0), lost };
            }
            None => self.resolve(turn),
        }
    }

    /// Nothing is left of the incarnation: what now?
    pub(super) fn resolve(&mut self, turn: &mut Turn) {
        let Some(ending) = self.record.ending.take() else { return };
        turn.persist();
        let Ending { terms, stop, over, .. } = ending;
        match over {
            Over::Cancelled => self.state = State::Idle,
            Over::NotStarted { reason, text } => {
                self.record.unplanned += 1;
                if terms.restart == Restart::Never {
                    self.end(ProcessPhase::Failed, Some(reason), Some(text));
                } else {
                    self.count_failure((reason, text), turn);
                }
            }
            Over::Ran { success, host, ran_ms, reason, text } => match stop {
                Some(StopWhy::Goal) => {
                    turn.tell(Reason::Stopped, format!("stopped as asked: {text}"));
                    self.end(ProcessPhase::Stopped, None, None);
                }
                Some(StopWhy::Replace | StopWhy::Asked) => self.state = State::Idle,
                Some(StopWhy::StartTimeout) => {
                    self.again((Reason::StartTimeout, text), (terms.restart, false), turn);
                }
                Some(StopWhy::Probe) => {
                    self.forgive(ran_ms);
                    self.again((Reason::ProbeFailed, text), (terms.restart, false), turn);
                }
                None if success && terms.kind == ProcessType::Oneshot => self.complete(text, true, turn),
                None if host && terms.restart != Restart::Never => self.state = State::Idle,
                None => {
                    self.forgive(ran_ms);
                    self.again((reason, text), (terms.restart, success), turn);
                }
            },
        }
    }

    /// It ran for long enough that what was before does not count.
    fn forgive(&mut self, ran_ms: u64) {
        let interval_ms = self.template().map_or(u64::MAX, |t| t.start_limit_interval_sec.as_millis());
        if ran_ms >= interval_ms {
            self.record.streak = 0;
            self.record.failures.clear();
        }
    }

    fn complete(&mut self, text: String, ready: bool, turn: &mut Turn) {
        turn.tell(Reason::Completed, text.clone());
        let (phase, reason) = (ProcessPhase::Succeeded, Some(Reason::Completed));
        self.record.ended = Some(Ended { phase, reason, message: Some(text), ready });
        self.state = State::Ended;
    }

    /// It ended by itself, or because something was wrong with it.
    fn again(
        &mut self,
        (reason, text): (Reason, String),
        (restart, success): (Restart, bool),
        turn: &mut Turn,
    ) {
        let completes = success && restart != Restart::Always;
        self.record.unplanned += u64::from(!completes);
        match restart {
            Restart::Never | Restart::OnFailure if success => self.complete(text, false, turn),
            Restart::Never => self.end(ProcessPhase::Failed, Some(reason), Some(text)),
            Restart::OnFailure | Restart::Always => self.count_failure((reason, text), turn),
        }
    }

    /// One more unplanned end: the next start waits longer, or there is none.
    fn count_failure(&mut self, (reason, message): (Reason, String), turn: &mut Turn) {
        let Some(template) = self.template().cloned() else {
            // An orphan, or its template is not here: it is decided when that is known.
            self.state = State::Idle;
            return;
        };
        let now = turn.now.wall;
        let interval_ms = template.start_limit_interval_sec.as_millis();
        self.record.failures.push(now);
        self.record.failures.retain(|at| now.since_ms(*at) < interval_ms);
        let burst = usize::try_from(template.start_limit_burst).unwrap_or(usize::MAX);
        if burst > 0 && self.record.failures.len() >= burst {
            let text =
                format!("ended {burst} times within {}; last: {message}", template.start_limit_interval_sec);
            turn.tell(Reason::CrashLoop, text.clone());
            self.end(ProcessPhase::Failed, Some(Reason::CrashLoop), Some(text));
            return;
        }
        let ms = delay_ms(
            template.restart_sec.as_millis(),
            template.restart_max_delay_sec.as_millis(),
            self.record.streak,
            turn.dice,
        );
        self.record.streak = self.record.streak.saturating_add(1);
        let shown = if self.record.streak > 1 { Reason::CrashLoop } else { reason };
        let at = ostler_schemas::time::Timestamp(now.0.saturating_add(ms));
        let text = format!("{message}; starts again in {} ({at})", age(ms));
        let boot = self.boot.clone();
        self.record.delayed = Some(Delayed { until: at, ms, boot, reason: shown, message: text.clone() });
        self.delay(turn, ms, shown, text);
        turn.persist();
    }
}

/// The delay before a restart: doubles with each failure in a row up to the longest, and varies by a tenth so that
/// what failed together does not return together.
fn delay_ms(first_ms: u64, longest_ms: u64, streak: u32, dice: u64) -> u64 {
    let doubled = first_ms.saturating_mul(1 << streak.min(DOUBLINGS));
    let base = doubled.min(longest_ms.max(first_ms));
    let tenth = base / 10;
    base - tenth + dice % (2 * tenth + 1)
}

fn signal_name(number: i32) -> String {
    let known = u8::try_from(number).ok().and_then(Signal::from_number);
    known.map_or_else(|| format!("signal {number}"), |s| s.to_string())
}

fn describe(report: &ExitReport) -> String {
    let how = match (&report.code, &report.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by {signal}"),
        (None, None) => "ended, unknown how".to_owned(),
    };
    let how = report.why.as_ref().map_or(how.clone(), |why| format!("{how}: {why}"));
    match report.reason {
        ExitReason::OutOfMemory => format!("{how}: out of memory"),
        ExitReason::StopTimeout => format!("{how}: it did not end in time"),
        ExitReason::Watchdog => format!("{how}: it did not say WATCHDOG=1 in time"),
        ExitReason::Exited
        | ExitReason::Signaled
        | ExitReason::StartTimeout
        | ExitReason::Evicted
        | ExitReason::Fenced
        | ExitReason::Unknown => how,
    }
}

fn event_reason(report: &ExitReport) -> Reason {
    if report.reason == ExitReason::OutOfMemory { Reason::OutOfMemory } else { Reason::Exited }
}
