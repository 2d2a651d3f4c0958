//! Commands that run beside processes: hooks, probes, validators, `exec`.
//!
//! A run is no incarnation: it is in no state file, no listing and no report, it belongs to the connection that asked
//! for it, and it ends with that connection, at its deadline, with the incarnation it runs beside, or by itself. What
//! its first process leaves behind is killed. Whoever asked hears once: how it ended, or why it did not start.
//!
//! This is the machine: what happened goes in, what is to be done comes out. The bytes of a run pass from its pipes
//! or its terminal to the agent without the holder.

pub mod protocol;

use std::collections::BTreeMap;

use self::protocol::{Ran, Run, SignalRun};
use super::machine::Caller;
use super::protocol::{Done, Exit, ProcKey, Refusal, RefusalCode, Reply};

/// Runs at one time. A host of a thousand processes asks a few dozen probes at once; more is a mistake, and each costs
/// descriptors of the holder.
pub const RUNS_MAX: usize = 512;

/// How often the kill of something that does not go is repeated.
const KILL_AGAIN_MS: u64 = 1_000;

/// How long what a run left behind may take to go before the answer is given without it: the kernel takes a moment for
/// each process, and one that hangs in a device must not hide how the run ended.
const LEFTOVERS_MS: u64 = 5_000;

/// How long a killed first process may take to end before the answer is that this is not known.
const STUCK_MS: u64 = 10_000;

/// The first wait before a killed tree is looked at again; it doubles.
const LOOK_MS: u64 = 5;

/// The highest signal number of Linux on the architectures Ostler runs on.
const SIGNAL_MAX: i32 = 64;

/// The holder's number of a run.
pub type RunId = u64;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A client asked for a run.
    Asked(Caller, Box<Run>),
    /// A client signals a run of its connection.
    Signalled(Caller, SignalRun),
    /// The child of a run exists.
    Forked(RunId),
    /// It could not be made.
    NotForked(RunId, String),
    /// The child could not become the program; its end follows.
    NotStarted(RunId, String),
    /// The first process has ended.
    Ended(RunId, Exit),
    /// Whether anything of it is left.
    Looked(RunId, bool),
    /// A connection is gone.
    ClientGone(u64),
    /// The main process of an incarnation has ended.
    IncarnationEnded(ProcKey),
    /// The holder goes.
    Closing,
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Make the child, from the descriptors that came with the call.
    Fork(RunId, Caller, Box<Run>),
    /// Signal everything in it.
    Signal(RunId, i32),
    /// Kill everything in it.
    Kill(RunId),
    /// See whether anything of it is left.
    Look(RunId),
    /// Nothing is left: its handles can go.
    Forget(RunId),
    /// Answer.
    Answer(Caller, Reply),
}

#[derive(Debug)]
struct Held {
    /// Who waits for the answer; none once it was given, or when nobody does.
    caller: Option<Caller>,
    key: ProcKey,
    beside: bool,
    kill_at: Option<u64>,
    timed_out: bool,
    ended_because: Option<String>,
    failure: Option<String>,
    exit: Option<Exit>,
    /// When it was told to die; from then on it is killed again and again.
    killed_at: Option<u64>,
    kill_again: u64,
    look_at: Option<u64>,
    look_after: u64,
    answer_by: Option<u64>,
}

/// All runs of a holder.
#[derive(Debug, Default)]
pub struct Runs {
    held: BTreeMap<RunId, Held>,
    last: RunId,
    closing: bool,
}

impl Runs {
    /// What follows from something that happened at `now` (milliseconds of a clock that nobody sets).
    pub fn on(&mut self, now: u64, happened: Happened) -> Vec<Act> {
        let mut acts = Vec::new();
        match happened {
            Happened::Asked(caller, run) => self.asked(now, caller, run, &mut acts),
            Happened::Signalled(caller, signal) => self.signalled(caller, &signal, &mut acts),
            // One that was to die before it was born.
            Happened::Forked(id) => match self.held.get(&id) {
                Some(held) if held.killed_at.is_some() => acts.push(Act::Kill(id)),
                Some(_) | None => {}
            },
            Happened::NotForked(id, why) => {
                if let Some(Held { caller: Some(caller), .. }) = self.held.remove(&id) {
                    acts.push(refuse(caller, RefusalCode::StartFailed, why));
                }
            }
            Happened::NotStarted(id, why) => {
                if let Some(held) = self.held.get_mut(&id) {
                    held.failure = Some(why);
                }
            }
            Happened::Ended(id, exit) => self.ended(now, id, exit, &mut acts),
            Happened::Looked(id, empty) => self.looked(now, id, empty, &mut acts),
            Happened::ClientGone(client) => {
                let of_it = |held: &Held| held.caller.is_some_and(|caller| caller.client == client);
                for (id, held) in self.held.iter_mut().filter(|(_, held)| of_it(held)) {
                    held.caller = None;
                    held.kill(now, *id, &mut acts);
                }
            }
            Happened::IncarnationEnded(key) => {
                let beside = |held: &Held| held.beside && held.key == key && held.exit.is_none();
                for (id, held) in self.held.iter_mut().filter(|(_, held)| beside(held)) {
                    held.ended_because.get_or_insert_with(|| "its process ended".to_owned());
                    held.kill(now, *id, &mut acts);
                }
            }
            Happened::Closing => {
                self.closing = true;
                for (id, held) in &mut self.held {
                    held.ended_because.get_or_insert_with(|| "the holder ends".to_owned());
                    held.kill(now, *id, &mut acts);
                }
            }
            Happened::Tick => self.tick(now, &mut acts),
        }
        acts
    }

