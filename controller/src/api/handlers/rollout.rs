//! `rollout`: how a version spreads, and what people do about it.

use ostler_controller_core::admission::{self, Verdict, World};
use ostler_schemas::Revision;
use ostler_schemas::v1::api::{ApiError, RolloutChange, RolloutOp, RolloutReply, RolloutRequest};

use crate::api::commit::{Asking, Changed, change};
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

use super::reads::view;

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: RolloutRequest = call.decode(shared)?;
    let changed = match request.op.verb() {
        Some(_) => Some(changed(shared, call, &request).await?),
        None => None,
    };
    let fleet = shared.fleet(call).await?;
    let history = match request.op {
        RolloutOp::History => admission::rollout_history(&fleet, &request.object)?,
        RolloutOp::Status
        | RolloutOp::Pause
        | RolloutOp::Resume
        | RolloutOp::Abort
        | RolloutOp::Undo { .. } => Vec::new(),
    };
    let view = view(shared, &fleet, &request.object)?;
    to.revision = Some(fleet.revision);
    to.last(&RolloutReply { view, change: changed, history }).await?;
    Ok(0)
}

async fn changed(shared: &Shared, call: &Call, request: &RolloutRequest) -> Result<RolloutChange, ApiError> {
    let asking = Asking::of(call, request.reason.clone(), vec![request.object.clone()])?;
    let before = |world: &World<'_>| -> Result<Option<(RolloutChange, Revision)>, ApiError> {
        let done = admission::rollout_already(world, request)?;
        Ok(done.map(|done| {
            let revision = done.revision;
            (done, revision)
        }))
    };
    let changed = change(shared, asking, before, |world, _| {
        let verdict: Option<Verdict<RolloutChange>> = admission::rollout(world, request)?;
        verdict.ok_or_else(|| admission::invalid("nothing is asked to be changed"))
    });
    let Changed { reply, revision, .. } = changed.await?;
    Ok(RolloutChange { revision, ..reply })
}
