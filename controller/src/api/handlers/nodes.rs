//! Verbs of nodes: `register` and `asks`.

use ostler_controller_core::admission::{self, forbidden};
use ostler_schemas::NodeName;
use ostler_schemas::v1::api::{ApiError, AsksReply, AsksRequest, RegisterRequest};

use crate::api::commit::{Asking, Changed, change, never};
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

fn node(call: &Call) -> Result<NodeName, ApiError> {
    call.caller.node().ok_or_else(|| forbidden("only nodes do this"))
}

pub(super) async fn register(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let node = node(call)?;
    let request: RegisterRequest = call.decode(shared)?;
    // Registering is idempotent by itself, and agents draw no ids.
    let asking = Asking::own(&call.caller.name, call.caller.actor(), call.verb);
    let changed =
        change(shared, asking, never, |world, ids| admission::register(world, &node, &request, ids));
    let Changed { reply, .. } = changed.await?;
    to.last(&reply).await?;
    Ok(0)
}

/// Orders that this replica holds for the node. Every replica answers, each with its own.
pub(super) async fn asks(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let node = node(call)?;
    let _: AsksRequest = call.decode(shared)?;
    to.last(&AsksReply { asks: shared.asks.of(&node) }).await?;
    Ok(0)
}
