//! Rules about all documents of one `apply`: each object once, no cycles of needs, not too many.

use std::collections::{BTreeMap, VecDeque};

use super::MAX_OBJECTS;
use crate::ids::{Kind, Name, Namespace};
use crate::manifest::finding::{Finding, FindingCode};
use crate::manifest::typed::Manifest;
use crate::spec::Need;

/// An object within one `apply`.
type Id = (Kind, Option<Namespace>, Name);

pub(super) fn check(manifests: &[Manifest], documents: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    if documents > MAX_OBJECTS {
        let message = format!("has {documents} objects, the limit is {MAX_OBJECTS}");
        let hint = Some("split it into parts that may take effect apart".to_owned());
        let (object, field) = (String::new(), String::new());
        let code = FindingCode::TooLarge;
        findings.push(Finding { file: None, line: 0, column: 0, object, field, code, message, hint });
        return findings;
    }
    let mut first: BTreeMap<Id, usize> = BTreeMap::new();
    for (index, manifest) in manifests.iter().enumerate() {
        match first.get(&id(manifest)) {
            Some(before) => findings.push(twice(manifest, &manifests[*before])),
            None => {
                first.insert(id(manifest), index);
            }
        }
    }
    cycles(manifests, &first, &mut findings);
    findings
}

fn id(manifest: &Manifest) -> Id {
    (manifest.kind, manifest.namespace.clone(), manifest.name.clone())
}

fn twice(manifest: &Manifest, before: &Manifest) -> Finding {
    let place = before.origin.places.value("metadata.name");
    let message = match &before.origin.file {
        Some(file) if before.origin.file != manifest.origin.file => {
            format!("given twice: first at {file}:{}", place.line)
        }
        Some(_) | None => format!("given twice: first at line {}", place.line),
    };
    manifest.finding("metadata.name", FindingCode::Duplicate, message)
}

/// Each cycle is told once, at its first member, by the shortest way around.
fn cycles(manifests: &[Manifest], index: &BTreeMap<Id, usize>, findings: &mut Vec<Finding>) {
    let edges: Vec<Vec<(usize, usize)>> = manifests.iter().map(|manifest| needed(manifest, index)).collect();
    for start in 0..manifests.len() {
        let Some(way) = way_around(start, &edges) else {
            continue;
        };
        let names: Vec<String> =
            way.iter().chain([&start]).map(|member| manifests[*member].label()).collect();
        let next = way.get(1).copied().unwrap_or(start);
        let need = edges[start].iter().find(|(_, to)| *to == next).map_or(0, |(need, _)| *need);
        let path = if manifests[start].kind == Kind::Deployment { "spec.template.spec" } else { "spec" };
        let message = format!("needs form a cycle: {}", names.join(" -> "));
        findings.push(manifests[start].finding(
            &format!("{path}.needs[{need}]"),
            FindingCode::Conflicting,
            message,
        ));
    }
}

/// The other objects of the apply that a manifest needs, each with the index of that need.
fn needed(manifest: &Manifest, index: &BTreeMap<Id, usize>) -> Vec<(usize, usize)> {
    let mut out: BTreeMap<usize, usize> = BTreeMap::new();
    let needs =
        manifest.body.process_template().map(|template| template.needs.as_slice()).unwrap_or_default();
    for (at, need) in needs.iter().enumerate() {
        let target = match need {
            Need::Workload { kind, name } => (*kind, manifest.namespace.clone(), name.clone()),
            Need::Process { name } => (Kind::Process, manifest.namespace.clone(), name.clone()),
            Need::ConfigFile { .. } | Need::Mount(_) | Need::Path(_) => continue,
        };
        if let Some(to) = index.get(&target) {
            out.entry(*to).or_insert(at);
        }
    }
    out.into_iter().map(|(to, at)| (at, to)).collect()
}

/// The shortest way from `start` back to it over members that come after it.
fn way_around(start: usize, edges: &[Vec<(usize, usize)>]) -> Option<Vec<usize>> {
    let mut from: Vec<Option<usize>> = vec![None; edges.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(here) = queue.pop_front() {
        for (_, to) in &edges[here] {
            if *to == start {
                let mut way = vec![here];
                while let Some(before) = way.last().and_then(|last| from[*last]) {
                    way.push(before);
                }
                way.reverse();
                return Some(way);
            }
            if *to > start && from[*to].is_none() {
                from[*to] = Some(here);
                queue.push_back(*to);
            }
        }
    }
    None
}
