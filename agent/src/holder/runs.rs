//! Runs: commands beside processes, each on behalf of one connection (`ostler_agent_core::holder::runs`).
//!
//! The client made the pipes or the terminal; its descriptors come with the request and go straight to the child. The
//! holder keeps a pidfd and a cgroup of each run, for as long as anything of it is left.
//!
//! A run dies with its holder: its first process by the parent's death, the rest when the next holder sweeps.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use ostler_agent_core::holder::machine::Caller;
use ostler_agent_core::holder::protocol::{Refusal, RefusalCode, Reply};
use ostler_agent_core::holder::runs::protocol::{RUN_PIPES, Run};
use ostler_agent_core::holder::runs::{Act, Happened, RunId, Runs};
use rustix::process::Signal;

use super::cgroup::{self, Cgroups};
use super::launch::{self, Child, RunPlace, Told};
use super::live::{Start, StartNews};
use super::poll::Source;
use super::proc_tree::{self, Root, Snapshot};
use super::shell::processes::exit_of;
use super::shell::{Shell, boottime_ms};
use super::sys;

/// How the name of a run's cgroup begins, below its incarnation's.
const RUN: &str = "run-";

/// What stands between the key and the number in the name of a run's cgroup that is below no incarnation's.
const RUN_OF: &str = ".run-";

/// The shell's part of the runs.
#[derive(Debug, Default)]
pub(super) struct RunsShell {
    core: Runs,
    live: BTreeMap<RunId, LiveRun>,
    pids: BTreeMap<i32, RunId>,
    /// The descriptors that came with calls that are being looked at.
    ends: BTreeMap<(u64, u64), Vec<OwnedFd>>,
}

#[derive(Debug)]
struct LiveRun {
    root: Root,
    pidfd: OwnedFd,
    cgroup: Option<PathBuf>,
    /// Until the child is the program.
    start: Option<Start>,
    /// The first process was seen to end.
    ended: bool,
}

impl RunsShell {
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.core.next_wake()
    }
}

impl Shell {
    /// A client asks for a run.
    pub(super) fn run_asked(&mut self, caller: Caller, run: Box<Run>) {
        let wanted = if run.terminal { 1 } else { RUN_PIPES };
        match self.clients.take_descriptors(caller.client, wanted) {
            Some(ends) => {
                self.work.runs.ends.insert((caller.client, caller.call), ends);
                self.runs_on(Happened::Asked(caller, run));
            }
            None => {
                let why = format!("a run comes with {wanted} descriptors");
                let refusal = Refusal::new(RefusalCode::Invalid, why);
                self.clients.answer(caller.client, caller.call, Reply::Refused(refusal));
            }
        }
        self.work.runs.ends.remove(&(caller.client, caller.call));
    }

    /// One event of the runs and everything that follows from it at once.
    pub(super) fn runs_on(&mut self, happened: Happened) {
        let mut queue = std::collections::VecDeque::from([happened]);
        while let Some(happened) = queue.pop_front() {
            for act in self.work.runs.core.on(boottime_ms(), happened) {
                queue.extend(self.carry_out(act));
            }
        }
    }

    fn carry_out(&mut self, act: Act) -> Option<Happened> {
        match act {
            Act::Fork(id, caller, run) => {
                let ends = self.work.runs.ends.remove(&(caller.client, caller.call)).unwrap_or_default();
                return Some(match self.fork_run(id, *run, &ends) {
                    Ok(()) => Happened::Forked(id),
                    Err(why) => Happened::NotForked(id, why),
                });
            }
            Act::Signal(id, signal) => {
                if let Some(live) = self.work.runs.live.get(&id) {
                    live.signal(&self.ground.dir, signal);
                }
            }
            Act::Kill(id) => {
                if let Some(live) = self.work.runs.live.get(&id) {
                    live.kill(&self.ground.dir);
                }
            }
            Act::Look(id) => {
                let live = self.work.runs.live.get(&id);
                let empty = live.is_none_or(|live| live.is_empty(&self.ground.dir));
                return Some(Happened::Looked(id, empty));
            }
            Act::Forget(id) => self.forget_run(id),
            Act::Answer(caller, reply) => self.clients.answer(caller.client, caller.call, reply),
        }
        None
    }

