//! The stop sequence: out of the endpoints, `preStopDelay`, `execStop` or `killSignal`, the deadline.
//!
//! What comes before the holder is asked is done again by an agent that died in the middle of it: `execStop` at least
//! once.

use super::{
    Effect, Hook, HostProcess, Mono, STOP_AGAIN_MS, Stage, State, StopRecord, StopWhy, Stopping, Turn, Unit,
};

impl Unit {
    /// Decides to stop what runs.
    pub(super) fn begin_stop(&mut self, why: StopWhy, text: String, turn: &mut Turn) {
        let State::Running(running) = &self.state else { return };
        if let Some(reload) = running.reload {
            turn.push(Effect::Cancel(reload.run));
        }
        let process = running.process.clone();
        self.stop_from_the_start(process, (why, text), turn);
    }

    pub(super) fn stop_from_the_start(
        &mut self,
        process: HostProcess,
        (why, text): (StopWhy, String),
        turn: &mut Turn,
    ) {
        let terms = self.terms();
        let Some(current) = &mut self.record.current else { return };
        current.stop = Some(StopRecord { why, text, asked: false, quiet: false });
        current.ready = false;
        // Nobody uses what was never ready, and what did not come up has nothing to end in order.
        let delay = terms.pre_stop_delay_ms;
        let used = current.ready_at.is_some() && why != StopWhy::StartTimeout;
        turn.persist();
        let stage = Stage::Delay { until: turn.now.mono.plus_ms(if used { delay } else { 0 }) };
        self.state = State::Stopping(Stopping { process, stage, lost: 0 });
        if !used || delay == 0 {
            self.stop_by_hook(turn);
        }
    }

    /// `execStop` of what came up, else the signal.
    fn stop_by_hook(&mut self, turn: &mut Turn) {
        let terms = self.terms();
        let Some(current) = &self.record.current else { return };
        let orderly =
            current.up && current.stop.as_ref().is_none_or(|stop| stop.why != StopWhy::StartTimeout);
        let Some(exec) = terms.exec_stop.filter(|_| orderly) else {
            return self.ask_to_end(false, turn);
        };
        let hook = self.run(Hook::Stop, exec, turn);
        if let State::Stopping(stopping) = &mut self.state {
            stopping.stage = Stage::Hook(hook);
        }
    }

    /// From here on the holder keeps the deadline.
    pub(super) fn ask_to_end(&mut self, quiet: bool, turn: &mut Turn) {
        if let Some(stop) = self.record.current.as_mut().and_then(|current| current.stop.as_mut()) {
            *stop = StopRecord { asked: true, quiet, ..stop.clone() };
        }
        turn.persist();
        self.ask_again(turn);
    }

    /// Asks, perhaps once more: the holder never sends the same signal twice, and only tightens its deadline.
    fn ask_again(&mut self, turn: &mut Turn) {
        let terms = self.terms();
        let Some(current) = &self.record.current else { return };
        let quiet = current.stop.as_ref().is_some_and(|stop| stop.quiet);
        let signal = (!quiet).then_some(terms.kill_signal);
        let grace_ms = terms.timeout_stop_ms;
        turn.push(Effect::Stop { incarnation: current.incarnation, signal, grace_ms });
        let again = Self::stop_again(turn, grace_ms);
        if let State::Stopping(stopping) = &mut self.state {
            stopping.stage = Stage::Asked { again };
        }
    }

    /// When the holder is to be asked again.
    pub(super) fn stop_again(turn: &Turn, grace_ms: u64) -> Mono {
        turn.now.mono.plus_ms(grace_ms.saturating_add(STOP_AGAIN_MS))
    }

    /// What a stop under way is due to do now.
    pub(super) fn go_on_stopping(&mut self, turn: &mut Turn) {
        let State::Stopping(stopping) = &self.state else { return };
        match stopping.stage {
            Stage::Delay { until } if turn.now.mono >= until => self.stop_by_hook(turn),
            Stage::Asked { again } if turn.now.mono >= again => self.ask_again(turn),
            Stage::Delay { .. } | Stage::Hook(_) | Stage::Asked { .. } => {}
        }
    }

    /// A stop that an agent before this one decided.
    pub(super) fn resume_stop(&mut self, process: HostProcess, stop: StopRecord, turn: &mut Turn) {
        if stop.asked {
            // The request may have been lost with that agent.
            let stage = Stage::Asked { again: turn.now.mono };
            self.state = State::Stopping(Stopping { process, stage, lost: 0 });
        } else {
            self.stop_from_the_start(process, (stop.why, stop.text), turn);
        }
    }
}
