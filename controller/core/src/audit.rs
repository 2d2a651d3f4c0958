//! The invariants of DESIGN.md section 5 that a snapshot can show, as checkers. They decide nothing.
//!
//! [`check`] holds at every batch boundary; [`check_step`] holds between two snapshots of one store that follow each
//! other; [`check_quiet`] holds once every controller has nothing to do. Each has tests that plant the violation.

mod files;
mod steps;

use std::collections::BTreeMap;
use std::fmt;

use ostler_schemas::codec;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::{Key, NodeName, Uid};

use crate::fleet::Fleet;
use crate::process::is_unregistered;

pub use steps::check_step;

/// What is violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A document has an entry that should run and is bound nowhere.
    EntryWithoutBind,
    /// A document has an entry of a process that is bound to another node.
    EntryOfAnotherNode,
    /// A process is bound to a registered node whose document does not have it.
    BindWithoutEntry,
    /// A document's entry is tighter than the goal that it projects.
    EntryTighterThanGoal,
    /// A document does not fit its limit.
    DocumentTooLarge,
    /// A process has no owner in the store.
    Ownerless,
    /// A process that may run is bound to a node that is not registered.
    UnknownNode,
    /// A process should have a template that the store does not have.
    TemplateMissing,
    /// Two files of one document have one path.
    PathTwice,
    /// A path is held by another than the oldest ConfigFile that should have it.
    NotTheOlder,
    /// A version that was rolled back from is in force.
    FailedVersionInForce,
    /// A goal became looser.
    GoalLoosened,
    /// A process changed its node, or lost it while it should run.
    BindMoved,
    /// A record that never changes has changed.
    ImmutableChanged,
    /// A document was written under an older epoch, or under another nonce of the same term.
    EpochFellBack,
    /// An entry left a document while its process may run.
    EntryVanished,
    /// A file left a document without a tombstone.
    FileVanished,
    /// A Deployment made more processes than `replicas + surge`.
    TooMany,
    /// A rollout ended ready processes below what must stay available.
    TooFewReady,
    /// A process was given up as lost without a verdict.
    LostWithoutVerdict,
    /// A version or generation went down.
    NumberFellBack,
}

/// A rule that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// Of what.
    pub subject: String,
    /// How, for people.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.rule, self.subject, self.detail)
    }
}

impl Violation {
    fn new(rule: Rule, subject: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self { rule, subject: subject.to_string(), detail: detail.into() }
    }
}

/// What holds at every batch boundary.
#[must_use]
pub fn check(fleet: &Fleet) -> Vec<Violation> {
    let mut found = Vec::new();
    run_documents(&mut found, fleet);
    bound_processes(&mut found, fleet);
    templates(&mut found, fleet);
    rollouts(&mut found, fleet);
    files::one_per_path(&mut found, fleet);
    found
}

/// What holds once every controller has nothing to do.
#[must_use]
pub fn check_quiet(fleet: &Fleet) -> Vec<Violation> {
    let mut found = check(fleet);
    files::oldest_holds(&mut found, fleet);
    let blind = fleet.unreadable.keys().any(|k| matches!(k, Key::Object(_)));
    for (uid, records) in &fleet.processes {
        if let Some(spec) = records.spec.as_ref().filter(|_| !blind)
            && !fleet.by_uid.contains_key(&spec.owner.uid)
        {
            let owner = format!("its owner {} {} does not exist", spec.owner.kind, spec.owner.name);
            found.push(Violation::new(Rule::Ownerless, process(fleet, uid), owner));
        }
        if records.spec.is_none() && !fleet.unreadable.contains_key(&Key::ProcessSpec(*uid)) {
            let detail = "it has records, and no spec".to_owned();
            found.push(Violation::new(Rule::Ownerless, uid, detail));
        }
        if let Some(node) = records.node().filter(|_| records.goal() != Goal::Gone)
            && is_unregistered(fleet, node)
        {
            let detail = format!("bound to {node}, which is not registered, with goal {:?}", records.goal());
            found.push(Violation::new(Rule::UnknownNode, process(fleet, uid), detail));
        }
    }
    found
}

/// The name of a process where it is known, else its uid.
fn process(fleet: &Fleet, uid: &Uid) -> String {
    let spec = fleet.processes.get(uid).and_then(|p| p.spec.as_ref());
    spec.map_or_else(|| uid.to_string(), |s| format!("{} ({})", s.name, uid.short()))
}

