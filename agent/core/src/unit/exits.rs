//! How incarnations end, and what follows from it: restart, delay, the end of trying.

use super::{
    Current, Effect, Ended, ExitReason, ExitReport, HostProcess, Listing, Mono, Now, ProcessPhase, Reason,
    Restart, Running, Signal, State, StopWhy, Timestamp, Unit,
};

/// Exits of one process that are kept; older ones are only counted. A process that restarts at its slowest leaves
/// this many in a quarter of an hour, so a reader that is away for less misses none.
pub const EXITS_KEPT: usize = 16;

/// Most doublings of the delay: 2^20 s is longer than any delay that can be asked for.
const DOUBLINGS: u32 = 20;

/// The kernel's number of SIGKILL.
const SIGKILL: i32 = 9;

/// How a main process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HowEnded {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It cannot be known, and why.
    Unknown(String),
}

/// An exit as the host tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostExit {
    /// The incarnation.
    pub incarnation: u64,
    /// The host's number, for the acknowledgement.
    pub seq: u64,
    /// How.
    pub how: HowEnded,
    /// Whether the kernel killed for want of memory.
    pub oom: bool,
    /// When.
    pub at: Timestamp,
}

/// Whether a run counts against the start limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// It ended by itself.
    Process,
    /// The host went down under it.
    Host,
}

impl Unit {
    pub(super) fn listed(&mut self, now: Now, dice: u64, listing: Listing, effects: &mut Vec<Effect>) {
        let Listing { mut alive, mut exits, boot } = listing;
        self.host = true;
        exits.sort_by_key(|e| (e.incarnation, e.seq));
        for exit in exits {
            alive.retain(|p| p.incarnation != exit.incarnation);
            self.exited(now, dice, &exit, effects);
        }
        alive.sort_by_key(|p| p.incarnation);
        let newest = alive.pop();
        for extra in alive {
            // Two live incarnations of one process must not be: the older ones go.
            let (signal, grace_ms) = self.stop_terms();
            effects.push(Effect::Stop { incarnation: extra.incarnation, signal, grace_ms });
        }
        match newest {
            Some(process) => self.found(now, process, &boot, effects),
            None => self.not_found(now, dice, &boot, effects),
        }
        self.boot = boot;
    }

    /// It lives. An agent that lost its memory takes it over as it is.
    fn found(&mut self, now: Now, process: HostProcess, boot: &str, effects: &mut Vec<Effect>) {
        if self.record.current.as_ref().map(|c| c.incarnation) != Some(process.incarnation) {
            self.record.current = Some(Current {
                incarnation: process.incarnation,
                template: None,
                restart_hash: None,
                version: self.wanted.as_ref().map(|w| w.version).unwrap_or_default(),
                started_at: Some(process.started_at),
                boot: boot.to_owned(),
                restart: None,
            });
            self.record.incarnation = self.record.incarnation.max(process.incarnation);
            self.record.ended = None;
            effects.push(Effect::Persist);
        }
        match &mut self.state {
            State::Starting { .. } => self.runs(now, process, effects),
            State::Running(running) if running.process.incarnation == process.incarnation => {}
            // The request may have been lost with the connection: asking again does no harm.
            State::Stopping { again, .. } => *again = now.mono,
            State::Unlisted | State::Idle | State::Delayed { .. } | State::Running(_) | State::Ended => {
                let message = format!("found running with pid {}", process.pid);
                effects.push(Effect::Tell(Reason::Adopted, message));
                self.record.starts = self.record.starts.max(1);
                let ready_at = None;
                let ready = self.template().is_some_and(|t| t.readiness_probe.is_none());
                self.state = State::Running(Running { process, ready, ready_at, message: String::new() });
            }
        }
    }

