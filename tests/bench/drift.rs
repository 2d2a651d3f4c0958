//! `bench drift`: from a stray change of a managed file to the right content being there again, with one managed file
//! and with a thousand; and what holding them costs while nothing happens.
//!
//! The clock starts before the file is opened to be written, and stops when a reader of the path finds the right bytes
//! in another file: so the writer's own time, the wait for the change to be complete and the reader's look are in it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use harness::fleet::{Fleet, Size, until};

use crate::alone::PATIENCE;
use crate::{chart, cost, ms, percentile};

/// How many files; `OSTLER_BENCH_FILES` says otherwise.
const FILES: usize = 1_000;
/// Drifts of each case; `OSTLER_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 100;
/// Changes of one file before it gets a new version: with the third it would be contested, and rightly slow.
const CHANGES: usize = 2;
/// Objects of one apply.
const PER_APPLY: usize = 250;
/// Bytes of a file.
const BYTES: usize = 4 << 10;
/// The most that p99 may be (DESIGN.md section 8).
const BAR: Duration = Duration::from_millis(250);
/// How long an idle host is watched, after what a change leaves behind has settled: each file is glanced at once.
const WINDOW: Duration = Duration::from_secs(70);
const SETTLE: Duration = Duration::from_secs(10);
/// Percent of a core that an idle agent may use, as with a thousand processes.
const IDLE_CPU: f64 = 2.0;
const NODE: &str = "node-1";

fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Runs it and prints its tables.
pub(crate) fn run() -> anyhow::Result<()> {
    let (files, rounds) = (setting("OSTLER_BENCH_FILES", FILES), setting("OSTLER_BENCH_ROUNDS", ROUNDS));
    let fleet = Fleet::start(Size { agents: 1, controllers: 1, servers: 1 });
    let mut version = 1;
    apply(&fleet, 0..1, version)?;
    let none = idle(&fleet)?;
    let mut alone = measure(&fleet, 1, rounds, &mut version)?;
    apply(&fleet, 0..files, version)?;
    let full = idle(&fleet)?;
    let mut many = measure(&fleet, files, rounds, &mut version)?;
    alone.sort();
    many.sort();
    println!("| stray write -> right again | rounds | p50 | p99 | max | bar (p99) | p99 / bar |");
    println!("|---|---|---|---|---|---|---|");
    for (what, times) in [("1 managed file".to_owned(), &alone), (format!("{files} managed files"), &many)] {
        let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(times, percent));
        let ratio = p99.as_secs_f64() / BAR.as_secs_f64();
        let rounds = times.len();
        println!(
            "| {what} | {rounds} | {} | {} | {} | {} | {ratio:.2} |",
            ms(p50),
            ms(p99),
            ms(max),
            ms(BAR)
        );
    }
    println!();
    println!("| while nothing happens | 1 managed file | {files} managed files | bar |");
    println!("|---|---|---|---|");
    println!("| agent, PSS | {} KiB | {} KiB | |", none.kib, full.kib);
    let each = full.kib.saturating_sub(none.kib) as f64 / files as f64;
    println!("| for each file | | {each:.1} KiB | |");
    println!("| agent, CPU of one core | {:.2} % | {:.2} % | {IDLE_CPU} % |", none.cpu, full.cpu);
    chart::lags(
        "drift.svg",
        &format!("From a stray write to the right content, {files} managed files"),
        &many,
    )
}

fn path(n: usize) -> String {
    format!("/etc/many/file-{n}.conf")
}

fn content(n: usize, version: u64) -> String {
    let line = format!("file = {n}\nversion = {version}\n");
    let filler = "# a line that fills the file with something to read and to compare\n";
    let lines = BYTES.saturating_sub(line.len()) / filler.len();
    format!("{line}{}", filler.repeat(lines))
}

fn manifest(n: usize, version: u64) -> String {
    let indented: String = content(n, version).lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "---\napiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: file-{n}}}\nspec:\n  path: {}\n  \
         nodeSelector: {{}}\n  rollout: {{waves: [100%], bake: 0s}}\n  content: |\n{indented}",
        path(n)
    )
}

/// Asks for a version of these files, and waits until it is on the host.
fn apply(fleet: &Fleet, files: std::ops::Range<usize>, version: u64) -> anyhow::Result<()> {
    let all: Vec<usize> = files.collect();
    for part in all.chunks(PER_APPLY) {
        let text: String = part.iter().map(|n| manifest(*n, version)).collect();
        let done = fleet.run_with(&["apply", "-f", "-"], &text);
        if done.code != 0 {
            bail!("the apply was refused: {}{}", done.out, done.err);
        }
    }
    let begin = Instant::now();
    for n in all {
        let at = fleet.file(NODE, &path(n));
        let wanted = content(n, version);
        while fs::read(&at).map_or(true, |bytes| bytes != wanted.as_bytes()) {
            if begin.elapsed() > PATIENCE {
                bail!("{} is not there in time", at.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    in_sync(fleet);
    Ok(())
}

/// Written is not yet reported, and what is under way would be in the way of what is measured.
fn in_sync(fleet: &Fleet) {
    until("every file is in sync", || {
        let nodes = fleet.try_get(&["nodes"])?;
        let files = &nodes.first()?["status"]["files"];
        (files["inSync"].as_u64() == files["managed"].as_u64()).then_some(())
    });
}

fn measure(fleet: &Fleet, files: usize, rounds: usize, version: &mut u64) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        if round > 0 && round % (files * CHANGES) == 0 {
            *version += 1;
            apply(fleet, 0..files, *version)?;
        }
        let n = round % files;
        times.push(spoil(&fleet.file(NODE, &path(n)), &content(n, *version))?);
        // The next one begins on a host at rest, as most drifts do.
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(times)
}

fn spoil(at: &Path, wanted: &str) -> anyhow::Result<Duration> {
    let before = fs::metadata(at)?.ino();
    let begin = Instant::now();
    OpenOptions::new().append(true).open(at)?.write_all(b"stray = true\n")?;
    loop {
        let is_other = fs::metadata(at).is_ok_and(|meta| meta.ino() != before);
        if is_other && fs::read(at).is_ok_and(|bytes| bytes == wanted.as_bytes()) {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > PATIENCE {
            bail!("{} was not put back", at.display());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What an agent costs that has nothing to do.
struct Idle {
    kib: u64,
    cpu: f64,
}

fn idle(fleet: &Fleet) -> anyhow::Result<Idle> {
    std::thread::sleep(SETTLE);
    let state = fleet.state();
    let agent = state["hosts"][0]["agent"].as_u64().context("an agent")?;
    let cpu = cost::process_percent(agent, WINDOW)?;
    Ok(Idle { kib: cost::pss_kib(agent)?, cpu })
}
