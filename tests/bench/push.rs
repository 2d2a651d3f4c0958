//! `bench push`: how long it takes until a file is on every host of a large fleet, and known to be there.
//!
//! The fleet is `ostler dev` with `ostler sim agents`: real servers and controllers, and for each host the agent's real
//! actors over shared connections; files are in memory. From just before the request of an apply of a ConfigFile of
//! 4 KiB, one wave, to the reports that say that its version is in sync, as a controller hears them. Beside it stands
//! the bus alone ([`crate::push_bus`]), and what the fleet costs while nothing happens.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use harness::fleet::{Fleet, PATIENCE, Size, alive, term};
use ostler_bus::clock::SystemClock;
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::informer::{self, InformerEvent};
use ostler_bus::layout::Identity;
use ostler_bus::nats::Bus;
use ostler_bus::store::Read;
use ostler_cli::client::Client;
use ostler_schemas::key::DocumentKind;
use ostler_schemas::v1::api::{ListRequest, WatchMessage};
use ostler_schemas::v1::report::{FileState, Report};
use ostler_schemas::v1::status::Status;
use ostler_schemas::{Bucket, Key, Kind, NodeName, Version, codec};
use tokio::sync::mpsc;

use crate::chart::{self, Curve};
use crate::push_bus::{self, Sizes};
use crate::{cost, ms, percentile, rounds};

/// Fleets; `OSTLER_BENCH_NODES` says otherwise (`200,1000`).
const NODES: [u32; 2] = [1_000, 10_000];
/// Pushes of which the median counts.
const RUNS: usize = 5;
/// What DESIGN.md section 8 allows for 99 % of 10,000.
const BAR: Duration = Duration::from_secs(2);
/// Bytes of the file.
const CONTENT: usize = 4 << 10;
/// Nothing healthy takes longer for any number of nodes here.
const PUSH_PATIENCE: Duration = Duration::from_secs(180);
/// How long the fleet is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(10);

/// What one fleet showed.
struct Shown {
    nodes: u32,
    /// When each node's acknowledgement came, of the median push.
    times: Vec<Duration>,
    /// When a watch said that 99 % have it.
    watched: Duration,
    bus: Vec<Duration>,
    idle: [f64; 3],
    each: u64,
}

/// Runs it and prints its tables.
pub(crate) fn run() -> anyhow::Result<()> {
    let nodes = match std::env::var("OSTLER_BENCH_NODES") {
        Ok(text) => text.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?,
        Err(_) => NODES.to_vec(),
    };
    let shown = nodes.iter().map(|nodes| measure(*nodes)).collect::<anyhow::Result<Vec<_>>>()?;
    println!(
        "| push of {CONTENT} bytes, one wave | 50 % | 99 % | all | bus alone, 99 % | push / bus | by a watch, 99 % | bar (99 %) |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for one in &shown {
        let [p50, p99, all] = [50, 99, 100].map(|percent| percentile(&one.times, percent));
        let bus = percentile(&one.bus, 99);
        println!(
            "| {} nodes | {} | {} | {} | {} | {:.2} | {} | {} |",
            one.nodes,
            ms(p50),
            ms(p99),
            ms(all),
            ms(bus),
            p99.as_secs_f64() / bus.as_secs_f64(),
            ms(one.watched),
            if one.nodes == 10_000 { ms(BAR) } else { String::new() },
        );
    }
    println!();
    println!(
        "| while nothing happens, share of one core | server | controller | all agents | memory of an agent |"
    );
    println!("|---|---|---|---|---|");
    for one in &shown {
        let [server, controller, agents] = one.idle;
        let kib = one.each / 1024;
        println!("| {} nodes | {server:.0} % | {controller:.0} % | {agents:.0} % | {kib} KiB |", one.nodes);
    }
    for one in &shown {
        let title = format!("From a push of 4 KiB to its acknowledgement, {} simulated nodes", one.nodes);
        let curves = [
            Curve { name: "push to acknowledgement", times: &one.times },
            Curve { name: "bus alone", times: &one.bus },
        ];
        chart::curves(&format!("push-{}.svg", one.nodes), (&title, "nodes"), &curves, BAR)?;
    }
    Ok(())
}

