//! Commands that are run for a process: one at a time, each numbered, none waited for without end.

use ostler_schemas::spec::Exec;

use super::{Awaited, Effect, Hook, HookEnd, RUN_SLACK_MS, Reason, Run, Stage, State, Stopping, Turn, Unit};

/// How soon `execStop` and `execStopPost` are run again after they were lost with the holder.
const AGAIN_MS: u64 = 1_000;

/// How often one may be lost before life goes on without it.
const LOST_MAX: u32 = 5;

impl Unit {
    /// Runs a hook of the incarnation that is current or ending.
    pub(super) fn run(&mut self, hook: Hook, exec: Exec, turn: &mut Turn) -> Awaited {
        self.runs += 1;
        let until = turn.now.mono.plus_ms(exec.timeout.as_millis().saturating_add(RUN_SLACK_MS));
        let terms = self.record.ending.as_ref().map_or_else(|| self.terms(), |e| e.terms.clone());
        let current = self.record.current.as_ref().map(|c| (c.incarnation, c.template, c.version));
        let ending = self.record.ending.as_ref().map(|e| (e.incarnation, e.template, e.version));
        let (incarnation, template, version) = ending.or(current).unwrap_or_default();
        turn.push(Effect::Run(Box::new(Run {
            run: self.runs,
            incarnation,
            hook,
            exec,
            template,
            version,
            token: terms.token,
            ports: terms.ports,
        })));
        Awaited { run: self.runs, until }
    }

    /// The run that is waited for.
    fn awaited(&self) -> Option<Awaited> {
        match &self.state {
            State::Preparing { hook, .. } => Some(*hook),
            State::Running(running) => running.reload,
            State::Stopping(Stopping { stage: Stage::Hook(hook), .. }) => Some(*hook),
            State::Clearing { hook, .. } | State::Cleaning { hook, .. } => *hook,
            State::Stopping(_)
            | State::Unlisted
            | State::Idle
            | State::Delayed { .. }
            | State::Starting { .. }
            | State::Ended => None,
        }
    }

    /// A run has ended; one that is not waited for any more is of no interest.
    pub(super) fn ran(&mut self, run: u64, end: HookEnd, turn: &mut Turn) {
        if self.awaited().is_none_or(|hook| hook.run != run) {
            return;
        }
        match &mut self.state {
            State::Preparing { step, .. } => {
                let step = *step;
                self.prepared(step, end, turn);
            }
            State::Running(running) => {
                running.reload = None;
                self.reload_ran(end, turn);
            }
            State::Stopping(stopping) => match end {
                HookEnd::Success => self.ask_to_end(true, turn),
                HookEnd::Lost(_) if stopping.lost + 1 < LOST_MAX => {
                    stopping.lost += 1;
                    stopping.stage = Stage::Delay { until: turn.now.mono.plus_ms(AGAIN_MS) };
                }
                HookEnd::Failed(why) | HookEnd::Lost(why) => {
                    turn.tell(
                        Reason::ActionFailed,
                        format!("execStop {why}; it gets its killSignal instead"),
                    );
                    self.ask_to_end(false, turn);
                }
            },
            State::Clearing { hook, .. } => {
                *hook = None;
                self.go_on_clearing(turn);
            }
            State::Cleaning { lost, .. } => {
                let lost = *lost + 1;
                match end {
                    HookEnd::Lost(_) if lost < LOST_MAX => {
                        let again = turn.now.mono.plus_ms(AGAIN_MS);
                        self.state = State::Cleaning { hook: None, again, lost };
                    }
                    HookEnd::Failed(why) | HookEnd::Lost(why) => {
                        turn.tell(Reason::ActionFailed, format!("execStopPost {why}"));
                        self.resolve(turn);
                    }
                    HookEnd::Success => self.resolve(turn),
                }
            }
            State::Unlisted | State::Idle | State::Delayed { .. } | State::Starting { .. } | State::Ended => {
            }
        }
    }

    /// Nobody has told the end of a run long after it must have ended.
    pub(super) fn give_up_runs(&mut self, turn: &mut Turn) {
        if let Some(Awaited { run, until }) = self.awaited()
            && turn.now.mono >= until
        {
            turn.push(Effect::Cancel(run));
            let why = "did not end, and nobody told why".to_owned();
            // A stop has waited for long enough.
            let stops = matches!(self.state, State::Stopping(_));
            self.ran(run, if stops { HookEnd::Failed(why) } else { HookEnd::Lost(why) }, turn);
        }
    }
}
