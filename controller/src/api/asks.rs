//! Orders to nodes (DESIGN.md 3.10): a node is hinted, fetches its orders, and streams what was asked for back.
//!
//! The replica that holds a caller's request holds the order. It answers every node's `asks` with what it holds for it,
//! and takes the relay whose id it gave out; all others ignore that relay. A chunk is answered with the credit once it
//! is on its way to the caller, so a node is never further ahead than the window.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ostler_bus::topic::Message;
use ostler_schemas::v1::api::{Ask, RELAY_WINDOW};
use ostler_schemas::{NodeName, TxnId, headers};
use tokio::sync::mpsc;

use super::identity::Caller;
use super::reply::Responder;

/// Chunks that wait for their caller: the window, and as much again for a node that counts differently.
const QUEUED: usize = 2 * RELAY_WINDOW;

/// Orders whose end is remembered, to tell nodes that still relay for them.
const REMEMBERED: usize = 256;

/// A chunk of a relay.
pub(super) struct Chunk {
    /// Its number, from 1.
    pub(super) seq: u64,
    /// Its bytes.
    pub(super) bytes: Bytes,
    /// How the relay ends, if this is the last chunk.
    pub(super) end: Option<String>,
    /// Why it ends in failure.
    pub(super) message: Option<String>,
    /// Where its credit goes; a node that wants none sent none.
    pub(super) credit: Option<Responder>,
}

struct Held {
    node: NodeName,
    ask: Ask,
    /// The node has begun: it is not told of the order again.
    begun: bool,
    chunks: mpsc::Sender<Chunk>,
}

/// The orders that this replica holds.
#[derive(Default)]
pub(super) struct Asks(Mutex<Orders>);

#[derive(Default)]
struct Orders {
    held: BTreeMap<TxnId, Held>,
    /// Orders whose callers are gone, the oldest first.
    over: VecDeque<TxnId>,
}

impl Asks {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an order until the returned guard is dropped.
    pub(super) fn hold(&self, node: NodeName, ask: Ask) -> (Order<'_>, mpsc::Receiver<Chunk>) {
        let (chunks, receiver) = mpsc::channel(QUEUED);
        let id = ask.id;
        self.orders().held.insert(id, Held { node, ask, begun: false, chunks });
        (Order { asks: self, id }, receiver)
    }

    /// Orders of a node that it has not begun.
    pub(super) fn of(&self, node: &NodeName) -> Vec<Ask> {
        let orders = self.orders();
        orders.held.values().filter(|h| h.node == *node && !h.begun).map(|h| h.ask.clone()).collect()
    }

    /// Takes a chunk in, if it is of an order of ours and from the node that was asked. Returns whom to tell that
    /// nobody wants it any more.
    pub(super) fn relay(
        &self,
        caller: &Caller,
        id: &str,
        message: &Message,
        credit: Option<Responder>,
    ) -> Option<Responder> {
        let id = id.parse::<TxnId>().ok()?;
        let seq = message.headers.get(headers::SEQ).and_then(|text| text.parse().ok());
        let mut orders = self.orders();
        if orders.over.contains(&id) {
            return credit;
        }
        let order = orders.held.get_mut(&id).filter(|h| Some(&h.node) == caller.node().as_ref())?;
        order.begun = true;
        let chunk = Chunk {
            seq: seq.unwrap_or(0),
            bytes: message.body.clone(),
            end: message.headers.get(headers::END).map(str::to_owned),
            message: message.headers.get(headers::MESSAGE).map(|m| m.chars().take(500).collect()),
            credit,
        };
        // A node that ignores the window loses chunks; the gap in the numbers tells.
        if order.chunks.try_send(chunk).is_err() {
            tracing::debug!(%id, "a relay overran its window");
        }
        None
    }
}

/// An order that is held.
pub(super) struct Order<'a> {
    asks: &'a Asks,
    id: TxnId,
}

impl Order<'_> {
    /// Whether the node has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.asks.orders().held.get(&self.id).is_some_and(|h| h.begun)
    }
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        let mut orders = self.asks.orders();
        orders.held.remove(&self.id);
        orders.over.push_back(self.id);
        if orders.over.len() > REMEMBERED {
            orders.over.pop_front();
        }
    }
}
