//! The envelope in which every body travels and is stored: MessagePack with named fields,
//! `{v: schema version, kind: name, body: …}`.
//!
//! Guarantees: size is checked before anything is decoded; decoding never panics and never nests deeper than
//! [`MAX_DEPTH`]; a body of another kind or of a newer schema is refused by name; fields that this version does not
//! know are ignored by [`decode`] and kept through read-modify-write by [`decode_kept`] and [`Unknown::encode`].
//!
//! Compatibility: within one schema version fields are only added. A reader that meets a higher schema version
//! refuses the body; it does not guess.

use rmpv::Value;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Nesting that any body of ours needs, with room: a manifest tree may nest 64 deep, and each level takes two.
pub const MAX_DEPTH: usize = 160;

/// A type with a name on the wire.
pub trait Wire: Serialize + DeserializeOwned {
    /// The name in the envelope and in header `Ostler-Kind`.
    const KIND: &'static str;
    /// The schema version that this code writes, and the newest that it reads.
    const SCHEMA: u32 = 1;
    /// Most bytes of one encoded envelope. NATS itself carries 1 MiB; documents have tighter limits of their own.
    const LIMIT: usize = 1 << 20;
}

/// Why bytes are not the body that was expected.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than this kind may have; nothing was decoded.
    #[error("{found} bytes, the limit of {kind} is {limit}")]
    TooLarge {
        /// The kind that was expected.
        kind: &'static str,
        /// The size found.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not an envelope: truncated, garbage, or nested too deep.
    #[error("not an envelope of {kind}")]
    Malformed {
        /// The kind that was expected.
        kind: &'static str,
        /// What the decoder met.
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// An envelope of something else.
    #[error("an envelope of {found}, expected {expected}")]
    OtherKind {
        /// The kind found, cut to 64 characters.
        found: String,
        /// The kind that was expected.
        expected: &'static str,
    },
    /// Written by a newer version.
    #[error("schema {found} of {kind} is newer than {known}, the newest that this version reads")]
    NewerSchema {
        /// The kind.
        kind: &'static str,
        /// The schema found.
        found: u32,
        /// The newest known.
        known: u32,
    },
}

/// Why a value could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// More bytes than this kind may have.
    #[error("{found} bytes, the limit of {kind} is {limit}")]
    TooLarge {
        /// The kind.
        kind: &'static str,
        /// The size found.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The value has a shape that MessagePack cannot hold.
    #[error("cannot encode {kind}")]
    Shape {
        /// The kind.
        kind: &'static str,
        /// What the encoder met.
        #[source]
        source: rmp_serde::encode::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope<B> {
    v: u32,
    kind: String,
    body: B,
}

#[derive(Deserialize)]
struct Head {
    v: u32,
    kind: String,
}

/// The bytes of `value` in its envelope.
///
/// # Errors
/// [`EncodeError::TooLarge`] if they pass the kind's limit.
pub fn encode<T: Wire>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let envelope = Envelope { v: T::SCHEMA, kind: T::KIND.to_owned(), body: value };
    let bytes =
        rmp_serde::to_vec_named(&envelope).map_err(|source| EncodeError::Shape { kind: T::KIND, source })?;
    within_limit::<T>(bytes)
}

fn within_limit<T: Wire>(bytes: Vec<u8>) -> Result<Vec<u8>, EncodeError> {
    if bytes.len() > T::LIMIT {
        return Err(EncodeError::TooLarge { kind: T::KIND, found: bytes.len(), limit: T::LIMIT });
    }
    Ok(bytes)
}

fn read<B: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Result<B, DecodeError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(MAX_DEPTH);
    B::deserialize(&mut reader).map_err(|source| DecodeError::Malformed { kind, source })
}

fn check_head<T: Wire>(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.len() > T::LIMIT {
        return Err(DecodeError::TooLarge { kind: T::KIND, found: bytes.len(), limit: T::LIMIT });
    }
    let head: Head = read(T::KIND, bytes)?;
    if head.kind != T::KIND {
        let found = head.kind.chars().take(64).collect();
        return Err(DecodeError::OtherKind { found, expected: T::KIND });
    }
    if head.v > T::SCHEMA {
        return Err(DecodeError::NewerSchema { kind: T::KIND, found: head.v, known: T::SCHEMA });
    }
    Ok(())
}

/// The value in an envelope. Unknown fields are ignored.
///
/// # Errors
/// See [`DecodeError`]; never panics.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    check_head::<T>(bytes)?;
    read::<Envelope<T>>(T::KIND, bytes).map(|e| e.body)
}

