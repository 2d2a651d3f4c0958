//! `apply`: all documents take effect together or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use ostler_schemas::manifest::{
    Content, Finding, FindingCode, Manifest, ManifestBody, Refusal, immutable_changes,
};
use ostler_schemas::spec::{ConfigFileSpec, ContentRef, Spec};
use ostler_schemas::v1::api::{ApplyOutcome, ApplyResult};
use ostler_schemas::v1::object::{Labels, Object, Touch};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::secret::SecretVersion;
use ostler_schemas::{Key, Kind, ObjectRef, Uid};

use super::deny::{changed_since, clock, deleting_text};
use super::edit::{self, Wish};
use super::references::Future;
use super::render::{FutureNodes, RenderCheck, checks_of};
use super::secret;
use super::{Decision, NeededContent, World};
use crate::fleet::Stored;
use crate::plan::Ids;

/// Most messages of one transaction (the limit of an atomic batch of NATS); 450 objects of two messages stay below.
const TXN_MESSAGES: usize = 1_000;

/// How an apply is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Overrides findings with code `Conflict`.
    pub force: bool,
    /// Tries a version again that was rolled back from.
    pub retry: bool,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// What an apply comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Apply {
    /// What to do.
    pub decision: Decision,
    /// What to say of each document, in their order, with the objects before and after.
    pub results: Vec<ApplyResult>,
}

/// One document on its way.
struct Case<'a> {
    manifest: Manifest,
    name: ObjectRef,
    before: Option<&'a Stored<Object>>,
    spec: Spec,
    labels: Labels,
    /// What came with the document, or ahead of it.
    contents: Vec<Content>,
    /// Which one it will be, if it is new.
    uid: Uid,
}

/// Decides about the checked documents of one apply.
///
/// # Errors
/// Every finding at once, if there is any.
pub fn apply(
    world: &World<'_>,
    manifests: Vec<Manifest>,
    options: &ApplyOptions,
    ids: &mut dyn Ids,
) -> Result<Apply, Refusal> {
    let documents = manifests.len();
    let mut future = Future::new(world.fleet);
    let mut cases: Vec<Case<'_>> = manifests.into_iter().map(|m| case(world, m, ids)).collect();
    let (all, new) = secret_versions(&cases);
    for case in &mut cases {
        let before = case.before.map(|b| &b.value.spec);
        secret::note_versions(&mut case.spec, &case.name, before, world.fleet, &all);
    }
    let asked: BTreeSet<ObjectRef> = cases.iter().map(|case| case.name.clone()).collect();
    for case in &cases {
        future.add(case.name.clone(), case.spec.clone());
    }
    let mut out = Apply { decision: Decision::default(), results: Vec::new() };
    out.decision.renders = renders(&future, &cases);
    let (mut findings, mut refused) = (Vec::new(), 0);
    for case in cases {
        let (mut found, warnings) = check(world, &future, &case, options);
        if found.is_empty() {
            admit(world, case, options, warnings, &mut out);
        } else {
            refused += 1;
            findings.append(&mut found);
        }
    }
    secret::roll_others(world, &new, |name| asked.contains(name), &mut out.decision);
    if out.decision.writes.len() > TXN_MESSAGES {
        findings.push(too_many(out.decision.writes.len()));
    }
    if findings.is_empty() { Ok(out) } else { Err(Refusal { findings, refused, documents }) }
}

fn too_many(messages: usize) -> Finding {
    Finding::too_much(format!("takes {messages} messages, the limit of one transaction is {TXN_MESSAGES}"))
}

/// The Secrets of the request as they will be, and those of them that are not as they were.
fn secret_versions(cases: &[Case<'_>]) -> (secret::Versions, secret::Versions) {
    let (mut all, mut new) = (secret::Versions::new(), secret::Versions::new());
    for case in cases.iter().filter(|case| case.name.kind == Kind::Secret) {
        let version = match case.before {
            Some(before) => SecretVersion {
                u: before.metadata.uid,
                v: edit::next_version(&before.value, &case.spec, false),
            },
            None => SecretVersion { u: case.uid, v: edit::first_version(&case.spec) },
        };
        all.insert(case.name.clone(), version);
        if case.before.is_none_or(|before| before.metadata.version != version.v) {
            new.insert(case.name.clone(), version);
        }
    }
    (all, new)
}

fn case<'a>(world: &World<'a>, manifest: Manifest, ids: &mut dyn Ids) -> Case<'a> {
    let name =
        ObjectRef { kind: manifest.kind, namespace: manifest.namespace.clone(), name: manifest.name.clone() };
    let before = world.fleet.objects.get(&name);
    let contents = match &manifest.body {
        ManifestBody::ConfigFile(body) => {
            let several = body.files.iter().cloned().map(Content::Inline);
            body.content.clone().into_iter().chain(several).collect()
        }
        ManifestBody::Node(_)
        | ManifestBody::Namespace(_)
        | ManifestBody::Process(_)
        | ManifestBody::Deployment(_)
        | ManifestBody::Secret(_) => Vec::new(),
    };
    let mut labels = manifest.labels.clone();
    if let Some(node) = before.filter(|_| manifest.kind == Kind::Node) {
        let own = node.value.metadata.labels.iter().filter(|(key, _)| key.starts_with("ostler/"));
        labels.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    }
    let spec = manifest.clone().complete(before.map(|b| &b.value.spec));
    let uid = before.map_or_else(|| ids.uid(), |b| b.metadata.uid);
    Case { manifest, name, before, spec, labels, contents, uid }
}

