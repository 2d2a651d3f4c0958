//! From "unknown" to a definite outcome (DESIGN.md 3.2).
//!
//! A request whose answer is lost may have been done, may still be under way, or may never arrive. [`commit_definite`]
//! sends the identical transaction again until the store says what became of it, and reads what the transaction would
//! have written when the store's answer to a *resend* is a refusal: that may be the answer to our own first copy.
//!
//! Why each verdict is safe:
//!
//! * **Done** by acknowledgement: the server says so. An own guard holds for one copy only, so the transaction was done
//!   once. Done by reading: a stored message bears our transaction id, and a batch is stored whole.
//! * **Conflict** or **Refused** in answer to the *first* copy: there is no other copy, and it was not done.
//! * **Conflict** after a resend needs proof that no copy was done and none ever will be. Either
//!   1. a key that we guard on its own revision `r` now has a write that was itself guarded on `r` (header [`OVER`]):
//!      nothing came between `r` and that write, so ours did not, and `r` never returns; or an immutable key was
//!      created by another; or
//!   2. some guard was seen to have failed for good (its key has moved on), and *after that* a key of ours was seen
//!      still to have the revision that we expect: no copy was done before the second look, none can be since the
//!      first.
//! * Nothing has moved: the refusal was for a write in flight (10164). Not an answer; the transaction is sent again.
//! * **Undecidable**: every key of ours has since been written by others who do not say over what, or the deadline has
//!   passed. The caller plans nothing on those keys, tells the transaction's id, and steps back.
//!
//! What it takes for granted: revisions do not return (a store that is rolled back is another incarnation, found by the
//! informer); reads are from the stream's leader (one that does not know yet that it has been deposed could show an old
//! state to the second look of proof 2); a marker is purged no earlier than a day after it was written. A transaction
//! *without any own guard* may be done twice, so such a one must mean the same when it is done twice.

use ostler_schemas::headers as names;
use ostler_schemas::time::Mono;
use ostler_schemas::{Key, Revision, TxnId};

use crate::clock::ClockRef;
use crate::entropy::EntropyRef;
use crate::store::{CommitError, Committed, Entry, Expect, Guard, Op, Read, ReadError, StoreRef, Txn, Write};

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Done(Committed),
    /// It did not, and never will: a guard did not hold.
    Conflict,
    /// It did not, and never will.
    Refused {
        /// What the store said.
        reason: String,
        /// Whether a new transaction of the same content may succeed later.
        retryable: bool,
    },
    /// It may or may not have taken effect, and nobody can tell any more.
    Undecidable {
        /// The transaction, for people to look for.
        txn: TxnId,
    },
}

/// Header of each own-guarded write: the revision of the key that it was written over, 0 for none. So whoever lost a
/// race can see that it did.
pub const OVER: &str = "Ostler-Over";

/// Pauses between copies: the store may be electing a leader, which takes five to ten seconds.
const PAUSE_MIN_MS: u64 = 50;
/// The longest pause between copies.
const PAUSE_MAX_MS: u64 = 2_000;

/// Commits until the outcome is definite, or `deadline` on the caller's clock.
///
/// `witness` is a key that the transaction writes and that tells best whether it did: the fence for a leader's lane, the
/// `rev.` key for the API. It is only looked at first; others are looked at when it does not decide.
///
/// # Panics
/// If the transaction does not write `witness`: that is a bug of the caller.
pub async fn commit_definite(
    store: &StoreRef,
    clock: &ClockRef,
    entropy: &EntropyRef,
    txn: &Txn,
    witness: &Key,
    deadline: Mono,
) -> Outcome {
    assert!(txn.writes.iter().any(|w| w.key == *witness), "the transaction writes its witness");
    let txn = &with_traces(txn);
    match store.commit(txn).await {
        Ok(committed) => return Outcome::Done(committed),
        Err(CommitError::Conflict) => return Outcome::Conflict,
        Err(CommitError::Refused { reason, retryable }) => return Outcome::Refused { reason, retryable },
        Err(CommitError::Unknown { reason }) => {
            tracing::info!(txn = %txn.id, reason, "outcome unknown: resending");
        }
    }
    let mut pause_ms = PAUSE_MIN_MS;
    while clock.mono() < deadline {
        match store.commit(txn).await {
            Ok(committed) => return Outcome::Done(committed),
            Err(CommitError::Unknown { .. }) => {}
            Err(CommitError::Conflict | CommitError::Refused { .. }) => {
                match examine(store, txn, witness).await {
                    Ok(Finding::Done(committed)) => return Outcome::Done(committed),
                    Ok(Finding::Never) => return Outcome::Conflict,
                    Ok(Finding::Overwritten) => break,
                    // Worth another copy, or another look.
                    Ok(Finding::Open) | Err(_) => {}
                }
            }
        }
        clock.sleep_ms(pause_ms + entropy.below(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MAX_MS);
    }
    Outcome::Undecidable { txn: txn.id }
}

/// What the store shows of a transaction.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Done(Committed),
    /// Not done, and it never will be.
    Never,
    /// Not done yet; a copy may still be.
    Open,
    /// What it would have written has been written since by others.
    Overwritten,
}

