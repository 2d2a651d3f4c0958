//! What somebody asks of a process beside its document: to read its configuration again, or to start anew.
//!
//! An ask concerns what runs. What is about to run, or runs and is not up yet, may have read what is old: it is asked
//! once it is up. What does not run will read what is new when it starts, so there is nothing to do. Whoever asked
//! learns the end by the numbers of [`Reloads`].

use super::{Ask, Effect, Hook, HookEnd, State, StopWhy, Turn, Unit};
use crate::unit::Reason;

/// Reloads that were asked for and their ends, since the agent has this process. Not durable: who asks for one after a
/// crash asks again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloads {
    /// So many were asked for.
    pub asked: u64,
    /// So many of these are over.
    pub over: u64,
    /// Why the last one that is over failed, if it did.
    pub failure: Option<String>,
    /// Up to which one that under way counts.
    serving: u64,
}

impl Unit {
    pub(super) fn ask(&mut self, ask: Ask, turn: &mut Turn) {
        match (&self.state, ask) {
            // Served when what runs is up: by `serve_asks`.
            (_, Ask::Reload) => self.reloads.asked += 1,
            (State::Running(_), Ask::Restart) if self.is_meant_to_run() => {
                self.begin_stop(StopWhy::Asked, "a restart was asked for".to_owned(), turn);
            }
            (State::Starting { .. }, Ask::Restart) if self.is_meant_to_run() => self.restart_due = true,
            // The host has not told yet whether it runs.
            (State::Unlisted, Ask::Restart) => self.restart_due = true,
            (State::Delayed { .. } | State::Ended, Ask::Restart) if self.is_meant_to_run() => {
                self.begin_anew(turn);
            }
            (
                State::Idle
                | State::Delayed { .. }
                | State::Preparing { .. }
                | State::Starting { .. }
                | State::Running(_)
                | State::Stopping(_)
                | State::Clearing { .. }
                | State::Cleaning { .. }
                | State::Ended,
                Ask::Restart,
            ) => {}
        }
    }

    /// Does what was asked for and could not be done at once.
    pub(super) fn serve_asks(&mut self, turn: &mut Turn) {
        let up = self.record.current.as_ref().is_some_and(|current| current.up);
        let due = self.reloads.over < self.reloads.asked;
        match &self.state {
            State::Starting { .. } => {}
            // Whoever holds it wants no other hand on it, not even one that came before.
            State::Running(_) if self.held.is_some() => {
                self.restart_due = false;
                self.reloads.over = self.reloads.asked;
            }
            State::Running(_) if self.restart_due && self.is_meant_to_run() => {
                self.restart_due = false;
                self.begin_stop(StopWhy::Asked, "a restart was asked for".to_owned(), turn);
            }
            State::Running(running) => {
                if due && up && running.reload.is_none() {
                    self.reload(turn);
                }
            }
            // The host has not told yet: it may run.
            State::Unlisted => {}
            State::Idle
            | State::Delayed { .. }
            | State::Preparing { .. }
            | State::Stopping(_)
            | State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Ended => {
                self.restart_due = false;
                self.reloads.over = self.reloads.asked;
                if due {
                    self.reloads.failure = None;
                }
            }
        }
    }

    fn reload(&mut self, turn: &mut Turn) {
        self.reloads.serving = self.reloads.asked;
        let Some(template) = self.made_of().cloned() else {
            let why = "its template is not known here any more".to_owned();
            return self.reloaded(Some(why), turn);
        };
        let incarnation = self.record.current.as_ref().map_or(0, |current| current.incarnation);
        match &template.exec_reload {
            Some(exec) => {
                let hook = self.run(Hook::Reload, exec.clone(), turn);
                if let State::Running(running) = &mut self.state {
                    running.reload = Some(hook);
                }
            }
            None => {
                turn.push(Effect::Signal { incarnation, signal: template.reload_signal });
                turn.tell(Reason::Reloaded, format!("it was sent {}", template.reload_signal));
                self.reloads.over = self.reloads.serving;
                self.reloads.failure = None;
            }
        }
    }

    /// `execReload` has ended.
    pub(super) fn reload_ran(&mut self, end: HookEnd, turn: &mut Turn) {
        match end {
            HookEnd::Success => {
                turn.tell(Reason::Reloaded, "execReload succeeded");
                self.reloads.over = self.reloads.serving;
                self.reloads.failure = None;
            }
            HookEnd::Failed(why) | HookEnd::Lost(why) => {
                self.reloaded(Some(format!("execReload {why}")), turn);
            }
        }
    }

    fn reloaded(&mut self, failure: Option<String>, turn: &mut Turn) {
        self.reloads.over = self.reloads.serving;
        if let Some(why) = &failure {
            turn.tell(Reason::ActionFailed, why.clone());
        }
        self.reloads.failure = failure;
    }
}
