//! Logs of processes, as an order of the control plane: read at the pace of whoever reads them.

use bytes::Bytes;
use ostler_schemas::{Name, Namespace, Uid};

use super::Chunks;
use crate::context::Shared;
use crate::ports::LogPlace;

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
    uid: Uid,
    (follow, tail): (bool, Option<u64>),
    chunks: &mut Chunks,
) -> Result<(), String> {
    let (namespace, name) = named(context, &uid).ok_or("the process is not on this node")?;
    let host = &context.deps.host;
    let piece = host.log_tail(namespace.clone(), name.clone(), tail).await?;
    chunks.send(&piece.bytes).await?;
    let mut place: LogPlace = piece.next;
    let mut quiet_ms = 0;
    loop {
        let piece = host.log_more(namespace.clone(), name.clone(), place).await?;
        place = piece.next;
        if !piece.bytes.is_empty() {
            quiet_ms = 0;
            chunks.send(&piece.bytes).await?;
            continue;
        }
        if !follow || named(context, &uid).is_none() {
            return Ok(());
        }
        context.deps.clock.sleep_ms(FOLLOW_MS).await;
        quiet_ms += FOLLOW_MS;
        if quiet_ms >= ALIVE_MS {
            quiet_ms = 0;
            chunks.one(Bytes::new(), None).await?;
        }
    }
}
