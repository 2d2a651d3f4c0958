//! One handler per verb. Each returns how many parts of its answer were lost (0 but for relays), or why it failed.

mod ask_node;
mod changes;
mod config;
mod events;
mod exec;
mod host_files;
mod logs;
mod nodes;
mod reads;
mod rollout;
mod top;
mod trial;

use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::ApiError;

use super::reply::Responder;
use super::server::{Call, Shared};
use super::watch;

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    match call.verb {
        Verb::Apply => changes::apply(shared, call, to).await,
        Verb::Delete => changes::delete(shared, call, to).await,
        Verb::Scale => changes::scale(shared, call, to).await,
        Verb::Put => changes::put(shared, call, to).await,
        Verb::Node => changes::node(shared, call, to).await,
        Verb::Blob => changes::blob(shared, call, to).await,
        Verb::Get => reads::get(shared, call, to).await,
        Verb::List => reads::list(shared, call, to).await,
        Verb::Rollout => rollout::handle(shared, call, to).await,
        Verb::Watch => watch::handle(shared, call, to).await,
        Verb::Config => config::handle(shared, call, to).await,
        Verb::Events => events::handle(shared, call, to).await,
        Verb::Logs => logs::handle(shared, call, to).await,
        Verb::Asks => nodes::asks(shared, call, to).await,
        Verb::Register => nodes::register(shared, call, to).await,
        Verb::Top => top::handle(shared, call, to).await,
        Verb::Exec => exec::handle(shared, call, to).await,
        // Taken by the accept loop, which keeps the order of chunks.
        Verb::Relay => Ok(0),
    }
}
