//! `rollout pause`, `resume`, `abort`, `undo`, `history`: what people do about a version on its way.
//!
//! `pause` sets a field of the spec, which holds until it is taken back. `resume` and `abort` leave an order in the
//! object's metadata for the version that they are about; its number makes sure that it is obeyed once.

use std::collections::BTreeMap;

use ostler_schemas::spec::{ConfigFileSpec, DeploymentSpec, Spec};
use ostler_schemas::v1::api::{
    ApiError, ApiErrorCode, ConfigReply, RolloutChange, RolloutOp, RolloutRequest, RolloutVersion,
};
use ostler_schemas::v1::object::{Object, RolloutAct, RolloutOrder, SpecRevision};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::{RolloutPhase, RolloutState};
use ostler_schemas::{ControllerName, Generation, Kind, Namespace, ObjectRef, Revision, Version};
use serde_json::Value as Json;

use super::config;
use super::delete::must_live;
use super::deny::{conflict, invalid, not_found};
use super::edit::{self, Wish};
use super::{Decision, Verdict, World};
use crate::fleet::{Fleet, Stored};

/// Most field paths that are named as the change of a version.
const PATHS: usize = 3;

fn controller_of(kind: Kind) -> Option<ControllerName> {
    match kind {
        Kind::Deployment => Some(ControllerName::Deployment),
        Kind::ConfigFile => Some(ControllerName::ConfigFile),
        Kind::Node
        | Kind::Namespace
        | Kind::Process
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

fn find<'a>(
    fleet: &'a Fleet,
    name: &ObjectRef,
) -> Result<(&'a Stored<Object>, Option<&'a RolloutState>), ApiError> {
    let Some(controller) = controller_of(name.kind) else {
        return Err(invalid(format!("{} has no rollouts", name.short())));
    };
    let namespace = name.namespace.clone().unwrap_or_else(Namespace::default_namespace);
    let missing = || not_found(fleet, name.kind, &namespace, name.name.as_str());
    let stored = fleet.objects.get(name).ok_or_else(missing)?;
    let state = fleet.rollouts.get(&(controller, stored.value.metadata.uid)).map(|state| &*state.value);
    Ok((stored, state))
}

/// Decides about a change of a rollout; `None` if the request asks for none.
///
/// # Errors
/// No such object, or nothing that could be changed so.
pub fn rollout(
    world: &World<'_>,
    request: &RolloutRequest,
) -> Result<Option<Verdict<RolloutChange>>, ApiError> {
    let (stored, state) = find(world.fleet, &request.object)?;
    let Some(verb) = request.op.verb() else { return Ok(None) };
    must_live(world, &request.object, &stored.value)?;
    let change = Change { world, request, verb, stored, state };
    match request.op {
        RolloutOp::Status | RolloutOp::History => Ok(None),
        RolloutOp::Pause => Ok(Some(change.pause())),
        RolloutOp::Resume => Ok(Some(change.resume())),
        RolloutOp::Abort => change.abort().map(Some),
        RolloutOp::Undo { to_version } => change.undo(to_version).map(Some),
    }
}

struct Change<'a> {
    world: &'a World<'a>,
    request: &'a RolloutRequest,
    verb: &'static str,
    stored: &'a Stored<Object>,
    state: Option<&'a RolloutState>,
}

/// The spec with `paused` so, and whether it was.
fn with_paused(spec: &Spec, paused: bool) -> (Spec, bool) {
    match spec {
        Spec::Deployment(spec) => {
            let was = spec.paused;
            (Spec::Deployment(Box::new(DeploymentSpec { paused, ..DeploymentSpec::clone(spec) })), was)
        }
        Spec::ConfigFile(spec) => {
            let was = spec.paused;
            (Spec::ConfigFile(Box::new(ConfigFileSpec { paused, ..ConfigFileSpec::clone(spec) })), was)
        }
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Secret(_) => (spec.clone(), false),
    }
}