/// What one key shows of the transaction.
#[derive(Debug, PartialEq, Eq)]
enum Trace {
    /// Written by it.
    Ours(Committed),
    /// Still as the transaction expects it.
    Unchanged,
    /// Written by another, who wrote over what the transaction expects.
    Instead,
    /// Written by another, over what is not known.
    Later,
}

/// Looks at the keys of a transaction until they decide. All other guards are looked at before any own key, so that a
/// key found unchanged has been found so after a guard that has failed.
async fn examine(store: &StoreRef, txn: &Txn, witness: &Key) -> Result<Finding, ReadError> {
    let mut failed = false;
    if let Some(committed) = seen(store, txn, witness).await? {
        return Ok(Finding::Done(committed));
    }
    let mut guards: Vec<(&Key, Expect)> = Vec::new();
    for write in &txn.writes {
        if let Guard::Other(key, expect) = &write.guard
            && !guards.contains(&(key, *expect))
        {
            guards.push((key, *expect));
            let last = store.get(key, Read::Leader).await?.map(|e| e.revision);
            failed |= Expect::after(last) != *expect;
        }
    }
    let mut unchanged: Vec<(&Write, Expect)> = Vec::new();
    for write in in_order(txn, witness) {
        let Guard::Own(expect) = write.guard else { continue };
        match trace(store, txn, write, expect).await? {
            Trace::Ours(committed) => return Ok(Finding::Done(committed)),
            Trace::Instead => return Ok(Finding::Never),
            Trace::Unchanged if failed => return Ok(Finding::Never),
            Trace::Unchanged => unchanged.push((write, expect)),
            Trace::Later => failed = true,
        }
    }
    if !failed {
        return Ok(Finding::Open);
    }
    // Those found unchanged before the guard that has failed prove nothing: a copy may have been done in between.
    for (write, expect) in unchanged {
        match trace(store, txn, write, expect).await? {
            Trace::Ours(committed) => return Ok(Finding::Done(committed)),
            Trace::Instead | Trace::Unchanged => return Ok(Finding::Never),
            Trace::Later => {}
        }
    }
    // All keys of ours have been written since, or there is no own guard to prove anything by.
    Ok(Finding::Overwritten)
}

/// The writes, the witness's first.
fn in_order<'a>(txn: &'a Txn, witness: &'a Key) -> impl Iterator<Item = &'a Write> {
    let (first, rest): (Vec<_>, Vec<_>) = txn.writes.iter().partition(|w| w.key == *witness);
    first.into_iter().chain(rest)
}

async fn seen(store: &StoreRef, txn: &Txn, key: &Key) -> Result<Option<Committed>, ReadError> {
    Ok(store.get(key, Read::Leader).await?.and_then(|entry| ours(&entry, txn)))
}

/// The whole transaction, if `entry` is of it.
fn ours(entry: &Entry, txn: &Txn) -> Option<Committed> {
    let (id, place) = entry.headers.get(names::TXN)?.split_once('/')?;
    let (i, count) = place.split_once('/')?;
    let (i, count): (u64, u64) = (i.parse().ok()?, count.parse().ok()?);
    let is_ours = id == txn.id.to_string() && count == txn.writes.len() as u64 && (1..=count).contains(&i);
    is_ours.then(|| Committed { last: Revision(entry.revision.0 + (count - i)), count: txn.writes.len() })
}

async fn trace(store: &StoreRef, txn: &Txn, write: &Write, expect: Expect) -> Result<Trace, ReadError> {
    let entry = store.get(&write.key, Read::Leader).await?;
    let last = entry.as_ref().map(|e| e.revision);
    if Expect::after(last) == expect {
        return Ok(Trace::Unchanged);
    }
    let Some(entry) = entry else { return Ok(Trace::Later) };
    if let Some(committed) = ours(&entry, txn) {
        return Ok(Trace::Ours(committed));
    }
    let instead = replaced(&entry) == Some(expect.sequence())
        || (expect == Expect::Absent && is_immutable(&write.key) && matches!(entry.op, Op::Put(_)));
    Ok(if instead { Trace::Instead } else { Trace::Later })
}

/// The transaction with header [`OVER`] on every write that is guarded on its own key.
fn with_traces(txn: &Txn) -> Txn {
    let mut traced = txn.clone();
    for write in &mut traced.writes {
        if let Guard::Own(expect) = write.guard {
            write.headers.set(OVER, expect.sequence().to_string());
        }
    }
    traced
}

/// The revision of its key that a stored write was guarded on, if it was made here.
fn replaced(entry: &Entry) -> Option<u64> {
    entry.headers.get(OVER)?.parse().ok()
}

/// Whether a key is written once and then only deleted (DESIGN.md 3.3).
fn is_immutable(key: &Key) -> bool {
    match key {
        Key::SpecRevision(..) | Key::Template(_) | Key::ProcessSpec(_) | Key::ProcessBind(_) => true,
        Key::Object(_)
        | Key::ProcessTemplate(_)
        | Key::ProcessGoal(_)
        | Key::NodeDocument(..)
        | Key::State(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaIncarnation
        | Key::MetaFormatFloor
        | Key::Report(_)
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => false,
    }
}

#[cfg(test)]
mod tests;
