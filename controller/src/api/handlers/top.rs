//! `top`: usage of processes, asked of their nodes now; who does not answer in time is named.
//!
//! Kept only for as long as it can be called present: usage is a question to the hosts that matters while somebody looks.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use futures::stream;
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::liveness::Signals;
use ostler_controller_core::status::Lens;
use ostler_schemas::codec;
use ostler_schemas::v1::api::{ApiError, Ask, AskOp, PAGE};
use ostler_schemas::v1::status::Status;
use ostler_schemas::v1::usage::{TopReply, TopRequest, Unanswered, UsageAnswer, UsageEntry};
use ostler_schemas::{NodeName, Uid};

use super::ask_node::{Patience, ask_one, silent};
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

/// Nodes asked at one time: enough that thousands are done in seconds, few enough that their answers do not meet at
/// this replica in one burst.
const AT_ONCE: usize = 512;
/// How long one node may take: its agent measures for half a second when nobody has asked for a while.
const ANSWER_MS: u64 = 2_500;
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
            None => answer_of(shared, &node, ask).await,
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

async fn answer_of(shared: &Shared, node: &NodeName, ask: Ask) -> Result<UsageAnswer, String> {
    let patience = Patience { begin_ms: ANSWER_MS, answer_ms: ANSWER_MS, bytes: ANSWER_BYTES };
    let bytes = ask_one(shared, node, (ask, patience)).await?;
    codec::decode(&bytes).map_err(|error| format!("its answer cannot be read: {error}"))
}
