//! Whether everything is as asked: what is still missing, in words.

use ostler_controller_core::fleet::Fleet;
use ostler_schemas::hash::sha256;
use ostler_schemas::spec::{ConfigFileSpec, DeploymentSpec, ProcessSpec, ProcessType, Spec};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::{FileState, ProcessPhase};
use ostler_schemas::{ControllerName, NodeName, Uid, Version};

use crate::world::World;

/// What is not as asked; nothing once all is well. Judged by what is true on the hosts, and by what the store says.
#[must_use]
pub fn missing(world: &World) -> Vec<String> {
    let mut out = Vec::new();
    let fleet = &world.checks.log.fleet;
    for machine in &world.machines {
        if fleet.node(&machine.node).is_none() {
            out.push(format!("{} is not registered", machine.node));
        }
        if fleet.is_lost(&machine.node) && machine.powered {
            out.push(format!("{} is still judged lost", machine.node));
        }
    }
    out.extend(world.checks.log.without_report.iter().map(|n| format!("{n} has not reported anew")));
    let mut paths = world.watch.paths();
    for (name, object) in &fleet.objects {
        if object.is_deleting() {
            out.push(format!("{name} is still being deleted"));
            continue;
        }
        match &object.spec {
            Spec::Deployment(spec) => deployment(world, object, spec, &mut out),
            Spec::ConfigFile(spec) => {
                paths.retain(|p| *p != spec.path);
                configfile(world, object, spec, &mut out);
            }
            Spec::Process(spec) => process(world, object, spec, &mut out),
            Spec::Node(_) | Spec::Namespace(_) | Spec::Secret(_) => {}
        }
    }
    for machine in world.machines.iter().filter(|m| m.powered) {
        for path in &paths {
            if machine.files.read(path).is_some() {
                out.push(format!("{}: {path} is still there", machine.node));
            }
        }
        for (key, name, _) in machine.host.living() {
            let records = fleet.processes.get(&key.uid);
            let belongs = records.is_some_and(|r| r.goal() == Goal::Run && r.node() == Some(&machine.node));
            if !belongs {
                out.push(format!("{}: {name} still lives", machine.node));
            }
        }
    }
    out
}

fn lives_on(world: &World, node: &NodeName, uid: &Uid) -> bool {
    let machine = world.machines.iter().find(|m| m.node == *node);
    machine.is_some_and(|m| m.host.living().iter().any(|(key, ..)| key.uid == *uid))
}

/// Whether a version of the file at this path was tried and rolled back from.
pub(crate) fn was_rolled_back(fleet: &Fleet, path: &str) -> bool {
    let failed = |object: &Object| {
        let state = fleet.rollouts.get(&(ControllerName::ConfigFile, object.metadata.uid));
        state.is_some_and(|s| s.failed.0 > 0)
    };
    let holds = |object: &Object| matches!(&object.spec, Spec::ConfigFile(spec) if spec.path == path);
    fleet.objects.values().any(|object| holds(object) && failed(object))
}

/// The version that should be in force: the object's own, unless it was tried and rolled back from.
fn in_force(world: &World, controller: ControllerName, object: &Object) -> Version {
    let wanted = object.metadata.version;
    let state = world.checks.log.fleet.rollouts.get(&(controller, object.metadata.uid));
    state.filter(|s| s.failed == wanted).map_or(wanted, |s| s.target)
}

fn deployment(world: &World, object: &Object, spec: &DeploymentSpec, out: &mut Vec<String>) {
    let fleet = &world.checks.log.fleet;
    let name = &object.metadata.name;
    let all = fleet.processes_of(&object.metadata.uid);
    let (run, ending): (Vec<_>, Vec<_>) = all.partition(|(_, r)| r.goal() == Goal::Run);
    if run.len() != spec.replicas as usize {
        out.push(format!("{name} has {} processes of {}", run.len(), spec.replicas));
    }
    if !ending.is_empty() {
        out.push(format!("{name} has {} processes that are not cleared away", ending.len()));
    }
    let version = in_force(world, ControllerName::Deployment, object);
    for (uid, records) in run {
        let short = uid.short();
        let Some(node) = records.node() else {
            out.push(format!("{name}/{short} has no node"));
            continue;
        };
        if !lives_on(world, node, uid) {
            out.push(format!("{name}/{short} does not live on {node}"));
        }
        let wanted = records.template.as_ref().map(|t| (t.version, t.template));
        if wanted.is_none_or(|(has, _)| has != version) {
            out.push(format!("{name}/{short} should not have version {wanted:?}"));
        }
        let ready = fleet.process_report(uid).is_some_and(|r| r.ready && r.t == wanted.map(|w| w.1));
        if !ready {
            out.push(format!("{name}/{short} is not ready on {node}"));
        }
    }
}

/// A bare Process lives where it was bound, as its object says; once it was ended it stays so.
fn process(world: &World, object: &Object, spec: &ProcessSpec, out: &mut Vec<String>) {
    let (fleet, uid) = (&world.checks.log.fleet, &object.metadata.uid);
    let name = &object.metadata.name;
    let Some(records) = fleet.processes.get(uid) else { return out.push(format!("{name} is not made")) };
    let Some(node) = records.node().filter(|_| records.goal() == Goal::Run) else {
        if records.goal() == Goal::Run {
            out.push(format!("{name} has no node"));
        }
        return;
    };
    let wanted = records.template.as_ref().map(|t| (t.version, t.template));
    if wanted.is_none_or(|(version, _)| version != object.metadata.version) {
        out.push(format!("{name} should not have version {wanted:?}"));
    }
    let Some(report) = fleet.process_report(uid) else { return out.push(format!("{name} is not reported")) };
    let oneshot = spec.0.kind == ProcessType::Oneshot;
    let done = oneshot && report.phase == ProcessPhase::Succeeded && report.ready;
    // One that is at its work may have begun when its program did not end by itself.
    let serves = lives_on(world, node, uid) && report.t == wanted.map(|w| w.1) && (report.ready || oneshot);
    if !done && !serves {
        out.push(format!("{name} is not ready on {node}: {:?} {:?}", report.phase, report.message));
    }
}

fn configfile(world: &World, object: &Object, spec: &ConfigFileSpec, out: &mut Vec<String>) {
    let fleet = &world.checks.log.fleet;
    let version = in_force(world, ControllerName::ConfigFile, object);
    let own = fleet.spec_revisions.iter().filter(|((_, uid, _), _)| *uid == object.metadata.uid);
    let older = own.filter(|(_, revision)| revision.version == version).find_map(|(_, revision)| {
        match &revision.spec {
            Spec::ConfigFile(older) => older.content,
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
                None
            }
        }
    });
    let Some(content) = older.or(spec.content) else { return };
    for machine in world.machines.iter().filter(|m| m.powered) {
        let node = &machine.node;
        let there = machine.files.read(&spec.path).map(|bytes| sha256(&bytes));
        if there != Some(content.sha256) {
            out.push(format!("{node}: {} is not as it should be", spec.path));
        }
        let report = fleet.reports.get(node).and_then(|r| r.file(&object.metadata.uid).cloned());
        let told = report.as_ref().is_some_and(|r| r.state == FileState::InSync && r.v == version);
        if !told {
            let state = report.map(|r| (r.state, r.v));
            out.push(format!("{node}: {} is not reported as in sync ({state:?})", spec.path));
        }
    }
}
