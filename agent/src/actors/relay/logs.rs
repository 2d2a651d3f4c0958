//! Logs of processes, as an order of the control plane: read at the pace of whoever reads them.
//!
//! The lines come as the host keeps them (`ostler_schemas::v1::log_line`). An empty chunk says that all that was there
//! has been sent, and later that the node still follows.

use bytes::Bytes;
use ostler_schemas::{Name, Namespace, Uid};

use super::Chunks;
use crate::context::Shared;
use crate::ports::LogQuery;

/// How often a followed log is looked at: below what a reader notices.
const FOLLOW_MS: u64 = 250;
/// How often an empty chunk is sent while a followed log is silent, to learn whether the caller is still there.
const ALIVE_MS: u64 = 5_000;

fn named(context: &Shared, uid: &Uid) -> Option<(Namespace, Name)> {
    let board = context.board();
    board.processes.get(uid).map(|v| (v.namespace.clone(), v.name.clone()))
}

/// Carries out an order for a log.
pub(super) async fn carry_out(
    context: &Shared,
    query: LogQuery,
    follow: bool,
    chunks: &mut Chunks,
) -> Result<(), String> {
    let uid = query.uid.ok_or("the order names no process")?;
    let (namespace, name) = named(context, &uid).ok_or("the process is not on this node")?;
    // What ended says nothing more.
    let follow = follow && !query.filter.previous;
    let mut reader = context.deps.host.log(namespace, name, query).await?;
    let (mut live, mut quiet_ms) = (false, 0);
    loop {
        // Looked at before the read, so that the last lines of one that goes now are read.
        let gone = named(context, &uid).is_none();
        let piece = reader.next().await?;
        if !piece.bytes.is_empty() {
            quiet_ms = 0;
            chunks.send(&piece.bytes).await?;
            continue;
        }
        if !piece.at_end {
            continue;
        }
        if !follow || gone || piece.over {
            return Ok(());
        }
        if !live || quiet_ms >= ALIVE_MS {
            (live, quiet_ms) = (true, 0);
            chunks.one(Bytes::new(), None).await?;
        }
        context.deps.clock.sleep_ms(FOLLOW_MS).await;
        quiet_ms += FOLLOW_MS;
    }
}