fn run_documents(found: &mut Vec<Violation>, fleet: &Fleet) {
    for (node, document) in &fleet.run_documents {
        let subject = |uid: &Uid| format!("{} on {node}", process(fleet, uid));
        for entry in &document.entries {
            let records = fleet.processes.get(&entry.u);
            match records.and_then(|r| r.node()) {
                // The document of a deleted node is read by nobody and goes soon.
                None if entry.g != Goal::Gone && !is_unregistered(fleet, node) => {
                    let detail = "an entry, and no binding".to_owned();
                    found.push(Violation::new(Rule::EntryWithoutBind, subject(&entry.u), detail));
                }
                Some(bound) if bound != node => {
                    let detail = format!("bound to {bound}");
                    found.push(Violation::new(Rule::EntryOfAnotherNode, subject(&entry.u), detail));
                }
                Some(_) | None => {}
            }
            let goal = records.map_or(Goal::Gone, |r| r.goal());
            if entry.g > goal && !is_unregistered(fleet, node) {
                let detail = format!("the entry says {:?}, the goal {goal:?}", entry.g);
                found.push(Violation::new(Rule::EntryTighterThanGoal, subject(&entry.u), detail));
            }
        }
        if let Err(error) = codec::encode(&*document.value) {
            found.push(Violation::new(Rule::DocumentTooLarge, format!("{node} run"), error.to_string()));
        }
    }
    for (node, document) in &fleet.files_documents {
        if let Err(error) = codec::encode(&*document.value) {
            found.push(Violation::new(Rule::DocumentTooLarge, format!("{node} files"), error.to_string()));
        }
    }
}

fn bound_processes(found: &mut Vec<Violation>, fleet: &Fleet) {
    let entries: BTreeMap<(&NodeName, Uid), Goal> = fleet
        .run_documents
        .iter()
        .flat_map(|(node, document)| document.entries.iter().map(move |e| ((node, e.u), e.g)))
        .collect();
    for (uid, records) in &fleet.processes {
        let Some(node) = records.node().filter(|_| records.goal() != Goal::Gone) else { continue };
        if !is_unregistered(fleet, node) && !entries.contains_key(&(node, *uid)) {
            let detail = format!("bound to {node}, whose document does not have it");
            found.push(Violation::new(Rule::BindWithoutEntry, process(fleet, uid), detail));
        }
    }
}

fn templates(found: &mut Vec<Violation>, fleet: &Fleet) {
    let unreadable = |hash| fleet.unreadable.contains_key(&Key::Template(hash));
    for (uid, records) in &fleet.processes {
        if let Some(template) = &records.template
            && !fleet.templates.contains_key(&template.template)
            && !unreadable(template.template)
        {
            let detail = format!("template {}", template.template.short());
            found.push(Violation::new(Rule::TemplateMissing, process(fleet, uid), detail));
        }
    }
    for (node, document) in &fleet.files_documents {
        for entry in &document.entries {
            if !fleet.templates.contains_key(&entry.d) && !unreadable(entry.d) {
                let detail = format!("file spec {} of {}", entry.d.short(), entry.u.short());
                found.push(Violation::new(Rule::TemplateMissing, node, detail));
            }
        }
    }
}

fn rollouts(found: &mut Vec<Violation>, fleet: &Fleet) {
    use ostler_schemas::v1::state::RolloutPhase;
    for ((controller, uid), state) in &fleet.rollouts {
        let given_up = match state.phase {
            RolloutPhase::Failed | RolloutPhase::Paused | RolloutPhase::Unknown => true,
            RolloutPhase::Progressing
            | RolloutPhase::Baking
            | RolloutPhase::Complete
            | RolloutPhase::RollingBack
            | RolloutPhase::RolledBack => false,
        };
        if state.target == state.failed && state.failed.0 > 0 && !given_up {
            let subject = fleet.by_uid.get(uid).map_or_else(|| uid.short(), ToString::to_string);
            let detail = format!("controller {controller} has version {} in force", state.target);
            found.push(Violation::new(Rule::FailedVersionInForce, subject, detail));
        }
    }
}

#[cfg(test)]
mod tests;
