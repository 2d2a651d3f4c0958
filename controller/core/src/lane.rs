//! From plans to fenced batches: one lane per controller, one batch in flight, filled by group commit.
//!
//! A batch is: a message to `fence.<c>` guarded on `term.<c>` (so the store itself proves that the term still holds);
//! one more message to the fence per key that was only read; then the writes, each guarded on its own key, no key
//! twice. Everything in it takes effect, or nothing. See DESIGN.md 3.2 and 3.10.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ostler_schemas::codec::{self, EncodeError, Wire};
use ostler_schemas::headers;
use ostler_schemas::v1::epoch::{Epoch, Fence, Incarnation, Lease, Term};
use ostler_schemas::{ControllerName, Key, ReplicaId, Revision, TxnId};

use crate::fleet::Fleet;
use crate::plan::{Act, BatchContext, Plan};

/// Most messages of one batch: NATS allows 1,000 (ADR-50); some room is kept for fence messages.
pub const BATCH_MESSAGES: usize = 980;
/// Most bytes of one batch: well below what one server stages for a batch, and a bounded pause for other writers.
pub const BATCH_BYTES: usize = 8 << 20;

/// A guard of a rendered write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderedGuard {
    /// On the written key; none = absent.
    Own(Option<Revision>),
    /// On another key; none = absent.
    Other(Key, Option<Revision>),
}

/// A write ready for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The key.
    pub key: Key,
    /// The value; none = the marker of a deletion.
    pub value: Option<Vec<u8>>,
    /// The condition.
    pub guard: RenderedGuard,
    /// Headers for people.
    pub headers: Vec<(&'static str, String)>,
}

/// The term under which a lane writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneTerm {
    /// The controller.
    pub controller: ControllerName,
    /// The leader.
    pub replica: ReplicaId,
    /// Revision of `term.<c>`.
    pub term: Revision,
    /// Nonce of the term.
    pub nonce: u32,
}

impl LaneTerm {
    /// The epoch at this moment: the store's incarnation may rise during a term.
    #[must_use]
    pub fn epoch(&self, fleet: &Fleet) -> Epoch {
        Epoch { incarnation: fleet.store_incarnation(), term: self.term, nonce: self.nonce }
    }
}

/// A plan on its way, with the number by which its sender knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The sender's number.
    pub ticket: u64,
    /// The plan.
    pub plan: Plan,
}

/// Takes from the queue what fits into one batch, in order. A plan that writes a key which the batch already writes
/// waits for the next one, and so does everything behind it that shares a key with it.
pub fn fill(queue: &mut VecDeque<Submission>, most_plans: usize) -> Vec<Submission> {
    let mut batch = Vec::new();
    let mut written: BTreeSet<Key> = BTreeSet::new();
    let mut blocked: BTreeSet<Key> = BTreeSet::new();
    let mut messages = 1;
    let mut rest = VecDeque::new();
    while let Some(next) = queue.pop_front() {
        let keys: Vec<&Key> =
            next.plan.keys().into_iter().filter(|k| !matches!(k, Key::Template(_))).collect();
        let clash = keys.iter().any(|k| written.contains(*k) || blocked.contains(*k));
        let size = next.plan.steps.len() + next.plan.reads.len();
        let full = batch.len() >= most_plans || (messages + size > BATCH_MESSAGES && !batch.is_empty());
        if clash || full {
            blocked.extend(keys.into_iter().cloned());
            rest.push_back(next);
            continue;
        }
        written.extend(keys.into_iter().cloned());
        messages += size;
        batch.push(next);
    }
    *queue = rest;
    batch
}

/// The writes of a batch.
///
/// # Errors
/// [`RenderError`] names the plan that cannot be stored; drop it and render the others.
pub fn render(
    lane: &LaneTerm,
    fleet: &Fleet,
    number: u32,
    txn: TxnId,
    batch: &[Submission],
) -> Result<Vec<Rendered>, RenderError> {
    let context = BatchContext { epoch: lane.epoch(fleet), batch: number };
    let mut writes = vec![fence_write(lane, context, txn, Key::Term(lane.controller), Some(lane.term))?];
    let mut reads: BTreeMap<&Key, Option<Revision>> = BTreeMap::new();
    for submission in batch {
        reads.extend(submission.plan.reads.iter().map(|(key, expect)| (key, *expect)));
    }
    for (key, expect) in reads {
        writes.push(fence_write(lane, context, txn, key.clone(), expect)?);
    }
    let mut templates: BTreeSet<&Key> = BTreeSet::new();
    for submission in batch {
        for step in &submission.plan.steps {
            if matches!(step.key, Key::Template(_)) && !templates.insert(&step.key) {
                continue;
            }
            let cannot =
                |source| RenderError { ticket: submission.ticket, key: step.key.to_string(), source };
            let (value, kind) = match &step.act {
                Act::Put(body) => (Some(body.render(&context).map_err(cannot)?), body.kind()),
                Act::Delete => (None, "Deleted"),
            };
            let headers = vec![
                (headers::KIND, kind.to_owned()),
                (headers::EPOCH, context.epoch.to_string()),
                (headers::ACTOR, format!("controller/{}", lane.controller)),
            ];
            let guard = RenderedGuard::Own(step.expect);
            writes.push(Rendered { key: step.key.clone(), value, guard, headers });
        }
    }
    Ok(writes)
}

