//! What each node has to give and what is taken of it.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::NodeName;
use ostler_schemas::spec::{NodeSpec, Protocol, Taint, TaintEffect, features};
use ostler_schemas::v1::object::Labels;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::{Condition, ConditionStatus, Facts, Report};
use ostler_schemas::v1::status::NodePhase;

use crate::capacity;
use crate::fitness;
use crate::fleet::{Fleet, ProcessRecords};
use crate::liveness::Signals;
use crate::node::LOST_TAINT;

use super::place::Wanted;

/// Condition of a host that cannot enforce limits.
pub const LIMITS_UNENFORCED: &str = "LimitsUnenforced";

/// Every registered node's room.
#[derive(Debug, Clone, Default)]
pub struct Rooms(pub BTreeMap<NodeName, Room>);

/// One node's room.
#[derive(Debug, Clone)]
pub struct Room {
    /// Why it takes nothing at all; none if it does.
    pub closed: Option<String>,
    /// Cordoned.
    pub cordoned: bool,
    /// Labels, the agent's included.
    pub labels: Labels,
    /// Taints, derived ones included.
    pub taints: Vec<Taint>,
    /// What its host can do beyond what every host can.
    pub features: BTreeSet<&'static str>,
    /// The most that one process can be given, by the name of the limit; what is not named has no bound.
    pub bounds: BTreeMap<String, u64>,
    /// Millicores to give.
    pub cpu: u64,
    /// Bytes to give.
    pub memory: u64,
    /// Millicores taken.
    pub cpu_taken: u64,
    /// Bytes taken.
    pub memory_taken: u64,
    /// Processes on it.
    pub processes: usize,
    /// Ports in use, with who uses them.
    pub ports: BTreeMap<(Protocol, u16), String>,
    /// First and last port that may be assigned.
    pub port_range: (u16, u16),
}

impl Rooms {
    /// Measures every registered node.
    #[must_use]
    pub fn measure(fleet: &Fleet, signals: &Signals) -> Self {
        let measure = |name: NodeName, spec: &NodeSpec, deleting: bool| {
            let mut room = empty(fleet, signals, &name, spec);
            if deleting {
                room.closed = Some("it is being deleted".to_owned());
            }
            let bound = fleet.by_node.get(&name).into_iter().flat_map(imbl::OrdSet::iter);
            for uid in bound {
                if let Some(records) = fleet.processes.get(uid)
                    && takes_room(fleet, uid, records)
                {
                    room.count(fleet, records);
                }
            }
            (name, room)
        };
        let nodes = fleet.nodes().map(|(name, object, spec)| measure(name, spec, object.value.is_deleting()));
        Self(nodes.collect())
    }

    /// Books a placement.
    pub fn take(&mut self, node: &NodeName, wanted: &Wanted<'_>, ports: &BTreeMap<String, u16>) {
        let Some(room) = self.0.get_mut(node) else { return };
        room.cpu_taken += wanted.requests.cpu.as_millis();
        room.memory_taken += wanted.requests.memory.as_bytes();
        room.processes += 1;
        for port in &wanted.template.ports {
            if let Some(number) = ports.get(&port.name) {
                room.ports.insert((port.protocol, *number), wanted.name.to_owned());
            }
        }
    }
}

/// A process uses room from its binding until its node has reported that it is over, knowing its goal.
fn takes_room(fleet: &Fleet, uid: &ostler_schemas::Uid, records: &ProcessRecords) -> bool {
    if records.goal() == Goal::Run {
        return true;
    }
    let alive = fleet.process_report(uid).is_some_and(|p| p.phase.may_be_alive());
    alive && records.node().is_some_and(|n| !fleet.is_lost(n))
}

fn empty(fleet: &Fleet, signals: &Signals, name: &NodeName, spec: &NodeSpec) -> Room {
    let report = fleet.reports.get(name);
    let facts: Facts = report.map(|r| r.facts.clone()).unwrap_or_default();
    let mut taints = spec.taints.clone();
    if fleet.is_lost(name) {
        taints.push(Taint {
            key: LOST_TAINT.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoExecute,
        });
    }
    taints.extend(capacity::pressure_taints(fleet, name));
    let allocatable = capacity::allocatable(report.map(|r| &*r.value), spec);
    Room {
        closed: closed(fleet, signals, name),
        cordoned: spec.unschedulable,
        labels: fleet.node_labels(name),
        taints,
        features: report.map(|r| features_of(&r.value)).unwrap_or_default(),
        bounds: report.map(|r| r.bounds.clone()).unwrap_or_default(),
        cpu: allocatable.cpu.as_millis(),
        memory: allocatable.memory.as_bytes(),
        cpu_taken: 0,
        memory_taken: 0,
        processes: 0,
        ports: BTreeMap::new(),
        port_range: facts.ports,
    }
}

