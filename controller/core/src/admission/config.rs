//! `config push`, `rollback`, `history`, `content`: versions of a file's content.

use std::collections::BTreeMap;

use ostler_schemas::manifest::{Document, FindingCode, MAX_CONTENT, Node as Tree, Options, check};
use ostler_schemas::spec::{ConfigFileSpec, ContentRef, Source, Spec};
use ostler_schemas::v1::api::{ApiError, ConfigPush, ConfigReply, ConfigVersion};
use ostler_schemas::v1::object::{Object, SpecRevision};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::RolloutPhase;
use ostler_schemas::{ControllerName, Generation, Kind, Namespace, ObjectRef, Revision, Version};
use serde_json::json;

use super::apply::{ApplyOptions, apply};
use super::delete::must_live;
use super::deny::{conflict, invalid, not_found, refused, refused_for};
use super::edit::{self, Wish};
use super::references::selected;
use super::{Act, Decision, NeededContent, Verdict, World};
use crate::fleet::{Fleet, Stored};
use crate::plan::Ids;
use crate::status::Lens;

/// A content, and the version that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentAt {
    /// The version.
    pub version: Version,
    /// Its content.
    pub content: ContentRef,
}

fn find<'a>(
    fleet: &'a Fleet,
    name: &ObjectRef,
) -> Result<(&'a Stored<Object>, &'a ConfigFileSpec), ApiError> {
    let namespace = name.namespace.clone().unwrap_or_else(Namespace::default_namespace);
    match fleet.objects.get(name).map(|stored| (stored, &stored.value.spec)) {
        Some((stored, Spec::ConfigFile(spec))) => Ok((stored, spec)),
        Some((_, Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_))) | None => {
            Err(not_found(fleet, Kind::ConfigFile, &namespace, name.name.as_str()))
        }
    }
}

/// Kept versions of a ConfigFile, each by the last spec that had it.
fn kept<'a>(
    fleet: &'a Fleet,
    name: &ObjectRef,
    object: &Object,
) -> BTreeMap<Version, &'a Stored<SpecRevision>> {
    let uid = object.metadata.uid;
    let from = (name.clone(), uid, Generation(0));
    let mine = fleet.spec_revisions.range(from..).take_while(|((o, u, _), _)| o == name && *u == uid);
    mine.filter(|(_, revision)| revision.version > Version(0))
        .map(|(_, revision)| (revision.version, revision))
        .collect()
}

fn file_of(revision: &SpecRevision) -> Option<&ConfigFileSpec> {
    match &revision.spec {
        Spec::ConfigFile(spec) => Some(spec),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => None,
    }
}

/// `config push`.
///
/// # Errors
/// Refused content or path, another version than expected, or no object and not enough said to make one.
pub fn push(
    world: &World<'_>,
    name: &ObjectRef,
    push: &ConfigPush,
    ids: &mut dyn Ids,
) -> Result<Verdict<ConfigReply>, ApiError> {
    let bytes = inline(name, push)?;
    let Ok((before, spec)) = find(world.fleet, name) else {
        return create(world, name, push, bytes.as_ref(), ids);
    };
    must_live(world, name, &before.value)?;
    expect_version(name, before.value.metadata.version, push.if_version)?;
    if let Some(path) = push.path.as_ref().filter(|p| **p != spec.path) {
        let message =
            format!("cannot change after creation (is {}, asked {path}): create another object", spec.path);
        return Err(refused_for(name, "spec.path", FindingCode::Immutable, message));
    }
    if push.node_selector.as_ref().is_some_and(|s| *s != spec.node_selector) {
        let message =
            "is there already, for other nodes: a push changes only the content; use apply to change nodes";
        return Err(refused_for(name, "spec.nodeSelector", FindingCode::Conflicting, message));
    }
    let next = ConfigFileSpec { content: Some(push.content), ..spec.clone() };
    let retry = push.retry && edit::was_rolled_back(world, before);
    let wish = Wish { retry, ..Wish::as_is(&before.value, "config push", push.reason.clone()) };
    let mut verdict = new_version(world, (name, before), next, wish);
    if !verdict.decision.is_idle() {
        verdict.decision.contents.push(NeededContent { content: push.content, bytes });
        if let Some(bake) = push.bake {
            bake_once(&mut verdict.decision, bake);
        }
    }
    Ok(verdict)
}

/// The bake of one push holds for its version alone: it stands in the kept spec of that version, not in the object.
fn bake_once(decision: &mut Decision, bake: ostler_schemas::quantity::Dur) {
    for write in &mut decision.writes {
        match &mut write.act {
            Act::SpecRevision(revision) => match &mut revision.spec {
                Spec::ConfigFile(spec) => spec.rollout.bake = bake,
                Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {}
            },
            Act::Object(_) | Act::Goal(_) | Act::Delete => {}
        }
    }
}

