//! Values for templates: maps of anything that a manifest can hold.
//!
//! Maps are kept in the order of their keys, so that equal values have equal bytes, and a template that walks a map
//! gives the same text on every host. A `null` means "left out", as everywhere in manifests: it never reaches a map.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Values by name.
pub type Vars = BTreeMap<String, Var>;

/// Most bytes of one map of values, as JSON (CONTRACT.md 4.5, 4.6).
pub const MAX_VARS: usize = 64 << 10;

/// Deepest nesting of a value. Values are wrapped into objects, requests and documents, whose readers bound the depth
/// of the whole.
pub const MAX_VAR_DEPTH: usize = 16;

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Var {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; never infinite, and never no number.
    Float(f64),
    /// Text.
    Text(String),
    /// Several values.
    List(Vec<Var>),
    /// Values by name.
    Map(Vars),
}

// No value is unequal to itself: what is no number is refused where values are made.
impl Eq for Var {}

/// Why a value cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVar {
    /// A number beyond 64 bits, or an infinite one.
    #[error("{0} is a number that cannot be kept: write it as text, in quotes")]
    Number(String),
    /// A list with a gap.
    #[error("an entry of a list cannot be left empty")]
    Gap,
    /// Nested too deep.
    #[error("nests deeper than {MAX_VAR_DEPTH}")]
    Depth,
}

impl Var {
    /// From JSON.
    ///
    /// # Errors
    /// What no value can be.
    pub fn from_json(json: &Json) -> Result<Option<Var>, InvalidVar> {
        Var::read(json, 0)
    }

    fn read(json: &Json, depth: usize) -> Result<Option<Var>, InvalidVar> {
        if depth > MAX_VAR_DEPTH {
            return Err(InvalidVar::Depth);
        }
        Ok(Some(match json {
            Json::Null => return Ok(None),
            Json::Bool(flag) => Var::Bool(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Var::Int(whole),
                (None, Some(float)) if number.is_f64() && float.is_finite() => Var::Float(float),
                (None, _) => return Err(InvalidVar::Number(number.to_string())),
            },
            Json::String(text) => Var::Text(text.clone()),
            Json::Array(items) => {
                let item = |item| Var::read(item, depth + 1)?.ok_or(InvalidVar::Gap);
                Var::List(items.iter().map(item).collect::<Result<_, _>>()?)
            }
            Json::Object(fields) => {
                let mut map = Vars::new();
                for (key, value) in fields {
                    if let Some(value) = Var::read(value, depth + 1)? {
                        map.insert(key.clone(), value);
                    }
                }
                Var::Map(map)
            }
        }))
    }
}

/// How many bytes values are, as they would be written.
#[must_use]
pub fn vars_size(vars: &Vars) -> usize {
    serde_json::to_string(vars).map_or(usize::MAX, |text| text.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_types_in_both_forms() {
        let json = json!({"b": true, "a": [1, -2, 1.5, "x", {"n": null, "deep": {}}], "z": 9_007_199_254_740_993_i64});
        let var = Var::from_json(&json).expect("is one").expect("is something");
        let back: Var = serde_json::from_str(&serde_json::to_string(&var).expect("writes")).expect("reads");
        assert_eq!(back, var);
        let bytes = rmp_serde::to_vec_named(&var).expect("writes");
        assert_eq!(rmp_serde::from_slice::<Var>(&bytes).expect("reads"), var);
        let Var::Map(map) = &var else { panic!("is a map") };
        assert_eq!(map.keys().collect::<Vec<_>>(), ["a", "b", "z"]);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert_eq!(Var::from_json(&json!([null])), Err(InvalidVar::Gap));
        assert_eq!(Var::from_json(&json!(u64::MAX)), Err(InvalidVar::Number(u64::MAX.to_string())));
        let deep = (0..=MAX_VAR_DEPTH).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(Var::from_json(&deep), Err(InvalidVar::Depth));
        assert_eq!(Var::from_json(&json!(null)), Ok(None));
    }
}
