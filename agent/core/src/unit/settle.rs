//! The level-triggered half of the machine: what should be done, given only where things stand.

use std::sync::Arc;

use super::{
    Current, Effect, Goal, HostProcess, Now, ProcessPhase, Reason, Signal, Start, State, StopWhy, Unit,
};

/// What is used for a process whose template is not known: the contract's defaults.
const DEFAULT_GRACE_MS: u64 = 30_000;

impl Unit {
    /// Does what is to be done now. Every branch either changes the state or does nothing, so it ends.
    pub(super) fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.record.goal == Goal::Run {
            self.settle_run(now, effects);
        } else {
            self.settle_stop(now, effects);
        }
    }

    fn settle_stop(&mut self, now: Now, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Unlisted | State::Starting { .. } | State::Ended => {}
            State::Idle | State::Delayed { .. } => {
                self.end(ProcessPhase::Stopped, None, None);
                effects.push(Effect::Persist);
            }
            State::Running(running) => {
                let process = running.process.clone();
                self.stop(now, process, StopWhy::Goal, effects);
            }
            State::Stopping { process, again, .. } => {
                let process = process.clone();
                if now.mono >= *again {
                    self.stop(now, process, StopWhy::Goal, effects);
                } else if let State::Stopping { why, .. } = &mut self.state {
                    *why = StopWhy::Goal;
                }
            }
        }
    }

    fn settle_run(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.wanted.is_none() {
            // An orphan: what runs goes on, what has ended stays so.
            return;
        }
        match &self.state {
            State::Unlisted | State::Starting { .. } => {}
            State::Delayed { until, .. } => {
                if self.is_another_template() {
                    self.begin_anew(effects);
                } else if now.mono >= *until {
                    self.state = State::Idle;
                    self.try_start(effects);
                }
            }
            State::Idle => self.try_start(effects),
            State::Running(running) => {
                let process = running.process.clone();
                self.compare(now, process, effects);
            }
            State::Stopping { process, again, why } => {
                let (process, why) = (process.clone(), *why);
                if now.mono >= *again {
                    self.stop(now, process, why, effects);
                }
            }
            State::Ended => {
                if self.is_another_template() {
                    self.begin_anew(effects);
                }
            }
        }
    }

    /// Whether the template asked for differs, in what needs a restart, from the one that was tried last.
    fn is_another_template(&self) -> bool {
        let asked = self.wanted.as_ref().and_then(|w| w.restart_hash);
        asked.is_some() && self.record.tried.is_some() && asked != self.record.tried
    }

    /// Another template: what became of the one before does not count against it.
    fn begin_anew(&mut self, effects: &mut Vec<Effect>) {
        self.record.ended = None;
        self.record.streak = 0;
        self.record.failures.clear();
        self.state = State::Idle;
        effects.push(Effect::Persist);
        self.try_start(effects);
    }

    /// A running process against its template: nothing, in place, or stop and start anew.
    fn compare(&mut self, now: Now, process: HostProcess, effects: &mut Vec<Effect>) {
        let Some(wanted) = &self.wanted else { return };
        let (Some(template), Some(restart_hash)) = (&wanted.template, wanted.restart_hash) else { return };
        let Some(current) = &mut self.record.current else { return };
        if current.template == Some(wanted.hash) && current.version == wanted.version {
            return;
        }
        let replace = current.restart_hash.is_some_and(|running| running != restart_hash);
        if replace {
            self.record.streak = 0;
            self.record.failures.clear();
            self.stop(now, process, StopWhy::Replace, effects);
            return;
        }
        let template = Arc::clone(template);
        let changed = current.template != Some(wanted.hash);
        let unprobed = template.readiness_probe.is_none();
        current.template = Some(wanted.hash);
        current.restart_hash = Some(restart_hash);
        current.version = wanted.version;
        effects.push(Effect::Persist);
        if changed {
            effects.push(Effect::Adjust { incarnation: process.incarnation, template });
        }
        if let State::Running(running) = &mut self.state
            && unprobed
            && !running.ready
        {
            running.ready = true;
            running.ready_at = running.ready_at.or(Some(now.wall));
        }
    }

    fn stop(&mut self, now: Now, process: HostProcess, why: StopWhy, effects: &mut Vec<Effect>) {
        let (signal, grace_ms) = self.stop_terms();
        effects.push(Effect::Stop { incarnation: process.incarnation, signal, grace_ms });
        self.state = State::Stopping { process, why, again: Self::stop_again(now, grace_ms) };
    }

    /// How it is to be stopped.
    pub(super) fn stop_terms(&self) -> (Signal, u64) {
        self.template()
            .map_or((Signal::TERM, DEFAULT_GRACE_MS), |t| (t.kill_signal, t.timeout_stop_sec.as_millis()))
    }

    fn try_start(&mut self, effects: &mut Vec<Effect>) {
        if !self.gate || !self.host {
            return;
        }
        let Some(wanted) = self.wanted.clone() else { return };
        let (Some(template), Some(restart_hash)) = (wanted.template, wanted.restart_hash) else { return };
        // Until needs were looked at, nothing starts, and there is nothing to tell.
        let Some(unmet) = &self.unmet else { return };
        if let Some(unmet) = unmet {
            if !self.needs_told && !template.needs.is_empty() {
                self.needs_told = true;
                effects.push(Effect::Tell(Reason::NeedsNotMet, unmet.clone()));
            }
            return;
        }
        self.needs_told = false;
        self.record.incarnation += 1;
        let incarnation = self.record.incarnation;
        self.record.current = Some(Current {
            incarnation,
            template: Some(wanted.hash),
            restart_hash: Some(restart_hash),
            version: wanted.version,
            started_at: None,
            boot: self.boot.clone(),
            restart: Some(template.restart),
        });
        self.record.tried = Some(restart_hash);
        self.state = State::Starting { lost: false };
        effects.push(Effect::Persist);
        effects.push(Effect::Start(Box::new(Start {
            incarnation,
            template,
            version: wanted.version,
            token: wanted.token,
            ports: wanted.ports,
        })));
    }
}
