//! What this machine takes for the least that the measured thing contains.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often each is done; the median of so many is steady to a tenth.
const TIMES: usize = 201;
/// A write of the store, about.
const PAGE: [u8; 4096] = [b'x'; 4096];

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Starting a program that ends at once, and waiting for it.
pub(crate) fn spawn() -> anyhow::Result<Duration> {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begin = Instant::now();
        Command::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        times.push(begin.elapsed());
    }
    Ok(median(times))
}

/// Appending a page to a file in this folder, down to the disk.
pub(crate) fn fsync(folder: &Path) -> anyhow::Result<Duration> {
    let mut file = File::create(folder.join("fsync"))?;
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begin = Instant::now();
        file.write_all(&PAGE)?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    Ok(median(times))
}