/// The program that runs the agents. Dropping it ends it.
struct Agents {
    child: Child,
    pid: u64,
    each: u64,
}

impl Agents {
    fn start(fleet: &Fleet, nodes: u32) -> anyhow::Result<Self> {
        let ready = fleet.folder().join("agents.json");
        let mut command = fleet.command(&["sim", "agents", "--nodes", &nodes.to_string(), "--ready-file"]);
        let mut child = command.arg(&ready).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let begin = Instant::now();
        while !ready.exists() {
            if let Some(status) = child.try_wait()? {
                bail!("ostler sim agents ended: {status}");
            }
            if begin.elapsed() > PUSH_PATIENCE {
                child.kill()?;
                bail!("{nodes} agents have not settled in time");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let said: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready)?)?;
        eprintln!("{nodes} agents have settled in {} ms", said["startedInMs"]);
        let each = said["bytesEach"].as_u64().context("no bytesEach")?;
        Ok(Self { pid: u64::from(child.id()), child, each })
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        term(self.child.id());
        let begin = Instant::now();
        while alive(self.child.id()) && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

fn measure(nodes: u32) -> anyhow::Result<Shown> {
    eprintln!("{nodes} nodes: starting a fleet");
    let folder = tempfile::Builder::new().prefix("ostler-bench-").tempdir()?.keep();
    let count = nodes.to_string();
    let words = ["--simulated".as_ref(), count.as_ref(), "--ready-timeout".as_ref(), "180s".as_ref()];
    // One real host, whose agent is the one that everybody runs.
    let fleet = Fleet::start_in(folder, Size { agents: 1, controllers: 1, servers: 1 }, &words);
    let agents = Agents::start(&fleet, nodes)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (times, watched, sizes) = runtime.block_on(pushes(&fleet, nodes))?;
    let idle = idle(&fleet, agents.pid)?;
    let each = agents.each;
    drop(agents);
    drop(fleet);
    eprintln!("{nodes} nodes: the bus alone");
    let bus = runtime.block_on(push_bus::measure(nodes, &sizes, RUNS))?;
    Ok(Shown { nodes, times, watched, bus, idle, each })
}

fn idle(fleet: &Fleet, agents: u64) -> anyhow::Result<[f64; 3]> {
    let daemons = fleet.daemons();
    let of = |name: &str| daemons.iter().filter(|(n, _)| n.contains(name)).map(|(_, pid)| *pid).collect();
    let servers: Vec<u64> = of("nats-");
    let controllers: Vec<u64> = of("controller-");
    // One after the other: a sum of three windows is as good as one.
    Ok([
        cost::cpu_percent(&servers, IDLE)?,
        cost::cpu_percent(&controllers, IDLE)?,
        cost::cpu_percent(&[agents], IDLE)?,
    ])
}

fn manifest(version: usize) -> anyhow::Result<String> {
    let mut content = format!("version = {version}\n");
    while content.len() < CONTENT {
        content.push_str("# a line as others are\n");
    }
    content.truncate(CONTENT - 1);
    content.push('\n');
    Ok(format!(
        "apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: bench}}\nspec:\n  path: /etc/bench.conf\n  \
         nodeSelector: {{simulated: 'true'}}\n  rollout: {{waves: ['100%'], bake: 0s}}\n  content: {}\n",
        serde_json::to_string(&content)?
    ))
}

/// When each node had acknowledged, in the median push; when a watch said so; and how large everything was.
async fn pushes(fleet: &Fleet, nodes: u32) -> anyhow::Result<(Vec<Duration>, Duration, Sizes)> {
    let (client, _bus) = fleet.operator().await;
    let controller = fleet.connect(Identity::Controller).await;
    let mut acks = acknowledgements(&controller)?;
    let mut all = Vec::with_capacity(RUNS);
    for run in 1..=RUNS + 1 {
        let mut times = acknowledged(&client, &mut acks, run, nodes).await?;
        times.sort();
        eprintln!("push {run}: 99 % after {}", ms(percentile(&times, 99)));
        // The first makes the file; those that count change it.
        if run > 1 {
            all.push(times);
        }
    }
    all.sort_by_key(|times| percentile(times, 99));
    let median = all.swap_remove(all.len() / 2);
    drop(acks);
    let watched = watched(&client, RUNS + 2, nodes).await?;
    Ok((median, watched, sizes(&controller).await?))
}

/// Which node says that which version is in sync, and when that was heard.
type Acks = mpsc::UnboundedReceiver<(NodeName, Version, Instant)>;

fn acknowledgements(controller: &Bus) -> anyhow::Result<Acks> {
    let store = controller.store.clone().context("a controller's connection has a store")?;
    let entropy: EntropyRef = std::sync::Arc::new(SeededEntropy::from_system()?);
    let mut events = informer::spawn(store, SystemClock::shared(), entropy, Bucket::Observed);
    let (out, acks) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let InformerEvent::Changes { entries, .. } = event else { continue };
            let now = Instant::now();
            for entry in entries {
                let (Key::Report(node), Some(bytes)) = (&entry.key, entry.value()) else { continue };
                let Ok(report) = codec::decode::<Report>(bytes) else { continue };
                let files = report.file_states.iter().filter(|file| file.state == FileState::InSync);
                for file in files.filter(|file| file.path == "/etc/bench.conf") {
                    if out.send((node.clone(), file.v, now)).is_err() {
                        return;
                    }
                }
            }
        }
    });
    Ok(acks)
}

