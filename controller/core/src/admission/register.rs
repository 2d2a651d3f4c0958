//! `register`: a node's agent makes its node known. Nodes are made by nothing else.

use ostler_schemas::spec::{NodeSpec, Spec};
use ostler_schemas::v1::api::{ApiError, RegisterReply, RegisterRequest};
use ostler_schemas::v1::object::Labels;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::{Key, NodeName, ObjectRef};

use super::change::check_labels;
use super::deny::{conflict, invalid};
use super::edit::{self, Wish};
use super::{Decision, Verdict, World};
use crate::plan::Ids;

/// Decides about a registration under the name that the bus has proved. Idempotent: a node that is known is told so,
/// and nothing of it is changed but its host's name.
///
/// # Errors
/// Another machine is alive under the name, or the host's own labels are bad.
pub fn register(
    world: &World<'_>,
    node: &NodeName,
    request: &RegisterRequest,
    ids: &mut dyn Ids,
) -> Result<Verdict<RegisterReply>, ApiError> {
    let name = ObjectRef::node(node).ok_or_else(|| invalid("not a node's name"))?;
    let rival = living_machine(world, node).filter(|machine| *machine != request.machine);
    if let Some(machine) = rival {
        return Err(conflict(format!(
            "another machine ({machine}) is alive as {node}, this one is {}: give each host credentials of its own",
            request.machine
        )));
    }
    if let Some(why) = world.fleet.unreadable.get(&Key::Object(name.clone())) {
        return Err(conflict(format!(
            "node/{node} is stored in a form that this server cannot read ({why})"
        )));
    }
    let hostname = Some(&request.facts.hostname).filter(|h| check_labels(&name, &host_label(h)).is_ok());
    let Some(before) = world.fleet.objects.get(&name) else {
        return create(world, &name, request, hostname, ids);
    };
    let mut wish = Wish::as_is(&before.value, "register", None);
    wish.labels.extend(own_labels(node, hostname));
    let edited = edit::edited(world, &before.value, wish);
    let mut decision = Decision::default();
    if edited.changed {
        edit::write(&mut decision, world, &edited.after, edited.spec_changed);
    }
    let known = world.fleet.reports.get(node).map(|r| r.value.machine.clone());
    if let Some(was) = known.filter(|was| *was != request.machine && !was.is_empty()) {
        let message = format!("machine {} takes the place of {was}", request.machine);
        edit::tell(&mut decision, &before.value, Reason::Reinstalled, message);
    }
    Ok(Verdict { decision, reply: RegisterReply { uid: before.value.metadata.uid, created: false } })
}

fn host_label(hostname: &str) -> Labels {
    Labels::from([("hostname".to_owned(), hostname.to_owned())])
}

/// Labels that only the API writes: selectors may trust them.
fn own_labels(node: &NodeName, hostname: Option<&String>) -> Labels {
    let mut labels = Labels::from([("ostler/node".to_owned(), node.to_string())]);
    labels.extend(hostname.map(|h| ("ostler/hostname".to_owned(), h.clone())));
    labels
}

/// The machine that beats under a name now.
fn living_machine(world: &World<'_>, node: &NodeName) -> Option<String> {
    let signal = world.signals.nodes.get(node)?;
    let alive = match signal.phase {
        NodePhase::Ready | NodePhase::NotReady | NodePhase::Suspect => true,
        NodePhase::Lost | NodePhase::Unknown => false,
    };
    signal.beat.as_ref().filter(|_| alive).map(|b| b.machine.clone())
}

fn create(
    world: &World<'_>,
    name: &ObjectRef,
    request: &RegisterRequest,
    hostname: Option<&String>,
    ids: &mut dyn Ids,
) -> Result<Verdict<RegisterReply>, ApiError> {
    let node: NodeName = name.name.as_str().parse().map_err(|_| invalid("not a node's name"))?;
    if let Some(own) = request.labels.keys().find(|k| k.starts_with("ostler/")) {
        return Err(invalid(format!("label {own:?} is not allowed: labels below ostler/ are Ostler's own")));
    }
    check_labels(name, &request.labels)?;
    let mut labels = request.labels.clone();
    labels.extend(own_labels(&node, hostname));
    let wish = Wish {
        spec: Spec::Node(NodeSpec::default()),
        labels,
        annotations: Labels::new(),
        verb: "register",
        reason: None,
        retry: false,
    };
    let after = edit::created(world, name, ids.uid(), wish);
    let mut decision = Decision::default();
    edit::write(&mut decision, world, &after, true);
    let facts = &request.facts;
    let message = format!("{} joined: {} on {}, agent {}", facts.hostname, facts.os, facts.arch, facts.agent);
    edit::tell(&mut decision, &after, Reason::Joined, message);
    Ok(Verdict { decision, reply: RegisterReply { uid: after.metadata.uid, created: true } })
}
