//! Orders to nodes (DESIGN.md 3.10): a node is hinted, fetches its orders, and streams what was asked for back.
//!
//! The replica that holds a caller's request holds the order. It answers every node's `asks` with what it holds for it,
//! and takes the relay whose id it gave out; all others ignore that relay. A chunk is answered with the credit once it
//! is on its way to the caller, so a node is never further ahead than the window.

mod input;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ostler_bus::topic::Message;
use ostler_controller_core::admission::conflict;
use ostler_schemas::codec::{self, Wire as _};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::api::{Ask, ExecInput, RELAY_WINDOW, RelayPoll};
use ostler_schemas::{Name, NodeName, TxnId, headers};
use tokio::sync::mpsc;

use super::identity::Caller;
use super::reply::Responder;
use input::{Answer, Input};

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

impl Chunk {
    /// One that no node waits for.
    pub(super) fn of(seq: u64, bytes: Bytes, end: Option<&str>, message: Option<String>) -> Self {
        Self { seq, bytes, end: end.map(str::to_owned), message, credit: None }
    }
}

struct Held {
    node: NodeName,
    ask: Ask,
    /// The node has begun: it is not told of the order again.
    begun: bool,
    chunks: mpsc::Sender<Chunk>,
    /// What its caller sends, where the order takes input.
    input: Option<Input>,
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
        self.hold_any(node, ask, None)
    }

    /// As [`Asks::hold`], with input from its caller, who attends it under an id.
    pub(super) fn hold_with_input(
        &self,
        node: NodeName,
        ask: Ask,
        (caller, session): (Name, TxnId),
    ) -> (Order<'_>, mpsc::Receiver<Chunk>) {
        self.hold_any(node, ask, Some(Input::new(caller, session)))
    }

    fn hold_any(&self, node: NodeName, ask: Ask, input: Option<Input>) -> (Order<'_>, mpsc::Receiver<Chunk>) {
        let (chunks, receiver) = mpsc::channel(QUEUED);
        let id = ask.id;
        self.orders().held.insert(id, Held { node, ask, begun: false, chunks, input });
        (Order { asks: self, id }, receiver)
    }

    /// A caller sends input under the id that it attends its order by. Others' are not touched.
    pub(super) async fn say(&self, caller: &Name, session: &str, message: &Message, to: Option<Responder>) {
        let Ok(session) = session.parse::<TxnId>() else { return };
        let Ok(input) = codec::decode::<ExecInput>(&message.body) else { return };
        let answers = {
            let mut orders = self.orders();
            let inputs = orders.held.values_mut().filter_map(|held| held.input.as_mut());
            let mine = inputs.into_iter().find(|i| i.session == session && i.caller == *caller);
            mine.map(|mine| mine.said(input, to)).unwrap_or_default()
        };
        send(answers).await;
    }

    /// A node asks for input of an order of ours. Returns whom to tell that there is no such order any more.
    pub(super) async fn poll(
        &self,
        (caller, now): (&Caller, Mono),
        id: &str,
        message: &Message,
        to: Responder,
    ) -> Option<Responder> {
        let id = id.parse::<TxnId>().ok()?;
        let RelayPoll { have } = codec::decode(&message.body).ok()?;
        let answers = {
            let mut orders = self.orders();
            if orders.over.contains(&id) {
                return Some(to);
            }
            let held = orders.held.get_mut(&id).filter(|h| Some(&h.node) == caller.node().as_ref())?;
            held.begun = true;
            held.input.as_mut()?.polled(now, have, to)
        };
        send(answers).await;
        None
    }

    /// Whether a message of a relay is a poll, and no chunk.
    pub(super) fn is_poll(message: &Message) -> bool {
        message.headers.get(headers::KIND) == Some(RelayPoll::KIND)
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

impl Order<'_> {
    fn input<T>(&self, look: impl FnOnce(&mut Input) -> T) -> Option<T> {
        self.asks.orders().held.get_mut(&self.id)?.input.as_mut().map(look)
    }

    /// How many messages of the answer its caller has read.
    pub(super) fn read(&self) -> u64 {
        self.input(|input| input.read).unwrap_or(0)
    }

    /// When the node asked for input last.
    pub(super) fn heard(&self) -> Option<Mono> {
        self.input(|input| input.heard).flatten()
    }

    /// Answers what has waited for long enough.
    pub(super) async fn tick(&self, now: Mono) {
        send(self.input(|input| input.tick(now)).unwrap_or_default()).await;
    }
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        let mut orders = self.asks.orders();
        let held = orders.held.remove(&self.id);
        orders.over.push_back(self.id);
        if orders.over.len() > REMEMBERED {
            orders.over.pop_front();
        }
        drop(orders);
        let waiting: Vec<Responder> = held.and_then(|h| h.input).into_iter().flat_map(Input::end).collect();
        // Told at once, so that the node ends what nobody wants any more.
        if !waiting.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                for mut to in waiting {
                    to.fail(&conflict("the caller is gone")).await;
                }
            });
        }
    }
}

async fn send(answers: Vec<Answer>) {
    for answer in answers {
        match answer {
            Answer::Taken(mut to) => to.end(0).await,
            Answer::Gap(mut to) => to.fail(&conflict("input was lost on the way")).await,
            Answer::Items(mut to, input) => {
                // A node that does not hear it asks again.
                if to.last(&input).await.is_err() {
                    tracing::debug!("input could not be sent to its node");
                }
            }
        }
    }
}
