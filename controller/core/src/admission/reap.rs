//! The end of deletions, and the one object that always exists.

use ostler_schemas::spec::{NamespaceSpec, Spec};
use ostler_schemas::v1::object::{Labels, Object};
use ostler_schemas::v1::report::FileState;
use ostler_schemas::{Key, Namespace, NodeName, ObjectRef, Uid};

use super::delete::finalizer;
use super::edit::{self, Wish};
use super::references::namespace_ref;
use super::{Act, Decision, World};
use crate::fleet::Fleet;
use crate::plan::Ids;

/// The deletions that can be finished now, each a decision of its own: one that is overtaken must not hold up others.
/// Its `rev.` keys are left to the garbage controller.
#[must_use]
pub fn reap(fleet: &Fleet) -> Vec<Decision> {
    let ended = fleet.objects.iter().filter(|(name, stored)| {
        stored.value.is_deleting() && may_be_finished(&stored.value) && is_clean(fleet, name, &stored.value)
    });
    ended
        .map(|(name, _)| {
            let mut decision = Decision::default();
            decision.put(fleet, Key::Object(name.clone()), Act::Delete);
            decision
        })
        .collect()
}

/// Whether only this module's finalizer is left: one of a newer version is somebody else's to remove.
fn may_be_finished(object: &Object) -> bool {
    let ours = finalizer(object.spec.kind());
    object.metadata.finalizers.iter().all(|f| Some(f.as_str()) == ours)
}

fn is_clean(fleet: &Fleet, name: &ObjectRef, object: &Object) -> bool {
    let uid = &object.metadata.uid;
    match &object.spec {
        Spec::Deployment(_) | Spec::Process(_) => {
            fleet.by_owner.get(uid).is_none_or(imbl::OrdSet::is_empty) && !fleet.processes.contains_key(uid)
        }
        Spec::ConfigFile(_) => nodes_that_have(fleet, uid).next().is_none(),
        Spec::Namespace(_) => !fleet
            .objects
            .keys()
            .any(|o| o.namespace.as_ref().is_some_and(|n| n.as_str() == name.name.as_str())),
        Spec::Node(_) | Spec::Secret(_) => true,
    }
}

/// The registered nodes that have a file in their document, or say that they hold it still: its deletion waits for
/// these.
pub fn nodes_that_have<'a>(fleet: &'a Fleet, uid: &'a Uid) -> impl Iterator<Item = NodeName> + 'a {
    fleet.nodes().map(|(node, _, _)| node).filter(|node| {
        let entry =
            fleet.files_documents.get(node).is_some_and(|d| d.value.entries.iter().any(|e| e.u == *uid));
        let report = fleet.reports.get(node).and_then(|r| r.value.file(uid));
        entry || report.is_some_and(|f| f.state != FileState::Released)
    })
}

/// Makes namespace `default` where it is missing.
#[must_use]
pub fn bootstrap(world: &World<'_>, ids: &mut dyn Ids) -> Option<Decision> {
    let name = namespace_ref(&Namespace::default_namespace())?;
    let key = Key::Object(name.clone());
    if world.fleet.objects.contains_key(&name) || world.fleet.unreadable.contains_key(&key) {
        return None;
    }
    let wish = Wish {
        spec: Spec::Namespace(NamespaceSpec::default()),
        labels: Labels::new(),
        annotations: Labels::new(),
        verb: "bootstrap",
        reason: None,
        retry: false,
    };
    let after = edit::created(world, &name, ids.uid(), wish);
    let mut decision = Decision::default();
    edit::write(&mut decision, world, &after, true);
    Some(decision)
}
