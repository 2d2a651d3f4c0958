//! From a decision to a definite outcome: contents stored, intent audited, transaction committed, snapshot caught up,
//! events told. A decision that was overtaken is made anew from a newer snapshot.
//!
//! **A request that is sent again takes effect once.** Its caller draws the transaction's id (header `Ostler-Txn`) and
//! sends the identical request with the same id, marked by `Ostler-Resend`, to whoever answers; several copies may be at
//! work on several replicas at the same time. Every write of every copy bears the id. Each copy first looks whether its
//! snapshot shows a write of the transaction ([`Before`]); if so it answers from what is stored; else it decides, and
//! its batch is guarded on every object that it writes. Why no two copies A (stored at `c`) and B (decided from a
//! snapshot at `s`, stored after `c`) can both take effect:
//!
//! * `s >= c`: B's snapshot shows A's writes: kept specs bear the id for as long as they are kept, whatever came after.
//!   (A change of labels alone, or a mark of deletion, is borne by the object until its next change. A copy that is so
//!   late that somebody else has changed the object since sets the same labels again; objects that are being deleted
//!   are not changed by anybody.)
//! * `s < c`: if A and B write a common object, B's guard on it fails. Else let B write X, which A found to be as asked
//!   already. X was then changed between the two snapshots. If B's was the older one, B's guard on X fails. If A's was
//!   the older one, then what A wrote and B found as asked was changed after A's snapshot and before `s < c`, so A's own
//!   guard on that failed, and A was not stored.
//!
//! So a copy that fails its guards looks again, and then sees the other. Two more things follow from copies: a stale
//! snapshot may find nothing to do, or an object missing, that a copy before it has changed; so a copy that is marked as
//! resent answers neither before its snapshot has every object's last write, asked of the stream's leader. And a commit
//! whose outcome had to be read may have read the other copy's; so a resent request is always answered from what is
//! stored. An id that another caller or another verb used is refused.

use bytes::Bytes;
use futures::future::try_join_all;
use ostler_bus::definite::{Outcome, commit_definite};
use ostler_bus::store::{Committed, Expect, Guard, Headers, Op, Read, Txn, Write};
use ostler_controller_core::admission::{Act, By, Decision, Verdict, World, conflict, invalid, unavailable};
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::plan::Ids;
use ostler_schemas::codec::{self, EncodeError, Wire};
use ostler_schemas::subject::{EventSource, Verb};
use ostler_schemas::v1::api::{ApiError, ApiErrorCode};
use ostler_schemas::v1::object::{Object, SpecRevision};
use ostler_schemas::v1::process::GoalRecord;
use ostler_schemas::{Actor, Key, Name, ObjectRef, Revision, TxnId, Uid, headers};

use super::audit::Entry;
use super::server::{Call, Shared};
use super::{blobs, renders};
use crate::actors::FreshIds;
use crate::events::Cause;

/// How often a decision is made anew before the caller is told that others are faster.
const ATTEMPTS: u32 = 8;
/// Stored objects that are read at once before a large apply.
const READS_AT_ONCE: usize = 16;
/// The longest pause before a decision is made anew, drawn at random: two writers must not stay in step.
const PAUSE_MS: u64 = 20;

/// A store that cannot take anything now is asked again for so long: a stream whose leader was lost has another within
/// 5 to 10 s on three servers.
const PATIENCE_MS: u64 = 12_000;
/// Pause between such attempts.
const NOT_NOW_MS: u64 = 250;

/// Who asks for a change, and why.
pub(super) struct Asking<'a> {
    pub(super) name: &'a Name,
    pub(super) actor: Actor,
    pub(super) verb: Verb,
    pub(super) reason: Option<String>,
    /// What the asker has seen already.
    pub(super) seen: Revision,
    /// The transaction's id, where the asker has drawn it.
    pub(super) txn: Option<TxnId>,
    /// Whether a copy of the request may have been carried out already.
    pub(super) resent: bool,
    /// The objects that it is about.
    pub(super) named: Vec<ObjectRef>,
}

