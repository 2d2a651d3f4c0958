//! From nothing to a program that runs.

use std::sync::Arc;

use ostler_schemas::spec::ProcessTemplate;

use super::fetching::Artifacts;
use super::{
    Awaited, BUSY_AGAIN_MS, Current, Effect, Hook, HookEnd, HostProcess, Over, REFUSED_AGAIN_MS, Reason,
    Running, StartFailure, State, Terms, Turn, Unit, Wanted,
};

impl Unit {
    pub(super) fn try_start(&mut self, turn: &mut Turn) {
        if !self.gate || !self.host {
            return;
        }
        let Some(wanted) = self.wanted.clone() else { return };
        let (Some(template), Some(restart_hash)) = (wanted.template.clone(), wanted.restart_hash) else {
            return;
        };
        // Until needs were looked at, nothing starts, and there is nothing to tell.
        let Some(unmet) = &self.unmet else { return };
        if let Some(unmet) = unmet {
            if !self.needs_told && !template.needs.is_empty() {
                self.needs_told = true;
                turn.tell(Reason::NeedsNotMet, unmet.clone());
            }
            return;
        }
        self.needs_told = false;
        let failed = match self.artifacts_of(&template, turn) {
            Artifacts::There => None,
            Artifacts::Awaited => return,
            Artifacts::Failed(why) => Some(why),
        };
        // The next start looks again: what is not in use may be removed meanwhile.
        self.fetching = None;
        self.record.delayed = None;
        self.record.incarnation += 1;
        self.record.current = Some(Current {
            incarnation: self.record.incarnation,
            template: Some(wanted.hash),
            restart_hash: Some(restart_hash),
            version: wanted.version,
            started_at: None,
            boot: self.boot.clone(),
            terms: Some(Terms::of(&template, &wanted)),
            up: false,
            ready: false,
            ready_at: None,
            stop: None,
        });
        self.record.tried = Some(restart_hash);
        turn.persist();
        match failed {
            None => self.prepare_or_start(0, (wanted, template), turn),
            Some(text) => {
                let reason = Reason::ArtifactFailed;
                self.record.starts += 1;
                turn.tell(reason, text.clone());
                self.conclude(Over::NotStarted { reason, text }, true, turn);
            }
        }
    }

    /// The hook with this number, or the program if there is none.
    fn prepare_or_start(
        &mut self,
        step: usize,
        (wanted, template): (Wanted, Arc<ProcessTemplate>),
        turn: &mut Turn,
    ) {
        let incarnation = self.record.incarnation;
        if let Some(exec) = template.exec_start_pre.get(step).cloned() {
            let hook = self.run(Hook::StartPre, exec, turn);
            self.state = State::Preparing { step, hook };
            return;
        }
        self.kept = Some((wanted.hash, Arc::clone(&template)));
        self.state = State::Starting { lost: false };
        turn.push(Effect::Start(Box::new(wanted.start(incarnation, template))));
    }

    /// What it said before its start was told.
    pub(super) fn recall(&mut self, process: &mut HostProcess) {
        if let Some((incarnation, said)) = self.said.take()
            && incarnation == process.incarnation
        {
            process.said = said;
        }
    }

    pub(super) fn prepared(&mut self, step: usize, end: HookEnd, turn: &mut Turn) {
        match end {
            HookEnd::Success => {
                let wanted = self.wanted.clone().filter(|_| self.is_meant_to_run());
                let template = wanted.as_ref().and_then(|w| w.template.clone());
                match wanted.zip(template) {
                    Some(both) if !self.is_another_template() => self.prepare_or_start(step + 1, both, turn),
                    // It is not asked for any more, or not like this.
                    Some(_) | None => self.conclude(Over::Cancelled, true, turn),
                }
            }
            HookEnd::Failed(why) => {
                let text = format!("execStartPre {} {why}", step + 1);
                self.record.starts += 1;
                turn.tell(Reason::StartFailed, text.clone());
                self.conclude(Over::NotStarted { reason: Reason::StartFailed, text }, true, turn);
            }
            HookEnd::Lost(why) => self.put_off(REFUSED_AGAIN_MS, why, turn),
        }
    }

    /// Gives up a start before its program runs.
    pub(super) fn cancel_start(&mut self, hook: Awaited, turn: &mut Turn) {
        turn.push(Effect::Cancel(hook.run));
        self.conclude(Over::Cancelled, true, turn);
    }

    /// The host could not do it now: nothing of it counts.
    fn put_off(&mut self, ms: u64, why: String, turn: &mut Turn) {
        self.record.current = None;
        turn.persist();
        self.delay(turn, ms, Reason::StartFailed, why);
    }

    pub(super) fn spawned(&mut self, process: HostProcess, turn: &mut Turn) {
        if !self.is_current(process.incarnation) {
            return;
        }
        match self.state {
            State::Starting { .. } => self.runs(process, turn),
            // The listing was faster.
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Preparing { .. }
            | State::Running(_)
            | State::Stopping(_)
            | State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Ended => {}
        }
    }

    pub(super) fn not_spawned(&mut self, incarnation: u64, failure: StartFailure, turn: &mut Turn) {
        if !matches!(self.state, State::Starting { .. }) || !self.is_current(incarnation) {
            return;
        }
        match failure {
            StartFailure::Failed(reason, text) => {
                self.record.starts += 1;
                turn.tell(reason, text.clone());
                self.conclude(Over::NotStarted { reason, text }, true, turn);
            }
            StartFailure::Busy => {
                let why = "the incarnation before is being cleared away".to_owned();
                self.put_off(BUSY_AGAIN_MS, why, turn);
            }
            StartFailure::Refused(why) => self.put_off(REFUSED_AGAIN_MS, why, turn),
        }
    }

    /// The program of the current incarnation runs.
    pub(super) fn runs(&mut self, mut process: HostProcess, turn: &mut Turn) {
        self.record.starts += 1;
        let verb = if self.record.starts > 1 { "started again" } else { "started" };
        turn.persist();
        turn.tell(
            Reason::Started,
            format!("{verb} with pid {}, incarnation {}", process.pid, process.incarnation),
        );
        if let Some(current) = &mut self.record.current {
            current.started_at = Some(process.started_at);
        }
        self.recall(&mut process);
        let terms = self.terms();
        let due = (terms.comes_up_later() && terms.timeout_start_ms > 0)
            .then(|| turn.now.mono.plus_ms(terms.timeout_start_ms));
        let started_well = !terms.startup_probed;
        self.state =
            State::Running(Running { process, started_well, due, reload: None, message: String::new() });
        self.heed(turn);
    }
}
