//! One placement: filters in a fixed order, each with the reason why it rejected a node; then the least loaded of
//! what is left; the node's name settles ties, so that the choice is the same everywhere.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::spec::{ProcessTemplate, Requests, Taint, TaintEffect, features, selects, tolerates};
use ostler_schemas::v1::document::DOCUMENT_LIMIT;
use ostler_schemas::v1::state::FilterCount;
use ostler_schemas::{Name, NodeName, Uid};

use crate::fleet::{Fleet, ProcessRecords};

use super::room::{Room, Rooms};
use super::{limits, project};

/// A process that wants a node.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Its uid.
    pub uid: &'a Uid,
    /// Its name.
    pub name: &'a str,
    /// Its owner's uid.
    pub owner: &'a Uid,
    /// Its template.
    pub template: &'a ProcessTemplate,
    /// What the scheduler counts for it.
    pub requests: Requests,
    /// What its host must be able to do.
    pub features: BTreeSet<&'static str>,
}

impl<'a> Wanted<'a> {
    /// From its records; none while its template is not known.
    #[must_use]
    pub fn of(fleet: &'a Fleet, uid: &'a Uid, records: &'a ProcessRecords) -> Option<Self> {
        let spec = records.spec.as_ref()?;
        let template = fleet.process_template(records)?;
        let requests = template.resources.effective_requests();
        let name: &Name = &spec.value.name;
        let features = template.features();
        Some(Self { uid, name: name.as_str(), owner: &spec.value.owner.uid, template, requests, features })
    }
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// There.
    Node {
        /// The node.
        node: NodeName,
        /// Ports by name.
        ports: BTreeMap<String, u16>,
    },
    /// Nowhere.
    None(Unplaceable),
}

/// Why nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaceable {
    /// One line.
    pub message: String,
    /// How many nodes each filter rejected.
    pub filters: Vec<FilterCount>,
}

/// Rough bytes of one more entry, names and ports included: the document's limit is checked with it before placing.
const ENTRY_BYTES: usize = 110;
/// Bytes of a label in a document beyond its key and value: their two length marks, at most three bytes each.
const LABEL_OVERHEAD: usize = 6;

/// The filters, in the order in which they are asked; a node counts for the first that rejects it.
const FILTERS: [&str; 11] = [
    "ready",
    "nodeName",
    "nodeSelector",
    "cordoned",
    "taint",
    "features",
    "limits",
    "cpu",
    "memory",
    "document",
    "port",
];

/// A rejection: which filter, how near the node is (smaller is nearer, for the detail shown), and why.
struct Rejection {
    filter: &'static str,
    distance: u64,
    detail: String,
}

/// The best node for a process.
#[must_use]
pub fn choose(fleet: &Fleet, rooms: &Rooms, wanted: &Wanted<'_>) -> Choice {
    let mut best: Option<(Rank, NodeName, BTreeMap<String, u16>)> = None;
    let mut rejections: Vec<Rejection> = Vec::new();
    for (node, room) in &rooms.0 {
        match filter(fleet, node, room, wanted) {
            Err(rejection) => rejections.push(rejection),
            Ok(ports) => {
                let rank = rank(fleet, node, room, wanted);
                let better = best.as_ref().is_none_or(|(r, n, _)| (rank, node) < (*r, n));
                if better {
                    best = Some((rank, node.clone(), ports));
                }
            }
        }
    }
    match best {
        Some((_, node, ports)) => Choice::Node { node, ports },
        None => Choice::None(explain(rooms.0.len(), &rejections)),
    }
}

/// Taints to avoid, load with the process, processes of the same owner. Smaller is better.
type Rank = (usize, u64, usize);

fn rank(fleet: &Fleet, node: &NodeName, room: &Room, wanted: &Wanted<'_>) -> Rank {
    let avoid = |t: &&Taint| {
        t.effect == TaintEffect::PreferNoSchedule && tolerates(&wanted.template.tolerations, t).is_none()
    };
    let load = room.load_with(wanted.requests.cpu.as_millis(), wanted.requests.memory.as_bytes());
    let siblings = fleet.processes_of(wanted.owner).filter(|(_, r)| r.node() == Some(node)).count();
    (room.taints.iter().filter(avoid).count(), load, siblings)
}

