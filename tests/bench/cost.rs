//! What a process of the system costs while nothing happens, as the kernel counts it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Memory of a process, in KiB: shared pages count in proportion.
pub(crate) fn pss_kib(pid: u64) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// CPU time that a process has used.
fn cpu(pid: u64) -> anyhow::Result<Duration> {
    // schedstat counts nanoseconds of one thread; ticks of ten milliseconds would hide what is measured here.
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        total += text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// The share of one core that these processes use together, in percent, over `window`.
pub(crate) fn cpu_percent(pids: &[u64], window: Duration) -> anyhow::Result<f64> {
    let all = || pids.iter().map(|pid| cpu(*pid)).sum::<anyhow::Result<Duration>>();
    let (begin, before) = (Instant::now(), all()?);
    std::thread::sleep(window);
    let used = all()?.saturating_sub(before);
    Ok(100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64())
}
