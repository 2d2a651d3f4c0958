//! What a transaction has done already, read from the snapshot: a request that is sent again gets the answer of the
//! copy that took effect.
//!
//! A request that changes something bears a transaction id of its caller's choice, and everything that it writes bears
//! it too: the object (`metadata.applied`) until its next change, and the immutable kept spec for as long as it is kept.
//! Guarantees: an id that somebody else used, or that was used for another verb, is refused; `None` means that nothing
//! in *this* snapshot is of the transaction. Why that is enough is told where the commits are made (`api::commit`).
//!
//! What cannot be told any more is left out: warnings, and a change of labels alone after the next change of the object.

use ostler_schemas::manifest::Manifest;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::api::{
    ApiError, ApplyOutcome, ApplyResult, ChangeReply, ConfigReply, DeleteReply, DeleteRequest, NodeRequest,
    PutRequest, RolloutChange, RolloutRequest, ScaleRequest,
};
use ostler_schemas::v1::object::{Applied, SpecRevision};
use ostler_schemas::{Generation, Kind, Namespace, ObjectRef, Revision, Uid, Version};

use super::World;
use super::deny::invalid;
use super::references::selected;
use super::rollout;
use crate::configfile::waves;
use crate::status::{Found, resolve};

/// What the transaction did to one object.
struct Deed<'a> {
    uid: Uid,
    generation: Generation,
    version: Version,
    spec: &'a Spec,
    /// The kept spec before it.
    before: Option<&'a SpecRevision>,
    /// Revision of what bears the transaction.
    revision: Revision,
}

/// Whether a write is of this request; one that bears its id and is of another is refused.
fn is_ours(world: &World<'_>, applied: &Applied, verbs: &[&str]) -> Result<bool, ApiError> {
    if applied.txn != world.by.txn {
        return Ok(false);
    }
    if applied.actor != world.by.actor || !verbs.contains(&applied.verb.as_str()) {
        let message = format!("transaction {} was another request's: draw a new id", world.by.txn);
        return Err(invalid(message));
    }
    Ok(true)
}

fn deed<'a>(world: &World<'a>, name: &ObjectRef, verbs: &[&str]) -> Result<Option<Deed<'a>>, ApiError> {
    let fleet = world.fleet;
    let stored = fleet.objects.get(name);
    let from = (name.clone(), Uid::from_bytes([0; 16]), Generation(0));
    let mut before: Option<(Uid, &SpecRevision)> = None;
    for ((object, uid, generation), kept) in fleet.spec_revisions.range(from..) {
        if object != name {
            break;
        }
        if is_ours(world, &kept.value.applied, verbs)? {
            // The object is written last; where it still is as this transaction left it, its revision is the later one.
            let last = stored.filter(|o| o.value.metadata.applied.txn == world.by.txn).map(|o| o.revision);
            return Ok(Some(Deed {
                uid: *uid,
                generation: *generation,
                version: kept.value.version,
                spec: &kept.value.spec,
                before: before.filter(|(owner, _)| owner == uid).map(|(_, revision)| revision),
                revision: last.unwrap_or(kept.revision),
            }));
        }
        before = Some((*uid, &kept.value));
    }
    let Some(stored) = stored else { return Ok(None) };
    let metadata = &stored.value.metadata;
    if !is_ours(world, &metadata.applied, verbs)? {
        return Ok(None);
    }
    Ok(Some(Deed {
        uid: metadata.uid,
        generation: metadata.generation,
        version: metadata.version,
        spec: &stored.value.spec,
        before: None,
        revision: stored.revision,
    }))
}

fn name_of(manifest: &Manifest) -> ObjectRef {
    ObjectRef { kind: manifest.kind, namespace: manifest.namespace.clone(), name: manifest.name.clone() }
}

/// The objects that an apply is about.
#[must_use]
pub fn named(manifests: &[Manifest]) -> Vec<ObjectRef> {
    manifests.iter().map(name_of).collect()
}

/// What an apply of this transaction did, and its revision.
///
/// # Errors
/// The id is another request's.
pub fn applied_already(
    world: &World<'_>,
    manifests: &[Manifest],
) -> Result<Option<(Vec<ApplyResult>, Revision)>, ApiError> {
    let mut results = Vec::with_capacity(manifests.len());
    let mut revision = None;
    for manifest in manifests {
        let name = name_of(manifest);
        let deed = deed(world, &name, &["apply"])?;
        revision = revision.max(deed.as_ref().map(|d| d.revision));
        results.push(result(world, name, deed.as_ref()));
    }
    Ok(revision.map(|revision| (results, revision)))
}

