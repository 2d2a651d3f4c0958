//! What users read: objects with their status (CONTRACT.md section 6), computed from the snapshot and from what this
//! replica hears.
//!
//! Guarantees: pure, total, and the same for the same input. Nothing here is stored, so nothing here can be stale by
//! itself: what is old is said by [`warnings`], and what cannot be known now is `None` (`?` in tables), never the last
//! thing that was known.
//!
//! It decides nothing. Reconcilers do not read status; they read the records that status is made from.

mod configfile;
mod deployment;
mod find;
mod node;
mod process;
#[cfg(test)]
pub(crate) mod rig;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ostler_schemas::spec::Spec;
use ostler_schemas::time::{Timestamp, age};
use ostler_schemas::v1::api::{LabelRequirement, ListRequest};
use ostler_schemas::v1::object::Labels;
use ostler_schemas::v1::report::{Condition, ConditionStatus, ExitReport, ProcessReport};
use ostler_schemas::v1::status::{ConfigFileNode, NamespaceStatus, NodePhase, Status, View};
use ostler_schemas::{ControllerName, Kind, Namespace, NodeName, ObjectRef, Uid};

use crate::fitness;
use crate::fleet::{Fleet, ProcessRecords};
use crate::liveness::Signals;

pub use configfile::path_winner;
pub use find::{Found, nearest, resolve};

/// A lease that was not renewed for so long is held by nobody: leaders renew each second, and a crashed one is replaced
/// within four (DESIGN.md section 8).
const LEASE_STALE_MS: u64 = 5_000;

/// One look at the fleet.
#[derive(Debug, Clone)]
pub struct Lens<'a> {
    fleet: &'a Fleet,
    signals: &'a Signals,
    now: Timestamp,
    /// What nodes say of processes, by uid; made for lists, where a scan per process would be quadratic.
    said: Option<BTreeMap<Uid, Said<'a>>>,
}

/// What the node of a process says of it.
#[derive(Debug, Clone, Copy, Default)]
struct Said<'a> {
    report: Option<&'a ProcessReport>,
    last_exit: Option<&'a ExitReport>,
}

impl<'a> Said<'a> {
    fn exited(&mut self, exit: &'a ExitReport) {
        if self.last_exit.is_none_or(|last| (last.i, last.seq) <= (exit.i, exit.seq)) {
            self.last_exit = Some(exit);
        }
    }
}

impl<'a> Lens<'a> {
    /// For a look at one object.
    #[must_use]
    pub fn new(fleet: &'a Fleet, signals: &'a Signals, now: Timestamp) -> Self {
        Self { fleet, signals, now, said: None }
    }

    /// For a look at many.
    #[must_use]
    pub fn for_many(fleet: &'a Fleet, signals: &'a Signals, now: Timestamp) -> Self {
        let mut said: BTreeMap<Uid, Said<'a>> = BTreeMap::new();
        for (node, report) in &fleet.reports {
            let is_here = |uid: &Uid| fleet.processes.get(uid).and_then(ProcessRecords::node) == Some(node);
            for process in report.value.processes.iter().filter(|p| is_here(&p.u)) {
                said.entry(process.u).or_default().report = Some(process);
            }
            for exit in report.value.exits.iter().filter(|e| is_here(&e.u)) {
                said.entry(exit.u).or_default().exited(exit);
            }
        }
        Self { fleet, signals, now, said: Some(said) }
    }

