//! Discovery of services: `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`, each also by name and by id.

use bytes::Bytes;
use serde_json::{Value, json};

use super::router::Packet;
use super::state::State;
use crate::layout::Account;
use crate::store::Headers;
use crate::topic::ServiceSpec;

/// A running service.
#[derive(Debug)]
pub(super) struct ServiceState {
    spec: ServiceSpec,
    id: String,
    requests: Vec<u64>,
    started: String,
    conn: u64,
}

impl ServiceState {
    pub(super) fn new(spec: ServiceSpec, id: u64, started: String, conn: u64) -> Self {
        let requests = vec![0; spec.endpoints.len()];
        Self { spec, id: format!("svc{id}"), requests, started, conn }
    }

    pub(super) fn count(&mut self, endpoint: usize) {
        if let Some(count) = self.requests.get_mut(endpoint) {
            *count += 1;
        }
    }

    fn describe(&self, verb: &str) -> Option<Value> {
        let spec = &self.spec;
        let head = |kind: &str| {
            json!({
                "type": format!("io.nats.micro.v1.{kind}"),
                "name": spec.name,
                "id": self.id,
                "version": spec.version,
                "metadata": {},
            })
        };
        match verb {
            "PING" => Some(head("ping_response")),
            "INFO" => {
                let mut out = head("info_response");
                out["description"] = json!(spec.description);
                let endpoints = spec.endpoints.iter();
                out["endpoints"] =
                    endpoints.map(|e| json!({ "name": e.name, "subject": e.subject })).collect();
                Some(out)
            }
            "STATS" => {
                let mut out = head("stats_response");
                out["started"] = json!(self.started);
                let endpoints = spec.endpoints.iter().zip(&self.requests);
                out["endpoints"] = endpoints
                    .map(|(e, n)| json!({ "name": e.name, "subject": e.subject, "num_requests": n }))
                    .collect();
                Some(out)
            }
            _ => None,
        }
    }
}

impl State {
    /// Answers a discovery request. Returns the number of services that do.
    pub(super) fn serve_discovery(&mut self, packet: &Packet) -> usize {
        let Some(rest) = packet.subject.strip_prefix("$SRV.") else { return 0 };
        let mut tokens = rest.split('.');
        let verb = tokens.next().unwrap_or_default();
        let (name, id) = (tokens.next(), tokens.next());
        let answers: Vec<Value> = self
            .services
            .values()
            .filter(|s| name.is_none_or(|n| n == s.spec.name) && id.is_none_or(|i| i == s.id))
            .filter(|s| self.reaches(s.conn))
            .filter_map(|s| s.describe(verb))
            .collect();
        if let Some(reply) = &packet.reply {
            for answer in &answers {
                let body = Bytes::from(answer.to_string());
                self.route(&Packet::of_server(Account::Cp, reply.clone(), Headers::new(), body));
            }
        }
        answers.len()
    }
}
