//! From rendered writes to a definite outcome, and to a snapshot that has taken it in.

use bytes::Bytes;
use ostler_bus::definite::{Outcome, commit_definite};
use ostler_bus::store::{Expect, Guard, Headers, Op, Read, Txn, Write};
use ostler_controller_core::lane::{Rendered, RenderedGuard};
use ostler_schemas::{ControllerName, Key, Revision, TxnId};

use super::Context;

/// A batch that is not decided by then is given up: its leader steps down rather than act on a guess.
const DEADLINE_MS: u64 = 20_000;
/// How long a leader waits for its own write to show in its snapshot before it goes on.
const CATCH_UP_MS: u64 = 5_000;

/// The transaction of rendered writes.
#[must_use]
pub fn transaction(id: TxnId, writes: Vec<Rendered>) -> Txn {
    Txn { id, writes: writes.into_iter().map(write).collect() }
}

fn write(rendered: Rendered) -> Write {
    let guard = match rendered.guard {
        RenderedGuard::Own(revision) => Guard::Own(Expect::after(revision)),
        RenderedGuard::Other(key, revision) => Guard::Other(key, Expect::after(revision)),
    };
    let mut headers = Headers::new();
    for (name, value) in rendered.headers {
        headers.set(name, value);
    }
    let op = rendered.value.map_or(Op::Delete, |bytes| Op::Put(Bytes::from(bytes)));
    Write { key: rendered.key, op, guard, headers }
}

/// Commits until the outcome is definite, and waits until the snapshot shows it.
pub async fn commit(context: &Context, txn: &Txn, witness: &Key) -> Outcome {
    let deadline = context.clock.now().mono.plus_ms(DEADLINE_MS);
    let outcome =
        commit_definite(&context.store, &context.clock, &context.entropy, txn, witness, deadline).await;
    if let Outcome::Done(committed) = &outcome
        && let Err(behind) = context.snapshot.at_least(committed.last, CATCH_UP_MS).await
    {
        tracing::warn!(%behind, "the snapshot lags behind our own write");
    }
    outcome
}

/// The present revision of a term, from the store's leader; none if it cannot be read now.
pub async fn term_now(context: &Context, c: ControllerName) -> Option<Revision> {
    let entry = context.store.get(&Key::Term(c), Read::Leader).await.ok()??;
    Some(entry.revision)
}
