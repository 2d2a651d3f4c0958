//! `config push`, `rollback`, `history`, `content`: versions of a file's content.

use std::collections::BTreeMap;
use std::sync::Arc;

use ostler_schemas::manifest::{Document, FindingCode, MAX_CONTENT, Manifest, Node as Tree, Options, check};
use ostler_schemas::spec::{ConfigFileSpec, ContentRef, Source, Spec, Vars, check_waves};
use ostler_schemas::v1::api::{ApiError, ConfigPush, ConfigReply, ConfigVersion};
use ostler_schemas::v1::document::NodeFacts;
use ostler_schemas::v1::object::{Object, SpecRevision};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::FileState;
use ostler_schemas::{ControllerName, Generation, Kind, Namespace, NodeName, ObjectRef, Revision, Version};
use serde_json::json;

use super::apply::{ApplyOptions, apply};
use super::delete::must_live;
use super::deny::{conflict, invalid, not_found, refused, refused_for};
use super::edit::{self, Wish};
use super::references::selected;
use super::render;
use super::{Act, Decision, NeededContent, Verdict, World};
use crate::configfile::values;
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

pub(super) fn find<'a>(
    fleet: &'a Fleet,
    name: &ObjectRef,
) -> Result<(&'a Stored<Object>, &'a ConfigFileSpec), ApiError> {
    let namespace = name.namespace.clone().unwrap_or_else(Namespace::default_namespace);
    match fleet.objects.get(name).map(|stored| (stored, &stored.value.spec)) {
        Some((stored, Spec::ConfigFile(spec))) => Ok((stored, spec)),
        Some((
            _,
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_),
        ))
        | None => Err(not_found(fleet, Kind::ConfigFile, &namespace, name.name.as_str())),
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
    if let Some(bad) = push.waves.as_ref().and_then(|waves| check_waves(waves).err()) {
        return Err(refused_for(name, "spec.rollout.waves", FindingCode::BadValue, bad.message));
    }
    let Ok((before, spec)) = find(world.fleet, name) else {
        let mut verdict = create(world, name, push, bytes.as_ref(), ids)?;
        say_waves(world, &mut verdict);
        return Ok(verdict);
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
    let next = pushed(name, spec, push)?;
    let retry =
        push.retry && (edit::was_rolled_back(world, before) || is_contested(world.fleet, &before.value));
    let wish = Wish { retry, ..Wish::as_is(&before.value, "config push", push.reason.clone()) };
    let mut verdict = new_version(world, (name, before), next, wish);
    if !verdict.decision.is_idle() {
        verdict.decision.contents.push(NeededContent { content: push.content, bytes });
        rules_once(&mut verdict.decision, push);
        say_waves(world, &mut verdict);
    }
    Ok(verdict)
}

/// Whether any node has given in to another writer: a new version of the same content has it put back again.
fn is_contested(fleet: &Fleet, object: &Object) -> bool {
    let uid = &object.metadata.uid;
    let files = fleet.reports.values().filter_map(|report| report.value.file(uid));
    files.into_iter().any(|file| file.state == FileState::Contested)
}

/// The spec with what was pushed in it.
fn pushed(name: &ObjectRef, spec: &ConfigFileSpec, push: &ConfigPush) -> Result<ConfigFileSpec, ApiError> {
    let (content, template) = match source_of(push) {
        Source::Content(content) => (Some(content), None),
        Source::Template(template) => (None, Some(template)),
    };
    if spec.is_folder() {
        let message = format!("has {} files: a push changes one file; use apply", spec.files.len());
        return Err(refused_for(name, "spec.files", FindingCode::Conflicting, message));
    }
    if template.is_none() && !(spec.vars.is_empty() && spec.overrides.is_empty()) {
        let message =
            "needs template, and a content was pushed: push it with --template, or take vars out by apply";
        return Err(refused_for(name, "spec.vars", FindingCode::Conflicting, message));
    }
    Ok(ConfigFileSpec { content, template, ..spec.clone() })
}

fn source_of(push: &ConfigPush) -> Source {
    match push.is_template {
        true => Source::Template(push.content),
        false => Source::Content(push.content),
    }
}

/// Waves and bake of one push hold for its version alone: they stand in the kept spec of that version, not in the
/// object.
fn rules_once(decision: &mut Decision, push: &ConfigPush) {
    for write in &mut decision.writes {
        match &mut write.act {
            Act::SpecRevision(revision) => match &mut revision.spec {
                Spec::ConfigFile(spec) => {
                    spec.rollout.bake = push.bake.unwrap_or(spec.rollout.bake);
                    if let Some(waves) = &push.waves {
                        spec.rollout.waves.clone_from(waves);
                        spec.rollout.pause_after.retain(|wave| (*wave as usize) < waves.len());
                    }
                }
                Spec::Node(_)
                | Spec::Namespace(_)
                | Spec::Process(_)
                | Spec::Deployment(_)
                | Spec::Secret(_) => {}
            },
            Act::Object(_) | Act::Goal(_) | Act::Delete => {}
        }
    }
}

/// Says how many nodes each wave will end with, by the rules that the new version is stored with.
fn say_waves(world: &World<'_>, verdict: &mut Verdict<ConfigReply>) {
    let (mut object, mut rules) = (None, None);
    for write in &verdict.decision.writes {
        match &write.act {
            Act::Object(after) => object = Some(&**after),
            Act::SpecRevision(revision) => {
                if let Spec::ConfigFile(spec) = &revision.spec {
                    rules = Some(&spec.rollout);
                }
            }
            Act::Goal(_) | Act::Delete => {}
        }
    }
    let sizes =
        object.zip(rules).map(|(object, rules)| crate::configfile::waves::sizes(world.fleet, object, rules));
    if let (ConfigReply::Changed { waves, .. }, Some(sizes)) = (&mut verdict.reply, sizes) {
        *waves = sizes;
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
    let document = Document { content: Some(source_of(push)), ..Document::new(None, tree) };
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
    rules_once(&mut applied.decision, push);
    let after = applied.results.first().and_then(|r| r.after.as_ref());
    let nodes = match after.map(|o| &o.spec) {
        Some(Spec::ConfigFile(spec)) => selected(world.fleet, spec).len(),
        Some(
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_),
        )
        | None => 0,
    };
    let reply = ConfigReply::Changed {
        version: Version(1),
        before: Version(0),
        changed: true,
        created: true,
        nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
        waves: Vec::new(),
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
    let selected = selected(world.fleet, &next);
    let nodes = u32::try_from(selected.len()).unwrap_or(u32::MAX);
    let unplaced = |field: &str| render::unplaced(name, field);
    let renders = render::checks_of(&next, &selected, &Arc::default(), &unplaced);
    let (verb, reason) = (wish.verb, wish.reason.clone());
    let wish = Wish { spec: Spec::ConfigFile(Box::new(next)), ..wish };
    let mut edited = edit::edited(world, &before.value, wish);
    let mut decision = Decision::default();
    if edited.changed {
        decision.renders = renders;
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
        waves: Vec::new(),
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
    let Some(old) = kept.get(&target).and_then(|r| file_of(r)).filter(|old| old.has_content()) else {
        return Err(missing_version(name, target, &kept));
    };
    let mut next = spec.clone();
    next.take_version(old);
    let wish = Wish::as_is(&before.value, "config rollback", reason);
    let mut verdict = new_version(world, (name, before), next, wish);
    say_waves(world, &mut verdict);
    Ok(verdict)
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
        let word = super::rollout::standing_of(state.map(|s| &*s.value), target, *version);
        ConfigVersion {
            version: *version,
            state: word.to_owned(),
            at: revision.applied.at,
            by: revision.applied.clone(),
            nodes: u32::try_from(held).unwrap_or(u32::MAX),
            content: file_of(revision).and_then(|s| s.parts().next()).map(|part| part.source.reference()),
            files: file_of(revision)
                .map(|s| s.files.iter().map(|f| f.name.clone()).collect())
                .unwrap_or_default(),
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

/// The spec of a version, and which one it is; none = the present one.
///
/// # Errors
/// No such object or version, or nothing in it yet.
pub fn version_of<'a>(
    fleet: &'a Fleet,
    name: &ObjectRef,
    version: Option<Version>,
) -> Result<(Version, &'a ConfigFileSpec), ApiError> {
    let (stored, spec) = find(fleet, name)?;
    let present = stored.value.metadata.version;
    let wanted = version.unwrap_or(present);
    if wanted == present {
        return match spec.has_content() {
            true => Ok((present, spec)),
            false => Err(conflict(format!("{} has no content yet: ostler config push", name.short()))),
        };
    }
    let kept = kept(fleet, name, &stored.value);
    let found = kept.get(&wanted).and_then(|r| file_of(r)).filter(|spec| spec.has_content());
    found.map(|spec| (wanted, spec)).ok_or_else(|| missing_version(name, wanted, &kept))
}

/// The content of a version, as it was written: of a template the template. `part` names one of several files.
///
/// # Errors
/// No such object, version or file, or nothing in it yet.
pub fn content(
    fleet: &Fleet,
    name: &ObjectRef,
    (version, part): (Option<Version>, Option<&str>),
) -> Result<ContentAt, ApiError> {
    let (version, spec) = version_of(fleet, name, version)?;
    let wanted = part.unwrap_or_default();
    let found = spec.parts().find(|p| p.name == wanted);
    found.map(|p| ContentAt { version, content: p.source.reference() }).ok_or_else(|| {
        let names: Vec<&str> = spec.parts().map(|p| p.name).collect();
        let message = match (wanted, spec.is_folder()) {
            ("", _) => format!("{} has several files, name one of: {}", name.short(), names.join(", ")),
            (_, true) => format!("{} has no file {wanted}, only: {}", name.short(), names.join(", ")),
            (_, false) => format!("{} is one file and has no parts", name.short()),
        };
        conflict(message)
    })
}

/// What a version, or what is yet to be applied, becomes on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendering {
    /// The file or files.
    pub spec: ConfigFileSpec,
    /// The node.
    pub node: NodeName,
    /// What is known of it.
    pub facts: NodeFacts,
    /// The file's values for it.
    pub vars: Vars,
}

/// What `config render` is about: a version of the object, or a manifest that was checked.
///
/// # Errors
/// No such object, version or node; a node of which nothing is known yet.
pub fn rendering(
    fleet: &Fleet,
    name: &ObjectRef,
    node: &NodeName,
    (version, manifest): (Option<Version>, Option<Manifest>),
) -> Result<Rendering, ApiError> {
    let spec = match manifest {
        Some(manifest) => {
            let existing = fleet.objects.get(name).map(|o| &o.value.spec);
            match manifest.complete(existing) {
                Spec::ConfigFile(spec) if spec.has_content() => *spec,
                Spec::ConfigFile(_) => return Err(conflict(format!("{} has no content", name.short()))),
                Spec::Node(_)
                | Spec::Namespace(_)
                | Spec::Process(_)
                | Spec::Deployment(_)
                | Spec::Secret(_) => {
                    return Err(invalid("the manifest is no ConfigFile"));
                }
            }
        }
        None => version_of(fleet, name, version)?.1.clone(),
    };
    if fleet.node(node).is_none() {
        let namespace = Namespace::default_namespace();
        return Err(not_found(fleet, Kind::Node, &namespace, node.as_str()));
    }
    let Some(facts) = values::facts_of(fleet, node) else {
        let message = format!("node {node} has not reported yet: what templates may say of it is not known");
        return Err(super::deny::unavailable(message));
    };
    let vars = spec.vars_for(node, &facts.labels);
    Ok(Rendering { spec, node: node.clone(), facts, vars })
}
