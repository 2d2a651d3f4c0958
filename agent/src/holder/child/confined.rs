//! What the child does to itself before it becomes the program: limits, mounts, capabilities, user.
//!
//! The order matters. Limits and mounts need root's rights, so they come first; capabilities are taken from the
//! bounding set while that is still allowed, kept over the change of the user, and given back afterwards; that exec
//! gains no privileges is last, because it may forbid what comes before it.
//!
//! Users and groups are changed by system calls and not by the library's functions: those would tell the other
//! threads, of which the library may still know, but which a child does not have.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

use nix::libc;
use ostler_agent_core::holder::protocol::Capabilities;

use super::{Identity, NOT_STARTED, Plan, REPORT, RLIMIT_BASE, Step, check, check_at, errno, tell};

/// The version of the structures of capset(2): the third, with 64 bits.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// No kernel has more than the 64 that fit there; asking to drop one it does not have is an error that ends the loop.
const CAPABILITY_MAX: libc::c_ulong = 64;

/// Descriptors for the folders that are mounted, and how a path leads to them: numbers that nothing else in the child
/// has, because everything from 5 on was closed.
const SLOTS: [(RawFd, &CStr); 2] = [(10, c"/proc/self/fd/10"), (11, c"/proc/self/fd/11")];

/// What is done besides user and limits.
#[derive(Debug, Default)]
pub(in crate::holder) struct Confined {
    pub(in crate::holder) nice: i32,
    pub(in crate::holder) capabilities: Option<Capabilities>,
    pub(in crate::holder) mounts: Mounts,
}

/// Mounts of its own.
#[derive(Debug, Default)]
pub(in crate::holder) struct Mounts {
    /// Folders, and where they are put: two at most.
    pub(in crate::holder) binds: Vec<Bind>,
    /// What is made read-only, outer before inner.
    pub(in crate::holder) read_only: Vec<ReadOnly>,
}

/// A folder put in the place of another.
#[derive(Debug)]
pub(in crate::holder) struct Bind {
    pub(in crate::holder) source: CString,
    pub(in crate::holder) target: CString,
    /// The options of the mount that the source is in.
    pub(in crate::holder) flags: libc::c_ulong,
}

/// Something made read-only.
#[derive(Debug)]
pub(in crate::holder) struct ReadOnly {
    pub(in crate::holder) target: CString,
    /// The options of the mount that it is, or is in.
    pub(in crate::holder) flags: libc::c_ulong,
    /// Whether it is not a mount yet.
    pub(in crate::holder) bind: bool,
    /// Which of the paths that were asked for it belongs to.
    pub(in crate::holder) asked: u16,
}

/// # Safety
/// Only in the child of a fork, when its descriptors are in place.
pub(super) unsafe fn apply(plan: &Plan<'_>) {
    // SAFETY: as this function's; pointers come from live slices with their own lengths.
    unsafe {
        limits(plan);
        mounts(&plan.confined.mounts);
        let ambient = plan.confined.capabilities.map_or(0, |capabilities| capabilities.ambient);
        if let Some(Capabilities { bounding: Some(bounding), .. }) = plan.confined.capabilities {
            bound(bounding);
        }
        if let Some(Identity { uid, gid, groups }) = &plan.user {
            check_at(Step::Groups, libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()));
            check_at(Step::Group, libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid));
            if ambient != 0 {
                check(REPORT, Step::Capabilities, libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0));
            }
            check_at(Step::User, libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid));
        }
        if ambient != 0 {
            give(ambient);
        }
        if !plan.allow_new_privileges {
            check(REPORT, Step::NoNewPrivileges, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        }
    }
}

/// # Safety
/// Only in the child of a fork, when its descriptors are in place.
unsafe fn limits(plan: &Plan<'_>) {
    // SAFETY: pointers come from live slices with their own lengths.
    unsafe {
        let score = plan.oom_score_adjust;
        let oom = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        let written = oom >= 0 && libc::write(oom, score.as_ptr().cast(), score.len()) >= 0;
        // Putting it back to 0 is the holder's own wish, which a process without rights of root may have to do
        // without; anything else was asked for.
        if !written && score != b"0" {
            check(REPORT, Step::OomScore, -1);
        }
        if oom >= 0 {
            libc::close(oom);
        }
        let nice = plan.confined.nice;
        if libc::setpriority(libc::PRIO_PROCESS, 0, nice) < 0 && nice != 0 {
            check(REPORT, Step::Nice, -1);
        }
        libc::umask(plan.umask);
        for (resource, limit) in plan.rlimits {
            // A run takes what this host gives: the start of its process has said it if that is less.
            if libc::setrlimit(*resource, limit) < 0 && !plan.dies_with_holder {
                tell(REPORT, RLIMIT_BASE | (*resource & 0x3F) as u8, errno());
                libc::_exit(NOT_STARTED);
            }
        }
    }
}

