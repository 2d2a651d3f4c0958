//! The tree as it travels: a flat list of values in order, each with its place.
//!
//! Flat, so that reading it needs no recursion and a hostile message can neither nest nor grow beyond its own bytes.
//! Nothing is trusted: what comes out of [`Document::from_wire`] holds everything that a tree read from text holds.

use serde::{Deserialize, Serialize};

use super::{Document, Entry, MAX_DEPTH, Node, Scalar, Value};
use crate::manifest::finding::Place;

/// A document on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDocument {
    /// The file, as the user named it.
    #[serde(default)]
    pub file: Option<String>,
    /// The root and then, before anything else, what is inside of it.
    pub nodes: Vec<WireNode>,
}

/// One value on the wire. It is written as a list without field names: an `apply` may have tens of thousands of
/// values and must fit one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FlatNode", into = "FlatNode")]
pub struct WireNode {
    /// Line and column of the value.
    pub at: (u32, u32),
    /// The key, inside of a map.
    pub key: Option<WireKey>,
    /// The value.
    pub is: WireValue,
}

/// A key on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireKey {
    /// Its text.
    pub text: String,
    /// Line and column.
    pub at: (u32, u32),
}

/// Line, column, key with its line and column, value.
type FlatNode = (u32, u32, Option<(String, u32, u32)>, WireValue);

impl From<FlatNode> for WireNode {
    fn from((line, column, key, is): FlatNode) -> WireNode {
        let key = key.map(|(text, line, column)| WireKey { text, at: (line, column) });
        WireNode { at: (line, column), key, is }
    }
}

impl From<WireNode> for FlatNode {
    fn from(node: WireNode) -> FlatNode {
        let key = node.key.map(|key| (key.text, key.at.0, key.at.1));
        (node.at.0, node.at.1, key, node.is)
    }
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireValue {
    /// A scalar that was written without quotes.
    #[serde(rename = "p")]
    Plain(String),
    /// A scalar that was quoted, or a block.
    #[serde(rename = "q")]
    Quoted(String),
    /// A list; so many values follow.
    #[serde(rename = "l")]
    List(u32),
    /// A map; so many values with keys follow.
    #[serde(rename = "m")]
    Map(u32),
}

/// Why a wire form is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWire {
    /// A list or map says that more follows than does, or less.
    #[error("the document is cut off or has parts too many")]
    Shape,
    /// A value of a map has no key, or one elsewhere has.
    #[error("a key is missing or out of place")]
    Key,
    /// A map has a key twice.
    #[error("a map has a key twice")]
    DuplicateKey,
    /// It nests deeper than [`MAX_DEPTH`].
    #[error("the document nests deeper than {MAX_DEPTH}")]
    Depth,
}

impl Document {
    /// For sending. Problems do not travel: a document that has any is refused where it was read.
    #[must_use]
    pub fn to_wire(&self) -> WireDocument {
        let mut nodes = Vec::new();
        flatten(&self.root, None, &mut nodes);
        WireDocument { file: self.file.clone(), nodes }
    }

    /// From what was sent.
    ///
    /// # Errors
    /// When the nodes do not make a tree, or one that could not have been read from text.
    pub fn from_wire(wire: WireDocument) -> Result<Document, InvalidWire> {
        let mut stack: Vec<Pending> = Vec::new();
        let mut nodes = wire.nodes.into_iter();
        loop {
            let WireNode { at, key, is } = nodes.next().ok_or(InvalidWire::Shape)?;
            if stack.len() >= MAX_DEPTH && matches!(is, WireValue::List(_) | WireValue::Map(_)) {
                return Err(InvalidWire::Depth);
            }
            let pending = Pending { place: place(at), key, left: 0, is_map: false, children: Vec::new() };
            let mut done = match is {
                WireValue::List(left) => {
                    stack.push(Pending { left, ..pending });
                    None
                }
                WireValue::Map(left) => {
                    stack.push(Pending { left, is_map: true, ..pending });
                    None
                }
                WireValue::Plain(text) => Some(pending.scalar(Scalar::plain(text))),
                WireValue::Quoted(text) => Some(pending.scalar(Scalar::quoted(text))),
            };
            // Hand finished values up until something is still waited for.
            loop {
                if let Some((key, node)) = done.take() {
                    match stack.last_mut() {
                        Some(parent) => parent.adopt(key, node)?,
                        None if key.is_none() && nodes.len() == 0 => {
                            return Ok(Document::new(wire.file, node));
                        }
                        None if key.is_some() => return Err(InvalidWire::Key),
                        None => return Err(InvalidWire::Shape),
                    }
                }
                match stack.pop_if(|frame| frame.left == 0) {
                    Some(frame) => done = Some(frame.finish()?),
                    None => break,
                }
            }
        }
    }
}

fn place((line, column): (u32, u32)) -> Place {
    Place { line, column }
}

struct Pending {
    place: Place,
    key: Option<WireKey>,
    left: u32,
    is_map: bool,
    children: Vec<(Option<WireKey>, Node)>,
}

impl Pending {
    fn scalar(self, scalar: Scalar) -> (Option<WireKey>, Node) {
        (self.key, Node { place: self.place, value: Value::Scalar(scalar) })
    }

    fn adopt(&mut self, key: Option<WireKey>, node: Node) -> Result<(), InvalidWire> {
        if key.is_some() != self.is_map {
            return Err(InvalidWire::Key);
        }
        self.left = self.left.checked_sub(1).ok_or(InvalidWire::Shape)?;
        self.children.push((key, node));
        Ok(())
    }

    fn finish(self) -> Result<(Option<WireKey>, Node), InvalidWire> {
        let value = if self.is_map {
            let mut seen = std::collections::BTreeSet::new();
            let mut entries = Vec::with_capacity(self.children.len());
            for (key, value) in self.children {
                let WireKey { text: key, at } = key.ok_or(InvalidWire::Key)?;
                if !seen.insert(key.clone()) {
                    return Err(InvalidWire::DuplicateKey);
                }
                entries.push(Entry { key, place: place(at), value });
            }
            Value::Map(entries)
        } else {
            Value::List(self.children.into_iter().map(|(_, node)| node).collect())
        };
        Ok((self.key, Node { place: self.place, value }))
    }
}

fn flatten(node: &Node, key: Option<WireKey>, out: &mut Vec<WireNode>) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let is = match &node.value {
        Value::Scalar(scalar) if scalar.is_plain => WireValue::Plain(scalar.text.clone()),
        Value::Scalar(scalar) => WireValue::Quoted(scalar.text.clone()),
        Value::List(items) => WireValue::List(count(items.len())),
        Value::Map(entries) => WireValue::Map(count(entries.len())),
    };
    out.push(WireNode { at: (node.place.line, node.place.column), key, is });
    match &node.value {
        Value::Scalar(_) => {}
        Value::List(items) => {
            for item in items {
                flatten(item, None, out);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let at = (entry.place.line, entry.place.column);
                flatten(&entry.value, Some(WireKey { text: entry.key.clone(), at }), out);
            }
        }
    }
}
