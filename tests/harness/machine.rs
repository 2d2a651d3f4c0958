//! A simulated host and the agent on it. Host, files and ledger outlive agents; the clock outlives everything.

use std::sync::Arc;

use ostler_agent::sim::{Program, SimArtifacts, SimFacts, SimFiles, SimHost, SimLedger};
use ostler_agent::{Deps, Handle, NodeConfig, Viewer};
use ostler_bus::ClockRef;
use ostler_bus::memory::{MemoryBus, Party, START_WALL_MS};
use ostler_bus::node_link::NodeLink;
use ostler_bus::sealing::{KeyPair, KeyRing};
use ostler_bus::sim_clock::{Gate, SimClock};
use ostler_schemas::NodeName;
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::time::Timestamp;

use crate::checks::files::FileWatch;
use crate::gated::{GatedArtifacts, GatedFiles, GatedHost, GatedLedger};
use crate::planted::Plant;
use crate::seeds;

/// The command that serves until it is stopped.
pub const SERVE: &str = "/bin/serve";

/// A running agent.
pub struct Life {
    handle: Handle,
    /// Looks at it.
    pub viewer: Viewer,
    /// Lets it proceed.
    pub gate: Gate,
}

/// A host.
pub struct Machine {
    /// Its node, also its party's name on the bus.
    pub node: NodeName,
    /// The machine's clock.
    pub clock: Arc<SimClock>,
    /// Its processes.
    pub host: Arc<SimHost>,
    /// Its files.
    pub files: Arc<SimFiles>,
    /// Its ledger.
    pub ledger: Arc<SimLedger>,
    /// Its cache of artifacts.
    pub artifacts: Arc<SimArtifacts>,
    /// The agent, while one runs.
    pub life: Option<Life>,
    /// Whether the power is on.
    pub powered: bool,
    /// What it says of itself.
    pub facts: Arc<SimFacts>,
    /// The node's keys.
    pub keys: KeyRing,
    watch: Arc<FileWatch>,
    seed: u64,
    /// Lives of agents so far.
    pub lives: u64,
    /// Whether a holder runs.
    pub holder: bool,
    /// How often the holder went away.
    pub holders_lost: u64,
}

impl Machine {
    /// A running host without an agent.
    #[must_use]
    pub fn new(seed: u64, node: NodeName, watch: Arc<FileWatch>) -> Self {
        let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
        let host = SimHost::new(Arc::clone(&clock) as ClockRef);
        let serve =
            Program { stops_in_ms: Some(20), ready_after_ms: 200, starts_in_ms: 5, ..Program::default() };
        host.program(SERVE, serve);
        let facts =
            SimFacts::new(Arc::clone(&host), node.as_str(), Cpu::from_millis(8000), Size::from_mib(16_384));
        let ledger = SimLedger::new(Arc::clone(&clock) as ClockRef);
        let keys = KeyRing::new(vec![KeyPair::generate(&*seeds::child(seed, &format!("keys of {node}")))]);
        Self {
            files: SimFiles::new(),
            artifacts: SimArtifacts::new(Arc::clone(&clock) as ClockRef),
            node,
            clock,
            host,
            ledger,
            life: None,
            powered: true,
            facts,
            keys,
            watch,
            seed,
            lives: 0,
            holder: true,
            holders_lost: 0,
        }
    }

    /// Starts an agent, unless one runs or the power is off.
    pub async fn start(&mut self, bus: &MemoryBus, plant: &Plant) {
        if self.life.is_some() || !self.powered {
            return;
        }
        self.lives += 1;
        let gate = Gate::new();
        let clock: ClockRef = plant.agent_clock(&self.clock).with_gate(gate.clone());
        let party = Party { name: self.node.to_string(), clock: Arc::clone(&clock), gate: gate.clone() };
        let topic = plant.agent_topic(&self.node, bus.agent(&party, &self.node));
        let deps = Deps {
            link: NodeLink::new(topic, self.node.clone(), Arc::clone(&clock)),
            clock,
            entropy: seeds::child(self.seed, &format!("agent {} {}", self.node, self.lives)),
            host: plant.host(Arc::new(GatedHost { inner: Arc::clone(&self.host), gate: gate.clone() })),
            files: Arc::new(GatedFiles {
                inner: Arc::clone(&self.files),
                gate: gate.clone(),
                node: self.node.clone(),
                watch: Arc::clone(&self.watch),
            }),
            artifacts: plant.artifacts(Arc::new(GatedArtifacts {
                inner: Arc::clone(&self.artifacts),
                gate: gate.clone(),
            })),
            ledger: plant
                .ledger(Arc::new(GatedLedger { inner: Arc::clone(&self.ledger), gate: gate.clone() })),
            facts: Arc::clone(&self.facts) as _,
            keys: self.keys.clone(),
            config: NodeConfig {
                own: vec!["/var/lib/ostler".to_owned()],
                originals: "/var/lib/ostler/originals".to_owned(),
                credentials: Some(Ok("/run/ostler/credentials".to_owned())),
                ..NodeConfig::default()
            },
        };
        let handle = ostler_agent::run::run(deps).await.expect("an agent starts from its own ledger");
        self.life = Some(Life { viewer: handle.viewer(), handle, gate });
    }

    /// The agent ends as by SIGKILL; processes live on.
    pub fn kill_agent(&mut self) {
        if let Some(life) = self.life.take() {
            life.gate.crash();
            life.handle.kill();
        }
    }

    /// The holder goes; what lives lives on.
    pub fn holder_down(&mut self) {
        if self.holder && self.powered {
            self.holder = false;
            self.holders_lost += 1;
            self.host.holder_down();
        }
    }

    /// A holder runs again.
    pub fn holder_up(&mut self) {
        if !self.holder {
            self.holder = true;
            self.host.holder_up();
        }
    }

    /// One actor of the agent fails.
    pub fn crash_part(&self, n: usize) {
        if let Some(life) = &self.life {
            life.handle.crash_part(n);
        }
    }

    /// The power goes: agent and processes end, what was not synced is lost.
    pub fn power_off(&mut self) {
        self.kill_agent();
        self.host.power_off();
        self.holder = true;
        self.files.power_loss();
        self.watch.power_lost(&self.node);
        self.powered = false;
    }

    /// The host boots, under a new boot id; the agent is to be started.
    pub fn power_on(&mut self) {
        if !self.powered {
            self.host.power_on();
            self.powered = true;
        }
    }

    /// Whether an agent runs and is not paused.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.life.as_ref().is_some_and(|l| l.gate.is_open())
    }
}
