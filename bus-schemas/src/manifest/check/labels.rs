//! Labels, annotations and taints: the syntax of Kubernetes, and Ostler's own prefix.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::report::Report;
use super::scalars::{Bad, read_text};
use super::walk::{Walk, found};
use crate::manifest::finding::FindingCode;
use crate::manifest::tree::{Node, Value, join};

/// Most labels of one object (CONTRACT.md 1.3).
const MAX_LABELS: usize = 64;
/// Largest annotations of one object, keys and values together (CONTRACT.md 1.3).
const MAX_ANNOTATIONS: usize = 64 << 10;
/// Longest name part of a key, and longest value.
const MAX_PART: usize = 63;
/// Longest prefix of a key: a DNS name.
const MAX_PREFIX: usize = 253;
/// Keys below it are Ostler's own.
pub(super) const OWN_PREFIX: &str = "ostler/";

fn is_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= MAX_PART && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inner)
}

fn is_prefix(text: &str) -> bool {
    text.len() <= MAX_PREFIX && text.split('.').all(crate::ids::is_label)
}

pub(super) fn check_label_key(text: &str) -> Result<(), Bad> {
    let good = match text.split_once('/') {
        Some((prefix, name)) => is_prefix(prefix) && is_part(name),
        None => is_part(text),
    };
    if good {
        return Ok(());
    }
    Err(Bad::value(format!(
        "{text:?} is not a label key: use up to 63 of A-Z, a-z, 0-9, \"-\", \"_\" and \".\", after an optional prefix as in example.net/rack"
    )))
}

pub(super) fn check_label_value(text: &str) -> Result<(), Bad> {
    if text.is_empty() || is_part(text) {
        return Ok(());
    }
    Err(Bad::value(format!(
        "{text:?} is not a label value: use up to 63 of A-Z, a-z, 0-9, \"-\", \"_\" and \".\", beginning and ending with a letter or digit"
    )))
}

impl Walk<'_> {
    pub(super) fn labels(&mut self, node: &Node, own: bool, path: &str) -> Option<Json> {
        let count = match &node.value {
            Value::Map(entries) => entries.len(),
            Value::Scalar(_) | Value::List(_) => 0,
        };
        if count > MAX_LABELS {
            let message = format!("has {count} labels, the limit is {MAX_LABELS}");
            self.report.at(node.place, path, FindingCode::TooLarge, message);
            return None;
        }
        self.texts(node, path, |key, value| {
            check_label_key(key)?;
            if !own && key.starts_with(OWN_PREFIX) && !AGENTS.contains(&key) {
                return Err(Bad::value(format!(
                    "{key:?} is not allowed: labels below ostler/ are Ostler's own"
                )));
            }
            check_label_value(value)
        })
    }

    pub(super) fn annotations(&mut self, node: &Node, path: &str) -> Option<Json> {
        let texts = self.texts(node, path, |key, _| check_label_key(key))?;
        let size: usize = texts
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
            .sum();
        if size > MAX_ANNOTATIONS {
            self.report.too_large(path, size, MAX_ANNOTATIONS);
            return None;
        }
        Some(texts)
    }

    /// A map of texts. An entry that is null is left out.
    fn texts(
        &mut self,
        node: &Node,
        path: &str,
        check: impl Fn(&str, &str) -> Result<(), Bad>,
    ) -> Option<Json> {
        let Value::Map(entries) = &node.value else {
            let message = format!("is a map of texts, found {}", found(node));
            self.report.at(node.place, path, FindingCode::BadType, message);
            return None;
        };
        let mut out = Map::new();
        for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
            let at = join(path, &entry.key);
            let read = match &entry.value.value {
                Value::Scalar(scalar) => read_text(scalar),
                Value::List(_) | Value::Map(_) => {
                    Err(Bad::new(FindingCode::BadType, format!("is text, found {}", found(&entry.value))))
                }
            };
            match read.and_then(|text| check(&entry.key, text).map(|()| text)) {
                Ok(text) => {
                    out.insert(entry.key.clone(), Json::from(text));
                }
                Err(bad) => self.bad(entry.value.place, &at, bad),
            }
        }
        Some(Json::Object(out))
    }
}

/// Labels that agents set on their nodes. They are accepted in input, so that what `get` shows can be applied.
pub(super) const AGENTS: [&str; 5] =
    ["ostler/node", "ostler/hostname", "ostler/arch", "ostler/os", "ostler/kernel"];

/// A key and effect may taint a node once, and never in Ostler's name.
pub(super) fn distinct_taints(spec: &Map<String, Json>, report: &mut Report) {
    let mut first: BTreeMap<(&str, &str), String> = BTreeMap::new();
    let taints = spec.get("taints").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, taint) in taints.iter().enumerate() {
        let part = |name: &str| taint.get(name).and_then(Json::as_str);
        let (Some(key), Some(effect)) = (part("key"), part("effect")) else {
            continue;
        };
        let at = format!("spec.taints[{index}]");
        if key.starts_with(OWN_PREFIX) {
            let message = format!("{key:?} is not allowed: taints below ostler/ are Ostler's own");
            report.add(&format!("{at}.key"), FindingCode::BadValue, message);
        }
        if let Some(before) = first.get(&(key, effect)) {
            report.duplicate(&at, before);
        } else {
            first.insert((key, effect), at);
        }
    }
}
