//! Small changes of one object by verbs of their own: `scale`, labels, cordon, taints.

use ostler_schemas::manifest::{Document, FindingCode, Node as Tree, Options, check};
use ostler_schemas::spec::{NodeSpec, Spec, Taint};
use ostler_schemas::v1::api::{ApiError, ChangeReply, NodeChange, NodeRequest, PutRequest, ScaleRequest};
use ostler_schemas::v1::object::{Labels, Object};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Kind, Namespace, ObjectRef};
use serde_json::json;

use super::delete::must_live;
use super::deny::{conflict, invalid, not_found, refused, refused_for};
use super::edit::{self, Wish};
use super::{Decision, Verdict, World};
use crate::fleet::Stored;
use crate::status::{Found, resolve, view};

/// Labels below it are Ostler's own.
const OWN_PREFIX: &str = "ostler/";

fn find<'a>(world: &World<'a>, name: &ObjectRef) -> Result<&'a Stored<Object>, ApiError> {
    let namespace = name.namespace.clone().unwrap_or_else(Namespace::default_namespace);
    let missing = || not_found(world.fleet, name.kind, &namespace, name.name.as_str());
    let stored = world.fleet.objects.get(name).ok_or_else(missing)?;
    must_live(world, name, &stored.value)?;
    Ok(stored)
}

fn reply(name: &ObjectRef, before: &Stored<Object>, changed: bool, message: String) -> ChangeReply {
    ChangeReply { object: name.clone(), changed, message, revision: before.revision }
}

/// What a change by a verb of its own takes.
struct Change<'a> {
    before: &'a Stored<Object>,
    wish: Wish,
    touched: Vec<String>,
    reason: Reason,
    message: String,
}

fn decide(world: &World<'_>, name: &ObjectRef, change: Change<'_>) -> Verdict<ChangeReply> {
    let Change { before, wish, touched, reason, message } = change;
    let (verb, why) = (wish.verb, wish.reason.clone());
    let mut edited = edit::edited(world, &before.value, wish);
    let mut decision = Decision::default();
    if edited.changed {
        for field in &touched {
            edit::touch(world, &mut edited.after, field, verb);
        }
        edit::write(&mut decision, world, &edited.after, edited.spec_changed);
        let why = why.map(|w| format!(": {w}")).unwrap_or_default();
        edit::tell(&mut decision, &edited.after, reason, format!("{message} by {}{why}", world.by.actor));
    }
    Verdict { decision, reply: reply(name, before, edited.changed, message) }
}

/// `scale`.
///
/// # Errors
/// Not there, not scalable, or not at the expected count.
pub fn scale(
    world: &World<'_>,
    request: &ScaleRequest,
    options: &Options,
) -> Result<Verdict<ChangeReply>, ApiError> {
    let name = &request.object;
    let before = find(world, name)?;
    let Spec::Deployment(spec) = &before.value.spec else {
        return Err(invalid(format!("{} cannot be scaled: only deployments have replicas", name.short())));
    };
    let (is, asked) = (spec.replicas, request.replicas);
    if asked > options.max_replicas {
        let message = format!("is {asked}, the limit is {}", options.max_replicas);
        return Err(refused_for(name, "spec.replicas", FindingCode::TooLarge, message));
    }
    if let Some(expected) = request.if_replicas.filter(|expected| *expected != is) {
        return Err(conflict(format!("{} has {is} replicas, not {expected}", name.short())));
    }
    let mut wish = Wish::as_is(&before.value, "scale", request.reason.clone());
    wish.spec = Spec::Deployment(Box::new(ostler_schemas::spec::DeploymentSpec {
        replicas: asked,
        ..(**spec).clone()
    }));
    let message = if is == asked {
        format!("{} has {is} replicas already", name.short())
    } else {
        format!("{} scaled from {is} to {asked}", name.short())
    };
    let touched = vec!["spec.replicas".to_owned()];
    Ok(decide(world, name, Change { before, wish, touched, reason: Reason::Scaled, message }))
}

/// `put`: labels.
///
/// # Errors
/// Not there, a process of a workload, a bad label, or a label that has another value.
pub fn put(world: &World<'_>, request: &PutRequest) -> Result<Verdict<ChangeReply>, ApiError> {
    let name = &request.object;
    if name.kind == Kind::Process && !world.fleet.objects.contains_key(name) {
        return Err(made_by_another(world, name));
    }
    let before = find(world, name)?;
    let mut labels = before.value.metadata.labels.clone();
    let (mut touched, mut said) = (Vec::new(), Vec::new());
    for (key, value) in &request.labels {
        if key.starts_with(OWN_PREFIX) {
            let message = format!("{key:?} is not allowed: labels below ostler/ are Ostler's own");
            return Err(refused_for(
                name,
                &format!("metadata.labels[{key:?}]"),
                FindingCode::BadValue,
                message,
            ));
        }
        let known = labels.get(key).cloned();
        if known == *value {
            continue;
        }
        // Who removes a label says so; who sets one may not know that it has another value.
        if let (Some(known), Some(value), false) = (&known, value, request.overwrite) {
            return Err(conflict(format!(
                "{} has label {key}={known} already; to set it to {value}: --overwrite",
                name.short()
            )));
        }
        match value {
            Some(value) => labels.insert(key.clone(), value.clone()),
            None => labels.remove(key),
        };
        touched.push(format!("metadata.labels.{key}"));
        said.push(value.as_ref().map_or_else(|| format!("{key}-"), |v| format!("{key}={v}")));
    }
    check_labels(name, &labels)?;
    let message = if said.is_empty() {
        format!("{} has these labels already", name.short())
    } else {
        format!("{} labelled {}", name.short(), said.join(" "))
    };
    let wish = Wish { labels, ..Wish::as_is(&before.value, "label", None) };
    Ok(decide(world, name, Change { before, wish, touched, reason: Reason::Configured, message }))
}

