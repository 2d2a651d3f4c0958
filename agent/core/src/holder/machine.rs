//! Every decision of the holder, as a machine: inputs in, outputs out, time as an argument.
//!
//! Guarantees, each held by a property test in `machine/tests.rs`:
//! * Nothing of a program runs before its record is in the written state: a fork waits for [`Output::Release`].
//! * Each incarnation that was started has exactly one exit, kept until it is acknowledged, over any number of
//!   holders. An exit, an acknowledgement and a stop are told to clients only after the state was written.
//! * Once a stop was accepted the tree is killed at its deadline at the latest, whatever clients do.
//! * Nothing is signalled after it was forgotten, and a main process never after its end.
//!
//! If the state cannot be written, nothing new is started, while exits and stops go on in memory: losing those
//! would hurt more than a holder that cannot be replaced for a while.
//!
//! Time is milliseconds of CLOCK_BOOTTIME, so that deadlines survive a new holder and count suspended time.

mod notify;
mod requests;
#[cfg(test)]
mod tests;
mod unwritten;

use std::collections::{BTreeMap, BTreeSet};

use self::notify::Watch;
use super::journal::{Entry, Turn};
use super::notify::Word;
use super::protocol::{
    Event, Exit, ExitRecord, KillMode, Phase, ProcKey, Refusal, RefusalCode, Reply, Request, Rlimit,
    SetLimits, Spawn, Spawned, Started,
};
use super::state::{HolderState, ProcessRecord, STATE_FORMAT};
use unwritten::Unwritten;

/// SIGKILL, the same number on every Linux architecture.
const SIGKILL: i32 = 9;

/// How soon a tree whose main process ended is looked at again. Killing one takes about a millisecond.
const CHECK_FIRST_MS: u64 = 2;

/// The longest pause between two looks: leftovers that are allowed to stay must not cost wakes.
const CHECK_MAX_MS: u64 = 5_000;

/// How soon a failed write of the state is tried again when nobody waits for it.
const WRITE_RETRY_MS: u64 = 1_000;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The connection.
    pub client: u64,
    /// The id of the call.
    pub call: u64,
}

/// What the shell found when it forked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forked {
    /// Which.
    pub key: ProcKey,
    /// The child.
    pub pid: i32,
    /// Its start, in clock ticks since boot.
    pub start_time: u64,
    /// Now, in milliseconds since 1970.
    pub started_at: u64,
    /// Its cgroup, if it has one of its own.
    pub cgroup: Option<String>,
    /// The FIFO of its standard output.
    pub stdout: String,
    /// The FIFO of its standard error.
    pub stderr: String,
    /// Limits that this host cannot enforce.
    pub unenforced: Vec<String>,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A client asks (everything but hello, which the shell answers).
    Request {
        /// Who waits for the answer.
        caller: Caller,
        /// What is asked.
        request: Request,
    },
    /// A fork asked for by [`Output::Fork`] was made; the child waits.
    Forked(Box<Forked>),
    /// It was not made.
    ForkFailed {
        /// Which.
        key: ProcKey,
        /// The step and the system's words.
        reason: String,
    },
    /// The child has become the program.
    ProgramRuns(ProcKey),
    /// The child could not become the program, and has ended.
    StartFailed {
        /// Which.
        key: ProcKey,
        /// The step and the system's words.
        reason: String,
    },
    /// The main process has ended.
    MainEnded {
        /// Which.
        key: ProcKey,
        /// How.
        exit: Exit,
        /// Whether the kernel killed something of its tree for want of memory.
        oom: bool,
        /// Now, in milliseconds since 1970.
        at: u64,
    },
    /// The answer to [`Output::CheckTree`].
    TreeChecked {
        /// Which.
        key: ProcKey,
        /// Whether nothing of it is left.
        empty: bool,
    },
    /// What [`HolderCore::to_write`] gave is safe.
    StateWritten,
    /// It is not.
    StateNotWritten {
        /// The system's words.
        reason: String,
    },
    /// It said something of itself.
    Said {
        /// Which.
        key: ProcKey,
        /// Now, in milliseconds since 1970.
        at: u64,
        /// What, in order.
        words: Vec<Word>,
    },
    /// Time has passed.
    Tick,
}

