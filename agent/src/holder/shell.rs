//! The loop: waits, tells the core what happened, does what the core says.
//!
//! One turn: everything that happened becomes inputs; trees are looked at with one view of `/proc`; the state is
//! written once if it changed; clients get what waits for them. Nothing but the state's write touches a disk (logs
//! have their own thread), so the holder's folder belongs on memory.

mod adopt;
mod notify;
pub(super) mod processes;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::time::{ClockId, clock_gettime};
use ostler_agent_core::holder::journal::Entry;
use ostler_agent_core::holder::machine::Caller;
use ostler_agent_core::holder::protocol::{
    Call, Done, Listing, ProcKey, Refusal, RefusalCode, Reply, Request, Rlimit, SetLimits, Spawn, Welcome,
};
use ostler_agent_core::holder::runs::Happened;
use ostler_agent_core::holder::{HolderCore, Input, Output};

use crate::resident::give_back;

use super::clients::{Care, Clients};
use super::launch::{self, Ground};
use super::live::Live;
use super::log_writer::LogWriter;
use super::notify::Ear;
use super::poll::{Interest, Poll, Source};
use super::runs::RunsShell;
use super::say::say;
use super::state_file::StateFile;
use super::sys;
use upgrade::Upgrade;

/// So long after something happened, what only that needed of the program is given back.
const REST_MS: u64 = 15_000;
/// Bytes read from a pipe at once: what a pipe holds.
pub(super) const READ_SIZE: usize = 64 << 10;

/// Everything the loop has.
pub(super) struct Shell {
    pub(super) core: HolderCore,
    pub(super) poll: Poll,
    pub(super) signals: SignalFd,
    pub(super) clients: Clients,
    pub(super) ground: Ground,
    pub(super) logs: LogWriter,
    pub(super) state_file: StateFile,
    pub(super) welcome: Welcome,
    pub(super) work: Work,
    pub(super) own: Own,
}

/// What the holder is itself.
#[derive(Debug)]
pub(super) struct Own {
    /// Locked for as long as this holder lives.
    pub(super) lock: std::fs::File,
    /// Where its program was when it started; after an upgrade of the package another one is there.
    pub(super) program: std::path::PathBuf,
    /// The words it was started with, after `holder`.
    pub(super) words: Vec<std::ffi::OsString>,
}

/// What the loop keeps of the incarnations, and of the turn it is in.
#[derive(Default)]
pub(super) struct Work {
    pub(super) live: BTreeMap<ProcKey, Live>,
    pub(super) runs: RunsShell,
    /// Notification sockets of those that are listened to.
    ears: BTreeMap<ProcKey, Ear>,
    slots: BTreeMap<u64, ProcKey>,
    pids: BTreeMap<i32, ProcKey>,
    next_slot: u64,
    inputs: VecDeque<Input>,
    checks: BTreeSet<ProcKey>,
    /// Trees to look at without a cgroup's help, not before [`Work::next_look`].
    looks_due: BTreeSet<ProcKey>,
    /// Since boot, in milliseconds.
    next_look: u64,
    kills: BTreeSet<ProcKey>,
    /// Adopted processes that ended and were not reaped by their new parent yet: until when that is awaited.
    unreaped: BTreeMap<ProcKey, u64>,
    buffer: Vec<u8>,
    upgrade: Option<Upgrade>,
    ends: bool,
}

impl Shell {
    /// Runs until SIGTERM. What runs goes on running.
    ///
    /// # Errors
    /// When the poll set itself fails, which nothing can go on without.
    pub(super) fn run(&mut self) -> std::io::Result<()> {
        let mut rest = Some(boottime_ms() + REST_MS);
        while !self.work.ends {
            let left = self.clients.with_more();
            let until = rest.map(|at| at.saturating_sub(boottime_ms()));
            let timeout =
                if left.is_empty() { [self.timeout(), until].into_iter().flatten().min() } else { Some(0) };
            for source in self.poll.wait(timeout)? {
                self.happened(source);
                rest = rest.or_else(|| Some(boottime_ms() + REST_MS));
            }
            if rest.take_if(|at| *at <= boottime_ms()).is_some() {
                give_back();
            }
            for client in left {
                self.happened(Source::Client(client));
            }
            self.settle();
        }
        self.runs_on(Happened::Closing);
        self.logs.flush();
        Ok(())
    }

