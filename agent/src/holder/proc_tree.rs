//! Reading `/proc`: who a process is, and, on hosts without cgroups, which processes belong to an incarnation.
//!
//! A process belongs to it when it is the main process, in its session or process group, a descendant of one that
//! belongs, or bears the holder's marks (`OSTLER_UID` and others) in the environment it was started with. Only a process that changes its session, outlives its parents *and* was given another environment escapes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use ostler_agent_core::holder::protocol::ProcKey;
use rustix::process::{Pid, PidfdFlags};

use super::sys;

/// How often a tree is gone through in one go: each round can only find what was forked during the last one.
const ROUNDS: usize = 8;

/// Most environments, and all lines of `stat`, are shorter.
const USUAL: usize = 4096;

/// One line of `/proc/PID/stat`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) zombie: bool,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// In clock ticks since boot.
    pub(super) start_time: u64,
    /// How a corpse that nobody has reaped yet ended, as a wait status. The kernel says 0 to those who may not look
    /// into the process: the holder may, it is root or of the same user.
    pub(super) wait_status: Option<i32>,
}

/// The facts of one process; none when there is none.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse(&String::from_utf8_lossy(&read(pid, "stat")?))
}

/// A whole file of a process. One call reads most of them: thousands are read at a time.
fn read(pid: i32, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    File::open(format!("/proc/{pid}/{name}")).ok()?.take(u64::MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn parse(text: &str) -> Option<Stat> {
    let pid = text.split(' ').next()?.parse().ok()?;
    // The name may hold spaces and parentheses: fields are counted from its last one.
    let rest = text.get(text.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let zombie = matches!(*fields.first()?, "Z" | "X");
    let wait_status = fields.get(49).filter(|_| zombie).and_then(|status| status.trim().parse().ok());
    Some(Stat {
        pid,
        zombie,
        wait_status,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// The cgroup of a process, as the kernel names it: from the root of the hierarchy.
pub(super) fn cgroup(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // Version 1 hierarchies come first on hybrid hosts.
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// A pidfd that is sure to mean the process with that start time.
pub(super) fn open_verified(pid: i32, start_time: u64) -> Option<OwnedFd> {
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Read after opening: if the start time is right now, the descriptor was of that process.
    (stat(pid)?.start_time == start_time).then_some(pidfd)
}

/// Who a tree is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub(super) key: ProcKey,
    /// Of a run beside the incarnation: its number.
    pub(super) run: Option<u64>,
    pub(super) pid: i32,
    pub(super) start_time: u64,
}

/// Every process of the host at one moment, indexed. One look serves all trees that are of interest in a turn.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    all: BTreeMap<i32, Stat>,
    by_parent: BTreeMap<i32, Vec<i32>>,
    by_session: BTreeMap<i32, Vec<i32>>,
    by_group: BTreeMap<i32, Vec<i32>>,
    by_marks: BTreeMap<(Vec<u8>, Vec<u8>), Vec<i32>>,
}

impl Snapshot {
    /// Looks. Marks count only if they are of the holder with this folder: another one on the same host may have
    /// the same processes in its care, as in a test or after a copy of its documents.
    pub(super) fn take(holder: &Path) -> Self {
        let mut snapshot = Self::default();
        let Ok(entries) = fs::read_dir("/proc") else { return snapshot };
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for stat in pids.filter(|pid| *pid != own).filter_map(stat) {
            snapshot.all.insert(stat.pid, stat);
            snapshot.by_parent.entry(stat.parent).or_default().push(stat.pid);
            snapshot.by_session.entry(stat.session).or_default().push(stat.pid);
            snapshot.by_group.entry(stat.group).or_default().push(stat.pid);
            if let Some(marks) = marks_of(stat.pid, holder) {
                snapshot.by_marks.entry(marks).or_default().push(stat.pid);
            }
        }
        snapshot
    }

    /// The living processes of an incarnation.
    pub(super) fn members(&self, root: Root) -> Vec<Stat> {
        // Once another process has the main one's number, its session and group mean that other one.
        let number_is_ours = self.all.get(&root.pid).is_none_or(|stat| stat.start_time == root.start_time);
        let mut waiting: Vec<i32> = Vec::new();
        if number_is_ours {
            waiting.push(root.pid);
            waiting.extend(self.by_session.get(&root.pid).into_iter().flatten());
            waiting.extend(self.by_group.get(&root.pid).into_iter().flatten());
        }
        let marks = (root.key.uid.to_string().into_bytes(), incarnation_of(root).into_bytes());
        waiting.extend(self.by_marks.get(&marks).into_iter().flatten());
        let mut found = BTreeMap::new();
        while let Some(pid) = waiting.pop() {
            let Some(stat) = self.all.get(&pid).filter(|stat| stat.start_time >= root.start_time) else {
                continue;
            };
            if found.insert(pid, *stat).is_none() {
                waiting.extend(self.by_parent.get(&pid).into_iter().flatten());
            }
        }
        found.into_values().filter(|stat| !stat.zombie).collect()
    }
}

/// Signals every member once.
pub(super) fn signal(root: Root, holder: &Path, signal: i32) {
    for member in Snapshot::take(holder).members(root) {
        signal_one(member, signal);
    }
}

/// SIGKILLs the members of all these trees until none is found, or for as many rounds as make sense in one go.
pub(super) fn kill(roots: &[Root], holder: &Path) {
    for _ in 0..ROUNDS {
        let snapshot = Snapshot::take(holder);
        let members: Vec<Stat> = roots.iter().flat_map(|root| snapshot.members(*root)).collect();
        if members.is_empty() {
            return;
        }
        for member in members {
            signal_one(member, rustix::process::Signal::KILL.as_raw());
        }
    }
}

fn signal_one(member: Stat, signal: i32) {
    if let Some(pidfd) = open_verified(member.pid, member.start_time) {
        // One that ended meanwhile needs no signal.
        drop(sys::pidfd_signal(pidfd.as_fd(), signal));
    }
}

/// The names of the marks: the process, its start, the folder of its holder, and the run, if it is one.
pub(super) const MARKS: [&str; 4] = ["OSTLER_UID", "OSTLER_INCARNATION", "OSTLER_HOLDER", "OSTLER_RUN"];

/// What stands before the number of a run where its incarnation is named.
const RUN: &str = ".run";

/// The marks every incarnation's environment has. That of a run is empty for what is none.
pub(super) fn marks((key, run): (ProcKey, Option<u64>), holder: &Path) -> [(&'static str, String); 4] {
    let [uid, incarnation, folder, number] = MARKS;
    [
        (uid, key.uid.to_string()),
        (incarnation, key.incarnation.to_string()),
        (folder, holder.display().to_string()),
        (number, run.map_or(String::new(), |run| run.to_string())),
    ]
}

/// How a tree is told apart from others of its process: a run is no part of the incarnation that it runs beside.
fn incarnation_of(root: Root) -> String {
    let Root { key, run, .. } = root;
    run.map_or_else(|| key.incarnation.to_string(), |run| format!("{}{RUN}{run}", key.incarnation))
}

/// SIGKILLs everything that bears the marks of a run of this holder's folder.
pub(super) fn kill_runs(holder: &Path) {
    for _ in 0..ROUNDS {
        let snapshot = Snapshot::take(holder);
        let runs = snapshot
            .by_marks
            .iter()
            .filter(|((_, tree), _)| tree.windows(RUN.len()).any(|w| w == RUN.as_bytes()));
        let members = runs.flat_map(|(_, pids)| pids).filter_map(|pid| snapshot.all.get(pid));
        let members: Vec<Stat> = members.filter(|stat| !stat.zombie).copied().collect();
        if members.is_empty() {
            return;
        }
        members.into_iter().for_each(|member| signal_one(member, rustix::process::Signal::KILL.as_raw()));
    }
}

/// Process and start, from the environment of a process that this holder has marked.
fn marks_of(pid: i32, holder: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    let environment = read(pid, "environ")?;
    let value = |name: &str| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let [uid, incarnation, folder, run] = MARKS;
    if value(folder)? != holder.display().to_string().as_bytes() {
        return None;
    }
    let mut tree = value(incarnation)?.to_vec();
    if let Some(run) = value(run).filter(|run| !run.is_empty()) {
        tree.extend_from_slice(RUN.as_bytes());
        tree.extend_from_slice(run);
    }
    Some((value(uid)?.to_vec(), tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 1 40 39 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9 10";
        let stat = parse(text).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.group, stat.session), (42, 1, 40, 39));
        assert_eq!(stat.start_time, 777);
        assert_eq!((stat.zombie, stat.wait_status), (false, None));
        assert_eq!(parse("42 (broken"), None);
    }

    #[test]
    fn a_wrong_start_time_opens_nothing() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start_time = stat(own).unwrap().start_time;
        assert!(open_verified(own, start_time).is_some());
        assert!(open_verified(own, start_time + 1).is_none());
    }
}
