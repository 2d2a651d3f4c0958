//! Rows of `top`: what they hold, how they are ordered, and how they look as a table and as JSON.

use std::cmp::Reverse;

use ostler_schemas::quantity::Size;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::status::{NodeStatus, ProcessStatus, Status, View};
use ostler_schemas::v1::usage::ProcessUsage;
use serde_json::{Value, json};

use super::amounts::{cores, size};
use super::table::{Table, dash, unknown};
use crate::args::top::SortBy;

/// Nodes, ordered.
///
/// # Errors
/// When nodes have no such column.
pub fn nodes(mut views: Vec<View>, by: SortBy) -> Result<Vec<View>, String> {
    let key: fn(&View) -> Option<u64> = match by {
        SortBy::Cpu => |v| Some(node(v)?.usage?.cpu.as_millis()),
        SortBy::Memory => |v| Some(node(v)?.usage?.memory.as_bytes()),
        SortBy::Disk => |v| permille_of_disk(node(v)?),
        SortBy::Load => |v| Some(u64::from(node(v)?.usage?.load1)),
        SortBy::Pressure => |v| node(v)?.usage?.pressure.map(u64::from),
        SortBy::Procs => |v| node(v)?.processes.running.map(u64::from),
        SortBy::Name | SortBy::Node => |_| None,
        SortBy::Tasks | SortBy::Read | SortBy::Write | SortBy::Restarts => {
            return Err("nodes can be ordered by cpu, memory, disk, load, pressure, procs or name".to_owned());
        }
    };
    views.sort_by_cached_key(|v| (Reverse(key(v)), v.metadata.name.clone()));
    Ok(views)
}

fn node(view: &View) -> Option<&NodeStatus> {
    match &view.status {
        Status::Node(node) => Some(node),
        Status::Namespace(_)
        | Status::Process(_)
        | Status::Deployment(_)
        | Status::ConfigFile(_)
        | Status::Secret(_) => None,
    }
}

fn permille_of_disk(node: &NodeStatus) -> Option<u64> {
    permille(node.usage?.disk.as_bytes(), node.capacity.disk?.as_bytes())
}

fn permille(part: u64, whole: u64) -> Option<u64> {
    let permille = (u128::from(part) * 1000).checked_div(u128::from(whole))?;
    u64::try_from(permille).ok()
}

fn percent(permille: Option<u64>) -> String {
    unknown(permille.map(|p| format!("{}%", (p + 5) / 10)))
}

/// The table of nodes.
#[must_use]
pub fn node_table(views: &[View]) -> Table {
    let mut table =
        Table::new(vec!["NAME", "CPU", "CPU%", "MEMORY", "MEM%", "DISK%", "LOAD", "PRESSURE", "PROCS"]);
    for view in views {
        let Some(node) = node(view) else { continue };
        let usage = node.usage;
        let cpu = usage.and_then(|u| permille(u.cpu.as_millis(), node.capacity.cpu.as_millis()));
        let memory = usage.and_then(|u| permille(u.memory.as_bytes(), node.capacity.memory.as_bytes()));
        let pressure = match usage {
            // A kernel that does not tell is not a node that does not answer.
            Some(usage) => dash(usage.pressure.map(|p| format!("{}%", (p + 50) / 100))),
            None => "?".to_owned(),
        };
        table.push(vec![
            view.metadata.name.to_string(),
            unknown(usage.map(|u| cores(u.cpu))),
            percent(cpu),
            unknown(usage.map(|u| size(u.memory))),
            percent(memory),
            percent(permille_of_disk(node)),
            unknown(usage.map(|u| format!("{}.{:02}", u.load1 / 100, u.load1 % 100))),
            pressure,
            format!("{}/{}", unknown(node.processes.running), node.processes.assigned),
        ]);
    }
    table
}

