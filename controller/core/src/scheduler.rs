//! The scheduler: binds processes to nodes and projects what is bound into the nodes' run documents.
//!
//! One look covers the whole fleet, because placements of one look share the nodes' room. All changes of one node go
//! into one write of its document, in one batch with the bindings. Stops go before placements: a document is first
//! brought up to the goals, and room is only counted free when the node has reported the end of what used it.
//!
//! * [`project`]: spec + bind + goal to a run document, and when an entry may be retired.
//! * [`room`]: what a node has and what is left of it.
//! * [`place`]: filters with reasons, least-loaded score, total order.

mod limits;
pub mod place;
pub mod project;
pub mod room;

use std::collections::BTreeMap;

use ostler_schemas::key::{DocumentKind, StateSubject};
use ostler_schemas::time::Now;
use ostler_schemas::v1::document::RunDocument;
use ostler_schemas::v1::process::{BindRecord, Goal};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::PendingState;
use ostler_schemas::{ControllerName, Key, Kind, NodeName, ObjectRef, Uid};

use crate::fleet::{Fleet, ProcessRecords};
use crate::liveness::Signals;
use crate::plan::{Body, Plan, Telling};

use self::place::{Choice, Wanted};
use self::room::Rooms;

/// Most placements of one plan: with a binding and a guard each, and at most as many documents, they fit one batch.
const PLACEMENTS_PER_PLAN: usize = 300;

/// Binds what has no node and brings every document up to date.
#[must_use]
pub fn reconcile(fleet: &Fleet, signals: &Signals, now: Now) -> Plan {
    let mut plan = Plan::nothing();
    let mut rooms = Rooms::measure(fleet, signals);
    let placements = place_pending(&mut plan, fleet, &mut rooms, now);
    write_documents(&mut plan, fleet, &placements);
    forget_reasons(&mut plan, fleet);
    plan
}

