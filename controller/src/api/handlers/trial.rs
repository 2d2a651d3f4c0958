//! `--dry-run=nodes`: decided like a push or an apply, then tried on every node that it is for, and forgotten.
//!
//! Guarantees: nothing is committed; every node is told of, also one that is lost or silent; what ran on hosts for it is
//! audited. A content that is too large for a message is stored as any content that is sent ahead, and goes like one.

use futures::StreamExt as _;
use futures::stream;
use ostler_controller_core::admission::{
    self, Act, By, Decision, NeededContent, World, conflict, invalid, unavailable,
};
use ostler_controller_core::configfile::{file_of, values};
use ostler_controller_core::fleet::Fleet;
use ostler_schemas::spec::{ConfigFileSpec, Spec, selects};
use ostler_schemas::v1::api::{
    ApiError, Ask, AskOp, ConfigPush, ConfigTry, FileTrial, INLINE_MAX, ManifestDocument, TrialAnswer,
    TrialNode, TrialReply, TrialState,
};
use ostler_schemas::{NodeName, ObjectRef, Uid, Version, codec};
use serde_bytes::ByteBuf;

use super::ask_node::{Patience, ask_one, silent};
use super::config::{contents_of, names};
use crate::actors::FreshIds;
use crate::api::audit::Entry;
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};
use crate::api::{blobs, renders};

/// Nodes asked at one time: each runs a program for it.
const AT_ONCE: usize = 256;
/// A node that has not begun by then does not answer.
const BEGIN_MS: u64 = 5_000;
/// How long a node may take beside its validator: contents are fetched, templates rendered, and one trial of a node waits
/// for another.
const MARGIN_MS: u64 = 30_000;
/// Most bytes of a node's answer: what came out of a validator, with room.
const ANSWER_BYTES: usize = 64 << 10;
/// Rows of one part of the answer.
const ROWS: usize = 50;

/// What is to be tried.
struct Trial {
    uid: Uid,
    version: Version,
    spec: ConfigFileSpec,
    contents: Vec<NeededContent>,
}

pub(super) async fn handle(
    shared: &Shared,
    call: &Call,
    (object, what): (&ObjectRef, ConfigTry),
    to: &mut Responder,
) -> Result<u64, ApiError> {
    let busy = |_| unavailable("other dry runs on nodes are under way: try again");
    let _place = shared.trials.try_acquire().map_err(busy)?;
    let fleet = shared.fleet(call).await?;
    let trial = match what {
        ConfigTry::Push(push) => pushed(shared, call, &fleet, (object, &push)).await?,
        ConfigTry::Manifest(document) => of_manifest(shared, &fleet, (object, *document))?,
    };
    let given = ready(shared, &trial).await?;
    let nodes = fleet.nodes().map(|(node, ..)| node);
    let nodes: Vec<NodeName> =
        nodes.filter(|node| selects(&trial.spec.node_selector, &fleet.node_labels(node))).collect();
    let entry = entry(shared, call, object, &trial, nodes.len());
    entry.intent(shared).await?;
    to.revision = Some(fleet.revision);
    let result = ask_all(shared, call, (&fleet, object, &trial, &given), nodes, to).await;
    match &result {
        Ok(words) => entry.outcome(shared, "done", words).await,
        Err(error) => entry.outcome(shared, "failed", &error.message).await,
    }
    result.map(|_| 0)
}

fn entry(shared: &Shared, call: &Call, object: &ObjectRef, trial: &Trial, nodes: usize) -> Entry {
    let words = trial.spec.validator.as_ref().map(|validator| validator.command.clone()).unwrap_or_default();
    Entry {
        caller: call.caller.name.clone(),
        actor: call.caller.actor(),
        verb: call.verb,
        objects: vec![object.clone()],
        reason: None,
        message: format!("dry run on {nodes} nodes, validator {words:?}"),
        txn: shared.deps.entropy.txn(),
    }
}

/// What a push would make, checked as one.
async fn pushed(
    shared: &Shared,
    call: &Call,
    fleet: &Fleet,
    (object, push): (&ObjectRef, &ConfigPush),
) -> Result<Trial, ApiError> {
    let (deps, signals) = (&shared.deps, shared.signals());
    let by = By { actor: call.caller.actor(), at: deps.clock.wall(), txn: deps.entropy.txn() };
    let world = World { fleet, signals: &signals, by: &by };
    let verdict = admission::push(&world, object, push, &mut FreshIds(&deps.entropy))?;
    renders::ensure(shared, fleet, &verdict.decision).await?;
    let Decision { writes, mut contents, .. } = verdict.decision;
    let written = writes.into_iter().find_map(|write| match write.act {
        Act::Object(after) => Some(*after),
        Act::SpecRevision(_) | Act::Goal(_) | Act::Delete => None,
    });
    let after = match written {
        Some(after) => after,
        // What is there already would be pushed.
        None => fleet
            .objects
            .get(object)
            .map(|stored| (*stored.value).clone())
            .ok_or_else(|| conflict(format!("{} would not be changed", object.short())))?,
    };
    let Spec::ConfigFile(spec) = after.spec else { return Err(invalid("that is no ConfigFile")) };
    let bytes = push.inline.as_ref().map(|bytes| bytes.to_vec());
    if bytes.is_some() && !contents.iter().any(|needed| needed.content == push.content) {
        contents.push(NeededContent { content: push.content, bytes });
    }
    Ok(Trial { uid: after.metadata.uid, version: after.metadata.version, spec: *spec, contents })
}