fn made_by_another(world: &World<'_>, name: &ObjectRef) -> ApiError {
    let made = view(world.fleet, world.signals, world.by.at, name);
    let owner = made.as_ref().and_then(|v| v.metadata.owner_references.first());
    match owner {
        Some(owner) => {
            let owner = format!("{}/{}", owner.kind.lower(), owner.name);
            invalid(format!("{} was made by {owner}: label the template there", name.short()))
        }
        None => {
            let namespace = name.namespace.clone().unwrap_or_else(Namespace::default_namespace);
            not_found(world.fleet, name.kind, &namespace, name.name.as_str())
        }
    }
}

/// Labels by the rules, and in the words, of manifests.
pub(super) fn check_labels(name: &ObjectRef, labels: &Labels) -> Result<(), ApiError> {
    let own: serde_json::Map<String, serde_json::Value> = labels
        .iter()
        .filter(|(k, _)| !k.starts_with(OWN_PREFIX))
        .map(|(k, v)| (k.clone(), json!(v)))
        .collect();
    check_like(name, &json!({}), &own)
}

/// Checks a spec, or labels, by the rules of manifests of a Node; what is found is told of `name`.
fn check_like(
    name: &ObjectRef,
    spec: &serde_json::Value,
    labels: &serde_json::Map<String, serde_json::Value>,
) -> Result<(), ApiError> {
    let whole = json!({
        "apiVersion": "ostler/v1",
        "kind": "Node",
        "metadata": { "name": name.name.as_str(), "labels": labels },
        "spec": spec,
    });
    let tree = Tree::from_json(&whole).ok_or_else(|| invalid("nested too deep"))?;
    match check(vec![Document::new(None, tree)], &Options::default()) {
        Ok(_) => Ok(()),
        Err(mut refusal) => {
            refusal.findings.iter_mut().for_each(|f| f.object = name.short());
            Err(refused(&refusal))
        }
    }
}

/// `node`: cordon, uncordon, taints.
///
/// # Errors
/// No such node, or a bad taint.
pub fn node(world: &World<'_>, request: &NodeRequest) -> Result<Verdict<ChangeReply>, ApiError> {
    let anywhere = Namespace::default_namespace();
    let name = match resolve(world.fleet, Kind::Node, &anywhere, &request.node) {
        Found::One(name) => name,
        Found::Several(names) => {
            let names: Vec<String> = names.iter().map(ObjectRef::short).collect();
            return Err(conflict(format!("{} stands for several nodes: {}", request.node, names.join(", "))));
        }
        Found::None => return Err(not_found(world.fleet, Kind::Node, &anywhere, &request.node)),
    };
    let before = find(world, &name)?;
    let Spec::Node(spec) = &before.value.spec else {
        return Err(invalid(format!("{} is no node", name.short())));
    };
    let mut next = spec.clone();
    let (verb, field, reason, message) = match &request.change {
        NodeChange::Cordon => {
            next.unschedulable = true;
            ("cordon", "spec.unschedulable", Reason::Cordoned, format!("{} cordoned", name.short()))
        }
        NodeChange::Uncordon => {
            next.unschedulable = false;
            ("uncordon", "spec.unschedulable", Reason::Uncordoned, format!("{} uncordoned", name.short()))
        }
        NodeChange::Taint { set, remove } => {
            taint(&mut next, set, remove);
            let taints = serde_json::to_value(&next.taints).map_err(|e| invalid(e.to_string()))?;
            check_like(&name, &json!({ "taints": taints }), &serde_json::Map::new())?;
            (
                "taint",
                "spec.taints",
                Reason::Configured,
                format!("{} tainted {}", name.short(), shown(&next.taints)),
            )
        }
    };
    let message = if next == *spec { format!("{} is so already", name.short()) } else { message };
    let wish = Wish { spec: Spec::Node(next), ..Wish::as_is(&before.value, verb, request.reason.clone()) };
    let touched = vec![field.to_owned()];
    Ok(decide(world, &name, Change { before, wish, touched, reason, message }))
}

fn taint(spec: &mut NodeSpec, set: &[Taint], remove: &[(String, Option<ostler_schemas::spec::TaintEffect>)]) {
    let removed =
        |t: &Taint| remove.iter().any(|(key, effect)| *key == t.key && effect.is_none_or(|e| e == t.effect));
    spec.taints.retain(|t| !removed(t));
    for taint in set {
        spec.taints.retain(|t| t.key != taint.key || t.effect != taint.effect);
        spec.taints.push(taint.clone());
    }
}

fn shown(taints: &[Taint]) -> String {
    if taints.is_empty() {
        return "no more".to_owned();
    }
    taints.iter().map(|t| format!("{}={}:{:?}", t.key, t.value, t.effect)).collect::<Vec<_>>().join(" ")
}
