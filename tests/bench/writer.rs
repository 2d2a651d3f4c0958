//! What runs under a supervisor and writes: this program itself, called as `bench writer`.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

use crate::percentile;

/// The text of a line, so that it has a hundred bytes with its end.
const LINE: [u8; 99] = [b'x'; 99];

/// `stamps COUNT MILLISECONDS` or `flood COUNT RESULT`.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    match args {
        [what, count, every] if what == "stamps" => {
            stamps(count.parse()?, Duration::from_millis(every.parse()?))
        }
        [what, count, result] if what == "flood" => flood(count.parse()?, Path::new(result)),
        _ => bail!("writer stamps COUNT MILLISECONDS, or writer flood COUNT RESULT"),
    }
}

/// Nanoseconds since 1970.
pub(crate) fn unix_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// Lines that say when they were written.
fn stamps(count: u64, every: Duration) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for _ in 0..count {
        writeln!(out, "{}", unix_ns())?;
        std::thread::sleep(every);
    }
    Ok(())
}

/// What a process felt that wrote as fast as it could.
pub(crate) struct Felt {
    pub(crate) whole: Duration,
    /// The write that 999 of 1,000 were not above.
    pub(crate) p999: Duration,
    pub(crate) longest: Duration,
}

fn flood(count: usize, result: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let mut line = LINE.to_vec();
    line.push(b'\n');
    let mut times = Vec::with_capacity(count);
    let begin = Instant::now();
    for _ in 0..count {
        let one = Instant::now();
        out.write_all(&line)?;
        times.push(one.elapsed());
    }
    let whole = begin.elapsed();
    times.sort();
    let p999 = times.get(count.saturating_sub(1) * 999 / 1_000).copied().unwrap_or_default();
    let words = [whole, p999, percentile(&times, 100)].map(|time| time.as_nanos().to_string());
    // Readers wait for the name, and then find all of it.
    let unfinished = result.with_extension("part");
    fs::write(&unfinished, words.join(" "))?;
    fs::rename(unfinished, result)?;
    Ok(())
}

impl Felt {
    /// Waits for the result of a `flood`.
    pub(crate) async fn read(result: &Path, limit: Duration) -> anyhow::Result<Self> {
        let begin = Instant::now();
        while !result.exists() {
            if begin.elapsed() > limit {
                bail!("{} is not there in time", result.display());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let text = fs::read_to_string(result)?;
        let times: Vec<_> =
            text.split(' ').map(|word| word.parse().map(Duration::from_nanos)).collect::<Result<_, _>>()?;
        let [whole, p999, longest] = times[..] else { bail!("three numbers, not {text:?}") };
        Ok(Self { whole, p999, longest })
    }
}

/// This program, for a command line.
pub(crate) fn program() -> anyhow::Result<String> {
    std::env::current_exe()?.into_os_string().into_string().ok().context("a path of text")
}
