//! The kernel's files, as text. Anything unexpected reads as "not told", never as zero: a host that cannot tell what a
//! process takes must not claim that it takes nothing.

use crate::pressure::Amount;

/// `usage_usec` of a cgroup's `cpu.stat`.
#[must_use]
pub fn cpu_stat(text: &str) -> Option<u64> {
    keyed(text, "usage_usec")
}

/// A file that is one number: `memory.current`, `pids.current`. `max` is no number.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Memory of a cgroup that is really in use: `memory.current` less the cache that the kernel drops first, from
/// `memory.stat`. Without the latter all counts.
#[must_use]
pub fn working_set(current: &str, stat: Option<&str>) -> Option<u64> {
    let droppable = stat.and_then(|text| keyed(text, "inactive_file")).unwrap_or(0);
    Some(number(current)?.saturating_sub(droppable))
}

/// Bytes read and written, over all devices of a cgroup's `io.stat`. Nothing ever read is an empty file, so zero.
#[must_use]
pub fn io_stat(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let words = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        words.filter_map(|n| n.parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    (sum("rbytes"), sum("wbytes"))
}

/// `MemTotal` and `MemAvailable` of `/proc/meminfo`. Kernels before 3.14 know no `MemAvailable`: there what is free or
/// only caches counts.
#[must_use]
pub fn meminfo(text: &str) -> Option<Amount> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let roughly = || {
        let free = field("MemFree")?;
        let caches = ["Buffers", "Cached"].into_iter().filter_map(field);
        Some(caches.fold(free, u64::saturating_add))
    };
    let total = field("MemTotal")?;
    Some(Amount { total, free: field("MemAvailable").or_else(roughly)?.min(total) })
}

/// `avg10` of one line (`some` or `full`) of a pressure file, in hundredths of a percent.
#[must_use]
pub fn psi(text: &str, line: &str) -> Option<u32> {
    let rest = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '))?;
    let value = rest.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, part) = value.split_once('.').unwrap_or((value, "0"));
    let digits: String = part.chars().chain("00".chars()).take(2).collect();
    let (whole, part) = (whole.parse::<u32>().ok()?, digits.parse::<u32>().ok()?);
    Some(whole.checked_mul(100)?.checked_add(part)?.min(10_000))
}

/// Busy time of all cores in `/proc/stat`, in clock ticks: all but idle, waiting for devices, and what the hypervisor
/// gave to others.
#[must_use]
pub fn busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, …; old kernels end after idle.
    let part = |index: usize| fields.get(index).copied().unwrap_or(0);
    fields.get(3)?;
    Some([0, 1, 2, 5, 6].into_iter().map(part).fold(0, u64::saturating_add))
}

/// Bytes that a process really read from and wrote to devices, from `/proc/PID/io`.
#[must_use]
pub fn proc_io(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some((field("read_bytes:")?, field("write_bytes:")?))
}

/// How many processes and threads there are, from `/proc/loadavg` (`… 2/1234 5678`).
#[must_use]
pub fn tasks(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