fn filter(
    fleet: &Fleet,
    node: &NodeName,
    room: &Room,
    wanted: &Wanted<'_>,
) -> Result<BTreeMap<String, u16>, Rejection> {
    let template = wanted.template;
    let reject = |filter, distance, detail| Err(Rejection { filter, distance, detail });
    if let Some(why) = &room.closed {
        return reject("ready", 0, format!("{node} is {why}"));
    }
    if let Some(name) = template.node_name.as_ref().filter(|name| *name != node) {
        return reject("nodeName", 0, format!("it asks for {name}"));
    }
    if !selects(&template.node_selector, &room.labels) {
        return reject("nodeSelector", 0, format!("{} does not match", show(&template.node_selector)));
    }
    if room.cordoned {
        return reject("cordoned", 0, format!("{node} takes no new processes"));
    }
    let untolerated =
        |t: &&Taint| t.effect.forbids_placement() && tolerates(&template.tolerations, t).is_none();
    if let Some(taint) = room.taints.iter().find(untolerated) {
        return reject("taint", 0, format!("{} on {node}", show_taint(taint)));
    }
    can_host(node, room, wanted)?;
    if let Some((distance, detail)) = limits::beyond(node, &room.bounds, template) {
        return reject("limits", distance, detail);
    }
    let cpu_left = room.cpu.saturating_sub(room.cpu_taken);
    let cpu = wanted.requests.cpu.as_millis();
    if cpu > cpu_left {
        let most = Cpu::from_millis(cpu_left);
        let detail = format!("needs {}; most free is {most} on {node}", wanted.requests.cpu);
        return reject("cpu", cpu - cpu_left, detail);
    }
    let memory_left = room.memory.saturating_sub(room.memory_taken);
    let memory = wanted.requests.memory.as_bytes();
    if memory > memory_left {
        // Shown in whole MiB: a figure like 324927488 helps nobody.
        let most = Size::from_mib(memory_left >> 20);
        let detail = format!("needs {}; most free is {most} on {node}", wanted.requests.memory);
        return reject("memory", memory - memory_left, detail);
    }
    if document_is_full(fleet, node, wanted.template) {
        return reject("document", 0, format!("the run document of {node} is full"));
    }
    room.ports_for(wanted).or_else(|why| reject("port", 0, why))
}

/// Whether the host can do all that is asked. Limits are a filter of their own, as they are a condition of their own.
fn can_host(node: &NodeName, room: &Room, wanted: &Wanted<'_>) -> Result<(), Rejection> {
    let lacking: Vec<&str> = wanted.features.difference(&room.features).copied().collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let only_limits = lacking.iter().all(|feature| features::is_of_limits(feature));
    let why: Vec<&str> = lacking.iter().map(|feature| features::lack_of(feature)).collect();
    let filter = if only_limits { "limits" } else { "features" };
    Err(Rejection { filter, distance: lacking.len() as u64, detail: format!("{node} {}", why.join(", ")) })
}

fn document_is_full(fleet: &Fleet, node: &NodeName, template: &ProcessTemplate) -> bool {
    let present = fleet.run_documents.get(node);
    let entries = present.map_or(0, |d| d.entries.len());
    let held = present.into_iter().flat_map(|d| &d.labels).map(|(k, v)| k.len() + v.len());
    let object = fleet.node(node).map(|(object, _)| &*object.value);
    let more =
        object.into_iter().flat_map(|o| project::labels_for(o, template)).map(|(k, v)| k.len() + v.len());
    let labels: usize = held.chain(more).map(|bytes| bytes + LABEL_OVERHEAD).sum();
    (entries + 1) * ENTRY_BYTES + labels > DOCUMENT_LIMIT
}

fn show(selector: &BTreeMap<String, String>) -> String {
    selector.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

fn show_taint(taint: &Taint) -> String {
    let effect = match taint.effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
        TaintEffect::Unknown => "Unknown",
    };
    match taint.value.as_str() {
        "" => format!("{}:{effect}", taint.key),
        value => format!("{}={value}:{effect}", taint.key),
    }
}

fn explain(nodes: usize, rejections: &[Rejection]) -> Unplaceable {
    let mut filters = Vec::new();
    for name in FILTERS {
        let mut of: Vec<&Rejection> = rejections.iter().filter(|r| r.filter == name).collect();
        of.sort_by_key(|r| r.distance);
        if let Some(nearest) = of.first() {
            let count = u32::try_from(of.len()).unwrap_or(u32::MAX);
            filters.push(FilterCount { name: name.to_owned(), count, detail: nearest.detail.clone() });
        }
    }
    filters.sort_by_key(|f| std::cmp::Reverse(f.count));
    let message = if nodes == 0 {
        "there are no nodes".to_owned()
    } else {
        let parts: Vec<String> =
            filters.iter().map(|f| format!("{} {} ({})", f.count, f.name, f.detail)).collect();
        format!("none of {nodes} nodes fits: {}", parts.join("; "))
    };
    Unplaceable { message, filters }
}
