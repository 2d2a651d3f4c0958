//! The bus alone: the messages of a push without anybody who thinks about them, on a bus of its own with the same
//! configuration. Documents of the same size in batches of the same length, hints, for each node the three direct gets,
//! a report of the same size stored by a guarded write, and an informer that hears of it. Nobody beats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::StreamExt as _;
use ostler_bus::clock::{ClockRef, SystemClock};
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::informer::{self, InformerEvent};
use ostler_bus::layout::{Block, Identity, Scale, Sizes as StreamSizes};
use ostler_bus::nats::Bus;
use ostler_bus::nats::provision::provision;
use ostler_bus::nats::server::{Local, LocalOptions};
use ostler_bus::node_link::NodeLink;
use ostler_bus::store::{Expect, Guard, Headers, Op, StoreRef, Txn, Write};
use ostler_controller_core::lane::BATCH_MESSAGES;
use ostler_schemas::hash::sha256;
use ostler_schemas::key::DocumentKind;
use ostler_schemas::spec::ContentRef;
use ostler_schemas::subject::Hint;
use ostler_schemas::{Bucket, Key, Name, NodeName, Revision};
use tokio::sync::mpsc;

use crate::{ms, percentile};

/// Nothing healthy takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of what is sent for one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) document: usize,
    pub(crate) spec: usize,
    pub(crate) content: usize,
    pub(crate) report: usize,
}

/// When each node's report was heard, in the median run.
pub(crate) async fn measure(nodes: u32, sizes: &Sizes, runs: usize) -> anyhow::Result<Vec<Duration>> {
    let folder = tempfile::tempdir()?;
    let entropy: EntropyRef = Arc::new(SeededEntropy::from_system()?);
    let prefix: Name = "sim".parse()?;
    let options = LocalOptions {
        servers: 1,
        simulated: BTreeMap::from([(prefix.clone(), nodes)]),
        ..LocalOptions::default()
    };
    let mut local = Local::start(folder.path(), options, &*entropy).await?;
    let controller = Bus::connect(&local.config(Identity::Controller), &entropy).await?;
    provision(&controller, Scale { replicas: 1, sizes: StreamSizes::default() }, PATIENCE).await?;
    let rig = Rig::start(&local, &controller, (&prefix, nodes), sizes, entropy).await?;
    let all = rig.runs(runs).await;
    local.stop().await;
    let mut all = all?;
    all.sort_by_key(|times| percentile(times, 99));
    Ok(all.swap_remove(all.len() / 2))
}

struct Rig {
    store: StoreRef,
    entropy: EntropyRef,
    names: Vec<NodeName>,
    document: usize,
    reports: mpsc::UnboundedReceiver<(NodeName, Instant)>,
    _nodes: Vec<tokio::task::JoinHandle<()>>,
    _buses: Vec<Bus>,
}

