//! `delete`: marks the object; [`super::reap`] removes it when nothing of it is left.

use ostler_schemas::spec::Spec;
use ostler_schemas::time::age;
use ostler_schemas::v1::api::{ApiError, DeleteReply, DeleteRequest};
use ostler_schemas::v1::object::{Applied, Object};
use ostler_schemas::v1::process::{Goal, GoalReason, GoalRecord};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::status::{NodePhase, Status, View};
use ostler_schemas::{Key, Kind, Namespace, NodeName, ObjectRef, Revision, Uid};

use super::deny::{conflict, deleting, not_found, up_to_five};
use super::edit::tell;
use super::references::users_of_file;
use super::{Act, Decision, Verdict, World};
use crate::fleet::Stored;
use crate::plan::Telling;
use crate::status::Lens;

/// What must be cleaned up before an object of a kind may go; none = it goes at once.
pub(super) const fn finalizer(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Deployment | Kind::Process => Some("processes"),
        Kind::ConfigFile => Some("files"),
        Kind::Namespace => Some("objects"),
        Kind::Node
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Job
        | Kind::CronJob
        | Kind::Secret
        | Kind::Service
        | Kind::ResourceQuota
        | Kind::Role
        | Kind::RoleBinding
        | Kind::PriorityClass => None,
    }
}

/// Decides about a deletion.
///
/// # Errors
/// Not there, still in use, or alive.
pub fn delete(world: &World<'_>, request: &DeleteRequest) -> Result<Verdict<DeleteReply>, ApiError> {
    let name = &request.object;
    let Some(stored) = world.fleet.objects.get(name) else { return delete_made(world, request) };
    let object = &*stored.value;
    let reply = |gone| DeleteReply { uid: object.metadata.uid, gone, revision: stored.revision };
    if object.is_deleting() {
        return Ok(Verdict { decision: Decision::default(), reply: reply(false) });
    }
    if !request.force {
        may_go(world, name, stored)?;
    }
    if name.kind == Kind::Namespace {
        namespace_may_go(world, name)?;
    }
    let mut decision = Decision::default();
    let why = request.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    tell(&mut decision, object, Reason::Deleted, format!("deleted by {}{why}", world.by.actor));
    let gone = match finalizer(name.kind) {
        None => {
            decision.put(world.fleet, Key::Object(name.clone()), Act::Delete);
            true
        }
        Some(finalizer) => {
            let mut after = object.clone();
            after.metadata.deletion_timestamp = Some(world.by.at);
            if !after.metadata.finalizers.iter().any(|f| f == finalizer) {
                after.metadata.finalizers.push(finalizer.to_owned());
            }
            after.metadata.applied = Applied {
                actor: world.by.actor.clone(),
                verb: "delete".to_owned(),
                at: world.by.at,
                reason: request.reason.clone(),
                txn: world.by.txn,
            };
            decision.put(world.fleet, Key::Object(name.clone()), Act::Object(Box::new(after)));
            false
        }
    };
    Ok(Verdict { decision, reply: reply(gone) })
}

pub(super) fn may_go(world: &World<'_>, name: &ObjectRef, stored: &Stored<Object>) -> Result<(), ApiError> {
    match &stored.value.spec {
        Spec::ConfigFile(_) => in_use(name, &users_of_file(world.fleet, name)),
        Spec::Node(_) => match name.name.as_str().parse() {
            Ok(node) => node_may_go(world, name, &node),
            Err(_) => Ok(()),
        },
        Spec::Secret(_) => in_use(name, &crate::secret::users(world.fleet, name)),
        Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) => Ok(()),
    }
}

fn in_use(name: &ObjectRef, users: &[String]) -> Result<(), ApiError> {
    if users.is_empty() {
        return Ok(());
    }
    Err(conflict(format!(
        "{} is needed by {}; delete these first, or --force",
        name.short(),
        up_to_five(users)
    )))
}

fn node_may_go(world: &World<'_>, name: &ObjectRef, node: &NodeName) -> Result<(), ApiError> {
    let signal = world.signals.nodes.get(node);
    let heard = signal.and_then(|s| s.heard).map(|at| age(world.by.at.since_ms(at)));
    let alive = match Lens::new(world.fleet, world.signals, world.by.at).node_phase(node) {
        NodePhase::Ready | NodePhase::NotReady | NodePhase::Suspect => true,
        NodePhase::Lost => false,
        // A replica that hears nothing at all cannot say that this node is dead.
        NodePhase::Unknown => world.signals.blind.is_some() || heard.is_some(),
    };
    if !alive {
        return Ok(());
    }
    let last =
        heard.map_or_else(|| "it may be alive".to_owned(), |ago| format!("its last beat was {ago} ago"));
    Err(conflict(format!(
        "{} is not lost: {last}; cordon it, end its work and stop its agent first, or --force",
        name.short()
    )))
}

/// Holds also against force: objects without a namespace could never be reached again.
fn namespace_may_go(world: &World<'_>, name: &ObjectRef) -> Result<(), ApiError> {
    if name.name.as_str() == Namespace::default_namespace().as_str() {
        return Err(conflict("namespace/default always exists and cannot be deleted"));
    }
    let inside = |o: &&ObjectRef| o.namespace.as_ref().is_some_and(|n| n.as_str() == name.name.as_str());
    let names: Vec<String> = world.fleet.objects.keys().filter(inside).map(ObjectRef::short).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(conflict(format!(
        "{} is not empty: {}; delete what is in it first",
        name.short(),
        up_to_five(&names)
    )))
}

/// A process that a workload made has no object: deleting it means ending it, and its owner makes another.
fn delete_made(world: &World<'_>, request: &DeleteRequest) -> Result<Verdict<DeleteReply>, ApiError> {
    let name = &request.object;
    let namespace = name.namespace.clone().unwrap_or_else(Namespace::default_namespace);
    let view =
        (name.kind == Kind::Process).then(|| Lens::new(world.fleet, world.signals, world.by.at).view(name));
    let Some(view) = view.flatten() else {
        return Err(not_found(world.fleet, name.kind, &namespace, name.name.as_str()));
    };
    let uid = view.metadata.uid;
    let mut decision = Decision::default();
    if goal_of(&view) == Goal::Run {
        let record = GoalRecord {
            goal: Goal::Stop,
            reason: GoalReason::Delete,
            actor: world.by.actor.clone(),
            epoch: None,
            at: world.by.at,
        };
        decision.put(world.fleet, Key::ProcessGoal(uid), Act::Goal(record));
        decision.tell.push(telling(world, name, uid, request));
    }
    Ok(Verdict { decision, reply: DeleteReply { uid, gone: false, revision: Revision(0) } })
}

fn telling(world: &World<'_>, name: &ObjectRef, uid: Uid, request: &DeleteRequest) -> Telling {
    let node = world.fleet.processes.get(&uid).and_then(|r| r.node().cloned());
    let why = request.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    let message = format!("deleted by {}{why}", world.by.actor);
    Telling { object: name.clone(), uid: Some(uid), node, reason: Reason::Deleted, message }
}

fn goal_of(view: &View) -> Goal {
    match &view.status {
        Status::Process(status) => status.goal,
        Status::Node(_)
        | Status::Namespace(_)
        | Status::Deployment(_)
        | Status::ConfigFile(_)
        | Status::Secret(_) => Goal::Run,
    }
}

/// Refuses to change what is being deleted.
pub(super) fn must_live(world: &World<'_>, name: &ObjectRef, object: &Object) -> Result<(), ApiError> {
    match object.metadata.deletion_timestamp {
        Some(since) => Err(deleting(name, since, world.by.at)),
        None => Ok(()),
    }
}
