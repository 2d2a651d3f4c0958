//! Objects as users read them: `{apiVersion, kind, metadata, spec, status}` (CONTRACT.md 1.1, 5 and 6).
//!
//! What comes out of here can go into `apply` again and is `unchanged`. Fields that are not known, or not applicable,
//! are left out; `null` stands only where a contract says so.

use std::collections::BTreeMap;

use ostler_schemas::manifest::written_spec;
use ostler_schemas::spec::ContentRef;
use ostler_schemas::v1::object::{Metadata, Object};
use ostler_schemas::v1::report::ExitReport;
use ostler_schemas::v1::status::{ConfigFileNode, NodeStatus, Status, View};
use ostler_schemas::{Kind, Revision, Sha256};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What is in the files of a ConfigFile, by hash, fetched apart.
pub type Contents = BTreeMap<Sha256, Vec<u8>>;

/// An object with its status.
#[must_use]
pub fn view(view: &View, contents: &Contents) -> Value {
    let mut whole = asked(&view.object(), contents);
    whole["metadata"] = metadata(&view.metadata, Some(view.revision));
    whole["status"] = status(&view.status);
    whole
}

/// An object without status and history: what a user would write. The form that diffs compare.
#[must_use]
pub fn asked(object: &Object, contents: &Contents) -> Value {
    let kind = object.spec.kind();
    let content_of = |content: &ContentRef| contents.get(&content.sha256).cloned();
    let spec = to_value(&written_spec(&object.spec, &content_of).unwrap_or_default());
    let full = metadata(&object.metadata, None);
    let mut short = Map::new();
    for field in ["name", "namespace", "labels", "annotations"] {
        if let Some(value) = full.get(field) {
            short.insert(field.to_owned(), value.clone());
        }
    }
    let mut whole = Map::new();
    whole.insert("apiVersion".to_owned(), json!("ostler/v1"));
    whole.insert("kind".to_owned(), json!(kind.as_str()));
    whole.insert("metadata".to_owned(), Value::Object(short));
    if spec.as_object().is_some_and(|s| !s.is_empty()) || kind != Kind::Namespace {
        whole.insert("spec".to_owned(), spec);
    }
    Value::Object(whole)
}

fn metadata(metadata: &Metadata, revision: Option<Revision>) -> Value {
    let mut out = to_value(metadata);
    if let Some(fields) = out.as_object_mut() {
        // Versions are shown in the status, and who touched which field is no field of manifests.
        fields.shift_remove("version");
        fields.shift_remove("touched");
        for name in ["labels", "annotations", "finalizers", "ownerReferences"] {
            let is_empty = match fields.get(name) {
                Some(Value::Object(map)) => map.is_empty(),
                Some(Value::Array(list)) => list.is_empty(),
                Some(_) | None => false,
            };
            if is_empty {
                fields.shift_remove(name);
            }
        }
        if let Some(revision) = revision {
            fields.insert("revision".to_owned(), json!(revision.0));
        }
    }
    out
}

fn status(status: &Status) -> Value {
    match status {
        Status::Node(node) => node_status(node),
        Status::Namespace(namespace) => to_value(namespace),
        Status::Secret(secret) => to_value(&**secret),
        Status::Process(process) => {
            let mut out = to_value(&**process);
            if let Some(exit) = &process.last_exit {
                out["lastExit"] = last_exit(exit);
            }
            out
        }
        Status::Deployment(deployment) => without_epoch(to_value(&**deployment)),
        Status::ConfigFile(file) => without_epoch(to_value(&**file)),
    }
}

fn without_epoch(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("epoch");
    }
    value
}

/// Hundredths become numbers, milliseconds become durations.
fn node_status(node: &NodeStatus) -> Value {
    let mut out = to_value(node);
    if let Some(usage) = &node.usage {
        out["usage"]["load1"] = json!(f64::from(usage.load1) / 100.0);
        if let Some(pressure) = usage.pressure {
            out["usage"]["pressure"] = json!(f64::from(pressure) / 100.0);
        }
    }
    if let Some(offset) = node.clock_offset {
        out["clockOffset"] = json!(format!("{offset}ms"));
    }
    out["epoch"] = json!(node.epoch.to_string());
    out
}

fn last_exit(exit: &ExitReport) -> Value {
    let mut out = to_value(exit);
    if let Some(fields) = out.as_object_mut() {
        for internal in ["u", "i", "seq"] {
            fields.shift_remove(internal);
        }
    }
    out
}

/// A row of `config status`. Here `null` is said: unknown writers are never guessed.
#[must_use]
pub fn file_node(row: &ConfigFileNode) -> Value {
    let drift = row.last_drift.as_ref().map(|drift| {
        let by = drift.writer.as_ref();
        json!({
            "at": drift.at,
            "pid": by.map(|by| by.pid),
            "uid": by.and_then(|by| by.uid),
            "user": by.and_then(|by| by.user.clone()),
            "exe": by.and_then(|by| by.exe.clone()),
            "name": by.and_then(|by| by.name.clone()),
            "unit": by.and_then(|by| by.unit.clone()),
            "unknown": drift.no_writer,
            "what": drift.what,
            "lines": drift.lines.map(|(added, removed)| json!({"added": added, "removed": removed})),
            "seen": drift.seen,
            "repairs": drift.repairs,
            "diff": drift.diff,
            "noDiff": drift.no_diff,
        })
    });
    json!({
        "kind": "ConfigFileNode",
        "node": row.node,
        "version": row.version,
        "sha256": row.sha256.map(|hash| hash.to_string()),
        "state": row.state,
        "reason": row.reason,
        "message": row.message,
        "changedAt": row.changed_at,
        "lastDrift": drift,
    })
}

/// As JSON, without what is null.
fn to_value<T: Serialize>(value: &T) -> Value {
    let mut out = serde_json::to_value(value).unwrap_or_default();
    drop_nulls(&mut out);
    out
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
