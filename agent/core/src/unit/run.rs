//! What happens while it runs: it comes up, it is ready or not, its template changes in place, somebody asks.

use ostler_schemas::Sha256;
use ostler_schemas::spec::ProcessType;

use super::fetching::Artifacts;
use super::{Effect, ProbeKind, Reason, Said, State, StopWhy, Terms, Turn, Unit, Verdict};

impl Unit {
    /// What follows for a running process from what is known of it: whether it is up, and whether it is ready without
    /// being asked.
    pub(super) fn heed(&mut self, turn: &mut Turn) {
        let terms = self.terms();
        let unprobed = match self.made_of() {
            Some(template) => template.readiness_probe.is_none(),
            None => self.wanted.is_none(),
        };
        let (State::Running(running), Some(current)) = (&mut self.state, &mut self.record.current) else {
            return;
        };
        if !current.up {
            let said_so = terms.kind != ProcessType::Notify || running.process.said.ready;
            if !said_so || !running.started_well {
                if let (Some(due), Some(extend)) = (running.due, running.process.said.extend) {
                    let left = extend.ms.saturating_sub(turn.now.wall.0.saturating_sub(extend.at));
                    running.due = Some(due.max(turn.now.mono.plus_ms(left)));
                }
                return;
            }
            current.up = true;
            running.due = None;
            running.message.clear();
            turn.persist();
        }
        // A oneshot is ready once it has done its work, not while it is at it.
        if unprobed && !current.ready && terms.kind != ProcessType::Oneshot {
            current.ready = true;
            running.message.clear();
            current.ready_at = current.ready_at.or(Some(turn.now.wall));
            turn.persist();
            let how = if terms.comes_up_later() { "it is up" } else { "it runs" };
            turn.tell(Reason::Ready, format!("ready: {how} and has no readiness probe"));
        }
    }

    pub(super) fn notified(&mut self, incarnation: u64, said: Said, turn: &mut Turn) {
        match &mut self.state {
            State::Running(running) if running.process.incarnation == incarnation => {
                running.process.said = said;
                self.heed(turn);
            }
            State::Stopping(stopping) if stopping.process.incarnation == incarnation => {
                if let (Some(extend), super::Stage::Asked { again }) = (said.extend, &mut stopping.stage) {
                    // Asking again would take the time away that the holder has given.
                    let left = extend.ms.saturating_sub(turn.now.wall.0.saturating_sub(extend.at));
                    *again = (*again).max(turn.now.mono.plus_ms(left.saturating_add(super::STOP_AGAIN_MS)));
                }
                stopping.process.said = said;
            }
            State::Starting { .. } => self.said = Some((incarnation, said)),
            State::Running(_)
            | State::Stopping(_)
            | State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Preparing { .. }
            | State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Ended => {}
        }
    }

    pub(super) fn probed(&mut self, incarnation: u64, kind: ProbeKind, verdict: Verdict, turn: &mut Turn) {
        if !self.is_current(incarnation) {
            return;
        }
        let up = self.record.current.as_ref().is_some_and(|current| current.up);
        match (&self.state, kind) {
            (State::Running(_), ProbeKind::Startup) if !up => self.startup_probed(verdict, turn),
            (State::Running(_), ProbeKind::Liveness) if up => match verdict {
                Verdict::Good | Verdict::NotYet(_) => {}
                // What has no entry any more is kept as it is: whoever asks for less must say so.
                Verdict::Bad(_) if self.wanted.is_none() || self.held.is_some() => {}
                Verdict::Bad(why) => {
                    let text = format!("its livenessProbe fails: {why}");
                    turn.tell(Reason::ProbeFailed, text.clone());
                    self.begin_stop(StopWhy::Probe, text, turn);
                }
            },
            (State::Running(_), ProbeKind::Readiness) if up => self.readiness_probed(verdict, turn),
            // It was asked before the probe was exchanged, or before it was up again.
            (State::Running(_), ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness) => {}
            (
                State::Unlisted
                | State::Idle
                | State::Delayed { .. }
                | State::Preparing { .. }
                | State::Starting { .. }
                | State::Stopping(_)
                | State::Clearing { .. }
                | State::Cleaning { .. }
                | State::Ended,
                _,
            ) => {}
        }
    }

