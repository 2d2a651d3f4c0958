//! What crosses Ostler's bus and what lies in its store: words, keys, subjects, bytes.
//!
//! This crate is pure. It does no IO, reads no clock and draws no random numbers; every other crate of the
//! workspace depends on it and it depends on none of them.
//!
//! * [`ids`]: typed names and identities; each is parsed once, where it enters.
//! * [`key`] and [`subject`]: every store key and every subject, built and parsed here and nowhere else.
//! * [`codec`]: the envelope (MessagePack with named fields) in which every body travels.
//! * [`v1`]: the types of version 1: objects, process records, node documents, reports, beats, events, requests.
//! * [`spec`]: what users ask for, kind by kind.
//! * [`quantity`]: durations, sizes, CPU and the other values of manifests.
//! * [`manifest`]: from YAML text to checked objects, with every finding located.

pub mod codec;
pub mod hash;
pub mod headers;
pub mod ids;
pub mod key;
pub mod manifest;
pub mod quantity;
pub mod sealing;
pub mod spec;
pub mod subject;
pub mod time;
pub mod v1;

pub use ids::{
    Actor, ControllerName, Generation, Kind, Name, Namespace, NodeName, ReplicaId, Revision, Sha256, TxnId,
    Uid, Version,
};
pub use key::{Bucket, DocumentKind, Key, ObjectRef};