/// What the shell is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Make the child and let it wait. Answered at once by `Forked` or `ForkFailed`.
    Fork(Box<Spawn>),
    /// Let the child become the program.
    Release(ProcKey),
    /// Let the child end without becoming the program.
    Abort(ProcKey),
    /// Send a signal; tell the caller, if any, what came of it.
    Signal {
        /// To which.
        key: ProcKey,
        /// The signal's number.
        signal: i32,
        /// To its whole tree.
        whole_tree: bool,
        /// Who waits.
        caller: Option<Caller>,
    },
    /// SIGKILL the whole tree.
    KillTree(ProcKey),
    /// Look whether anything of the tree is left. Answered at once by `TreeChecked`.
    CheckTree(ProcKey),
    /// Change resource limits and tell the caller what came of it.
    SetRlimit {
        /// Of which.
        key: ProcKey,
        /// The new limits.
        limits: Vec<Rlimit>,
        /// Who waits.
        caller: Caller,
    },
    /// Change what can be changed while it runs, and tell the caller what came of it.
    SetLimits {
        /// What, and of which.
        set: Box<SetLimits>,
        /// Who waits.
        caller: Caller,
    },
    /// Finish the log, remove FIFOs and cgroup: nothing of it is left.
    Forget(ProcKey),
    /// Answer a call.
    Answer(Caller, Reply),
    /// Tell every subscriber.
    Publish(Event),
}

/// One incarnation.
#[derive(Debug)]
struct Held {
    record: ProcessRecord,
    /// Who waits for the program to run.
    caller: Option<Caller>,
    unenforced: Vec<String>,
    adopted: bool,
    /// The kill of the present deadline was done; what remains is looking whether it worked.
    killed: bool,
    check_at: Option<u64>,
    check_delay: u64,
    watch: Watch,
    /// Its entry among the timers.
    scheduled: Option<u64>,
}

impl Held {
    fn new(record: ProcessRecord, adopted: bool) -> Self {
        Self {
            record,
            caller: None,
            unenforced: Vec::new(),
            adopted,
            killed: false,
            check_at: None,
            check_delay: CHECK_FIRST_MS,
            watch: Watch::default(),
            scheduled: None,
        }
    }

    /// Main process still there, as far as is known.
    fn main_alive(&self) -> bool {
        match self.record.phase {
            Phase::Starting | Phase::Running | Phase::Stopping => true,
            Phase::Leftovers => false,
        }
    }

    fn wake(&self) -> Option<u64> {
        let kill = self.record.kill_at.filter(|_| !self.killed);
        [kill, self.check_at, self.watch_due(), self.watch.tell_at].into_iter().flatten().min()
    }
}

/// The machine.
#[derive(Debug)]
pub struct HolderCore {
    boot_id: String,
    next_seq: u64,
    held: BTreeMap<ProcKey, Held>,
    forking: BTreeMap<ProcKey, (Caller, ProcessRecord)>,
    exits: BTreeMap<u64, ExitRecord>,
    timers: BTreeSet<(u64, ProcKey)>,
    unwritten: Unwritten,
    /// What waits until the state is written.
    after_write: Vec<Output>,
    retry_at: Option<u64>,
    closing: bool,
    closers: Vec<Caller>,
    /// Whether what was taken over is watched already: that takes the time of the first input.
    awake: bool,
}

impl HolderCore {
    /// Takes over what a former holder wrote. `at` is now, in milliseconds since 1970.
    ///
    /// The shell then looks at each of [`Self::adopted`] and says `MainEnded` of those that are gone.
    #[must_use]
    pub fn restore(state: HolderState, boot_id: &str, at: u64) -> Self {
        let same_boot = state.boot_id == boot_id;
        let mut core = Self {
            boot_id: boot_id.to_owned(),
            next_seq: state.next_seq.max(1),
            held: BTreeMap::new(),
            forking: BTreeMap::new(),
            exits: state.exits.into_iter().map(|exit| (exit.seq, exit)).collect(),
            timers: BTreeSet::new(),
            unwritten: Unwritten::everything(),
            after_write: Vec::new(),
            retry_at: None,
            closing: false,
            closers: Vec::new(),
            awake: false,
        };
        for record in state.processes {
            let key = record.key;
            if same_boot {
                let mut held = Held::new(record, true);
                if !held.main_alive() {
                    held.check_at = Some(0);
                }
                core.held.insert(key, held);
                core.reschedule(key);
            } else if record.phase != Phase::Leftovers {
                let exit = Exit::Unknown("the host was restarted".to_owned());
                core.record_exit(key, exit, false, at);
            }
        }
        core.after_write.clear();
        core
    }

    /// The incarnations taken over whose main process may still run.
    pub fn adopted(&self) -> impl Iterator<Item = &ProcessRecord> {
        self.held.values().map(|held| &held.record)
    }

