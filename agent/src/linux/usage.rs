//! What the host and its processes take, read from cgroups and `/proc`.
//!
//! A process with a cgroup of its own is read there: a handful of small files, whatever runs inside. What the cgroup
//! does not tell (controllers that are not there: hybrid hosts, no delegation) is summed over the processes in it, and
//! without a cgroup over the tree of the main process. The whole of `/proc` is only gone through when that is needed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ostler_agent_core::pressure::{Amount, Disk, Readings};
use ostler_agent_core::usage::{Counters, HostLook, Look, ProcLine, Trees, Watched, parse};

/// A path below `/proc` whose absence means that the kernel does not tell.
fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// How short of things the host is. `disks` are what Ostler writes, with what each is.
pub(super) fn readings(disks: &[(&str, &Path)]) -> Readings {
    Readings {
        memory: text("/proc/meminfo").as_deref().and_then(parse::meminfo),
        stall: text("/proc/pressure/memory").and_then(|text| parse::psi(&text, "full")),
        disks: disks.iter().filter_map(|(what, path)| disk(what, path)).collect(),
        pids: pids(),
    }
}

fn disk(what: &str, path: &Path) -> Option<Disk> {
    // A folder that is made later lies on the file system of the nearest one that is there.
    let stat = path.ancestors().find_map(|path| nix::sys::statvfs::statvfs(path).ok())?;
    let unit = stat.fragment_size();
    let space = Amount {
        total: stat.blocks().saturating_mul(unit),
        free: stat.blocks_available().saturating_mul(unit),
    };
    let files = Amount { total: stat.files(), free: stat.files_available() };
    // Its number on Linux: what `stat` tells of any file of it.
    let device = path.ancestors().find_map(|path| fs::metadata(path).ok())?.dev();
    Some(Disk { what: what.to_owned(), device, space, files: (files.total > 0).then_some(files) })
}

/// Threads count against both limits; the lower one ends first.
fn pids() -> Option<Amount> {
    let limit = |path: &str| text(path).and_then(|text| parse::number(&text));
    let limits = [limit("/proc/sys/kernel/pid_max"), limit("/proc/sys/kernel/threads-max")];
    let total = limits.into_iter().flatten().min()?;
    let used = parse::tasks(&text("/proc/loadavg")?)?;
    Some(Amount { total, free: total.saturating_sub(used) })
}

/// Looks at the host and these processes.
pub(super) fn look(watched: &[Watched]) -> HostLook {
    let mut proc = Proc::default();
    let roots: Vec<i32> = watched.iter().filter_map(|w| i32::try_from(w.pid).ok()).collect();
    let one = |watched: &Watched| {
        let counters = match watched.cgroup.as_deref().map(Path::new).filter(|path| path.is_dir()) {
            Some(path) => in_cgroup(path, &mut proc),
            None => proc.tree(i32::try_from(watched.pid).ok()?, &roots)?,
        };
        Some(Look { uid: watched.uid, incarnation: watched.incarnation, counters })
    };
    let processes = watched.iter().filter_map(one).collect();
    let ticks = text("/proc/stat").and_then(|text| parse::busy_ticks(&text));
    let memory = text("/proc/meminfo").as_deref().and_then(parse::meminfo);
    HostLook {
        cpu_us: ticks.map(|ticks| ticks.saturating_mul(tick_us())),
        memory: memory.map(|m| m.total.saturating_sub(m.free)),
        processes,
    }
}

fn in_cgroup(path: &Path, proc: &mut Proc) -> Counters {
    let file = |name: &str| text(path.join(name));
    let memory = file("memory.current")
        .and_then(|current| parse::working_set(&current, file("memory.stat").as_deref()));
    let tasks = file("pids.current").and_then(|text| parse::number(&text));
    let told = Counters {
        cpu_us: file("cpu.stat").and_then(|text| parse::cpu_stat(&text)),
        memory,
        tasks: tasks.and_then(|n| u32::try_from(n).ok()),
        read: None,
        write: None,
    };
    let io = file("io.stat").map(|text| parse::io_stat(&text));
    if told.cpu_us.is_some() && told.memory.is_some() && told.tasks.is_some() && io.is_some() {
        return Counters { read: io.map(|io| io.0), write: io.map(|io| io.1), ..told };
    }
    let summed = proc.members(path);
    let (read, write) = (io.map(|io| io.0).or(summed.read), io.map(|io| io.1).or(summed.write));
    Counters {
        cpu_us: told.cpu_us.or(summed.cpu_us),
        memory: told.memory.or(summed.memory),
        tasks: told.tasks.or(summed.tasks),
        read,
        write,
    }
}

