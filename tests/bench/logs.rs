//! `bench logs`: how fast lines go through the holder to the disk, how soon a follower sees them, and what a process
//! feels of a full disk.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use harness::fleet::{Fleet, Size};
use ostler_agent::holder_client::HolderClient;
use ostler_agent_core::holder::protocol::LogSpec;
use ostler_schemas::v1::report::ProcessPhase;

use crate::alone::{self, Holder, PATIENCE};
use crate::writer::{self, Felt};
use crate::{chart, ms, percentile, processes, rounds};

/// Lines of the throughput run; of a hundred bytes each.
const LINES: usize = 2_000_000;
const LINE: usize = 100;
/// What the holder writes before each line: time, stream, flag.
const PREFIX: usize = "2026-11-20T10:15:00.123456Z stdout F ".len();
/// Runs of which the median counts.
const RUNS: usize = 5;
/// Lines whose way to a follower is timed, and how far apart they are.
const STAMPS: usize = 1_000;
const EVERY_MS: usize = 10;
/// Lines of a writer that times each of them.
const FLOOD: usize = 200_000;

/// Runs it and prints its tables.
pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (cat, held) = runtime.block_on(throughput())?;
    println!("| {LINES} lines of {LINE} bytes into a file | time | MB/s | of `cat` |");
    println!("|---|---|---|---|");
    let row = |what: &str, took: Duration| {
        let rate = (LINES * LINE) as f64 / took.as_secs_f64() / 1e6;
        println!("| {what} | {} | {rate:.0} | {:.2} |", ms(took), cat.as_secs_f64() / took.as_secs_f64());
    };
    row("`cat LINES \\| cat > FILE`", cat);
    row("through the holder, `overflow: block`", held);
    println!();
    runtime.block_on(disks())?;
    let mut lags = lag()?;
    lags.sort();
    println!("| written -> printed by `ostler logs -f` | lines | p50 | p99 | max |");
    println!("|---|---|---|---|---|");
    let [p50, p99, max] = [50, 99, 100].map(|percent| ms(percentile(&lags, percent)));
    println!("| over the bus, a line each {EVERY_MS} ms | {} | {p50} | {p99} | {max} |", lags.len());
    chart::lags("log-lag.svg", "From a line written to `ostler logs -f` printing it", &lags)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    percentile(&times, 50)
}

/// The same lines by two programs of the system, and through a holder: medians of paired runs.
async fn throughput() -> anyhow::Result<(Duration, Duration)> {
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("lines");
    let mut line = vec![b'x'; LINE - 1];
    line.push(b'\n');
    fs::write(&input, line.repeat(LINES))?;
    let holder = Holder::start()?;
    let (client, _events) = holder.connect().await?;
    let (mut cat, mut held) = (Vec::new(), Vec::new());
    for n in 0..RUNS {
        cat.push(by_cat(&input, &folder.path().join("copy"))?);
        held.push(by_holder(&client, n, &input, &folder.path().join("logs")).await?);
        fs::remove_dir_all(folder.path().join("logs"))?;
        eprintln!("cat {} / holder {}", ms(cat[n]), ms(held[n]));
    }
    Ok((median(cat), median(held)))
}

fn by_cat(input: &Path, output: &Path) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let mut first = Command::new("cat").arg(input).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let pipe = first.stdout.take().context("a pipe")?;
    let status = Command::new("cat").stdin(pipe).stdout(File::create(output)?).status()?;
    if !first.wait()?.success() || !status.success() {
        bail!("cat failed");
    }
    Ok(begin.elapsed())
}