    /// Whether everything was told to stop, and no new start is taken.
    #[must_use]
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Takes in what happened and says what to do.
    pub fn on(&mut self, now: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.wake_up(now);
        match input {
            Input::Request { caller, request } => self.request(now, caller, request, &mut out),
            Input::Forked(forked) => self.forked(*forked),
            Input::ForkFailed { key, reason } => {
                if let Some((caller, _)) = self.forking.remove(&key) {
                    out.push(refuse(caller, RefusalCode::StartFailed, reason));
                    self.answer_closers(&mut out);
                }
            }
            Input::ProgramRuns(key) => {
                self.program_runs(key, &mut out);
                self.watch_from(now, key);
            }
            Input::Said { key, at, words } => self.said((now, at), key, words, &mut out),
            Input::StartFailed { key, reason } => self.start_failed(key, &reason, &mut out),
            Input::MainEnded { key, exit, oom, at } => self.main_ended(key, exit, (oom, at), &mut out),
            Input::TreeChecked { key, empty } => self.tree_checked(now, key, empty, &mut out),
            Input::StateWritten => {
                self.retry_at = None;
                out.append(&mut self.after_write);
            }
            Input::StateNotWritten { reason } => self.state_not_written(now, &reason, &mut out),
            Input::Tick => {}
        }
        self.run_timers(now, &mut out);
        out
    }

