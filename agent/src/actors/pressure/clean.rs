//! Cleaning up: when a disk is short, the agent first removes what is its own and not in use, and says what that was.

use std::collections::{BTreeMap, BTreeSet};

use ostler_agent_core::pressure::Lack;
use ostler_agent_core::reclaim::{Spare, choose, words};
use ostler_schemas::Uid;
use ostler_schemas::v1::reason::Reason;

use crate::context::{Shared, lock};

/// Rounds of one cleaning: what a first look took for shared (and so for free of charge) is seen by the second.
const ROUNDS: usize = 3;

/// What a cleaning has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// File systems that are short still.
    pub(crate) lacks: Vec<Lack>,
    /// Bytes on them that would go with each process.
    pub(crate) held: BTreeMap<Uid, u64>,
}

/// Removes what can go, until enough is free or nothing is left; then weighs what processes hold.
pub(crate) async fn clean(context: &Shared) -> Cleaned {
    let mut removed = Vec::new();
    let mut lacks = lacking(context);
    for _ in 0..ROUNDS {
        let gone = if lacks.is_empty() { Vec::new() } else { remove(context, &lacks).await };
        if gone.is_empty() {
            break;
        }
        removed.extend(gone);
        lacks = lacking(context);
    }
    if let (Some(message), Some(node)) = (words(&removed), context.node_ref()) {
        let rest = if lacks.is_empty() { "" } else { "; that is not enough" };
        context.tell(node, None, Reason::DiskPressure, format!("{message}{rest}"));
    }
    let held = if lacks.is_empty() { BTreeMap::new() } else { held(context, &lacks).await };
    Cleaned { lacks, held }
}

fn lacking(context: &Shared) -> Vec<Lack> {
    context.deps.config.pressure.lacks(&context.deps.facts.readings().disks)
}

async fn remove(context: &Shared, lacks: &[Lack]) -> Vec<Spare> {
    let (host, artifacts) = (&context.deps.host, &context.deps.artifacts);
    let cached = artifacts.spare().await;
    let known = known(context).await;
    // While the holder cannot say what lives, no log is taken for one of a process that is gone.
    let logs = match &known {
        Some(known) => host.old_logs(known.clone()).await,
        None => Vec::new(),
    };
    let of_cache: BTreeSet<String> = cached.iter().map(|spare| spare.id.clone()).collect();
    let all: Vec<Spare> = cached.into_iter().chain(logs).collect();
    let (cached, logs): (Vec<Spare>, Vec<Spare>) =
        choose(&all, lacks).into_iter().partition(|spare| of_cache.contains(&spare.id));
    let mut removed = if cached.is_empty() { Vec::new() } else { artifacts.remove(cached).await };
    if let Some(known) = known.filter(|_| !logs.is_empty()) {
        removed.extend(host.remove_logs(known, logs).await);
    }
    removed
}

/// Every process that may still say something: of the holder's, of the ledger's, and of the document's. None while the
/// holder does not answer.
async fn known(context: &Shared) -> Option<BTreeSet<Uid>> {
    let listing = context.deps.host.list().await.ok()?;
    let mut known: BTreeSet<Uid> = listing.processes.iter().map(|listed| listed.uid).collect();
    known.extend(listing.leftovers.iter().map(|key| key.uid));
    known.extend(listing.exits.iter().map(|(uid, _)| *uid));
    known.extend(lock(&context.memory).units.keys().copied());
    known.extend(context.board().processes.keys().copied());
    Some(known)
}

/// What the end of each living process would give back on file systems that are short.
async fn held(context: &Shared, lacks: &[Lack]) -> BTreeMap<Uid, u64> {
    let live: Vec<_> = {
        let board = context.board();
        let live = board.processes.iter().filter(|(_, view)| view.alive);
        live.map(|(uid, view)| (*uid, view.namespace.clone(), view.name.clone())).collect()
    };
    let mut sums = BTreeMap::new();
    for held in context.deps.host.held(live).await {
        if lacks.iter().any(|lack| lack.device == held.device) {
            let sum: &mut u64 = sums.entry(held.uid).or_default();
            *sum = sum.saturating_add(held.bytes);
        }
    }
    sums
}
