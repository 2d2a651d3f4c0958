//! `make bench`: from an apply to the process that runs, on an idle fleet of the shipped programs, on one server and on
//! three. With the word `processes`, `logs` or `push`: see the files of these names.
//!
//! What is measured: the time from just before the request of an apply (one Process whose template the node knows
//! already) to the message of a watch that says `Running`, over the bus, as any program would see it. One caller, one
//! process at a time, everything on this machine. Beside it stand what nobody can be faster than here: a bare spawn,
//! and one synced write to the folder that the streams lie in.

mod alone;
mod bare;
mod chart;
mod cost;
mod drift;
mod floor;
mod logs;
mod processes;
mod push;
mod push_bus;
mod rounds;
mod writer;

use std::time::Duration;

use harness::fleet::{Fleet, Size};

/// Measured rounds of each fleet; `OSTLER_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 100;
/// Rounds before these, which pay for first connections and cold caches.
const WARM: usize = 5;

/// A fleet to measure and the most that its p99 may be (DESIGN.md section 8).
struct Case {
    name: &'static str,
    servers: u16,
    bar: Duration,
}

const CASES: [Case; 2] = [
    Case { name: "one server", servers: 1, bar: Duration::from_millis(150) },
    Case { name: "three servers", servers: 3, bar: Duration::from_millis(100) },
];

/// Milliseconds for people.
fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

/// The value that `percent` of all are not above.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn row(case: &Case, rounds: usize) -> anyhow::Result<String> {
    eprintln!("{}: starting a fleet", case.name);
    let fleet = Fleet::start(Size { agents: 3, controllers: 1, servers: case.servers });
    let fsync = floor::fsync(fleet.folder())?;
    let spawn = floor::spawn()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut times = runtime.block_on(rounds::measure(&fleet, WARM, rounds))?;
    times.sort();
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    let ratio = p99.as_secs_f64() / case.bar.as_secs_f64();
    Ok(format!(
        "| {} | {} | {} | {} | {} | {} | {:.2} | {} | {} |",
        case.name,
        times.len(),
        ms(p50),
        ms(p99),
        ms(times.last().copied().unwrap_or_default()),
        ms(case.bar),
        ratio,
        ms(spawn),
        ms(fsync),
    ))
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((what, _)) if what == "processes" => return processes::run(),
        Some((what, _)) if what == "logs" => return logs::run(),
        Some((what, _)) if what == "drift" => return drift::run(),
        Some((what, _)) if what == "push" => return push::run(),
        Some((what, rest)) if what == "writer" => return writer::run(rest),
        Some((what, _)) => anyhow::bail!("{what}: processes, logs, push, drift, or nothing"),
        None => {}
    }
    let rounds = std::env::var("OSTLER_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let rows = CASES.iter().map(|case| row(case, rounds)).collect::<anyhow::Result<Vec<_>>>()?;
    println!(
        "| apply -> running | rounds | p50 | p99 | max | bar (p99) | p99 / bar | bare spawn | 4 KiB fdatasync |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        println!("{row}");
    }
    Ok(())
}
