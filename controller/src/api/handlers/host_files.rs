//! Files as hosts have them: `config adopt` and `config diff --original`. Each node is asked now; who does not answer is
//! named.

use futures::StreamExt as _;
use futures::stream;
use ostler_controller_core::admission::{self, invalid, unavailable};
use ostler_controller_core::status::holds;
use ostler_schemas::manifest::MAX_CONTENT;
use ostler_schemas::v1::api::{
    ApiError, Ask, AskOp, HostAnswer, HostFile, HostFileAsk, HostFiles, HostsOf, HostsWish,
};
use ostler_schemas::{Namespace, NodeName, ObjectRef, codec};
use serde_bytes::ByteBuf;

use super::ask_node::{Patience, ask_one, silent};
use crate::api::audit::Entry;
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

/// Nodes asked at one time: each reads a file of at most a few MiB.
const AT_ONCE: usize = 256;
/// A node that has not begun by then does not answer.
const BEGIN_MS: u64 = 3_000;
/// Reading and sending the largest file takes no longer.
const ANSWER_MS: u64 = 30_000;
/// Bytes of an answer without content.
const FACTS_BYTES: usize = 4 << 10;
/// Room beside the largest content.
const MARGIN_BYTES: usize = 64 << 10;
/// Rows of one part of the answer, and bytes of one.
const ROWS: usize = 200;
const PART: usize = 256 << 10;

pub(super) async fn handle(
    shared: &Shared,
    call: &Call,
    (object, wish): (&ObjectRef, HostsWish),
    to: &mut Responder,
) -> Result<u64, ApiError> {
    let fleet = shared.fleet(call).await?;
    let HostsWish { of, labels, node, content } = wish;
    if content && node.is_none() {
        return Err(invalid("the content of a file is asked of one node"));
    }
    let ask = match of {
        HostsOf::Path(path) => HostFileAsk { path: Some(path), original: None, content },
        HostsOf::Original { part } => {
            let namespace = object.namespace.clone().unwrap_or_else(Namespace::default_namespace);
            let missing = || admission::not_found(&fleet, object.kind, &namespace, object.name.as_str());
            let uid = fleet.objects.get(object).ok_or_else(missing)?.value.metadata.uid;
            HostFileAsk { path: None, original: Some((uid, part)), content }
        }
    };
    let is_meant = |name: &NodeName| {
        node.as_ref().is_none_or(|node| node == name)
            && (labels.is_empty() || holds(&labels, &fleet.node_labels(name)))
    };
    let nodes: Vec<NodeName> = fleet.nodes().map(|(node, ..)| node).filter(is_meant).collect();
    if nodes.is_empty() {
        return Err(invalid("no node is meant by that"));
    }
    // What is read from hosts is on the record, as what runs on them is.
    let entry = entry(shared, call, object, (&ask, nodes.len()));
    entry.intent(shared).await?;
    to.revision = Some(fleet.revision);
    let result = answers(shared, call, (ask, nodes), to).await;
    match &result {
        Ok(words) => entry.outcome(shared, "done", words).await,
        Err(error) => entry.outcome(shared, "failed", &error.message).await,
    }
    result.map(|_| 0)
}

fn entry(shared: &Shared, call: &Call, object: &ObjectRef, (ask, nodes): (&HostFileAsk, usize)) -> Entry {
    let what = match &ask.path {
        Some(path) => format!("{path} was looked at"),
        None => "what was there before was looked at".to_owned(),
    };
    Entry {
        caller: call.caller.name.clone(),
        actor: call.caller.actor(),
        verb: call.verb,
        objects: vec![object.clone()],
        reason: None,
        message: format!("{what} on {nodes} nodes{}", if ask.content { ", with its content" } else { "" }),
        txn: shared.deps.entropy.txn(),
    }
}

async fn answers(
    shared: &Shared,
    call: &Call,
    (ask, nodes): (HostFileAsk, Vec<NodeName>),
    to: &mut Responder,
) -> Result<String, ApiError> {
    let bytes = if ask.content { MAX_CONTENT + MARGIN_BYTES } else { FACTS_BYTES };
    let patience = Patience { begin_ms: BEGIN_MS, answer_ms: ANSWER_MS, bytes };
    let (ask, caller) = (&ask, &call.caller.name);
    let asked = stream::iter(nodes).map(|node| async move {
        let answer = match silent(shared, &node) {
            Some(why) => Err((why.to_owned(), true)),
            None => {
                let op = AskOp::File(Box::new(ask.clone()));
                let order = Ask { id: shared.deps.entropy.txn(), op, caller: caller.clone() };
                let answer = ask_one(shared, &node, (order, patience)).await;
                let read = answer.map_err(|why| (why.clone(), why.starts_with("it did not answer")));
                read.and_then(|bytes| {
                    codec::decode::<HostFile>(&bytes)
                        .map_err(|error| (format!("its answer cannot be read: {error}"), false))
                })
            }
        };
        (node, answer)
    });
    let mut asked = asked.buffered(AT_ONCE);
    let (mut page, mut told, mut all) = (HostFiles::default(), 0, 0);
    loop {
        let next = tokio::select! {
            biased;
            next = asked.next() => next,
            () = shared.deps.clock.sleep_ms(shared.deps.limits.keep_alive_ms) => {
                to.keep_alive().await?;
                continue;
            }
        };
        let Some((node, answer)) = next else { break };
        all += 1;
        told += usize::from(answer.is_ok());
        let (mut file, refused) = match answer {
            Ok(file) => (Some(file), None),
            Err((why, silent)) => (None, Some((why, silent))),
        };
        let content = file.as_mut().and_then(|file| file.bytes.take()).unwrap_or_default();
        for part in content.chunks(PART) {
            to.part(&HostFiles { nodes: Vec::new(), bytes: ByteBuf::from(part) }).await?;
        }
        let silent = refused.as_ref().is_some_and(|(_, silent)| *silent);
        page.nodes.push(HostAnswer { node, file, refused: refused.map(|(why, _)| why), silent });
        if page.nodes.len() >= ROWS {
            to.part(&std::mem::take(&mut page)).await?;
        }
    }
    to.last(&page).await.map_err(|_| unavailable("the answer could not be sent"))?;
    Ok(format!("{told} of {all} nodes told"))
}
