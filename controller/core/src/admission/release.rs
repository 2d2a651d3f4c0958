//! `config release`: the files stay as they are on every host, and are nobody's any more.

use ostler_schemas::spec::{OnRemove, Spec};
use ostler_schemas::v1::api::{ApiError, ConfigReply};
use ostler_schemas::v1::object::Applied;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Kind, ObjectRef, Revision};

use super::config::find;
use super::delete::{finalizer, may_go, must_live};
use super::{Decision, Verdict, World, edit, nodes_that_have};

/// Decides about a release: a deletion that leaves every file as it is, whatever `onRemove` says.
///
/// # Errors
/// Not there, being deleted, or needed by others without `force`.
pub fn release(
    world: &World<'_>,
    name: &ObjectRef,
    (force, reason): (bool, Option<String>),
) -> Result<Verdict<ConfigReply>, ApiError> {
    let (before, _) = find(world.fleet, name)?;
    must_live(world, name, &before.value)?;
    if !force {
        may_go(world, name, before)?;
    }
    let mut after = before.value.as_ref().clone();
    let mut spec_changed = false;
    if let Spec::ConfigFile(spec) = &mut after.spec
        && spec.on_remove != OnRemove::Keep
    {
        spec.on_remove = OnRemove::Keep;
        spec_changed = true;
    }
    let metadata = &mut after.metadata;
    if spec_changed {
        metadata.generation = metadata.generation.next();
    }
    metadata.deletion_timestamp = Some(world.by.at);
    if let Some(finalizer) = finalizer(Kind::ConfigFile)
        && !metadata.finalizers.iter().any(|f| f == finalizer)
    {
        metadata.finalizers.push(finalizer.to_owned());
    }
    metadata.applied = Applied {
        actor: world.by.actor.clone(),
        verb: "config release".to_owned(),
        at: world.by.at,
        reason: reason.clone(),
        txn: world.by.txn,
    };
    let version = metadata.version;
    let nodes = nodes_that_have(world.fleet, &after.metadata.uid).count();
    let mut decision = Decision::default();
    let why = reason.map(|r| format!(": {r}")).unwrap_or_default();
    let text = format!("released by {}: the files stay as they are{why}", world.by.actor);
    edit::tell(&mut decision, &after, Reason::Released, text);
    edit::write(&mut decision, world, &after, spec_changed);
    let reply = ConfigReply::Changed {
        version,
        before: version,
        changed: true,
        created: false,
        nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
        waves: Vec::new(),
        lines: None,
        revision: Revision(0),
    };
    Ok(Verdict { decision, reply })
}