/// What the store has to say against a document, and what is worth a warning.
fn check(
    world: &World<'_>,
    future: &Future<'_>,
    case: &Case<'_>,
    options: &ApplyOptions,
) -> (Vec<Finding>, Vec<String>) {
    let manifest = &case.manifest;
    let finding = |field: &str, code, message: String| manifest.finding(field, code, message);
    if let Some(why) = world.fleet.unreadable.get(&Key::Object(case.name.clone())) {
        let message = format!("is stored in a form that this server cannot read ({why}); use a newer one");
        return (vec![finding("", FindingCode::NotSupported, message)], Vec::new());
    }
    let mut findings = Vec::new();
    if let Some(namespace) = manifest.namespace.as_ref().filter(|n| !future.has_namespace(n)) {
        let message = format!("refers to namespace/{namespace}, which does not exist");
        findings.push(finding("metadata.namespace", FindingCode::NotFound, message));
    }
    match case.before {
        None => findings.extend(check_new(case, options)),
        Some(before) => findings.extend(check_existing(world, case, before, options)),
    }
    findings.extend(secret::check(manifest, &case.spec, case.before.map(|b| &b.value.spec)));
    let changes = case.before.is_none_or(|b| b.value.spec != case.spec);
    if !changes || !findings.is_empty() {
        return (findings, Vec::new());
    }
    let (missing, mut warnings) = future.check(manifest, &case.spec);
    findings.extend(missing);
    if let Spec::ConfigFile(spec) = &case.spec {
        findings.extend(values_without_template(manifest, spec));
        warnings.extend(future.idle_overrides(spec));
    }
    if let Spec::ConfigFile(spec) = &case.spec
        && selects_anew(case.before, &case.spec)
    {
        let conflicts = future.path_conflicts(&case.name, spec);
        findings.extend(conflicts.into_iter().map(|m| finding("spec.path", FindingCode::PathConflict, m)));
    }
    (findings, warnings)
}

/// What the manifest leaves out and keeps may be no template.
fn values_without_template(manifest: &Manifest, spec: &ConfigFileSpec) -> Vec<Finding> {
    if spec.has_template() || !spec.has_content() {
        return Vec::new();
    }
    let given = [("vars", !spec.vars.is_empty()), ("overrides", !spec.overrides.is_empty())];
    given
        .into_iter()
        .filter(|(_, is_given)| *is_given)
        .map(|(field, _)| {
            let message = format!("{field} need template");
            manifest.finding(&format!("spec.{field}"), FindingCode::Conflicting, message)
        })
        .collect()
}

/// A conflict that labels have made is the older file's to survive: only a new wish for nodes is refused.
fn selects_anew(before: Option<&Stored<Object>>, spec: &Spec) -> bool {
    match (before.map(|b| &b.value.spec), spec) {
        (Some(Spec::ConfigFile(is)), Spec::ConfigFile(next)) => {
            is.node_selector != next.node_selector || is.claims() != next.claims()
        }
        (_, _) => true,
    }
}

fn check_new(case: &Case<'_>, options: &ApplyOptions) -> Vec<Finding> {
    let manifest = &case.manifest;
    let mut findings = Vec::new();
    if manifest.kind == Kind::Node {
        let message = format!(
            "nodes register by themselves: give the host credentials with \"ostler setup --node {}\"",
            manifest.name
        );
        findings.push(manifest.finding("metadata.name", FindingCode::NotFound, message));
    }
    if let Some(had) = manifest.revision_guard.filter(|_| !options.force) {
        let message = format!(
            "does not exist any more, you have revision {had}; leave metadata.revision out to create it"
        );
        findings.push(manifest.finding("metadata.revision", FindingCode::Conflict, message));
    }
    findings
}

