//! A Secret: values by name, sealed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{Name, Version};
use crate::sealing::Sealed;

/// Largest value of a Secret (CONTRACT.md 1.3).
pub const MAX_SECRET_VALUE: usize = 64 << 10;
/// Most bytes of all values of one Secret (CONTRACT.md 1.3).
pub const MAX_SECRET: usize = 256 << 10;

/// The spec of a Secret as it is stored. It never holds a value in the clear, nor anything made from one but the sealed
/// bytes and their number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSpec {
    /// Whether its values can never change.
    pub immutable: bool,
    /// Its values by name.
    pub values: BTreeMap<String, SecretValue>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretValue {
    /// How many bytes it has.
    pub size: u32,
    /// The version of the Secret that brought it; 0 while that is being decided.
    pub since: Version,
    /// It, sealed to the control plane. Left out wherever an object is only looked at, and in kept revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

impl SecretSpec {
    /// As anybody may see it: names and sizes.
    #[must_use]
    pub fn without_values(&self) -> Self {
        let masked = |value: &SecretValue| SecretValue { sealed: None, ..value.clone() };
        let values = self.values.iter().map(|(key, value)| (key.clone(), masked(value))).collect();
        Self { immutable: self.immutable, values }
    }

    /// Whether its values are those of another one. A value that was only sealed anew, to a newer key, is the same.
    #[must_use]
    pub fn has_values_of(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

/// Names one value of a Secret of the process's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret.
    pub name: Name,
    /// The name of the value in it.
    pub key: String,
    /// Whether the process starts without it where it does not exist.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// A value of a Secret as a file on memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The name of the file in `CREDENTIALS_DIRECTORY`.
    pub name: String,
    /// What is in it.
    pub secret_key_ref: SecretKeyRef,
}

/// What of which Secrets, by name: the names of values, and whether the process can do without all of them.
pub type SecretNeeds = BTreeMap<Name, BTreeSet<String>>;

/// Whether a text can name a value of a Secret and a file: `[-._a-zA-Z0-9]`, at most 253.
#[must_use]
pub fn is_secret_key(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed) && text != "." && text != ".."
}
