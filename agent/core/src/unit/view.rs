//! What others see of a unit.

use ostler_schemas::Version;
use ostler_schemas::spec::Probe;
use ostler_schemas::v1::report::{ExitReport, OrphanReport, ProcessReport};

use super::{Goal, HostProcess, ProcessPhase, Reason, State, Unit, UnitRecord, Wanted};

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

    /// Whether something of it may be alive.
    #[must_use]
    pub const fn may_be_alive(&self) -> bool {
        self.record.current.is_some()
    }

    /// Whether it runs and is meant to: what the bulk-stop rule protects.
    #[must_use]
    pub fn runs_as_meant(&self) -> bool {
        self.record.goal == Goal::Run && self.may_be_alive()
    }

    /// Whether it must have ended before others may start after a return.
    #[must_use]
    pub fn blocks_starts(&self) -> bool {
        self.record.goal != Goal::Run && self.state != State::Ended
    }

    /// Whether it can be forgotten: no entry asks for it and nothing of it lives.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        let settled = match self.state {
            State::Idle | State::Delayed { .. } | State::Ended => true,
            State::Unlisted | State::Starting { .. } | State::Running(_) | State::Stopping { .. } => false,
        };
        self.wanted.is_none() && settled && self.record.current.is_none()
    }

    /// Whether it is ready for work.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        match &self.state {
            State::Running(running) => running.ready,
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Starting { .. }
            | State::Stopping { .. }
            | State::Ended => false,
        }
    }

    /// The incarnation to be probed and its probe; none when there is nothing to probe now.
    #[must_use]
    pub fn probing(&self) -> Option<(u64, &Probe)> {
        let State::Running(running) = &self.state else { return None };
        let probe = self.wanted.as_ref()?.template.as_ref()?.readiness_probe.as_ref()?;
        Some((running.process.incarnation, probe))
    }

    fn process(&self) -> Option<&HostProcess> {
        match &self.state {
            State::Running(running) => Some(&running.process),
            State::Stopping { process, .. } => Some(process),
            State::Unlisted | State::Idle | State::Delayed { .. } | State::Starting { .. } | State::Ended => {
                None
            }
        }
    }

    fn phase(&self) -> (ProcessPhase, Option<Reason>, Option<String>) {
        let orphan = self.wanted.is_none() && self.record.goal == Goal::Run;
        match &self.state {
            State::Unlisted => (ProcessPhase::Unknown, None, Some("the holder has not told yet".to_owned())),
            State::Idle => self.waiting(),
            State::Delayed { reason, message, .. } => {
                (ProcessPhase::Pending, Some(*reason), Some(message.clone()))
            }
            State::Starting { .. } => (ProcessPhase::Starting, None, None),
            State::Running(_) if orphan => (ProcessPhase::Orphan, Some(Reason::Orphaned), None),
            State::Running(running) if running.ready || running.message.is_empty() => {
                (ProcessPhase::Running, None, None)
            }
            State::Running(running) => {
                (ProcessPhase::Running, Some(Reason::ProbeFailed), Some(running.message.clone()))
            }
            State::Stopping { .. } => (ProcessPhase::Stopping, None, None),
            State::Ended => self.record.ended.as_ref().map_or((ProcessPhase::Stopped, None, None), |ended| {
                (ended.phase, ended.reason, ended.message.clone())
            }),
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
            "about to start".to_owned()
        };
        (ProcessPhase::Pending, None, Some(text))
    }

    /// Its row in the report.
    #[must_use]
    pub fn report(&self) -> ProcessReport {
        let (phase, reason, message) = self.phase();
        let current = self.record.current.as_ref();
        let process = self.process();
        let (ready, ready_at) = match &self.state {
            State::Running(running) => (running.ready, running.ready_at),
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Starting { .. }
            | State::Stopping { .. }
            | State::Ended => (false, None),
        };
        ProcessReport {
            u: self.record.uid,
            i: current.map_or(self.record.incarnation, |c| c.incarnation),
            phase,
            ready,
            pid: process.map(|p| p.pid),
            t: current.and_then(|c| c.template),
            v: self.version(),
            started_at: current.and_then(|c| c.started_at),
            ready_at,
            restarts: self.record.starts.saturating_sub(1),
            reason,
            message,
            exits: self.record.exits_total,
            cgroup: process.and_then(|p| p.cgroup.clone()),
            log_path: process.and_then(|p| p.log_path.clone()),
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