impl Change<'_> {
    fn wish(&self) -> Wish {
        Wish::as_is(&self.stored.value, self.verb, self.request.reason.clone())
    }

    fn unchanged(&self, message: String) -> Verdict<RolloutChange> {
        let reply = RolloutChange { changed: false, message, revision: self.stored.revision };
        Verdict { decision: Decision::default(), reply }
    }

    fn changed(
        &self,
        after: &Object,
        spec_changed: bool,
        (reason, message): (Reason, String),
    ) -> Verdict<RolloutChange> {
        let mut decision = Decision::default();
        edit::write(&mut decision, self.world, after, spec_changed);
        let why = self.request.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        edit::tell(&mut decision, after, reason, format!("{message} by {}{why}", self.world.by.actor));
        let reply = RolloutChange { changed: true, message, revision: self.stored.revision };
        Verdict { decision, reply }
    }

    fn pause(&self) -> Verdict<RolloutChange> {
        let name = self.request.object.short();
        let (spec, was) = with_paused(&self.stored.value.spec, true);
        if was {
            return self.unchanged(format!("{name} is paused already"));
        }
        let mut edited = edit::edited(self.world, &self.stored.value, Wish { spec, ..self.wish() });
        edit::touch(self.world, &mut edited.after, "spec.paused", self.verb);
        let told = (Reason::Configured, format!("{name} paused"));
        self.changed(&edited.after, edited.spec_changed, told)
    }

    fn resume(&self) -> Verdict<RolloutChange> {
        let name = self.request.object.short();
        let (spec, was) = with_paused(&self.stored.value.spec, false);
        let waits = self.state.is_some_and(|state| state.phase == RolloutPhase::Paused);
        if !was && !waits {
            return self.unchanged(format!("{name} is not paused"));
        }
        let mut edited = edit::edited(self.world, &self.stored.value, Wish { spec, ..self.wish() });
        if was {
            edit::touch(self.world, &mut edited.after, "spec.paused", self.verb);
        }
        if waits {
            self.order(&mut edited.after, RolloutAct::Resume);
        }
        let told = (Reason::Configured, format!("{name} resumed"));
        self.changed(&edited.after, edited.spec_changed, told)
    }

    fn abort(&self) -> Result<Verdict<RolloutChange>, ApiError> {
        let name = self.request.object.short();
        let on_its_way = self.state.filter(|state| match state.phase {
            RolloutPhase::Progressing
            | RolloutPhase::Baking
            | RolloutPhase::Paused
            | RolloutPhase::Failed => true,
            RolloutPhase::Complete
            | RolloutPhase::RollingBack
            | RolloutPhase::RolledBack
            | RolloutPhase::Unknown => false,
        });
        let Some(state) = on_its_way else {
            return Err(conflict(format!(
                "{name}: nothing rolls out; rollout undo goes back to an older version"
            )));
        };
        let mut after = self.stored.value.as_ref().clone();
        self.order(&mut after, RolloutAct::Abort);
        let told = (Reason::Configured, format!("{name} version {} aborted", state.target));
        Ok(self.changed(&after, false, told))
    }

    /// An order for the version on its way, with who gave it.
    fn order(&self, after: &mut Object, act: RolloutAct) {
        let by = self.world.by;
        let n = self.stored.value.metadata.order.as_ref().map_or(0, |order| order.n);
        // A state that was kept through a restore of the object may have seen more orders than the object has.
        let n = n.max(self.state.map_or(0, |state| state.orders)) + 1;
        let version = self.state.map_or(after.metadata.version, |state| state.target);
        let (actor, reason) = (by.actor.clone(), self.request.reason.clone());
        after.metadata.order = Some(RolloutOrder { n, act, version, actor, at: by.at, reason });
        after.metadata.applied = ostler_schemas::v1::object::Applied {
            actor: by.actor.clone(),
            verb: self.verb.to_owned(),
            at: by.at,
            reason: self.request.reason.clone(),
            txn: by.txn,
        };
    }

    fn undo(&self, to: Option<Version>) -> Result<Verdict<RolloutChange>, ApiError> {
        let name = &self.request.object;
        let Spec::Deployment(spec) = &self.stored.value.spec else {
            return self.undo_file(to);
        };
        let present = self.stored.value.metadata.version;
        let kept = kept(self.world.fleet, name, &self.stored.value);
        let good = self.state.map(|s| s.last_good).filter(|v| *v < present && *v > Version(0));
        let older = kept.keys().rev().find(|v| **v < present).copied();
        let Some(target) = to.or(good).or(older) else {
            return Err(conflict(format!("{} has no version before {present} to go back to", name.short())));
        };
        let Some(Spec::Deployment(old)) = kept.get(&target).map(|revision| &revision.spec) else {
            return Err(missing_version(name, target, &kept));
        };
        let next = DeploymentSpec { template: old.template.clone(), ..DeploymentSpec::clone(spec) };
        let wish = Wish { spec: Spec::Deployment(Box::new(next)), ..self.wish() };
        let mut edited = edit::edited(self.world, &self.stored.value, wish);
        if !edited.changed {
            let message = format!("{} unchanged, still version {present}", name.short());
            return Ok(self.unchanged(message));
        }
        edit::touch(self.world, &mut edited.after, "spec.template", self.verb);
        let version = edited.after.metadata.version;
        let message = format!("{} version {version} (was {present}), as version {target} was", name.short());
        Ok(self.changed(&edited.after, edited.spec_changed, (Reason::Configured, message)))
    }

    /// Of a file this is `config rollback`.
    fn undo_file(&self, to: Option<Version>) -> Result<Verdict<RolloutChange>, ApiError> {
        let name = &self.request.object;
        let Verdict { decision, reply } =
            config::rollback(self.world, name, to, self.request.reason.clone())?;
        let present = self.stored.value.metadata.version;
        let (changed, version) = match reply {
            ConfigReply::Changed { changed, version, .. } => (changed, version),
            _ => (false, present),
        };
        let message = if changed {
            format!("{} version {version} (was {present})", name.short())
        } else {
            format!("{} unchanged, still version {present}", name.short())
        };
        Ok(Verdict { decision, reply: RolloutChange { changed, message, revision: self.stored.revision } })
    }
}

