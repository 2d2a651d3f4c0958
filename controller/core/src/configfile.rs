//! ConfigFiles: which version of a file is in force, and which files each node should hold.
//!
//! Two kinds of looks. `File(uid)` moves the rollout state of one ConfigFile, judged by what the nodes report; it
//! writes `s.configfile.<uid>` only. `Node(name)` writes `n.<node>.files`, a pure projection ([`project`]) of objects,
//! states and labels. Which version a node is to hold while one is on its way is told by [`waves`].
//!
//! Guarantees: nothing is written for a ConfigFile without content; a file leaves a node by a tombstone that stays
//! until the node reports that it is done; of two ConfigFiles with one path on one node the older keeps it; lost nodes
//! are counted apart and block nothing, and nothing completes on lost nodes alone.

pub mod project;
pub mod values;
pub mod waves;

use ostler_schemas::key::StateSubject;
use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::{ConfigFileSpec, Rollout, Spec};
use ostler_schemas::time::{Now, Timestamp};
use ostler_schemas::v1::document::{FileEntry, FileSpec};
use ostler_schemas::v1::object::{Labels, Object};
use ostler_schemas::v1::state::RolloutState;
use ostler_schemas::{ControllerName, DocumentKind, Key, Kind, Name, Namespace, NodeName, Uid, Version};

use crate::fleet::{Fleet, Stored, StoredTemplate};
use crate::plan::{Body, Ids, Plan};
use crate::references;
use crate::rollout::{self, Terms};

use self::waves::Field;

/// What a look is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The rollout of the ConfigFile with this uid.
    File(Uid),
    /// The files document of this node.
    Node(NodeName),
}

/// Brings one ConfigFile's rollout or one node's document about.
#[must_use]
pub fn reconcile(fleet: &Fleet, subject: &Subject, now: Now, _ids: &mut dyn Ids) -> Plan {
    match subject {
        Subject::File(uid) => roll_out(fleet, uid, now),
        Subject::Node(node) => project::reconcile(fleet, node, now),
    }
}

/// Every subject.
#[must_use]
pub fn all(fleet: &Fleet) -> Vec<Subject> {
    let files = configfiles(fleet).map(|(object, _)| Subject::File(object.metadata.uid));
    files.chain(fleet.nodes().map(|(node, ..)| Subject::Node(node))).collect()
}

/// Subjects to look at again after a change of `key`.
#[must_use]
pub fn affected(fleet: &Fleet, key: &Key) -> Vec<Subject> {
    match key {
        Key::Object(object) | Key::SpecRevision(object, ..) if object.kind == Kind::ConfigFile => {
            let file = fleet.objects.get(object).map(|o| Subject::File(o.metadata.uid));
            file.into_iter().chain(every_node(fleet)).collect()
        }
        Key::Object(object) if object.kind == Kind::Node => {
            let node = object.name.as_str().parse().ok().map(Subject::Node);
            node.into_iter().chain(moving_files(fleet)).collect()
        }
        Key::State(ControllerName::ConfigFile, StateSubject::Uid(uid)) => {
            std::iter::once(Subject::File(*uid)).chain(nodes_behind(fleet, uid)).collect()
        }
        Key::State(ControllerName::Node, _) => moving_files(fleet).collect(),
        Key::Report(node) | Key::NodeDocument(node, DocumentKind::Files) => {
            std::iter::once(Subject::Node(node.clone())).chain(moving_files(fleet)).collect()
        }
        Key::MetaIncarnation => every_node(fleet).collect(),
        Key::Object(_)
        | Key::SpecRevision(..)
        | Key::Template(_)
        | Key::ProcessSpec(_)
        | Key::ProcessTemplate(_)
        | Key::ProcessBind(_)
        | Key::ProcessGoal(_)
        | Key::NodeDocument(_, DocumentKind::Run | DocumentKind::Secrets)
        | Key::State(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaFormatFloor
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => Vec::new(),
    }
}

fn every_node(fleet: &Fleet) -> impl Iterator<Item = Subject> {
    fleet.nodes().map(|(node, ..)| Subject::Node(node))
}

/// The nodes whose document does not ask for the version that they are to hold by now. A state moves often while
/// nodes are taken few at a time, and most of them have nothing to do with it.
fn nodes_behind(fleet: &Fleet, uid: &Uid) -> Vec<Subject> {
    let state = fleet.rollouts.get(&(ControllerName::ConfigFile, *uid));
    let Some((object, state)) = fleet.object_by_uid(uid).zip(state) else {
        return every_node(fleet).collect();
    };
    let Spec::ConfigFile(spec) = &object.value.spec else { return Vec::new() };
    let is_behind = |node: &NodeName| {
        selects_node(fleet, &spec.node_selector, node)
            && waves::version_on(fleet, object, spec, state, node)
                != waves::told(fleet, uid, node).map(|(version, _)| version)
    };
    fleet.nodes().map(|(node, ..)| node).filter(is_behind).map(Subject::Node).collect()
}

/// Files whose rollout waits for what nodes say.
fn moving_files(fleet: &Fleet) -> impl Iterator<Item = Subject> {
    fleet
        .rollouts
        .iter()
        .filter(|((controller, _), state)| {
            *controller == ControllerName::ConfigFile && rollout::is_moving(state.phase)
        })
        .map(|((_, uid), _)| Subject::File(*uid))
}

/// Every ConfigFile with its spec.
pub(crate) fn configfiles(fleet: &Fleet) -> impl Iterator<Item = (&Stored<Object>, &ConfigFileSpec)> {
    fleet.of_kind(Kind::ConfigFile).filter_map(|(_, object)| match &object.value.spec {
        Spec::ConfigFile(spec) => Some((object, &**spec)),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => None,
    })
}

/// Whether a node has every label of a selector: the API's labels, and the agent's where the API sets none.
#[must_use]
pub fn selects_node(fleet: &Fleet, selector: &Labels, node: &NodeName) -> bool {
    let Some((object, _)) = fleet.node(node) else { return false };
    let report = fleet.reports.get(node);
    selector.iter().all(|(key, value)| {
        let by_agent = || report.and_then(|r| r.labels.get(key));
        object.metadata.labels.get(key).or_else(by_agent) == Some(value)
    })
}

/// The version of a ConfigFile that is in force, with what its files are to be.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// Which.
    pub version: Version,
    /// What each node is to hold.
    pub file: FileSpec,
}

