//! The observer: two informers feed one snapshot and the reconcilers' inboxes.

use std::sync::Arc;

use ostler_bus::informer::{self, InformerEvent};
use ostler_bus::store::{Entry, Op};
use ostler_bus::{ClockRef, EntropyRef, StoreRef};
use ostler_controller_core::fleet::Change;
use ostler_schemas::{Bucket, Key};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::Semaphore;

use super::inbox::Inboxes;
use super::{Task, task};
use crate::metrics::Metrics;
use crate::snapshot::SnapshotWriter;

/// Changes that may wait in the actor's mailbox; more make the informer wait, and through it the store's flow control.
const CREDIT: usize = 64;

/// The actor.
pub struct Observer;

/// What it starts with.
pub struct Args {
    /// The store.
    pub store: StoreRef,
    /// Time.
    pub clock: ClockRef,
    /// Randomness, for jitter.
    pub entropy: EntropyRef,
    /// The snapshot.
    pub writer: SnapshotWriter,
    /// The reconcilers' inboxes.
    pub inboxes: Arc<Inboxes>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// Its state.
pub struct State {
    writer: SnapshotWriter,
    inboxes: Arc<Inboxes>,
    metrics: Arc<Metrics>,
    clock: ClockRef,
    credit: Arc<Semaphore>,
    lost: std::collections::BTreeMap<Bucket, String>,
    _tasks: Vec<Task>,
}

/// An informer's event.
pub struct Observed(Bucket, InformerEvent);

impl Actor for Observer {
    type Msg = Observed;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, me: ActorRef<Observed>, args: Args) -> Result<State, ActorProcessingErr> {
        let credit = Arc::new(Semaphore::new(CREDIT));
        let mut tasks = Vec::new();
        for bucket in [Bucket::Objects, Bucket::Observed] {
            let (store, clock, entropy) = (args.store.clone(), args.clock.clone(), args.entropy.clone());
            let (me, credit) = (me.clone(), Arc::clone(&credit));
            tasks.push(task(async move {
                let mut events = informer::spawn(store, clock, entropy, bucket);
                while let Some(event) = events.recv().await {
                    let Ok(permit) = credit.acquire().await else { return };
                    permit.forget();
                    if me.cast(Observed(bucket, event)).is_err() {
                        return;
                    }
                }
            }));
        }
        let Args { clock, writer, inboxes, metrics, .. } = args;
        Ok(State { writer, inboxes, metrics, clock, credit, lost: Default::default(), _tasks: tasks })
    }

    async fn handle(
        &self,
        _: ActorRef<Observed>,
        Observed(bucket, event): Observed,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.take(bucket, event);
        state.credit.add_permits(1);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Observed>,
        _: SupervisionEvent,
        _: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl State {
    fn take(&mut self, bucket: Bucket, event: InformerEvent) {
        let now = self.clock.mono();
        match event {
            InformerEvent::Reset { .. } => {
                tracing::warn!(?bucket, "the store began anew: everything is read again");
                self.metrics.store_resets.inc();
                self.writer.reset(bucket);
                self.inboxes.reset(now);
            }
            InformerEvent::Changes { entries, revision } => {
                let changes: Vec<Change<'_>> = entries.iter().map(change).collect();
                self.writer.apply(bucket, &changes, revision);
                let keys: Vec<Key> = entries.iter().map(|e| e.key.clone()).collect();
                self.inboxes.changed(&keys, now);
                self.metrics.changes.inc_by(keys.len() as u64);
            }
            InformerEvent::Vanished { keys } => {
                self.writer.forget(&keys);
                self.inboxes.changed(&keys, now);
            }
            InformerEvent::Synced => {
                self.lost.remove(&bucket);
                self.writer.synced(bucket);
                self.publish_stale();
                self.inboxes.reset(now);
            }
            InformerEvent::Lost { reason } => {
                tracing::warn!(?bucket, reason, "the watch was lost; beginning another");
                self.lost.insert(bucket, reason);
                self.publish_stale();
            }
        }
    }

    fn publish_stale(&mut self) {
        let why = self.lost.iter().next().map(|(bucket, why)| format!("{}: {why}", bucket.name()));
        self.writer.stale(why);
    }
}

fn change(entry: &Entry) -> Change<'_> {
    let value = match &entry.op {
        Op::Put(bytes) => Some(bytes.as_ref()),
        Op::Delete => None,
    };
    Change { key: &entry.key, revision: entry.revision, at: entry.at, value }
}