/// Whether a change of this key can matter to the scheduler.
#[must_use]
pub fn is_affected(key: &Key) -> bool {
    match key {
        Key::Object(object) => matches!(object.kind, Kind::Node | Kind::Namespace),
        Key::ProcessSpec(_)
        | Key::ProcessTemplate(_)
        | Key::ProcessBind(_)
        | Key::ProcessGoal(_)
        | Key::NodeDocument(_, DocumentKind::Run)
        | Key::Template(_)
        | Key::Report(_)
        | Key::MetaIncarnation
        | Key::State(ControllerName::Node | ControllerName::Scheduler, _) => true,
        Key::SpecRevision(..)
        | Key::NodeDocument(_, DocumentKind::Files | DocumentKind::Secrets)
        | Key::State(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaFormatFloor
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => false,
    }
}

/// Placements of one plan by node.
type Placements = BTreeMap<NodeName, BTreeMap<Uid, BindRecord>>;

fn place_pending(plan: &mut Plan, fleet: &Fleet, rooms: &mut Rooms, now: Now) -> Placements {
    let mut placements = Placements::new();
    let mut count = 0;
    for (uid, records) in in_order(fleet) {
        let Some(wanted) = Wanted::of(fleet, uid, records) else { continue };
        if count >= PLACEMENTS_PER_PLAN {
            plan.wake_in(0);
            break;
        }
        match place::choose(fleet, rooms, &wanted) {
            Choice::Node { node, ports } => {
                count += 1;
                rooms.take(&node, &wanted, &ports);
                let bind = BindRecord { node: node.clone(), token: Default::default(), ports, at: now.wall };
                plan.put(fleet, Key::ProcessBind(*uid), Body::Bind(bind.clone()));
                // Its controller, in another lane, may just be giving it up, and then nobody would end what is bound.
                let goal = Key::ProcessGoal(*uid);
                plan.reads.push((goal.clone(), fleet.revision_of(&goal)));
                tell(plan, uid, records, Some(&node), Reason::Scheduled, format!("placed on {node}"));
                placements.entry(node).or_default().insert(*uid, bind);
            }
            Choice::None(why) => keep_reason(plan, fleet, (uid, records), why, now),
        }
    }
    placements
}

/// Processes without a node whose goal is to run, oldest first; the uid settles ties.
fn in_order(fleet: &Fleet) -> Vec<(&Uid, &ProcessRecords)> {
    let waits = |records: &ProcessRecords| {
        records.bind.is_none()
            && records.spec.is_some()
            && records.template.is_some()
            && records.goal() == Goal::Run
    };
    let mut pending: Vec<(&Uid, &ProcessRecords)> =
        fleet.processes.iter().filter(|(_, r)| waits(r)).collect();
    pending.sort_by_key(|(uid, records)| (records.spec.as_ref().map(|s| s.at), **uid));
    pending
}

fn keep_reason(
    plan: &mut Plan,
    fleet: &Fleet,
    (uid, records): (&Uid, &ProcessRecords),
    why: place::Unplaceable,
    now: Now,
) {
    let known = fleet.pending.get(uid);
    if known.is_some_and(|k| k.message == why.message && k.filters == why.filters) {
        return;
    }
    let same = known.is_some_and(|k| k.message == why.message);
    if !same {
        tell(plan, uid, records, None, Reason::Unschedulable, why.message.clone());
    }
    let since = known.filter(|_| same).map_or(now.wall, |k| k.since);
    let state = PendingState {
        message: why.message,
        filters: why.filters,
        since,
        revision: fleet.revision,
        epoch: Default::default(),
    };
    let key = Key::State(ControllerName::Scheduler, StateSubject::Uid(*uid));
    plan.put(fleet, key, Body::Pending(state));
}

/// Reasons of processes that are placed, or need no place any more.
fn forget_reasons(plan: &mut Plan, fleet: &Fleet) {
    let written: Vec<Key> = plan.steps.iter().map(|s| s.key.clone()).collect();
    for uid in fleet.pending.keys() {
        let placed_now = written.contains(&Key::ProcessBind(*uid));
        let waits = fleet.processes.get(uid).is_some_and(|r| r.bind.is_none() && r.goal() == Goal::Run);
        if placed_now || !waits {
            plan.delete(fleet, Key::State(ControllerName::Scheduler, StateSubject::Uid(*uid)));
        }
    }
}

fn write_documents(plan: &mut Plan, fleet: &Fleet, placements: &Placements) {
    let none = BTreeMap::new();
    let mut nodes: Vec<&NodeName> = fleet.by_node.keys().chain(fleet.run_documents.keys()).collect();
    nodes.extend(placements.keys());
    nodes.sort();
    nodes.dedup();
    for node in nodes {
        let key = Key::NodeDocument(node.clone(), DocumentKind::Run);
        if fleet.unreadable.contains_key(&key) {
            plan.why.push(format!("{key} cannot be read by this version: left as it is"));
            continue;
        }
        let placed = placements.get(node).unwrap_or(&none);
        let present = fleet.run_documents.get(node);
        let wanted = project::project(fleet, node, placed);
        if needs_write(fleet, present.map(|d| &*d.value), &wanted) {
            plan.put(fleet, key, Body::Run(Box::new(wanted)));
        }
    }
}

/// Whether the stored document says something else than it should. The epoch is the executor's; `bulk` only matters
/// when something else changes; an older store incarnation must be replaced, or agents would refuse what follows.
fn needs_write(fleet: &Fleet, present: Option<&RunDocument>, wanted: &RunDocument) -> bool {
    match present {
        None => !wanted.entries.is_empty(),
        Some(present) => {
            let same = project::resolved(present) == project::resolved(wanted)
                && present.labels == wanted.labels
                && present.ships == wanted.ships;
            let bulk_missing = wanted.bulk.is_some() && present.bulk.is_none();
            !same || bulk_missing || present.epoch.incarnation < fleet.store_incarnation()
        }
    }
}

fn tell(
    plan: &mut Plan,
    uid: &Uid,
    records: &ProcessRecords,
    node: Option<&NodeName>,
    reason: Reason,
    message: String,
) {
    let Some(spec) = &records.spec else { return };
    let object =
        ObjectRef { kind: Kind::Process, namespace: Some(spec.namespace.clone()), name: spec.name.clone() };
    plan.tell.push(Telling { object, uid: Some(*uid), node: node.cloned(), reason, message });
}

#[cfg(test)]
mod tests;