    /// When to tick next.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.held.values().filter_map(Held::next_wake).min()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn asked(&mut self, now: u64, caller: Caller, run: Box<Run>, acts: &mut Vec<Act>) {
        if run.spawn.argv.first().is_none_or(String::is_empty) {
            return acts.push(refuse(caller, RefusalCode::Invalid, "there is no command to run"));
        }
        if self.closing {
            return acts.push(refuse(caller, RefusalCode::Closing, "the holder ends"));
        }
        if self.held.len() >= RUNS_MAX {
            let why = format!("{RUNS_MAX} commands run on this host already; try again");
            return acts.push(refuse(caller, RefusalCode::Busy, why));
        }
        self.last += 1;
        let held = Held {
            caller: Some(caller),
            key: run.spawn.key,
            beside: run.beside,
            kill_at: run.timeout_ms.map(|ms| now.saturating_add(ms)),
            timed_out: false,
            ended_because: None,
            failure: None,
            exit: None,
            killed_at: None,
            kill_again: 0,
            look_at: None,
            look_after: LOOK_MS,
            answer_by: None,
        };
        self.held.insert(self.last, held);
        acts.push(Act::Fork(self.last, caller, run));
    }

    fn signalled(&self, caller: Caller, asked: &SignalRun, acts: &mut Vec<Act>) {
        let run = Caller { client: caller.client, call: asked.call };
        let found = self.held.iter().find(|(_, held)| held.caller == Some(run) && held.exit.is_none());
        match found {
            Some(_) if !(1..=SIGNAL_MAX).contains(&asked.signal) => {
                let why = format!("{} is not a signal", asked.signal);
                acts.push(refuse(caller, RefusalCode::Invalid, why));
            }
            Some((id, _)) => {
                acts.push(Act::Signal(*id, asked.signal));
                acts.push(Act::Answer(caller, Reply::Done(Done {})));
            }
            None => acts.push(refuse(caller, RefusalCode::NotFound, "that run has ended")),
        }
    }

    fn ended(&mut self, now: u64, id: RunId, exit: Exit, acts: &mut Vec<Act>) {
        let Some(held) = self.held.get_mut(&id).filter(|held| held.exit.is_none()) else { return };
        held.exit = Some(exit);
        held.kill_at = None;
        held.answer_by = Some(now + LEFTOVERS_MS);
        // What it left behind goes with it; most leave nothing.
        held.killed_at = None;
        held.look_at = Some(now + held.look_after);
        acts.push(Act::Look(id));
    }

    fn looked(&mut self, now: u64, id: RunId, empty: bool, acts: &mut Vec<Act>) {
        let Some(held) = self.held.get_mut(&id).filter(|held| held.exit.is_some()) else { return };
        if empty {
            held.answer(acts);
            self.held.remove(&id);
            acts.push(Act::Forget(id));
        } else {
            held.kill(now, id, acts);
        }
    }

    fn tick(&mut self, now: u64, acts: &mut Vec<Act>) {
        for (id, held) in &mut self.held {
            if held.kill_at.is_some_and(|at| at <= now) {
                held.kill_at = None;
                held.timed_out = true;
                held.kill(now, *id, acts);
            }
            if held.killed_at.is_some() && held.kill_again <= now {
                held.kill_again = now + KILL_AGAIN_MS;
                acts.push(Act::Kill(*id));
            }
            if held.look_at.is_some_and(|at| at <= now) {
                held.look_after = (held.look_after * 2).min(KILL_AGAIN_MS);
                held.look_at = Some(now + held.look_after);
                acts.push(Act::Look(*id));
            }
            if held.answer_by.is_some_and(|at| at <= now) {
                held.answer_by = None;
                held.answer(acts);
            }
        }
    }
}

impl Held {
    fn kill(&mut self, now: u64, id: RunId, acts: &mut Vec<Act>) {
        if self.killed_at.is_none() {
            self.killed_at = Some(now);
            self.kill_again = now + KILL_AGAIN_MS;
            self.answer_by.get_or_insert(now + STUCK_MS);
            acts.push(Act::Kill(id));
        }
    }

    fn answer(&mut self, acts: &mut Vec<Act>) {
        let Some(caller) = self.caller.take() else { return };
        if let Some(why) = self.failure.take() {
            return acts.push(refuse(caller, RefusalCode::StartFailed, why));
        }
        let stuck = || Exit::Unknown("it was killed and has not ended yet".to_owned());
        let ran = Ran {
            exit: self.exit.clone().unwrap_or_else(stuck),
            timed_out: self.timed_out,
            ended_because: self.ended_because.take(),
        };
        acts.push(Act::Answer(caller, Reply::Ran(ran)));
    }

    fn next_wake(&self) -> Option<u64> {
        let again = self.killed_at.map(|_| self.kill_again);
        [self.kill_at, again, self.look_at, self.answer_by].into_iter().flatten().min()
    }
}

fn refuse(caller: Caller, code: RefusalCode, message: impl Into<String>) -> Act {
    Act::Answer(caller, Reply::Refused(Refusal::new(code, message)))
}

#[cfg(test)]
mod tests;
