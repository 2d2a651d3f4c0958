//! The least that starting and stopping many processes costs here: a loop that makes a cgroup, two pipes and a child
//! born in it, and nothing that remembers any of it.

use std::ffi::{CString, c_char};
use std::fs::{self, File};
use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// What runs: one program that every host has, which does nothing.
const ARGV: [&str; 2] = ["/bin/sleep", "infinity"];

/// One of them.
struct Bare {
    pid: Pid,
    cgroup: Option<PathBuf>,
    _pipes: [PipeReader; 2],
}

/// A place for cgroups of this program, removed at the end. None without root and a cgroup2 file system.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn make(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let path =
            Path::new(mount.split(' ').nth(1)?).join(format!("ostler-bench-{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            fs::remove_dir(entry.path()).ok();
        }
        fs::remove_dir(&self.0).ok();
    }
}

/// When each of so many had started since the first began, and when each was gone since the first was told to end.
pub(crate) fn start_and_stop(count: usize) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let place = Place::make("bare");
    let argv = ARGV.iter().map(|word| CString::new(*word)).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    let mut all = Vec::with_capacity(count);
    let mut started = Vec::with_capacity(count);
    for n in 0..count {
        all.push(start(place.as_ref(), n, &argv).context("a bare start")?);
        started.push(begin.elapsed());
    }
    let begin = Instant::now();
    for bare in &all {
        kill(bare.pid, Signal::SIGTERM)?;
    }
    let mut stopped = Vec::with_capacity(count);
    for bare in &mut all {
        waitpid(bare.pid, None)?;
        if let Some(path) = &bare.cgroup {
            // The kernel needs a moment after the last exit.
            while fs::remove_dir(path).is_err() && path.exists() {
                std::thread::yield_now();
            }
        }
        stopped.push(begin.elapsed());
    }
    Ok((started, stopped))
}

fn start(place: Option<&Place>, n: usize, argv: &[CString]) -> anyhow::Result<Bare> {
    let cgroup = place.map(|place| place.0.join(n.to_string()));
    let folder = match &cgroup {
        Some(path) => {
            fs::create_dir(path)?;
            Some(File::open(path)?)
        }
        None => None,
    };
    let (out, their_out) = io::pipe()?;
    let (err, their_err) = io::pipe()?;
    let outputs = [their_out.as_raw_fd(), their_err.as_raw_fd()];
    let pid = clone_into(folder.as_ref().map(std::os::fd::AsFd::as_fd), argv, outputs)?;
    Ok(Bare { pid, cgroup, _pipes: [out, err] })
}

/// `struct clone_args`, as Linux 5.7 knows it.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: [u64; 2],
    tls: u64,
    set_tid: [u64; 2],
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A child in that cgroup which becomes the program, its outputs being the pipes.
#[expect(unsafe_code, reason = "a child that is born in a cgroup has no safe interface")]
fn clone_into(cgroup: Option<BorrowedFd<'_>>, argv: &[CString], outputs: [i32; 2]) -> io::Result<Pid> {
    let mut pointers: Vec<*const c_char> = argv.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment = [std::ptr::null::<c_char>()];
    let mut args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(folder) = cgroup {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(folder.as_raw_fd()).map_err(io::Error::other)?;
    }
    // SAFETY: without a stack and without shared memory the child goes on in a copy, as after a fork. There it makes
    // system calls only, on arrays that were made before and end with a null pointer, and never returns.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) {
            0 => {
                libc::dup2(outputs[0], libc::STDOUT_FILENO);
                libc::dup2(outputs[1], libc::STDERR_FILENO);
                libc::execve(pointers[0], pointers.as_ptr(), environment.as_ptr());
                libc::_exit(127)
            }
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?)),
        }
    }
}
