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

/// Ticks of a second in `/proc/PID/stat` (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;

/// The same of a whole process, also of threads that have ended meanwhile; in steps of a tick, so over a long window.
pub(crate) fn process_percent(pid: u64, window: Duration) -> anyhow::Result<f64> {
    let all = || -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = text.rsplit_once(") ").context("no stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        Ok((ticks(11).context("no utime")? + ticks(12).context("no stime")?) / TICKS)
    };
    let (begin, before) = (Instant::now(), all()?);
    std::thread::sleep(window);
    Ok(100.0 * (all()? - before) / begin.elapsed().as_secs_f64())
}