    /// Nothing lives. What was thought to live has ended and nobody saw how.
    fn not_found(&mut self, now: Now, dice: u64, boot: &str, effects: &mut Vec<Effect>) {
        let Some(current) = self.record.current.clone() else {
            if self.state == State::Unlisted {
                self.state = if self.record.ended.is_some() { State::Ended } else { State::Idle };
            }
            return;
        };
        if self.state == (State::Starting { lost: false }) {
            return;
        }
        if current.started_at.is_none() {
            // Given out, but the host never started it.
            self.record.current = None;
            self.state = State::Idle;
            effects.push(Effect::Persist);
            return;
        }
        let rebooted = current.boot != boot;
        let why = if rebooted { "the host was restarted" } else { "it ended while nobody could watch it" };
        self.record_exit(ExitReport {
            u: self.record.uid,
            i: current.incarnation,
            seq: 0,
            code: None,
            signal: None,
            reason: ExitReason::Unknown,
            why: Some(why.to_owned()),
            at: now.wall,
        });
        effects.push(Effect::Persist);
        effects.push(Effect::Tell(Reason::Exited, format!("ended, unknown how: {why}")));
        let blame = if rebooted { Blame::Host } else { Blame::Process };
        self.after_end(now, dice, &current, (false, blame, why.to_owned()), effects);
    }

    pub(super) fn exited(&mut self, now: Now, dice: u64, exit: &HostExit, effects: &mut Vec<Effect>) {
        let acknowledge = Effect::Acknowledge { incarnation: exit.incarnation, seq: exit.seq };
        let current = self.record.current.clone().filter(|c| c.incarnation == exit.incarnation);
        if current.is_none() && exit.incarnation <= self.record.exited_through {
            // Recorded, but perhaps not durable yet: making it so again costs nothing when it is.
            effects.extend([Effect::Persist, acknowledge]);
            return;
        }
        let report = self.exit_report(exit);
        let (success, text, reason) =
            (exit.how == HowEnded::Code(0), describe(&report), event_reason(&report));
        self.record.incarnation = self.record.incarnation.max(exit.incarnation);
        self.record_exit(report);
        let planned = matches!(self.state, State::Stopping { .. });
        match current {
            Some(mut current) => {
                if current.started_at.is_none() {
                    // It ended before its start was told.
                    current.started_at = Some(exit.at);
                    self.record.starts += 1;
                }
                if !planned {
                    effects.push(Effect::Tell(reason, text.clone()));
                }
                self.after_end(now, dice, &current, (success, Blame::Process, text), effects);
            }
            None => effects.push(Effect::Tell(reason, text)),
        }
        effects.push(Effect::Persist);
        effects.push(acknowledge);
    }

    fn exit_report(&self, exit: &HostExit) -> ExitReport {
        let stopping = matches!(self.state, State::Stopping { .. });
        let (signal_asked, _) = self.stop_terms();
        let (code, signal, reason, why) = match &exit.how {
            HowEnded::Code(code) => (Some(*code), None, ExitReason::Exited, None),
            HowEnded::Signal(n)
                if *n == SIGKILL && stopping && i32::from(signal_asked.number()) != SIGKILL =>
            {
                (None, Some(signal_name(*n)), ExitReason::StopTimeout, None)
            }
            HowEnded::Signal(n) => (None, Some(signal_name(*n)), ExitReason::Signaled, None),
            HowEnded::Unknown(why) => (None, None, ExitReason::Unknown, Some(why.clone())),
        };
        let reason = if exit.oom { ExitReason::OutOfMemory } else { reason };
        ExitReport { u: self.record.uid, i: exit.incarnation, seq: 0, code, signal, reason, why, at: exit.at }
    }

    fn record_exit(&mut self, mut report: ExitReport) {
        self.record.exits_total += 1;
        report.seq = self.record.exits_total;
        self.record.exited_through = self.record.exited_through.max(report.i);
        self.record.exits.push(report);
        let excess = self.record.exits.len().saturating_sub(EXITS_KEPT);
        self.record.exits.drain(..excess);
    }

