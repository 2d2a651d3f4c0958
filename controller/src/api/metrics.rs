//! What the API counts.

use ostler_schemas::subject::Verb;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::metrics::Label;

fn milliseconds() -> Histogram {
    // 1 ms to 16 s: from an answer out of the snapshot to a commit that waits for an election.
    Histogram::new(exponential_buckets(1.0, 2.0, 15))
}

/// The API's metrics; registered into the daemon's registry.
pub struct ApiMetrics {
    requests: Family<Label, Counter>,
    latency_ms: Family<Label, Histogram, fn() -> Histogram>,
    /// Requests being worked on, streams not counted.
    pub in_flight: Gauge,
    /// Watches, logs and followed events.
    pub streams: Gauge,
    /// Requests from somebody else than their subject says.
    pub refused_identity: Counter,
    /// Requests that were too large, no envelope, or of another kind.
    pub garbage: Counter,
    /// Requests refused because their caller has too many.
    pub throttled: Counter,
    /// Commits that met a conflict and were decided anew.
    pub conflicts: Counter,
    /// Requests sent again that had been carried out before.
    pub answered_again: Counter,
    /// Commits whose outcome could not be known.
    pub unknown: Counter,
    /// Handlers that panicked.
    pub panics: Counter,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latency_ms: Family::new_with_constructor(milliseconds),
            in_flight: Gauge::default(),
            streams: Gauge::default(),
            refused_identity: Counter::default(),
            garbage: Counter::default(),
            throttled: Counter::default(),
            conflicts: Counter::default(),
            answered_again: Counter::default(),
            unknown: Counter::default(),
            panics: Counter::default(),
        }
    }
}

impl ApiMetrics {
    /// Registers them.
    pub fn register(&self, r: &mut Registry) {
        r.register("api_requests", "Requests by verb and outcome", self.requests.clone());
        r.register("api_latency_ms", "From a request to the end of its answer", self.latency_ms.clone());
        r.register("api_in_flight", "Requests being worked on", self.in_flight.clone());
        r.register("api_streams", "Watches, logs and followed events", self.streams.clone());
        let counters = [
            ("api_refused_identity", "Requests from somebody else than they say", &self.refused_identity),
            ("api_garbage", "Requests that could not be read", &self.garbage),
            ("api_throttled", "Requests beyond their caller's share", &self.throttled),
            ("api_conflicts", "Commits that were decided anew", &self.conflicts),
            ("api_answered_again", "Requests sent again that had been done", &self.answered_again),
            ("api_unknown_outcomes", "Commits whose outcome could not be known", &self.unknown),
            ("api_panics", "Handlers that panicked", &self.panics),
        ];
        for (name, help, counter) in counters {
            r.register(name, help, counter.clone());
        }
    }

    /// A request has been answered.
    pub fn answered(&self, verb: Verb, outcome: &'static str, ms: u64) {
        self.requests.get_or_create(&vec![("verb", verb.as_str()), ("outcome", outcome)]).inc();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a request are far below 2^52")]
        self.latency_ms.get_or_create(&vec![("verb", verb.as_str())]).observe(ms as f64);
    }
}
