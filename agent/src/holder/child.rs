//! From fork to exec, in the child.
//!
//! It is born in its cgroup where the kernel can do that (`clone3`, Linux 5.7), else it is forked and joins. Both ways
//! make an ordinary child with a copy of the holder's memory.
//!
//! The child is a copy of a process with a second thread, so between fork and exec it may only make
//! async-signal-safe calls: no allocation, no locks, no panics. Everything it needs was made before, in [`Plan`].
//!
//! It tells what happened over a pipe that closes on exec, in records of five bytes: a step and an errno.
//! [`READY`] says that exec is next. So the end of the pipe after `READY` is a program that runs, and the end
//! without it is a child that was killed before.

#![expect(unsafe_code, reason = "fork and the calls between fork and exec")]

pub(super) mod confined;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::libc;

use confined::Confined;

/// What the child was about to do when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Session = 1,
    Cgroup = 2,
    Descriptors = 3,
    Groups = 5,
    Group = 6,
    User = 7,
    NoNewPrivileges = 8,
    Directory = 9,
    Exec = 10,
    Nice = 11,
    OomScore = 12,
    Mounts = 13,
    PrivateTmp = 14,
    ReadOnly = 15,
    Capabilities = 16,
}

impl Step {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Session,
            2 => Self::Cgroup,
            3 => Self::Descriptors,
            5 => Self::Groups,
            6 => Self::Group,
            7 => Self::User,
            8 => Self::NoNewPrivileges,
            9 => Self::Directory,
            10 => Self::Exec,
            11 => Self::Nice,
            12 => Self::OomScore,
            13 => Self::Mounts,
            14 => Self::PrivateTmp,
            15 => Self::ReadOnly,
            16 => Self::Capabilities,
            _ => return None,
        })
    }
}

/// A limit that could not be set is told as this plus the limit's number.
pub(super) const RLIMIT_BASE: u8 = 0x40;

/// The record that says that exec is next.
pub(super) const READY: u8 = 0xFF;

/// Length of a record.
pub(super) const RECORD: usize = 5;

/// Where the child moves its two pipes, and the first descriptor after what it keeps.
const GO: RawFd = 3;
const REPORT: RawFd = 4;
const FIRST_UNKNOWN: libc::c_uint = 5;

/// How a child ends that could not become the program; nobody sees it.
const NOT_STARTED: i32 = 127;

/// The highest signal number.
const SIGNAL_MAX: i32 = 64;

/// Everything the child needs, made before the fork.
pub(super) struct Plan<'a> {
    pub(super) argv: &'a [CString],
    pub(super) env: &'a [CString],
    /// Where the program may be, in the order of the search path.
    pub(super) programs: &'a [CString],
    pub(super) cwd: &'a CStr,
    /// The file that moves a process into its cgroup.
    pub(super) cgroup_procs: Option<&'a CStr>,
    /// The cgroup's folder, where the child can be born in it.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
    /// The mounts of another process (`/proc/PID/ns/mnt`), to be in these instead of having its own.
    pub(super) mount_namespace: Option<BorrowedFd<'a>>,
    /// Standard input is a terminal, and becomes the session's.
    pub(super) terminal: bool,
    /// It is killed when the holder ends.
    pub(super) dies_with_holder: bool,
    pub(super) confined: &'a Confined,
    pub(super) user: Option<Identity<'a>>,
    pub(super) rlimits: &'a [(u32, libc::rlimit)],
    pub(super) umask: u32,
    pub(super) oom_score_adjust: &'a [u8],
    pub(super) allow_new_privileges: bool,
    pub(super) stdin: BorrowedFd<'a>,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
    pub(super) go: BorrowedFd<'a>,
    pub(super) report: BorrowedFd<'a>,
}

/// Numbers of user and groups.
pub(super) struct Identity<'a> {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: &'a [u32],
}

/// A child, and its pidfd if the kernel gave it with the child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) pidfd: Option<OwnedFd>,
}

