//! NATS micro services (ADR-32): discovery, and counts that are true.
//!
//! The client library counts a request when it is answered through the library, with one message. Ours are answered by
//! streams of messages through the topic, the last of them marked by header `Ostler-End`, so discovery is served here:
//! a request is counted, with its time and whether it failed, when the end of its answer is sent. What is never
//! answered is not counted, and forgotten when too much of it has piled up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::SelectAll;
use ostler_schemas::headers as names;
use ostler_schemas::time::Timestamp;
use serde_json::Value;

use crate::discovery::{Count, Described, VERBS};
use crate::store::Headers;
use crate::topic::{Message, ServiceSpec};

/// Requests whose answer is under way. Callers' shares keep it far below (API: 32 requests and 64 streams of each); what
/// is beyond was never answered, the oldest first.
const OPEN_MAX: usize = 16_384;

#[derive(Debug)]
struct Open {
    service: Arc<Mutex<Vec<Count>>>,
    endpoint: usize,
    since: Instant,
}

/// Requests of a connection's services whose answers are under way, by where the answer goes.
#[derive(Debug, Default)]
pub(super) struct OpenRequests(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<String, Open>,
    order: VecDeque<String>,
}

impl OpenRequests {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come in.
    pub(super) fn begun(&self, service: &Service, endpoint: usize, message: &Message) {
        let Some(reply) = &message.reply else { return };
        let open = Open { service: Arc::clone(&service.counts), endpoint, since: Instant::now() };
        let mut table = self.table();
        table.order.push_back(reply.clone());
        table.open.insert(reply.clone(), open);
        // Those that ended leave their names in the order; they go when they come to its front.
        while table.open.len() > OPEN_MAX || table.order.len() > 2 * OPEN_MAX {
            let Some(oldest) = table.order.pop_front() else { break };
            table.open.remove(&oldest);
        }
    }

    /// A message is on its way; if it ends an answer, the request is counted.
    pub(super) fn sent(&self, to: &str, headers: &Headers) {
        let Some(end) = headers.get(names::END) else { return };
        let Some(open) = self.table().open.remove(to) else { return };
        let mut counts = open.service.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts.get_mut(open.endpoint) else { return };
        count.requests += 1;
        count.time += open.since.elapsed();
        if end == "error" {
            count.errors += 1;
            headers.get(names::MESSAGE).unwrap_or("error").clone_into(&mut count.last_error);
        }
    }
}

/// A running service, as discovery tells of it.
#[derive(Debug)]
pub(super) struct Service {
    spec: ServiceSpec,
    id: String,
    started: Timestamp,
    counts: Arc<Mutex<Vec<Count>>>,
}

impl Service {
    /// With an id of its own among all instances.
    pub(super) fn new(spec: ServiceSpec, id: String, started: Timestamp) -> Self {
        let counts = Arc::new(Mutex::new(vec![Count::default(); spec.endpoints.len()]));
        Self { spec, id, started, counts }
    }

    /// Answers discovery until it is dropped.
    ///
    /// # Errors
    /// If the subscriptions are not taken.
    pub(super) async fn discoverable(self: Arc<Self>, client: &Client) -> Result<Discovery, String> {
        let mut asked: SelectAll<futures::stream::BoxStream<'static, (&'static str, async_nats::Message)>> =
            SelectAll::new();
        for verb in VERBS {
            let base = format!("$SRV.{verb}");
            let named = format!("{base}.{}", self.spec.name);
            let own = format!("{named}.{}", self.id);
            for subject in [base, named, own] {
                let heard: Subscriber = client.subscribe(subject).await.map_err(|error| error.to_string())?;
                asked.push(heard.map(move |message| (verb, message)).boxed());
            }
        }
        let client = client.clone();
        let answers = tokio::spawn(async move {
            while let Some((verb, message)) = asked.next().await {
                let Some((reply, answer)) = message.reply.zip(self.describe(verb)) else { continue };
                let body = Bytes::from(answer.to_string());
                if let Err(error) = client.publish(reply, body).await {
                    tracing::debug!(%error, "discovery was not answered");
                }
            }
        });
        Ok(Discovery(answers))
    }

    fn describe(&self, verb: &str) -> Option<Value> {
        let started = self.started.to_string();
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Described { spec: &self.spec, id: &self.id, started: &started, counts: &counts }.answer(verb)
    }
}

/// Answers discovery until it is dropped.
#[derive(Debug)]
pub(super) struct Discovery(tokio::task::JoinHandle<()>);

impl Drop for Discovery {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Endpoint;

    fn request(reply: &str) -> Message {
        Message {
            subject: "api.anna.get".to_owned(),
            reply: Some(reply.to_owned()),
            headers: Headers::new(),
            body: Bytes::new(),
            status: None,
        }
    }

    fn service() -> Service {
        let endpoint =
            |name: &str, shared| Endpoint { name: name.to_owned(), subject: format!("api.*.{name}"), shared };
        let spec = ServiceSpec {
            name: "ostler-api".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            endpoints: vec![endpoint("asks", false), endpoint("get", true)],
        };
        Service::new(spec, "abc".to_owned(), Timestamp(0))
    }

    #[test]
    fn a_request_counts_when_its_answer_ends() {
        let (open, service) = (OpenRequests::default(), service());
        for (reply, end) in [("_INBOX.1", "ok"), ("_INBOX.2", "error"), ("_INBOX.3", "lost=2")] {
            open.begun(&service, 1, &request(reply));
            open.sent(reply, &Headers::new().with(names::SEQ, "1"));
            open.sent(reply, &Headers::new().with(names::END, end));
            open.sent(reply, &Headers::new().with(names::END, end));
        }
        open.begun(&service, 1, &request("_INBOX.4"));
        let described = |verb| service.describe(verb).expect("an answer");
        let stats = described("STATS");
        assert_eq!(stats["endpoints"].as_array().map(Vec::len), Some(1), "what all hear is not listed");
        assert_eq!(stats["endpoints"][0]["num_requests"], 3);
        assert_eq!(stats["endpoints"][0]["num_errors"], 1);
        assert_eq!(stats["endpoints"][0]["last_error"], "error");
        assert_eq!(described("INFO")["endpoints"][0]["name"], "get");
        assert_eq!(described("PING")["type"], "io.nats.micro.v1.ping_response");
    }

    #[test]
    fn what_is_never_answered_is_forgotten() {
        let (open, service) = (OpenRequests::default(), service());
        for i in 0..3 * OPEN_MAX {
            open.begun(&service, 1, &request(&format!("_INBOX.{i}")));
        }
        let table = open.table();
        assert!(table.open.len() <= OPEN_MAX && table.order.len() <= 2 * OPEN_MAX);
    }
}
