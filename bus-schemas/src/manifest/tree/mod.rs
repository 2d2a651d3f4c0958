//! A document as a tree in which every key and value knows its place and scalars keep the text that was written.
//!
//! The tree is what a checker needs and no more: `0644` is still `0644`, `yes` is still `yes`, and a finding of the
//! server about line 31 is about line 31 of the user's file, because the tree travels with its places.

mod read;
mod scalar;
mod wire;

use serde_json::{Map, Value as Json};

use super::finding::{FindingCode, Place};
use crate::spec::Source;

pub use read::{MAX_ALIASES, MAX_TEXT, read_documents};
pub use scalar::{Scalar, ScalarType};
pub use wire::{InvalidWire, WireDocument, WireKey, WireNode, WireValue};

/// How many lists and maps may stand in one another (CONTRACT.md 1.2). Recursion over trees is bounded by it.
pub const MAX_DEPTH: usize = 64;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What stands in a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// One text, with the way it was written.
    Scalar(Scalar),
    /// Values in order.
    List(Vec<Node>),
    /// Keys and values in order; no key twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// The value.
    pub value: Node,
}

/// Something wrong with the text itself, before its meaning is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The path of the field there; may be empty.
    pub field: String,
    /// What sort.
    pub code: FindingCode,
    /// In words.
    pub message: String,
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file, as the user named it.
    pub file: Option<String>,
    /// The tree; a scalar null where the text could not be read.
    pub root: Node,
    /// What is wrong with the text.
    pub problems: Vec<Problem>,
    /// Whether the whole document was read; else what is missing from the tree may well be in the text.
    pub is_whole: bool,
    /// Content that was sent ahead and stands for `content` or `template` of a ConfigFile.
    pub content: Option<Source>,
}

impl Document {
    /// A document that was read whole.
    #[must_use]
    pub fn new(file: Option<String>, root: Node) -> Document {
        Document { file, root, problems: Vec::new(), is_whole: true, content: None }
    }
}

impl Node {
    /// A null without a place.
    #[must_use]
    pub fn null() -> Node {
        Node { place: Place::default(), value: Value::Scalar(Scalar::null()) }
    }

    /// Whether it is null, which means the same as left out.
    #[must_use]
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => scalar.kind() == ScalarType::Null,
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// The entry of a map.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// The value under a key of a map, if it is there and not null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value).filter(|value| !value.is_null())
    }

    /// The values of a list; nothing if it is none.
    #[must_use]
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Scalar(_) | Value::Map(_) => &[],
        }
    }

    /// The text of a scalar that is not null.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) if scalar.kind() != ScalarType::Null => Some(&scalar.text),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// As JSON, scalars by the YAML 1.2 core schema. Numbers that JSON cannot hold stay text.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Scalar(scalar) => scalar.to_json(),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json()));
                Json::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// From JSON, without places. `None` if it nests deeper than [`MAX_DEPTH`].
    #[must_use]
    pub fn from_json(json: &Json) -> Option<Node> {
        fn build(json: &Json, depth: usize) -> Option<Node> {
            if depth > MAX_DEPTH && (json.is_array() || json.is_object()) {
                return None;
            }
            let value = match json {
                Json::Null => Value::Scalar(Scalar::null()),
                Json::Bool(flag) => Value::Scalar(Scalar::plain(flag.to_string())),
                Json::Number(number) => Value::Scalar(Scalar::plain(number.to_string())),
                Json::String(text) => Value::Scalar(Scalar::quoted(text.clone())),
                Json::Array(items) => {
                    Value::List(items.iter().map(|item| build(item, depth + 1)).collect::<Option<_>>()?)
                }
                Json::Object(pairs) => {
                    let entry = |(key, value): (&String, &Json)| {
                        let value = build(value, depth + 1)?;
                        Some(Entry { key: key.clone(), place: Place::default(), value })
                    };
                    Value::Map(pairs.iter().map(entry).collect::<Option<_>>()?)
                }
            };
            Some(Node { place: Place::default(), value })
        }
        build(json, 1)
    }
}

/// The path of a child: `spec` and `ports` give `spec.ports`. Keys with other characters than those of field names
/// are quoted, so that the path of a label is readable: `metadata.labels["a.b/c"]`.
pub(super) fn join(path: &str, key: &str) -> String {
    let simple = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (path.is_empty(), simple) {
        (true, _) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (false, false) => format!("{path}[{key:?}]"),
    }
}

#[cfg(test)]
mod tests;