    fn fork_run(&mut self, id: RunId, run: Run, ends: &[OwnedFd]) -> Result<(), String> {
        let Run { mut spawn, beside, terminal, .. } = run;
        let main = self.work.live.get(&spawn.key).filter(|live| beside && !live.ended);
        let cgroup = match (&self.ground.cgroups, main.map(|live| live.cgroup.as_deref())) {
            (_, Some(Some(beside))) => Some(make_cgroup(&beside.join(format!("{RUN}{id}")))?),
            (Some(cgroups), None) => {
                let name = format!("{}{RUN_OF}{id}", spawn.key);
                Some(cgroups.make_named(&name, &spawn.limits)?.0)
            }
            (_, Some(None)) | (None, None) => None,
        };
        let place = RunPlace {
            id,
            cgroup: cgroup.clone(),
            mounts: main.and_then(|live| mounts_of(live.root)),
            terminal,
        };
        let child = launch::launch_run(&self.ground, &mut spawn, ends, &place);
        let Child { pid, start_time, pidfd, report, .. } =
            child.inspect_err(|_| cgroup.iter().for_each(|path| cgroup::remove(path)))?;
        let root = Root { key: spawn.key, run: Some(id), pid, start_time };
        let start = Start { go: None, report, said: Vec::new(), told: Told::of(&spawn) };
        // Without its news a start that fails is an end with code 127, no more.
        let watched = self.poll.add(&start.report, Source::Run(id)).is_ok();
        self.work.runs.pids.insert(pid, id);
        let live = LiveRun { root, pidfd, cgroup, start: Some(start).filter(|_| watched), ended: false };
        self.work.runs.live.insert(id, live);
        Ok(())
    }

    pub(super) fn run_news(&mut self, id: RunId) {
        let Some(start) = self.work.runs.live.get_mut(&id).and_then(|live| live.start.as_mut()) else {
            return;
        };
        let news = start.news();
        if news == StartNews::Wait {
            return;
        }
        let why = match news {
            StartNews::Failed(step, errno) => Some(launch::describe(step, errno, &start.told)),
            StartNews::Wait | StartNews::Runs | StartNews::Died => None,
        };
        if let Some(start) = self.work.runs.live.get_mut(&id).and_then(|live| live.start.take()) {
            drop(self.poll.remove(&start.report));
        }
        if let Some(why) = why {
            self.runs_on(Happened::NotStarted(id, why));
        }
    }

    /// Whether a child that ended was a run's first process.
    pub(super) fn run_reaped(&mut self, pid: i32, status: i32) -> bool {
        let Some(id) = self.work.runs.pids.remove(&pid) else { return false };
        self.run_news(id);
        if let Some(live) = self.work.runs.live.get_mut(&id) {
            live.ended = true;
        }
        self.runs_on(Happened::Ended(id, exit_of(status)));
        true
    }

    pub(super) fn tick_runs(&mut self) {
        if self.work.runs.next_wake().is_some_and(|at| at <= boottime_ms()) {
            self.runs_on(Happened::Tick);
        }
    }

    fn forget_run(&mut self, id: RunId) {
        let Some(live) = self.work.runs.live.remove(&id) else { return };
        self.work.runs.pids.retain(|_, other| *other != id);
        if let Some(start) = &live.start {
            drop(self.poll.remove(&start.report));
        }
        if let Some(path) = &live.cgroup {
            cgroup::remove(path);
        }
    }
}

impl LiveRun {
    fn signal(&self, holder: &Path, signal: i32) {
        match &self.cgroup {
            Some(path) => cgroup::signal(path, signal),
            None => proc_tree::signal(self.root, holder, signal),
        }
    }

    fn kill(&self, holder: &Path) {
        if !self.ended {
            // One that ended meanwhile needs no signal.
            drop(sys::pidfd_signal(self.pidfd.as_fd(), Signal::KILL.as_raw()));
        }
        match &self.cgroup {
            Some(path) => cgroup::kill(path),
            None => proc_tree::kill(&[self.root], holder),
        }
    }

    fn is_empty(&self, holder: &Path) -> bool {
        match &self.cgroup {
            Some(path) => cgroup::is_empty(path),
            None => Snapshot::take(holder).members(self.root).is_empty(),
        }
    }
}

/// A cgroup below that of an incarnation: what runs in it is counted and limited with the incarnation, and can be
/// killed alone.
fn make_cgroup(path: &Path) -> Result<PathBuf, String> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(format!("make its cgroup: {error}"))
        }
        Ok(()) | Err(_) => Ok(path.to_owned()),
    }
}

/// The mounts that a process sees, if they are others than the holder's.
fn mounts_of(root: Root) -> Option<OwnedFd> {
    let theirs = fs::File::open(format!("/proc/{}/ns/mnt", root.pid)).ok()?;
    // Read after opening: if the start time is right now, the descriptor is of that process.
    proc_tree::stat(root.pid).filter(|stat| stat.start_time == root.start_time)?;
    let own = rustix::fs::stat("/proc/self/ns/mnt").ok()?;
    let same = rustix::fs::fstat(&theirs).is_ok_and(|stat| stat.st_ino == own.st_ino);
    (!same).then(|| OwnedFd::from(theirs))
}

/// Kills what runs of former holders left: nobody waits for them.
pub(super) fn sweep(cgroups: Option<&Cgroups>, holder: &Path) {
    let Some(cgroups) = cgroups else { return proc_tree::kill_runs(holder) };
    for path in folders(cgroups.base()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let own = name.contains(RUN_OF).then(|| path.clone());
        let beside = folders(&path).into_iter().filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(RUN))
        });
        for run in own.into_iter().chain(beside) {
            cgroup::kill(&run);
            cgroup::remove(&run);
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}