impl<'a> Asking<'a> {
    /// # Errors
    /// The transaction's id is none.
    pub(super) fn of(
        call: &'a Call,
        reason: Option<String>,
        named: Vec<ObjectRef>,
    ) -> Result<Self, ApiError> {
        let head = &call.message.headers;
        let seen = head.get(headers::MIN_REVISION).and_then(|text| text.parse().ok());
        let txn = head.get(headers::TXN).map(str::parse).transpose();
        let txn = txn.map_err(|error| invalid(format!("header {}: {error}", headers::TXN)))?;
        Ok(Self {
            name: &call.caller.name,
            actor: call.caller.actor(),
            verb: call.verb,
            reason,
            seen: Revision(seen.unwrap_or(0)),
            txn,
            resent: txn.is_some() && head.get(headers::RESEND).is_some(),
            named,
        })
    }

    /// The replicas' own, and what nobody sends twice.
    pub(super) fn own(name: &'a Name, actor: Actor, verb: Verb) -> Self {
        let (reason, seen, txn, resent, named) = (None, Revision(0), None, false, Vec::new());
        Self { name, actor, verb, reason, seen, txn, resent, named }
    }
}

/// What a copy of the request has done already, as far as the snapshot shows: its answer, and its revision.
pub(super) type Before<R> = Result<Option<(R, Revision)>, ApiError>;

/// For requests whose caller draws no id.
pub(super) fn never<R>(_: &World<'_>) -> Before<R> {
    Ok(None)
}

/// A change that took effect, or needed none.
pub(super) struct Changed<R> {
    pub(super) reply: R,
    /// The objects revision at which it is visible.
    pub(super) revision: Revision,
    pub(super) txn: TxnId,
}

/// What must be so before anything is committed: every content lies in the store, every template renders.
async fn prepared(shared: &Shared, fleet: &Fleet, decision: &Decision) -> Result<(), ApiError> {
    blobs::ensure(shared, &decision.contents).await?;
    renders::ensure(shared, fleet, decision).await
}

