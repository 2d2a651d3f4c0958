//! A controller: a machine on which replicas live one after the other.

use std::sync::Arc;

use ostler_bus::ClockRef;
use ostler_bus::memory::{MemoryBus, Party, START_WALL_MS};
use ostler_bus::sim_clock::{Gate, SimClock};
use ostler_controller::api::Identities;
use ostler_controller::daemon::{self, Daemon, Deps};
use ostler_controller::vault::Vault;
use ostler_controller_core::liveness::Limits;
use ostler_schemas::time::Timestamp;
use ostler_schemas::{Name, ReplicaId};

use crate::planted::Plant;
use crate::seeds;

/// A running replica.
pub struct Life {
    /// The replica.
    pub daemon: Daemon,
    /// Its name.
    pub replica: ReplicaId,
    /// Lets it proceed.
    pub gate: Gate,
}

/// What every replica starts with.
#[derive(Clone)]
pub struct Common {
    /// The bus.
    pub bus: MemoryBus,
    /// Its servers, each of which gets a canary.
    pub servers: Vec<Name>,
    /// Who may call.
    pub identities: Arc<Identities>,
    /// How long silence may last.
    pub limits: Limits,
    /// Bugs on purpose.
    pub plant: Plant,
}

/// A controller's machine.
pub struct Replica {
    /// Its party's name on the bus.
    pub name: String,
    /// The machine's clock.
    pub clock: Arc<SimClock>,
    /// The replica, while one runs.
    pub life: Option<Life>,
    /// Decisions that panicked, in all lives that ended.
    pub panics: u64,
    seed: u64,
    index: usize,
    lives: u64,
}

impl Replica {
    /// A machine without a replica.
    #[must_use]
    pub fn new(seed: u64, index: usize) -> Self {
        let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
        Self { name: format!("ctl-{}", index + 1), clock, life: None, panics: 0, seed, index, lives: 0 }
    }

    /// Starts a replica, unless one runs.
    pub async fn start(&mut self, common: &Common) {
        if self.life.is_some() {
            return;
        }
        self.lives += 1;
        let gate = Gate::new();
        let clock: ClockRef = self.clock.with_gate(gate.clone());
        let party = Party { name: self.name.clone(), clock: Arc::clone(&clock), gate: gate.clone() };
        let (store, topic) = common.bus.cp(&party);
        let replica: ReplicaId =
            format!("{}-{}", self.name, self.lives).parse().expect("a replica's name is a label");
        let entropy = seeds::child(self.seed, &format!("controller {} {}", self.name, self.lives));
        let deps = Deps {
            replica: replica.clone(),
            store: common.plant.store(self.index, store, &gate),
            topic: common.plant.controller_topic(self.index, topic),
            canaries: common.servers.iter().map(|s| common.bus.canary(&party, s)).collect(),
            clock,
            entropy: entropy.clone(),
            vault: Arc::new(Vault::new(seeds::fleet_keys(), entropy)),
            identities: Arc::clone(&common.identities),
            limits: common.limits,
        };
        let daemon = daemon::run(deps).await.expect("a replica starts");
        self.life = Some(Life { daemon, replica, gate });
    }

    /// The replica ends as by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(life) = self.life.take() {
            life.gate.crash();
            self.panics += life.daemon.metrics.panics.get();
            life.daemon.kill();
        }
    }

    /// Decisions that panicked, ever.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics + self.life.as_ref().map_or(0, |l| l.daemon.metrics.panics.get())
    }
}
