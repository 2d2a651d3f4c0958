//! All agents of one program: started a few at a time, watched, ended in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use ostler_agent::Handle;
use ostler_agent::status::Standing;
use ostler_bus::clock::SystemClock;
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::nats::Bus;
use ostler_bus::setup::SimulatedFleet;
use ostler_bus::topic::TopicRef;
use ostler_schemas::NodeName;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::carrier::Carrier;
use crate::host::Model;
use crate::options::Options;
use crate::tell::{Progress, data, memory, say};

/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);
/// Agents that are starting at one time. A fleet that comes all at once meets a control plane that registers some
/// hundred nodes a second; those behind would only ask again and again.
const STARTING: usize = 500;
/// How often it is looked whether they are there.
const LOOK: Duration = Duration::from_millis(50);
/// How often agents that have settled are looked at.
const WATCH: Duration = Duration::from_secs(2);
/// How long last reports may take, all of them.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Agents that end at one time.
const ENDING: usize = 500;

/// Runs the fleet until a signal ends it.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut crew = Crew::default();
    let ended = {
        let running = crew.run(options);
        tokio::pin!(running);
        tokio::select! {
            biased;
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            ended = &mut running => Some(ended),
        }
    };
    if let Some(Err(error)) = ended {
        return Err(error);
    }
    say(&format!("ending {} agents", crew.agents.len()));
    tokio::select! {
        biased;
        // Who asks twice does not want to wait.
        _ = interrupt.recv() => {}
        () = crew.end() => {}
    }
    Ok(())
}

#[derive(Default)]
struct Crew {
    agents: Vec<(NodeName, Handle)>,
    buses: Vec<Bus>,
}

impl Crew {
    async fn run(&mut self, options: &Options) -> anyhow::Result<()> {
        let begun = Instant::now();
        let entropy: EntropyRef = Arc::new(SeededEntropy::from_system()?);
        let nodes = self.connect(options, &entropy).await?;
        let model = Model::new(options, SystemClock::shared(), entropy);
        let before = memory();
        self.start(&model, nodes).await?;
        let each = memory().saturating_sub(before) / u64::from(options.nodes.max(1));
        let (first, last) = (self.agents.first(), self.agents.last());
        let names = first.zip(last).map(|((first, _), (last, _))| format!("{first} to {last}"));
        data(&format!(
            "{} simulated agents run ({}): started in {:.1} s, {} KiB each; Ctrl-C ends them",
            self.agents.len(),
            names.unwrap_or_default(),
            begun.elapsed().as_secs_f64(),
            each / 1024,
        ));
        if let Some(file) = &options.ready_file {
            let state = json!({
                "kind": "SimulatedAgents", "pid": std::process::id(), "agents": self.agents.len(),
                "startedInMs": begun.elapsed().as_millis() as u64, "bytesEach": each,
            });
            let fresh = file.with_extension("new");
            let written =
                std::fs::write(&fresh, format!("{state}\n")).and_then(|()| std::fs::rename(&fresh, file));
            written.with_context(|| format!("cannot write {}", file.display()))?;
        }
        self.watch().await
    }

