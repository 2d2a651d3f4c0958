//! Bare Processes, and what every workload controller does with the processes it owns.
//!
//! A Process applied by hand is its own owner: the process has the object's uid and name. It is made once, follows
//! changes of its object, and is never remade: when it is lost or gone it stays so until the object is deleted.
//!
//! For all workloads: [`end`] tightens a goal, [`settle`] notes that what was told to end has ended. A goal only
//! tightens; `gone` is written when nothing of the process can be left, or its node is gone.

use std::collections::BTreeSet;

use ostler_schemas::spec::Spec;
use ostler_schemas::time::Now;
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::object::{Object, OwnerReference};
use ostler_schemas::v1::process::{Goal, GoalReason, GoalRecord, ProcessSpecRecord, ProcessTemplateRecord};
use ostler_schemas::{
    Actor, ControllerName, DocumentKind, Key, Kind, Namespace, NodeName, ObjectRef, Revision, Uid,
};

use crate::fleet::{Fleet, ProcessRecords};
use crate::plan::{Body, Ids, Plan};
use crate::references;

/// Most steps of one plan. Plans share batches of [`crate::lane::BATCH_MESSAGES`]; what is left over is planned next.
pub const STEPS: usize = 400;

/// Brings one bare Process about. The key is the uid of its object.
#[must_use]
pub fn reconcile(fleet: &Fleet, uid: &Uid, now: Now, _ids: &mut dyn Ids) -> Plan {
    let mut plan = Plan::nothing();
    let Some(object) = fleet.object_by_uid(uid) else {
        plan.why.push("no such object".to_owned());
        return plan;
    };
    if object.spec.kind() != Kind::Process {
        plan.why.push(format!("{} is not a Process", object.object_ref()));
        return plan;
    }
    let records = fleet.processes.get(uid).cloned().unwrap_or_default();
    if object.is_deleting() {
        if records.spec.is_some() {
            end(&mut plan, fleet, uid, Wish { reason: GoalReason::Delete, by: ControllerName::Process }, now);
        } else {
            plan.why.push("deleted, and nothing is left".to_owned());
        }
    } else {
        follow(&mut plan, fleet, object, &records, now);
    }
    settle(&mut plan, fleet, uid, ControllerName::Process, now);
    plan
}

/// Makes the process, or gives it the template that its object has now.
fn follow(plan: &mut Plan, fleet: &Fleet, object: &Object, records: &ProcessRecords, now: Now) {
    let uid = object.metadata.uid;
    if records.goal() != Goal::Run {
        plan.why.push("its goal is not to run; it is not remade".to_owned());
        return;
    }
    if records.spec.is_none() && !was_never_written(fleet, &uid) {
        plan.why.push("it was there before, and is not remade".to_owned());
        return;
    }
    let Some(template) = object.spec.template_to_store(&object.metadata.labels) else { return };
    let template = &template;
    let known = records.template.as_ref().map(|t| &*t.value);
    let mut draft = Plan::nothing();
    let hash = match draft.template(fleet, template) {
        Ok(hash) => hash,
        Err(error) => {
            plan.why.push(format!("its template cannot be stored: {error}"));
            return;
        }
    };
    let wanted = ProcessTemplateRecord { template: hash, version: object.metadata.version };
    if records.spec.is_some() && known == Some(&wanted) {
        plan.why.push("as it should be".to_owned());
        return;
    }
    if references::process_template(plan, fleet, template, now).is_err() {
        return;
    }
    if records.spec.is_none() {
        let namespace = object.metadata.namespace.clone().unwrap_or_else(Namespace::default_namespace);
        let owner = OwnerReference { kind: Kind::Process, name: object.metadata.name.clone(), uid };
        let name = object.metadata.name.clone();
        let spec = ProcessSpecRecord { owner, namespace, name, ordinal: None, at: now.wall };
        plan.put(fleet, Key::ProcessSpec(uid), Body::ProcessSpec(spec));
    }
    plan.put(fleet, Key::ProcessTemplate(uid), Body::ProcessTemplate(wanted));
    guard_object(plan, fleet, object);
}

/// Makes a plan depend on the object as it was seen: what was asked must not have changed when the plan takes effect,
/// and nothing may be made for an object that is gone.
pub fn guard_object(plan: &mut Plan, fleet: &Fleet, object: &Object) {
    let key = Key::Object(object.object_ref());
    let expect = fleet.revision_of(&key);
    plan.reads.push((key, expect));
}

fn was_never_written(fleet: &Fleet, uid: &Uid) -> bool {
    fleet.revision_of(&Key::ProcessSpec(*uid)).is_none()
}

/// What a workload controller wishes of a process that should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Why.
    pub reason: GoalReason,
    /// Who wishes.
    pub by: ControllerName,
}

/// Tells a process to end: `gone` at once if it has no node or has ended there already, else `stop`. Does nothing when
/// its goal is that tight already.
pub fn end(plan: &mut Plan, fleet: &Fleet, uid: &Uid, wish: Wish, now: Now) {
    let Some(records) = fleet.processes.get(uid) else { return };
    if records.goal() != Goal::Run {
        return;
    }
    let goal = if records.bind.is_none() {
        // The scheduler may be binding it just now: then this plan is overtaken.
        let key = Key::ProcessBind(*uid);
        if fleet.unreadable.contains_key(&key) { Goal::Stop } else { Goal::Gone }
    } else {
        Goal::Stop
    };
    if goal == Goal::Gone {
        let key = Key::ProcessBind(*uid);
        let expect = fleet.revision_of(&key);
        plan.reads.push((key, expect));
    }
    tighten(plan, fleet, uid, goal, wish, now);
}