    /// What the node says that the process is bound to.
    fn said(&self, uid: &Uid) -> Said<'a> {
        if let Some(said) = &self.said {
            return said.get(uid).copied().unwrap_or_default();
        }
        let node = self.fleet.processes.get(uid).and_then(ProcessRecords::node);
        let exits = node.and_then(|n| self.fleet.reports.get(n)).map(|r| r.value.exits.as_slice());
        let mut said = Said { report: self.fleet.process_report(uid), last_exit: None };
        exits.unwrap_or_default().iter().filter(|e| e.u == *uid).for_each(|e| said.exited(e));
        said
    }

    /// An object with its status.
    #[must_use]
    pub fn view(&self, object: &ObjectRef) -> Option<View> {
        match object.kind {
            Kind::Process => process::view(self, object),
            Kind::Node | Kind::Namespace | Kind::Deployment | Kind::ConfigFile | Kind::Secret => {
                self.stored(object)
            }
            Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::Job
            | Kind::CronJob
            | Kind::Service
            | Kind::ResourceQuota
            | Kind::Role
            | Kind::RoleBinding
            | Kind::PriorityClass => None,
        }
    }

    fn stored(&self, object: &ObjectRef) -> Option<View> {
        let stored = self.fleet.objects.get(object)?;
        let status = match &stored.value.spec {
            Spec::Node(spec) => Status::Node(Box::new(node::status(self, stored, spec)?)),
            Spec::Namespace(_) => Status::Namespace(self.namespace_status(object)),
            Spec::Deployment(spec) => Status::Deployment(Box::new(deployment::status(self, stored, spec))),
            Spec::ConfigFile(spec) => Status::ConfigFile(Box::new(configfile::status(self, stored, spec))),
            Spec::Secret(spec) => Status::Secret(Box::new(secret::status(self, object, stored, spec))),
            // A Process has records besides its object: `process::view` makes it.
            Spec::Process(_) => return None,
        };
        let object = &stored.value;
        Some(View {
            metadata: object.metadata.clone(),
            // Nobody who looks gets values, not even sealed ones.
            spec: object.spec.without_values(),
            status,
            revision: stored.revision,
        })
    }

    fn namespace_status(&self, object: &ObjectRef) -> NamespaceStatus {
        let name: Option<Namespace> = object.name.as_str().parse().ok();
        let objects =
            self.fleet.objects.keys().filter(|o| o.namespace.is_some() && o.namespace == name).count();
        NamespaceStatus { objects: objects as u64 }
    }

    /// Every object of a kind by namespace and name, processes made by workloads among them.
    #[must_use]
    pub fn list(&self, request: &ListRequest) -> Vec<View> {
        self.names(request.kind, request.namespace.as_ref())
            .into_iter()
            .filter(|object| {
                request.names.is_empty() || request.names.iter().any(|n| n == object.name.as_str())
            })
            .filter_map(|object| self.view(&object))
            .filter(|view| holds(&request.labels, &labels_of(view)))
            .collect()
    }

    fn names(&self, kind: Kind, namespace: Option<&Namespace>) -> Vec<ObjectRef> {
        let wanted = |o: &ObjectRef| {
            kind.is_cluster_wide() || namespace.is_none() || o.namespace.as_ref() == namespace
        };
        let mut names: Vec<ObjectRef> =
            self.fleet.of_kind(kind).map(|(o, _)| o).filter(|o| wanted(o)).cloned().collect();
        if kind == Kind::Process {
            names.extend(self.fleet.processes.values().filter_map(process::object_ref).filter(|o| wanted(o)));
        }
        names.sort();
        names.dedup();
        names
    }

    /// The phase of a node: a durable verdict first, then what this replica hears, then what the node says of itself.
    #[must_use]
    pub fn node_phase(&self, node: &NodeName) -> NodePhase {
        fitness::phase(self.fleet, self.signals, node)
    }

    /// One row per node of a ConfigFile, worst first. Empty for what is no ConfigFile.
    #[must_use]
    pub fn config_rows(&self, object: &ObjectRef) -> Vec<ConfigFileNode> {
        match self.fleet.objects.get(object).map(|stored| (stored, &stored.value.spec)) {
            Some((stored, Spec::ConfigFile(spec))) => configfile::rows(self, stored, spec),
            Some((
                _,
                Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_),
            ))
            | None => Vec::new(),
        }
    }
}

/// One object with its status.
#[must_use]
pub fn view(fleet: &Fleet, signals: &Signals, now: Timestamp, object: &ObjectRef) -> Option<View> {
    Lens::new(fleet, signals, now).view(object)
}

/// The objects that a request asks for, by namespace and name.
#[must_use]
pub fn list(fleet: &Fleet, signals: &Signals, now: Timestamp, request: &ListRequest) -> Vec<View> {
    Lens::for_many(fleet, signals, now).list(request)
}

/// Whether labels meet every requirement.
#[must_use]
pub fn holds(requirements: &[LabelRequirement], labels: &Labels) -> bool {
    requirements.iter().all(|r| r.holds(labels))
}

/// The labels that a view is selected by: a node's include those that its agent sets.
#[must_use]
pub fn labels_of(view: &View) -> Labels {
    match &view.status {
        Status::Node(status) => {
            let mut labels = status.labels.clone();
            labels.extend(view.metadata.labels.clone());
            labels
        }
        Status::Namespace(_)
        | Status::Process(_)
        | Status::Deployment(_)
        | Status::ConfigFile(_)
        | Status::Secret(_) => view.metadata.labels.clone(),
    }
}

/// What must be said before any answer, because it is true of all of it.
#[must_use]
pub fn warnings(fleet: &Fleet, signals: &Signals, stale: Option<&str>, now: Timestamp) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(why) = stale {
        out.push(format!("data may be old: {why}"));
    }
    let silent = ControllerName::ALL.into_iter().map(|c| lease_age(fleet, c, now)).max().flatten();
    let never = fleet.leases.is_empty();
    match (never, silent) {
        (true, _) => out.push("nothing is decided yet: no controller holds the lease".to_owned()),
        (false, Some(ms)) => out.push(format!("data is {} old: no controller holds the lease", age(ms))),
        (false, None) => {}
    }
    if let Some(why) = &signals.blind {
        out.push(format!("nodes cannot be judged now: {why}"));
    }
    out
}

/// For how long nobody holds the lease of a controller; none if somebody does, or if it was never taken (a controller
/// of another version).
fn lease_age(fleet: &Fleet, controller: ControllerName, now: Timestamp) -> Option<u64> {
    let lease = fleet.leases.get(&controller)?;
    let since = now.since_ms(lease.at);
    (since >= LEASE_STALE_MS).then_some(since)
}

/// A condition of an object.
fn condition(
    kind: &str,
    status: bool,
    reason: &str,
    message: impl Into<String>,
    since: Timestamp,
) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if status { ConditionStatus::True } else { ConditionStatus::False },
        reason: reason.to_owned(),
        message: message.into(),
        last_transition_time: since,
        observed_generation: None,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
