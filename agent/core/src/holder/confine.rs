//! What the holder confines a process by: user, resource limits, limits of its control group, capabilities, mounts.
//!
//! The types are the wire's; what they mean in files of cgroup version 2 is said here too, because that needs no
//! system and is tested without one.

use serde::{Deserialize, Serialize};

use super::protocol::ProcKey;

/// The period of `cpu.max`, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The smallest quota that the kernel takes.
const CPU_QUOTA_LEAST_US: u64 = 1_000;
/// The weight of `cpu.weight` and `io.weight` when nothing was written.
const WEIGHT: u32 = 100;

/// How the reason of a failed start begins when it was a limit that this host would not set.
const LIMIT_STEPS: [&str; 3] = ["set limit ", "set nice", "set the out-of-memory score"];

/// Whether the words of a failed start tell of a limit that could not be had, and not of anything else.
#[must_use]
pub fn tells_of_a_limit(message: &str) -> bool {
    LIMIT_STEPS.iter().any(|step| message.starts_with(step))
}

/// User and groups, already resolved to numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// One resource limit; `u64::MAX` is "no limit".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `nofile`, `nproc`, `core`, `memlock`, `stack`, `fsize`, `as`, `cpu`, `data`.
    pub resource: String,
    /// What it starts with.
    pub soft: u64,
    /// How far it may raise it.
    pub hard: u64,
}

/// Limits of the whole tree, by its control group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_max: Option<u64>,
    /// CPU, in thousandths of one core.
    pub cpu_millis: Option<u64>,
    /// Tasks.
    pub tasks_max: Option<u64>,
    /// Bytes of memory that are not taken from it.
    pub memory_min: Option<u64>,
    /// Bytes of memory above which it is slowed.
    pub memory_high: Option<u64>,
    /// Bytes of swap.
    pub memory_swap_max: Option<u64>,
    /// Its share of the cores when they are short.
    pub cpu_weight: Option<u32>,
    /// The cores it runs on, as the kernel lists them (`0-3,8`).
    pub cpus: Option<String>,
    /// Bytes read from each disk in a second.
    pub io_read_max: Option<u64>,
    /// Bytes written to each disk in a second.
    pub io_write_max: Option<u64>,
    /// Its share of the disks when they are short.
    pub io_weight: Option<u32>,
}

/// What is written into a control group for one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The controller that must be enabled.
    pub controller: &'static str,
    /// The file; where the kernel does not have it, the next.
    pub files: &'static [&'static str],
    /// What is written, each by a write of its own.
    pub lines: Vec<String>,
    /// Whether it is asked for, and not only put back to what it is when nothing is said.
    pub asked: bool,
}

/// A controller, its files, and whether and what is written.
type Row = (&'static str, &'static [&'static str], (bool, Vec<String>));

impl Limits {
    /// What is written for all limits; `disks` are numbers of whole disks (`8:0`). Those that are not asked for are
    /// put to what they are in a fresh group.
    #[must_use]
    pub fn settings(&self, disks: &[String]) -> Vec<Setting> {
        let bytes = |value: Option<u64>, none: &str| {
            (value.is_some(), vec![value.map_or_else(|| none.to_owned(), |bytes| bytes.to_string())])
        };
        let quota = self.cpu_millis.map_or_else(
            || "max".to_owned(),
            |millis| (millis.saturating_mul(CPU_PERIOD_US) / 1_000).max(CPU_QUOTA_LEAST_US).to_string(),
        );
        let weight = |weight: Option<u32>| (weight.is_some(), weight.unwrap_or(WEIGHT));
        let (cpu_weighed, cpu_weight) = weight(self.cpu_weight);
        let (io_weighed, io_weight) = weight(self.io_weight);
        let rate = |rate: Option<u64>| rate.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        let (read, write) = (rate(self.io_read_max), rate(self.io_write_max));
        let io = disks.iter().map(|disk| format!("{disk} rbps={read} wbps={write}")).collect();
        let rows: [Row; 10] = [
            ("cpu", &["cpu.max"], (self.cpu_millis.is_some(), vec![format!("{quota} {CPU_PERIOD_US}")])),
            ("cpu", &["cpu.weight"], (cpu_weighed, vec![cpu_weight.to_string()])),
            ("cpuset", &["cpuset.cpus"], cores(self.cpus.as_deref())),
            ("io", &["io.max"], (self.io_read_max.is_some() || self.io_write_max.is_some(), io)),
            // The file's name depends on who shares out the disk.
            ("io", &["io.weight", "io.bfq.weight"], (io_weighed, vec![format!("default {io_weight}")])),
            ("memory", &["memory.min"], bytes(self.memory_min, "0")),
            ("memory", &["memory.high"], bytes(self.memory_high, "max")),
            ("memory", &["memory.swap.max"], bytes(self.memory_swap_max, "max")),
            ("memory", &["memory.max"], bytes(self.memory_max, "max")),
            ("pids", &["pids.max"], bytes(self.tasks_max, "max")),
        ];
        let setting = |(controller, files, (asked, lines))| Setting { controller, files, lines, asked };
        rows.into_iter().map(setting).collect()
    }

    /// The controllers that are needed to enforce what is asked.
    pub fn controllers(&self) -> impl Iterator<Item = &'static str> {
        let mut asked: Vec<_> =
            self.settings(&[]).into_iter().filter(|s| s.asked).map(|s| s.controller).collect();
        asked.dedup();
        asked.into_iter()
    }
}

/// An empty list is what the kernel takes for "all"; written as a line, because a write of nothing is none.
fn cores(cpus: Option<&str>) -> (bool, Vec<String>) {
    (cpus.is_some(), vec![cpus.unwrap_or("\n").to_owned()])
}

/// Capabilities by the bits of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Those it can ever have; none means all that the holder has.
    pub bounding: Option<u64>,
    /// Those it starts with although it is not root.
    pub ambient: u64,
}