/// Writes `gone` for a process that was told to end and of which its node has said, knowing so, that it has ended; or
/// whose node is not registered any more.
pub fn settle(plan: &mut Plan, fleet: &Fleet, uid: &Uid, by: ControllerName, now: Now) {
    let Some(records) = fleet.processes.get(uid) else { return };
    if records.goal() != Goal::Stop {
        return;
    }
    let Some(node) = records.node() else {
        let unreadable = fleet.unreadable.contains_key(&Key::ProcessBind(*uid));
        if !unreadable {
            let key = Key::ProcessBind(*uid);
            plan.reads.push((key.clone(), fleet.revision_of(&key)));
            tighten(plan, fleet, uid, Goal::Gone, Wish { reason: GoalReason::Ended, by }, now);
        }
        return;
    };
    if is_unregistered(fleet, node) {
        tighten(plan, fleet, uid, Goal::Gone, Wish { reason: GoalReason::Lost, by }, now);
    } else if has_ended(fleet, uid, node) {
        tighten(plan, fleet, uid, Goal::Gone, Wish { reason: GoalReason::Ended, by }, now);
    }
}

fn tighten(plan: &mut Plan, fleet: &Fleet, uid: &Uid, goal: Goal, wish: Wish, now: Now) {
    let key = Key::ProcessGoal(*uid);
    if fleet.unreadable.contains_key(&key) || plan.steps.iter().any(|s| s.key == key) {
        return;
    }
    let actor = Actor::Controller(wish.by);
    let record = GoalRecord { goal, reason: wish.reason, actor, epoch: None, at: now.wall };
    plan.put(fleet, key, Body::Goal(record));
}

/// Whether a node is certainly not registered: no object, and none that this version cannot read.
#[must_use]
pub fn is_unregistered(fleet: &Fleet, node: &NodeName) -> bool {
    let Some(object) = ObjectRef::node(node) else { return true };
    fleet.node(node).is_none() && !fleet.unreadable.contains_key(&Key::Object(object))
}

/// Whether the node holds at least this document.
#[must_use]
pub fn holds(held: &ostler_schemas::v1::beat::HeldDocument, epoch: &Epoch, revision: Revision) -> bool {
    (held.epoch.incarnation, held.revision) >= (epoch.incarnation, revision)
}

/// Whether the node, holding a document that tells the process to end, reports it as ended or not at all.
fn has_ended(fleet: &Fleet, uid: &Uid, node: &NodeName) -> bool {
    let (Some(document), Some(report)) = (fleet.run_documents.get(node), fleet.reports.get(node)) else {
        return false;
    };
    let told = document.entries.iter().any(|e| e.u == *uid && e.g != Goal::Run);
    let knows = holds(&report.run, &document.epoch, document.revision);
    let orphaned = report.orphans.iter().any(|o| o.u == *uid);
    told && knows && !orphaned && report.process(uid).is_none_or(|p| p.phase.has_ended())
}

/// Owners of this kind of everything bound to a node.
#[must_use]
pub fn owners_on(fleet: &Fleet, node: &NodeName, kind: Kind) -> BTreeSet<Uid> {
    let uids = fleet.by_node.get(node).into_iter().flat_map(imbl::OrdSet::iter);
    uids.filter_map(|uid| owner_of(fleet, uid, kind)).collect()
}

/// The owner of a process, if it is of this kind.
#[must_use]
pub fn owner_of(fleet: &Fleet, uid: &Uid, kind: Kind) -> Option<Uid> {
    let spec = fleet.processes.get(uid)?.spec.as_ref()?;
    (spec.owner.kind == kind).then_some(spec.owner.uid)
}

/// Workloads of `kind` to look at again after a change of `key`.
#[must_use]
pub fn affected_workloads(fleet: &Fleet, key: &Key, kind: Kind) -> Vec<Uid> {
    match key {
        Key::Object(object) | Key::SpecRevision(object, ..) if object.kind == kind => {
            fleet.objects.get(object).map(|o| o.metadata.uid).into_iter().collect()
        }
        Key::Object(object) if object.kind == Kind::Node => match object.name.as_str().parse() {
            Ok(node) => owners_on(fleet, &node, kind).into_iter().collect(),
            Err(_) => Vec::new(),
        },
        Key::ProcessSpec(uid) | Key::ProcessTemplate(uid) | Key::ProcessBind(uid) | Key::ProcessGoal(uid) => {
            owner_of(fleet, uid, kind).into_iter().collect()
        }
        Key::Report(node) | Key::NodeDocument(node, DocumentKind::Run) => {
            owners_on(fleet, node, kind).into_iter().collect()
        }
        Key::Object(_)
        | Key::SpecRevision(..)
        | Key::Template(_)
        | Key::NodeDocument(_, DocumentKind::Files | DocumentKind::Secrets)
        | Key::State(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaIncarnation
        | Key::MetaFormatFloor
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => Vec::new(),
    }
}

/// Processes to look at again after a change of `key`.
#[must_use]
pub fn affected(fleet: &Fleet, key: &Key) -> Vec<Uid> {
    affected_workloads(fleet, key, Kind::Process)
}

/// Every bare Process.
#[must_use]
pub fn all(fleet: &Fleet) -> Vec<Uid> {
    fleet
        .of_kind(Kind::Process)
        .filter(|(_, object)| matches!(object.value.spec, Spec::Process(_)))
        .map(|(_, object)| object.metadata.uid)
        .collect()
}

#[cfg(test)]
mod tests;