fn inline(name: &ObjectRef, push: &ConfigPush) -> Result<Option<Vec<u8>>, ApiError> {
    let size = usize::try_from(push.content.size).unwrap_or(usize::MAX);
    if size > MAX_CONTENT {
        let message = format!("is {size} bytes, the limit is {MAX_CONTENT}");
        return Err(refused_for(name, "spec.content", FindingCode::TooLarge, message));
    }
    match &push.inline {
        None => Ok(None),
        Some(bytes) if ostler_schemas::v1::api::content_ref(bytes) == push.content => {
            Ok(Some(bytes.to_vec()))
        }
        Some(_) => Err(invalid("the content is not what its hash says")),
    }
}

fn expect_version(name: &ObjectRef, is: Version, expected: Option<Version>) -> Result<(), ApiError> {
    match expected.filter(|e| *e != is) {
        Some(expected) => Err(conflict(format!("{} has version {is}, not {expected}", name.short()))),
        None => Ok(()),
    }
}

/// Makes the object by the rules of manifests.
fn create(
    world: &World<'_>,
    name: &ObjectRef,
    push: &ConfigPush,
    bytes: Option<&Vec<u8>>,
    ids: &mut dyn Ids,
) -> Result<Verdict<ConfigReply>, ApiError> {
    let namespace = name.namespace.clone().unwrap_or_else(Namespace::default_namespace);
    let (Some(path), Some(selector)) = (&push.path, &push.node_selector) else {
        let missing = not_found(world.fleet, Kind::ConfigFile, &namespace, name.name.as_str());
        let hint = "to make it give --path, and -l LABELS or --all-nodes".to_owned();
        return Err(ApiError {
            hint: Some(missing.hint.map_or(hint.clone(), |near| format!("{near} {hint}"))),
            ..missing
        });
    };
    expect_version(name, Version(0), push.if_version)?;
    let whole = json!({
        "apiVersion": "ostler/v1",
        "kind": "ConfigFile",
        "metadata": { "name": name.name.as_str(), "namespace": namespace.as_str() },
        "spec": { "path": path, "nodeSelector": selector },
    });
    let tree = Tree::from_json(&whole).ok_or_else(|| invalid("nested too deep"))?;
    let document = Document { content: Some(Source::Content(push.content)), ..Document::new(None, tree) };
    let manifests = check(vec![document], &Options::default()).map_err(|r| refused(&r))?;
    let options = ApplyOptions { reason: push.reason.clone(), ..ApplyOptions::default() };
    let mut applied = apply(world, manifests, &options, ids).map_err(|r| refused(&r))?;
    for needed in &mut applied.decision.contents {
        needed.bytes = bytes.cloned();
    }
    for write in &mut applied.decision.writes {
        match &mut write.act {
            Act::Object(object) => "config push".clone_into(&mut object.metadata.applied.verb),
            Act::SpecRevision(revision) => "config push".clone_into(&mut revision.applied.verb),
            Act::Goal(_) | Act::Delete => {}
        }
    }
    if let Some(bake) = push.bake {
        bake_once(&mut applied.decision, bake);
    }
    let after = applied.results.first().and_then(|r| r.after.as_ref());
    let nodes = match after.map(|o| &o.spec) {
        Some(Spec::ConfigFile(spec)) => selected(world.fleet, spec).len(),
        Some(Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_)) | None => 0,
    };
    let reply = ConfigReply::Changed {
        version: Version(1),
        before: Version(0),
        changed: true,
        created: true,
        nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
        lines: None,
        revision: Revision(0),
    };
    Ok(Verdict { decision: applied.decision, reply })
}

fn new_version(
    world: &World<'_>,
    (name, before): (&ObjectRef, &Stored<Object>),
    next: ConfigFileSpec,
    wish: Wish,
) -> Verdict<ConfigReply> {
    let nodes = u32::try_from(selected(world.fleet, &next).len()).unwrap_or(u32::MAX);
    let (verb, reason) = (wish.verb, wish.reason.clone());
    let wish = Wish { spec: Spec::ConfigFile(Box::new(next)), ..wish };
    let mut edited = edit::edited(world, &before.value, wish);
    let mut decision = Decision::default();
    if edited.changed {
        edit::touch(world, &mut edited.after, "spec.content", verb);
        edit::write(&mut decision, world, &edited.after, edited.spec_changed);
        let why = reason.map(|r| format!(": {r}")).unwrap_or_default();
        let (version, was) = (edited.after.metadata.version, before.value.metadata.version);
        let message =
            format!("{} version {version} (was {was}) by {verb} of {}{why}", name.short(), world.by.actor);
        edit::tell(&mut decision, &edited.after, Reason::Configured, message);
    }
    let reply = ConfigReply::Changed {
        version: edited.after.metadata.version,
        before: before.value.metadata.version,
        changed: edited.changed,
        created: false,
        nodes,
        lines: None,
        revision: before.revision,
    };
    Verdict { decision, reply }
}