/// Forks; the child goes through the plan and waits.
///
/// # Errors
/// When the system has no room for another process.
pub(super) fn fork(plan: &Plan<'_>) -> io::Result<Child> {
    for fd in [plan.stdin, plan.stdout, plan.stderr, plan.go, plan.report] {
        assert!(fd.as_raw_fd() > REPORT, "the first descriptors belong to the holder's lock and poll set");
    }
    let argv = pointers(plan.argv);
    let env = pointers(plan.env);
    let born_inside = plan.cgroup.and_then(|cgroup| clone_into(cgroup).ok());
    let (child, joins) = match born_inside {
        Some(child) => (child, false),
        // SAFETY: the child calls only async-signal-safe functions (see `run`) and never returns.
        None => (Child { pid: unsafe { libc::fork() }, pidfd: None }, true),
    };
    if child.pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if child.pid == 0 {
        // SAFETY: this is the child; both arrays end with a null pointer and outlive it.
        unsafe { run(plan, joins, &argv, &env) }
    }
    Ok(child)
}

/// `struct clone_args`, with all that Linux 5.7 knows of it.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a child in a cgroup, with its pidfd. In the child the pid is 0, as after a fork.
fn clone_into(cgroup: BorrowedFd<'_>) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_PIDFD as u64 | CLONE_INTO_CGROUP | CLONE_CLEAR_SIGHAND;
    let mut args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?,
        ..CloneArgs::default()
    };
    // SAFETY: without a stack and without shared memory the child goes on from here in a copy, as after a fork; the
    // structure has the size that is given.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Child { pid: 0, pidfd: None }),
        // SAFETY: the kernel has just given this descriptor to nobody else.
        Ok(pid) if pid > 0 => Ok(Child { pid, pidfd: Some(unsafe { OwnedFd::from_raw_fd(pidfd) }) }),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Whether a child can be born in that cgroup, and lives: some kernels kill it at birth when a cgroup above it was
/// ever killed.
pub(super) fn can_be_born_in(cgroup: BorrowedFd<'_>) -> bool {
    match clone_into(cgroup) {
        // SAFETY: this is the child, which ends.
        Ok(Child { pid: 0, .. }) => unsafe { libc::_exit(0) },
        Ok(child) => ended_well(child.pid),
        Err(_) => false,
    }
}

/// Whether a child can have mounts of its own.
pub(super) fn can_have_mounts() -> bool {
    // SAFETY: the child makes two system calls and ends.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(i32::from(confined::own_mounts() < 0)),
            pid if pid > 0 => ended_well(pid),
            _ => false,
        }
    }
}

fn ended_well(pid: i32) -> bool {
    let mut status = 0;
    loop {
        // SAFETY: the status is a valid place, and the child is this process's own.
        match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
            -1 if errno() == libc::EINTR => {}
            ended => return ended == pid && status == 0,
        }
    }
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// # Safety
/// Only in the child of a fork; `argv` and `env` end with a null pointer.
unsafe fn run(plan: &Plan<'_>, joins: bool, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> ! {
    // SAFETY: as this function's; everything called is async-signal-safe and gets valid pointers.
    unsafe {
        reset_signals();
        check(plan.report.as_raw_fd(), Step::Session, libc::setsid());
        if let Some(procs) = plan.cgroup_procs.filter(|_| joins) {
            join_cgroup(plan.report.as_raw_fd(), procs);
        }
        if let Some(namespace) = plan.mount_namespace {
            let result = libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS);
            check(plan.report.as_raw_fd(), Step::Mounts, result);
        }
        descriptors(plan);
        // The holder lets it go on once its record is written; if the holder ends, so does the child.
        let mut byte = 0u8;
        loop {
            match libc::read(GO, (&raw mut byte).cast(), 1) {
                1 => break,
                -1 if errno() == libc::EINTR => {}
                _ => libc::_exit(NOT_STARTED),
            }
        }
        libc::close(GO);
        if plan.terminal {
            check(REPORT, Step::Descriptors, libc::ioctl(0, libc::TIOCSCTTY, 0));
        }
        confined::apply(plan);
        if plan.dies_with_holder {
            // A change of the user takes it back, so it comes after that.
            check(REPORT, Step::Session, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0));
        }
        check(REPORT, Step::Directory, libc::chdir(plan.cwd.as_ptr()));
        exec(plan, argv, env)
    }
}