fn check_existing(
    world: &World<'_>,
    case: &Case<'_>,
    before: &Stored<Object>,
    options: &ApplyOptions,
) -> Vec<Finding> {
    let manifest = &case.manifest;
    let (object, now) = (&before.value, world.by.at);
    if let Some(since) = object.metadata.deletion_timestamp {
        return vec![manifest.finding("", FindingCode::Conflict, deleting_text(since, now))];
    }
    let mut findings: Vec<Finding> = immutable_changes(&object.spec, &case.spec)
        .into_iter()
        .map(|(field, message)| manifest.finding(field, FindingCode::Immutable, message))
        .collect();
    if options.force {
        return findings;
    }
    if let Some(had) = manifest.revision_guard.filter(|had| *had != before.revision) {
        let message = changed_since(before.revision, &object.metadata.applied, had, now);
        findings.push(manifest.finding("metadata.revision", FindingCode::Conflict, message));
    }
    for (field, touch) in &object.metadata.touched {
        if let Some((is, asked)) = undone(object, case, field) {
            let message = undo_message(touch, &is, &asked, world);
            findings.push(manifest.finding(field, FindingCode::Conflict, message));
        }
    }
    findings
}

fn undo_message(touch: &Touch, is: &str, asked: &str, world: &World<'_>) -> String {
    format!(
        "would undo {} by {} at {} (is {is}, asked {asked}); run \"ostler diff\", or --force",
        touch.verb,
        touch.actor,
        clock(touch.at, world.by.at)
    )
}

/// What a touched field is and what is asked for it instead, if these differ.
fn undone(object: &Object, case: &Case<'_>, field: &str) -> Option<(String, String)> {
    let differ = |is: String, asked: String| (is != asked).then_some((is, asked));
    if let Some(key) = field.strip_prefix("metadata.labels.") {
        let show = |labels: &Labels| labels.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
        return differ(show(&object.metadata.labels), show(&case.labels));
    }
    match (field, &object.spec, &case.spec) {
        ("spec.replicas", Spec::Deployment(is), Spec::Deployment(asked)) => {
            differ(is.replicas.to_string(), asked.replicas.to_string())
        }
        ("spec.paused", Spec::Deployment(is), Spec::Deployment(asked)) => {
            differ(is.paused.to_string(), asked.paused.to_string())
        }
        ("spec.paused", Spec::ConfigFile(is), Spec::ConfigFile(asked)) => {
            differ(is.paused.to_string(), asked.paused.to_string())
        }
        ("spec.template", Spec::Deployment(is), Spec::Deployment(asked)) => (is.template != asked.template)
            .then(|| ("the template that was gone back to".to_owned(), "another one".to_owned())),
        ("spec.content", Spec::ConfigFile(is), Spec::ConfigFile(asked)) => {
            let show = |spec: &ConfigFileSpec| {
                let names: Vec<String> =
                    spec.parts().map(|part| part.source.reference().sha256.short()).collect();
                if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
            };
            differ(show(is), show(asked))
        }
        ("spec.unschedulable", Spec::Node(is), Spec::Node(asked)) => {
            differ(is.unschedulable.to_string(), asked.unschedulable.to_string())
        }
        ("spec.taints", Spec::Node(is), Spec::Node(asked)) => {
            let show = |taints: &[ostler_schemas::spec::Taint]| match taints.len() {
                0 => "none".to_owned(),
                _ => taints
                    .iter()
                    .map(|t| format!("{}={}:{:?}", t.key, t.value, t.effect))
                    .collect::<Vec<_>>()
                    .join(","),
            };
            differ(show(&is.taints), show(&asked.taints))
        }
        (_, _, _) => None,
    }
}

/// Whether a manifest says something about a field that it may leave out: what it leaves out stays another verb's.
fn gives(manifest: &Manifest, field: &str) -> bool {
    match (&manifest.body, field) {
        (ManifestBody::Deployment(body), "spec.replicas") => body.replicas.is_some(),
        (ManifestBody::Deployment(body), "spec.paused") => body.paused.is_some(),
        (ManifestBody::ConfigFile(body), "spec.paused") => body.paused.is_some(),
        (ManifestBody::ConfigFile(body), "spec.content") => body.content.is_some() || body.spec.is_folder(),
        (ManifestBody::Node(body), "spec.vars") => body.vars.is_some(),
        (ManifestBody::Node(body), "spec.unschedulable") => body.unschedulable.is_some(),
        (ManifestBody::Node(body), "spec.taints") => body.taints.is_some(),
        (_, _) => true,
    }
}

