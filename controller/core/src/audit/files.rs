//! Checkers of files documents.

use std::collections::BTreeMap;

use ostler_schemas::v1::document::{FileEntry, FileGoal};
use ostler_schemas::{NodeName, Uid};

use crate::configfile::{configfiles, in_force, selects_node, seniority};
use crate::fleet::{Fleet, StoredTemplate};

use super::{Rule, Violation};

fn path_of<'a>(fleet: &'a Fleet, entry: &FileEntry) -> Option<&'a str> {
    match fleet.templates.get(&entry.d)? {
        StoredTemplate::File(file) => Some(&file.path),
        StoredTemplate::Process(_) => None,
    }
}

fn name(fleet: &Fleet, uid: &Uid) -> String {
    fleet.by_uid.get(uid).map_or_else(|| uid.short(), ToString::to_string)
}

fn holders<'a>(fleet: &'a Fleet, node: &NodeName) -> Vec<(&'a str, Uid)> {
    let entries = fleet.files_documents.get(node).map(|d| d.value.entries.as_slice()).unwrap_or_default();
    let held = entries.iter().filter(|e| e.g == FileGoal::Hold);
    held.filter_map(|e| Some((path_of(fleet, e)?, e.u))).collect()
}

/// No path of a node is held twice.
pub(super) fn one_per_path(found: &mut Vec<Violation>, fleet: &Fleet) {
    for node in fleet.files_documents.keys() {
        let mut by_path: BTreeMap<&str, Uid> = BTreeMap::new();
        for (path, uid) in holders(fleet, node) {
            if let Some(other) = by_path.insert(path, uid) {
                let detail = format!("{path}: {} and {}", name(fleet, &other), name(fleet, &uid));
                found.push(Violation::new(Rule::PathTwice, node, detail));
            }
        }
    }
}

/// Each path is held by the oldest ConfigFile that should have it there.
pub(super) fn oldest_holds(found: &mut Vec<Violation>, fleet: &Fleet) {
    for (node, ..) in fleet.nodes() {
        for (path, uid) in holders(fleet, &node) {
            let oldest = configfiles(fleet)
                .filter(|(_, spec)| spec.path == path && selects_node(fleet, &spec.node_selector, &node))
                .filter(|(object, _)| in_force(fleet, object).is_some())
                .min_by_key(|(object, _)| seniority(object))
                .map(|(object, _)| object.metadata.uid);
            if oldest.is_some_and(|oldest| oldest != uid) {
                let detail = format!("{path} is held by {}", name(fleet, &uid));
                found.push(Violation::new(Rule::NotTheOlder, &node, detail));
            }
        }
    }
}