/// Pushes one version; when each node had acknowledged it.
async fn acknowledged(
    client: &Client,
    acks: &mut Acks,
    run: usize,
    nodes: u32,
) -> anyhow::Result<Vec<Duration>> {
    let request = rounds::request(&manifest(run)?)?;
    let version = Version(run as u64);
    let begin = Instant::now();
    client.apply(&request).await?;
    let (mut seen, mut times) = (BTreeSet::new(), Vec::with_capacity(nodes as usize));
    let reading = async {
        while times.len() < nodes as usize {
            let (node, got, at) = acks.recv().await.context("the informer ended")?;
            if got == version && seen.insert(node) {
                times.push(at.saturating_duration_since(begin));
            }
        }
        anyhow::Ok(())
    };
    let whole = tokio::time::timeout(PUSH_PATIENCE, reading).await;
    whole.with_context(|| format!("only {} of {nodes} have acknowledged in time", seen.len()))??;
    Ok(times)
}

/// Pushes one version; when a watch of the object said that 99 % have it.
async fn watched(client: &Client, run: usize, nodes: u32) -> anyhow::Result<Duration> {
    let list = ListRequest { kind: Kind::ConfigFile, namespace: None, labels: Vec::new(), names: Vec::new() };
    let mut watch = client.watch(list).await?;
    let request = rounds::request(&manifest(run)?)?;
    let begin = Instant::now();
    client.apply(&request).await?;
    let reading = async {
        while let Some(body) = watch.next().await? {
            let message: WatchMessage = codec::decode(&body)?;
            let Some(Status::ConfigFile(status)) = message.view.map(|view| view.status) else { continue };
            // Nodes that were not told yet are in sync with the version before: only the rollout counts this one's.
            let healthy = status.rollout.as_ref().map_or(0, |rollout| rollout.healthy);
            let enough = u64::from(healthy) * 100 >= u64::from(nodes) * 99;
            if status.version == Version(run as u64) && enough {
                return Ok(begin.elapsed());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(PUSH_PATIENCE, reading).await.context("not seen in time")?
}

/// How large what was sent for one node is: the bus alone sends as much.
async fn sizes(controller: &Bus) -> anyhow::Result<Sizes> {
    let store = controller.store.clone().context("a controller's connection has a store")?;
    let node: NodeName = "sim-00001".parse()?;
    let size = async |key: Key| {
        let entry = store.get(&key, Read::Leader).await?.context("it is not stored")?;
        anyhow::Ok(entry.value().map_or(0, bytes::Bytes::len))
    };
    let document = store.get(&Key::NodeDocument(node.clone(), DocumentKind::Files), Read::Leader).await?;
    let document = document.context("no files document")?;
    let body = document.value().context("no files document")?;
    let read: ostler_schemas::v1::document::FilesDocument = codec::decode(body)?;
    let entry = read.entries.first().context("no entry")?;
    Ok(Sizes {
        document: body.len(),
        spec: size(Key::Template(entry.d)).await?,
        content: CONTENT,
        report: size(Key::Report(node)).await?,
    })
}
