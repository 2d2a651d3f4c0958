//! `config release`: leaves the files of a ConfigFile alone again.

use ostler_schemas::v1::api::{ConfigOp, ConfigReply};

use super::{ask, file};
use crate::args::change::Release;
use crate::commands::delete;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::count;

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub(super) async fn run(session: &Session, args: &Release, out: &mut Out) -> Result<(), Failure> {
    let object = file(&args.name, &session.namespace)?;
    let op = ConfigOp::Release { force: args.force, reason: args.reason.clone() };
    let parts = ask(session, &object, op).await?;
    let Some(ConfigReply::Changed { nodes, version, .. }) = parts.into_iter().next() else {
        return Err(Failure::message("the server answered something else than was asked"));
    };
    let nodes = count(u64::from(nodes), "node", "nodes");
    out.line(&format!("{} released: version {version} stays on {nodes} as it is", object.short()))?;
    if args.wait {
        delete::gone(session, &[object], args.timeout.to_std(), out).await?;
    }
    Ok(())
}