/// # Safety
/// Only in the child of a fork.
unsafe fn mounts(mounts: &Mounts) {
    // SAFETY: all paths are C strings; what is mounted is seen by this child alone.
    unsafe {
        if mounts.binds.is_empty() && mounts.read_only.is_empty() {
            return;
        }
        check(REPORT, Step::Mounts, own_mounts());
        // All are opened before the first is put in its place, under which the next may lie.
        for (Bind { source, .. }, (slot, _)) in mounts.binds.iter().zip(&SLOTS) {
            let folder = libc::open(source.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
            check(REPORT, Step::PrivateTmp, folder);
            // Where close_range is missing the lowest free number may be the slot itself.
            if folder != *slot {
                check(REPORT, Step::PrivateTmp, libc::dup3(folder, *slot, libc::O_CLOEXEC));
            }
            libc::close(folder);
        }
        for (Bind { target, flags, .. }, (slot, source)) in mounts.binds.iter().zip(&SLOTS) {
            check(REPORT, Step::PrivateTmp, mount(source, target, libc::MS_BIND));
            let safe = flags | libc::MS_NOSUID | libc::MS_NODEV;
            check(REPORT, Step::PrivateTmp, mount(c"none", target, libc::MS_REMOUNT | libc::MS_BIND | safe));
            libc::close(*slot);
        }
        for ReadOnly { target, flags, bind, asked } in &mounts.read_only {
            let failed = |result: i32| {
                if result < 0 {
                    // A number of an error has twelve bits, so the path's fits beside it.
                    tell(REPORT, Step::ReadOnly as u8, errno() | (i32::from(*asked) << ASKED_SHIFT));
                    libc::_exit(NOT_STARTED);
                }
            };
            if *bind {
                failed(mount(target, target, libc::MS_BIND | libc::MS_REC));
            }
            let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | flags;
            let result = mount(c"none", target, flags);
            // A mount below that went meanwhile, or lies under another one, cannot be written to either.
            if *bind || !matches!(errno(), libc::ENOENT | libc::EINVAL) {
                failed(result);
            }
        }
    }
}

/// Where the number of a path is in what is told with [`Step::ReadOnly`].
pub(in crate::holder) const ASKED_SHIFT: u32 = 12;

/// Mounts that the host does not see. What the host mounts and unmounts later is seen here too, so that a process
/// does not keep a disk busy that nobody else has mounted any more.
///
/// # Safety
/// Only in the child of a fork.
pub(super) unsafe fn own_mounts() -> i32 {
    // SAFETY: affects this child alone.
    unsafe {
        let result = libc::unshare(libc::CLONE_NEWNS);
        if result < 0 { result } else { mount(c"none", c"/", libc::MS_REC | libc::MS_SLAVE) }
    }
}

/// # Safety
/// Only in the child of a fork, in mounts of its own.
unsafe fn mount(source: &CStr, target: &CStr, flags: libc::c_ulong) -> i32 {
    // SAFETY: both are C strings; no file system type and no data are needed for these flags.
    unsafe { libc::mount(source.as_ptr(), target.as_ptr(), std::ptr::null(), flags, std::ptr::null()) }
}

/// # Safety
/// Only in the child of a fork.
unsafe fn bound(bounding: u64) {
    // SAFETY: changes this child's capabilities only.
    unsafe {
        for capability in 0..CAPABILITY_MAX {
            let has = libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0);
            if has < 0 {
                break;
            }
            if has == 1 && bounding & (1 << capability) == 0 {
                check(REPORT, Step::Capabilities, libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0));
            }
        }
        // What could be inherited by exec is no part of the bounding set's.
        let (permitted, effective) = own();
        set(permitted, effective, 0);
    }
}

/// # Safety
/// Only in the child of a fork.
unsafe fn give(ambient: u64) {
    // SAFETY: changes this child's capabilities only.
    unsafe {
        // Root goes on to have all that it may have; others have nothing else.
        let kept = if libc::geteuid() == 0 { own().0 } else { ambient };
        set(kept, kept, ambient);
        for capability in 0..CAPABILITY_MAX {
            if ambient & (1 << capability) != 0 {
                let raised = libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0);
                check(REPORT, Step::Capabilities, raised);
            }
        }
    }
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, of which there are two: the lower and the upper half.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of 64 bits")]
const fn halves(bits: u64) -> [u32; 2] {
    [bits as u32, (bits >> 32) as u32]
}

/// # Safety
/// Only in the child of a fork.
unsafe fn own() -> (u64, u64) {
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [Half::default(); 2];
    // SAFETY: both structures are of the version that the header names.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    // SAFETY: ends the child if it failed.
    unsafe { check_at(Step::Capabilities, result) };
    let [low, high] = data;
    let whole = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    (whole(low.permitted, high.permitted), whole(low.effective, high.effective))
}

/// # Safety
/// Only in the child of a fork.
unsafe fn set(permitted: u64, effective: u64, inheritable: u64) {
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let (p, e, i) = (halves(permitted), halves(effective), halves(inheritable));
    let data = [
        Half { permitted: p[0], effective: e[0], inheritable: i[0] },
        Half { permitted: p[1], effective: e[1], inheritable: i[1] },
    ];
    // SAFETY: both structures are of the version that the header names; ends the child if it failed.
    unsafe { check_at(Step::Capabilities, libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr())) };
}