async fn by_holder(client: &HolderClient, n: usize, input: &Path, logs: &Path) -> anyhow::Result<Duration> {
    // One file that takes all of it: rotation throws lines away, which would be faster.
    let log = LogSpec { file_max: 1 << 30, block: true, ..LogSpec::below(logs.display().to_string()) };
    let current = PathBuf::from(log.current("default", &format!("many-{n}")));
    let spawn = alone::spawn(n, &["/bin/cat", &input.display().to_string()], &log)?;
    let whole = (LINES * (LINE + PREFIX)) as u64;
    let begin = Instant::now();
    client.spawn(spawn).await?;
    while fs::metadata(&current).map_or(0, |file| file.len()) < whole {
        if begin.elapsed() > PATIENCE {
            bail!("{} has not {whole} bytes in time", current.display());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(begin.elapsed())
}

/// A tiny file system of its own; None without root.
struct Full(tempfile::TempDir);

impl Full {
    fn make() -> anyhow::Result<Option<Self>> {
        let place = tempfile::tempdir()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(place.path()).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let full = Self(place);
        let mut filler = File::create(full.0.path().join("filler"))?;
        while filler.write_all(&[0; 4096]).is_ok() {}
        Ok(Some(full))
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.0.path()).status().ok();
    }
}

/// What a process feels of where its lines go.
async fn disks() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let holder = Holder::start()?;
    let (client, _events) = holder.connect().await?;
    println!(
        "| a process writes {FLOOD} lines of {LINE} bytes, a call each | all of it | p99.9 of a write | longest |"
    );
    println!("|---|---|---|---|");
    let row = |what: &str, felt: &Felt| {
        println!("| {what} | {} | {} | {} |", ms(felt.whole), ms(felt.p999), ms(felt.longest));
    };
    let result = folder.path().join("bare");
    let words = ["writer".to_owned(), "flood".to_owned(), FLOOD.to_string(), result.display().to_string()];
    let mut reader = Command::new(writer::program()?).args(&words).stdout(Stdio::piped()).spawn()?;
    let mut pipe = reader.stdout.take().context("a pipe")?;
    std::io::copy(&mut pipe, &mut std::io::sink())?;
    reader.wait()?;
    row("a pipe whose reader throws away", &Felt::read(&result, PATIENCE).await?);
    let full = Full::make()?;
    let mut places = vec![("the holder, a disk with room", folder.path().join("logs"))];
    places.extend(full.as_ref().map(|full| ("the holder, a full disk", full.0.path().join("logs"))));
    for (n, (what, logs)) in places.into_iter().enumerate() {
        let result = folder.path().join(format!("result-{n}"));
        let (program, count, file) = (writer::program()?, FLOOD.to_string(), result.display().to_string());
        let argv = [&program, "writer", "flood", &count, &file];
        client.spawn(alone::spawn(n, &argv, &LogSpec::below(logs.display().to_string()))?).await?;
        row(what, &Felt::read(&result, PATIENCE).await?);
    }
    println!();
    Ok(())
}

/// How long each line took from the process to the terminal of a follower.
fn lag() -> anyhow::Result<Vec<Duration>> {
    let fleet = Fleet::start(Size { agents: 1, controllers: 1, servers: 1 });
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (client, _bus) = fleet.operator().await;
        let program = writer::program()?;
        // The first lines come while the follower connects: they are told apart below.
        let count = STAMPS + 500;
        let manifest = format!(
            "apiVersion: ostler/v1\nkind: Process\nmetadata: {{name: stamps}}\nspec:\n  command: [{program}, writer, stamps, '{count}', '{EVERY_MS}']\n"
        );
        let mut watch = processes::watch(&client).await?;
        client.apply(&rounds::request(&manifest)?).await?;
        rounds::until(&mut watch, "stamps", |_, phase| phase == ProcessPhase::Running).await
    })?;
    let mut follow = fleet.command(&["logs", "-f", "stamps"]);
    let mut follow = follow.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(follow.stdout.take().context("a pipe")?).lines();
    let began = writer::unix_ns();
    let mut lags = Vec::with_capacity(STAMPS);
    for line in lines {
        let written: u128 = line?.trim().parse().context("a line of the writer")?;
        // What was written before the follower was there has waited for it.
        if written > began + Duration::from_secs(1).as_nanos() {
            lags.push(Duration::from_nanos(u64::try_from(writer::unix_ns().saturating_sub(written))?));
        }
        if lags.len() >= STAMPS {
            break;
        }
    }
    follow.kill()?;
    follow.wait()?;
    Ok(lags)
}
