//! Sealed bytes: what stands for a secret everywhere but in memory.
//!
//! A sealed value can be opened only with the secret half of the key that it was sealed to. It does not tell who sealed
//! it, so what is sealed says inside what it is for, and whoever opens it compares. This module has the shapes; the
//! sealing itself is in `ostler_bus::sealing`.
//!
//! Guarantee: nothing here shows plaintext. [`Hidden`] prints as `***`, is never serialised, and is wiped when dropped.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

use crate::key::ObjectRef;

/// The public half of an X25519 key pair, written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key has 64 hex digits")]
pub struct InvalidKeyText;

/// 32 bytes written as 64 lower-case hex digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl FromStr for PublicKey {
    type Err = InvalidKeyText;
    fn from_str(text: &str) -> Result<Self, InvalidKeyText> {
        from_hex(text).map(Self).ok_or(InvalidKeyText)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Bytes that only the holder of a secret key can read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The key that they were sealed to.
    pub to: PublicKey,
    /// They.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes sealed to {}", self.bytes.len(), self.to.short())
    }
}

/// Bytes that are nobody's business: wiped when dropped, never printed, never serialised.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hidden(Vec<u8>);

impl Hidden {
    /// Takes them over.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes. Whoever asks must not keep them.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// How many they are.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What a value of a Secret is sealed for: the value of this key of this Secret and nothing else, so that a sealed value
/// that was moved elsewhere opens nowhere.
#[must_use]
pub fn value_purpose(secret: &ObjectRef, key: &str) -> String {
    format!("ostler/v1 value {secret} {key}")
}

/// What the values of a Secret are sealed for that a node is given.
#[must_use]
pub fn node_purpose(node: &crate::ids::NodeName, secret: &ObjectRef) -> String {
    format!("ostler/v1 node {node} {secret}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_nothing_is_shown() {
        let key = PublicKey::from_bytes([0xa7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("A7".repeat(32).parse::<PublicKey>(), Err(InvalidKeyText));
        assert_eq!("a7".repeat(31).parse::<PublicKey>(), Err(InvalidKeyText));
        assert_eq!(format!("{:?}", Hidden::new(b"correct-horse".to_vec())), "***");
        let sealed = Sealed { to: key, bytes: vec![1, 2, 3] };
        assert_eq!(format!("{sealed:?}"), "3 bytes sealed to a7a7a7a7");
    }
}