/// `/proc`, read as far as it is needed.
#[derive(Default)]
struct Proc {
    trees: Option<Trees>,
}

impl Proc {
    /// The tree of a main process, on a host without cgroups.
    fn tree(&mut self, root: i32, roots: &[i32]) -> Option<Counters> {
        let trees = self.trees.get_or_insert_with(|| Trees::sort(all(), roots.iter().copied()));
        let members = trees.members(root);
        (!members.is_empty()).then(|| summed(members))
    }

    /// What is in a cgroup and those inside it, process by process.
    fn members(&mut self, path: &Path) -> Counters {
        let mut members = Vec::new();
        let mut waiting = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            let pids = text(path.join("cgroup.procs")).unwrap_or_default();
            members.extend(pids.lines().filter_map(|pid| pid.parse().ok()).filter_map(line));
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        summed(&members)
    }
}

fn line(pid: i32) -> Option<ProcLine> {
    ProcLine::parse(&text(format!("/proc/{pid}/stat"))?)
}

fn all() -> Vec<ProcLine> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(line).collect()
}

fn summed(members: &[ProcLine]) -> Counters {
    let io: BTreeMap<i32, (u64, u64)> = members
        .iter()
        .filter_map(|m| Some((m.pid, parse::proc_io(&text(format!("/proc/{}/io", m.pid))?)?)))
        .collect();
    let sum = |of: fn(&(u64, u64)) -> u64| (io.len() == members.len()).then(|| io.values().map(of).sum());
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let counters = Counters::summed(members, tick_us(), page);
    Counters { read: sum(|io| io.0), write: sum(|io| io.1), ..counters }
}

/// Microseconds of a clock tick.
fn tick_us() -> u64 {
    1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use ostler_schemas::Uid;

    use super::*;

    fn watched(pid: u32, cgroup: Option<String>) -> Watched {
        Watched { uid: Uid::from_bytes([1; 16]), incarnation: 1, pid, cgroup }
    }

    #[test]
    fn this_host_can_be_read() {
        let readings = readings(&[("state", Path::new("/nowhere/at/all"))]);
        let memory = readings.memory.expect("every kernel tells");
        assert!(memory.total > 0 && memory.free <= memory.total);
        assert_eq!(readings.disks.len(), 1, "the file system of the root");
        assert!(readings.pids.is_some_and(|p| p.total > p.free));
    }

    #[test]
    fn this_process_can_be_read_without_a_cgroup() {
        let look = look(&[watched(std::process::id(), None), watched(u32::MAX, None)]);
        assert!(look.cpu_us.is_some() && look.memory.is_some());
        let [one] = look.processes.as_slice() else { panic!("one lives: {look:?}") };
        assert!(one.counters.memory.is_some_and(|m| m > 1 << 20) && one.counters.tasks.is_some());
    }

    #[test]
    fn a_cgroup_without_controllers_is_summed_over_its_processes() {
        let dir = tempfile::tempdir().expect("a folder");
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("makes");
        fs::write(dir.path().join("cpu.stat"), "usage_usec 77\n").expect("writes");
        fs::write(inner.join("cgroup.procs"), format!("{}\n999999999\n", std::process::id()))
            .expect("writes");
        let cgroup = dir.path().to_str().map(str::to_owned);
        let look = look(&[watched(1, cgroup.clone())]);
        let counters = look.processes[0].counters;
        assert_eq!(counters.cpu_us, Some(77), "what it tells is taken");
        assert!(counters.memory.is_some_and(|m| m > 1 << 20), "the rest is summed");
        for (name, content) in [
            ("memory.current", "5000\n"),
            ("memory.stat", "inactive_file 4000\n"),
            ("pids.current", "3\n"),
            ("io.stat", ""),
        ] {
            fs::write(dir.path().join(name), content).expect("writes");
        }
        let counters = super::look(&[watched(1, cgroup)]).processes[0].counters;
        let told =
            Counters { cpu_us: Some(77), memory: Some(1000), tasks: Some(3), read: Some(0), write: Some(0) };
        assert_eq!(counters, told);
    }
}