/// What a manifest says. Whether it may be applied was asked before.
fn of_manifest(
    shared: &Shared,
    fleet: &Fleet,
    (object, document): (&ObjectRef, ManifestDocument),
) -> Result<Trial, ApiError> {
    let read = super::changes::manifests(shared, vec![document])?;
    let Some(manifest) = read.into_iter().find(|manifest| names(manifest, object)) else {
        return Err(invalid(format!("the manifest is not of {}", object.short())));
    };
    let given = contents_of(&manifest);
    let contents = given.into_iter().map(|(content, bytes)| NeededContent { content, bytes: Some(bytes) });
    let existing = fleet.objects.get(object);
    let spec = match manifest.complete(existing.map(|stored| &stored.value.spec)) {
        Spec::ConfigFile(spec) if spec.has_content() => *spec,
        Spec::ConfigFile(_) => return Err(conflict(format!("{} has no content", object.short()))),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
            return Err(invalid("the manifest is no ConfigFile"));
        }
    };
    let known = existing.map(|stored| (stored.value.metadata.uid, stored.value.metadata.version));
    let (uid, before) = known.unwrap_or_else(|| (shared.deps.entropy.uid(), Version(0)));
    Ok(Trial { uid, version: Version(before.0 + 1), spec, contents: contents.collect() })
}

/// Contents that go with the order; those that are too large for it lie in the store when this is done.
async fn ready(shared: &Shared, trial: &Trial) -> Result<Vec<ByteBuf>, ApiError> {
    let (mut given, mut room) = (Vec::new(), INLINE_MAX);
    for needed in &trial.contents {
        match &needed.bytes {
            Some(bytes) if bytes.len() <= room => {
                room -= bytes.len();
                given.push(ByteBuf::from(bytes.clone()));
            }
            Some(_) | None => blobs::ensure(shared, std::slice::from_ref(needed)).await?,
        }
    }
    Ok(given)
}

async fn ask_all(
    shared: &Shared,
    call: &Call,
    (fleet, object, trial, given): (&Fleet, &ObjectRef, &Trial, &[ByteBuf]),
    nodes: Vec<NodeName>,
    to: &mut Responder,
) -> Result<String, ApiError> {
    let caller = &call.caller.name;
    let timeout_ms = trial.spec.validator.as_ref().map_or(0, |validator| validator.timeout.as_millis());
    let patience =
        Patience { begin_ms: BEGIN_MS, answer_ms: timeout_ms.saturating_add(MARGIN_MS), bytes: ANSWER_BYTES };
    let answers = stream::iter(nodes).map(|node| async move {
        let answer = match (silent(shared, &node), order(fleet, object, (trial, given), &node)) {
            (Some(why), _) => told(TrialState::Offline, why),
            (None, Err(why)) => told(TrialState::Offline, &why),
            (None, Ok(order)) => {
                let op = AskOp::Try(Box::new(order));
                let ask = Ask { id: shared.deps.entropy.txn(), op, caller: caller.clone() };
                answer_of(ask_one(shared, &node, (ask, patience)).await)
            }
        };
        TrialNode { node, answer }
    });
    let mut answers = answers.buffered(AT_ONCE);
    let (mut page, mut good, mut all) = (TrialReply::default(), 0, 0);
    loop {
        let next = tokio::select! {
            biased;
            next = answers.next() => next,
            () = shared.deps.clock.sleep_ms(shared.deps.limits.keep_alive_ms) => {
                to.keep_alive().await?;
                continue;
            }
        };
        let Some(row) = next else { break };
        all += 1;
        good += usize::from(matches!(row.answer.state, TrialState::WouldChange | TrialState::Unchanged));
        page.nodes.push(row);
        if page.nodes.len() >= ROWS {
            to.part(&std::mem::take(&mut page)).await?;
        }
    }
    to.last(&page).await?;
    Ok(format!("{good} of {all} nodes would take it"))
}

/// The order to one node, or why it cannot be told yet what it would have.
fn order(
    fleet: &Fleet,
    object: &ObjectRef,
    (trial, given): (&Trial, &[ByteBuf]),
    node: &NodeName,
) -> Result<FileTrial, String> {
    let namespace = object.namespace.clone().unwrap_or_else(ostler_schemas::Namespace::default_namespace);
    let spec = file_of((object.name.clone(), namespace), &trial.spec, &trial.spec);
    let (mut vars, mut facts) = (None, None);
    if trial.spec.has_template() {
        let known = values::facts_of(fleet, node).ok_or("it has not reported yet")?;
        vars = values::values_for(&trial.spec, (node, &known.labels));
        facts = Some(known);
    }
    Ok(FileTrial { uid: trial.uid, version: trial.version, spec, vars, facts, given: given.to_vec() })
}

fn told(state: TrialState, why: &str) -> TrialAnswer {
    TrialAnswer { state, reason: None, message: Some(why.to_owned()), sha256: None }
}

fn answer_of(answer: Result<Vec<u8>, String>) -> TrialAnswer {
    match answer {
        Ok(bytes) => codec::decode(&bytes).unwrap_or_else(|error| {
            told(TrialState::NoAnswer, &format!("its answer cannot be read: {error}"))
        }),
        Err(why) => told(TrialState::NoAnswer, &why),
    }
}
