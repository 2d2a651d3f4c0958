//! `top`: usage of processes, asked of their nodes now; who does not answer in time is named.
//!
//! Kept only for as long as it can be called present: usage is a question to the hosts that matters while somebody looks.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use ostler_bus::topic::Outgoing;
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::liveness::Signals;
use ostler_controller_core::status::Lens;
use ostler_schemas::codec;
use ostler_schemas::subject::Hint;
use ostler_schemas::v1::api::{ApiError, Ask, AskOp, PAGE, RELAY_WINDOW};
use ostler_schemas::v1::status::{NodePhase, Status};
use ostler_schemas::v1::usage::{TopReply, TopRequest, Unanswered, UsageAnswer, UsageEntry};
use ostler_schemas::{NodeName, Uid};
use tokio::sync::mpsc::Receiver;

use crate::api::asks::Chunk;
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

/// Nodes asked at one time: enough that thousands are done in seconds, few enough that their answers do not meet at
/// this replica in one burst.
const AT_ONCE: usize = 512;
/// How long one node may take: its agent measures for half a second when nobody has asked for a while.
const ANSWER_MS: u64 = 2_500;
/// A hint may be lost: it is repeated until the node has begun.
const HINT_MS: u64 = 500;
/// Most bytes that a node may answer: ten thousand processes, with room.
const ANSWER_BYTES: usize = 2 << 20;

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: TopRequest = call.decode(shared)?;
    let fleet = shared.fleet(call).await?;
    to.revision = Some(fleet.revision);
    let wanted = wanted(shared, &fleet, &request);
    let caller = &call.caller.name;
    let nodes = stream::iter(wanted).map(|(node, uids)| async move {
        let ask = Ask { id: shared.deps.entropy.txn(), op: AskOp::Usage, caller: caller.clone() };
        let answer = match silent(shared, &node) {
            Some(why) => Err(why.to_owned()),
            None => ask_one(shared, &node, ask).await,
        };
        if let Ok(answer) = &answer {
            shared.usage.keep(shared.deps.clock.mono(), &answer.processes);
        }
        (node, uids, answer)
    });
    let mut nodes = nodes.buffered(AT_ONCE);
    let mut page = TopReply::default();
    while let Some((node, uids, answer)) = nodes.next().await {
        match answer {
            Ok(answer) => page.processes.extend(answer.processes.into_iter().filter(|p| uids.contains(&p.u))),
            Err(why) => page.unanswered.push(Unanswered { node, why }),
        }
        if page.processes.len() + page.unanswered.len() >= PAGE {
            send_full(&mut page, to).await?;
        }
    }
    send_full(&mut page, to).await?;
    to.last(&page).await?;
    Ok(0)
}

/// Sends whole pages, and leaves the rest.
async fn send_full(page: &mut TopReply, to: &mut Responder) -> Result<(), ApiError> {
    while page.processes.len() + page.unanswered.len() > PAGE {
        let processes: Vec<UsageEntry> = page.processes.drain(..page.processes.len().min(PAGE)).collect();
        let unanswered = page.unanswered.drain(..page.unanswered.len().min(PAGE)).collect();
        to.part(&TopReply { processes, unanswered }).await?;
    }
    Ok(())
}

/// The processes asked for that may be alive, by node.
fn wanted(shared: &Shared, fleet: &Fleet, request: &TopRequest) -> BTreeMap<NodeName, BTreeSet<Uid>> {
    let signals: &Signals = &shared.signals();
    let views = Lens::for_many(fleet, signals, shared.deps.clock.wall()).list(&request.list);
    let mut wanted: BTreeMap<NodeName, BTreeSet<Uid>> = BTreeMap::new();
    for view in views {
        let Status::Process(status) = &view.status else { continue };
        if let Some(node) = status.node.clone().filter(|_| status.phase.may_be_alive())
            && (request.nodes.is_empty() || request.nodes.contains(&node))
        {
            wanted.entry(node).or_default().insert(view.metadata.uid);
        }
    }
    wanted
}

/// Why a node needs not be asked.
fn silent(shared: &Shared, node: &NodeName) -> Option<&'static str> {
    let (fleet, signals) = (shared.deps.snapshot.fleet(), shared.signals());
    let phase = Lens::new(&fleet, &signals, shared.deps.clock.wall()).node_phase(node);
    match phase {
        NodePhase::Lost => Some("it is lost"),
        NodePhase::Ready | NodePhase::NotReady | NodePhase::Suspect | NodePhase::Unknown => None,
    }
}

async fn ask_one(shared: &Shared, node: &NodeName, ask: Ask) -> Result<UsageAnswer, String> {
    let (order, mut chunks) = shared.asks.hold(node.clone(), ask);
    let clock = &shared.deps.clock;
    let until = clock.mono().plus_ms(ANSWER_MS);
    let collecting = collect(&mut chunks);
    tokio::pin!(collecting);
    loop {
        if !order.has_begun() {
            hint(shared, node).await;
        }
        tokio::select! {
            biased;
            bytes = &mut collecting => {
                let read = |bytes: Vec<u8>| codec::decode(&bytes).map_err(|error| format!("its answer cannot be read: {error}"));
                return bytes.and_then(read);
            }
            () = clock.sleep_until(until) => return Err(format!("it did not answer within {ANSWER_MS} ms")),
            () = clock.sleep_ms(HINT_MS) => {}
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
async fn collect(chunks: &mut Receiver<Chunk>) -> Result<Vec<u8>, String> {
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
        if size > ANSWER_BYTES {
            return Err(format!("its answer is larger than {ANSWER_BYTES} bytes"));
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
        assert_eq!(collect(&mut receiver).await, Ok(b"abc".to_vec()));
    }

    #[tokio::test]
    async fn failures_are_told() {
        let (sender, mut receiver) = mpsc::channel(8);
        sender.try_send(chunk(1, b"", Some("error"))).expect("has room");
        assert_eq!(collect(&mut receiver).await, Err("it cannot tell".to_owned()));
        drop(sender);
        assert_eq!(collect(&mut receiver).await, Err("its answer broke off".to_owned()));
    }
}
