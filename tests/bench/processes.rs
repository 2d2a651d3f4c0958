//! `bench processes`: a thousand processes on one host, from the apply until all run, until all are gone again, and
//! what they cost in between; beside the bare loop of `bare.rs` in the same run.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use harness::fleet::{Fleet, Size};
use ostler_agent_core::holder::protocol::LogSpec;
use ostler_cli::client::{Client, Replies};
use ostler_schemas::Kind;
use ostler_schemas::codec;
use ostler_schemas::v1::api::{ListRequest, WatchChange, WatchMessage};
use ostler_schemas::v1::report::ProcessPhase;
use ostler_schemas::v1::status::Status;

use crate::alone::{self, Holder, PATIENCE};
use crate::chart::{self, Curve};
use crate::{bare, cost, ms, rounds};

/// How many; `OSTLER_BENCH_PROCESSES` says otherwise.
const COUNT: usize = 1_000;
/// How long an idle fleet is watched.
const WINDOW: Duration = Duration::from_secs(20);
/// What settles after a change (reports, compactions, caches) does so within this.
const SETTLE: Duration = Duration::from_secs(10);
/// Starts of the holder under way at one time: what an agent has.
const AT_ONCE: usize = 64;

/// Runs it and prints its tables.
pub(crate) fn run() -> anyhow::Result<()> {
    let count = std::env::var("OSTLER_BENCH_PROCESSES").ok().and_then(|n| n.parse().ok()).unwrap_or(COUNT);
    let (bare_starts, bare_stops) = bare::start_and_stop(count)?;
    eprintln!("bare: {} / {}", last(&bare_starts), last(&bare_stops));
    let runtime = tokio::runtime::Runtime::new()?;
    let (holder_starts, holder_stop) = runtime.block_on(holder(count))?;
    eprintln!("holder: {} / {}", last(&holder_starts), ms(holder_stop));
    let place = bare::Place::make("fleet");
    let words: Vec<&OsStr> =
        place.iter().flat_map(|place| [OsStr::new("--cgroup"), place.0.as_os_str()]).collect();
    // As on a host, what the holder keeps until the next boot lies on memory, and the rest on the disk.
    let folder = tempfile::Builder::new().prefix("ostler-bench-").tempdir()?.keep();
    let memory = tempfile::Builder::new().prefix("ostler-bench-").tempdir_in("/dev/shm")?;
    let host = folder.join("dev/hosts/node-1");
    std::fs::create_dir_all(&host)?;
    std::os::unix::fs::symlink(memory.path(), host.join("run"))?;
    let fleet = Fleet::start_in(folder, Size { agents: 1, controllers: 1, servers: 1 }, &words);
    let measured = runtime.block_on(whole(&fleet, count))?;
    println!("| {count} processes on one host | bare loop | holder alone | whole | bar | whole / bar |");
    println!("|---|---|---|---|---|---|");
    let row = |what: &str, bare: &[Duration], holder: &str, whole: &[Duration]| {
        let (took, bar) = (whole.last().copied().unwrap_or_default(), bar(bare));
        let ratio = took.as_secs_f64() / bar.as_secs_f64();
        println!("| {what} | {} | {holder} | {} | {} | {ratio:.2} |", last(bare), ms(took), ms(bar));
    };
    row("apply -> all running", &bare_starts, &last(&holder_starts), &measured.start);
    row("scaled to 0 -> all gone", &bare_stops, &ms(holder_stop), &measured.stop);
    println!();
    draw(count, [&bare_starts, &bare_stops], &holder_starts, &measured)?;
    println!("| while nothing happens | 0 processes | {count} processes | bar |");
    println!("|---|---|---|---|");
    let [none, full] = &measured.idle;
    println!("| agent, PSS | {} KiB | {} KiB | |", none.agent, full.agent);
    println!("| holder, PSS | {} KiB | {} KiB | |", none.holder, full.holder);
    println!("| both, PSS | {} KiB | {} KiB | {IDLE_KIB} KiB with none |", none.both(), full.both());
    println!("| for each process | | {:.1} KiB | {EACH_KIB} KiB |", full.each(none, count));
    println!("| CPU of one core | {:.2} % | {:.2} % | {IDLE_CPU} % / {FULL_CPU} % |", none.cpu, full.cpu);
    Ok(())
}

fn last(times: &[Duration]) -> String {
    ms(times.last().copied().unwrap_or_default())
}

/// The most that the whole may take beside a bare loop.
fn bar(bare: &[Duration]) -> Duration {
    bare.last().copied().unwrap_or_default() * 2 + Duration::from_secs(1)
}

fn draw(count: usize, bare: [&[Duration]; 2], holder: &[Duration], whole: &Whole) -> anyhow::Result<()> {
    let curve = |name, times| Curve { name, times };
    let starts = [
        curve("bare loop", bare[0]),
        curve("holder alone", holder),
        curve("apply, as a watch tells", &whole.start),
    ];
    let title = format!("{count} processes on one host: running after the apply");
    chart::curves("start.svg", (&title, "processes"), &starts, bar(bare[0]))?;
    let stops = [curve("bare loop", bare[1]), curve("scaled to 0, as a watch tells", &whole.stop)];
    let title = format!("{count} processes on one host: gone after scaling to 0");
    chart::curves("stop.svg", (&title, "processes"), &stops, bar(bare[1]))?;
    let [none, full] = &whole.idle;
    let rows = [
        ("PSS, agent and holder, no process".to_owned(), none.both() as f64 / IDLE_KIB),
        (format!("PSS for each of {count} processes"), full.each(none, count) / EACH_KIB),
        ("CPU, no process".to_owned(), none.cpu / IDLE_CPU),
        (format!("CPU, {count} processes"), full.cpu / FULL_CPU),
    ];
    chart::ratios("idle.svg", "While nothing happens", &rows)
}