/// What is in force of a ConfigFile; none while it has no content, is being deleted or has not been looked at. Content
/// and attributes are those of the version in force; how drift and removal are met is as the spec says now.
#[must_use]
pub fn in_force(fleet: &Fleet, object: &Object) -> Option<InForce> {
    if object.is_deleting() {
        return None;
    }
    let state = fleet.rollouts.get(&(ControllerName::ConfigFile, object.metadata.uid))?;
    file_of_version(fleet, object, state.target).map(|file| InForce { version: state.target, file })
}

/// What a node is to hold of a ConfigFile by now: of a version on its way only as far as its waves have come.
#[must_use]
pub fn in_force_on(fleet: &Fleet, object: &Object, node: &NodeName) -> Option<InForce> {
    if object.is_deleting() {
        return None;
    }
    let Spec::ConfigFile(spec) = &object.spec else { return None };
    let state = fleet.rollouts.get(&(ControllerName::ConfigFile, object.metadata.uid))?;
    let version = waves::version_on(fleet, object, spec, state, node)?;
    let file = file_of_version(fleet, object, version).or_else(|| held_file(fleet, object, version, node))?;
    Some(InForce { version, file })
}

/// The file spec that a node was told already, where its version is not kept any more.
fn held_file(fleet: &Fleet, object: &Object, version: Version, node: &NodeName) -> Option<FileSpec> {
    let document = fleet.files_documents.get(node)?;
    let is_it = |entry: &&FileEntry| entry.u == object.metadata.uid && entry.v == version;
    match fleet.templates.get(&document.entries.iter().find(is_it)?.d)? {
        StoredTemplate::File(file) => Some(FileSpec::clone(file)),
        StoredTemplate::Process(_) | StoredTemplate::Vars(_) => None,
    }
}

/// The file spec of one version, with the policies of the present spec.
#[must_use]
pub fn file_of_version(fleet: &Fleet, object: &Object, version: Version) -> Option<FileSpec> {
    let Spec::ConfigFile(now) = &object.spec else { return None };
    let Spec::ConfigFile(then) = rollout::spec_of_version(fleet, object, version)? else { return None };
    let (name, namespace) = (object.metadata.name.clone(), object.metadata.namespace.clone()?);
    Some(file_of((name, namespace), now, then))
}

/// The file spec of the version that `then` is, with the policies of `now`.
#[must_use]
pub fn file_of(
    (name, namespace): (Name, Namespace),
    now: &ConfigFileSpec,
    then: &ConfigFileSpec,
) -> FileSpec {
    FileSpec {
        name,
        namespace,
        path: now.path.clone(),
        owner: then.owner.clone(),
        group: then.group.clone(),
        mode: then.mode,
        content: then.content,
        template: then.template,
        files: then.files.clone(),
        unlisted: then.unlisted,
        create_directories: now.create_directories,
        validator: now.validator.clone(),
        drift: now.drift,
        on_existing: now.on_existing,
        on_remove: now.on_remove,
        on_change: now.on_change.clone(),
        probe: now.probe.clone(),
        watch: watch_of(now),
    }
}

/// For how long a node looks at what follows a change: its probe, and the processes that its actions name. It does not
/// know when its wave began to bake; a wave that is not healthy by its deadline has failed, so what is over after both is
/// judged by nobody any more.
fn watch_of(spec: &ConfigFileSpec) -> Dur {
    if spec.probe.is_none() && spec.on_change.is_empty() {
        return Dur::ZERO;
    }
    let Rollout { progress_deadline, bake, .. } = &spec.rollout;
    Dur::from_millis(progress_deadline.as_millis().saturating_add(bake.as_millis().saturating_mul(2)))
}

