//! Garbage: removes from the store what nothing can need any more.
//!
//! | what | when |
//! |---|---|
//! | `p.<uid>.*` | the goal is `gone`, and the process never had a node, its node is deleted, or its node has retired it; never while a bare Process's object stands |
//! | `s.*` | the object, process or node is gone |
//! | `n.<node>.*`, `r.<node>` | the node is deleted and all that was bound there is given up |
//! | `t.*` | nothing refers to it and it is an hour old (see [`crate::references`]) |
//! | `rev.*` | beyond what is kept, or the object is gone for an hour |
//! | markers of deletions | older than 24 h |
//!
//! Guarantees: what this version cannot read counts as a reference to everything; each deletion is guarded on the
//! snapshot; one sweep is bounded.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::key::StateSubject;
use ostler_schemas::time::Now;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::{
    ControllerName, DocumentKind, Generation, Key, Kind, NodeName, ObjectRef, Revision, Sha256, Uid, Version,
};

use crate::fleet::{Fleet, ProcessRecords};
use crate::plan::Plan;
use crate::process::{STEPS, holds, is_unregistered};
use crate::references::COLLECT_AGE_MS;

/// Markers of deletions are needed by informers that were away; those relist after half of this (DESIGN.md 3.10).
pub const MARKER_AGE_MS: u64 = 24 * 3_600_000;
/// Versions kept of each object, and generations (`versionHistoryLimit`, CONTRACT.md 4.1).
pub const REVISIONS_KEPT: usize = 10;
/// Most purges of one sweep: each is a request of its own.
const PURGES: usize = 500;
/// How often to look when nothing calls.
const SWEEP_MS: u64 = 60_000;

/// What one sweep wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sweep {
    /// Deletions in the objects bucket, through the lane.
    pub plan: Plan,
    /// Deletions in the observed bucket, each guarded on the revision: a batch cannot span two streams.
    pub observed: Vec<(Key, Revision)>,
    /// Markers to purge by subject and revision.
    pub purges: Vec<(Key, Revision)>,
}

/// One sweep over the whole snapshot.
#[must_use]
pub fn reconcile(fleet: &Fleet, now: Now) -> Sweep {
    let mut sweep = Sweep::default();
    // Documents of deleted nodes go before, or with, the records of what they list: a host that registers anew under
    // the name must not find an entry to run whose goal is not known any more.
    nodes(&mut sweep, fleet);
    processes(&mut sweep.plan, fleet);
    states(&mut sweep.plan, fleet);
    templates(&mut sweep.plan, fleet, now);
    revisions(&mut sweep.plan, fleet, now);
    let old = fleet.markers.iter().filter(|(_, at)| now.wall.since_ms(**at) >= MARKER_AGE_MS);
    sweep.purges =
        old.filter_map(|(key, _)| Some((key.clone(), fleet.revision_of(key)?))).take(PURGES).collect();
    let more = sweep.plan.steps.len() >= STEPS || sweep.purges.len() >= PURGES;
    sweep.plan.wake_in(if more { 0 } else { SWEEP_MS });
    sweep
}

