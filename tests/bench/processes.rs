//! `bench processes`: a thousand processes on one host, from the apply until all run, until all are gone again, and
//! what they cost in between; beside the bare loop of `bare.rs` in the same run.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use harness::fleet::{Fleet, Size, programs};
use ostler_agent::holder_client::HolderClient;
use ostler_agent_core::holder::protocol::{LogSpec, ProcKey, Spawn};
use ostler_cli::client::{Client, Replies};
use ostler_schemas::codec;
use ostler_schemas::v1::api::{ListRequest, WatchChange, WatchMessage};
use ostler_schemas::v1::report::ProcessPhase;
use ostler_schemas::v1::status::Status;
use ostler_schemas::{Kind, Uid};
use serde_json::json;

use crate::{bare, cost, ms, rounds};

/// How many; `OSTLER_BENCH_PROCESSES` says otherwise.
const COUNT: usize = 1_000;
/// How long an idle fleet is watched.
const WINDOW: Duration = Duration::from_secs(20);
/// What settles after a change (reports, compactions, caches) does so within this.
const SETTLE: Duration = Duration::from_secs(10);
/// Starts of the holder under way at one time: what an agent has.
const AT_ONCE: usize = 64;
/// Nothing healthy takes longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs it and prints its tables.
pub(crate) fn run() -> anyhow::Result<()> {
    let count = std::env::var("OSTLER_BENCH_PROCESSES").ok().and_then(|n| n.parse().ok()).unwrap_or(COUNT);
    let (bare_start, bare_stop) = bare::start_and_stop(count)?;
    eprintln!("bare: {} / {}", ms(bare_start), ms(bare_stop));
    let runtime = tokio::runtime::Runtime::new()?;
    let (holder_start, holder_stop) = runtime.block_on(holder(count))?;
    eprintln!("holder: {} / {}", ms(holder_start), ms(holder_stop));
    let fleet = Fleet::start(Size { agents: 1, controllers: 1, servers: 1 });
    let measured = runtime.block_on(whole(&fleet, count))?;
    println!("| {count} processes on one host | bare loop | holder alone | apply -> all running | bar |");
    println!("|---|---|---|---|---|");
    let bar = |bare: Duration| bare * 2 + Duration::from_secs(1);
    let row = |what: &str, bare: Duration, holder: Duration, whole: Duration| {
        println!("| {what} | {} | {} | {} | {} |", ms(bare), ms(holder), ms(whole), ms(bar(bare)));
    };
    row("start", bare_start, holder_start, measured.start);
    row("stop", bare_stop, holder_stop, measured.stop);
    println!();
    println!("| while nothing happens | 0 processes | {count} processes | bar |");
    println!("|---|---|---|---|");
    let [none, full] = &measured.idle;
    println!("| agent, PSS | {} KiB | {} KiB | |", none.agent, full.agent);
    println!("| holder, PSS | {} KiB | {} KiB | |", none.holder, full.holder);
    println!("| both, PSS | {} KiB | {} KiB | 8192 KiB idle |", none.both(), full.both());
    let each = full.both().saturating_sub(none.both()) as f64 / count as f64;
    println!("| for each process | | {each:.1} KiB | 24 KiB |");
    println!("| CPU of one core | {:.2} % | {:.2} % | 0.3 % / 2 % |", none.cpu, full.cpu);
    Ok(())
}

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
    start: Duration,
    stop: Duration,
    idle: [Idle; 2],
}

fn deployment(replicas: usize) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: many, labels: {{app: many}}}}\nspec:\n  replicas: {replicas}\n  \
         rollout: {{bake: 0s}}\n  template:\n    metadata: {{labels: {{app: many}}}}\n    spec:\n      \
         command: [/bin/sleep, infinity]\n      timeoutStopSec: 10s\n"
    )
}