/// What a batch weighs, keys and headers apart.
#[must_use]
pub fn bytes(writes: &[Rendered]) -> usize {
    writes.iter().filter_map(|write| write.value.as_ref()).map(Vec::len).sum()
}

/// A plan that cannot be stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot render {key}")]
pub struct RenderError {
    /// The plan.
    pub ticket: u64,
    /// The key whose value does not fit.
    pub key: String,
    /// Why.
    #[source]
    pub source: EncodeError,
}

fn fence_write(
    lane: &LaneTerm,
    context: BatchContext,
    txn: TxnId,
    guarded: Key,
    expect: Option<Revision>,
) -> Result<Rendered, RenderError> {
    let fence = Fence { replica: lane.replica.clone(), epoch: context.epoch, batch: context.batch, txn };
    let key = Key::Fence(lane.controller);
    put(key, &fence, RenderedGuard::Other(guarded, expect))
}

fn put<T: Wire>(key: Key, value: &T, guard: RenderedGuard) -> Result<Rendered, RenderError> {
    let cannot = |source| RenderError { ticket: 0, key: key.to_string(), source };
    let bytes = codec::encode(value).map_err(cannot)?;
    let headers = vec![(headers::KIND, T::KIND.to_owned())];
    Ok(Rendered { key, value: Some(bytes), guard, headers })
}

/// Which plans of a refused batch have been overtaken, by the snapshot: their guards do not hold any more. The others
/// may be tried again as they are.
#[must_use]
pub fn overtaken(batch: &[Submission], fleet: &Fleet) -> BTreeSet<u64> {
    let stale = |s: &&Submission| {
        let steps = s.plan.steps.iter().map(|step| (&step.key, step.expect));
        let reads = s.plan.reads.iter().map(|(key, expect)| (key, *expect));
        steps.chain(reads).any(|(key, expect)| fleet.revision_of(key) != expect)
    };
    batch.iter().filter(stale).map(|s| s.ticket).collect()
}

/// Where the records of a takeover stand in its batch.
pub const TAKEOVER_WRITES: usize = 3;

/// The writes of a takeover: per controller its lease, its fence guarded on the old term, its term; at the very first
/// start the store's incarnation before them. The revision of write `3 i + 2` (after the incarnation) is the term.
///
/// # Errors
/// Never for values made here; the type says that encoding can fail.
pub fn takeover(
    fleet: &Fleet,
    controllers: &[ControllerName],
    replica: &ReplicaId,
    nonce: u32,
    txn: TxnId,
) -> Result<Vec<Rendered>, RenderError> {
    let mut writes = Vec::new();
    if fleet.incarnation.is_none() {
        let expect = fleet.revision_of(&Key::MetaIncarnation);
        writes.push(put(Key::MetaIncarnation, &Incarnation { n: 1 }, RenderedGuard::Own(expect))?);
    }
    let incarnation = fleet.store_incarnation();
    for c in controllers {
        let lease = Key::Lease(*c);
        let term = Key::Term(*c);
        let n = fleet.leases.get(c).map_or(0, |l| l.n) + 1;
        let own = RenderedGuard::Own(fleet.revision_of(&lease));
        writes.push(put(lease, &Lease { replica: Some(replica.clone()), n }, own)?);
        let old = fleet.revision_of(&term);
        let epoch = Epoch { incarnation, term: Revision(0), nonce };
        let fence = Fence { replica: replica.clone(), epoch, batch: 0, txn };
        writes.push(put(Key::Fence(*c), &fence, RenderedGuard::Other(term.clone(), old))?);
        let record = Term { replica: replica.clone(), incarnation, nonce };
        writes.push(put(term, &record, RenderedGuard::Own(old))?);
    }
    Ok(writes)
}

/// The writes of a renewal or give-back.
///
/// # Errors
/// Never for values made here.
pub fn leases(renewals: &[(ControllerName, Lease, Revision)]) -> Result<Vec<Rendered>, RenderError> {
    let write = |(c, lease, revision): &(ControllerName, Lease, Revision)| {
        put(Key::Lease(*c), lease, RenderedGuard::Own(Some(*revision)))
    };
    renewals.iter().map(write).collect()
}

#[cfg(test)]
mod tests;
