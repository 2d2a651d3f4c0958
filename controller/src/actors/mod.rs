//! The actors of one replica. Each has one duty; none shares a lock with another across an await.
//!
//! ```text
//! root ─┬─ observer     informers -> snapshot, tells the reconcilers which keys changed
//!       ├─ ears         beats and canaries -> liveness -> signals; answers beats
//!       ├─ leader       leases, beacons, terms -> one lane per controller
//!       ├─ reconcilers  one per controller: snapshot -> core -> plan -> fenced batch
//!       └─ api          the micro service
//! ```
//!
//! State flows through `watch` channels (the latest value), wakes are coalesced, and every timer comes from the clock
//! port. A child that fails is started anew by the root, with backoff; it takes no other with it.

pub mod canary;
pub mod commit;
pub mod controllers;
pub mod ears;
pub mod inbox;
pub mod leader;
pub mod observer;
pub mod reconciler;
pub mod root;
pub mod tidy;
pub mod warden;

use std::sync::Arc;

use ostler_bus::{ClockRef, EntropyRef, StoreRef, TopicRef};
use ostler_controller_core::liveness::Signals;
use ostler_controller_core::plan::Ids;
use ostler_schemas::{ReplicaId, Uid};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::events::Teller;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::vault::VaultRef;

use self::inbox::Inboxes;
use self::leader::Lanes;

/// What every actor of a replica may use.
#[derive(Clone)]
pub struct Context {
    /// This replica.
    pub replica: ReplicaId,
    /// The store.
    pub store: StoreRef,
    /// Messages, in account CP.
    pub topic: TopicRef,
    /// Time.
    pub clock: ClockRef,
    /// Randomness.
    pub entropy: EntropyRef,
    /// What opens and seals Secrets.
    pub vault: VaultRef,
    /// The fleet.
    pub snapshot: Snapshot,
    /// Liveness, as heard.
    pub signals: watch::Receiver<Arc<Signals>>,
    /// What this replica leads.
    pub lanes: Lanes,
    /// Which keys changed, per controller.
    pub inboxes: Arc<Inboxes>,
    /// Events.
    pub teller: Teller,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// Fresh ids from the entropy port.
pub struct FreshIds<'a>(pub &'a EntropyRef);

impl Ids for FreshIds<'_> {
    fn uid(&mut self) -> Uid {
        self.0.uid()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
}

/// A task that ends with its actor.
pub type Task = AbortOnDropHandle<()>;

/// Starts a task that ends when the handle is dropped.
pub fn task(future: impl Future<Output = ()> + Send + 'static) -> Task {
    AbortOnDropHandle::new(tokio::spawn(future))
}

/// Sends a message to an actor that may have ended: then nobody is left who would need it.
pub fn post<M: ractor::Message>(to: &ractor::ActorRef<M>, message: M) {
    drop(to.cast(message));
}

/// A task that calls `each` every `ms` milliseconds of the clock until it returns false.
pub fn every(clock: ClockRef, ms: u64, mut each: impl FnMut() -> bool + Send + 'static) -> Task {
    task(async move {
        loop {
            clock.sleep_ms(ms).await;
            if !each() {
                return;
            }
        }
    })
}
