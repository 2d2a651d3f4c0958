//! What this kernel, and the rights that the holder was given, can do for processes. Tried out once at the start: what
//! a version number promises, a container or a security module can forbid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsFd as _;

use rustix::process::{Resource, getrlimit};

use rustix::io::Errno;
use rustix::process::PidfdFlags;

use super::cgroup::{self, Cgroups};
use super::child;

/// Numbers of capabilities (capabilities(7)).
const CAP_SETPCAP: u32 = 8;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// Limits that templates can ask for.
const OWN_LIMITS: [(&str, Resource); 7] = [
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("core", Resource::Core),
    ("memlock", Resource::Memlock),
    ("stack", Resource::Stack),
    ("fsize", Resource::Fsize),
    ("as", Resource::As),
];

/// What is said where [`can_hold`] is not so.
pub(crate) const CANNOT_HOLD: &str =
    "this kernel has no pidfd: Linux 5.3 or newer is needed to run processes";

/// Whether the kernel gives descriptors of processes. Without them a number may mean another process by the time it is
/// used, so nothing is run at all.
pub(crate) fn can_hold() -> bool {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    // Any other failure (no descriptors left) is not the kernel's.
    !matches!(own, Err(Errno::NOSYS | Errno::PERM))
}

/// What can be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// A child can be born in its cgroup (Linux 5.7).
    pub(super) clone3: bool,
    /// A process can have mounts of its own.
    pub(super) mounts: bool,
    /// Capabilities can be given and taken.
    pub(super) capabilities: bool,
    /// Hard limits can be raised.
    pub(super) raise_limits: bool,
}

impl Abilities {
    /// Tries, except what is named in `without`.
    pub(super) fn find(cgroups: Option<&Cgroups>, without: &BTreeSet<String>) -> Self {
        let may = |name: &str| !without.contains(name);
        let has = effective_capabilities();
        Self {
            clone3: may("clone3") && cgroups.is_some_and(can_be_born_inside),
            mounts: may("mounts") && has & (1 << CAP_SYS_ADMIN) != 0 && child::can_have_mounts(),
            capabilities: may("capabilities") && has & (1 << CAP_SETPCAP) != 0,
            raise_limits: may("raise_limits") && has & (1 << CAP_SYS_RESOURCE) != 0,
        }
    }

    /// The names, for who connects.
    pub(super) fn names(self) -> Vec<String> {
        let all = [("clone3", self.clone3), ("mounts", self.mounts), ("capabilities", self.capabilities)];
        all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
    }
}

impl Abilities {
    /// The highest hard limits that can be given, by name, where there is a bound: the holder's own, unless it may
    /// raise them. Of open files the kernel gives nobody more than `fs.nr_open`.
    pub(super) fn hard_limits(self) -> BTreeMap<String, u64> {
        if self.raise_limits {
            let most = fs::read_to_string("/proc/sys/fs/nr_open").ok();
            let most = most.and_then(|text| text.trim().parse().ok());
            return most.map(|most| ("nofile".to_owned(), most)).into_iter().collect();
        }
        let own =
            OWN_LIMITS.into_iter().map(|(name, resource)| (name.to_owned(), getrlimit(resource).maximum));
        own.filter_map(|(name, most)| Some((name, most?))).collect()
    }
}

fn can_be_born_inside(cgroups: &Cgroups) -> bool {
    let Ok(path) = cgroups.make_trial() else { return false };
    let born = File::open(&path).is_ok_and(|folder| child::can_be_born_in(folder.as_fd()));
    cgroup::remove(&path);
    born
}

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}