/// A node as JSON.
#[must_use]
pub fn node_json(view: &View) -> Value {
    let Some(node) = node(view) else { return Value::Null };
    let tenths =
        |permille: Option<u64>| permille.and_then(|p| u32::try_from(p).ok()).map(|p| f64::from(p) / 10.0);
    let usage = node.usage;
    let hundredths = |n: u32| f64::from(n) / 100.0;
    json!({
        "kind": "NodeUsage",
        "name": view.metadata.name,
        "cpu": usage.map(|u| u.cpu),
        "cpuPercent": tenths(usage.and_then(|u| permille(u.cpu.as_millis(), node.capacity.cpu.as_millis()))),
        "memory": usage.map(|u| u.memory),
        "memoryPercent":
            tenths(usage.and_then(|u| permille(u.memory.as_bytes(), node.capacity.memory.as_bytes()))),
        "disk": usage.map(|u| u.disk),
        "diskPercent": tenths(permille_of_disk(node)),
        "load1": usage.map(|u| hundredths(u.load1)),
        "pressure": usage.and_then(|u| u.pressure).map(hundredths),
        "processes": {"running": node.processes.running, "assigned": node.processes.assigned},
        "lastBeat": node.last_beat,
    })
}

fn process(view: &View) -> Option<&ProcessStatus> {
    match &view.status {
        Status::Process(process) => Some(process),
        Status::Node(_)
        | Status::Namespace(_)
        | Status::Deployment(_)
        | Status::ConfigFile(_)
        | Status::Secret(_) => None,
    }
}

fn usage(view: &View) -> Option<ProcessUsage> {
    process(view)?.usage
}

/// Processes, ordered.
///
/// # Errors
/// When processes have no such column.
pub fn processes(mut views: Vec<View>, by: SortBy) -> Result<Vec<View>, String> {
    let key: fn(&View) -> Option<u64> = match by {
        SortBy::Cpu => |v| Some(usage(v)?.cpu?.as_millis()),
        SortBy::Memory => |v| Some(usage(v)?.memory?.as_bytes()),
        SortBy::Tasks => |v| usage(v)?.tasks.map(u64::from),
        SortBy::Read => |v| Some(usage(v)?.read_per_second?.as_bytes()),
        SortBy::Write => |v| Some(usage(v)?.write_per_second?.as_bytes()),
        SortBy::Restarts => |v| process(v)?.restarts,
        SortBy::Name | SortBy::Node => |_| None,
        SortBy::Disk | SortBy::Load | SortBy::Pressure | SortBy::Procs => {
            return Err(
                "processes can be ordered by cpu, memory, tasks, read, write, restarts, name or node"
                    .to_owned(),
            );
        }
    };
    let node = |v: &View| process(v).and_then(|p| p.node.clone()).filter(|_| by == SortBy::Node);
    views.sort_by_cached_key(|v| {
        (Reverse(key(v)), node(v), v.metadata.namespace.clone(), v.metadata.name.clone())
    });
    Ok(views)
}

/// The most that a process may have of its host's memory.
#[must_use]
pub fn memory_limit(view: &View) -> Option<Size> {
    match &view.spec {
        Spec::Process(spec) => spec.0.resources.limits.memory,
        Spec::Node(_) | Spec::Namespace(_) | Spec::Deployment(_) | Spec::ConfigFile(_) | Spec::Secret(_) => {
            None
        }
    }
}

/// The table of processes.
#[must_use]
pub fn process_table(views: &[View], namespaces: bool) -> Table {
    let mut headers = if namespaces { vec!["NAMESPACE"] } else { Vec::new() };
    headers.extend(["NAME", "NODE", "CPU", "MEMORY", "LIMIT", "TASKS", "READ/s", "WRITE/s", "RESTARTS"]);
    let mut table = Table::new(headers);
    for view in views {
        let Some(process) = process(view) else { continue };
        let usage = process.usage.unwrap_or_default();
        let mut row = if namespaces { vec![dash(view.metadata.namespace.as_ref())] } else { Vec::new() };
        row.extend([
            view.metadata.name.to_string(),
            dash(process.node.as_ref()),
            unknown(usage.cpu),
            unknown(usage.memory.map(size)),
            dash(memory_limit(view).map(size)),
            unknown(usage.tasks),
            unknown(usage.read_per_second.map(size)),
            unknown(usage.write_per_second.map(size)),
            unknown(process.restarts),
        ]);
        table.push(row);
    }
    table
}

/// A process as JSON.
#[must_use]
pub fn process_json(view: &View) -> Value {
    let Some(process) = process(view) else { return Value::Null };
    json!({
        "kind": "ProcessUsage",
        "namespace": view.metadata.namespace,
        "name": view.metadata.name,
        "uid": view.metadata.uid,
        "node": process.node,
        "usage": process.usage,
        "memoryLimit": memory_limit(view),
        "restarts": process.restarts,
    })
}