impl Rig {
    async fn start(
        local: &Local,
        controller: &Bus,
        (prefix, nodes): (&Name, u32),
        sizes: &Sizes,
        entropy: EntropyRef,
    ) -> anyhow::Result<Self> {
        let store = controller.store.clone().context("a controller's connection has a store")?;
        let work = Arc::new(Work::store(&store, &entropy, sizes).await?);
        let clock = SystemClock::shared();
        let (mut tasks, mut buses, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for block in Block::all(prefix, nodes).context("nodes have names")? {
            let bus = Bus::connect(&local.config(Identity::Simulated(block.clone())), &entropy).await?;
            if !bus.connected(PATIENCE).await {
                bail!("no connection as {block}");
            }
            for node in block.nodes() {
                let link = NodeLink::new(bus.topic.clone(), node.clone(), clock.clone());
                let hints = link.hints().await?;
                tasks.push(tokio::spawn(serve(link, hints, Arc::clone(&work))));
                names.push(node.clone());
            }
            buses.push(bus);
        }
        let reports = heard(store.clone(), &clock, entropy.clone());
        let document = sizes.document;
        Ok(Self { store, entropy, names, document, reports, _nodes: tasks, _buses: buses })
    }

    async fn runs(mut self, runs: usize) -> anyhow::Result<Vec<Vec<Duration>>> {
        let (mut last, mut all) = (None, Vec::with_capacity(runs));
        for run in 0..=runs {
            let (times, written) = self.once(last).await?;
            last = Some(written);
            eprintln!("bus alone {run}: 99 % after {}", ms(percentile(&times, 99)));
            // The first writes keys that were never there.
            if run > 0 {
                all.push(times);
            }
        }
        Ok(all)
    }

    /// Writes every document once; when each report was heard, and the revision of the first document.
    async fn once(&mut self, before: Option<Revision>) -> anyhow::Result<(Vec<Duration>, Revision)> {
        let body = Bytes::from(vec![0; self.document]);
        let begin = Instant::now();
        let mut first = None;
        let mut number = 0;
        for names in self.names.chunks(BATCH_MESSAGES) {
            let write = |(i, node): (usize, &NodeName)| {
                // Every run writes the same keys in the same order.
                let expect = before.map(|first| Revision(first.0 + number + i as u64));
                Write {
                    key: Key::NodeDocument(node.clone(), DocumentKind::Files),
                    op: Op::Put(body.clone()),
                    guard: Guard::Own(Expect::after(expect)),
                    headers: Headers::new(),
                }
            };
            let writes = names.iter().enumerate().map(write).collect();
            let done = self.store.commit(&Txn { id: self.entropy.txn(), writes }).await?;
            first.get_or_insert(done.revision(0));
            number += names.len() as u64;
        }
        let mut times = Vec::with_capacity(self.names.len());
        let reading = async {
            while times.len() < self.names.len() {
                let (_, at) = self.reports.recv().await.context("the informer ended")?;
                times.push(at.saturating_duration_since(begin));
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, reading).await.context("not all reports came in time")??;
        Ok((times, first.context("there are nodes")?))
    }
}

/// What every node reads and writes.
struct Work {
    spec: ostler_schemas::Sha256,
    content: ContentRef,
    report: Bytes,
}

impl Work {
    async fn store(store: &StoreRef, entropy: &EntropyRef, sizes: &Sizes) -> anyhow::Result<Self> {
        let [spec, content] = [sizes.spec, sizes.content].map(|size| Bytes::from(vec![1; size]));
        let work = Self {
            spec: sha256(&spec),
            content: ContentRef { sha256: sha256(&content), size: content.len() as u64 },
            report: vec![2; sizes.report].into(),
        };
        for (key, body) in
            [(Key::Template(work.spec), spec), (Key::BlobChunk(work.content.sha256, 0), content)]
        {
            let guard = Guard::Own(Expect::Absent);
            let write = Write { key, op: Op::Put(body), guard, headers: Headers::new() };
            store.commit(&Txn { id: entropy.txn(), writes: vec![write] }).await?;
        }
        Ok(work)
    }
}

/// One node: for each hint of its document it reads everything, as if it had nothing, and reports.
async fn serve(
    link: NodeLink,
    mut hints: futures::stream::BoxStream<'static, ostler_bus::node_link::Hinted>,
    work: Arc<Work>,
) {
    let mut last: Option<Revision> = None;
    while let Some(hinted) = hints.next().await {
        if hinted.hint != Hint::Document(DocumentKind::Files) {
            continue;
        }
        let read = async {
            link.get_document(DocumentKind::Files).await?;
            link.get_template(work.spec).await?;
            link.get_blob(&work.content).await
        };
        if let Err(error) = read.await {
            eprintln!("{}: {error}", link.node());
        }
        match link.put_report(work.report.clone(), Headers::new(), Expect::after(last)).await {
            Ok(revision) => last = Some(revision),
            Err(error) => eprintln!("{}: {error}", link.node()),
        }
    }
}

fn heard(
    store: StoreRef,
    clock: &ClockRef,
    entropy: EntropyRef,
) -> mpsc::UnboundedReceiver<(NodeName, Instant)> {
    let mut events = informer::spawn(store, clock.clone(), entropy, Bucket::Observed);
    let (out, reports) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let InformerEvent::Changes { entries, .. } = event else { continue };
            let now = Instant::now();
            for entry in entries {
                if let Key::Report(node) = entry.key
                    && out.send((node, now)).is_err()
                {
                    return;
                }
            }
        }
    });
    reports
}
