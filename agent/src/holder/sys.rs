//! System calls that have no safe wrapper. Every `unsafe` of the holder outside [`super::child`] is here.

#![expect(unsafe_code, reason = "raw system calls that no crate in use wraps")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::libc;

/// `_IOWR(0xFF, 11, struct pidfd_info)` with the structure's first published size of 64 bytes; the kernel takes
/// any size from there on.
const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | (64 << 16) | (0xFF << 8) | 11;

/// Asks for, and in the answer confirms, the exit status.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` of `linux/pidfd.h`, first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// The wait status of the process behind a pidfd, whoever reaped it. None while it was not reaped.
///
/// # Errors
/// `ENOTTY` and its like on kernels before 6.15, which do not tell.
pub(super) fn pidfd_wait_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the descriptor is open and the structure has the size that is coded into the request.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// Sends any signal, real-time ones too, to exactly the process behind a pidfd.
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM` when it belongs to someone else.
pub(super) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; a null siginfo and no flags are what kill(2) would send.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Changes a limit of another process. The caller makes sure that the pid still means that process.
///
/// # Errors
/// As prlimit(2).
pub(super) fn set_rlimit_of(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is a valid structure and no old one is asked for.
    let result = unsafe { libc::prlimit64(pid, resource, &raw const limit, std::ptr::null_mut()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Marks every descriptor from `first` on as closed on exec, so that nothing of who started the holder reaches
/// its children. Kernels before 5.11 cannot; the holder's own descriptors are marked one by one in any case.
pub(super) fn close_on_exec_from(first: u32) {
    // SAFETY: setting a flag on descriptors has no memory effect.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Closes every descriptor from `first` on. Only for a program that has opened none of them yet: whoever had one would
/// go on to use a number that means nothing, or something else.
pub(super) fn close_from(first: u32) {
    // SAFETY: the caller owns none of them, so no owner is left with a number that is not its own.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if closed == 0 {
        return;
    }
    // Kernels before 5.9. The numbers are read first: the folder that is being read is one of them.
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for number in
        numbers.filter(|number| u32::try_from(*number).is_ok_and(|n| n >= first)).collect::<Vec<_>>()
    {
        // SAFETY: as above; that of the folder is closed already, which is an error without an effect.
        unsafe { libc::close(number) };
    }
}

/// Takes over a descriptor that was left open for this process by the program that ran in it before.
///
/// # Errors
/// `EBADF` when it is not open.
pub(super) fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: reading the flags of a descriptor has no memory effect, whatever it is.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and the table of the former program names each of its descriptors once; nothing of this
    // program was opened by that number, because it was open before this program began.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
