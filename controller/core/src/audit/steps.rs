//! Checkers of what may not happen between two snapshots of one store.

use ostler_schemas::spec::{Spec, StrategyType};
use ostler_schemas::v1::document::FileGoal;
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::process::{Goal, GoalReason};
use ostler_schemas::{Kind, Uid};

use crate::fleet::{Fleet, ProcessRecords};
use crate::process::is_unregistered;

use super::{Rule, Violation, process};

/// What may not happen from `before` to `after`.
#[must_use]
pub fn check_step(before: &Fleet, after: &Fleet) -> Vec<Violation> {
    let mut found = Vec::new();
    processes(&mut found, before, after);
    run_documents(&mut found, before, after);
    files_documents(&mut found, before, after);
    deployments(&mut found, before, after);
    objects(&mut found, before, after);
    found
}

fn processes(found: &mut Vec<Violation>, before: &Fleet, after: &Fleet) {
    for (uid, was) in &before.processes {
        let Some(is) = after.processes.get(uid) else {
            if was.goal() != Goal::Gone && was.spec.is_some() {
                let detail = format!("its records went with goal {:?}", was.goal());
                found.push(Violation::new(Rule::GoalLoosened, process(before, uid), detail));
            }
            continue;
        };
        let subject = || process(before, uid);
        if is.goal() < was.goal() && is.spec.is_some() {
            let detail = format!("from {:?} to {:?}", was.goal(), is.goal());
            found.push(Violation::new(Rule::GoalLoosened, subject(), detail));
        }
        if was.node().is_some() && was.node() != is.node() && is.spec.is_some() && is.goal() != Goal::Gone {
            let detail = format!("from {:?} to {:?}", was.node(), is.node());
            found.push(Violation::new(Rule::BindMoved, subject(), detail));
        }
        if let (Some(a), Some(b)) = (&was.spec, &is.spec)
            && a.value != b.value
        {
            found.push(Violation::new(Rule::ImmutableChanged, subject(), "its spec changed"));
        }
        lost(found, (before, after), uid, (was, is));
    }
}

fn lost(
    found: &mut Vec<Violation>,
    (before, after): (&Fleet, &Fleet),
    uid: &Uid,
    (was, is): (&ProcessRecords, &ProcessRecords),
) {
    let newly = was.goal() != Goal::Gone && is.goal() == Goal::Gone;
    let given_up = is.goal.as_ref().is_some_and(|g| g.reason == GoalReason::Lost);
    let Some(node) = is.node().filter(|_| newly && given_up) else { return };
    let verdict = |fleet: &Fleet| {
        fleet.node_states.get(node).and_then(|s| s.lost.as_ref()).is_some_and(|verdict| !verdict.held)
    };
    if !verdict(before) && !verdict(after) && !is_unregistered(before, node) {
        let detail = format!("no verdict on {node} allows it");
        found.push(Violation::new(Rule::LostWithoutVerdict, process(after, uid), detail));
    }
}

fn epochs(found: &mut Vec<Violation>, subject: &str, was: &Epoch, is: &Epoch) {
    if is.rank() < was.rank() || (is.rank() == was.rank() && is.nonce != was.nonce) {
        let detail = format!("from {was} to {is}");
        found.push(Violation::new(Rule::EpochFellBack, subject, detail));
    }
}

fn run_documents(found: &mut Vec<Violation>, before: &Fleet, after: &Fleet) {
    for (node, was) in &before.run_documents {
        let Some(is) = after.run_documents.get(node) else { continue };
        epochs(found, &format!("{node} run"), &was.epoch, &is.epoch);
        for entry in &was.entries {
            let stays = is.entries.iter().any(|e| e.u == entry.u);
            let may_run = after.processes.get(&entry.u).is_some_and(|r| r.goal() != Goal::Gone);
            if !stays && may_run {
                let subject = format!("{} on {node}", process(after, &entry.u));
                found.push(Violation::new(Rule::EntryVanished, subject, "its goal is not gone"));
            }
        }
    }
}

fn files_documents(found: &mut Vec<Violation>, before: &Fleet, after: &Fleet) {
    for (node, was) in &before.files_documents {
        let Some(is) = after.files_documents.get(node) else { continue };
        epochs(found, &format!("{node} files"), &was.epoch, &is.epoch);
        for entry in &was.entries {
            let stays = is.entries.iter().any(|e| e.u == entry.u);
            if !stays && entry.g == FileGoal::Hold {
                let subject = format!("{} on {node}", entry.u.short());
                found.push(Violation::new(Rule::FileVanished, subject, "it had no tombstone"));
            }
        }
    }
}

fn running<'a>(fleet: &'a Fleet, owner: &'a Uid) -> impl Iterator<Item = &'a Uid> {
    fleet.processes_of(owner).filter(|(_, p)| p.goal() == Goal::Run && p.spec.is_some()).map(|(uid, _)| uid)
}

fn ready(fleet: &Fleet, owner: &Uid) -> usize {
    running(fleet, owner).filter(|uid| fleet.process_report(uid).is_some_and(|r| r.ready)).count()
}

fn deployments(found: &mut Vec<Violation>, before: &Fleet, after: &Fleet) {
    for (name, object) in after.of_kind(Kind::Deployment) {
        let uid = &object.metadata.uid;
        let Spec::Deployment(spec) = &object.value.spec else { continue };
        let (surge, unavailable) = spec.strategy.bounds(spec.replicas);
        let (had, has) = (running(before, uid).count(), running(after, uid).count());
        let most = usize::try_from(spec.replicas.saturating_add(surge)).unwrap_or(usize::MAX);
        if has > had && has > most {
            let detail = format!("{has} should run, at most {most} may");
            found.push(Violation::new(Rule::TooMany, name, detail));
        }
        let rolled = before.processes_of(uid).any(|(member, was)| {
            let goal = after.processes.get(member).and_then(|p| p.goal.as_ref());
            was.goal() == Goal::Run && goal.is_some_and(|g| g.reason == GoalReason::Rollout)
        });
        let least = usize::try_from(spec.replicas.saturating_sub(unavailable)).unwrap_or(usize::MAX);
        let (were, are) = (ready(before, uid), ready(after, uid));
        if rolled && spec.strategy.kind != StrategyType::Recreate && are < were && are < least {
            let detail = format!("{are} of {were} are left ready, at least {least} must be");
            found.push(Violation::new(Rule::TooFewReady, name, detail));
        }
    }
}

fn objects(found: &mut Vec<Violation>, before: &Fleet, after: &Fleet) {
    for (name, was) in &before.objects {
        let Some(is) = after.objects.get(name) else { continue };
        let (a, b) = (&was.value.metadata, &is.value.metadata);
        if a.uid == b.uid && (b.generation < a.generation || b.version < a.version) {
            let detail = format!("from {}/{} to {}/{}", a.generation, a.version, b.generation, b.version);
            found.push(Violation::new(Rule::NumberFellBack, name, detail));
        }
    }
}
