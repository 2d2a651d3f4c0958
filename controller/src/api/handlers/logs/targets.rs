//! Whose logs a request means, now.

use ostler_controller_core::admission::{conflict, not_found};
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::status::Lens;
use ostler_schemas::subject::LogSubject;
use ostler_schemas::v1::api::{ApiError, ListRequest, LogsOf, LogsRequest};
use ostler_schemas::v1::status::{Status, View};
use ostler_schemas::{Kind, NodeName, ObjectRef, Uid};

use crate::api::handlers::reads::find;
use crate::api::server::Shared;

/// A process that has a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) uid: Uid,
    pub(super) node: NodeName,
    pub(super) object: ObjectRef,
}

impl Target {
    /// Where its output is stored, if it is.
    pub(super) fn subject(&self) -> Option<LogSubject> {
        let namespace = self.object.namespace.clone()?;
        Some(LogSubject { node: self.node.clone(), namespace, process: self.object.name.clone() })
    }
}

/// What a request means.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub(super) placed: Vec<Target>,
    /// Processes that have no node yet.
    pub(super) unplaced: Vec<ObjectRef>,
}

/// Looks them up.
pub(super) fn resolve(shared: &Shared, fleet: &Fleet, request: &LogsRequest) -> Result<Targets, ApiError> {
    match &request.of {
        LogsOf::Process | LogsOf::Owner(Kind::Process) => one(shared, fleet, request),
        LogsOf::Owner(kind) => {
            let owner = find(fleet, *kind, &request.namespace, &request.process)?;
            let uid = match fleet.objects.get(&owner) {
                Some(stored) => stored.value.metadata.uid,
                None => return Err(not_found(fleet, *kind, &request.namespace, &request.process)),
            };
            let is_owned = |view: &View| view.metadata.owner_references.iter().any(|o| o.uid == uid);
            Ok(many(shared, fleet, (request, &[]), is_owned))
        }
        LogsOf::Selected(labels) => Ok(many(shared, fleet, (request, labels), |_| true)),
    }
}

fn one(shared: &Shared, fleet: &Fleet, request: &LogsRequest) -> Result<Targets, ApiError> {
    let object = find(fleet, Kind::Process, &request.namespace, &request.process)?;
    let signals = shared.signals();
    let view = Lens::new(fleet, &signals, shared.deps.clock.wall()).view(&object);
    let status = view.map(|v| (v.metadata.uid, v.status));
    let Some((uid, Status::Process(status))) = status else {
        return Err(conflict(format!("{} is no process", object.short())));
    };
    match status.node.clone() {
        Some(node) => Ok(Targets { placed: vec![Target { uid, node, object }], unplaced: Vec::new() }),
        None => {
            let why = status.message.unwrap_or_default();
            Err(conflict(format!("{} has no logs: it has no node yet ({why})", object.short())))
        }
    }
}

fn many(
    shared: &Shared,
    fleet: &Fleet,
    (request, labels): (&LogsRequest, &[ostler_schemas::v1::api::LabelRequirement]),
    wanted: impl Fn(&View) -> bool,
) -> Targets {
    let signals = shared.signals();
    let list = ListRequest {
        kind: Kind::Process,
        namespace: Some(request.namespace.clone()),
        labels: labels.to_vec(),
        names: Vec::new(),
    };
    let views = Lens::for_many(fleet, &signals, shared.deps.clock.wall()).list(&list);
    let mut targets = Targets::default();
    for view in views.into_iter().filter(wanted) {
        let Status::Process(status) = &view.status else { continue };
        let object = ObjectRef {
            kind: Kind::Process,
            namespace: Some(request.namespace.clone()),
            name: view.metadata.name.clone(),
        };
        match &status.node {
            Some(node) => {
                targets.placed.push(Target { uid: view.metadata.uid, node: node.clone(), object });
            }
            None => targets.unplaced.push(object),
        }
    }
    targets
}
