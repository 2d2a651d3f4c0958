//! From an object as it is to the object as it will be, with the writes that this takes.

use std::collections::BTreeMap;

use ostler_schemas::spec::Spec;
use ostler_schemas::v1::object::{Applied, Labels, Metadata, Object, SpecRevision, Touch};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Generation, Key, ObjectRef, Uid, Version};

use super::{Act, Decision, World};
use crate::fleet::Stored;
use crate::plan::Telling;

/// What was asked of an object.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) spec: Spec,
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
    pub(super) verb: &'static str,
    pub(super) reason: Option<String>,
    /// Makes a new version although nothing about it has changed.
    pub(super) retry: bool,
}

impl Wish {
    /// Everything as it is, by `verb`.
    pub(super) fn as_is(object: &Object, verb: &'static str, reason: Option<String>) -> Self {
        let Metadata { labels, annotations, .. } = object.metadata.clone();
        Self { spec: object.spec.clone(), labels, annotations, verb, reason, retry: false }
    }
}

/// What a wish comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Edited {
    pub(super) after: Object,
    pub(super) changed: bool,
    pub(super) spec_changed: bool,
}

fn applied(world: &World<'_>, verb: &str, reason: Option<String>) -> Applied {
    let by = world.by;
    Applied { actor: by.actor.clone(), verb: verb.to_owned(), at: by.at, reason, txn: by.txn }
}

/// A new object.
pub(super) fn created(world: &World<'_>, name: &ObjectRef, uid: Uid, mut wish: Wish) -> Object {
    let version = first_version(&wish.spec);
    super::secret::stamp(&mut wish.spec, None, version);
    Object {
        metadata: Metadata {
            name: name.name.clone(),
            namespace: name.namespace.clone(),
            uid,
            labels: wish.labels,
            annotations: wish.annotations,
            generation: Generation(1),
            version,
            creation_timestamp: world.by.at,
            deletion_timestamp: None,
            finalizers: Vec::new(),
            owner_references: Vec::new(),
            applied: applied(world, wish.verb, wish.reason),
            touched: BTreeMap::new(),
            order: None,
        },
        spec: wish.spec,
    }
}

/// The object after a wish, compared with what it was.
pub(super) fn edited(world: &World<'_>, before: &Object, wish: Wish) -> Edited {
    let mut after = before.clone();
    let version = next_version(before, &wish.spec, wish.retry);
    let spec_changed = before.spec != wish.spec || version != before.metadata.version;
    let changed = spec_changed
        || before.metadata.labels != wish.labels
        || before.metadata.annotations != wish.annotations;
    if !changed {
        return Edited { after, changed, spec_changed };
    }
    after.spec = wish.spec;
    super::secret::stamp(&mut after.spec, Some(&before.spec), version);
    after.metadata.labels = wish.labels;
    after.metadata.annotations = wish.annotations;
    after.metadata.version = version;
    if spec_changed {
        after.metadata.generation = before.metadata.generation.next();
    }
    after.metadata.applied = applied(world, wish.verb, wish.reason);
    Edited { after, changed, spec_changed }
}

pub(super) fn first_version(spec: &Spec) -> Version {
    match spec {
        Spec::Deployment(_) | Spec::Secret(_) => Version(1),
        Spec::ConfigFile(spec) => Version(u64::from(spec.has_content())),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) => Version(0),
    }
}

/// A version names what is rolled out: it rises when that changes, or when it is to be tried again.
pub(super) fn next_version(before: &Object, after: &Spec, retry: bool) -> Version {
    let rises = match (&before.spec, after) {
        (Spec::Deployment(is), Spec::Deployment(next)) => retry || is.template != next.template,
        (Spec::ConfigFile(is), Spec::ConfigFile(next)) => {
            next.has_content() && (retry || is.is_new_version(next))
        }
        (Spec::Secret(is), Spec::Secret(next)) => !next.has_values_of(is),
        (
            Spec::Node(_)
            | Spec::Namespace(_)
            | Spec::Process(_)
            | Spec::Deployment(_)
            | Spec::ConfigFile(_)
            | Spec::Secret(_),
            _,
        ) => false,
    };
    if rises { before.metadata.version.next() } else { before.metadata.version }
}

/// Notes that a verb of its own has changed a field since the last apply.
pub(super) fn touch(world: &World<'_>, object: &mut Object, field: &str, verb: &str) {
    let by = world.by;
    let touch = Touch { actor: by.actor.clone(), verb: verb.to_owned(), at: by.at };
    object.metadata.touched.insert(field.to_owned(), touch);
}

/// The writes of one object, guarded on what was seen.
pub(super) fn write(decision: &mut Decision, world: &World<'_>, after: &Object, spec_changed: bool) {
    if spec_changed {
        let metadata = &after.metadata;
        let key = Key::SpecRevision(after.object_ref(), metadata.uid, metadata.generation);
        decision.put(world.fleet, key, Act::SpecRevision(Box::new(spec_revision(after))));
    }
    decision.put(world.fleet, Key::Object(after.object_ref()), Act::Object(Box::new(after.clone())));
}

pub(super) fn spec_revision(after: &Object) -> SpecRevision {
    SpecRevision {
        generation: after.metadata.generation,
        version: after.metadata.version,
        applied: after.metadata.applied.clone(),
        // What is kept of a Secret is which values there were: an old value is gone when it is replaced.
        spec: after.spec.without_values(),
    }
}

pub(super) fn tell(decision: &mut Decision, object: &Object, reason: Reason, message: impl Into<String>) {
    let node = match &object.spec {
        Spec::Node(_) => object.metadata.name.as_str().parse().ok(),
        Spec::Namespace(_)
        | Spec::Process(_)
        | Spec::Deployment(_)
        | Spec::ConfigFile(_)
        | Spec::Secret(_) => None,
    };
    decision.tell.push(Telling {
        object: object.object_ref(),
        uid: Some(object.metadata.uid),
        node,
        reason,
        message: message.into(),
    });
}

/// Whether the version that stands in the object was rolled back from and is not in force.
pub(super) fn was_rolled_back(world: &World<'_>, before: &Stored<Object>) -> bool {
    let controller = match &before.value.spec {
        Spec::Deployment(_) => ostler_schemas::ControllerName::Deployment,
        Spec::ConfigFile(_) => ostler_schemas::ControllerName::ConfigFile,
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Secret(_) => return false,
    };
    let state = world.fleet.rollouts.get(&(controller, before.value.metadata.uid));
    state.is_some_and(|s| s.failed == before.value.metadata.version && s.failed > Version(0))
}