/// The features that a node says it has. Agents from before there was such a list say nothing at all: they do what
/// templates could ask for then, less the limits that they have a condition for.
#[must_use]
pub fn features_of(report: &Report) -> BTreeSet<&'static str> {
    if !report.features.is_empty() {
        let said = |name: &&str| *name == features::RUNTIME || report.features.iter().any(|f| f == name);
        return features::ALL.into_iter().filter(said).collect();
    }
    let is_unenforced = |c: &Condition| c.kind == LIMITS_UNENFORCED && c.status == ConditionStatus::True;
    if report.conditions.iter().any(is_unenforced) {
        return [features::USERS].into();
    }
    [features::USERS, features::CGROUP_CPU, features::CGROUP_MEMORY].into()
}

fn closed(fleet: &Fleet, signals: &Signals, name: &NodeName) -> Option<String> {
    if !fleet.reports.contains_key(name) {
        return Some("unknown yet: it has not reported".to_owned());
    }
    match fitness::phase(fleet, signals, name) {
        NodePhase::Ready => None,
        phase @ NodePhase::NotReady => {
            Some(fitness::forbidden(fleet, signals, name).unwrap_or(phase.as_str()).to_owned())
        }
        phase @ (NodePhase::Suspect | NodePhase::Lost | NodePhase::Unknown) => {
            Some(phase.as_str().to_owned())
        }
    }
}

impl Room {
    fn count(&mut self, fleet: &Fleet, records: &ProcessRecords) {
        self.processes += 1;
        let name = records.spec.as_ref().map_or_else(String::new, |s| format!("process/{}", s.name));
        let Some(template) = fleet.process_template(records) else { return };
        let requests = template.resources.effective_requests();
        self.cpu_taken += requests.cpu.as_millis();
        self.memory_taken += requests.memory.as_bytes();
        let bound = records.bind.as_ref().map(|b| b.ports.clone()).unwrap_or_default();
        for port in &template.ports {
            if let Some(number) = bound.get(&port.name) {
                self.ports.insert((port.protocol, *number), name.clone());
            }
        }
    }

    /// The ports that a process would get here: its fixed ones, and the lowest free ones of the range for the rest.
    ///
    /// # Errors
    /// Says which port is taken by whom, or that the range is used up.
    pub fn ports_for(&self, wanted: &Wanted<'_>) -> Result<BTreeMap<String, u16>, String> {
        let mut given = BTreeMap::new();
        let mut fresh: BTreeSet<(Protocol, u16)> = BTreeSet::new();
        for port in wanted.template.ports.iter().filter(|p| p.port != 0) {
            if let Some(by) = self.ports.get(&(port.protocol, port.port)) {
                return Err(format!("{} is taken by {by}", port.port));
            }
            fresh.insert((port.protocol, port.port));
            given.insert(port.name.clone(), port.port);
        }
        for port in wanted.template.ports.iter().filter(|p| p.port == 0) {
            let (first, last) = self.port_range;
            let free = |number: &u16| {
                let key = (port.protocol, *number);
                !self.ports.contains_key(&key) && !fresh.contains(&key)
            };
            let range = if first == 0 { None } else { Some(first..=last) };
            let Some(number) = range.into_iter().flatten().find(free) else {
                return Err(format!("none of {first}-{last} is free"));
            };
            fresh.insert((port.protocol, number));
            given.insert(port.name.clone(), number);
        }
        Ok(given)
    }

    /// How loaded the node would be with `cpu` and `memory` more, in parts per thousand of both together.
    #[must_use]
    pub fn load_with(&self, cpu: u64, memory: u64) -> u64 {
        let part = |taken: u64, of: u64| taken.saturating_mul(1000).checked_div(of).unwrap_or(1000);
        part(self.cpu_taken + cpu, self.cpu) + part(self.memory_taken + memory, self.memory)
    }
}
