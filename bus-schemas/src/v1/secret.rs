//! `n.<node>.secrets`: the values that the processes of one node are given, sealed to that node.
//!
//! One entry for each Secret that a process bound to the node refers to, also where there is no such Secret: so an
//! agent can tell what does not exist from what has not come yet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::epoch::Epoch;
use crate::codec::Wire;
use crate::ids::{Kind, Name, Namespace, Uid, Version};
use crate::key::ObjectRef;
use crate::sealing::{PublicKey, Sealed};

/// The document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsDocument {
    /// The secret controller's epoch.
    pub epoch: Epoch,
    /// One per Secret, ordered by namespace and name.
    pub entries: Vec<SecretEntry>,
}

impl Wire for SecretsDocument {
    const KIND: &'static str = "SecretsDocument";
    /// Values are at most 64 KiB each; a message of the bus holds 1 MiB, and a batch has other messages.
    const LIMIT: usize = 512 << 10;
}

/// One Secret, as far as this node may know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEntry {
    /// Its namespace.
    pub ns: Namespace,
    /// Its name.
    pub name: Name,
    /// Which one it is, and its version; none where there is no such Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<SecretVersion>,
    /// The names of the values that are asked for here and that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// These values, sealed to the node; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// Why there are no values although there should be, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl SecretEntry {
    /// The Secret that it speaks of.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef { kind: Kind::Secret, namespace: Some(self.ns.clone()), name: self.name.clone() }
    }

    /// The key that it is sealed to.
    #[must_use]
    pub fn key(&self) -> Option<PublicKey> {
        self.sealed.as_ref().map(|sealed| sealed.to)
    }
}

/// Which Secret in which version. Another Secret of the same name has another uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretVersion {
    /// Its uid.
    pub u: Uid,
    /// Its version.
    pub v: Version,
}

impl SecretVersion {
    /// Whether this one will do for who asks for `wanted`. Another Secret of the same name is always newer.
    #[must_use]
    pub fn serves(&self, wanted: &SecretVersion) -> bool {
        self.u != wanted.u || self.v >= wanted.v
    }
}

/// Plaintext of several values, as it is sealed: never stored or sent otherwise.
pub type Values = BTreeMap<String, serde_bytes::ByteBuf>;
