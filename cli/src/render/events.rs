//! Events as a story: the reader adds up COUNT, FIRST and LAST (DESIGN.md 3.10).

use std::collections::BTreeMap;

use ostler_schemas::key::ObjectRef;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::event::Event;
use ostler_schemas::{NodeName, Uid};
use serde_json::{Value, json};

use super::amounts::Moments;
use super::table::{Table, dash};

/// Like events, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The last of them.
    pub event: Event,
    /// How many there were.
    pub count: u64,
    /// When the first was.
    pub first: Timestamp,
    /// When the last was.
    pub last: Timestamp,
    /// The sequence of the last in the stream.
    pub sequence: u64,
}

/// Events that are told in one line: of one object, reason and node.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sort {
    object: ObjectRef,
    uid: Option<Uid>,
    reason: &'static str,
    node: Option<NodeName>,
}

impl Told {
    /// One event alone.
    #[must_use]
    pub fn one(event: Event, sequence: u64) -> Self {
        Self { count: event.count.max(1), first: event.first_time, last: event.last_time, sequence, event }
    }
}

/// Adds up like events; ordered by their last occurrence, then by their place in the stream.
#[must_use]
pub fn add_up(events: Vec<(Event, u64)>) -> Vec<Told> {
    let mut sorts: BTreeMap<Sort, Told> = BTreeMap::new();
    for (event, sequence) in events {
        let sort = Sort {
            object: event.object.clone(),
            uid: event.uid,
            reason: event.reason.as_str(),
            node: event.node.clone(),
        };
        let one = Told::one(event, sequence);
        match sorts.get_mut(&sort) {
            Some(told) => {
                let (count, first) = (told.count.saturating_add(one.count), told.first.min(one.first));
                let last = told.last.max(one.last);
                *told = Told { count, first, last, ..one };
            }
            None => {
                sorts.insert(sort, one);
            }
        }
    }
    let mut out: Vec<Told> = sorts.into_values().collect();
    out.sort_by_key(|told| (told.last, told.sequence));
    out
}

/// The table of events.
#[must_use]
pub fn table(events: &[Told], wide: bool, namespaces: bool, moments: &Moments) -> Table {
    let mut headers = Vec::new();
    if namespaces {
        headers.push("NAMESPACE");
    }
    headers.extend(["LAST", "TYPE", "REASON", "OBJECT", "NODE", "COUNT", "MESSAGE"]);
    if wide {
        headers.extend(["FIRST", "LAST", "ACTOR", "CAUSE", "SEQ"]);
    }
    let mut table = Table::new(headers);
    for told in events {
        let event = &told.event;
        let mut row = Vec::new();
        if namespaces {
            row.push(dash(event.object.namespace.as_ref()));
        }
        row.extend([
            moments.ago(told.last),
            event.kind.as_str().to_owned(),
            event.reason.to_string(),
            event.object.short(),
            dash(event.node.as_ref()),
            told.count.to_string(),
            event.message.clone(),
        ]);
        if wide {
            row.extend([
                moments.time(told.first),
                moments.time(told.last),
                dash(event.actor.as_ref()),
                dash(event.cause_revision),
                told.sequence.to_string(),
            ]);
        }
        table.push(row);
    }
    table
}

/// As JSON (CONTRACT.md section 6).
#[must_use]
pub fn json(told: &Told) -> Value {
    let event = &told.event;
    let object = json!({
        "kind": event.object.kind, "namespace": event.object.namespace, "name": event.object.name, "uid": event.uid,
    });
    let mut out = json!({
        "kind": "Event", "type": event.kind, "reason": event.reason, "object": object, "node": event.node,
        "message": event.message, "count": told.count, "firstTime": told.first, "lastTime": told.last,
        "actor": event.actor, "causeRevision": event.cause_revision, "txn": event.txn, "sequence": told.sequence,
    });
    if let Some(fields) = out.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    out
}