/// The value in an envelope, and what this version does not know of it.
///
/// # Errors
/// See [`DecodeError`]; never panics.
pub fn decode_kept<T: Wire>(bytes: &[u8]) -> Result<(T, Unknown), DecodeError> {
    let value: T = decode(bytes)?;
    let raw: Envelope<Value> = read(T::KIND, bytes)?;
    let known = to_value(&value).unwrap_or(Value::Nil);
    Ok((value, Unknown(unknown_part(&raw.body, &known))))
}

/// The schema version and kind of an envelope and its body as a generic value, for `ostler decode`.
///
/// # Errors
/// [`DecodeError::Malformed`] if it is no envelope.
pub fn inspect(bytes: &[u8]) -> Result<(u32, String, Value), DecodeError> {
    let raw: Envelope<Value> = read("anything", bytes)?;
    Ok((raw.v, raw.kind, raw.body))
}

/// The fields of a stored body that this version does not know. They go back in with the next write.
#[derive(Debug, Clone, PartialEq)]
pub struct Unknown(Option<Value>);

impl Unknown {
    /// Whether everything was known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Encodes `value`, an edited copy of what was read, with the unknown fields put back where their parent is
    /// still there. Elements of lists are told apart by position.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode<T: Wire>(&self, value: &T) -> Result<Vec<u8>, EncodeError> {
        let Some(unknown) = &self.0 else { return encode(value) };
        let shape = |source| EncodeError::Shape { kind: T::KIND, source };
        let mut body = to_value(value).map_err(shape)?;
        put_back(&mut body, unknown);
        let envelope = Envelope { v: T::SCHEMA, kind: T::KIND.to_owned(), body };
        let bytes = rmp_serde::to_vec_named(&envelope).map_err(shape)?;
        within_limit::<T>(bytes)
    }
}

fn to_value<T: Serialize>(value: &T) -> Result<Value, rmp_serde::encode::Error> {
    let bytes = rmp_serde::to_vec_named(value)?;
    Ok(rmpv::decode::read_value(&mut bytes.as_slice()).unwrap_or(Value::Nil))
}

/// What of `raw` is missing in `known`, as a sparse copy; `None` if nothing is. Nil counts as absent.
fn unknown_part(raw: &Value, known: &Value) -> Option<Value> {
    match (raw, known) {
        (Value::Map(raw), Value::Map(known)) => {
            let mut rest = Vec::new();
            for (key, value) in raw {
                let part = match known.iter().find(|(k, _)| k == key) {
                    Some((_, same)) => unknown_part(value, same),
                    None => (!value.is_nil()).then(|| value.clone()),
                };
                rest.extend(part.map(|p| (key.clone(), p)));
            }
            (!rest.is_empty()).then_some(Value::Map(rest))
        }
        (Value::Array(raw), Value::Array(known)) if raw.len() == known.len() => {
            let parts: Vec<Value> =
                raw.iter().zip(known).map(|(r, k)| unknown_part(r, k).unwrap_or(Value::Nil)).collect();
            parts.iter().any(|p| !p.is_nil()).then_some(Value::Array(parts))
        }
        _ => None,
    }
}

fn put_back(into: &mut Value, unknown: &Value) {
    match (into, unknown) {
        (Value::Map(into), Value::Map(unknown)) => {
            for (key, value) in unknown {
                match into.iter_mut().find(|(k, _)| k == key) {
                    Some((_, present)) => put_back(present, value),
                    None => into.push((key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(into), Value::Array(unknown)) => {
            for (slot, part) in into.iter_mut().zip(unknown) {
                put_back(slot, part);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