    fn timeout(&self) -> Option<u64> {
        let unreaped = self.work.unreaped.values().min().copied();
        let upgrade = self.work.upgrade.as_ref().map(Upgrade::until);
        let runs = self.work.runs.next_wake();
        let look = Some(self.work.next_look).filter(|_| !self.work.looks_due.is_empty());
        let next = [self.core.next_wake(), unreaped, upgrade, runs, look].into_iter().flatten().min()?;
        Some(next.saturating_sub(boottime_ms()))
    }

    fn happened(&mut self, source: Source) {
        match source {
            Source::Signals => self.signalled(),
            Source::Listener => {
                while let Some(client) = self.clients.accept() {
                    let added = self.clients.fd(client).map(|fd| self.poll.add(fd, Source::Client(client)));
                    if !matches!(added, Some(Ok(()))) {
                        self.clients.forget(client);
                    }
                }
            }
            Source::Client(client) => {
                for call in self.clients.read(client) {
                    self.called(client, call);
                }
            }
            Source::Output(stream, slot) => self.drain(stream, slot),
            Source::Start(slot) => self.start_news(slot),
            Source::Adopted(slot) => self.adopted_ended(slot),
            Source::LogRoom => self.logs_have_room(),
            Source::Run(run) => self.run_news(run),
            Source::Ear(slot) => self.hear(slot),
        }
    }