fn missing_version(name: &ObjectRef, version: Version, kept: &BTreeMap<Version, &SpecRevision>) -> ApiError {
    let known: Vec<String> = kept.keys().map(ToString::to_string).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message = format!("{} has no version {version}; kept are: {known}", name.short());
    ApiError { code: ApiErrorCode::NotFound, ..conflict(message) }
}

/// What a transaction did to a rollout, in words.
#[must_use]
pub(super) fn done(name: &ObjectRef, op: RolloutOp, version: Version, revision: Revision) -> RolloutChange {
    let what = match op {
        RolloutOp::Pause => "paused".to_owned(),
        RolloutOp::Resume => "resumed".to_owned(),
        RolloutOp::Abort => "aborted".to_owned(),
        RolloutOp::Undo { .. } => format!("version {version}"),
        RolloutOp::Status | RolloutOp::History => String::new(),
    };
    RolloutChange { changed: true, message: format!("{} {what}", name.short()), revision }
}

/// Kept versions of an object, each by the last spec that had it.
fn kept<'a>(fleet: &'a Fleet, name: &ObjectRef, object: &Object) -> BTreeMap<Version, &'a SpecRevision> {
    kept_specs(fleet, name, object).map(|(_, revision)| (revision.version, revision)).collect()
}

fn kept_specs<'a>(
    fleet: &'a Fleet,
    name: &ObjectRef,
    object: &Object,
) -> impl Iterator<Item = (Generation, &'a SpecRevision)> {
    crate::rollout::revisions_of(fleet, name, object.metadata.uid)
        .map(|(generation, revision)| (generation, &*revision.value))
        .filter(|(_, revision)| revision.version > Version(0))
}

/// `rollout history`, newest first.
///
/// # Errors
/// No such object.
pub fn rollout_history(fleet: &Fleet, name: &ObjectRef) -> Result<Vec<RolloutVersion>, ApiError> {
    let (stored, state) = find(fleet, name)?;
    let mut first: BTreeMap<Version, &SpecRevision> = BTreeMap::new();
    for (_, revision) in kept_specs(fleet, name, &stored.value) {
        first.entry(revision.version).or_insert(revision);
    }
    let target = state.map_or(stored.value.metadata.version, |state| state.target);
    let mut before: Option<&SpecRevision> = None;
    let mut out = Vec::with_capacity(first.len());
    for (version, revision) in first {
        out.push(RolloutVersion {
            version,
            current: version == target,
            state: standing_of(state, target, version).to_owned(),
            at: revision.applied.at,
            by: revision.applied.clone(),
            change: before.map(|before| paths(&before.spec, &revision.spec)).unwrap_or_default(),
        });
        before = Some(revision);
    }
    out.reverse();
    Ok(out)
}

/// What became of a version.
pub(super) fn standing_of(state: Option<&RolloutState>, target: Version, version: Version) -> &'static str {
    if state.is_some_and(|s| s.failed == version) {
        return "RolledBack";
    }
    if target == version {
        return match state.map(|s| s.phase) {
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
        };
    }
    if state.is_some_and(|s| s.last_good == version) { "Good" } else { "Superseded" }
}

/// The first fields that differ, by dotted path.
fn paths(before: &Spec, after: &Spec) -> Vec<String> {
    let mut out = Vec::new();
    if let (Ok(before), Ok(after)) = (before.to_json(), after.to_json()) {
        differ("spec", &before, &after, &mut out);
    }
    out
}

fn differ(at: &str, before: &Json, after: &Json, out: &mut Vec<String>) {
    if before == after || out.len() >= PATHS {
        return;
    }
    match (before, after) {
        (Json::Object(before), Json::Object(after)) => {
            let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let of = |map: &serde_json::Map<String, Json>| map.get(name).cloned().unwrap_or(Json::Null);
                differ(&format!("{at}.{name}"), &of(before), &of(after), out);
            }
        }
        (_, _) => out.push(at.to_owned()),
    }
}
