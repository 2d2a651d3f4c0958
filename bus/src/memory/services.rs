//! Discovery of services: `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`, each also by name and by id.

use bytes::Bytes;
use serde_json::Value;

use super::router::Packet;
use super::state::State;
use crate::discovery::{Count, Described};
use crate::layout::Account;
use crate::store::Headers;
use crate::topic::ServiceSpec;

/// A running service.
#[derive(Debug)]
pub(super) struct ServiceState {
    spec: ServiceSpec,
    id: String,
    counts: Vec<Count>,
    started: String,
    conn: u64,
}

impl ServiceState {
    pub(super) fn new(spec: ServiceSpec, id: u64, started: String, conn: u64) -> Self {
        let counts = vec![Count::default(); spec.endpoints.len()];
        Self { spec, id: format!("svc{id}"), counts, started, conn }
    }

    pub(super) fn count(&mut self, endpoint: usize) {
        if let Some(count) = self.counts.get_mut(endpoint) {
            count.requests += 1;
        }
    }

    fn describe(&self, verb: &str) -> Option<Value> {
        Described { spec: &self.spec, id: &self.id, started: &self.started, counts: &self.counts }
            .answer(verb)
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