    /// The incarnation that was current has ended.
    fn after_end(
        &mut self,
        now: Now,
        dice: u64,
        current: &Current,
        (success, blame, message): (bool, Blame, String),
        effects: &mut Vec<Effect>,
    ) {
        self.record.current = None;
        if let State::Stopping { why, .. } = self.state {
            match why {
                StopWhy::Replace => self.state = State::Idle,
                StopWhy::Goal => self.end(ProcessPhase::Stopped, None, None),
            }
            if why == StopWhy::Goal {
                effects.push(Effect::Tell(Reason::Stopped, format!("stopped as asked: {message}")));
            }
            return;
        }
        let restart = self.template().map(|t| t.restart).or(current.restart).unwrap_or(Restart::Always);
        let again = match restart {
            Restart::Never => false,
            Restart::OnFailure => !success,
            Restart::Always => true,
        };
        if !again {
            let (phase, reason) = if success {
                (ProcessPhase::Succeeded, Reason::Completed)
            } else {
                (ProcessPhase::Failed, Reason::Exited)
            };
            if success {
                effects.push(Effect::Tell(Reason::Completed, message.clone()));
            }
            self.end(phase, Some(reason), Some(message));
            return;
        }
        if blame == Blame::Host {
            self.state = State::Idle;
            return;
        }
        let ran_ms = current.started_at.map_or(0, |at| now.wall.since_ms(at));
        let interval_ms = self.template().map_or(u64::MAX, |t| t.start_limit_interval_sec.as_millis());
        if ran_ms >= interval_ms {
            self.record.streak = 0;
            self.record.failures.clear();
        }
        self.count_failure(now, dice, (Reason::Exited, message), effects);
    }

    pub(super) fn failed_start(
        &mut self,
        now: Now,
        dice: u64,
        reason: Reason,
        message: String,
        effects: &mut Vec<Effect>,
    ) {
        if self.template().is_some_and(|t| t.restart == Restart::Never) {
            self.end(ProcessPhase::Failed, Some(reason), Some(message));
        } else {
            self.count_failure(now, dice, (reason, message), effects);
        }
        effects.push(Effect::Persist);
    }

    /// One more unplanned end: the next start waits longer, or there is none.
    fn count_failure(
        &mut self,
        now: Now,
        dice: u64,
        (reason, message): (Reason, String),
        effects: &mut Vec<Effect>,
    ) {
        let Some(template) = self.template().cloned() else {
            // An orphan, or its template is not here: it is decided when that is known.
            self.state = State::Idle;
            return;
        };
        let interval_ms = template.start_limit_interval_sec.as_millis();
        self.record.failures.push(now.wall);
        self.record.failures.retain(|at| now.wall.since_ms(*at) < interval_ms);
        let burst = usize::try_from(template.start_limit_burst).unwrap_or(usize::MAX);
        if burst > 0 && self.record.failures.len() >= burst {
            let text =
                format!("ended {burst} times within {}; last: {message}", template.start_limit_interval_sec);
            effects.push(Effect::Tell(Reason::CrashLoop, text.clone()));
            self.end(ProcessPhase::Failed, Some(Reason::CrashLoop), Some(text));
            return;
        }
        let ms = delay_ms(
            template.restart_sec.as_millis(),
            template.restart_max_delay_sec.as_millis(),
            self.record.streak,
            dice,
        );
        self.record.streak = self.record.streak.saturating_add(1);
        let shown = if self.record.streak > 1 { Reason::CrashLoop } else { reason };
        self.delay(now, ms, shown, format!("{message}; starts again in {}", ostler_schemas::time::age(ms)));
    }

    pub(super) fn end(&mut self, phase: ProcessPhase, reason: Option<Reason>, message: Option<String>) {
        self.record.ended = Some(Ended { phase, reason, message });
        self.state = State::Ended;
    }

    /// When a stop is to be asked for again.
    pub(super) fn stop_again(now: Now, grace_ms: u64) -> Mono {
        now.mono.plus_ms(grace_ms.saturating_add(super::STOP_AGAIN_MS))
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
    let how = match (&report.code, &report.signal, &report.why) {
        (Some(code), _, _) => format!("exited with code {code}"),
        (None, Some(signal), _) => format!("was killed by {signal}"),
        (None, None, Some(why)) => format!("ended, unknown how: {why}"),
        (None, None, None) => "ended, unknown how".to_owned(),
    };
    match report.reason {
        ExitReason::OutOfMemory => format!("{how}: out of memory"),
        ExitReason::StopTimeout => format!("{how}: it did not end in time"),
        ExitReason::Exited
        | ExitReason::Signaled
        | ExitReason::StartTimeout
        | ExitReason::Watchdog
        | ExitReason::Evicted
        | ExitReason::Fenced
        | ExitReason::Unknown => how,
    }
}

fn event_reason(report: &ExitReport) -> Reason {
    if report.reason == ExitReason::OutOfMemory { Reason::OutOfMemory } else { Reason::Exited }
}