/// The rules that a version is rolled out by: those of its own kept spec, because a push may give rules that hold for
/// its version alone; the object's where nothing of the version is kept.
#[must_use]
pub fn rules_of_version<'a>(
    fleet: &'a Fleet,
    object: &'a Object,
    spec: &'a ConfigFileSpec,
    version: Version,
) -> &'a Rollout {
    let kept = rollout::revisions_of(fleet, &object.object_ref(), object.metadata.uid)
        .filter(|(_, revision)| revision.version == version)
        .last()
        .map(|(_, revision)| &revision.value.spec);
    match kept {
        Some(Spec::ConfigFile(kept)) => &kept.rollout,
        Some(
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_),
        )
        | None => &spec.rollout,
    }
}

/// Which of two ConfigFiles with one path keeps it: the one that was made first.
#[must_use]
pub fn seniority(object: &Object) -> (Timestamp, Uid) {
    (object.metadata.creation_timestamp, object.metadata.uid)
}

/// The nodes that hold this file or should: selected, and no older ConfigFile has the path there.
#[must_use]
pub fn nodes_of(fleet: &Fleet, object: &Object) -> Vec<NodeName> {
    let Spec::ConfigFile(spec) = &object.spec else { return Vec::new() };
    let claims = spec.claims();
    let rivals: Vec<&ConfigFileSpec> = configfiles(fleet)
        .filter(|(other, _)| seniority(other) < seniority(object))
        .filter(|(_, other_spec)| claims.collides_with(&other_spec.claims()).is_some())
        .filter(|(other, _)| in_force(fleet, other).is_some())
        .map(|(_, other_spec)| other_spec)
        .collect();
    let mine = |node: &NodeName| {
        selects_node(fleet, &spec.node_selector, node)
            && !rivals.iter().any(|rival| selects_node(fleet, &rival.node_selector, node))
    };
    fleet.nodes().map(|(node, ..)| node).filter(mine).collect()
}

fn roll_out(fleet: &Fleet, uid: &Uid, now: Now) -> Plan {
    let mut plan = Plan::nothing();
    let Some(object) = fleet.object_by_uid(uid) else {
        plan.why.push("no such object".to_owned());
        return plan;
    };
    let Spec::ConfigFile(spec) = &object.value.spec else {
        plan.why.push(format!("{} is not a ConfigFile", object.object_ref()));
        return plan;
    };
    let key = Key::State(ControllerName::ConfigFile, StateSubject::Uid(*uid));
    if object.is_deleting() {
        plan.why.push("deleted: its files are released".to_owned());
        return plan;
    }
    if fleet.unreadable.contains_key(&key) {
        plan.why.push("its state was written by a newer version; nothing is decided".to_owned());
        return plan;
    }
    if !spec.has_content() || object.metadata.version == Version(0) {
        plan.why.push("NoContent: nothing is written until content is pushed".to_owned());
        return plan;
    }
    let known = fleet.rollouts.get(&(ControllerName::ConfigFile, *uid)).map(|s| &*s.value);
    let (state, started) = rollout::admit(known, object, now);
    let mut turn = rollout::heed(state.clone(), object, terms(fleet, object, spec, &state), now);
    let terms = terms(fleet, object, spec, &turn.state);
    let field = Field::of(fleet, object, terms.rules, &turn.state);
    if rollout::waits_to_start(&turn.state) {
        let course = field.course(&turn.state);
        rollout::start(&mut turn, &course, terms.rules, now);
    }
    field.spread(&mut turn);
    let (version, sight) = (turn.state.target, field.sight(&turn.state));
    rollout::advance(&mut turn, &sight, terms, now);
    rollout::tell(&mut plan, object, started.into_iter().chain(turn.tell));
    if let Some(ms) = turn.wake_in_ms {
        plan.wake_in(ms);
    }
    plan.why.push(format!("version {version}: {}", sight.summary));
    if known != Some(&turn.state) {
        // Written with the state, so that the nodes' documents find it fresh and need not touch it each.
        if known.map(|k| k.target) != Some(turn.state.target)
            && let Some(file) = file_of_version(fleet, object, turn.state.target)
            && let Err(error) = references::file_spec(&mut plan, fleet, &file, now)
        {
            plan.why.push(format!("its file spec cannot be stored: {error}"));
        }
        plan.put(fleet, key, Body::Rollout(Box::new(turn.state)));
    }
    plan
}

fn terms<'a>(
    fleet: &'a Fleet,
    object: &'a Object,
    spec: &'a ConfigFileSpec,
    state: &RolloutState,
) -> Terms<'a> {
    let can_revert = file_of_version(fleet, object, state.last_good).is_some();
    Terms { rules: rules_of_version(fleet, object, spec, state.target), can_revert }
}

#[cfg(test)]
mod tests;