fn result(world: &World<'_>, object: ObjectRef, deed: Option<&Deed<'_>>) -> ApplyResult {
    let (outcome, uid, generation, version) = match deed {
        Some(deed) if deed.generation == Generation(1) && deed.before.is_none() => {
            (ApplyOutcome::Created, deed.uid, deed.generation, deed.version)
        }
        Some(deed) => (ApplyOutcome::Configured, deed.uid, deed.generation, deed.version),
        // It was as asked, so nothing of it was written.
        None => {
            let is = world.fleet.objects.get(&object).map(|o| &o.value.metadata);
            let uid = is.map_or(Uid::from_bytes([0; 16]), |m| m.uid);
            let generation = is.map_or(Generation(0), |m| m.generation);
            (ApplyOutcome::Unchanged, uid, generation, is.map_or(Version(0), |m| m.version))
        }
    };
    let (warnings, before, after) = (Vec::new(), None, None);
    ApplyResult { object, uid, outcome, generation, version, warnings, before, after }
}

fn changed(object: &ObjectRef, deed: &Deed<'_>, message: String) -> ChangeReply {
    ChangeReply { object: object.clone(), changed: true, message, revision: deed.revision }
}

/// What a `scale` of this transaction did.
///
/// # Errors
/// The id is another request's.
pub fn scaled_already(world: &World<'_>, request: &ScaleRequest) -> Result<Option<ChangeReply>, ApiError> {
    let name = &request.object;
    let Some(deed) = deed(world, name, &["scale"])? else { return Ok(None) };
    let replicas = |spec: &Spec| match spec {
        Spec::Deployment(spec) => Some(spec.replicas),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::ConfigFile(_) | Spec::Secret(_) => None,
    };
    let message = match (deed.before.and_then(|b| replicas(&b.spec)), replicas(deed.spec)) {
        (Some(was), Some(is)) => format!("{} scaled from {was} to {is}", name.short()),
        (_, _) => format!("{} scaled to {}", name.short(), request.replicas),
    };
    Ok(Some(changed(name, &deed, message)))
}

/// What a `put` of this transaction did.
///
/// # Errors
/// The id is another request's.
pub fn put_already(world: &World<'_>, request: &PutRequest) -> Result<Option<ChangeReply>, ApiError> {
    let deed = deed(world, &request.object, &["label"])?;
    Ok(deed.map(|deed| changed(&request.object, &deed, format!("{} labelled", request.object.short()))))
}

/// What a `node` of this transaction did.
///
/// # Errors
/// The id is another request's.
pub fn node_already(world: &World<'_>, request: &NodeRequest) -> Result<Option<ChangeReply>, ApiError> {
    let anywhere = Namespace::default_namespace();
    let Found::One(name) = resolve(world.fleet, Kind::Node, &anywhere, &request.node) else {
        return Ok(None);
    };
    let deed = deed(world, &name, &["cordon", "uncordon", "taint"])?;
    // The caller knows what it asked for: no message is worth rebuilding.
    Ok(deed.map(|deed| changed(&name, &deed, String::new())))
}

/// What a `rollout` of this transaction did.
///
/// # Errors
/// The id is another request's.
pub fn rollout_already(
    world: &World<'_>,
    request: &RolloutRequest,
) -> Result<Option<RolloutChange>, ApiError> {
    let Some(verb) = request.op.verb() else { return Ok(None) };
    // Of a file an undo is a rollback of its content.
    let deed = deed(world, &request.object, &[verb, "config rollback"])?;
    Ok(deed.map(|deed| rollout::done(&request.object, request.op, deed.version, deed.revision)))
}

/// What a `config push` or `config rollback` of this transaction did.
///
/// # Errors
/// The id is another request's.
pub fn config_already(world: &World<'_>, name: &ObjectRef) -> Result<Option<ConfigReply>, ApiError> {
    let Some(deed) = deed(world, name, &["config push", "config rollback", "config release"])? else {
        return Ok(None);
    };
    let created = deed.generation == Generation(1);
    let before = match deed.before {
        Some(revision) => revision.version,
        None => Version(deed.version.0.saturating_sub(1)),
    };
    let nodes = match deed.spec {
        Spec::ConfigFile(spec) => selected(world.fleet, spec).len(),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => 0,
    };
    Ok(Some(ConfigReply::Changed {
        version: deed.version,
        before,
        changed: true,
        created,
        nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
        waves: sizes(world, name, deed.spec),
        lines: None,
        revision: deed.revision,
    }))
}

fn sizes(world: &World<'_>, name: &ObjectRef, spec: &Spec) -> Vec<u32> {
    match (world.fleet.objects.get(name), spec) {
        (Some(object), Spec::ConfigFile(spec)) => waves::sizes(world.fleet, &object.value, &spec.rollout),
        (_, _) => Vec::new(),
    }
}

/// What a `delete` of this transaction did, as long as the object is there. A marker of deletion is the caller's to
/// read: the snapshot does not keep what it bears.
///
/// # Errors
/// The id is another request's.
pub fn deleted_already(world: &World<'_>, request: &DeleteRequest) -> Result<Option<DeleteReply>, ApiError> {
    let Some(stored) = world.fleet.objects.get(&request.object) else { return Ok(None) };
    let metadata = &stored.value.metadata;
    let ours = stored.value.is_deleting() && is_ours(world, &metadata.applied, &["delete"])?;
    Ok(ours.then_some(DeleteReply { uid: metadata.uid, gone: false, revision: stored.revision }))
}