/// `config rollback`: a new version with the content, owner, group and mode of an old one.
///
/// # Errors
/// No such object, or a version that is not kept.
pub fn rollback(
    world: &World<'_>,
    name: &ObjectRef,
    to: Option<Version>,
    reason: Option<String>,
) -> Result<Verdict<ConfigReply>, ApiError> {
    let (before, spec) = find(world.fleet, name)?;
    must_live(world, name, &before.value)?;
    let present = before.value.metadata.version;
    let kept = kept(world.fleet, name, &before.value);
    let state = world.fleet.rollouts.get(&(ControllerName::ConfigFile, before.value.metadata.uid));
    let good = state.map(|s| s.last_good).filter(|v| *v < present && *v > Version(0));
    let older = kept.keys().rev().find(|v| **v < present).copied();
    let Some(target) = to.or(good).or(older) else {
        return Err(conflict(format!("{} has no version before {present} to go back to", name.short())));
    };
    let Some(old) = kept.get(&target).and_then(|r| file_of(r)).filter(|old| old.content.is_some()) else {
        return Err(missing_version(name, target, &kept));
    };
    let next = ConfigFileSpec {
        content: old.content,
        owner: old.owner.clone(),
        group: old.group.clone(),
        mode: old.mode,
        ..spec.clone()
    };
    let wish = Wish::as_is(&before.value, "config rollback", reason);
    Ok(new_version(world, (name, before), next, wish))
}

fn missing_version(
    name: &ObjectRef,
    version: Version,
    kept: &BTreeMap<Version, &Stored<SpecRevision>>,
) -> ApiError {
    let known: Vec<String> = kept.keys().map(ToString::to_string).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message = format!("{} has no version {version}; kept are: {known}", name.short());
    ApiError { code: ostler_schemas::v1::api::ApiErrorCode::NotFound, ..conflict(message) }
}

/// `config history`, newest first.
///
/// # Errors
/// No such object.
pub fn history(lens: &Lens<'_>, fleet: &Fleet, name: &ObjectRef) -> Result<Vec<ConfigVersion>, ApiError> {
    let (stored, _) = find(fleet, name)?;
    let state = fleet.rollouts.get(&(ControllerName::ConfigFile, stored.value.metadata.uid));
    let rows = lens.config_rows(name);
    let version = |(version, revision): (&Version, &&Stored<SpecRevision>)| {
        let held = rows.iter().filter(|r| r.version == *version).count();
        let target = state.map_or(stored.value.metadata.version, |s| s.target);
        let word = if state.is_some_and(|s| s.failed == *version) {
            "RolledBack"
        } else if target == *version {
            match state.map(|s| s.phase) {
                Some(RolloutPhase::Complete | RolloutPhase::RolledBack) => "Held",
                Some(
                    RolloutPhase::Progressing
                    | RolloutPhase::Baking
                    | RolloutPhase::Paused
                    | RolloutPhase::RollingBack
                    | RolloutPhase::Failed
                    | RolloutPhase::Unknown,
                )
                | None => "RollingOut",
            }
        } else if state.is_some_and(|s| s.last_good == *version) {
            "Good"
        } else {
            "Superseded"
        };
        ConfigVersion {
            version: *version,
            state: word.to_owned(),
            at: revision.applied.at,
            by: revision.applied.clone(),
            nodes: u32::try_from(held).unwrap_or(u32::MAX),
            content: file_of(revision).and_then(|s| s.content),
        }
    };
    let kept = first_of_each(fleet, name, &stored.value);
    Ok(kept.iter().rev().map(|(v, r)| version((v, r))).collect())
}

/// Kept versions, each by the first spec that had it: that is the request which made it.
fn first_of_each<'a>(
    fleet: &'a Fleet,
    name: &ObjectRef,
    object: &Object,
) -> BTreeMap<Version, &'a Stored<SpecRevision>> {
    let uid = object.metadata.uid;
    let from = (name.clone(), uid, Generation(0));
    let mut out = BTreeMap::new();
    for ((o, u, _), revision) in fleet.spec_revisions.range(from..) {
        if o != name || *u != uid {
            break;
        }
        if revision.version > Version(0) {
            out.entry(revision.version).or_insert(revision);
        }
    }
    out
}

/// The content of a version; none = the present one.
///
/// # Errors
/// No such object or version, or nothing in it yet.
pub fn content(fleet: &Fleet, name: &ObjectRef, version: Option<Version>) -> Result<ContentAt, ApiError> {
    let (stored, spec) = find(fleet, name)?;
    let present = stored.value.metadata.version;
    let wanted = version.unwrap_or(present);
    if wanted == present {
        return match spec.content {
            Some(content) => Ok(ContentAt { version: present, content }),
            None => Err(conflict(format!("{} has no content yet: ostler config push", name.short()))),
        };
    }
    let kept = kept(fleet, name, &stored.value);
    let found = kept.get(&wanted).and_then(|r| file_of(r)).and_then(|s| s.content);
    found
        .map(|content| ContentAt { version: wanted, content })
        .ok_or_else(|| missing_version(name, wanted, &kept))
}