    fn signalled(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGCHLD) => self.reap(),
                Some(Signal::SIGTERM | Signal::SIGINT) => self.work.ends = true,
                Some(Signal::SIGUSR2) => self.begin_upgrade(None, None),
                Some(_) | None => {}
            }
        }
    }

    fn called(&mut self, client: u64, call: Call) {
        let caller = Caller { client, call: call.id };
        if let Request::Hello(hello) = &call.request {
            if hello.subscribe {
                self.clients.subscribe(client);
            }
            self.clients.answer(client, call.id, Reply::Welcome(Box::new(self.welcome.clone())));
            return;
        }
        if let Request::Upgrade(upgrade) = &call.request {
            return self.begin_upgrade(upgrade.path.as_deref(), Some(caller));
        }
        match call.request {
            Request::Run(run) => self.run_asked(caller, run),
            Request::SignalRun(signal) => self.runs_on(Happened::Signalled(caller, signal)),
            request => self.drive(Input::Request { caller, request }),
        }
    }

    /// Brings the turn to an end: no input is left, the state is written, everyone was told.
    pub(super) fn settle(&mut self) {
        let now = boottime_ms();
        self.give_up_unreaped(now);
        self.give_up_upgrade(now);
        if self.core.next_wake().is_some_and(|at| at <= now) {
            self.drive(Input::Tick);
        }
        self.tick_runs();
        self.look_at_trees();
        while let Some(entry) = self.core.to_write(boottime_ms()) {
            let written = match entry {
                Entry::Snapshot(state) => self.state_file.replace(*state),
                Entry::Turn(_) if self.state_file.wants_all() => self.state_file.replace(self.core.state()),
                entry @ (Entry::Turn(_) | Entry::Unrecognised) => self.state_file.append(&entry),
            };
            match written {
                Ok(()) => self.drive(Input::StateWritten),
                Err(error) => {
                    say(&format!("cannot write its state: {error}"));
                    self.drive(Input::StateNotWritten { reason: error.to_string() });
                    break;
                }
            }
            self.look_at_trees();
        }
        for care in self.clients.flush() {
            match care {
                Care::WaitForRoom(client, wait) => {
                    let interest = if wait { Interest::ReadAndWrite } else { Interest::Read };
                    if let Some(fd) = self.clients.fd(client) {
                        // It is in the set; if not, it is about to be found broken.
                        drop(self.poll.change(fd, Source::Client(client), interest));
                    }
                }
                Care::Gone(client) => {
                    if let Some(fd) = self.clients.fd(client) {
                        drop(self.poll.remove(fd));
                    }
                    self.clients.forget(client);
                    self.runs_on(Happened::ClientGone(client));
                }
            }
        }
        self.upgrade_if_ready();
    }

    /// One input and everything that follows from it at once.
    pub(super) fn drive(&mut self, input: Input) {
        self.work.inputs.push_back(input);
        while let Some(input) = self.work.inputs.pop_front() {
            for output in self.core.on(boottime_ms(), input) {
                self.perform(output);
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Fork(spawn) => self.fork(&spawn),
            Output::Release(key) => self.release(key),
            Output::Abort(key) => self.abort(key),
            Output::Signal { key, signal, whole_tree, caller } => {
                let result = self.signal(key, signal, whole_tree);
                match caller {
                    Some(caller) => self.answer_result(caller, "send the signal", result),
                    // The holder's own signals ask to end, and a stopped process hears that only once it goes on.
                    None => drop(self.signal(key, rustix::process::Signal::CONT.as_raw(), whole_tree)),
                }
            }
            Output::KillTree(key) => {
                // First, so that they are told why.
                self.runs_on(Happened::IncarnationEnded(key));
                self.kill_main(key);
                self.work.kills.insert(key);
            }
            Output::CheckTree(key) => {
                self.work.checks.insert(key);
            }
            Output::SetRlimit { key, limits, caller } => {
                let result = self.set_rlimits(key, &limits);
                self.answer_result(caller, "set the limit", result);
            }
            Output::SetLimits { set, caller } => {
                let result = self.set_limits(&set);
                self.answer_result(caller, "change its limits", result);
            }
            Output::Forget(key) => self.forget(key),
            Output::Answer(caller, Reply::Listing(listing)) => {
                let listing = self.with_counters(listing);
                self.clients.answer(caller.client, caller.call, Reply::Listing(listing));
            }
            Output::Answer(caller, reply) => self.clients.answer(caller.client, caller.call, reply),
            Output::Publish(event) => self.clients.publish(event),
        }
    }

    fn fork(&mut self, spawn: &Spawn) {
        let key = spawn.key;
        let spawn = &self.with_address(spawn);
        let launched = LogWriter::serves(&spawn.log)
            .and_then(|()| self.open_ear(key, (spawn.listen, spawn.user.as_ref())))
            .and_then(|()| launch::launch(&self.ground, spawn));
        let taken = launched.and_then(|launched| self.take_in(spawn, launched));
        let input = match taken.and_then(|forked| self.listen(key).map(|()| forked)) {
            Ok(forked) => Input::Forked(Box::new(forked)),
            Err(reason) => {
                self.work.ears.remove(&key);
                Input::ForkFailed { key, reason }
            }
        };
        self.work.inputs.push_back(input);
    }

    fn answer_result(&mut self, caller: Caller, what: &str, result: Result<(), String>) {
        let reply = match result {
            Ok(()) => Reply::Done(Done {}),
            Err(why) => Reply::Refused(Refusal::new(RefusalCode::Failed, format!("{what}: {why}"))),
        };
        self.clients.answer(caller.client, caller.call, reply);
    }

    fn set_rlimits(&mut self, key: ProcKey, limits: &[Rlimit]) -> Result<(), String> {
        let live = self.work.live.get(&key).filter(|live| !live.ended).ok_or("it has ended")?;
        let root = live.root;
        for limit in limits {
            let number = launch::resource(&limit.resource)
                .ok_or_else(|| format!("no limit is named {:?}", limit.resource))?;
            // A child's number is its own until it is reaped, which happens in this loop; another's is checked.
            if super::proc_tree::stat(root.pid).is_none_or(|stat| stat.start_time != root.start_time) {
                return Err("it has ended".to_owned());
            }
            sys::set_rlimit_of(root.pid, number, limit.soft.min(limit.hard), limit.hard)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What this host cannot enforce was said in the welcome, and is no reason not to do the rest.
    fn set_limits(&mut self, set: &SetLimits) -> Result<(), String> {
        let live = self.work.live.get(&set.key).filter(|live| !live.ended).ok_or("it has ended")?;
        if let (Some(cgroups), Some(path)) = (&self.ground.cgroups, &live.cgroup) {
            cgroups.change(path, &set.limits)?;
        }
        if let (Some(log), Some(live)) = (&set.log, self.work.live.get_mut(&set.key)) {
            live.target = live.target.resized(log);
            self.logs.change(live.slot, &live.target);
        }
        self.set_rlimits(set.key, &set.rlimits)
    }

    fn with_counters(&self, mut listing: Listing) -> Listing {
        for process in &mut listing.processes {
            if let Some(live) = self.work.live.get(&process.key) {
                process.log = live.counters;
                process.log.lost = self.logs.lost(live.slot);
            }
        }
        listing
    }
}

/// Milliseconds since boot, suspended time counted.
pub(super) fn boottime_ms() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(std::time::Duration::ZERO, std::time::Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
