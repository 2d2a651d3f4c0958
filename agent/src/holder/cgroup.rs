//! Cgroups of incarnations: each start gets a fresh one, which is never used again.
//!
//! Fresh because some kernels kill at birth whatever is created in a cgroup that was ever killed. Members are born in
//! it, or join by writing themselves into `cgroup.procs`, which works on every kernel with cgroup2.
//!
//! Without controllers (hybrid hosts) the cgroup still names the tree and kills it at once; limits that need a
//! controller are reported as not enforced.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ostler_agent_core::holder::confine::Setting;
use ostler_agent_core::holder::protocol::{Limits, ProcKey};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{Pid, PidfdFlags};

use super::launch::say;
use super::options::CgroupChoice;
use super::sys;

/// Controllers whose limits the holder can set.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// The leaf in which the service manager starts the holder (`DelegateSubgroup=`); processes get theirs beside it.
const OWN_LEAF: &str = "holder";

/// The unit beside the holder's that has no process of its own: where work runs when the service manager cannot start
/// the holder in a leaf (systemd before 254).
const WORK_UNIT: &str = "ostler-work.service";
/// The group of the process that keeps the place of that unit.
const KEEPER: &str = "keeper";
/// What the service manager marks groups with that it leaves to others.
const DELEGATED: &str = "trusted.delegate";

/// A cgroup below which incarnations get theirs.
#[derive(Debug)]
pub(super) struct Cgroups {
    base: PathBuf,
    controllers: BTreeSet<String>,
    /// Nobody else enables controllers there.
    ours_alone: bool,
}

