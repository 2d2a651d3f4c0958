//! What a holder gives to the program that takes its place by `execve`: its state is in the journal, and beside it
//! goes the table of the descriptors that stay open.
//!
//! The process stays the same one, so its children stay its children, its lock stays locked, and its socket goes
//! on taking connections. The table lies in an anonymous file whose descriptor is named on the command line.
//!
//! A program that cannot read the table, or an entry of it, adopts by the journal alone, as after a kill.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use ostler_agent_core::holder::protocol::{LogCounters, ProcKey};
use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use super::sys;

/// The version of the table. A program says with `--check-state` whether it reads it.
pub(super) const HANDOVER: u32 = 1;

/// Bytes of a table at most: some hundred for each of more processes than one host has.
const TABLE_MAX: u64 = 64 << 20;

/// The table.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    /// [`HANDOVER`] of who wrote it.
    format: u32,
    /// Who wrote it: it is of no use to any other process.
    pid: u32,
    lock: RawFd,
    listener: RawFd,
    /// The limit of open files that the first holder was started with.
    #[serde(default)]
    nofile: Option<(u64, u64)>,
    #[serde(default)]
    processes: Vec<Entry>,
}

/// One incarnation's part of it.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: ProcKey,
    pidfd: Option<RawFd>,
    stdout: Option<RawFd>,
    stderr: Option<RawFd>,
    #[serde(default)]
    rest: Rest,
}

/// What is known of an incarnation's output and not written down anywhere else.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Rest {
    /// The lines that have not ended yet.
    pub(super) partial: [Vec<u8>; 2],
    pub(super) counters: LogCounters,
}

/// An incarnation's descriptors, as given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handles<'a> {
    pub(super) pidfd: Option<BorrowedFd<'a>>,
    pub(super) outputs: [Option<BorrowedFd<'a>>; 2],
}

/// An incarnation's descriptors, as taken.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) outputs: [Option<File>; 2],
    pub(super) rest: Rest,
}

/// Everything that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) lock: File,
    pub(super) listener: OwnedFd,
    pub(super) nofile: Option<(u64, u64)>,
    pub(super) processes: BTreeMap<ProcKey, Kept>,
}

impl Handover {
    /// A table without incarnations.
    pub(super) fn new(lock: impl AsFd, listener: impl AsFd, nofile: (u64, u64)) -> Self {
        Self {
            format: HANDOVER,
            pid: std::process::id(),
            lock: lock.as_fd().as_raw_fd(),
            listener: listener.as_fd().as_raw_fd(),
            nofile: Some(nofile),
            processes: Vec::new(),
        }
    }

    /// Adds one incarnation.
    pub(super) fn add(&mut self, key: ProcKey, handles: Handles<'_>, rest: Rest) {
        let number = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| fd.as_raw_fd());
        let [stdout, stderr] = handles.outputs.map(number);
        self.processes.push(Entry { key, pidfd: number(handles.pidfd), stdout, stderr, rest });
    }

    /// Writes the table into an anonymous file that stays open over `execve`.
    pub(super) fn write(&self) -> io::Result<OwnedFd> {
        let bytes = rmp_serde::to_vec_named(self).map_err(io::Error::other)?;
        let table = rustix::fs::memfd_create("ostler-handover", MemfdFlags::empty())?;
        let mut file = File::from(table);
        file.write_all(&bytes)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(OwnedFd::from(file))
    }

    /// Reads the table behind a descriptor and takes everything that it names.
    pub(super) fn take(table: RawFd) -> io::Result<Taken> {
        let mut bytes = Vec::new();
        File::from(sys::take_fd(table)?).take(TABLE_MAX).read_to_end(&mut bytes)?;
        let table: Self = rmp_serde::from_slice(&bytes).map_err(io::Error::other)?;
        if table.format > HANDOVER || table.pid != std::process::id() {
            return Err(io::Error::other(format!(
                "a table of format {} of process {}",
                table.format, table.pid
            )));
        }
        let lock = File::from(sys::take_fd(table.lock)?);
        let listener = sys::take_fd(table.listener)?;
        let one = |entry: Entry| {
            let take = |fd: Option<RawFd>| fd.and_then(|fd| sys::take_fd(fd).ok());
            let kept = Kept {
                pidfd: take(entry.pidfd),
                outputs: [take(entry.stdout).map(File::from), take(entry.stderr).map(File::from)],
                rest: entry.rest,
            };
            (entry.key, kept)
        };
        let processes = table.processes.into_iter().map(one).collect();
        Ok(Taken { lock, listener, nofile: table.nofile, processes })
    }
}

/// Whether a descriptor is to stay open over `execve`.
pub(super) fn keep_open(fd: impl AsFd, keep: bool) -> io::Result<()> {
    let flags = if keep { FdFlags::empty() } else { FdFlags::CLOEXEC };
    Ok(rustix::io::fcntl_setfd(fd, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ostler_schemas::Uid;
    use std::os::fd::IntoRawFd as _;

    #[test]
    fn what_was_given_is_taken() {
        let null = || File::open("/dev/null").unwrap();
        let (lock, listener, pidfd, out) = (null(), null(), null(), null());
        let mut table = Handover::new(&lock, &listener, (1, 2));
        let key = ProcKey { uid: Uid::from_bytes([1; 16]), incarnation: 3 };
        let handles = Handles { pidfd: Some(pidfd.as_fd()), outputs: [Some(out.as_fd()), None] };
        let rest = Rest { partial: [b"half a li".to_vec(), Vec::new()], counters: LogCounters::default() };
        table.add(key, handles, rest);
        let memory = table.write().unwrap().into_raw_fd();
        for fd in [lock, listener, pidfd, out] {
            std::mem::forget(fd);
        }
        let taken = Handover::take(memory).unwrap();
        assert_eq!(taken.nofile, Some((1, 2)));
        let kept = &taken.processes[&key];
        assert!(kept.pidfd.is_some() && kept.outputs[0].is_some() && kept.outputs[1].is_none());
        assert_eq!(kept.rest.partial[0], b"half a li");
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_an_error() {
        assert!(Handover::take(RawFd::MAX).is_err());
    }
}
