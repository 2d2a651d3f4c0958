//! One replica: from ports to running actors. The same code runs in production and in the simulation.

use std::sync::Arc;

use ostler_bus::{ClockRef, EntropyRef, StoreRef, TopicRef};
use ostler_controller_core::liveness::{Limits, Signals};
use ostler_schemas::{ControllerName, ReplicaId};
use ractor::{Actor, ActorRef, SpawnErr};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::actors::Context;
use crate::actors::inbox::Inboxes;
use crate::actors::leader::Lanes;
use crate::actors::root::{Args, Child, Msg, Root};
use crate::api::{ApiDeps, ApiMetrics, Identities};
use crate::events::Teller;
use crate::metrics::Metrics;
use crate::snapshot::{Snapshot, snapshot};
use crate::vault::VaultRef;

/// A replica gives its leases back within so long, or not at all.
const RETIRE_MS: u64 = 2000;

/// What a replica needs.
pub struct Deps {
    /// Its name, unique among all replicas that ever were.
    pub replica: ReplicaId,
    /// The store.
    pub store: StoreRef,
    /// Messages, in account CP.
    pub topic: TopicRef,
    /// A connection per NATS server for the canaries, in account AG.
    pub canaries: Vec<TopicRef>,
    /// Time.
    pub clock: ClockRef,
    /// Randomness.
    pub entropy: EntropyRef,
    /// What opens and seals Secrets.
    pub vault: VaultRef,
    /// Who may call the API.
    pub identities: Arc<Identities>,
    /// How long silence may last.
    pub limits: Limits,
}

/// A running replica.
pub struct Daemon {
    root: ActorRef<Msg>,
    handle: JoinHandle<()>,
    clock: ClockRef,
    /// Its snapshot, for health checks and tests.
    pub snapshot: Snapshot,
    /// Its signals, for health checks and tests.
    pub signals: watch::Receiver<Arc<Signals>>,
    /// What it leads.
    pub lanes: Lanes,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
}

/// Starts a replica.
///
/// # Errors
/// Only if the root actor cannot start; everything below it is started again when it fails.
pub async fn run(deps: Deps) -> Result<Daemon, SpawnErr> {
    let Deps { replica, store, topic, canaries, clock, entropy, vault, identities, limits } = deps;
    let snapshot = snapshot(clock.clone());
    let (signals_sender, signals) = watch::channel(Arc::new(Signals::default()));
    let lanes = Lanes::default();
    let metrics = Arc::new(Metrics::new());
    let api_metrics = Arc::new(ApiMetrics::default());
    metrics.with_registry(|registry| api_metrics.register(registry));
    let teller = Teller::new(topic.clone(), clock.clone());
    let api = ApiDeps {
        store: store.clone(),
        topic: topic.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        snapshot: snapshot.clone(),
        signals: signals.clone(),
        vault: Arc::clone(&vault),
        identities,
        lanes: lanes.clone(),
        teller: teller.clone(),
        metrics: api_metrics,
        limits: Default::default(),
    };
    let context = Context {
        replica,
        store,
        topic,
        clock: clock.clone(),
        entropy,
        vault,
        snapshot: snapshot.clone(),
        signals: signals.clone(),
        lanes: lanes.clone(),
        inboxes: Arc::new(Inboxes::default()),
        teller,
        metrics: Arc::clone(&metrics),
    };
    let args = Args { context, limits, canaries, signals: signals_sender, api };
    let (root, handle) = Actor::spawn(None, Root, args).await?;
    Ok(Daemon { root, handle, clock, snapshot, signals, lanes, metrics })
}

impl Daemon {
    /// Whether it leads a controller.
    #[must_use]
    pub fn leads(&self, c: ControllerName) -> bool {
        self.lanes.leads(c)
    }

    /// Gives leases back, then ends: successors take over at once.
    pub async fn stop(self) {
        let (sender, done) = tokio::sync::oneshot::channel();
        if self.root.cast(Msg::Retire(sender.into())).is_ok() {
            tokio::select! {
                biased;
                _ = done => {}
                () = self.clock.sleep_ms(RETIRE_MS) => tracing::warn!("leases were not given back in time"),
            }
        }
        self.root.stop(None);
        if self.handle.await.is_err() {
            tracing::debug!("the root was already gone");
        }
    }

    /// Ends as a crash would: nothing is given back.
    pub fn kill(&self) {
        self.root.kill();
    }

    /// Ends one of its actors as a failure would; the root starts it again. For tests of supervision.
    pub fn crash(&self, child: Child) {
        crate::actors::post(&self.root, Msg::Crash(child));
    }

    /// Done when the replica has ended by itself.
    pub async fn ended(&mut self) {
        drop((&mut self.handle).await);
    }
}
