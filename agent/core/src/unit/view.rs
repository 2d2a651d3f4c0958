//! What others see of a unit.

use ostler_schemas::Version;
use ostler_schemas::spec::{Probe, ProcessType};
use ostler_schemas::v1::report::{ExitReport, OrphanReport, ProcessReport};

use super::{
    Goal, HostProcess, ProbeKind, ProcessPhase, Reason, Reloads, Running, Stage, State, StopWhy, Stopping,
    Unit, UnitRecord, Wanted,
};

/// A question to be asked again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking<'a> {
    /// The incarnation to be asked.
    pub incarnation: u64,
    /// Which of its probes.
    pub kind: ProbeKind,
    /// The probe.
    pub probe: &'a Probe,
    /// Whether its answers were good so far.
    pub good: bool,
}

impl Unit {
    /// What must survive the agent.
    #[must_use]
    pub const fn record(&self) -> &UnitRecord {
        &self.record
    }

    /// What is asked, if anything is.
    #[must_use]
    pub const fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }

    /// The latest exits, oldest first.
    #[must_use]
    pub fn exits(&self) -> &[ExitReport] {
        &self.record.exits
    }

    /// Reloads that were asked for, and what became of them.
    #[must_use]
    pub const fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// Whether something of it may be alive.
    #[must_use]
    pub const fn may_be_alive(&self) -> bool {
        self.record.current.is_some() || self.record.ending.is_some()
    }

    /// Whether it runs and is meant to: what the bulk-stop rule protects.
    #[must_use]
    pub fn runs_as_meant(&self) -> bool {
        self.record.goal == Goal::Run && self.may_be_alive()
    }

    /// Whether it must have ended before others may start after a return.
    #[must_use]
    pub fn blocks_starts(&self) -> bool {
        self.record.goal != Goal::Run && self.state != State::Ended && !self.is_left_alone()
    }

    /// Whether it can be forgotten: no entry asks for it and nothing of it lives.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        let settled = match self.state {
            State::Idle | State::Delayed { .. } | State::Ended => true,
            State::Unlisted
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Running(_)
            | State::Stopping(_)
            | State::Clearing { .. }
            | State::Cleaning { .. } => false,
        };
        self.wanted.is_none() && settled && !self.may_be_alive()
    }

    /// Whether it is ready for work. A `oneshot` is once its work is done.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Running(running) => self.was_ready() && !running.process.said.stopping,
            State::Ended => self.record.ended.as_ref().is_some_and(|ended| ended.ready),
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Stopping(_)
            | State::Clearing { .. }
            | State::Cleaning { .. } => false,
        }
    }

    fn was_ready(&self) -> bool {
        self.record.current.as_ref().is_some_and(|current| current.ready)
    }

    /// What is to be asked now: the incarnation, which probe, and whether it was good so far.
    #[must_use]
    pub fn probing(&self) -> Vec<Asking<'_>> {
        let (State::Running(running), Some(current)) = (&self.state, &self.record.current) else {
            return Vec::new();
        };
        let Some(template) = self.made_of() else { return Vec::new() };
        let incarnation = running.process.incarnation;
        let asking =
            |kind, probe, good| Option::map(probe, |probe| Asking { incarnation, kind, probe, good });
        if !current.up {
            let startup = template.startup_probe.as_ref().filter(|_| !running.started_well);
            return asking(ProbeKind::Startup, startup, false).into_iter().collect();
        }
        let oneshot = template.kind == ProcessType::Oneshot;
        let readiness = template.readiness_probe.as_ref().filter(|_| !oneshot);
        let liveness = asking(ProbeKind::Liveness, template.liveness_probe.as_ref(), true);
        let readiness = asking(ProbeKind::Readiness, readiness, current.ready);
        liveness.into_iter().chain(readiness).collect()
    }

    fn process(&self) -> Option<&HostProcess> {
        match &self.state {
            State::Running(running) => Some(&running.process),
            State::Stopping(stopping) => Some(&stopping.process),
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Ended => None,
        }
    }

    fn phase(&self) -> (ProcessPhase, Option<Reason>, Option<String>) {
        match &self.state {
            State::Unlisted => (ProcessPhase::Unknown, None, Some("the holder has not told yet".to_owned())),
            State::Idle | State::Delayed { .. } if self.held.is_some() => {
                (ProcessPhase::Pending, Some(Reason::Held), self.held.as_ref().map(|h| h.message.clone()))
            }
            State::Idle => self.waiting(),
            State::Delayed { reason, message, .. } => {
                (ProcessPhase::Pending, Some(*reason), Some(message.clone()))
            }
            State::Preparing { step, .. } => {
                (ProcessPhase::Starting, None, Some(format!("execStartPre {} runs", step + 1)))
            }
            State::Starting { .. } => (ProcessPhase::Starting, None, None),
            State::Running(running) => self.running_phase(running),
            State::Stopping(stopping) => (ProcessPhase::Stopping, None, self.stopping_message(stopping)),
            State::Clearing { hook, .. } => {
                let what =
                    if hook.is_some() { "execStop has not ended" } else { "others of its tree have not" };
                (ProcessPhase::Stopping, None, Some(format!("its main process has ended, {what} yet")))
            }
            State::Cleaning { .. } => (ProcessPhase::Stopping, None, Some("execStopPost runs".to_owned())),
            State::Ended => self.record.ended.as_ref().map_or((ProcessPhase::Stopped, None, None), |ended| {
                (ended.phase, ended.reason, ended.message.clone())
            }),
        }
    }

    fn running_phase(&self, running: &Running) -> (ProcessPhase, Option<Reason>, Option<String>) {
        let said = &running.process.said;
        let status = (!said.status.is_empty()).then(|| said.status.clone());
        if self.wanted.is_none() && self.record.goal == Goal::Run {
            return (ProcessPhase::Orphan, Some(Reason::Orphaned), None);
        }
        let problem = (!running.message.is_empty()).then(|| running.message.clone());
        if !self.record.current.as_ref().is_some_and(|current| current.up) {
            let waits = || Some("waits until it says READY=1".to_owned());
            return (ProcessPhase::Starting, None, problem.or(status).or_else(waits));
        }
        if said.stopping {
            let says = "it says that it is stopping";
            let text = status.map_or(says.to_owned(), |status| format!("{says}: {status}"));
            return (ProcessPhase::Running, None, Some(text));
        }
        let held = self.held.as_ref().map(|held| held.message.clone());
        match problem {
            Some(problem) if !self.was_ready() => {
                (ProcessPhase::Running, Some(Reason::ProbeFailed), Some(problem))
            }
            Some(_) | None if held.is_some() => (ProcessPhase::Running, Some(Reason::Held), held),
            Some(_) | None => (ProcessPhase::Running, None, status),
        }
    }

    fn stopping_message(&self, stopping: &Stopping) -> Option<String> {
        let stop = self.record.current.as_ref().and_then(|current| current.stop.as_ref())?;
        let why = match stop.why {
            StopWhy::Goal => None,
            StopWhy::Replace | StopWhy::StartTimeout | StopWhy::Probe | StopWhy::Asked => {
                Some(stop.text.as_str())
            }
        };
        let stage = match stopping.stage {
            Stage::Delay { .. } if stopping.lost > 0 => Some("execStop is run again"),
            Stage::Delay { .. } => Some("waits preStopDelay"),
            Stage::Hook(_) => Some("execStop runs"),
            Stage::Asked { .. } => None,
        };
        match (why, stage) {
            (None, None) => None,
            (Some(text), None) | (None, Some(text)) => Some(text.to_owned()),
            (Some(why), Some(stage)) => Some(format!("{why}; {stage}")),
        }
    }

    fn waiting(&self) -> (ProcessPhase, Option<Reason>, Option<String>) {
        let text = if !self.host {
            "the holder does not answer".to_owned()
        } else if !self.gate {
            "waits until the documents were read and what was stopped meanwhile has ended".to_owned()
        } else if self.template().is_none() {
            "waits for its template".to_owned()
        } else if let Some(Some(unmet)) = &self.unmet {
            return (ProcessPhase::Pending, Some(Reason::NeedsNotMet), Some(unmet.clone()));
        } else {
            self.fetching_message().unwrap_or("about to start").to_owned()
        };
        (ProcessPhase::Pending, None, Some(text))
    }

    /// Its row in the report.
    #[must_use]
    pub fn report(&self) -> ProcessReport {
        let (phase, reason, message) = self.phase();
        let current = self.record.current.as_ref();
        let process = self.process();
        let ending = self.record.ending.as_ref();
        ProcessReport {
            u: self.record.uid,
            i: current.map_or(self.record.incarnation, |c| c.incarnation),
            phase,
            ready: self.is_ready(),
            pid: process.map(|p| p.pid),
            t: current.and_then(|c| c.template).or_else(|| ending.and_then(|e| e.template)),
            v: self.version(),
            started_at: current.and_then(|c| c.started_at),
            ready_at: current.and_then(|c| c.ready_at),
            restarts: self.record.starts.saturating_sub(1),
            reason,
            message,
            exits: self.record.exits_total,
            cgroup: process.and_then(|p| p.cgroup.clone()),
            log_path: process.and_then(|p| p.log_path.clone()),
            measure: None,
        }
    }

    fn version(&self) -> Version {
        let running = self.record.current.as_ref().map(|c| c.version);
        running.or_else(|| self.wanted.as_ref().map(|w| w.version)).unwrap_or_default()
    }

    /// Its row among the orphans, if it is one.
    #[must_use]
    pub fn orphan(&self) -> Option<OrphanReport> {
        (self.wanted.is_none() && self.may_be_alive()).then(|| OrphanReport {
            u: self.record.uid,
            namespace: self.record.namespace.clone(),
            name: self.record.name.clone(),
            pid: self.process().map(|p| p.pid),
            path: None,
        })
    }
}
