//! The projection: what a node's run document must say, from what is bound there and how far its goals are.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::v1::document::{DocumentOwner, RunDocument, RunEntry};
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::v1::object::{Labels, Object};
use ostler_schemas::v1::process::{BindRecord, Goal, GoalReason};
use ostler_schemas::{Namespace, NodeName, Sha256, Uid, Version};

use crate::fleet::{Fleet, ProcessRecords, StoredTemplate};

/// A document may stop so many processes without being marked, whatever their number (DESIGN.md 3.4).
const BULK_AT_LEAST: usize = 3;
/// … or this share of them.
const BULK_PERCENT: usize = 20;

/// The document of `node`, with `placed` bound there as well. Its epoch and the tokens of `placed` are left to the
/// executor.
#[must_use]
pub fn project(fleet: &Fleet, node: &NodeName, placed: &BTreeMap<Uid, BindRecord>) -> RunDocument {
    let mut document = RunDocument::default();
    let bound = fleet.by_node.get(node).into_iter().flat_map(imbl::OrdSet::iter);
    let mut uids: Vec<&Uid> = bound.chain(placed.keys()).collect();
    uids.sort();
    uids.dedup();
    for uid in uids {
        let Some(records) = fleet.processes.get(uid) else { continue };
        let bind = placed.get(uid).or(records.bind.as_ref().map(|b| &*b.value));
        if let Some(bind) = bind
            && !is_retired(fleet, node, uid, records)
        {
            add(&mut document, fleet, node, (uid, records, bind));
        }
    }
    keep_unexplained(&mut document, fleet, node);
    document.entries.sort_by_key(|e| e.u);
    document.bulk = bulk(fleet, node, &document);
    document.labels = labels(fleet, node, &document);
    document.ships = ships(fleet, node, &document);
    document
}

/// Those namespaces of the document's entries whose output is shipped. Of one that cannot be known now, for want of its
/// object, the node keeps what it was told.
fn ships(fleet: &Fleet, node: &NodeName, document: &RunDocument) -> BTreeSet<Namespace> {
    let told = fleet.run_documents.get(node).map(|d| d.ships.clone()).unwrap_or_default();
    let entries = document.entries.iter().filter_map(|e| document.owners.get(e.o as usize));
    let namespaces: BTreeSet<&Namespace> = entries.map(|owner| &owner.ns).collect();
    let is_shipped = |ns: &&Namespace| match fleet.namespace(ns) {
        Some(spec) => spec.logs.ship,
        None => told.contains(*ns),
    };
    namespaces.into_iter().filter(is_shipped).cloned().collect()
}

/// The node's labels that the document must carry, because a template in it refers to them. What cannot be known now,
/// for want of the node or of a template, stays as the node was told.
fn labels(fleet: &Fleet, node: &NodeName, document: &RunDocument) -> Labels {
    let told = fleet.run_documents.get(node).map(|d| d.labels.clone()).unwrap_or_default();
    let Some((object, _)) = fleet.node(node) else { return told };
    let templates: Vec<_> = document.templates.iter().map(|hash| fleet.templates.get(hash)).collect();
    let mut labels = if templates.iter().any(Option::is_none) { told } else { Labels::new() };
    for template in templates.into_iter().flatten() {
        if let StoredTemplate::Process(template) = template {
            labels.extend(labels_for(object, template));
        }
    }
    labels
}

/// Those labels of a node that variables of a template are taken from.
pub(super) fn labels_for<'a>(
    node: &'a Object,
    template: &'a ProcessTemplate,
) -> impl Iterator<Item = (String, String)> + 'a {
    let known = |key: &str| node.metadata.labels.get_key_value(key);
    template.node_labels_in_env().filter_map(known).map(|(key, value)| (key.clone(), value.clone()))
}

/// Whether the entry of a process is no longer needed: its goal is `gone`, and the node has said, knowing so, that
/// nothing of it is left (or the node itself is gone).
fn is_retired(fleet: &Fleet, node: &NodeName, uid: &Uid, records: &ProcessRecords) -> bool {
    if records.goal() != Goal::Gone {
        return false;
    }
    let Some(document) = fleet.run_documents.get(node) else { return true };
    let Some(entry) = document.entries.iter().find(|e| e.u == *uid) else { return true };
    if fleet.node(node).is_none() {
        return true;
    }
    let Some(report) = fleet.reports.get(node) else { return false };
    let knows = report.run.revision >= document.revision && entry.g == Goal::Gone;
    let orphaned = report.orphans.iter().any(|o| o.u == *uid && o.pid.is_some());
    let ended = report.process(uid).is_none_or(|p| !p.phase.may_be_alive());
    knows && ended && !orphaned
}

