//! API objects as stored under `o.` and `rev.`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::Wire;
use crate::ids::{Actor, Generation, Kind, Name, Namespace, TxnId, Uid, Version};
use crate::key::ObjectRef;
use crate::spec::Spec;
use crate::time::Timestamp;

/// A name given to a set of objects: `key: value`.
pub type Labels = BTreeMap<String, String>;

/// The fields that every object has besides its spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The name.
    pub name: Name,
    /// The namespace; none for cluster-wide kinds.
    pub namespace: Option<Namespace>,
    /// The identity for all time.
    pub uid: Uid,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Counts changes of the spec, from 1.
    pub generation: Generation,
    /// Names what is rolled out, from 1; rises with a change of template or content. 0 for kinds without rollouts,
    /// and for a ConfigFile without content yet.
    pub version: Version,
    /// When it was created.
    pub creation_timestamp: Timestamp,
    /// Set when deletion was asked for; the object goes when its finalizers are empty.
    pub deletion_timestamp: Option<Timestamp>,
    /// What must still be cleaned up before the object may go.
    pub finalizers: Vec<String>,
    /// Whose part this is. An owner's deletion takes the owned ones along.
    pub owner_references: Vec<OwnerReference>,
    /// The last request that changed it.
    pub applied: Applied,
    /// Fields that verbs other than `apply` have changed since the last apply, by dotted path.
    pub touched: BTreeMap<String, Touch>,
    /// What a person last ordered about the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<RolloutOrder>,
}

/// An order about a rollout on its way. It is taken in once, by its number, and counts for one version only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutOrder {
    /// Rises with every order about this object.
    pub n: u64,
    /// What is ordered.
    pub act: RolloutAct,
    /// About which version.
    pub version: Version,
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: Timestamp,
    /// Why, if the caller said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RolloutAct {
    /// Go on with the next wave, or in spite of what has failed.
    Resume,
    /// Give the version up, and go back.
    Abort,
    /// An order of a newer version, which this one leaves alone.
    #[serde(other)]
    Unknown,
}

/// The owner of an object or process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// Kind of the owner.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Its uid: owning is by identity, not by name.
    pub uid: Uid,
}

/// The request behind the present state of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Who.
    pub actor: Actor,
    /// By which verb: `apply`, `scale`, `config push`, ….
    pub verb: String,
    /// When.
    pub at: Timestamp,
    /// Why, if the caller said so.
    pub reason: Option<String>,
    /// The transaction.
    pub txn: TxnId,
}

/// A change of one field by a verb of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Touch {
    /// Who.
    pub actor: Actor,
    /// By which verb.
    pub verb: String,
    /// When.
    pub at: Timestamp,
}

/// An object as stored under `o.<kind>.<ns>.<name>`. Its status lies elsewhere, with another writer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Name, identity, history.
    pub metadata: Metadata,
    /// What was asked, fully defaulted.
    pub spec: Spec,
}

impl Object {
    /// Kind, namespace and name.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef {
            kind: self.spec.kind(),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
        }
    }

    /// Whether deletion was asked for.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

impl Wire for Object {
    const KIND: &'static str = "Object";
    /// CONTRACT.md 1.3 allows 128 Ki of object, and 256 Ki of values of a Secret, each of which takes some more when it
    /// is sealed; the rest is metadata of our own.
    const LIMIT: usize = 512 << 10;
}

/// An immutable copy of a spec, under `rev.…`, written in one batch with the object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecRevision {
    /// Generation of the spec.
    pub generation: Generation,
    /// Version that it is rolled out as.
    pub version: Version,
    /// The request that wrote it.
    pub applied: Applied,
    /// The spec.
    pub spec: Spec,
}

impl Wire for SpecRevision {
    const KIND: &'static str = "SpecRevision";
    const LIMIT: usize = 256 << 10;
}