fn admit(world: &World<'_>, case: Case<'_>, options: &ApplyOptions, warnings: Vec<String>, out: &mut Apply) {
    let retry = options.retry && case.before.is_some_and(|b| edit::was_rolled_back(world, b));
    let wish = Wish {
        spec: case.spec,
        labels: case.labels,
        annotations: case.manifest.annotations.clone(),
        verb: "apply",
        reason: options.reason.clone(),
        retry,
    };
    let (outcome, after, spec_changed) = match case.before {
        None => (ApplyOutcome::Created, edit::created(world, &case.name, case.uid, wish), true),
        Some(before) => {
            let mut edited = edit::edited(world, &before.value, wish);
            let touched = &mut edited.after.metadata.touched;
            if edited.changed {
                touched.retain(|field, _| !gives(&case.manifest, field));
            }
            let outcome = if edited.changed { ApplyOutcome::Configured } else { ApplyOutcome::Unchanged };
            (outcome, edited.after, edited.spec_changed)
        }
    };
    let known: Vec<ContentRef> = case.before.map(|b| contents_of(&b.value.spec)).unwrap_or_default();
    for content in contents_of(&after.spec).into_iter().filter(|content| !known.contains(content)) {
        let given = case.contents.iter().find(|given| given.reference() == content);
        let bytes = match given {
            Some(Content::Inline(bytes)) => Some(bytes.clone()),
            Some(Content::Stored(_)) | None => None,
        };
        out.decision.contents.push(NeededContent { content, bytes });
    }
    if outcome != ApplyOutcome::Unchanged {
        edit::write(&mut out.decision, world, &after, spec_changed);
        let reason = if outcome == ApplyOutcome::Created { Reason::Created } else { Reason::Configured };
        edit::tell(&mut out.decision, &after, reason, describe(&after, outcome, options));
    }
    out.results.push(ApplyResult {
        object: case.name,
        uid: after.metadata.uid,
        outcome,
        generation: after.metadata.generation,
        version: after.metadata.version,
        warnings,
        before: case.before.map(|b| (*b.value).clone()),
        after: Some(after),
    });
}

fn describe(after: &Object, outcome: ApplyOutcome, options: &ApplyOptions) -> String {
    let what = match outcome {
        ApplyOutcome::Created => "created",
        ApplyOutcome::Configured => "configured",
        ApplyOutcome::Unchanged => "unchanged",
    };
    let version = if after.metadata.version.0 > 0 {
        format!(", version {}", after.metadata.version)
    } else {
        String::new()
    };
    let forced = if options.force { ", forced" } else { "" };
    let why = options.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    format!("{what} by {}{version}{forced}{why}", after.metadata.applied.actor)
}

fn contents_of(spec: &Spec) -> Vec<ContentRef> {
    match spec {
        Spec::ConfigFile(spec) => spec.parts().map(|part| part.source.reference()).collect(),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {
            Vec::new()
        }
    }
}

/// What must render: every template of a ConfigFile that changes, and those that a changed node has.
fn renders(future: &Future<'_>, cases: &[Case<'_>]) -> Vec<RenderCheck> {
    let mut nodes = FutureNodes::new();
    for case in cases {
        if let (Spec::Node(spec), Ok(node)) = (&case.spec, case.name.name.as_str().parse()) {
            nodes.insert(node, (case.labels.clone(), spec.vars.clone()));
        }
    }
    let nodes = Arc::new(nodes);
    let mut out = Vec::new();
    for case in cases.iter().filter(|case| changes(case)) {
        match &case.spec {
            Spec::ConfigFile(spec) => {
                let at = |field: &str| case.manifest.finding(field, FindingCode::Unrenderable, "");
                out.extend(checks_of(spec, &future.selected(spec, &nodes), &nodes, &at));
            }
            Spec::Node(_) => {
                let Ok(node) = case.name.name.as_str().parse() else { continue };
                let (node, at) =
                    ([node], |_: &str| case.manifest.finding("spec.vars", FindingCode::Unrenderable, ""));
                for spec in future.files_of(&node[0], &nodes) {
                    out.extend(checks_of(spec, &node, &nodes, &at));
                }
            }
            Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => {}
        }
    }
    out
}

/// Whether anything that a template may look at changes.
fn changes(case: &Case<'_>) -> bool {
    case.before.is_none_or(|before| {
        before.value.spec != case.spec
            || (case.manifest.kind == Kind::Node && before.value.metadata.labels != case.labels)
    })
}