/// Folders that take the place of `/tmp` and `/var/tmp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateTmp {
    /// Of `/tmp`.
    pub tmp: String,
    /// Of `/var/tmp`.
    pub var_tmp: String,
}

/// What a process sees of its host, and may do on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// Its priority among others on a core.
    pub nice: i32,
    /// Its capabilities; none leaves them as the user's change leaves them.
    pub capabilities: Option<Capabilities>,
    /// Its own `/tmp` and `/var/tmp`.
    pub private_tmp: Option<PrivateTmp>,
    /// Paths without links in them that it cannot write to, with everything mounted below.
    pub read_only_paths: Vec<String>,
}

impl Isolation {
    /// Whether it needs mounts of its own.
    #[must_use]
    pub fn has_mounts(&self) -> bool {
        self.private_tmp.is_some() || !self.read_only_paths.is_empty()
    }
}

/// Changes resource limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRlimit {
    /// Of which.
    pub key: ProcKey,
    /// The new limits; those not named stay.
    pub limits: Vec<Rlimit>,
}

/// Changes everything that can be changed while a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLimits {
    /// Of which.
    pub key: ProcKey,
    /// Limits of the tree: those that are not given are lifted.
    pub limits: Limits,
    /// Resource limits of the main process; those not named stay.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// How much of its output is kept; none means as before. Where it goes stays.
    #[serde(default)]
    pub log: Option<super::protocol::LogSpec>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(limits: &Limits, file: &str) -> (bool, Vec<String>) {
        let settings = limits.settings(&["8:0".to_owned(), "259:1".to_owned()]);
        let setting = settings.into_iter().find(|s| s.files.contains(&file)).expect("the file is written");
        (setting.asked, setting.lines)
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let limits = Limits {
            memory_max: Some(1 << 30),
            cpu_millis: Some(1_500),
            cpus: Some("0-3,8".to_owned()),
            io_write_max: Some(1_000_000),
            io_weight: Some(50),
            ..Limits::default()
        };
        let asked = |file: &str| {
            let (asked, lines) = written(&limits, file);
            assert!(asked, "{file}");
            lines.join(";")
        };
        assert_eq!(asked("memory.max"), "1073741824");
        assert_eq!(asked("cpu.max"), "150000 100000");
        assert_eq!(asked("cpuset.cpus"), "0-3,8");
        assert_eq!(asked("io.max"), "8:0 rbps=max wbps=1000000;259:1 rbps=max wbps=1000000");
        assert_eq!(asked("io.bfq.weight"), "default 50");
        assert_eq!(limits.controllers().collect::<Vec<_>>(), ["cpu", "cpuset", "io", "memory"]);
    }

    #[test]
    fn what_is_not_asked_is_put_back() {
        let none = Limits::default();
        for (file, value) in [
            ("cpu.max", "max 100000"),
            ("cpu.weight", "100"),
            ("cpuset.cpus", "\n"),
            ("memory.min", "0"),
            ("memory.max", "max"),
            ("pids.max", "max"),
        ] {
            assert_eq!(written(&none, file), (false, vec![value.to_owned()]), "{file}");
        }
        assert_eq!(none.controllers().count(), 0);
        assert_eq!(
            written(&Limits { cpu_millis: Some(1), ..none }, "cpu.max").1,
            ["1000 100000"],
            "never below what the kernel takes"
        );
    }

    #[test]
    fn only_limits_tell_of_limits() {
        assert!(tells_of_a_limit("set limit nofile: Operation not permitted"));
        assert!(!tells_of_a_limit("exec /opt/limit/bin/x: No such file or directory"));
    }
}