/// Decides and commits until the outcome is definite.
pub(super) async fn change<R: Send>(
    shared: &Shared,
    asking: Asking<'_>,
    before: impl Fn(&World<'_>) -> Before<R> + Send + Sync,
    decide: impl Fn(&World<'_>, &mut dyn Ids) -> Result<Verdict<R>, ApiError> + Send + Sync,
) -> Result<Changed<R>, ApiError> {
    let deps = &shared.deps;
    let mut seen = asking.seen;
    let patient_until = deps.clock.mono().plus_ms(PATIENCE_MS);
    let mut overtaken = 0;
    while overtaken < ATTEMPTS {
        let fleet = shared.fleet_at(seen).await?;
        let by = asking.by(shared);
        let signals = shared.signals();
        let decided = {
            let world = World { fleet: &fleet, signals: &signals, by: &by };
            match already(&asking, &world, &before)? {
                Some(done) => Err(done),
                None => Ok(decide(&world, &mut FreshIds(&deps.entropy))),
            }
        };
        let verdict = match decided {
            Err(done) => return Ok(told_again(shared, &asking, done).await),
            Ok(verdict) => verdict,
        };
        if !verdict.as_ref().is_ok_and(|v| !v.decision.is_idle()) {
            // Nothing to do, or a refusal: true of this snapshot, and perhaps only because it is old.
            match unseen(shared, &asking, &fleet).await? {
                Some(newer) => {
                    overtaken += 1;
                    seen = seen.max(newer);
                    continue;
                }
                None => {
                    let reply = verdict?.reply;
                    return Ok(Changed { reply, revision: fleet.revision, txn: by.txn });
                }
            }
        }
        let Verdict { decision, reply } = verdict?;
        let tried = match prepared(shared, &fleet, &decision).await {
            Ok(()) => attempt(shared, &asking, &by, &decision).await,
            Err(error) => Err(error),
        };
        match tried {
            Ok(Attempt::Done(revision)) => {
                let done = Changed { reply, revision, txn: by.txn };
                return settled(shared, &asking, done, &before).await;
            }
            // Nothing was done: the decision may be made anew once the store takes writes again.
            Err(error) if error.code == ApiErrorCode::Unavailable && deps.clock.mono() < patient_until => {
                deps.clock.sleep_ms(NOT_NOW_MS).await;
            }
            Err(error) => return Err(error),
            Ok(Attempt::Overtaken(by_revision)) => {
                overtaken += 1;
                deps.metrics.conflicts.inc();
                seen = seen.max(by_revision);
                deps.clock.sleep_ms(deps.entropy.below(PAUSE_MS)).await;
            }
        }
    }
    Err(conflict(format!(
        "others changed it {ATTEMPTS} times while this was decided; nothing was done; try again"
    )))
}

impl Asking<'_> {
    fn by(&self, shared: &Shared) -> By {
        let deps = &shared.deps;
        let txn = self.txn.unwrap_or_else(|| deps.entropy.txn());
        By { actor: self.actor.clone(), at: deps.clock.wall(), txn }
    }
}

fn already<R>(
    asking: &Asking<'_>,
    world: &World<'_>,
    before: impl Fn(&World<'_>) -> Before<R>,
) -> Result<Option<Changed<R>>, ApiError> {
    if asking.txn.is_none() {
        return Ok(None);
    }
    Ok(before(world)?.map(|(reply, revision)| Changed { reply, revision, txn: world.by.txn }))
}

/// Answers for a copy that took effect. Whoever carried it out may have ended before its outcome was audited.
async fn told_again<R>(shared: &Shared, asking: &Asking<'_>, done: Changed<R>) -> Changed<R> {
    shared.deps.metrics.answered_again.inc();
    let entry = Entry {
        caller: asking.name.clone(),
        actor: asking.actor.clone(),
        verb: asking.verb,
        objects: asking.named.clone(),
        reason: asking.reason.clone(),
        message: String::new(),
        txn: done.txn,
    };
    entry.outcome(shared, "done", "asked again: it had been done").await;
    done
}

/// What is answered after a commit: of a resent request what is stored, which may be another copy's.
async fn settled<R: Send>(
    shared: &Shared,
    asking: &Asking<'_>,
    done: Changed<R>,
    before: impl Fn(&World<'_>) -> Before<R> + Send + Sync,
) -> Result<Changed<R>, ApiError> {
    if !asking.resent {
        return Ok(done);
    }
    let fleet = shared.fleet_at(done.revision).await?;
    let (by, signals) = (asking.by(shared), shared.signals());
    let stored = already(asking, &World { fleet: &fleet, signals: &signals, by: &by }, before)?;
    Ok(stored.unwrap_or(done))
}

/// Of a resent request: the last write of its objects, if the snapshot has not seen it.
async fn unseen(shared: &Shared, asking: &Asking<'_>, fleet: &Fleet) -> Result<Option<Revision>, ApiError> {
    if !asking.resent {
        return Ok(None);
    }
    let mut newest = Revision(0);
    for some in asking.named.chunks(READS_AT_ONCE) {
        let keys: Vec<Key> = some.iter().cloned().map(Key::Object).collect();
        let read = keys.iter().map(|key| shared.deps.store.get(key, Read::Leader));
        let last = try_join_all(read).await.map_err(|error| unavailable(format!("{error}; try again")))?;
        newest = last.into_iter().flatten().map(|entry| entry.revision).fold(newest, Revision::max);
    }
    Ok((newest > fleet.revision).then_some(newest))
}

/// Of a request to delete: the marker of the object, if this transaction asked for it. Tells the object's uid and the
/// marker's revision.
pub(super) async fn marked(
    shared: &Shared,
    object: &ObjectRef,
    txn: TxnId,
) -> Result<Option<(Uid, Revision)>, ApiError> {
    let read = shared.deps.store.get(&Key::Object(object.clone()), Read::Leader).await;
    let entry = read.map_err(|error| unavailable(format!("{error}; try again")))?;
    let Some(entry) = entry.filter(|e| e.value().is_none()) else { return Ok(None) };
    let id = txn.to_string();
    let by_us = entry.headers.get(headers::TXN).is_some_and(|t| t.split('/').next() == Some(id.as_str()));
    let for_us = entry.headers.get(headers::CAUSE) == Some(id.as_str());
    let uid = entry.headers.get(headers::UID).and_then(|text| text.parse().ok());
    Ok(uid.filter(|_| by_us || for_us).map(|uid| (uid, entry.revision)))
}

enum Attempt {
    Done(Revision),
    /// Something has this revision now that was not in the snapshot.
    Overtaken(Revision),
}

async fn attempt(
    shared: &Shared,
    asking: &Asking<'_>,
    by: &By,
    decision: &Decision,
) -> Result<Attempt, ApiError> {
    let deps = &shared.deps;
    let writes = match writes(shared, asking, decision).await? {
        Ok(writes) => writes,
        Err(newer) => return Ok(Attempt::Overtaken(newer)),
    };
    let txn = Txn { id: by.txn, writes };
    let entry = Entry {
        caller: asking.name.clone(),
        actor: asking.actor.clone(),
        verb: asking.verb,
        objects: objects(decision),
        reason: asking.reason.clone(),
        message: decision.tell.first().map(|t| t.message.clone()).unwrap_or_default(),
        txn: by.txn,
    };
    entry.intent(shared).await?;
    let witness = witness(&txn);
    let deadline = deps.clock.mono().plus_ms(deps.limits.commit_ms);
    match commit_definite(&deps.store, &deps.clock, &deps.entropy, &txn, &witness, deadline).await {
        Outcome::Done(committed) => {
            took_effect(shared, &entry, decision, &committed).await;
            Ok(Attempt::Done(committed.last))
        }
        Outcome::Conflict => {
            entry.outcome(shared, "failed", "overtaken by another write; decided anew").await;
            Ok(Attempt::Overtaken(newest(shared, decision).await?))
        }
        Outcome::Refused { reason, retryable } => {
            entry.outcome(shared, "failed", &reason).await;
            let error = unavailable(format!("the store refused it, nothing was done: {reason}"));
            let code = if retryable { ApiErrorCode::Unavailable } else { ApiErrorCode::Invalid };
            Err(ApiError { code, ..error })
        }
        Outcome::Undecidable { txn } => {
            deps.metrics.unknown.inc();
            entry.outcome(shared, "unknown", "the store did not say what became of it").await;
            Err(ApiError {
                code: ApiErrorCode::Unknown,
                hint: Some("look at the objects before you repeat it".to_owned()),
                txn: Some(txn),
                ..unavailable(format!("it may or may not have been done: transaction {txn}"))
            })
        }
    }
}

async fn took_effect(shared: &Shared, entry: &Entry, decision: &Decision, committed: &Committed) {
    let deps = &shared.deps;
    let outcome = entry.outcome(shared, "done", &entry.message);
    let caught_up = deps.snapshot.at_least(committed.last, deps.limits.catch_up_ms);
    let (_, caught_up) = futures::join!(outcome, caught_up);
    if let Err(behind) = caught_up {
        // The caller's next request says what it has seen and waits again.
        tracing::warn!(%behind, "the snapshot lags behind our own write");
    }
    for telling in &decision.tell {
        let (revision, txn) = (Some(committed.last), Some(entry.txn));
        let cause = Cause { actor: Some(entry.actor.clone()), revision, txn };
        deps.teller.tell_of(EventSource::Api, telling, cause).await;
    }
}

fn objects(decision: &Decision) -> Vec<ObjectRef> {
    let told = decision.tell.iter().map(|t| t.object.clone());
    let written = decision.writes.iter().filter_map(|w| match &w.key {
        Key::Object(object) => Some(object.clone()),
        _ => None,
    });
    let mut all: Vec<ObjectRef> = told.chain(written).collect();
    all.sort();
    all.dedup();
    all
}

/// The immutable key if there is one: once written, it tells for ever whose it is.
fn witness(txn: &Txn) -> Key {
    let immutable = txn.writes.iter().find(|w| matches!(w.key, Key::SpecRevision(..)));
    immutable.unwrap_or(&txn.writes[0]).key.clone()
}

/// The newest write of the keys that were to be written, so that the next decision is made from a snapshot with it.
///
/// A store that cannot be asked is no store in which nothing is newer: a decision from the same snapshot would fail
/// the same way, as often as it is tried.
async fn newest(shared: &Shared, decision: &Decision) -> Result<Revision, ApiError> {
    let written = decision.writes.iter().map(|write| &write.key);
    let keys: Vec<&Key> = written.filter(|key| matches!(key, Key::Object(_) | Key::ProcessGoal(_))).collect();
    let mut newest = Revision(0);
    for some in keys.chunks(READS_AT_ONCE) {
        let reads = some.iter().map(|key| shared.deps.store.get(key, Read::Leader));
        let last = try_join_all(reads).await.map_err(|error| {
            unavailable(format!(
                "others changed it, and the store cannot be asked how: {error}; nothing was done; try again"
            ))
        })?;
        newest = last.into_iter().flatten().map(|entry| entry.revision).fold(newest, Revision::max);
    }
    Ok(newest)
}

type Planned = ostler_controller_core::admission::Write;

/// The writes as stored; or the revision of a write that the decision has not seen.
async fn writes(
    shared: &Shared,
    asking: &Asking<'_>,
    decision: &Decision,
) -> Result<Result<Vec<Write>, Revision>, ApiError> {
    let mut out = Vec::with_capacity(decision.writes.len());
    for some in decision.writes.chunks(READS_AT_ONCE) {
        let some: Vec<_> = some.iter().map(|planned| write(shared, asking, planned)).collect();
        for rendered in try_join_all(some).await? {
            match rendered {
                Ok(write) => out.push(write),
                Err(newer) => return Ok(Err(newer)),
            }
        }
    }
    Ok(Ok(out))
}

async fn write(
    shared: &Shared,
    asking: &Asking<'_>,
    planned: &Planned,
) -> Result<Result<Write, Revision>, ApiError> {
    let (kind, op) = match &planned.act {
        Act::Object(object) => match object_bytes(shared, planned, object).await? {
            Ok(bytes) => (Object::KIND, Op::Put(bytes)),
            Err(newer) => return Ok(Err(newer)),
        },
        Act::SpecRevision(revision) => {
            (SpecRevision::KIND, Op::Put(Bytes::from(encode(codec::encode(&**revision))?)))
        }
        Act::Goal(goal) => (GoalRecord::KIND, Op::Put(Bytes::from(encode(codec::encode(goal))?))),
        Act::Delete => (Object::KIND, Op::Delete),
    };
    let mut head = Headers::new()
        .with(headers::CONTENT_TYPE, headers::MSGPACK)
        .with(headers::SCHEMA, "1")
        .with(headers::KIND, kind)
        .with(headers::ACTOR, asking.actor.to_string());
    if let Key::Object(object) | Key::SpecRevision(object, _, _) = &planned.key {
        head.set(headers::OBJECT, object.to_string());
    }
    if planned.act == Act::Delete {
        sign(shared, &planned.key, &mut head);
    }
    let guard = Guard::Own(Expect::after(planned.expect));
    Ok(Ok(Write { key: planned.key.clone(), op, guard, headers: head }))
}

/// A marker says of what object it is, and which transaction wanted it: nothing else is left to tell.
fn sign(shared: &Shared, key: &Key, head: &mut Headers) {
    let Key::Object(name) = key else { return };
    let fleet = shared.deps.snapshot.fleet();
    let Some(object) = fleet.objects.get(name).map(|stored| &stored.value) else { return };
    head.set(headers::UID, object.metadata.uid.to_string());
    if object.is_deleting() {
        head.set(headers::CAUSE, object.metadata.applied.txn.to_string());
    }
}

/// An object's bytes with every field of the stored one that this version does not know.
async fn object_bytes(
    shared: &Shared,
    planned: &Planned,
    object: &Object,
) -> Result<Result<Bytes, Revision>, ApiError> {
    let fresh = || encode(codec::encode(object)).map(|b| Ok(Bytes::from(b)));
    let Some(expected) = planned.expect else { return fresh() };
    let read = shared.deps.store.get(&planned.key, Read::Leader).await;
    let stored = read.map_err(|error| unavailable(format!("{error}; nothing was done; try again")))?;
    match stored {
        Some(entry) if entry.revision > expected => Ok(Err(entry.revision)),
        Some(entry) if entry.revision == expected => match entry.value() {
            None => fresh(),
            Some(bytes) => match codec::decode_kept::<Object>(bytes) {
                Ok((_, unknown)) => encode(unknown.encode(object)).map(|b| Ok(Bytes::from(b))),
                Err(error) => Err(unavailable(format!("the stored object cannot be read: {error}"))),
            },
        },
        // The store shows less than the snapshot: it was rolled back, or its marker was purged. The guard decides.
        Some(_) | None => fresh(),
    }
}

fn encode(encoded: Result<Vec<u8>, EncodeError>) -> Result<Vec<u8>, ApiError> {
    encoded.map_err(|error| ApiError {
        code: ApiErrorCode::Refused,
        ..unavailable(format!("the object is too large to be stored: {error}"))
    })
}