impl Cgroups {
    /// Finds the place, and makes it ready. None when there is none, with the reason for the log.
    pub(super) fn find(choice: &CgroupChoice) -> Result<Self, String> {
        let (base, ours_alone) = match choice {
            CgroupChoice::None => return Err("switched off".to_owned()),
            CgroupChoice::Below(path) => {
                fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
                (path.clone(), true)
            }
            CgroupChoice::Auto => own_delegated()?,
        };
        let procs = base.join("cgroup.procs");
        rustix::fs::accessat(CWD, &procs, Access::WRITE_OK, AtFlags::EACCESS)
            .map_err(|error| format!("{}: {error}", procs.display()))?;
        if ours_alone {
            enable_controllers(&base);
        }
        let enabled = fs::read_to_string(base.join("cgroup.subtree_control")).unwrap_or_default();
        let controllers = enabled.split_whitespace().map(str::to_owned).collect();
        Ok(Self { base, controllers, ours_alone })
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    pub(super) fn controllers(&self) -> impl Iterator<Item = &str> {
        self.controllers.iter().map(String::as_str)
    }

    /// A fresh cgroup with its limits, and the controllers of limits that this host cannot enforce.
    ///
    /// # Errors
    /// In words: the step and the system's reason.
    pub(super) fn make(&self, key: ProcKey, limits: &Limits) -> Result<(PathBuf, Vec<String>), String> {
        self.make_named(&key.to_string(), limits)
    }

    /// As [`Cgroups::make`], under a name; another than that if it is in use.
    pub(super) fn make_named(&self, name: &str, limits: &Limits) -> Result<(PathBuf, Vec<String>), String> {
        let mut path = self.base.join(name);
        let mut again = 0;
        while let Err(error) = fs::create_dir(&path) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(say("make its cgroup", &error));
            }
            again += 1;
            path = self.base.join(format!("{name}.{again}"));
        }
        let asked = limits.settings(&self.disks(limits)).into_iter().filter(|setting| setting.asked);
        match self.enable_again(&path).and_then(|()| self.write(&path, asked)) {
            Ok(unenforced) => {
                self.kill_as_one(&path);
                Ok((path, unenforced))
            }
            Err(error) => {
                remove(&path);
                Err(error)
            }
        }
    }

    /// When everything below a unit has ended, its keeper too, the service manager removes its group and makes another,
    /// in which nothing is enabled. Not before its keeper has moved to where it stays: with controllers it could not.
    fn enable_again(&self, path: &Path) -> Result<(), String> {
        let has = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        let has: BTreeSet<&str> = has.split_whitespace().collect();
        if !self.ours_alone || self.controllers.iter().all(|name| has.contains(name.as_str())) {
            return Ok(());
        }
        let empty = |group: &Path| {
            fs::read_to_string(group.join("cgroup.procs")).map_or(true, |pids| pids.trim().is_empty())
        };
        if self.base.ends_with(WORK_UNIT) && (!empty(&self.base) || empty(&self.base.join(KEEPER))) {
            return Err(format!("make its cgroup: {WORK_UNIT} is being started again"));
        }
        enable_controllers(&self.base);
        Ok(())
    }

    /// A folder that is no incarnation's, for trying something out.
    pub(super) fn make_trial(&self) -> io::Result<PathBuf> {
        let path = self.base.join("trial");
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(path),
        }
    }

    /// Changes the limits of a cgroup in use to exactly these, and gives the controllers of those that this host
    /// cannot enforce.
    ///
    /// # Errors
    /// In words. What was changed before the one that failed stays changed.
    pub(super) fn change(&self, path: &Path, limits: &Limits) -> Result<Vec<String>, String> {
        self.write(path, limits.settings(&self.disks(limits)))
    }

    fn write(&self, path: &Path, settings: impl IntoIterator<Item = Setting>) -> Result<Vec<String>, String> {
        let mut unenforced = BTreeSet::new();
        for setting in settings {
            if !self.controllers.contains(setting.controller) {
                unenforced.extend(setting.asked.then(|| setting.controller.to_owned()));
                continue;
            }
            match write_setting(path, &setting) {
                Ok(()) => {}
                // Without swap, or with a scheduler of disks that cannot share them out, there is no such file.
                Err((_, error)) if error.kind() == io::ErrorKind::NotFound => {
                    unenforced.extend(setting.asked.then(|| setting.controller.to_owned()));
                }
                Err((file, error)) if setting.asked => {
                    return Err(say(&format!("set limit {file}"), &error));
                }
                Err(_) if setting.controller == "cpuset" => {
                    lift_cores(path).map_err(|error| say("lift limit cpuset.cpus", &error))?;
                }
                // It had no limit to lift.
                Err(_) => {}
            }
        }
        Ok(unenforced.into_iter().collect())
    }

    /// A process that loses a part of itself for want of memory is seldom of use: the whole tree goes.
    fn kill_as_one(&self, path: &Path) {
        if self.controllers.contains("memory") {
            // Kernels before 4.19 kill one process.
            drop(fs::write(path.join("memory.oom.group"), "1"));
        }
    }

    /// The whole disks of the host, where limits of them are asked for or can be in force.
    fn disks(&self, limits: &Limits) -> Vec<String> {
        let asked = limits.io_read_max.is_some() || limits.io_write_max.is_some();
        if asked || self.controllers.contains("io") {
            whole_disks(Path::new("/sys/block"))
        } else {
            Vec::new()
        }
    }

    /// Removes what former holders left: cgroups of incarnations in which nothing runs and which nobody knows.
    pub(super) fn remove_strays(&self, known: &BTreeSet<PathBuf>) {
        for path in children(&self.base) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let ours = name.split('.').next().is_some_and(|uid| uid.len() == 32);
            if ours && !known.contains(&path) {
                remove(&path);
            }
        }
    }
}

