//! From fork to exec, in the child.
//!
//! The child is a copy of a process with a second thread, so between fork and exec it may only make
//! async-signal-safe calls: no allocation, no locks, no panics. Everything it needs was made before, in [`Plan`].
//!
//! It tells what happened over a pipe that closes on exec, in records of five bytes: a step and an errno.
//! [`READY`] says that exec is next. So the end of the pipe after `READY` is a program that runs, and the end
//! without it is a child that was killed before.

#![expect(unsafe_code, reason = "fork and the calls between fork and exec")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::libc;

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

/// Forks; the child goes through the plan and waits. Gives the child's pid.
///
/// # Errors
/// When the system has no room for another process.
pub(super) fn fork(plan: &Plan<'_>) -> io::Result<i32> {
    for fd in [plan.stdin, plan.stdout, plan.stderr, plan.go, plan.report] {
        assert!(fd.as_raw_fd() > REPORT, "the first descriptors belong to the holder's lock and poll set");
    }
    let argv = pointers(plan.argv);
    let env = pointers(plan.env);
    // SAFETY: the child calls only async-signal-safe functions (see `run`) and never returns.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: this is the child; both arrays end with a null pointer and outlive it.
        unsafe { run(plan, &argv, &env) }
    }
    Ok(pid)
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// # Safety
/// Only in the child of a fork; `argv` and `env` end with a null pointer.
unsafe fn run(plan: &Plan<'_>, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> ! {
    // SAFETY: as this function's; everything called is async-signal-safe and gets valid pointers.
    unsafe {
        reset_signals();
        check(plan.report.as_raw_fd(), Step::Session, libc::setsid());
        if let Some(procs) = plan.cgroup_procs {
            join_cgroup(plan.report.as_raw_fd(), procs);
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
        become_user(plan);
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
/// Only in the child of a fork.
unsafe fn become_user(plan: &Plan<'_>) {
    // SAFETY: pointers come from live slices with their own lengths.
    unsafe {
        // Best effort: lowering needs a privilege that even root may lack.
        let oom = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if oom >= 0 {
            libc::write(oom, plan.oom_score_adjust.as_ptr().cast(), plan.oom_score_adjust.len());
            libc::close(oom);
        }
        libc::umask(plan.umask);
        for (resource, limit) in plan.rlimits {
            if libc::setrlimit(*resource, limit) < 0 {
                tell(REPORT, RLIMIT_BASE | (*resource & 0x3F) as u8, errno());
                libc::_exit(NOT_STARTED);
            }
        }
        if let Some(Identity { uid, gid, groups }) = &plan.user {
            check(REPORT, Step::Groups, libc::setgroups(groups.len(), groups.as_ptr()));
            check(REPORT, Step::Group, libc::setresgid(*gid, *gid, *gid));
            check(REPORT, Step::User, libc::setresuid(*uid, *uid, *uid));
        }
        if !plan.allow_new_privileges {
            check(REPORT, Step::NoNewPrivileges, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        }
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
