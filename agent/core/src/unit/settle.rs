//! The level-triggered half of the machine: what should be done, given only where things stand.

use super::{Goal, ProcessPhase, State, StopWhy, Turn, Unit};

impl Unit {
    /// Does what is to be done now. Every branch either changes the state or does nothing, so it ends.
    pub(super) fn settle(&mut self, turn: &mut Turn) {
        self.give_up_runs(turn);
        if self.is_left_alone() {
            self.settle_held(turn);
        } else if self.record.goal == Goal::Run {
            self.settle_run(turn);
        } else {
            self.settle_stop(turn);
        }
        self.serve_asks(turn);
        self.go_on_stopping(turn);
        self.go_on_clearing(turn);
    }

    /// Whether a person on the host has taken it out of the agent's hands. What does not live has nothing to lose by a
    /// stop, and one that was stopped there may as well be told to stop.
    pub(super) fn is_left_alone(&self) -> bool {
        self.held.as_ref().is_some_and(|held| match self.record.goal {
            Goal::Run => true,
            Goal::Stop => !held.stop && self.may_be_alive(),
            Goal::Gone => false,
        })
    }

    fn settle_held(&mut self, turn: &mut Turn) {
        let Some(held) = self.held.as_ref().filter(|held| held.stop) else { return };
        let text = held.message.clone();
        match &self.state {
            State::Running(_) => self.begin_stop(StopWhy::Asked, text, turn),
            State::Preparing { hook, .. } => {
                let hook = *hook;
                self.cancel_start(hook, turn);
            }
            State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Starting { .. }
            | State::Stopping(_)
            | State::Clearing { .. }
            | State::Cleaning { .. }
            | State::Ended => {}
        }
    }

    fn settle_stop(&mut self, turn: &mut Turn) {
        match &mut self.state {
            State::Unlisted | State::Starting { .. } | State::Ended => {}
            State::Idle | State::Delayed { .. } => {
                self.end(ProcessPhase::Stopped, None, None);
                turn.persist();
            }
            State::Preparing { hook, .. } => {
                let hook = *hook;
                self.cancel_start(hook, turn);
                self.end_if_idle(turn);
            }
            State::Running(_) => self.begin_stop(StopWhy::Goal, "as asked".to_owned(), turn),
            State::Stopping(_) => {
                if let Some(stop) = self.record.current.as_mut().and_then(|c| c.stop.as_mut())
                    && stop.why != StopWhy::Goal
                {
                    stop.why = StopWhy::Goal;
                    turn.persist();
                }
            }
            State::Clearing { .. } | State::Cleaning { .. } => {
                if let Some(ending) = &mut self.record.ending
                    && ending.stop != Some(StopWhy::Goal)
                {
                    ending.stop = Some(StopWhy::Goal);
                    turn.persist();
                }
            }
        }
    }

    /// What was given up on the way to a start needs no further step when nothing has to be cleaned up.
    fn end_if_idle(&mut self, turn: &mut Turn) {
        if matches!(self.state, State::Idle) {
            self.end(ProcessPhase::Stopped, None, None);
            turn.persist();
        }
    }

    fn settle_run(&mut self, turn: &mut Turn) {
        if self.wanted.is_none() {
            // An orphan: what runs goes on, what has ended stays so.
            return;
        }
        match &self.state {
            State::Unlisted
            | State::Starting { .. }
            | State::Stopping(_)
            | State::Clearing { .. }
            | State::Cleaning { .. } => {}
            State::Preparing { hook, .. } => {
                let hook = *hook;
                if self.is_another_template() {
                    self.cancel_start(hook, turn);
                    if matches!(self.state, State::Idle) {
                        self.begin_anew(turn);
                    }
                }
            }
            State::Delayed { until, .. } => {
                if self.is_another_template() {
                    self.begin_anew(turn);
                } else if turn.now.mono >= *until {
                    self.state = State::Idle;
                    self.try_start(turn);
                }
            }
            State::Idle => self.try_start(turn),
            State::Running(_) => {
                self.compare(turn);
                if let Some(text) = self.is_overdue(turn) {
                    self.start_timeout(text, turn);
                }
            }
            State::Ended => {
                if self.is_another_template() {
                    self.begin_anew(turn);
                }
            }
        }
    }

    /// Whether the template asked for differs, in what needs a restart, from the one that was tried last.
    pub(super) fn is_another_template(&self) -> bool {
        let asked = self.wanted.as_ref().and_then(|w| w.restart_hash);
        asked.is_some() && self.record.tried.is_some() && asked != self.record.tried
    }

    /// Another template, or somebody asked: what became of it before does not count.
    pub(super) fn begin_anew(&mut self, turn: &mut Turn) {
        self.record.ended = None;
        self.record.delayed = None;
        self.record.streak = 0;
        self.record.failures.clear();
        self.state = State::Idle;
        turn.persist();
        self.try_start(turn);
    }
}