/// Writes one setting into the first of its files that there is. Several lines are of several disks: those that
/// cannot be limited (they went, or are no real disks) matter only if none can.
fn write_setting(path: &Path, setting: &Setting) -> Result<(), (&'static str, io::Error)> {
    let Some(file) = setting.files.iter().find(|file| path.join(file).exists()) else {
        let file = setting.files.first().copied().unwrap_or_default();
        return Err((file, io::ErrorKind::NotFound.into()));
    };
    let mut failed = None;
    let mut written = setting.lines.is_empty();
    for line in &setting.lines {
        match OpenOptions::new()
            .write(true)
            .open(path.join(file))
            .and_then(|mut f| f.write_all(line.as_bytes()))
        {
            Ok(()) => written = true,
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if !written => Err((file, error)),
        Some(_) | None => Ok(()),
    }
}

/// The kernel does not let a group with processes in it be without cores of its own again (`ENOSPC`). Naming all that
/// the group above has comes to the same.
fn lift_cores(path: &Path) -> io::Result<()> {
    let file = path.join("cpuset.cpus");
    if fs::read_to_string(&file)?.trim().is_empty() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(path);
    let all = fs::read_to_string(above.join("cpuset.cpus.effective"))?;
    OpenOptions::new().write(true).open(file)?.write_all(all.trim().as_bytes())
}

/// The numbers of whole disks, as the kernel names them to `io.max`. Those without a medium and those in memory are
/// no disks.
fn whole_disks(blocks: &Path) -> Vec<String> {
    let entries = fs::read_dir(blocks).into_iter().flatten().flatten();
    let disks = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        if ["ram", "zram", "loop"].iter().any(|kind| name.starts_with(kind)) {
            return None;
        }
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        let size: u64 = read("size")?.trim().parse().ok()?;
        (size > 0).then(|| read("dev").map(|text| text.trim().to_owned()))?
    });
    let mut disks: Vec<String> = disks.collect();
    disks.sort_unstable();
    disks
}

/// The controllers of limits that a host without cgroups cannot enforce.
pub(super) fn unenforced_without(limits: &Limits) -> Vec<String> {
    limits.controllers().map(str::to_owned).collect()
}

/// The holder's own cgroup, or its parent when the service manager gave it a leaf of its own, or the unit beside it
/// that is for work alone; and whether controllers may be enabled there.
///
/// Never in its own: a cgroup with controllers for its children may have no processes of its own, so a holder
/// that enabled them in the cgroup it is started in could not be started there again while its processes live.
fn own_delegated() -> Result<(PathBuf, bool), String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let mount = cgroup2_mount(&mounts).ok_or("no cgroup2 file system is mounted")?;
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    // Version 1 hierarchies come first on hybrid hosts.
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or("not in a cgroup2")?;
    if own == "/" {
        return Err("the holder runs in the root cgroup, which was not delegated to it".to_owned());
    }
    let path = mount.join(own.trim_start_matches('/'));
    match path.parent().filter(|_| path.file_name().is_some_and(|name| name == OWN_LEAF)) {
        Some(parent) => Ok((parent.to_owned(), true)),
        None => Ok(work_unit(&path).map_or((path, false), |work| (work, true))),
    }
}

/// The group of [`WORK_UNIT`], if it was delegated and has anything to offer.
fn work_unit(own: &Path) -> Option<PathBuf> {
    let work = own.parent()?.join(WORK_UNIT);
    let mut mark = [0_u8; 8];
    let length = rustix::fs::getxattr(&work, DELEGATED, &mut mark).ok()?;
    let offers = fs::read_to_string(work.join("cgroup.controllers")).is_ok_and(|all| !all.trim().is_empty());
    (mark.get(..length) == Some(b"1") && offers).then_some(work)
}

/// Each on its own: one that is not there must not keep the others off.
fn enable_controllers(base: &Path) {
    for controller in CONTROLLERS {
        drop(fs::write(base.join("cgroup.subtree_control"), format!("+{controller}")));
    }
}

fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then_some(())?;
        left.split(' ').nth(4).map(PathBuf::from)
    })
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// Removes a cgroup and those made inside it. One that is in use stays.
pub(super) fn remove(path: &Path) {
    for child in children(path) {
        remove(&child);
    }
    drop(fs::remove_dir(path));
}

