//! From what a user types to an object: its name, the first 8 digits or all of its uid, a host's full name.

use ostler_schemas::ids::SHORT_UID;
use ostler_schemas::{Kind, Name, Namespace, ObjectRef, Uid};

use super::process;
use crate::fleet::Fleet;

/// What a text stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This object.
    One(ObjectRef),
    /// Several: a short uid that more than one object shares.
    Several(Vec<ObjectRef>),
    /// Nothing.
    None,
}

/// Finds the object of `kind` in `namespace` that `text` stands for. A name wins over a uid, a uid over a host name.
#[must_use]
pub fn resolve(fleet: &Fleet, kind: Kind, namespace: &Namespace, text: &str) -> Found {
    let namespace = (!kind.is_cluster_wide()).then(|| namespace.clone());
    if let Ok(name) = text.parse::<Name>() {
        let object = ObjectRef { kind, namespace, name };
        if exists(fleet, &object) {
            return Found::One(object);
        }
    }
    let mut found = by_uid(fleet, kind, text);
    if found.is_empty() && kind == Kind::Node {
        found = by_hostname(fleet, text);
    }
    match found.len() {
        0 => Found::None,
        1 => Found::One(found.remove(0)),
        _ => Found::Several(found),
    }
}

fn exists(fleet: &Fleet, object: &ObjectRef) -> bool {
    fleet.objects.contains_key(object)
        || (object.kind == Kind::Process && process::by_name(fleet, object).is_some())
}

/// A uid names an object whatever its namespace.
fn by_uid(fleet: &Fleet, kind: Kind, text: &str) -> Vec<ObjectRef> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() < SHORT_UID || !digits {
        return Vec::new();
    }
    let (Some(first), Some(last)) = (bound(text, '0'), bound(text, 'f')) else { return Vec::new() };
    let objects =
        fleet.by_uid.range(first..=last).map(|(_, object)| object.clone()).filter(|o| o.kind == kind);
    let mut found: Vec<ObjectRef> = objects.collect();
    if kind == Kind::Process {
        found.extend(
            fleet.processes.range(first..=last).filter_map(|(_, records)| process::object_ref(records)),
        );
    }
    found.sort();
    found.dedup();
    found
}

/// The least or greatest uid that begins with `text`.
fn bound(text: &str, fill: char) -> Option<Uid> {
    let missing = 32usize.checked_sub(text.len())?;
    let full: String = text.chars().chain(std::iter::repeat_n(fill, missing)).collect();
    full.parse().ok()
}

fn by_hostname(fleet: &Fleet, text: &str) -> Vec<ObjectRef> {
    let named = |report: &str, label: Option<&String>| report == text || label.is_some_and(|l| l == text);
    fleet
        .nodes()
        .filter(|(name, object, _)| {
            let reported = fleet.reports.get(name).map_or("", |r| r.value.facts.hostname.as_str());
            named(reported, object.value.metadata.labels.get("ostler/hostname"))
        })
        .filter_map(|(name, _, _)| ObjectRef::node(&name))
        .collect()
}

/// The existing name nearest to one that was not found, if any is near: for "did you mean".
#[must_use]
pub fn nearest(fleet: &Fleet, kind: Kind, namespace: &Namespace, text: &str) -> Option<Name> {
    let here = |o: &ObjectRef| kind.is_cluster_wide() || o.namespace.as_ref() == Some(namespace);
    let processes =
        fleet.processes.values().filter_map(process::object_ref).filter(|_| kind == Kind::Process);
    let names = fleet.of_kind(kind).map(|(o, _)| o.clone()).chain(processes).filter(here).map(|o| o.name);
    let most = (text.chars().count() / 3).max(1);
    names
        .map(|name| (distance(text, name.as_str()), name))
        .filter(|(far, _)| *far <= most)
        .min()
        .map(|(_, name)| name)
}

/// Edits between two texts (Levenshtein), letters exchanged with their neighbour counting as two.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
