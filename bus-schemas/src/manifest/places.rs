//! Where every field of a document stands, by its path.

use std::collections::BTreeMap;

use super::finding::Place;
use super::tree::{Node, Value, join};

/// The places of the fields of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    root: Place,
    fields: BTreeMap<String, Spot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    key: Place,
    value: Place,
}

impl Places {
    /// Of a whole tree.
    #[must_use]
    pub fn of(root: &Node) -> Places {
        let mut places = Places { root: root.place, fields: BTreeMap::new() };
        places.visit(root, "");
        places
    }

    /// Where the value at `path` begins, or else the nearest that it would be inside of.
    #[must_use]
    pub fn value(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(spot) = self.fields.get(path) {
                return spot.value;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.root,
            }
        }
    }

    /// Where the key at `path` begins; where there is none, as [`Places::value`].
    #[must_use]
    pub fn key(&self, path: &str) -> Place {
        self.fields.get(path).map_or_else(|| self.value(path), |spot| spot.key)
    }

    fn visit(&mut self, node: &Node, path: &str) {
        match &node.value {
            Value::Scalar(_) => {}
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.visit(item, &path);
                    self.fields.insert(path, Spot { key: item.place, value: item.place });
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    self.visit(&entry.value, &path);
                    self.fields.insert(path, Spot { key: entry.place, value: entry.value.place });
                }
            }
        }
    }
}
