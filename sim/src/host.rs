//! One simulated host and the agent on it. It lives as long as this program: its end is the end of the host.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::BoxStream;
use ostler_agent::ports::Files;
use ostler_agent::sim::{Manners, Program, SimArtifacts, SimFacts, SimFiles, SimHost, SimLedger};
use ostler_agent::{Deps, NodeConfig};
use ostler_agent_core::file::{Observed, Stamp, Step, StepError, StepErrorKind};
use ostler_bus::clock::ClockRef;
use ostler_bus::entropy::EntropyRef;
use ostler_bus::node_link::NodeLink;
use ostler_bus::sealing::{KeyPair, KeyRing};
use ostler_bus::topic::TopicRef;
use ostler_schemas::NodeName;
use ostler_schemas::hash::sha256;
use ostler_schemas::quantity::{Cpu, Size};

use crate::options::Options;

/// What every simulated node is labelled with, so that selectors can tell it from a host.
const LABEL: (&str, &str) = ("simulated", "true");
/// What a simulated host has: an ordinary machine.
const CPU_MILLIS: u64 = 8_000;
const MEMORY_MIB: u64 = 16_384;

/// What hosts of one fleet have in common.
pub(crate) struct Model {
    clock: ClockRef,
    entropy: EntropyRef,
    well: Arc<Manners>,
    failing: Arc<Manners>,
    permille: u32,
    latency_ms: u64,
    config: NodeConfig,
    /// Of this run: a host that is simulated anew has booted.
    boot: u64,
}

impl Model {
    pub(crate) fn new(options: &Options, clock: ClockRef, entropy: EntropyRef) -> Self {
        let usual = Program { starts_in_ms: options.latency_ms, ..Program::default() };
        let well = Manners { usual, failing: Vec::new(), everybody: true, forgetful: true };
        let failing = Manners { failing: options.fail.clone(), ..well.clone() };
        let config = NodeConfig {
            labels: [(LABEL.0.to_owned(), LABEL.1.to_owned())].into(),
            own: vec!["/var/lib/ostler".to_owned()],
            originals: "/var/lib/ostler/originals".to_owned(),
            credentials: Some(Ok("/run/ostler/credentials".to_owned())),
            allow_root: true,
            privileged: true,
            ..NodeConfig::default()
        };
        Self {
            boot: clock.wall().0,
            well: Arc::new(well),
            failing: Arc::new(failing),
            permille: options.fail_permille,
            latency_ms: options.latency_ms,
            clock,
            entropy,
            config,
        }
    }

    /// Whether a node is one of those that fail: always the same ones, whoever is asked.
    pub(crate) fn fails(&self, node: &NodeName) -> bool {
        let hash = sha256(node.as_str().as_bytes());
        let bytes = hash.as_bytes();
        u32::from(u16::from_be_bytes([bytes[0], bytes[1]])) * 1_000 / (1 << 16) < self.permille
    }

    /// What the agent of a node stands on.
    pub(crate) fn host(&self, node: &NodeName, topic: TopicRef) -> Deps {
        let clock = self.clock.clone();
        let manners = if self.fails(node) { &self.failing } else { &self.well };
        let host = SimHost::with_manners(clock.clone(), Arc::clone(manners), self.boot);
        let facts = SimFacts::new(
            Arc::clone(&host),
            node.as_str(),
            Cpu::from_millis(CPU_MILLIS),
            Size::from_mib(MEMORY_MIB),
        );
        let files = PacedFiles {
            inner: SimFiles::new(),
            manners: Arc::clone(manners),
            clock: clock.clone(),
            entropy: self.entropy.clone(),
            latency_ms: self.latency_ms,
        };
        Deps {
            link: NodeLink::new(topic, node.clone(), clock.clone()),
            entropy: self.entropy.clone(),
            host,
            files: Arc::new(files),
            artifacts: SimArtifacts::new(clock.clone()),
            ledger: SimLedger::new(clock.clone()),
            facts,
            keys: KeyRing::new(vec![KeyPair::generate(&*self.entropy)]),
            config: self.config.clone(),
            clock,
        }
    }
}

/// Files in memory whose steps take their time, and some of which cannot be written.
struct PacedFiles {
    inner: Arc<SimFiles>,
    manners: Arc<Manners>,
    clock: ClockRef,
    entropy: EntropyRef,
    latency_ms: u64,
}

impl PacedFiles {
    fn refusal(&self, content: Option<&Bytes>) -> Option<StepError> {
        let holds = |text: &String| {
            let (text, content) = (text.as_bytes(), content.map_or(&[][..], |bytes| bytes));
            !text.is_empty() && content.windows(text.len()).any(|part| part == text)
        };
        let text = self.manners.failing.iter().find(|text| holds(text))?;
        let message = format!("this simulated host fails what contains {text:?}");
        Some(StepError { kind: StepErrorKind::Failed, message })
    }
}

impl Files for PacedFiles {
    fn observe(&self, path: String, wanted: Option<Bytes>) -> BoxFuture<'_, Result<Observed, String>> {
        self.inner.observe(path, wanted)
    }

    fn glance(&self, path: String) -> BoxFuture<'_, Stamp> {
        self.inner.glance(path)
    }

    fn list(&self, dir: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
        self.inner.list(dir)
    }

    fn apply(&self, step: Step, content: Option<Bytes>) -> BoxFuture<'_, Result<(), StepError>> {
        async move {
            if self.latency_ms > 0 {
                // Between half of it and half more than it.
                let ms = self.latency_ms / 2 + self.entropy.below(self.latency_ms + 1);
                self.clock.sleep_ms(ms).await;
            }
            match self.refusal(content.as_ref()) {
                Some(error) => Err(error),
                None => self.inner.apply(step, content).await,
            }
        }
        .boxed()
    }

    fn watch(&self, path: String) -> BoxStream<'static, ()> {
        self.inner.watch(path)
    }

    fn exists(&self, path: &str) -> bool {
        self.inner.exists(path)
    }

    fn is_mounted(&self, path: &str) -> bool {
        self.inner.is_mounted(path)
    }
}
