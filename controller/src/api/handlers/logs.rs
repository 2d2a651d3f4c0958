//! `logs` of one process: an order to its node, and a relay back to the caller.

use std::collections::BTreeMap;

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
/// A chunk that has not come so long after a later one was lost.
const GAP_MS: u64 = 2_000;
/// A node that has not begun by then will not.
const BEGIN_MS: u64 = 10_000;
/// A relay that is silent for so long has died: a node says something at least every five seconds.
const SILENCE_MS: u64 = 15_000;

/// Where a process is, and who it is.
struct Place {
    uid: Uid,
    node: NodeName,
}

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: LogsRequest = call.decode(shared)?;
    let place = place(shared, call, &request).await?;
    let op =
        AskOp::Logs { uid: place.uid, follow: request.follow, tail: request.tail, filter: request.filter };
    let ask = Ask { id: shared.deps.entropy.txn(), op, caller: call.caller.name.clone() };
    let (order, chunks) = shared.asks.hold(place.node.clone(), ask);
    let mut relay = Relay { shared, node: place.node, order, chunks, line: InOrder::new() };
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
    line: InOrder,
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
            let wait = if self.order.has_begun() { GAP_MS } else { HINT_MS };
            let next = tokio::select! {
                biased;
                chunk = self.chunks.recv() => chunk,
                () = clock.sleep_ms(wait) => None,
            };
            let now = clock.mono();
            match next {
                Some(chunk) => {
                    heard = now;
                    // What has been passed on already only wants its credit.
                    if let Some(mut credit) = self.line.take(chunk).and_then(|known| known.credit) {
                        credit.credit(RELAY_WINDOW).await;
                    }
                }
                None => {
                    // What has not come by now was lost on the way.
                    self.line.skip_gap();
                    self.check_node(start, heard, now)?;
                    if !self.order.has_begun() {
                        self.hint().await;
                    }
                }
            }
            while let Some(chunk) = self.line.ready() {
                told = now;
                if self.pass_on(chunk, to).await? {
                    return Ok(self.line.lost);
                }
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
        if now.since_ms(heard) >= SILENCE_MS {
            return Err(definite(unavailable(format!(
                "node {node} stopped in the middle of the logs; try again"
            ))));
        }
        Ok(())
    }

    /// Passes a chunk on; says whether it was the last.
    async fn pass_on(&mut self, chunk: Chunk, to: &mut Responder) -> Result<bool, ApiError> {
        let Chunk { bytes, end, message, credit, .. } = chunk;
        if end.as_deref() == Some("error") {
            let why = message.unwrap_or_else(|| String::from_utf8_lossy(&bytes).chars().take(500).collect());
            if let Some(mut credit) = credit {
                credit.credit(RELAY_WINDOW).await;
            }
            return Err(conflict(format!("node {}: {why}", self.node)));
        }
        if !bytes.is_empty() {
            to.raw(bytes).await?;
        }
        if let Some(mut credit) = credit {
            credit.credit(RELAY_WINDOW).await;
        }
        let lost = end.as_deref().and_then(|e| e.strip_prefix("lost=")).and_then(|n| n.parse::<u64>().ok());
        self.line.lost = self.line.lost.saturating_add(lost.unwrap_or(0));
        Ok(end.is_some())
    }
}

/// Chunks in the order of their numbers: they travel as requests of their own and may overtake each other.
struct InOrder {
    next: u64,
    waiting: BTreeMap<u64, Chunk>,
    lost: u64,
}

impl InOrder {
    fn new() -> Self {
        Self { next: 1, waiting: BTreeMap::new(), lost: 0 }
    }

    /// A chunk that was passed on already is given back; one too many means that an earlier one will not come.
    fn take(&mut self, chunk: Chunk) -> Option<Chunk> {
        if chunk.seq < self.next {
            return Some(chunk);
        }
        self.waiting.insert(chunk.seq, chunk);
        if self.waiting.len() > RELAY_WINDOW {
            self.skip_gap();
        }
        None
    }

    fn ready(&mut self) -> Option<Chunk> {
        let chunk = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(chunk)
    }

    /// Gives up what has not come before the first chunk that waits, and counts it.
    fn skip_gap(&mut self) {
        if let Some(first) = self.waiting.keys().next().copied() {
            self.lost = self.lost.saturating_add(first.saturating_sub(self.next));
            self.next = first;
        }
    }
}

/// Repeating it by itself would only wait as long again: the client tells it to its user at once.
fn definite(error: ApiError) -> ApiError {
    ApiError { code: ostler_schemas::v1::api::ApiErrorCode::Conflict, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(seq: u64) -> Chunk {
        Chunk { seq, bytes: Bytes::new(), end: None, message: None, credit: None }
    }

    fn drain(line: &mut InOrder) -> Vec<u64> {
        std::iter::from_fn(|| line.ready()).map(|c| c.seq).collect()
    }

    #[test]
    fn chunks_are_put_in_order_and_losses_counted() {
        let mut line = InOrder::new();
        for seq in [2, 1, 1, 4] {
            line.take(chunk(seq));
        }
        assert_eq!(drain(&mut line), [1, 2]);
        line.skip_gap();
        assert_eq!((drain(&mut line), line.lost), (vec![4], 1));
        line.take(chunk(3));
        assert_eq!(drain(&mut line), Vec::<u64>::new(), "too late: it was counted as lost");
        for seq in 6..6 + 17 {
            line.take(chunk(seq));
        }
        assert_eq!((drain(&mut line).len(), line.lost), (17, 2), "a full window waits for nothing");
        line.take(chunk(u64::MAX));
        line.skip_gap();
        assert_eq!(line.lost, u64::MAX - 23 + 2);
    }
}
