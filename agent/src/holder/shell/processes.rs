//! What the loop does with incarnations: takes them in, lets them go on, drains them, sees them end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::sys::wait::WaitStatus;
use ostler_agent_core::holder::Input;
use ostler_agent_core::holder::lines::Stream;
use ostler_agent_core::holder::machine::Forked;
use ostler_agent_core::holder::protocol::{Exit, LogCounters, ProcKey, Spawn};
use ostler_agent_core::holder::runs::Happened;
use ostler_schemas::v1::log_line::stamp;
use rustix::process::{Signal, WaitOptions};

use super::super::launch::{self, Launched, Told};
use super::super::live::{Live, Outlet, Start, StartNews};
use super::super::log_writer::{LogTarget, unix_us};
use super::super::poll::{Interest, Source};
use super::super::proc_tree::{self, Root, Snapshot};
use super::super::{cgroup, sys};
use super::{Shell, boottime_ms, unix_ms};

/// How long the exit of an adopted process may wait for its new parent to reap it before it is given up.
const REAP_WAIT_MS: u64 = 1_000;

/// How many times longer than a look at all processes of the host the next one waits: looks then take a fifth of a core
/// at most, whatever the host runs.
const LOOKS_APART: u64 = 4;

/// Why an exit cannot be known.
const NOT_TOLD: &str = "ended after its holder was replaced, and this kernel does not tell the code";
const NOT_REAPED: &str = "ended after its holder was replaced, and was not reaped by its new parent";

impl Shell {
    /// Makes the handles of a child that was forked.
    pub(super) fn take_in(&mut self, spawn: &Spawn, launched: Launched) -> Result<Forked, String> {
        let Launched { pid, start_time, pidfd, cgroup, unenforced, stdout, stderr, go, report } = launched;
        let key = spawn.key;
        let slot = self.new_slot(key);
        let fifos = launch::fifo_paths(&self.ground.fifo_dir, key);
        let names = fifos.each_ref().map(|path| path.display().to_string());
        let live = Live {
            root: Root { key, run: None, pid, start_time },
            slot,
            pidfd: Some(pidfd),
            cgroup: cgroup.clone(),
            fifos,
            stdout: Outlet::new(stdout, Stream::Stdout),
            stderr: Outlet::new(stderr, Stream::Stderr),
            target: LogTarget::new(&spawn.log, (&spawn.namespace, &spawn.name), key),
            counters: LogCounters::default(),
            start: Some(Start { go: Some(go), report, said: Vec::new(), told: Told::of(spawn) }),
            ended: false,
        };
        self.work.pids.insert(pid, key);
        self.logs.begin(slot, &live.target);
        self.work.live.insert(key, live);
        if let Err(error) = self.watch(key) {
            self.forget(key);
            return Err(format!("watch its pipes: {error}"));
        }
        let [stdout, stderr] = names;
        let cgroup = cgroup.map(|path| path.display().to_string());
        Ok(Forked { key, pid, start_time, started_at: unix_ms(), cgroup, stdout, stderr, unenforced })
    }

    pub(super) fn new_slot(&mut self, key: ProcKey) -> u64 {
        self.work.next_slot += 1;
        self.work.slots.insert(self.work.next_slot, key);
        self.work.next_slot
    }

    pub(super) fn watch(&self, key: ProcKey) -> std::io::Result<()> {
        let Some(live) = self.work.live.get(&key) else { return Ok(()) };
        if let Some(fifo) = &live.stdout.fifo {
            self.poll.add(fifo, Source::Output(Stream::Stdout, live.slot))?;
        }
        if let Some(fifo) = &live.stderr.fifo {
            self.poll.add(fifo, Source::Output(Stream::Stderr, live.slot))?;
        }
        if let Some(start) = &live.start {
            self.poll.add(&start.report, Source::Start(live.slot))?;
        }
        Ok(())
    }

    pub(super) fn release(&mut self, key: ProcKey) {
        let start = self.work.live.get_mut(&key).and_then(|live| live.start.as_mut());
        if let Some(go) = start.and_then(|start| start.go.take()) {
            // A child that was killed meanwhile cannot be let go; its end is seen elsewhere.
            drop(File::from(go).write_all(b"1"));
        }
    }

    pub(super) fn abort(&mut self, key: ProcKey) {
        if let Some(start) = self.work.live.get_mut(&key).and_then(|live| live.start.as_mut()) {
            start.go = None;
        }
    }

    pub(super) fn start_news(&mut self, slot: u64) {
        let Some(key) = self.work.slots.get(&slot).copied() else { return };
        let Some(live) = self.work.live.get_mut(&key) else { return };
        let Some(start) = live.start.as_mut() else { return };
        let news = start.news();
        if news == StartNews::Wait {
            return;
        }
        if let Some(start) = live.start.take() {
            drop(self.poll.remove(&start.report));
            match news {
                StartNews::Runs => self.drive(Input::ProgramRuns(key)),
                StartNews::Failed(step, errno) => {
                    let reason = launch::describe(step, errno, &start.told);
                    self.drive(Input::StartFailed { key, reason });
                }
                // How it died comes with its exit.
                StartNews::Died | StartNews::Wait => {}
            }
        }
    }