fn add(
    document: &mut RunDocument,
    fleet: &Fleet,
    node: &NodeName,
    (uid, records, bind): (&Uid, &ProcessRecords, &BindRecord),
) {
    let (Some(spec), Some(template)) = (&records.spec, &records.template) else {
        // A record is missing or unreadable: what the node was told before stays as it is.
        copy_entry(document, fleet, node, uid);
        return;
    };
    let Some(suffix) = spec.name.as_str().strip_prefix(spec.owner.name.as_str()) else {
        copy_entry(document, fleet, node, uid);
        return;
    };
    let owner = DocumentOwner { ns: spec.namespace.clone(), owner: spec.owner.clone() };
    let entry = RunEntry {
        u: *uid,
        o: position(&mut document.owners, owner),
        s: suffix.to_owned(),
        t: position(&mut document.templates, template.template),
        v: template.version,
        g: records.goal(),
        f: bind.token,
        p: bind.ports.clone(),
    };
    document.entries.push(entry);
}

fn position<T: PartialEq>(list: &mut Vec<T>, item: T) -> u32 {
    let at = list.iter().position(|known| *known == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn copy_entry(document: &mut RunDocument, fleet: &Fleet, node: &NodeName, uid: &Uid) {
    let Some(present) = fleet.run_documents.get(node) else { return };
    let Some(entry) = present.entries.iter().find(|e| e.u == *uid) else { return };
    let (Some(owner), Some(template)) = (present.owners.get(entry.o as usize), present.template(entry))
    else {
        return;
    };
    let o = position(&mut document.owners, owner.clone());
    let t = position(&mut document.templates, template);
    document.entries.push(RunEntry { o, t, ..entry.clone() });
}

/// Entries without any record stay: a store that has lost records must not lose processes.
fn keep_unexplained(document: &mut RunDocument, fleet: &Fleet, node: &NodeName) {
    let Some(present) = fleet.run_documents.get(node) else { return };
    let unexplained: Vec<Uid> = present
        .entries
        .iter()
        .filter(|e| fleet.processes.get(&e.u).is_none_or(|p| p.bind.is_none() && p.goal() != Goal::Gone))
        .map(|e| e.u)
        .filter(|u| !document.entries.iter().any(|e| e.u == *u))
        .collect();
    for uid in unexplained {
        copy_entry(document, fleet, node, &uid);
    }
}

/// Whether the document stops many of what the node still runs, for reasons that a person or a verdict gave.
fn bulk(fleet: &Fleet, node: &NodeName, document: &RunDocument) -> Option<String> {
    let report = fleet.reports.get(node);
    let alive = |uid: &Uid| report.is_none_or(|r| r.process(uid).is_some_and(|p| p.phase.may_be_alive()));
    let stopping: Vec<&RunEntry> =
        document.entries.iter().filter(|e| e.g != Goal::Run && alive(&e.u)).collect();
    let share = document.entries.len() * BULK_PERCENT / 100;
    if stopping.len() <= BULK_AT_LEAST.max(share) {
        return None;
    }
    let mut reasons: Vec<GoalReason> = Vec::new();
    for entry in stopping {
        let reason = fleet.processes.get(&entry.u)?.goal.as_ref()?.reason;
        if !reason.may_be_bulk() {
            return None;
        }
        reasons.push(reason);
    }
    reasons.sort();
    reasons.dedup();
    Some(reasons.into_iter().map(GoalReason::as_str).collect::<Vec<_>>().join(", "))
}

/// A document without its interning: what it says, in an order of its own.
#[must_use]
pub fn resolved(document: &RunDocument) -> BTreeMap<Uid, Resolved<'_>> {
    let resolve = |e: &'_ RunEntry| Resolved {
        owner: document.owners.get(e.o as usize).map(|o| (o.ns.as_str().to_owned(), o.owner.uid)),
        template: document.template(e),
        version: e.v,
        goal: e.g,
        token: e.f,
        ports: e.p.clone(),
        suffix: document.entries.iter().find(|x| x.u == e.u).map_or("", |x| x.s.as_str()),
    };
    document.entries.iter().map(|e| (e.u, resolve(e))).collect()
}

/// What an entry says.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    owner: Option<(String, Uid)>,
    template: Option<Sha256>,
    version: Version,
    goal: Goal,
    token: Token,
    ports: BTreeMap<String, u16>,
    suffix: &'a str,
}
