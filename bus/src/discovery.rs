//! What discovery of micro services answers (NATS ADR-32), the same on real servers and in the model.

use std::time::Duration;

use ostler_schemas::subject;
use serde_json::{Value, json};

use crate::topic::ServiceSpec;

/// What discovery can be asked.
pub(crate) const VERBS: [&str; 3] = ["PING", "INFO", "STATS"];

/// What is known of an endpoint's requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) time: Duration,
    pub(crate) last_error: String,
}

/// A running service, as discovery tells of it.
#[derive(Debug)]
pub(crate) struct Described<'a> {
    pub(crate) spec: &'a ServiceSpec,
    /// Names this instance among all.
    pub(crate) id: &'a str,
    pub(crate) started: &'a str,
    /// One for each endpoint.
    pub(crate) counts: &'a [Count],
}

impl Described<'_> {
    /// The answer to a verb; none to one that there is not.
    pub(crate) fn answer(&self, verb: &str) -> Option<Value> {
        match verb {
            "PING" => Some(self.head("ping_response")),
            "INFO" => {
                let mut out = self.head("info_response");
                out["description"] = json!(self.spec.description);
                out["endpoints"] = self.endpoints(|out, _| out["metadata"] = json!({}));
                Some(out)
            }
            "STATS" => {
                let mut out = self.head("stats_response");
                out["started"] = json!(self.started);
                out["endpoints"] = self.endpoints(stats);
                Some(out)
            }
            _ => None,
        }
    }

    fn head(&self, kind: &str) -> Value {
        json!({
            "type": format!("io.nats.micro.v1.{kind}"),
            "name": self.spec.name,
            "id": self.id,
            "version": self.spec.version,
            "metadata": {},
        })
    }

    /// Those that every replica hears are no queue group's, and no endpoints in the sense of discovery.
    fn endpoints(&self, more: impl Fn(&mut Value, &Count)) -> Value {
        let shared = self.spec.endpoints.iter().zip(self.counts).filter(|(endpoint, _)| endpoint.shared);
        let one = |(endpoint, count)| {
            let endpoint: &crate::topic::Endpoint = endpoint;
            let mut out = json!({
                "name": endpoint.name,
                "subject": endpoint.subject,
                "queue_group": subject::API_GROUP,
            });
            more(&mut out, count);
            out
        };
        shared.map(one).collect()
    }
}

fn stats(out: &mut Value, count: &Count) {
    let nanos = u64::try_from(count.time.as_nanos()).unwrap_or(u64::MAX);
    out["num_requests"] = json!(count.requests);
    out["num_errors"] = json!(count.errors);
    out["last_error"] = json!(count.last_error);
    out["processing_time"] = json!(nanos);
    out["average_processing_time"] = json!(nanos.checked_div(count.requests).unwrap_or(0));
}
