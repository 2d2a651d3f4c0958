//! Taking over incarnations: from a former holder that died, by its state and the host; from the program that ran
//! in this process before, by the descriptors it left.
//!
//! A number and a start time name one process almost for ever: with a small `pid_max` a number can come back
//! within the same tick of the clock. So an adopted main process also has to be in the incarnation's cgroup, or,
//! without one, to lead a session or bear the incarnation's marks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ostler_agent_core::holder::Input;
use ostler_agent_core::holder::lines::Stream;
use ostler_agent_core::holder::protocol::{Exit, Phase, ProcKey};
use ostler_agent_core::holder::state::ProcessRecord;

use super::super::handover::Kept;
use super::super::launch;
use super::super::live::{Live, Outlet};
use super::super::log_writer::LogTarget;
use super::super::poll::Source;
use super::super::proc_tree::{self, Root};
use super::super::recover;
use super::super::runs;
use super::super::say::say;
use super::{READ_SIZE, Shell};

/// Why an exit cannot be known.
const ENDED_UNSEEN: &str = "ended while no holder was there to see it";

impl Shell {
    /// Takes over everything that the core was restored with.
    pub(crate) fn adopt_all(&mut self, mut kept: BTreeMap<ProcKey, Kept>) {
        self.work.buffer = vec![0; READ_SIZE];
        let records: Vec<ProcessRecord> = self.core.adopted().cloned().collect();
        runs::sweep(self.ground.cgroups.as_ref(), &self.ground.dir);
        self.remove_strays(&records);
        for record in &records {
            self.adopt(record, kept.remove(&record.key).unwrap_or_default());
        }
        // Children that ended while there was nobody to be told.
        self.reap();
        self.settle();
        if !records.is_empty() {
            let keys: BTreeSet<ProcKey> = records.iter().map(|record| record.key).collect();
            let left = self.core.adopted().filter(|record| keys.contains(&record.key)).count();
            say(&format!("adopts {left} of {} processes of a former holder", records.len()));
        }
    }

    /// Pipes and cgroups that no record names were left by a holder that died at the wrong moment.
    fn remove_strays(&self, records: &[ProcessRecord]) {
        let known: BTreeSet<PathBuf> =
            records.iter().flat_map(|record| [&record.stdout, &record.stderr]).map(PathBuf::from).collect();
        for entry in fs::read_dir(&self.ground.fifo_dir).into_iter().flatten().flatten() {
            if !known.contains(&entry.path()) {
                drop(fs::remove_file(entry.path()));
            }
        }
        if let Some(cgroups) = &self.ground.cgroups {
            cgroups.remove_strays(
                &records.iter().filter_map(|record| record.cgroup.as_ref().map(PathBuf::from)).collect(),
            );
        }
    }

    fn adopt(&mut self, record: &ProcessRecord, kept: Kept) {
        let key = record.key;
        let slot = self.new_slot(key);
        let fifos = [PathBuf::from(&record.stdout), PathBuf::from(&record.stderr)];
        let had_ended = record.phase == Phase::Leftovers;
        let main = if had_ended { Main::Gone } else { self.main_of(record, kept.pidfd) };
        // Nobody has that number: then the tree is what bears its marks, and not what a stranger started.
        let (pid, start_time) = match main {
            Main::Stranger => (i32::MAX, 0),
            Main::Gone | Main::Child(_) | Main::Adopted(_) => (record.pid, record.start_time),
        };
        let (pidfd, is_child) = match main {
            Main::Child(pidfd) => (Some(pidfd), true),
            Main::Adopted(pidfd) => (Some(pidfd), false),
            Main::Gone | Main::Stranger => (None, false),
        };
        let gone = !had_ended && pidfd.is_none();
        let [stdout, stderr] = kept.outputs;
        let [partial_out, partial_err] = kept.rest.partial;
        let open = |given: Option<File>, path: &Path| given.or_else(|| launch::open_fifo(path).ok());
        let [path_out, path_err] = &fifos;
        let (stdout, stderr) = (open(stdout, path_out), open(stderr, path_err));
        let live = Live {
            root: Root { key, run: None, pid, start_time },
            slot,
            pidfd,
            cgroup: record.cgroup.as_ref().map(PathBuf::from),
            fifos,
            stdout: Outlet::going_on(stdout, Stream::Stdout, &partial_out),
            stderr: Outlet::going_on(stderr, Stream::Stderr, &partial_err),
            target: LogTarget::new(&record.log, (&record.namespace, &record.name), key),
            counters: kept.rest.counters,
            start: None,
            ended: had_ended,
        };
        self.work.live.insert(key, live);
        if is_child {
            self.work.pids.insert(record.pid, key);
        }
        // What cannot be watched is still known to the core, which looks at it in its own time.
        let adopted = self.work.live.get(&key).and_then(|live| live.pidfd.as_ref()).filter(|_| !is_child);
        let watched = self.watch(key).and_then(|()| match adopted {
            Some(pidfd) => self.poll.add(pidfd, Source::Adopted(slot)),
            None => Ok(()),
        });
        if !gone && !had_ended {
            self.listen_again(key, record.listen);
        }
        if gone || watched.is_err() {
            self.main_ended(key, Exit::Unknown(ENDED_UNSEEN.to_owned()));
        } else if record.phase == Phase::Starting {
            // A child that still waited has lost the pipe it waits on and ends; every other one runs.
            self.drive(Input::ProgramRuns(key));
        }
    }

    /// The main process of a record. A child that has ended and was not reaped is there: its code is still to be had.
    fn main_of(&self, record: &ProcessRecord, given: Option<OwnedFd>) -> Main {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let stat = proc_tree::stat(record.pid).filter(|stat| stat.start_time == record.start_time);
        let is_child = stat.is_some_and(|stat| stat.parent == own);
        let given = given.or_else(|| proc_tree::open_verified(record.pid, record.start_time));
        match given {
            Some(pidfd) if is_child => Main::Child(pidfd),
            Some(pidfd) if stat.is_none() || is_it(record, &self.ground.dir) => Main::Adopted(pidfd),
            Some(_) => Main::Stranger,
            None => Main::Gone,
        }
    }
}

/// What became of the main process of a record.
enum Main {
    /// It has ended and was reaped.
    Gone,
    /// Another process has its number, and even its start time.
    Stranger,
    /// It is there, and a child of this process.
    Child(OwnedFd),
    /// It is there, with another parent.
    Adopted(OwnedFd),
}

/// Whether the process with the record's number and start time can be the record's main process.
fn is_it(record: &ProcessRecord, holder: &Path) -> bool {
    let Some(stat) = proc_tree::stat(record.pid) else { return false };
    if stat.zombie {
        // A corpse has left its cgroup and its environment; its session it still has.
        return stat.session == stat.pid;
    }
    let marked = || recover::mark(record.pid, holder) == Some(record.key);
    match &record.cgroup {
        // The kernel names it from the root of the hierarchy, the path starts at the mount point.
        Some(path) => proc_tree::cgroup(record.pid).is_some_and(|own| contains(path, &own)) || marked(),
        None => stat.session == stat.pid || marked(),
    }
}

/// Whether the cgroup that the kernel calls `own` is the one at `path` or below it.
fn contains(path: &str, own: &str) -> bool {
    let name = Path::new(path).file_name();
    name.is_some_and(|name| Path::new(own).components().any(|part| part.as_os_str() == name))
}