/// # Safety
/// Only in the child of a fork.
unsafe fn reset_signals() {
    // Zero is SIG_DFL, no flags, an empty mask. The library's own call leaves out the signals it keeps for itself,
    // which can be inherited as ignored all the same.
    let default = [0u64; 4];
    // SAFETY: the structure is at least as large as the kernel's, and its mask has eight bytes; errors (SIGKILL,
    // SIGSTOP) change nothing.
    unsafe {
        for signal in 1..=SIGNAL_MAX {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8usize,
            );
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// # Safety
/// Only in the child of a fork.
unsafe fn join_cgroup(report: RawFd, procs: &CStr) {
    // SAFETY: the path is a C string and the buffer has one byte.
    unsafe {
        let file = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(report, Step::Cgroup, file);
        let written = libc::write(file, c"0".as_ptr().cast(), 1);
        check(report, Step::Cgroup, if written == 1 { 0 } else { -1 });
        libc::close(file);
    }
}

/// # Safety
/// Only in the child of a fork; no descriptor of the plan is below 5.
unsafe fn descriptors(plan: &Plan<'_>) {
    let report = plan.report.as_raw_fd();
    // SAFETY: descriptors only.
    unsafe {
        check(report, Step::Descriptors, libc::dup2(plan.stdin.as_raw_fd(), 0));
        check(report, Step::Descriptors, libc::dup2(plan.stdout.as_raw_fd(), 1));
        check(report, Step::Descriptors, libc::dup2(plan.stderr.as_raw_fd(), 2));
        check(report, Step::Descriptors, libc::dup3(plan.go.as_raw_fd(), GO, libc::O_CLOEXEC));
        check(report, Step::Descriptors, libc::dup3(report, REPORT, libc::O_CLOEXEC));
        // Other children's pipes among them: a copy here would keep those waiting if the holder died. Where the
        // call is missing, closing on exec does the rest.
        libc::syscall(libc::SYS_close_range, FIRST_UNKNOWN, libc::c_uint::MAX, 0);
    }
}

/// # Safety
/// Only in the child of a fork; `argv` and `env` end with a null pointer.
unsafe fn exec(plan: &Plan<'_>, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> ! {
    // SAFETY: as this function's.
    unsafe {
        tell(REPORT, READY, 0);
        let mut reason = libc::ENOENT;
        for program in plan.programs {
            libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr());
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                // Like a shell: what may not be run is named unless another place has it.
                libc::EACCES => reason = libc::EACCES,
                other => {
                    reason = other;
                    break;
                }
            }
        }
        tell(REPORT, Step::Exec as u8, reason);
        libc::_exit(NOT_STARTED)
    }
}

/// # Safety
/// Only in the child of a fork, right after the call whose result is given.
unsafe fn check(report: RawFd, step: Step, result: i32) {
    if result < 0 {
        // SAFETY: ends the child.
        unsafe {
            tell(report, step as u8, errno());
            libc::_exit(NOT_STARTED);
        }
    }
}

/// As [`check`], of a system call by its number and when the descriptors are in place.
///
/// # Safety
/// Only in the child of a fork, right after the call whose result is given.
unsafe fn check_at(step: Step, result: libc::c_long) {
    // SAFETY: as this function's.
    unsafe { check(REPORT, step, if result < 0 { -1 } else { 0 }) };
}

/// # Safety
/// Only in the child of a fork.
unsafe fn tell(report: RawFd, what: u8, errno: i32) {
    let [a, b, c, d] = errno.to_le_bytes();
    let record = [what, a, b, c, d];
    // SAFETY: the buffer is on the stack and has that length. An error cannot be told to anyone.
    unsafe { libc::write(report, record.as_ptr().cast(), record.len()) };
}

fn errno() -> i32 {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}