    /// When to send the next `Tick`.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let retry = self.retry_at.filter(|_| !self.unwritten.is_empty());
        [timer, retry].into_iter().flatten().min()
    }

    /// What has to be written now, if anything; the shell answers with `StateWritten` or `StateNotWritten`. Asked
    /// once per turn of the shell's loop, so that one write serves everything that came in together. A shell that
    /// would rather write everything takes [`Self::state`] instead, which contains this.
    pub fn to_write(&mut self, now: u64) -> Option<Entry> {
        let due = self.retry_at.is_none_or(|at| at <= now) || !self.after_write.is_empty();
        if self.unwritten.is_empty() || !due {
            return None;
        }
        let changes = self.unwritten.take(&self.held, &self.exits);
        Some(match changes {
            Some(changes) => {
                let (boot_id, next_seq) = (self.boot_id.clone(), self.next_seq);
                Entry::Turn(Turn { boot_id, next_seq, changes })
            }
            None => Entry::Snapshot(Box::new(self.state())),
        })
    }

    /// The whole state.
    #[must_use]
    pub fn state(&self) -> HolderState {
        HolderState {
            format: STATE_FORMAT,
            boot_id: self.boot_id.clone(),
            next_seq: self.next_seq,
            processes: self.held.values().map(|held| held.record.clone()).collect(),
            exits: self.exits.values().cloned().collect(),
        }
    }

    fn forked(&mut self, forked: Forked) {
        let Forked { key, pid, start_time, started_at, cgroup, stdout, stderr, unenforced } = forked;
        let Some((caller, record)) = self.forking.remove(&key) else { return };
        let record = ProcessRecord { pid, start_time, started_at, cgroup, stdout, stderr, ..record };
        let mut held = Held::new(record, false);
        held.caller = Some(caller);
        held.unenforced = unenforced;
        self.held.insert(key, held);
        self.unwritten.touch(key);
        self.after_write.push(Output::Release(key));
        if self.closing {
            // The fork was under way when everything was told to stop.
            self.held.entry(key).and_modify(|held| held.record.kill_at = Some(0));
            self.reschedule(key);
        }
    }

    fn program_runs(&mut self, key: ProcKey, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(&key) else { return };
        let record = &mut held.record;
        if record.phase == Phase::Starting {
            record.phase = Phase::Running;
        }
        let Some(caller) = held.caller.take() else { return };
        let (pid, start_time) = (record.pid, record.start_time);
        let spawned = Spawned {
            key,
            pid,
            start_time,
            log_path: record.log.current(&record.namespace, &record.name),
            unenforced: std::mem::take(&mut held.unenforced),
        };
        out.push(Output::Answer(caller, Reply::Spawned(spawned)));
        out.push(Output::Publish(Event::Started(Started { key, pid, start_time })));
    }

    fn start_failed(&mut self, key: ProcKey, reason: &str, out: &mut Vec<Output>) {
        let Some(held) = self.let_go(key) else { return };
        self.after_write.retain(|output| *output != Output::Release(key));
        out.push(Output::Forget(key));
        if let Some(caller) = held.caller {
            out.push(refuse(caller, RefusalCode::StartFailed, reason));
        }
        self.answer_closers(out);
    }

    fn main_ended(&mut self, key: ProcKey, exit: Exit, (oom, at): (bool, u64), out: &mut Vec<Output>) {
        let Some(held) = self.held.get(&key).filter(|held| held.main_alive()) else { return };
        if held.caller.is_some() {
            // Nothing of the program ran, so this is a start that failed and not an exit.
            return self.start_failed(key, &format!("it ended before the program ran: {exit}"), out);
        }
        self.record_exit(key, exit, oom, at);
        if let Some(held) = self.held.get_mut(&key) {
            held.record.phase = Phase::Leftovers;
            held.check_delay = CHECK_FIRST_MS;
            self.unwritten.touch(key);
        }
        out.push(Output::CheckTree(key));
    }

    fn record_exit(&mut self, key: ProcKey, exit: Exit, oom: bool, at: u64) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.unwritten.touch_exit(seq);
        let watchdog = self.held.get(&key).is_some_and(|held| held.record.unwell);
        let record = ExitRecord { key, seq, exit, oom, watchdog, at };
        self.after_write.push(Output::Publish(Event::Exited(record.clone())));
        self.exits.insert(seq, record);
    }

    fn tree_checked(&mut self, now: u64, key: ProcKey, empty: bool, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(&key).filter(|held| !held.main_alive()) else { return };
        if empty {
            self.let_go(key);
            out.push(Output::Forget(key));
            self.after_write.push(Output::Publish(Event::TreeEmpty(key)));
            self.answer_closers(out);
            return;
        }
        let record = &mut held.record;
        match record.kill_mode {
            KillMode::Mixed => out.push(Output::KillTree(key)),
            KillMode::ControlGroup => {
                if record.kill_at.is_some_and(|at| at <= now) {
                    out.push(Output::KillTree(key));
                } else if record.stop_sent.is_none() {
                    let signal = record.stop_signal;
                    record.stop_sent = Some(signal);
                    record.kill_at = Some(now.saturating_add(record.grace_ms));
                    self.unwritten.touch(key);
                    out.push(Output::Signal { key, signal, whole_tree: true, caller: None });
                }
            }
            KillMode::Process => {}
        }
        held.check_at = Some(now.saturating_add(held.check_delay));
        held.check_delay = (held.check_delay * 2).min(CHECK_MAX_MS);
        self.reschedule(key);
    }

    fn state_not_written(&mut self, now: u64, reason: &str, out: &mut Vec<Output>) {
        // A part of it may have been written: only a whole new file is sure to be right.
        self.unwritten = Unwritten::everything();
        self.retry_at = Some(now.saturating_add(WRITE_RETRY_MS));
        for output in std::mem::take(&mut self.after_write) {
            if let Output::Release(key) = output {
                out.push(Output::Abort(key));
                self.start_failed(key, &format!("the holder's state could not be written: {reason}"), out);
            } else {
                out.push(output);
            }
        }
    }

    fn run_timers(&mut self, now: u64, out: &mut Vec<Output>) {
        while let Some((at, key)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, key));
            self.expire(now, key, out);
            self.reschedule(key);
        }
    }

    fn expire(&mut self, now: u64, key: ProcKey, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(&key) else { return };
        if held.record.kill_at.is_some_and(|at| at <= now) && !held.killed {
            held.killed = true;
            let main_alive = held.main_alive();
            match held.record.kill_mode {
                KillMode::Mixed | KillMode::ControlGroup => out.push(Output::KillTree(key)),
                KillMode::Process if main_alive => {
                    out.push(Output::Signal { key, signal: SIGKILL, whole_tree: false, caller: None });
                }
                KillMode::Process => {}
            }
            if !main_alive {
                held.check_delay = CHECK_FIRST_MS;
                held.check_at = Some(now);
            }
        }
        if held.check_at.is_some_and(|at| at <= now) {
            held.check_at = None;
            out.push(Output::CheckTree(key));
        }
        self.watch_expires(now, key, out);
    }

    fn reschedule(&mut self, key: ProcKey) {
        let Some(held) = self.held.get_mut(&key) else { return };
        let wake = held.wake();
        let before = std::mem::replace(&mut held.scheduled, wake);
        if let Some(at) = before {
            self.timers.remove(&(at, key));
        }
        self.timers.extend(wake.map(|at| (at, key)));
    }

    fn let_go(&mut self, key: ProcKey) -> Option<Held> {
        let held = self.held.remove(&key)?;
        self.unwritten.touch(key);
        if let Some(at) = held.scheduled {
            self.timers.remove(&(at, key));
        }
        Some(held)
    }

    fn answer_closers(&mut self, out: &mut Vec<Output>) {
        if self.closing && self.held.is_empty() && self.forking.is_empty() {
            for caller in std::mem::take(&mut self.closers) {
                out.push(done(caller));
            }
        }
    }
}

fn done(caller: Caller) -> Output {
    Output::Answer(caller, Reply::Done(super::protocol::Done {}))
}

fn refuse(caller: Caller, code: RefusalCode, message: impl Into<String>) -> Output {
    Output::Answer(caller, Reply::Refused(Refusal::new(code, message)))
}
