//! The one snapshot of a replica: written by the informers, read by everybody, as the latest value of a channel.
//!
//! Guarantee: what [`Snapshot::at_least`] returns has taken in every write up to the revision asked for, so a writer
//! reads its own writes. Readers never block the writer.

use std::sync::Arc;

use ostler_bus::ClockRef;
use ostler_controller_core::fleet::{Change, Fleet};
use ostler_schemas::{Bucket, Key, Revision};
use tokio::sync::{Notify, watch};

/// What readers see.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The fleet.
    pub fleet: Arc<Fleet>,
    /// Whether everything that was stored when the informers began has been taken in.
    pub synced: bool,
    /// Why the picture may be old: an informer has lost its watch.
    pub stale: Option<String>,
}

/// A reader's handle.
#[derive(Clone)]
pub struct Snapshot {
    views: Arc<watch::Sender<View>>,
    moved: Arc<Notify>,
    clock: ClockRef,
}

/// The snapshot did not reach a revision in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this replica has not caught up to revision {wanted} (it is at {reached})")]
pub struct Behind {
    /// What was asked for.
    pub wanted: Revision,
    /// What it has.
    pub reached: Revision,
}

impl Snapshot {
    /// The latest view.
    #[must_use]
    pub fn view(&self) -> View {
        self.views.borrow().clone()
    }

    /// The latest fleet.
    #[must_use]
    pub fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.views.borrow().fleet)
    }

    /// Forgets keys whose markers have been purged: a purge leaves no trace that an informer could tell.
    pub fn purged(&self, keys: &[(Key, Revision)]) {
        self.views.send_modify(|view| {
            let fleet = Arc::make_mut(&mut view.fleet);
            for (key, revision) in keys {
                if fleet.revision_of(key) == Some(*revision) {
                    fleet.forget(key);
                }
            }
        });
    }

    /// A receiver of every later view; intermediate ones may be skipped.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    /// A fleet that is synced and has reached `revision` of the objects bucket.
    ///
    /// # Errors
    /// [`Behind`] if that takes longer than `timeout_ms`.
    pub async fn at_least(&self, revision: Revision, timeout_ms: u64) -> Result<Arc<Fleet>, Behind> {
        let reached = async {
            loop {
                // Taken before the view is looked at, so no change falls in between. Not the channel's own wakeups:
                // many wait here at once, and those wake in a random order, while a simulation must repeat itself.
                let moved = self.moved.notified();
                let view = self.view();
                if view.synced && view.fleet.revision >= revision {
                    return view.fleet;
                }
                moved.await;
            }
        };
        tokio::select! {
            biased;
            fleet = reached => Ok(fleet),
            () = self.clock.sleep_ms(timeout_ms) => {
                Err(Behind { wanted: revision, reached: self.fleet().revision })
            }
        }
    }
}

/// The writer's handle; one per replica, for the informers of both buckets.
pub struct SnapshotWriter {
    views: Arc<watch::Sender<View>>,
    moved: Arc<Notify>,
    objects_synced: bool,
    observed_synced: bool,
}

/// A fresh, empty snapshot.
#[must_use]
pub fn snapshot(clock: ClockRef) -> Snapshot {
    Snapshot { views: Arc::new(watch::Sender::new(View::default())), moved: Arc::default(), clock }
}

impl SnapshotWriter {
    /// Takes over a snapshot, empty again: the writer before this one has failed, and what it knew of its watches is
    /// lost with it.
    #[must_use]
    pub fn again(snapshot: &Snapshot) -> Self {
        let views = Arc::clone(&snapshot.views);
        views.send_replace(View::default());
        let moved = Arc::clone(&snapshot.moved);
        Self { views, moved, objects_synced: false, observed_synced: false }
    }

    /// Takes in writes as one step: readers see all or none of them.
    pub fn apply(&mut self, bucket: Bucket, changes: &[Change<'_>], revision: Revision) {
        self.views.send_modify(|view| {
            let fleet = Arc::make_mut(&mut view.fleet);
            changes.iter().for_each(|c| fleet.apply(c));
            fleet.reached(bucket, revision);
        });
        self.moved.notify_waiters();
    }

    /// Forgets keys that a relist did not show.
    pub fn forget(&mut self, keys: &[Key]) {
        self.views.send_modify(|view| {
            let fleet = Arc::make_mut(&mut view.fleet);
            keys.iter().for_each(|k| fleet.forget(k));
        });
    }

    /// Forgets a bucket: its store began anew.
    pub fn reset(&mut self, bucket: Bucket) {
        self.set_synced(bucket, false);
        self.views.send_modify(|view| Arc::make_mut(&mut view.fleet).reset(bucket));
        self.publish_synced();
    }

    /// Everything stored has been taken in.
    pub fn synced(&mut self, bucket: Bucket) {
        self.set_synced(bucket, true);
        self.publish_synced();
    }

    /// An informer lost its watch (`Some`), or has it again (`None`).
    pub fn stale(&mut self, why: Option<String>) {
        self.views.send_modify(|view| view.stale = why);
    }

    fn set_synced(&mut self, bucket: Bucket, synced: bool) {
        match bucket {
            Bucket::Objects => self.objects_synced = synced,
            Bucket::Observed => self.observed_synced = synced,
            Bucket::Grants | Bucket::Blobs => {}
        }
    }

    fn publish_synced(&mut self) {
        let synced = self.objects_synced && self.observed_synced;
        self.views.send_modify(|view| view.synced = synced);
        self.moved.notify_waiters();
    }
}