/// What agent and holder may use together, in KiB, with no process.
const IDLE_KIB: f64 = 8.0 * 1024.0;
/// And more for each process.
const EACH_KIB: f64 = 24.0;
/// Percent of a core with no process, and with a thousand.
const IDLE_CPU: f64 = 0.3;
const FULL_CPU: f64 = 2.0;

/// What an idle host costs.
struct Idle {
    agent: u64,
    holder: u64,
    cpu: f64,
}

impl Idle {
    fn both(&self) -> u64 {
        self.agent + self.holder
    }

    /// KiB more than with none, for each process.
    fn each(&self, none: &Self, count: usize) -> f64 {
        self.both().saturating_sub(none.both()) as f64 / count as f64
    }

    async fn of(fleet: &Fleet) -> anyhow::Result<Self> {
        tokio::time::sleep(SETTLE).await;
        let state = fleet.state();
        let host = state["hosts"].get(0).context("a host")?;
        let agent = host["agent"].as_u64().context("an agent")?;
        let holder = host["holder"].as_u64().context("a holder")?;
        let cpu = cost::cpu_percent(&[agent, holder], WINDOW)?;
        Ok(Self { agent: cost::pss_kib(agent)?, holder: cost::pss_kib(holder)?, cpu })
    }
}

struct Whole {
    start: Vec<Duration>,
    stop: Vec<Duration>,
    idle: [Idle; 2],
}

fn deployment(replicas: usize) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: many, labels: {{app: many}}}}\nspec:\n  replicas: {replicas}\n  \
         rollout: {{bake: 0s}}\n  template:\n    metadata: {{labels: {{app: many}}}}\n    spec:\n      \
         command: [/bin/sleep, infinity]\n      timeoutStopSec: 10s\n      \
         resources: {{requests: {{cpu: 1m, memory: 1Mi}}}}\n"
    )
}

async fn whole(fleet: &Fleet, count: usize) -> anyhow::Result<Whole> {
    let (client, _bus) = fleet.operator().await;
    let none = Idle::of(fleet).await?;
    let mut watch = watch(&client).await?;
    let begin = Instant::now();
    client.apply(&rounds::request(&deployment(count))?).await?;
    let start = until(begin, &mut watch, count, |change, phase| match (change, phase) {
        (WatchChange::Deleted, _) => Some(false),
        (_, ProcessPhase::Running) => Some(true),
        _ => None,
    })
    .await?;
    eprintln!("all run after {}", last(&start));
    let full = Idle::of(fleet).await?;
    let mut watch = self::watch(&client).await?;
    // What is there is told first, and is nothing that the stop has to wait for.
    until(Instant::now(), &mut watch, count, |_, phase| (phase == ProcessPhase::Running).then_some(true))
        .await?;
    let begin = Instant::now();
    client.apply(&rounds::request(&deployment(0))?).await?;
    let stop =
        until(begin, &mut watch, count, |change, _| (change == WatchChange::Deleted).then_some(true)).await?;
    eprintln!("all are gone after {}", last(&stop));
    Ok(Whole { start, stop, idle: [none, full] })
}

pub(crate) async fn watch(client: &Client) -> anyhow::Result<Replies> {
    let list = ListRequest { kind: Kind::Process, namespace: None, labels: Vec::new(), names: Vec::new() };
    Ok(client.watch(list).await?)
}

/// Reads on until so many names have been seen so, and tells when there were more than ever; `seen` says whether a name
/// counts, or counts no more.
async fn until(
    begin: Instant,
    watch: &mut Replies,
    count: usize,
    seen: impl Fn(WatchChange, ProcessPhase) -> Option<bool>,
) -> anyhow::Result<Vec<Duration>> {
    let mut names = BTreeSet::new();
    let mut times = Vec::with_capacity(count);
    let reading = async {
        while let Some(body) = watch.next().await? {
            let message: WatchMessage = codec::decode(&body)?;
            let (Some(change), Some(view)) = (message.change, message.view) else { continue };
            let Status::Process(status) = &view.status else { continue };
            match seen(change, status.phase) {
                Some(true) => drop(names.insert(view.metadata.name.to_string())),
                Some(false) => drop(names.remove(view.metadata.name.as_str())),
                None => {}
            }
            if names.len() > times.len() {
                times.push(begin.elapsed());
            }
            if times.len() >= count {
                return Ok(times);
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, reading).await.with_context(|| format!("not {count} in time"))?
}

/// The same starts and stops by a holder alone: no bus, no agent, no ledger.
async fn holder(count: usize) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let holder = Holder::start()?;
    let (client, _events) = holder.connect().await?;
    let logs = holder.folder().join("logs").display().to_string();
    let begin = Instant::now();
    let mut starts = futures::stream::iter(0..count)
        .map(|n| {
            let (client, logs) = (&client, &logs);
            async move {
                let spawn = alone::spawn(n, &["/bin/sleep", "infinity"], &LogSpec::below(logs.clone()))?;
                Ok::<_, anyhow::Error>(client.spawn(spawn).await?)
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut started = Vec::with_capacity(count);
    while let Some(spawned) = starts.next().await {
        spawned?;
        started.push(begin.elapsed());
    }
    drop(starts);
    let begin = Instant::now();
    client.stop_all(Some(10_000), PATIENCE).await?;
    Ok((started, begin.elapsed()))
}