/// Whether a change of this key made garbage that should not wait for the next sweep: deletions wait for it. A sweep
/// covers everything, so the many reports that change nothing here must not each call for one.
#[must_use]
pub fn is_affected(fleet: &Fleet, key: &Key) -> bool {
    match key {
        Key::ProcessGoal(uid) => is_gone(fleet, uid),
        Key::NodeDocument(node, DocumentKind::Run) | Key::Report(node) => {
            let mut bound = fleet.by_node.get(node).into_iter().flat_map(imbl::OrdSet::iter);
            bound.any(|uid| is_gone(fleet, uid)) || is_unregistered(fleet, node)
        }
        Key::Object(object) if object.kind == Kind::Process => {
            fleet.objects.get(object).is_none_or(|o| o.value.is_deleting())
        }
        Key::Object(object) => object.kind == Kind::Node && !fleet.objects.contains_key(object),
        Key::SpecRevision(..)
        | Key::Template(_)
        | Key::ProcessSpec(_)
        | Key::ProcessTemplate(_)
        | Key::ProcessBind(_)
        | Key::NodeDocument(_, DocumentKind::Files | DocumentKind::Secrets)
        | Key::State(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaIncarnation
        | Key::MetaFormatFloor
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => false,
    }
}

fn is_gone(fleet: &Fleet, uid: &Uid) -> bool {
    fleet.processes.get(uid).is_some_and(|p| p.goal() == Goal::Gone)
}

fn is_full(plan: &Plan) -> bool {
    plan.steps.len() >= STEPS
}

/// Whether there are objects that cannot be read: then an unknown uid may be theirs.
fn objects_unreadable(fleet: &Fleet) -> bool {
    fleet.unreadable.keys().any(|k| matches!(k, Key::Object(_)))
}

fn processes(plan: &mut Plan, fleet: &Fleet) {
    for (uid, records) in &fleet.processes {
        if is_full(plan) {
            return;
        }
        let keys = process_keys(uid);
        if keys.iter().any(|k| fleet.unreadable.contains_key(k)) || !is_over(plan, fleet, (uid, records)) {
            continue;
        }
        for key in keys {
            let present = fleet.revision_of(&key).is_some() && !fleet.markers.contains_key(&key);
            if present {
                plan.delete(fleet, key);
            } else if matches!(key, Key::ProcessBind(_)) {
                // The scheduler may be binding it just now: then this plan is overtaken.
                plan.reads.push((key.clone(), fleet.revision_of(&key)));
            }
        }
    }
}

fn process_keys(uid: &Uid) -> [Key; 4] {
    // The spec goes last: without it the other records belong to nobody.
    [Key::ProcessGoal(*uid), Key::ProcessBind(*uid), Key::ProcessTemplate(*uid), Key::ProcessSpec(*uid)]
}

/// Whether nothing of a process is left or can come.
fn is_over(plan: &Plan, fleet: &Fleet, (uid, records): (&Uid, &ProcessRecords)) -> bool {
    let Some(node) = records.node() else {
        return records.spec.is_none() || (records.goal() == Goal::Gone && !is_shown(fleet, uid, records));
    };
    records.goal() == Goal::Gone
        && !is_shown(fleet, uid, records)
        && if is_unregistered(fleet, node) {
            let document = Key::NodeDocument(node.clone(), DocumentKind::Run);
            !fleet.has_entry(node, uid) || plan.steps.iter().any(|s| s.key == document)
        } else {
            is_retired(fleet, uid, node)
        }
}

/// The object of a bare Process shows what became of it, until it is deleted; without its records it would be remade.
fn is_shown(fleet: &Fleet, uid: &Uid, records: &ProcessRecords) -> bool {
    let bare = records.spec.as_ref().is_some_and(|s| s.owner.uid == *uid);
    bare && (objects_unreadable(fleet) || fleet.object_by_uid(uid).is_some_and(|o| !o.is_deleting()))
}

/// Whether the node's document has no entry of the process any more, and the node, knowing so, does not speak of it.
fn is_retired(fleet: &Fleet, uid: &Uid, node: &NodeName) -> bool {
    let Some(report) = fleet.reports.get(node) else { return false };
    let listed = report.process(uid).is_some() || report.orphans.iter().any(|o| o.u == *uid);
    let document = fleet.run_documents.get(node);
    let unreadable = fleet.unreadable.contains_key(&Key::NodeDocument(node.clone(), DocumentKind::Run));
    let knows = document.is_none_or(|d| holds(&report.run, &d.epoch, d.revision));
    !unreadable && !fleet.has_entry(node, uid) && !listed && knows
}

fn states(plan: &mut Plan, fleet: &Fleet) {
    let blind = objects_unreadable(fleet);
    for (controller, uid) in fleet.rollouts.keys() {
        let gone = !blind && !fleet.by_uid.contains_key(uid) && !fleet.by_owner.contains_key(uid);
        if gone && !is_full(plan) {
            plan.delete(fleet, Key::State(*controller, StateSubject::Uid(*uid)));
        }
    }
    for uid in fleet.pending.keys() {
        let spec = Key::ProcessSpec(*uid);
        let gone = !fleet.processes.contains_key(uid) && !fleet.unreadable.contains_key(&spec);
        if gone && !is_full(plan) {
            plan.delete(fleet, Key::State(ControllerName::Scheduler, StateSubject::Uid(*uid)));
        }
    }
    for node in fleet.node_states.keys() {
        if is_deserted(fleet, node) && !is_full(plan) {
            plan.delete(fleet, Key::State(ControllerName::Node, StateSubject::Node(node.clone())));
        }
    }
}

/// Whether a node is deleted and everything that was bound there is given up.
fn is_deserted(fleet: &Fleet, node: &NodeName) -> bool {
    let hidden = |k: &Key| matches!(k, Key::ProcessBind(_) | Key::ProcessGoal(_));
    let mut bound = fleet.by_node.get(node).into_iter().flat_map(imbl::OrdSet::iter);
    is_unregistered(fleet, node)
        && bound.all(|uid| is_gone(fleet, uid))
        && !fleet.unreadable.keys().any(hidden)
}

fn nodes(sweep: &mut Sweep, fleet: &Fleet) {
    let run = fleet.run_documents.keys().map(|n| (n, DocumentKind::Run));
    let files = fleet.files_documents.keys().map(|n| (n, DocumentKind::Files));
    let secrets = fleet.secrets_documents.keys().map(|n| (n, DocumentKind::Secrets));
    for (node, kind) in run.chain(files).chain(secrets) {
        if is_deserted(fleet, node) && !is_full(&sweep.plan) {
            // Were the node registered again meanwhile, its documents would begin anew: that must not be lost.
            if let Some(object) = ObjectRef::node(node) {
                let key = Key::Object(object);
                sweep.plan.reads.push((key.clone(), fleet.revision_of(&key)));
            }
            sweep.plan.delete(fleet, Key::NodeDocument(node.clone(), kind));
        }
    }
    sweep.observed = fleet
        .reports
        .iter()
        .filter(|(node, _)| is_deserted(fleet, node))
        .map(|(node, report)| (Key::Report(node.clone()), report.revision))
        .take(PURGES)
        .collect();
}

fn templates(plan: &mut Plan, fleet: &Fleet, now: Now) {
    let hides_references = |k: &Key| match k {
        Key::ProcessTemplate(_) | Key::NodeDocument(..) => true,
        Key::Object(_)
        | Key::SpecRevision(..)
        | Key::Template(_)
        | Key::ProcessSpec(_)
        | Key::ProcessBind(_)
        | Key::ProcessGoal(_)
        | Key::State(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaIncarnation
        | Key::MetaFormatFloor
        | Key::Report(_)
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => false,
    };
    if fleet.unreadable.keys().any(hides_references) {
        plan.why.push("templates are kept: something that may refer to them cannot be read".to_owned());
        return;
    }
    let referenced = references(fleet);
    for (hash, at) in &fleet.template_times {
        let old = now.wall.since_ms(*at) >= COLLECT_AGE_MS;
        if old && !referenced.contains(hash) && !is_full(plan) {
            plan.delete(fleet, Key::Template(*hash));
        }
    }
}

/// Every template and file spec that something refers to.
fn references(fleet: &Fleet) -> BTreeSet<Sha256> {
    let by_process = fleet.processes.values().filter_map(|p| p.template.as_ref().map(|t| t.template));
    let by_run = fleet.run_documents.values().flat_map(|d| d.templates.iter().copied());
    let by_files = fleet
        .files_documents
        .values()
        .flat_map(|d| d.entries.iter().flat_map(|e| [Some(e.d), e.w]).flatten());
    by_process.chain(by_run).chain(by_files).collect()
}

fn revisions(plan: &mut Plan, fleet: &Fleet, now: Now) {
    let mut objects: BTreeMap<(&ObjectRef, Uid), Vec<(Generation, Version)>> = BTreeMap::new();
    for ((of, uid, generation), revision) in &fleet.spec_revisions {
        let present = fleet.by_uid.contains_key(uid);
        if present {
            objects.entry((of, *uid)).or_default().push((*generation, revision.version));
        } else if !objects_unreadable(fleet)
            && now.wall.since_ms(revision.at) >= COLLECT_AGE_MS
            && !is_full(plan)
        {
            plan.delete(fleet, Key::SpecRevision(of.clone(), *uid, *generation));
        }
    }
    for ((of, uid), known) in objects {
        let kept = kept_generations(&known, &in_force_versions(fleet, &uid));
        for (generation, _) in known {
            if !kept.contains(&generation) && !is_full(plan) {
                plan.delete(fleet, Key::SpecRevision(of.clone(), uid, generation));
            }
        }
    }
}

fn in_force_versions(fleet: &Fleet, uid: &Uid) -> BTreeSet<Version> {
    [ControllerName::Deployment, ControllerName::ConfigFile]
        .into_iter()
        .filter_map(|c| fleet.rollouts.get(&(c, *uid)))
        .flat_map(|s| [s.current, s.target, s.last_good, s.failed])
        .collect()
}

/// The newest generations, and the newest generation of each of the newest versions and of those in force.
fn kept_generations(known: &[(Generation, Version)], in_force: &BTreeSet<Version>) -> BTreeSet<Generation> {
    let newest = known.iter().rev().take(REVISIONS_KEPT).map(|(generation, _)| *generation);
    let by_version: BTreeMap<Version, Generation> = known.iter().map(|(g, v)| (*v, *g)).collect();
    let versions = by_version.iter().rev().take(REVISIONS_KEPT).map(|(_, g)| *g);
    let forced = by_version.iter().filter(|(v, _)| in_force.contains(v)).map(|(_, g)| *g);
    newest.chain(versions).chain(forced).collect()
}

#[cfg(test)]
mod tests;