    /// Connects what is needed for the nodes asked for; each with its connection.
    async fn connect(
        &mut self,
        options: &Options,
        entropy: &EntropyRef,
    ) -> anyhow::Result<Vec<(NodeName, TopicRef)>> {
        let file = &options.fleet;
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let fleet: SimulatedFleet = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no simulated fleet", file.display()))?;
        let (first, end) = (options.first - 1, options.first.saturating_sub(1).saturating_add(options.nodes));
        if end > fleet.nodes {
            bail!(
                "{} has nodes 1 to {}, and {} to {end} are asked for\nnext:  ostler setup --out … --simulated {}={end}, \
                 then nats-server --signal reload and a restart of the controllers",
                file.display(),
                fleet.nodes,
                options.first,
                fleet.prefix
            );
        }
        let folder = file.parent().unwrap_or(std::path::Path::new("."));
        let clock = SystemClock::shared();
        let mut nodes = Vec::with_capacity(options.nodes as usize);
        let mut index = 0;
        for (block, config) in fleet.connections(folder) {
            let own: Vec<NodeName> = (index..)
                .zip(block.nodes())
                .filter(|(n, _)| (first..end).contains(n))
                .map(|(_, node)| node.clone())
                .collect();
            index += block.nodes().len() as u32;
            if own.is_empty() {
                continue;
            }
            let bus = Bus::connect(&config, entropy).await?;
            if !bus.connected(CONNECT_PATIENCE).await {
                let why = bus.topic.link().borrow().last_error.clone().unwrap_or_default();
                bail!("no connection to {} as {}: {why}", config.servers.join(", "), config.name);
            }
            let topic: TopicRef = Carrier::new(bus.topic.clone(), clock.clone());
            nodes.extend(own.into_iter().map(|node| (node, Arc::clone(&topic))));
            self.buses.push(bus);
        }
        Ok(nodes)
    }

    /// Starts them, and waits until all are settled.
    async fn start(&mut self, model: &Model, nodes: Vec<(NodeName, TopicRef)>) -> anyhow::Result<()> {
        let (total, mut waiting) = (nodes.len(), nodes.into_iter());
        let mut progress = Progress::new();
        let mut starting: Vec<usize> = Vec::new();
        loop {
            starting.retain(|index| self.agents[*index].1.standing() != Standing::Settled);
            let room = STARTING.saturating_sub(starting.len());
            for (node, topic) in waiting.by_ref().take(room) {
                let deps = model.host(&node, topic);
                let handle =
                    ostler_agent::run::run(deps).await.with_context(|| format!("{node} does not start"))?;
                starting.push(self.agents.len());
                self.agents.push((node, handle));
            }
            let settled = self.agents.len() - starting.len();
            if settled == total {
                progress.end();
                return Ok(());
            }
            progress.say(&format!("{settled} of {total} agents settled{}", self.counts(&starting)));
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How those stand that have not settled.
    fn counts(&self, of: &[usize]) -> String {
        let mut counts: BTreeMap<Standing, usize> = BTreeMap::new();
        for index in of {
            *counts.entry(self.agents[*index].1.standing()).or_default() += 1;
        }
        let words = counts.into_iter().filter_map(|(standing, count)| {
            let what = match standing {
                Standing::Alone => "without a connection",
                Standing::Unanswered => "not answered yet",
                Standing::Refused => "refused: another agent acts under the name",
                Standing::Settled => return None,
            };
            Some(format!(", {count} {what}"))
        });
        words.collect()
    }

    /// Tells when that is not so any more, and when it is again.
    async fn watch(&self) -> anyhow::Result<()> {
        let mut progress = Progress::new();
        let all: Vec<usize> = (0..self.agents.len()).collect();
        let mut before = String::new();
        loop {
            tokio::time::sleep(WATCH).await;
            if let Some((node, _)) = self.agents.iter().find(|(_, handle)| handle.has_ended()) {
                bail!("the agent of {node} has ended by itself: an invariant is broken");
            }
            let now = self.counts(&all);
            if now != before {
                let (settled, total) = (all.len(), all.len());
                let text = if now.is_empty() {
                    format!("all {settled} agents are settled again")
                } else {
                    format!("of {total} agents{}", now.trim_start_matches(','))
                };
                progress.say(&text);
                before = now;
            }
        }
    }

    /// Every agent ends as a real one does that is stopped: with a last report.
    async fn end(&mut self) {
        let agents = std::mem::take(&mut self.agents);
        let ending = futures::stream::iter(agents).for_each_concurrent(ENDING, |(_, handle)| handle.stop());
        tokio::time::timeout(END_PATIENCE, ending).await.ok();
    }
}
