//! `logs` of one process: an order to its node, and a relay back to the caller.

use bytes::Bytes;
use ostler_bus::topic::Outgoing;
use ostler_controller_core::admission::{conflict, unavailable};
use ostler_controller_core::status::Lens;
use ostler_schemas::subject::Hint;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::api::{ApiError, Ask, AskOp, LogsRequest, RELAY_WINDOW};
use ostler_schemas::v1::status::{NodePhase, Status};
use ostler_schemas::{Kind, NodeName, Uid};
use tokio::sync::mpsc::Receiver;

use super::reads::find;
use crate::api::asks::{Chunk, Order};
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

/// A hint may be lost: it is repeated until the node has begun.
const HINT_MS: u64 = 1_000;
/// A node that has not begun by then will not.
const BEGIN_MS: u64 = 10_000;
/// A relay that should end by itself and is silent for so long has died.
const SILENCE_MS: u64 = 15_000;

/// Where a process is, and who it is.
struct Place {
    uid: Uid,
    node: NodeName,
}

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: LogsRequest = call.decode(shared)?;
    let place = place(shared, call, &request).await?;
    let op = AskOp::Logs { uid: place.uid, follow: request.follow, tail: request.tail };
    let ask = Ask { id: shared.deps.entropy.txn(), op, caller: call.caller.name.clone() };
    let (order, chunks) = shared.asks.hold(place.node.clone(), ask);
    let mut relay =
        Relay { shared, node: place.node, order, chunks, follow: request.follow, next: 1, lost: 0 };
    relay.run(to).await
}

async fn place(shared: &Shared, call: &Call, request: &LogsRequest) -> Result<Place, ApiError> {
    let fleet = shared.fleet(call).await?;
    let object = find(&fleet, Kind::Process, &request.namespace, &request.process)?;
    let signals = shared.signals();
    let view = Lens::new(&fleet, &signals, shared.deps.clock.wall()).view(&object);
    let status = view.map(|v| (v.metadata.uid, v.status));
    let Some((uid, Status::Process(status))) = status else {
        return Err(conflict(format!("{} is no process", object.short())));
    };
    match status.node.clone() {
        Some(node) => Ok(Place { uid, node }),
        None => {
            let why = status.message.unwrap_or_default();
            Err(conflict(format!("{} has no logs: it has no node yet ({why})", object.short())))
        }
    }
}

struct Relay<'a> {
    shared: &'a Shared,
    node: NodeName,
    order: Order<'a>,
    chunks: Receiver<Chunk>,
    follow: bool,
    next: u64,
    lost: u64,
}

impl Relay<'_> {
    async fn run(&mut self, to: &mut Responder) -> Result<u64, ApiError> {
        let clock = &self.shared.deps.clock;
        let keep_alive_ms = self.shared.deps.limits.keep_alive_ms;
        let start = clock.mono();
        let mut heard = start;
        let mut told = start;
        self.hint().await;
        loop {
            let wait = if self.order.has_begun() { keep_alive_ms } else { HINT_MS };
            let next = tokio::select! {
                biased;
                chunk = self.chunks.recv() => chunk,
                () = clock.sleep_ms(wait) => None,
            };
            let now = clock.mono();
            if let Some(chunk) = next {
                heard = now;
                told = now;
                if self.pass_on(chunk, to).await? {
                    return Ok(self.lost);
                }
                continue;
            }
            self.check_node(start, heard, now)?;
            if !self.order.has_begun() {
                self.hint().await;
            }
            if now.since_ms(told) >= keep_alive_ms {
                to.keep_alive().await?;
                told = now;
            }
        }
    }

    async fn hint(&self) {
        let message = Outgoing::new(Hint::Ask.subject(&self.node), Bytes::new());
        if let Err(error) = self.shared.deps.topic.publish(message).await {
            tracing::debug!(node = %self.node, %error, "a hint could not be sent");
        }
    }

    /// A node that is lost, or does not answer, is told of as such.
    fn check_node(&self, start: Mono, heard: Mono, now: Mono) -> Result<(), ApiError> {
        let (fleet, signals) = (self.shared.deps.snapshot.fleet(), self.shared.signals());
        let phase = Lens::new(&fleet, &signals, self.shared.deps.clock.wall()).node_phase(&self.node);
        let node = &self.node;
        if phase == NodePhase::Lost {
            let message = format!("node {node} is lost; its logs can be read on the host: ostler-agent logs");
            return Err(definite(unavailable(message)));
        }
        if !self.order.has_begun() && now.since_ms(start) >= BEGIN_MS {
            let message =
                format!("node {node} ({}) did not answer within {}s", phase.as_str(), BEGIN_MS / 1000);
            return Err(definite(unavailable(message)));
        }
        if !self.follow && now.since_ms(heard) >= SILENCE_MS {
            return Err(definite(unavailable(format!(
                "node {node} stopped in the middle of the logs; try again"
            ))));
        }
        Ok(())
    }

    /// Passes a chunk on; says whether it was the last.
    async fn pass_on(&mut self, chunk: Chunk, to: &mut Responder) -> Result<bool, ApiError> {
        let Chunk { seq, bytes, end, credit } = chunk;
        // A resent chunk was passed on already; it only wants its credit.
        let known = seq > 0 && seq < self.next;
        if seq > self.next {
            self.lost += seq - self.next;
        }
        self.next = self.next.max(seq.saturating_add(1));
        if let (Some("error"), false) = (end.as_deref(), known) {
            let why = String::from_utf8_lossy(&bytes).chars().take(500).collect::<String>();
            return Err(conflict(format!("node {}: {why}", self.node)));
        }
        if !bytes.is_empty() && !known {
            to.raw(bytes).await?;
        }
        if let Some(mut credit) = credit {
            credit.credit(RELAY_WINDOW).await;
        }
        if let Some(lost) =
            end.as_deref().and_then(|e| e.strip_prefix("lost=")).and_then(|n| n.parse::<u64>().ok())
        {
            self.lost = self.lost.saturating_add(lost);
        }
        Ok(end.is_some())
    }
}

/// Repeating it by itself would only wait as long again: the client tells it to its user at once.
fn definite(error: ApiError) -> ApiError {
    ApiError { code: ostler_schemas::v1::api::ApiErrorCode::Conflict, ..error }
}
