//! A question to one node: an order that is held until its answer is whole, or its time is over.

use std::collections::BTreeMap;

use bytes::Bytes;
use ostler_bus::topic::Outgoing;
use ostler_controller_core::status::Lens;
use ostler_schemas::NodeName;
use ostler_schemas::subject::Hint;
use ostler_schemas::v1::api::{Ask, RELAY_WINDOW};
use ostler_schemas::v1::status::NodePhase;
use tokio::sync::mpsc::Receiver;

use crate::api::asks::Chunk;
use crate::api::server::Shared;

/// A hint may be lost: it is repeated until the node has begun.
const HINT_MS: u64 = 500;

/// Why a node needs not be asked.
pub(super) fn silent(shared: &Shared, node: &NodeName) -> Option<&'static str> {
    let (fleet, signals) = (shared.deps.snapshot.fleet(), shared.signals());
    let phase = Lens::new(&fleet, &signals, shared.deps.clock.wall()).node_phase(node);
    match phase {
        NodePhase::Lost => Some("it is lost"),
        NodePhase::Ready | NodePhase::NotReady | NodePhase::Suspect | NodePhase::Unknown => None,
    }
}

/// How long one node may take, and how much it may answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until it has begun.
    pub(super) begin_ms: u64,
    /// Until it is done.
    pub(super) answer_ms: u64,
    /// Most bytes of its answer.
    pub(super) bytes: usize,
}

/// Asks one node; an error says why there is no answer, after "node x: ".
pub(super) async fn ask_one(
    shared: &Shared,
    node: &NodeName,
    (ask, patience): (Ask, Patience),
) -> Result<Vec<u8>, String> {
    let (order, mut chunks) = shared.asks.hold(node.clone(), ask);
    let clock = &shared.deps.clock;
    let start = clock.mono();
    let collecting = collect(&mut chunks, patience.bytes);
    tokio::pin!(collecting);
    loop {
        let has_begun = order.has_begun();
        if !has_begun {
            hint(shared, node).await;
        }
        let within = if has_begun { patience.answer_ms } else { patience.begin_ms };
        tokio::select! {
            biased;
            bytes = &mut collecting => return bytes,
            () = clock.sleep_ms(HINT_MS) => {}
            () = clock.sleep_until(start.plus_ms(within)) => {
                if has_begun == order.has_begun() {
                    return Err(format!("it did not answer within {within} ms"));
                }
            }
        }
    }
}

async fn hint(shared: &Shared, node: &NodeName) {
    let message = Outgoing::new(Hint::Ask.subject(node), Bytes::new());
    if let Err(error) = shared.deps.topic.publish(message).await {
        tracing::debug!(%node, %error, "a hint could not be sent");
    }
}

/// The chunks of a whole answer, put together in the order of their numbers: they may overtake each other.
async fn collect(chunks: &mut Receiver<Chunk>, most: usize) -> Result<Vec<u8>, String> {
    let mut parts: BTreeMap<u64, Bytes> = BTreeMap::new();
    let (mut size, mut last) = (0, None);
    while last.is_none_or(|last| parts.len() as u64 != last) {
        let Some(mut chunk) = chunks.recv().await else { return Err("its answer broke off".to_owned()) };
        if let Some(mut credit) = chunk.credit.take() {
            credit.credit(RELAY_WINDOW).await;
        }
        match chunk.end.as_deref() {
            Some("error") => {
                return Err(chunk.message.unwrap_or_else(|| "it cannot tell".to_owned()));
            }
            Some(_) => last = Some(chunk.seq),
            None => {}
        }
        size += chunk.bytes.len();
        if size > most {
            return Err(format!("its answer is larger than {most} bytes"));
        }
        parts.insert(chunk.seq, chunk.bytes);
    }
    Ok(parts.into_values().flatten().collect())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn chunk(seq: u64, bytes: &'static [u8], end: Option<&str>) -> Chunk {
        Chunk {
            seq,
            bytes: Bytes::from_static(bytes),
            end: end.map(str::to_owned),
            message: None,
            credit: None,
        }
    }

    #[tokio::test]
    async fn chunks_are_put_together_in_order() {
        let (sender, mut receiver) = mpsc::channel(8);
        for chunk in
            [chunk(2, b"b", None), chunk(4, b"", Some("ok")), chunk(1, b"a", None), chunk(1, b"a", None)]
        {
            sender.try_send(chunk).expect("has room");
        }
        sender.try_send(chunk(3, b"c", None)).expect("has room");
        assert_eq!(collect(&mut receiver, 1_000).await, Ok(b"abc".to_vec()));
    }

    #[tokio::test]
    async fn failures_are_told() {
        let (sender, mut receiver) = mpsc::channel(8);
        sender.try_send(chunk(1, b"", Some("error"))).expect("has room");
        assert_eq!(collect(&mut receiver, 1_000).await, Err("it cannot tell".to_owned()));
        drop(sender);
        assert_eq!(collect(&mut receiver, 1_000).await, Err("its answer broke off".to_owned()));
    }
}