    fn startup_probed(&mut self, verdict: Verdict, turn: &mut Turn) {
        let State::Running(running) = &mut self.state else { return };
        match verdict {
            Verdict::Good => {
                running.started_well = true;
                self.heed(turn);
            }
            Verdict::NotYet(why) => running.message = format!("its startupProbe does not succeed yet: {why}"),
            Verdict::Bad(why) if self.held.is_some() => {
                running.message = format!("its startupProbe fails: {why}");
            }
            Verdict::Bad(why) => {
                self.start_timeout(format!("its startupProbe fails: {why}"), turn);
            }
        }
    }

    /// It did not come up in time.
    pub(super) fn start_timeout(&mut self, text: String, turn: &mut Turn) {
        turn.tell(Reason::StartTimeout, text.clone());
        self.begin_stop(StopWhy::StartTimeout, text, turn);
    }

    fn readiness_probed(&mut self, verdict: Verdict, turn: &mut Turn) {
        let (State::Running(running), Some(current)) = (&mut self.state, &mut self.record.current) else {
            return;
        };
        let (ready, message) = match verdict {
            Verdict::Good => (true, String::new()),
            Verdict::NotYet(why) => (current.ready, format!("its readinessProbe fails: {why}")),
            Verdict::Bad(why) => (false, format!("its readinessProbe fails: {why}")),
        };
        if ready != current.ready {
            current.ready = ready;
            turn.persist();
            if ready {
                current.ready_at = current.ready_at.or(Some(turn.now.wall));
                turn.tell(Reason::Ready, "its readinessProbe succeeds");
            } else {
                turn.tell(Reason::ProbeFailed, message.clone());
            }
        }
        running.message = message;
    }

    /// A running process against its template: nothing, in place, or stop and start anew.
    pub(super) fn compare(&mut self, turn: &mut Turn) {
        let Some(wanted) = self.wanted.clone() else { return };
        let (Some(template), Some(restart_hash)) = (&wanted.template, wanted.restart_hash) else { return };
        if self.replaces(restart_hash) {
            match self.artifacts_of(template, turn) {
                Artifacts::There => {}
                Artifacts::Awaited => return,
                Artifacts::Failed(why) => return self.put_off_replacement(&why, turn),
            }
        }
        let (State::Running(running), Some(current)) = (&mut self.state, &mut self.record.current) else {
            return;
        };
        if current.template == Some(wanted.hash) && current.version == wanted.version {
            // Its template may have come just now, and with it the knowledge that it is not probed.
            return self.heed(turn);
        }
        if current.restart_hash.is_some_and(|hash| hash != restart_hash) {
            self.record.streak = 0;
            self.record.failures.clear();
            let text = format!("version {} cannot be had without a restart", wanted.version);
            self.begin_stop(StopWhy::Replace, text, turn);
            return;
        }
        self.kept = Some((wanted.hash, template.clone()));
        let changed = current.template != Some(wanted.hash);
        let terms = Terms::of(template, &wanted);
        running.started_well |= !terms.startup_probed;
        current.template = Some(wanted.hash);
        current.restart_hash = Some(restart_hash);
        current.version = wanted.version;
        current.terms = Some(terms);
        let incarnation = current.incarnation;
        turn.persist();
        if changed {
            turn.push(Effect::Adjust { incarnation, template: template.clone() });
        }
        self.heed(turn);
    }

    /// Whether a template with this hash can only be had by a restart of what runs.
    fn replaces(&self, restart_hash: Sha256) -> bool {
        let running = self.record.current.as_ref().and_then(|current| current.restart_hash);
        running.is_some_and(|hash| hash != restart_hash)
    }

    /// Over the time in which it should have come up.
    pub(super) fn is_overdue(&self, turn: &Turn) -> Option<String> {
        let State::Running(running) = &self.state else { return None };
        running.due.filter(|due| turn.now.mono >= *due)?;
        let why = match running.message.as_str() {
            "" if running.started_well => "it has not said READY=1",
            "" => "its startupProbe was not answered",
            message => message,
        };
        Some(format!("it was not up within its timeoutStartSec: {why}"))
    }
}
