//! From a decision to a definite outcome: contents stored, intent audited, transaction committed, snapshot caught up,
//! events told. A decision that was overtaken is made anew from a newer snapshot.

use bytes::Bytes;
use futures::future::try_join_all;
use ostler_bus::definite::{Outcome, commit_definite};
use ostler_bus::store::{Committed, Expect, Guard, Headers, Op, Read, Txn, Write};
use ostler_controller_core::admission::{Act, By, Decision, Verdict, World, conflict, unavailable};
use ostler_controller_core::plan::Ids;
use ostler_schemas::codec::{self, EncodeError, Wire};
use ostler_schemas::subject::{EventSource, Verb};
use ostler_schemas::v1::api::{ApiError, ApiErrorCode};
use ostler_schemas::v1::object::{Object, SpecRevision};
use ostler_schemas::v1::process::GoalRecord;
use ostler_schemas::{Actor, Key, Name, ObjectRef, Revision, TxnId, headers};

use super::audit::Entry;
use super::blobs;
use super::server::{Call, Shared};
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
}

impl<'a> Asking<'a> {
    pub(super) fn of(call: &'a Call, reason: Option<String>) -> Self {
        let seen = call.message.headers.get(headers::MIN_REVISION).and_then(|text| text.parse().ok());
        let seen = Revision(seen.unwrap_or(0));
        Self { name: &call.caller.name, actor: call.caller.actor(), verb: call.verb, reason, seen }
    }
}

/// A change that took effect, or needed none.
pub(super) struct Changed<R> {
    pub(super) reply: R,
    /// The objects revision at which it is visible.
    pub(super) revision: Revision,
    pub(super) txn: TxnId,
}

/// Decides and commits until the outcome is definite.
pub(super) async fn change<R: Send>(
    shared: &Shared,
    asking: Asking<'_>,
    decide: impl Fn(&World<'_>, &mut dyn Ids) -> Result<Verdict<R>, ApiError> + Send + Sync,
) -> Result<Changed<R>, ApiError> {
    let deps = &shared.deps;
    let mut seen = asking.seen;
    let patient_until = deps.clock.mono().plus_ms(PATIENCE_MS);
    let mut overtaken = 0;
    while overtaken < ATTEMPTS {
        let fleet = shared.fleet_at(seen).await?;
        let by = By { actor: asking.actor.clone(), at: deps.clock.wall(), txn: deps.entropy.txn() };
        let signals = shared.signals();
        let verdict = {
            let world = World { fleet: &fleet, signals: &signals, by: &by };
            decide(&world, &mut FreshIds(&deps.entropy))?
        };
        let Verdict { decision, reply } = verdict;
        if decision.is_idle() {
            return Ok(Changed { reply, revision: fleet.revision, txn: by.txn });
        }
        let tried = match blobs::ensure(shared, &decision.contents).await {
            Ok(()) => attempt(shared, &asking, &by, &decision).await,
            Err(error) => Err(error),
        };
        match tried {
            Ok(Attempt::Done(revision)) => return Ok(Changed { reply, revision, txn: by.txn }),
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
            Ok(Attempt::Overtaken(newest(shared, decision).await))
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
async fn newest(shared: &Shared, decision: &Decision) -> Revision {
    let mut newest = Revision(0);
    for write in decision.writes.iter().filter(|w| matches!(w.key, Key::Object(_) | Key::ProcessGoal(_))) {
        if let Ok(Some(entry)) = shared.deps.store.get(&write.key, Read::Leader).await {
            newest = newest.max(entry.revision);
        }
    }
    newest
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
    let guard = Guard::Own(Expect::after(planned.expect));
    Ok(Ok(Write { key: planned.key.clone(), op, guard, headers: head }))
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
