//! Checkers of files documents.

use ostler_schemas::spec::{Claims, Taken};
use ostler_schemas::v1::document::{FileEntry, FileGoal};
use ostler_schemas::{NodeName, Uid};

use crate::configfile::{configfiles, in_force_on, selects_node, seniority};
use crate::fleet::{Fleet, StoredTemplate};

use super::{Rule, Violation};

fn claims_of(fleet: &Fleet, entry: &FileEntry) -> Option<Claims> {
    match fleet.templates.get(&entry.d)? {
        StoredTemplate::File(file) => Some(file.claims()),
        StoredTemplate::Process(_) | StoredTemplate::Vars(_) => None,
    }
}

fn name(fleet: &Fleet, uid: &Uid) -> String {
    fleet.by_uid.get(uid).map_or_else(|| uid.short(), ToString::to_string)
}

fn holders(fleet: &Fleet, node: &NodeName) -> Vec<(Claims, Uid)> {
    let entries = fleet.files_documents.get(node).map(|d| d.value.entries.as_slice()).unwrap_or_default();
    let held = entries.iter().filter(|e| e.g == FileGoal::Hold);
    held.filter_map(|e| Some((claims_of(fleet, e)?, e.u))).collect()
}

/// No path of a node is held twice.
pub(super) fn one_per_path(found: &mut Vec<Violation>, fleet: &Fleet) {
    for node in fleet.files_documents.keys() {
        let mut taken = Taken::default();
        for (claims, uid) in holders(fleet, node) {
            if let Some((path, other)) = taken.holder_of(&claims) {
                let detail = format!("{path}: {} and {}", name(fleet, &other), name(fleet, &uid));
                found.push(Violation::new(Rule::PathTwice, node, detail));
            }
            taken.take(&claims, uid);
        }
    }
}

/// Each path is held by the oldest ConfigFile that should have it there.
pub(super) fn oldest_holds(found: &mut Vec<Violation>, fleet: &Fleet) {
    for (node, ..) in fleet.nodes() {
        for (claims, uid) in holders(fleet, &node) {
            let oldest = configfiles(fleet)
                .filter(|(_, spec)| selects_node(fleet, &spec.node_selector, &node))
                .filter_map(|(object, _)| Some((object, in_force_on(fleet, object, &node)?.file.claims())))
                .filter_map(|(object, asked)| Some((object, asked.collides_with(&claims)?)))
                .min_by_key(|(object, _)| seniority(object));
            if let Some((oldest, path)) = oldest
                && oldest.metadata.uid != uid
            {
                let detail = format!("{path} is held by {}", name(fleet, &uid));
                found.push(Violation::new(Rule::NotTheOlder, &node, detail));
            }
        }
    }
}