async fn whole(fleet: &Fleet, count: usize) -> anyhow::Result<Whole> {
    let (client, _bus) = fleet.operator().await;
    let none = Idle::of(fleet).await?;
    let mut watch = watch(&client).await?;
    let begin = Instant::now();
    client.apply(&rounds::request(&deployment(count))?).await?;
    until(&mut watch, count, |change, phase| match (change, phase) {
        (WatchChange::Deleted, _) => Some(false),
        (_, ProcessPhase::Running) => Some(true),
        _ => None,
    })
    .await?;
    let start = begin.elapsed();
    eprintln!("all run after {}", ms(start));
    let full = Idle::of(fleet).await?;
    let mut watch = self::watch(&client).await?;
    let begin = Instant::now();
    client.apply(&rounds::request(&deployment(0))?).await?;
    until(&mut watch, count, |change, _| (change == WatchChange::Deleted).then_some(true)).await?;
    let stop = begin.elapsed();
    eprintln!("all are gone after {}", ms(stop));
    Ok(Whole { start, stop, idle: [none, full] })
}

async fn watch(client: &Client) -> anyhow::Result<Replies> {
    let list = ListRequest { kind: Kind::Process, namespace: None, labels: Vec::new(), names: Vec::new() };
    Ok(client.watch(list).await?)
}

/// Reads on until so many names have been seen so; `seen` says whether a name counts, or counts no more.
async fn until(
    watch: &mut Replies,
    count: usize,
    seen: impl Fn(WatchChange, ProcessPhase) -> Option<bool>,
) -> anyhow::Result<()> {
    let mut names = BTreeSet::new();
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
            if names.len() >= count {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, reading).await.with_context(|| format!("not {count} in time"))?
}

/// A holder of its own.
struct Holder {
    folder: tempfile::TempDir,
    child: Child,
    _place: Option<bare::Place>,
}

impl Holder {
    fn start() -> anyhow::Result<Self> {
        // Its folder belongs on memory.
        let folder = tempfile::Builder::new().prefix("ostler-bench-").tempdir_in("/dev/shm")?;
        let place = bare::Place::make("holder");
        let mut command = Command::new(programs().join("ostler-agent"));
        command.args(["holder", "--dir"]).arg(folder.path().join("holder")).arg("--cgroup");
        match &place {
            Some(place) => command.arg(&place.0),
            None => command.arg("none"),
        };
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { folder, child, _place: place })
    }

    async fn connect(&self) -> anyhow::Result<HolderClient> {
        let begin = Instant::now();
        loop {
            match HolderClient::connect(&self.folder.path().join("holder"), "bench").await {
                Ok((client, _)) => return Ok(client),
                Err(error) if begin.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// The same starts and stops by a holder alone: no bus, no agent, no ledger.
async fn holder(count: usize) -> anyhow::Result<(Duration, Duration)> {
    let holder = Holder::start()?;
    let client = holder.connect().await?;
    let logs = holder.folder.path().join("logs").display().to_string();
    let begin = Instant::now();
    let mut starts = futures::stream::iter(0..count)
        .map(|n| {
            let (client, logs) = (&client, &logs);
            async move { Ok::<_, anyhow::Error>(client.spawn(spawn(n, logs)?).await?) }
        })
        .buffer_unordered(AT_ONCE);
    while let Some(spawned) = starts.next().await {
        spawned?;
    }
    drop(starts);
    let started = begin.elapsed();
    let begin = Instant::now();
    client.stop_all(Some(10_000), PATIENCE).await?;
    Ok((started, begin.elapsed()))
}

fn spawn(n: usize, logs: &str) -> anyhow::Result<Spawn> {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&(n as u64).to_be_bytes());
    let key = ProcKey { uid: Uid::from_bytes(bytes), incarnation: 1 };
    let log = LogSpec::below(logs);
    // Everything else is as an agent leaves it that has nothing to say about it.
    let spawn = json!({
        "key": key, "name": format!("many-{n}"), "namespace": "default",
        "argv": ["/bin/sleep", "infinity"], "log": log,
    });
    Ok(serde_json::from_value(spawn)?)
}