    pub(super) fn drain(&mut self, stream: Stream, slot: u64) {
        let Some(live) = self.work.slots.get(&slot).and_then(|key| self.work.live.get_mut(key)) else {
            return;
        };
        live.drain(stream, &mut self.work.buffer, (&stamp(unix_us()), &self.logs));
        for (outlet, source) in live.outlets() {
            if let Some(fifo) = outlet.fifo.as_ref().filter(|_| outlet.waits) {
                // It is in the set; the process waits once its pipe is full.
                drop(self.poll.change(fifo, source, Interest::EndOnly));
            }
        }
    }

    /// Processes that waited for their logs go on.
    pub(super) fn logs_have_room(&mut self) {
        for slot in self.logs.with_room() {
            let live = self.work.slots.get(&slot).and_then(|key| self.work.live.get_mut(key));
            for (outlet, source) in live.into_iter().flat_map(Live::outlets) {
                if let Some(fifo) = outlet.fifo.as_ref().filter(|_| outlet.waits) {
                    drop(self.poll.change(fifo, source, Interest::Read));
                }
                outlet.waits = false;
            }
        }
    }

    /// Takes the ends of all children: main processes, and orphans of trees, whose parent the holder has become.
    pub(super) fn reap(&mut self) {
        let mut orphans = false;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if self.upgrade_checked(pid, status.as_raw()) {
                continue;
            }
            if self.run_reaped(pid, status.as_raw()) {
                continue;
            }
            let key = self.work.pids.remove(&pid);
            let live = key.and_then(|key| self.work.live.get(&key)).filter(|live| live.root.pid == pid);
            let Some(live) = live else {
                orphans = true;
                continue;
            };
            let (key, slot) = (live.key(), live.slot);
            self.start_news(slot);
            self.main_ended(key, exit_of(status.as_raw()));
        }
        if orphans {
            // Perhaps the last of a tree: no need to wait for the next look.
            self.work.checks.extend(self.work.live.values().filter(|live| live.ended).map(Live::key));
        }
    }

    pub(super) fn main_ended(&mut self, key: ProcKey, exit: Exit) {
        let Some(live) = self.work.live.get_mut(&key) else { return };
        if std::mem::replace(&mut live.ended, true) {
            return;
        }
        if live.start.is_some() && exit == Exit::Signal(Signal::KILL.as_raw()) {
            // Perhaps by a kernel that kills at birth below a cgroup that was ever killed; a fork is always safe.
            self.ground.abilities.clone3 = false;
        }
        live.drain_all(&mut self.work.buffer, (&stamp(unix_us()), &self.logs));
        if let Some(pidfd) = live.pidfd.take() {
            // Children are not in the set, only adopted ones.
            drop(self.poll.remove(&pidfd));
        }
        self.work.unreaped.remove(&key);
        let oom = live.cgroup.as_deref().is_some_and(|path| cgroup::oom_kills(path) > 0);
        self.drive(Input::MainEnded { key, exit, oom, at: unix_ms() });
        self.runs_on(Happened::IncarnationEnded(key));
    }

    /// The main process of a former holder has ended: whoever is its parent now reaps it, and then some kernels
    /// tell how it ended.
    pub(super) fn adopted_ended(&mut self, slot: u64) {
        let Some(key) = self.work.slots.get(&slot).copied() else { return };
        let Some(live) = self.work.live.get(&key) else { return };
        let Some(pidfd) = live.pidfd.as_ref() else { return };
        let known = match sys::pidfd_wait_status(pidfd.as_fd()) {
            Ok(Some(status)) => Ok(Some(status)),
            // Not reaped yet, or a kernel that does not tell: the corpse does, while it lies there.
            Ok(None) => Ok(corpse_status(live.root)),
            Err(error) => corpse_status(live.root).map(Some).ok_or(error),
        };
        match known {
            Ok(Some(status)) => self.main_ended(key, exit_of(status)),
            Ok(None) if !self.work.unreaped.contains_key(&key) => {
                drop(self.poll.change(pidfd, Source::Adopted(slot), Interest::EndOnly));
                self.work.unreaped.insert(key, boottime_ms() + REAP_WAIT_MS);
            }
            Ok(None) => {}
            Err(_) => self.main_ended(key, Exit::Unknown(NOT_TOLD.to_owned())),
        }
    }

    pub(super) fn give_up_unreaped(&mut self, now: u64) {
        let late: Vec<ProcKey> =
            self.work.unreaped.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
        for key in late {
            self.main_ended(key, Exit::Unknown(NOT_REAPED.to_owned()));
        }
    }

    pub(super) fn signal(&self, key: ProcKey, signal: i32, whole_tree: bool) -> Result<(), String> {
        let live = self.work.live.get(&key).ok_or("it is gone")?;
        if whole_tree {
            match &live.cgroup {
                Some(path) => cgroup::signal(path, signal),
                None => proc_tree::signal(live.root, &self.ground.dir, signal),
            }
            return Ok(());
        }
        let pidfd = live.pidfd.as_ref().filter(|_| !live.ended).ok_or("it has ended")?;
        sys::pidfd_signal(pidfd.as_fd(), signal).map_err(|error| error.to_string())
    }

    pub(super) fn kill_main(&self, key: ProcKey) {
        let live = self.work.live.get(&key).filter(|live| !live.ended);
        if let Some(pidfd) = live.and_then(|live| live.pidfd.as_ref()) {
            // One that ended meanwhile needs no signal.
            drop(sys::pidfd_signal(pidfd.as_fd(), Signal::KILL.as_raw()));
        }
    }

    /// Kills and looks at trees, all that the turn asked for, until nothing is asked.
    pub(super) fn look_at_trees(&mut self) {
        loop {
            let kills = std::mem::take(&mut self.work.kills);
            let mut checks = std::mem::take(&mut self.work.checks);
            if boottime_ms() >= self.work.next_look {
                checks.append(&mut self.work.looks_due);
            }
            if kills.is_empty() && checks.is_empty() {
                return;
            }
            let mut without_cgroup = Vec::new();
            for live in kills.iter().filter_map(|key| self.work.live.get(key)) {
                match &live.cgroup {
                    Some(path) => cgroup::kill(path),
                    None => without_cgroup.push(live.root),
                }
            }
            if !without_cgroup.is_empty() {
                proc_tree::kill(&without_cgroup, &self.ground.dir);
            }
            let (in_cgroups, without): (BTreeSet<_>, BTreeSet<_>) = checks
                .into_iter()
                .partition(|key| self.work.live.get(key).is_none_or(|live| live.cgroup.is_some()));
            for key in in_cgroups {
                let path = self.work.live.get(&key).and_then(|live| live.cgroup.as_deref());
                let Some(empty) = path.map(cgroup::is_empty) else { continue };
                self.work.inputs.push_back(Input::TreeChecked { key, empty });
            }
            self.look_at_host(without);
            if let Some(first) = self.work.inputs.pop_front() {
                self.drive(first);
            }
        }
    }

    /// Looks at trees that no cgroup holds together, which takes a look at every process of the host. When many end, one
    /// after the other, the looks wait for each other: most of the time goes to something else, and each look then serves
    /// all that have ended meanwhile.
    fn look_at_host(&mut self, keys: BTreeSet<ProcKey>) {
        if keys.is_empty() {
            return;
        }
        if boottime_ms() < self.work.next_look {
            self.work.looks_due.extend(keys);
            return;
        }
        let begin = Instant::now();
        let snapshot = Snapshot::take(&self.ground.dir);
        for key in keys.into_iter().chain(std::mem::take(&mut self.work.looks_due)) {
            let Some(live) = self.work.live.get(&key) else { continue };
            let empty = snapshot.members(live.root).is_empty();
            self.work.inputs.push_back(Input::TreeChecked { key, empty });
        }
        let took = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.work.next_look = boottime_ms().saturating_add(took.saturating_mul(LOOKS_APART));
    }

    /// Nothing of it is left: the rest of its output, then its pipes and its cgroup go.
    pub(super) fn forget(&mut self, key: ProcKey) {
        let Some(mut live) = self.work.live.remove(&key) else { return };
        let now = stamp(unix_us());
        live.drain_all(&mut self.work.buffer, (&now, &self.logs));
        live.finish(&now, &self.logs);
        self.close_ear(key);
        self.work.slots.remove(&live.slot);
        self.work.unreaped.remove(&key);
        for fifo in [&live.stdout.fifo, &live.stderr.fifo].into_iter().flatten() {
            drop(self.poll.remove(fifo));
        }
        if let Some(start) = &live.start {
            drop(self.poll.remove(&start.report));
        }
        for path in &live.fifos {
            drop(std::fs::remove_file(path));
        }
        if let Some(path) = &live.cgroup {
            cgroup::remove(path);
        }
    }
}

/// The wait status of a main process that has ended and was not reaped.
fn corpse_status(root: Root) -> Option<i32> {
    proc_tree::stat(root.pid).filter(|stat| stat.start_time == root.start_time)?.wait_status
}

/// How a wait status reads.
pub(in crate::holder) fn exit_of(status: i32) -> Exit {
    let pid = nix::unistd::Pid::from_raw(1);
    match WaitStatus::from_raw(pid, status) {
        Ok(WaitStatus::Exited(_, code)) => Exit::Code(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(signal as i32),
        // Real-time signals have no name there: the low seven bits are the number.
        Ok(_) | Err(_) if status & 0x7f != 0 => Exit::Signal(status & 0x7f),
        Ok(_) | Err(_) => Exit::Code((status >> 8) & 0xff),
    }
}
