//! What a node has to give: one sum for those who place work and for those who show nodes; and whether it is under
//! pressure.
//!
//! Allocatable is what the host has, less what is kept for what runs there outside Ostler. That is the larger of what
//! the Node's `reserved` says and what the agent has measured ([`Report::others`]): the reserve is a promise of room to
//! that work, so what it really uses comes out of the reserve first, and only what goes beyond is taken from the rest.

use ostler_schemas::NodeName;
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::spec::{NodeSpec, Taint, TaintEffect};
use ostler_schemas::v1::report::{ConditionStatus, Report};
use ostler_schemas::v1::status::NodeAmounts;

use crate::fleet::Fleet;

/// A condition of a host that is short of something, and the taint that its node has while it holds, without anybody
/// setting it. Work that must run there all the same tolerates the taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// The condition.
    pub condition: &'static str,
    /// Key of the taint.
    pub taint: &'static str,
}

/// Short of memory.
pub const MEMORY_PRESSURE: Pressure =
    Pressure { condition: "MemoryPressure", taint: "ostler/memory-pressure" };
/// Short of disk.
pub const DISK_PRESSURE: Pressure = Pressure { condition: "DiskPressure", taint: "ostler/disk-pressure" };
/// Short of process numbers.
pub const PID_PRESSURE: Pressure = Pressure { condition: "PidPressure", taint: "ostler/pid-pressure" };

const PRESSURES: [Pressure; 3] = [MEMORY_PRESSURE, DISK_PRESSURE, PID_PRESSURE];

/// What may be handed out to processes. Nothing while the node has not reported.
#[must_use]
pub fn allocatable(report: Option<&Report>, spec: &NodeSpec) -> NodeAmounts {
    let Some(report) = report else { return NodeAmounts::default() };
    let others = report.others.unwrap_or_default();
    let cpu = spec.reserved.cpu.max(others.cpu).as_millis();
    let memory = spec.reserved.memory.max(others.memory).as_bytes();
    NodeAmounts {
        cpu: Cpu::from_millis(report.facts.cpu.as_millis().saturating_sub(cpu)),
        memory: Size::from_bytes(report.facts.memory.as_bytes().saturating_sub(memory)),
        disk: None,
    }
}

/// Whether a node says that it is under this pressure.
#[must_use]
pub fn is_pressed(fleet: &Fleet, node: &NodeName, pressure: Pressure) -> bool {
    let report = fleet.reports.get(node);
    report.is_some_and(|r| {
        r.conditions.iter().any(|c| c.kind == pressure.condition && c.status == ConditionStatus::True)
    })
}

/// The taints that a node has while it is under pressure.
pub fn pressure_taints(fleet: &Fleet, node: &NodeName) -> impl Iterator<Item = Taint> {
    let held = PRESSURES.into_iter().filter(|pressure| is_pressed(fleet, node, *pressure));
    held.map(|pressure| Taint {
        key: pressure.taint.to_owned(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    })
}
