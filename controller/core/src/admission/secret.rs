//! What admission has to say of Secrets and of those who refer to them.
//!
//! Values come here sealed: the edge of the API server has done that, and has taken the stored value where nothing
//! changed, so that comparing what is sealed tells whether something did.

use std::collections::BTreeMap;

use ostler_schemas::manifest::{Finding, FindingCode, Manifest, ManifestBody};
use ostler_schemas::sealing::PublicKey;
use ostler_schemas::spec::{SecretSpec, SecretValue, Spec};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::secret::SecretVersion;
use ostler_schemas::{Key, Kind, Name, ObjectRef, Version};

use super::edit::{self, Wish};
use super::{Act, Decision, World};
use crate::fleet::Fleet;

/// What is wrong with a Secret as it is asked for; `before` is what it has.
pub(super) fn check(manifest: &Manifest, spec: &Spec, before: Option<&Spec>) -> Vec<Finding> {
    let (ManifestBody::Secret(body), Spec::Secret(spec)) = (&manifest.body, spec) else { return Vec::new() };
    let mut findings = Vec::new();
    let has = |key: &str| matches!(before, Some(Spec::Secret(had)) if had.values.contains_key(key));
    let kept = body.values.iter().flat_map(|wish| &wish.keep);
    for key in kept.filter(|key| !has(key)) {
        let message = format!("has no value {key:?} that could be kept: give it, or take it out of keep");
        findings.push(manifest.finding("spec.keep", FindingCode::NotFound, message));
    }
    if spec.values.values().any(|value| value.sealed.is_none()) {
        let message = "cannot be kept safe: this control plane has no key for secrets; run \"ostler setup\" again, \
                       give its new file to every controller and restart them";
        findings.push(manifest.finding("spec", FindingCode::NotSupported, message));
    }
    let all: usize = spec.values.iter().map(|(key, value)| key.len() + value.size as usize).sum();
    if all > ostler_schemas::spec::MAX_SECRET {
        let limit = ostler_schemas::spec::MAX_SECRET >> 10;
        let message = format!("has {all} bytes of values with those that are kept, the limit is {limit}Ki");
        findings.push(manifest.finding("spec", FindingCode::TooLarge, message));
    }
    findings
}

/// Marks the values that a version brings.
pub(super) fn stamp(spec: &mut Spec, before: Option<&Spec>, version: Version) {
    let Spec::Secret(spec) = spec else { return };
    let old = |key: &str| match before {
        Some(Spec::Secret(had)) => had.values.get(key),
        Some(_) | None => None,
    };
    for (key, value) in &mut spec.values {
        let is_same = old(key).is_some_and(|old| old.sealed == value.sealed);
        if !is_same {
            value.since = version;
        }
    }
}

/// The Secrets as they will be, by name in one namespace.
pub(super) type Versions = BTreeMap<ObjectRef, SecretVersion>;

/// Notes in a template which Secrets it starts with at least. With `rollOnSecretChange` these are always the newest;
/// without it they change only together with something else, because by themselves they would be a new version.
pub(super) fn note_versions(
    spec: &mut Spec,
    name: &ObjectRef,
    before: Option<&Spec>,
    fleet: &Fleet,
    new: &Versions,
) {
    let Some(template) = spec.process_template() else { return };
    let (asked, rolls) = (template.secrets(), template.roll_on_secret_change);
    let had = before.and_then(Spec::process_template).map(|t| t.secret_versions.clone()).unwrap_or_default();
    let newest =
        asked.keys().filter_map(|secret| Some((secret.clone(), version_of(secret, name, fleet, new)?)));
    let newest: BTreeMap<Name, SecretVersion> = newest.collect();
    let set = |spec: &mut Spec, versions: BTreeMap<Name, SecretVersion>| {
        if let Some(template) = spec.process_template_mut() {
            template.secret_versions = versions;
        }
    };
    set(spec, had);
    if rolls || before != Some(&*spec) {
        set(spec, newest);
    }
}

fn version_of(secret: &Name, user: &ObjectRef, fleet: &Fleet, new: &Versions) -> Option<SecretVersion> {
    let secret = ObjectRef { kind: Kind::Secret, namespace: user.namespace.clone(), name: secret.clone() };
    if let Some(version) = new.get(&secret) {
        return Some(*version);
    }
    let (stored, _) = crate::secret::find(fleet, &secret)?;
    Some(SecretVersion { u: stored.value.metadata.uid, v: stored.value.metadata.version })
}

/// Those who are to start anew with a changed Secret and are not in the request themselves.
pub(super) fn roll_others(
    world: &World<'_>,
    new: &Versions,
    asked: impl Fn(&ObjectRef) -> bool,
    decision: &mut Decision,
) {
    if new.is_empty() {
        return;
    }
    let namespaces: Vec<_> = new.keys().map(|secret| &secret.namespace).collect();
    for (name, stored) in &world.fleet.objects {
        let object: &Object = &stored.value;
        let rolls = object.spec.process_template().is_some_and(|t| t.roll_on_secret_change);
        if !rolls || object.is_deleting() || !namespaces.contains(&&name.namespace) || asked(name) {
            continue;
        }
        let mut wish = Wish::as_is(object, "apply", None);
        note_versions(&mut wish.spec, name, Some(&object.spec), world.fleet, new);
        let changed: Vec<String> =
            changed_names(&object.spec, &wish.spec).map(|n| format!("secret/{n}")).collect();
        if changed.is_empty() {
            continue;
        }
        let why = format!("{} changed", changed.join(", "));
        wish.reason = Some(why.clone());
        let after = edit::edited(world, object, wish);
        edit::write(decision, world, &after.after, after.spec_changed);
        let version = after.after.metadata.version;
        let what = if version.0 > 0 { format!("version {version}: {why}") } else { why };
        edit::tell(decision, &after.after, Reason::Configured, what);
    }
}

fn changed_names<'a>(before: &'a Spec, after: &'a Spec) -> impl Iterator<Item = &'a Name> {
    let had = before.process_template().map(|t| &t.secret_versions);
    let now = after.process_template().into_iter().flat_map(|t| &t.secret_versions);
    now.filter(move |(name, version)| had.and_then(|had| had.get(*name)) != Some(*version))
        .map(|(name, _)| name)
}

/// Seals the values of one Secret anew that are sealed to another key than the newest; `anew` does it. One that cannot be
/// opened stays as it is. Neither its version nor its generation changes: it is the same.
#[must_use]
pub fn reseal(
    fleet: &Fleet,
    newest: PublicKey,
    anew: &dyn Fn(&ObjectRef, &str, &SecretValue) -> Option<SecretValue>,
) -> Option<Decision> {
    fleet.of_kind(Kind::Secret).find_map(|(name, stored)| {
        let Spec::Secret(spec) = &stored.value.spec else { return None };
        let is_old = |value: &SecretValue| value.sealed.as_ref().is_some_and(|sealed| sealed.to != newest);
        let values: BTreeMap<String, SecretValue> = spec
            .values
            .iter()
            .map(|(key, value)| {
                let fresh = is_old(value).then(|| anew(name, key, value)).flatten();
                (key.clone(), fresh.unwrap_or_else(|| value.clone()))
            })
            .collect();
        if values == spec.values {
            return None;
        }
        let spec = Spec::Secret(Box::new(SecretSpec { immutable: spec.immutable, values }));
        let after = Object { spec, ..(*stored.value).clone() };
        let mut decision = Decision::default();
        decision.put(fleet, Key::Object(name.clone()), Act::Object(Box::new(after)));
        Some(decision)
    })
}
