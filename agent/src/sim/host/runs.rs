//! Simulated runs: a command behaves as the [`Program`] of its first word says. One that nobody described ends at once
//! with success; one that is attended gives back what it is given until its input ends.

use bytes::Bytes;
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_agent_core::unit::HowEnded;
use ostler_schemas::Name;
use ostler_schemas::spec::Renewal;
use tokio::sync::mpsc;

use super::{Program, SIGKILL, SimEvent, SimHost};
use crate::context::lock;
use crate::ports::{HostError, HostRun, HostSession, RunOutcome, Screen, SessionInput, SessionOutput};

/// How often a running command is looked at.
const LOOK_MS: u64 = 10;

/// Messages between the two ends of a session.
const QUEUED: usize = 16;

/// A command that was run, for checkers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimRun {
    /// For which incarnation.
    pub key: ProcKey,
    /// Its words.
    pub argv: Vec<String>,
    /// How it ended.
    pub how: HowEnded,
}

/// A run in the host's history, from its beginning to its end.
struct Noted<'a> {
    host: &'a SimHost,
    key: ProcKey,
    name: Name,
    run: u64,
    how: HowEnded,
}

impl<'a> Noted<'a> {
    fn new(host: &'a SimHost, asked: &HostRun) -> Self {
        let (key, name) = (asked.like.key, asked.like.name.clone());
        let mut inner = lock(&host.inner);
        inner.next_run += 1;
        let run = inner.next_run;
        inner.note(host.clock.now(), key, &name, SimEvent::RunBegan(run, asked.like.argv.clone()));
        let how = HowEnded::Unknown("nobody waits for it any more".to_owned());
        Self { host, key, name, run, how }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let ended = SimEvent::RunEnded(self.run, self.how.clone());
        lock(&self.host.inner).note(self.host.clock.now(), self.key, &self.name, ended);
    }
}

impl SimHost {
    /// Every command that was run to its end here.
    #[must_use]
    pub fn ran(&self) -> Vec<SimRun> {
        lock(&self.inner).ran.clone()
    }

    /// Every reload and restart of a unit that was asked for.
    #[must_use]
    pub fn units_asked(&self) -> Vec<(Renewal, String)> {
        lock(&self.inner).units.clone()
    }

    fn program_of_run(&self, run: &HostRun) -> Result<Option<Program>, HostError> {
        self.up()?;
        let inner = lock(&self.inner);
        let program = inner.described(&run.like.argv);
        match program.as_ref().and_then(|program| program.broken.clone()) {
            Some(why) => Err(HostError(why)),
            None => Ok(program),
        }
    }

    /// Killed when nobody waits for it any more.
    pub(super) async fn run_to_its_end(&self, run: HostRun) -> Result<RunOutcome, HostError> {
        let program = self.program_of_run(&run)?;
        let mut noted = Noted::new(self, &run);
        let (runs_ms, code) = match program {
            Some(Program { exits: Some((ms, code)), .. }) => (Some(ms), code),
            Some(Program { exits: None, .. }) => (None, 0),
            None => (Some(1), 0),
        };
        let mut outcome = RunOutcome {
            how: HowEnded::Code(code),
            timed_out: false,
            ended_because: None,
            output: Bytes::new(),
        };
        let mut passed = 0;
        while runs_ms.is_none_or(|ms| passed < ms) {
            let step = runs_ms.map_or(LOOK_MS, |ms| LOOK_MS.min(ms - passed));
            self.clock.sleep_ms(step).await;
            passed += step;
            if self.up().is_err() {
                outcome.how = HowEnded::Unknown("the holder went away meanwhile".to_owned());
                break;
            }
            if run.timeout_ms > 0 && passed >= run.timeout_ms && runs_ms.is_none_or(|ms| passed < ms) {
                outcome.how = HowEnded::Signal(SIGKILL);
                outcome.timed_out = true;
                break;
            }
            if run.beside && !lock(&self.inner).living.contains_key(&run.like.key) {
                outcome.how = HowEnded::Signal(SIGKILL);
                outcome.ended_because = Some("its process ended".to_owned());
                break;
            }
        }
        noted.how = outcome.how.clone();
        drop(noted);
        self.note_run(&run, &outcome);
        Ok(outcome)
    }

    fn note_run(&self, run: &HostRun, outcome: &RunOutcome) {
        let ran = SimRun { key: run.like.key, argv: run.like.argv.clone(), how: outcome.how.clone() };
        let mut inner = lock(&self.inner);
        if !inner.manners.forgetful {
            inner.ran.push(ran);
        }
    }

    /// Echoes its input. `exit N` as the whole of an input ends it with that code.
    pub(super) fn attended(&self, run: HostRun, screen: Option<Screen>) -> Result<HostSession, HostError> {
        self.program_of_run(&run)?;
        let (input, mut said) = mpsc::channel(QUEUED);
        let (out, output) = mpsc::channel(QUEUED);
        let me = self.me.clone();
        tokio::spawn(async move {
            if let Some(Screen { rows, columns }) = screen {
                drop(out.send(SessionOutput::Stdout(format!("{rows}x{columns}\n").into())).await);
            }
            let mut how = HowEnded::Code(0);
            while let Some(input) = said.recv().await {
                let bytes = match input {
                    SessionInput::Bytes(bytes) => bytes,
                    SessionInput::Resize(Screen { rows, columns }) => format!("{rows}x{columns}\n").into(),
                    SessionInput::End => break,
                    SessionInput::Signal(signal) => {
                        how = HowEnded::Signal(i32::from(signal.number()));
                        break;
                    }
                };
                let text = String::from_utf8_lossy(&bytes);
                if let Some(code) = text.trim().strip_prefix("exit ").and_then(|n| n.parse().ok()) {
                    how = HowEnded::Code(code);
                    break;
                }
                if out.send(SessionOutput::Stdout(bytes)).await.is_err() {
                    how = HowEnded::Signal(SIGKILL);
                    break;
                }
            }
            let outcome = RunOutcome { how, timed_out: false, ended_because: None, output: Bytes::new() };
            if let Some(host) = me.upgrade() {
                host.note_run(&run, &outcome);
            }
            drop(out.send(SessionOutput::Ended(outcome)).await);
        });
        Ok(HostSession { input, output })
    }
}
