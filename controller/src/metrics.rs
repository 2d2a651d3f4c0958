//! The daemon's metrics, registered into a registry that is passed in: no globals, so many replicas fit in a process.
//!
//! Names begin with `ostler_`; units are in the names; labels have few values.

use std::sync::Mutex;

use ostler_controller_core::liveness::Signals;
use ostler_schemas::ControllerName;
use ostler_schemas::v1::status::NodePhase;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// One label: name and value.
pub type Label = Vec<(&'static str, &'static str)>;

fn milliseconds() -> Histogram {
    // 1 ms to 16 s: from a wake in time to a lost one.
    Histogram::new(exponential_buckets(1.0, 2.0, 15))
}

fn messages() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 11))
}

/// What the daemon counts.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Beats taken in.
    pub beats: Counter,
    /// Messages that could not be read, on any subject but the API's.
    pub garbage: Counter,
    /// Beats of a second machine under a node's name.
    pub duplicates: Counter,
    /// Writes taken into the snapshot.
    pub changes: Counter,
    /// Times the store was found to have begun anew.
    pub store_resets: Counter,
    /// Takeovers of leases.
    pub takeovers: Counter,
    /// Decisions that panicked.
    pub panics: Counter,
    /// Batches that met a conflict.
    pub conflicts: Counter,
    /// Batches that the store refused.
    pub refused: Counter,
    /// Batches whose outcome could not be known.
    pub undecidable: Counter,
    /// Actors started again after a failure.
    pub restarts: Counter,
    lag_ms: Family<Label, Histogram, fn() -> Histogram>,
    queue_depth: Family<Label, Gauge>,
    batch_messages: Family<Label, Histogram, fn() -> Histogram>,
    nodes: Family<Label, Gauge>,
    leads: Family<Label, Gauge>,
    blind: Gauge,
    unreadable: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics in a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("ostler")),
            beats: Counter::default(),
            garbage: Counter::default(),
            duplicates: Counter::default(),
            changes: Counter::default(),
            store_resets: Counter::default(),
            takeovers: Counter::default(),
            panics: Counter::default(),
            conflicts: Counter::default(),
            refused: Counter::default(),
            undecidable: Counter::default(),
            restarts: Counter::default(),
            lag_ms: Family::new_with_constructor(milliseconds),
            queue_depth: Family::default(),
            batch_messages: Family::new_with_constructor(messages),
            nodes: Family::default(),
            leads: Family::default(),
            blind: Gauge::default(),
            unreadable: Gauge::default(),
        };
        metrics.with_registry(|registry| metrics.register(registry));
        metrics
    }

    /// Lets others register into the same registry.
    pub fn with_registry(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn register(&self, r: &mut Registry) {
        let counters = [
            ("beats", "Beats taken in", &self.beats),
            ("garbage_messages", "Messages that could not be read", &self.garbage),
            ("duplicate_beats", "Beats of a second machine under a node's name", &self.duplicates),
            ("changes", "Writes taken into the snapshot", &self.changes),
            ("store_resets", "Times the store was found to have begun anew", &self.store_resets),
            ("takeovers", "Takeovers of leases by this replica", &self.takeovers),
            ("decision_panics", "Decisions that panicked", &self.panics),
            ("batch_conflicts", "Batches that met a conflict", &self.conflicts),
            ("batches_refused", "Batches that the store refused", &self.refused),
            ("batches_undecidable", "Batches whose outcome could not be known", &self.undecidable),
            ("actor_restarts", "Actors started again after a failure", &self.restarts),
        ];
        for (name, help, counter) in counters {
            r.register(name, help, counter.clone());
        }
        r.register(
            "reconcile_lag_ms",
            "From a change to the decision on it, in milliseconds",
            self.lag_ms.clone(),
        );
        r.register("queue_depth", "Objects waiting for a decision or its outcome", self.queue_depth.clone());
        r.register("batch_messages", "Messages per batch", self.batch_messages.clone());
        r.register("nodes", "Registered nodes by phase, as heard by this replica", self.nodes.clone());
        r.register("leads", "1 for each controller that this replica leads", self.leads.clone());
        r.register(
            "unreadable_keys",
            "Keys of the store whose content this replica cannot read",
            self.unreadable.clone(),
        );
        r.register("blind", "1 while this replica can judge no silence", self.blind.clone());
    }

    /// A decision came so long after the change that it answers.
    pub fn lag(&self, c: ControllerName, ms: u64) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a lag are far below 2^52")]
        self.lag_ms.get_or_create(&controller(c)).observe(ms as f64);
    }

    /// So many objects wait.
    pub fn depth(&self, c: ControllerName, depth: usize) {
        self.queue_depth.get_or_create(&controller(c)).set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// A batch of so many messages goes out.
    pub fn batch(&self, c: ControllerName, messages: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has at most 1,000 messages")]
        self.batch_messages.get_or_create(&controller(c)).observe(messages as f64);
    }

    /// What this replica leads.
    pub fn leading(&self, leads: impl Fn(ControllerName) -> bool) {
        for c in ControllerName::ALL {
            self.leads.get_or_create(&controller(c)).set(i64::from(leads(c)));
        }
    }

    /// So many keys of the store cannot be read.
    pub fn unreadable(&self, keys: usize) {
        self.unreadable.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    /// The phases of all nodes.
    pub fn nodes_by_phase(&self, signals: &Signals) {
        let phases =
            [NodePhase::Ready, NodePhase::NotReady, NodePhase::Suspect, NodePhase::Lost, NodePhase::Unknown];
        for phase in phases {
            let count = signals.nodes.values().filter(|s| s.phase == phase).count();
            let label = vec![("phase", phase.as_str())];
            self.nodes.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.blind.set(i64::from(signals.blind.is_some()));
    }

    /// The exposition in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never, in practice: writing into a `String` does not fail.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn controller(c: ControllerName) -> Label {
    vec![("controller", c.as_str())]
}
