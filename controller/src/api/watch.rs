//! `watch`: the objects as they are, then every change of object or status.

use std::collections::BTreeMap;
use std::sync::Arc;

use ostler_controller_core::liveness::{Signal, Signals};
use ostler_controller_core::status::{Lens, labels_of};
use ostler_schemas::v1::api::{ApiError, ListRequest, WatchChange, WatchMessage, WatchRequest};
use ostler_schemas::v1::status::{NodePhase, View};
use ostler_schemas::{NodeName, ObjectRef};

use super::reply::Responder;
use super::server::{Call, Shared};

/// Pictures are compared no more often than this: a burst of writes becomes one, and nobody waits long for the next.
const PAUSE_MS: u64 = 10;
/// After each picture a watch rests for so many times as long as that took: however many objects it shows and however
/// fast they change, it costs a small share of a core.
const REST: u64 = 4;
/// And for no longer than this, which a reader hardly sees.
const MOST_REST_MS: u64 = 250;

/// Serves a watch until its stream ends.
pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let WatchRequest { list } = call.decode(shared)?;
    let deps = &shared.deps;
    shared.fleet(call).await?;
    let (mut views, mut signals) = (deps.snapshot.subscribe(), deps.signals.clone());
    let mut shown = BTreeMap::new();
    let mut synced = false;
    let mut spoken = deps.clock.mono();
    let mut seen = None;
    loop {
        let begun = deps.clock.mono();
        views.mark_unchanged();
        signals.mark_unchanged();
        // Beats come every second and change nothing that a watch shows.
        let next = Some((deps.snapshot.fleet(), gist(&shared.signals())));
        let is_same = matches!((&seen, &next), (Some((a, b)), Some((c, d))) if Arc::ptr_eq(a, c) && b == d);
        seen = next;
        if !is_same {
            let now = picture(shared, &list);
            for (change, view) in differences(&shown, &now) {
                to.part(&WatchMessage { change: Some(change), view: Some(view) }).await?;
                spoken = deps.clock.mono();
            }
            shown = now;
        }
        if !synced {
            to.part(&WatchMessage { change: None, view: None }).await?;
            synced = true;
        }
        let took = deps.clock.mono().since_ms(begun);
        deps.clock.sleep_ms((took * REST).clamp(PAUSE_MS, MOST_REST_MS)).await;
        let due = spoken.plus_ms(deps.limits.keep_alive_ms);
        tokio::select! {
            biased;
            () = deps.clock.sleep_until(due) => {
                to.keep_alive().await?;
                spoken = deps.clock.mono();
            }
            changed = views.changed() => if changed.is_err() { return Ok(0) },
            changed = signals.changed() => if changed.is_err() { return Ok(0) },
        }
    }
}

/// What of liveness a view without its figures depends on.
fn gist(signals: &Signals) -> Vec<(NodeName, NodePhase, [bool; 3])> {
    let skewed = |s: &Signal| s.clock_offset.is_some_and(|o| o.unsigned_abs() > 2_000);
    let holder = |s: &Signal| s.beat.as_ref().is_none_or(|b| b.holder);
    let gist = |(name, s): (&NodeName, &Signal)| (name.clone(), s.phase, [s.duplicate, holder(s), skewed(s)]);
    signals.nodes.iter().map(gist).collect()
}

fn picture(shared: &Shared, list: &ListRequest) -> BTreeMap<ObjectRef, View> {
    let (fleet, signals) = (shared.deps.snapshot.fleet(), shared.signals());
    let views = Lens::for_many(&fleet, &signals, shared.deps.clock.wall()).list(list);
    views.into_iter().map(|view| (view.object().object_ref(), view)).collect()
}

/// From one picture to the next. An object remade under its name was deleted and added.
fn differences(
    before: &BTreeMap<ObjectRef, View>,
    now: &BTreeMap<ObjectRef, View>,
) -> Vec<(WatchChange, View)> {
    let mut out = Vec::new();
    for (name, view) in before {
        if now.get(name).is_none_or(|n| n.metadata.uid != view.metadata.uid) {
            out.push((WatchChange::Deleted, view.clone()));
        }
    }
    for (name, view) in now {
        match before.get(name).filter(|b| b.metadata.uid == view.metadata.uid) {
            None => out.push((WatchChange::Added, view.clone())),
            Some(known) if !is_same(known, view) => out.push((WatchChange::Modified, view.clone())),
            Some(_) => {}
        }
    }
    out
}

/// Whether two views tell a reader the same. Times that only move on, and what a beat tells each second of use, are no
/// news: else every watch of nodes would send all of them each second.
fn is_same(a: &View, b: &View) -> bool {
    a.metadata == b.metadata && a.spec == b.spec && labels_of(a) == labels_of(b) && quiet(a) == quiet(b)
}

fn quiet(view: &View) -> ostler_schemas::v1::status::Status {
    use ostler_schemas::v1::status::Status;
    let mut status = view.status.clone();
    match &mut status {
        Status::Node(node) => {
            node.last_beat = None;
            node.clock_offset = None;
            node.usage = None;
            node.conditions.iter_mut().for_each(hush);
        }
        Status::Process(process) => {
            process.conditions.iter_mut().for_each(hush);
            if process.phase != ostler_schemas::v1::report::ProcessPhase::Pending {
                process.message = None;
            }
        }
        Status::Namespace(_) | Status::Deployment(_) | Status::ConfigFile(_) | Status::Secret(_) => {}
    }
    status
}

/// Messages of conditions tell how long ago something was.
fn hush(condition: &mut ostler_schemas::v1::report::Condition) {
    condition.message.clear();
    condition.last_transition_time = ostler_schemas::time::Timestamp(0);
}
