//! Tidying outside the lanes: deletions in the observed bucket, purges of old markers.

use ostler_bus::store::{Expect, Guard, Headers, Op, Txn, Write};
use ostler_controller_core::plan::Aside;

use super::Context;

/// Does what it can; what fails is found again by the next sweep.
pub(super) async fn tidy(context: Context, aside: Aside) {
    for (key, revision) in aside.observed {
        let guard = Guard::Own(Expect::Revision(revision));
        let write = Write { key, op: Op::Delete, guard, headers: Headers::new() };
        let txn = Txn { id: context.entropy.txn(), writes: vec![write] };
        if let Err(error) = context.store.commit(&txn).await {
            tracing::debug!(%error, "an old report was not deleted");
        }
    }
    let mut purged = Vec::new();
    for (key, revision) in aside.purges {
        match context.store.purge_marker(&key, revision).await {
            Ok(()) => purged.push((key, revision)),
            Err(error) => tracing::debug!(%error, %key, "a marker was not purged"),
        }
    }
    if !purged.is_empty() {
        context.snapshot.purged(&purged);
    }
}
