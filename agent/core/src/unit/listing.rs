//! What the host tells at each connection: what lives, what has ended, which boot it is.

use super::{Current, Delayed, Effect, HostExit, HostProcess, Over, Reason, Running, State, Turn, Unit};
use ostler_schemas::v1::report::{ExitReason, ExitReport};

/// What the host told.
pub(super) struct Listing {
    pub(super) alive: Vec<HostProcess>,
    pub(super) leftovers: Vec<u64>,
    pub(super) exits: Vec<HostExit>,
    pub(super) boot: String,
}

impl Unit {
    pub(super) fn listed(&mut self, listing: Listing, turn: &mut Turn) {
        let Listing { mut alive, leftovers, mut exits, boot } = listing;
        self.host = true;
        self.boot.clone_from(&boot);
        if self.state == State::Unlisted && self.record.ending.is_some() {
            self.state = State::Clearing { again: turn.now.mono, hook: None, empty: false };
        }
        exits.sort_by_key(|e| (e.incarnation, e.seq));
        for exit in &exits {
            self.exited(exit, turn);
        }
        let mut there = leftovers;
        there.extend(alive.iter().map(|process| process.incarnation));
        // One whose exit is recorded was listed before it ended, or is told with its exit.
        alive.retain(|process| process.incarnation > self.record.exited_through);
        alive.sort_by_key(|p| p.incarnation);
        let newest = alive.pop();
        for extra in alive {
            // Two live incarnations of one process must not be: the older ones go.
            let terms = self.terms();
            turn.push(Effect::Stop {
                incarnation: extra.incarnation,
                signal: Some(terms.kill_signal),
                grace_ms: terms.timeout_stop_ms,
            });
        }
        match newest {
            Some(process) => self.found(process, &boot, turn),
            None => self.not_found(&boot, turn),
        }
        if let Some(incarnation) = self.record.ending.as_ref().map(|ending| ending.incarnation)
            && !there.contains(&incarnation)
        {
            self.tree_empty(incarnation, turn);
        }
    }

    /// It lives. An agent that lost its memory takes it over as it is.
    fn found(&mut self, mut process: HostProcess, boot: &str, turn: &mut Turn) {
        if !self.is_current(process.incarnation) {
            self.take_over(&process, boot, turn);
        }
        match &mut self.state {
            State::Starting { .. } => self.runs(process, turn),
            State::Running(running) if running.process.incarnation == process.incarnation => {
                running.process.said = process.said;
                self.heed(turn);
            }
            // The request may have been lost with the connection: asking again does no harm.
            State::Stopping(stopping) if stopping.process.incarnation == process.incarnation => {
                if let super::Stage::Asked { again } = &mut stopping.stage {
                    *again = turn.now.mono;
                }
            }
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Preparing { .. }
            | State::Running(_)
            | State::Stopping(_)
            | State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Ended => {
                turn.tell(Reason::Adopted, format!("found running with pid {}", process.pid));
                self.record.starts = self.record.starts.max(1);
                self.recall(&mut process);
                self.adopt(process, turn);
            }
        }
    }

    /// The current incarnation runs, and this agent has not seen it start.
    fn adopt(&mut self, process: HostProcess, turn: &mut Turn) {
        let terms = self.terms();
        let Some(current) = &mut self.record.current else { return };
        if let Some(stop) = current.stop.clone() {
            return self.resume_stop(process, stop, turn);
        }
        if current.started_at.is_none() {
            // The agent before this one died before it heard of it.
            current.started_at = Some(process.started_at);
            turn.persist();
        }
        let due = (!current.up && terms.comes_up_later() && terms.timeout_start_ms > 0).then(|| {
            let ran_ms = turn.now.wall.since_ms(process.started_at);
            turn.now.mono.plus_ms(terms.timeout_start_ms.saturating_sub(ran_ms))
        });
        let started_well = current.up || !terms.startup_probed;
        self.state =
            State::Running(Running { process, started_well, due, reload: None, message: String::new() });
        self.heed(turn);
    }

    fn take_over(&mut self, process: &HostProcess, boot: &str, turn: &mut Turn) {
        if let State::Preparing { hook, .. } = &self.state {
            turn.push(Effect::Cancel(hook.run));
        }
        self.record.current = Some(Current {
            incarnation: process.incarnation,
            template: None,
            restart_hash: None,
            version: self.wanted.as_ref().map(|w| w.version).unwrap_or_default(),
            started_at: Some(process.started_at),
            boot: boot.to_owned(),
            terms: None,
            // Nothing is known against it, and a process must not be killed for what an agent forgot.
            up: true,
            ready: false,
            ready_at: None,
            stop: None,
        });
        self.record.ending = None;
        self.record.incarnation = self.record.incarnation.max(process.incarnation);
        self.record.ended = None;
        turn.persist();
    }

    /// Nothing lives. What was thought to live has ended and nobody saw how.
    fn not_found(&mut self, boot: &str, turn: &mut Turn) {
        let Some(current) = self.record.current.clone() else {
            if self.state == State::Unlisted {
                self.state = match (&self.record.ended, self.rest_of_delay(boot, turn)) {
                    (Some(_), _) => State::Ended,
                    (None, Some(delayed)) => delayed,
                    (None, None) => State::Idle,
                };
            }
            return;
        };
        match self.state {
            State::Starting { lost: false } | State::Preparing { .. } => return,
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Starting { lost: true }
            | State::Running(_)
            | State::Stopping(_)
            | State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Ended => {}
        }
        if current.started_at.is_none() {
            // Given out, but the host never started it.
            self.record.current = None;
            self.state = State::Idle;
            turn.persist();
            return;
        }
        let host = current.boot != boot;
        let why = if host { "the host was restarted" } else { "it ended while nobody could watch it" };
        self.record_exit(ExitReport {
            u: self.record.uid,
            i: current.incarnation,
            seq: 0,
            code: None,
            signal: None,
            reason: ExitReason::Unknown,
            why: Some(why.to_owned()),
            at: turn.now.wall,
        });
        turn.tell(Reason::Exited, format!("ended, unknown how: {why}"));
        let ran_ms = current.started_at.map_or(0, |at| turn.now.wall.since_ms(at));
        let (reason, text) = (Reason::Exited, why.to_owned());
        self.conclude(Over::Ran { success: false, host, ran_ms, reason, text }, false, turn);
        turn.persist();
    }

    /// What is left of a delay that began under an agent before this one, in this boot.
    fn rest_of_delay(&self, boot: &str, turn: &Turn) -> Option<State> {
        let Delayed { until, ms, boot: began, reason, message } = self.record.delayed.clone()?;
        let left = until.0.saturating_sub(turn.now.wall.0).min(ms);
        (began == boot && left > 0).then(|| State::Delayed {
            until: turn.now.mono.plus_ms(left),
            reason,
            message,
        })
    }
}