/// Whether nothing runs in it. A cgroup that is gone is empty.
pub(super) fn is_empty(path: &Path) -> bool {
    match fs::read_to_string(path.join("cgroup.events")) {
        Ok(events) => events.lines().any(|line| line == "populated 0"),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// How often the kernel killed in it for want of memory.
pub(super) fn oom_kills(path: &Path) -> u64 {
    let events = fs::read_to_string(path.join("memory.events")).unwrap_or_default();
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// SIGKILLs everything in it, also what is being created there now.
pub(super) fn kill(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_err() {
        // Kernels before 5.14: what a member creates meanwhile is caught by the next round.
        signal(path, rustix::process::Signal::KILL.as_raw());
    }
}

/// Signals every member, each through a pidfd that was checked to be a member.
pub(super) fn signal(path: &Path, signal: i32) {
    for child in children(path) {
        self::signal(&child, signal);
    }
    let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if is_member(path, pid) {
            // One that ended meanwhile needs no signal.
            drop(sys::pidfd_signal(pidfd.as_fd(), signal));
        }
    }
}

fn is_member(path: &Path, pid: Pid) -> bool {
    let own = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    // The kernel names it from the root of the hierarchy, the path starts at the mount point.
    !own.is_empty() && path.to_string_lossy().ends_with(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_among_others() {
        let text = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    31 30 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                    32 30 0:28 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mount(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount("1 2 3:4 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn what_cannot_be_enforced_is_named() {
        let limits = Limits { memory_max: Some(1), tasks_max: Some(3), ..Limits::default() };
        assert_eq!(unenforced_without(&limits), ["memory", "pids"]);
    }

    const ALL: [&str; 5] = CONTROLLERS;

    /// A folder that looks like a cgroup with all files, and a holder's place with these controllers.
    fn fake(controllers: &[&str]) -> (tempfile::TempDir, Cgroups) {
        let dir = tempfile::tempdir().unwrap();
        for setting in Limits::default().settings(&[]) {
            fs::write(dir.path().join(setting.files[0]), "").unwrap();
        }
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        let cgroups = Cgroups { base: dir.path().to_owned(), controllers, ours_alone: false };
        (dir, cgroups)
    }

    fn written(dir: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(dir.path().join(file)).unwrap()
    }

    #[test]
    fn limits_are_written_and_lifted() {
        let (dir, cgroups) = fake(&ALL);
        let limits = Limits {
            memory_max: Some(512 << 20),
            cpu_millis: Some(250),
            tasks_max: Some(100),
            memory_swap_max: Some(0),
            cpus: Some("0-1".to_owned()),
            io_weight: Some(50),
            ..Limits::default()
        };
        assert_eq!(cgroups.change(dir.path(), &limits), Ok(Vec::new()));
        for (file, text) in [
            ("memory.max", "536870912"),
            ("cpu.max", "25000 100000"),
            ("pids.max", "100"),
            ("memory.swap.max", "0"),
            ("memory.min", "0"),
            ("cpuset.cpus", "0-1"),
            ("io.weight", "default 50"),
        ] {
            assert!(written(&dir, file).starts_with(text), "{file}: {}", written(&dir, file));
        }
        for file in ["memory.max", "cpu.max"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(cgroups.change(dir.path(), &Limits::default()), Ok(Vec::new()));
        assert_eq!(
            (written(&dir, "memory.max"), written(&dir, "cpu.max")),
            ("max".to_owned(), "max 100000".to_owned())
        );
    }

    #[test]
    fn a_controller_or_file_that_is_not_there_is_named_and_the_rest_is_done() {
        let (dir, cgroups) = fake(&["memory"]);
        fs::remove_file(dir.path().join("memory.swap.max")).unwrap();
        let limits = Limits {
            memory_max: Some(1),
            memory_swap_max: Some(1),
            cpu_millis: Some(1),
            io_read_max: Some(1),
            ..Limits::default()
        };
        let lacking = cgroups.change(dir.path(), &limits).unwrap();
        assert_eq!(lacking, ["cpu", "io", "memory"], "without swap there is none to limit");
        assert_eq!(written(&dir, "memory.max"), "1");
    }

    #[test]
    fn disks_are_those_with_a_medium_that_are_not_memory() {
        let dir = tempfile::tempdir().unwrap();
        for (name, number, size) in
            [("sda", "8:0", "1000"), ("sr0", "11:0", "0"), ("loop1", "7:1", "9"), ("nvme0n1", "259:0", "5")]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("dev"), format!("{number}\n")).unwrap();
            fs::write(dir.path().join(name).join("size"), format!("{size}\n")).unwrap();
        }
        assert_eq!(whole_disks(dir.path()), ["259:0", "8:0"]);
    }
}
