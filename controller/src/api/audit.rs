//! Audit: what was asked of the API and what came of it. Intents are stored before anything is committed, outcomes
//! after; refused identities are told together, so that a flood of them cannot fill the stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ostler_bus::store::Headers;
use ostler_controller_core::admission::unavailable;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::subject::{Verb, audit as subject};
use ostler_schemas::v1::api::ApiError;
use ostler_schemas::v1::event::AuditRecord;
use ostler_schemas::{Actor, Name, ObjectRef, TxnId, headers};

use super::ApiDeps;
use super::server::Shared;

/// Refusals of one caller and verb are told together so often.
const REFUSALS_MS: u64 = 10_000;
/// Callers and verbs whose refusals are told apart. Names come from strangers and cost nothing to make up: what is
/// beyond is counted under the first one's name of `others`.
const REFUSALS_KEPT: usize = 256;
/// Objects that one record names.
const OBJECTS: usize = 50;

/// What is to be recorded of a request.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) caller: Name,
    pub(super) actor: Actor,
    pub(super) verb: Verb,
    pub(super) objects: Vec<ObjectRef>,
    pub(super) reason: Option<String>,
    pub(super) message: String,
    pub(super) txn: TxnId,
}

impl Entry {
    fn record(&self, deps: &ApiDeps, phase: &str, message: &str, count: u64) -> AuditRecord {
        let more = self.objects.len().saturating_sub(OBJECTS);
        AuditRecord {
            actor: self.actor.clone(),
            verb: self.verb.as_str().to_owned(),
            objects: self.objects.iter().take(OBJECTS).cloned().collect(),
            objects_more: more as u64,
            phase: phase.to_owned(),
            message: message.chars().take(500).collect(),
            reason: self.reason.as_ref().map(|r| r.chars().take(1_000).collect()),
            count,
            at: deps.clock.wall(),
            txn: self.txn,
        }
    }

    /// Stores the intent.
    ///
    /// # Errors
    /// If it is not certainly stored: then nothing may be committed.
    pub(super) async fn intent(&self, shared: &Shared) -> Result<(), ApiError> {
        let record = self.record(&shared.deps, "intent", &self.message, 1);
        // Once: an answer that was lost may mean that the intent stands without an outcome, which does no harm, and a
        // caller does not wait twice.
        append(&shared.deps, &self.caller, self.verb, &record).await.map_err(|error| {
            tracing::warn!(txn = %self.txn, error, "an intent was not audited");
            unavailable("nothing was done: the audit record cannot be stored now; try again")
        })
    }

    /// Stores what came of it; a record that cannot be stored is logged instead.
    pub(super) async fn outcome(&self, shared: &Shared, phase: &str, message: &str) {
        self.outcome_with(&shared.deps, phase, message).await;
    }

    /// As [`Entry::outcome`], for what may outlast its request.
    pub(super) async fn outcome_with(&self, deps: &ApiDeps, phase: &str, message: &str) {
        let record = self.record(deps, phase, message, 1);
        if let Err(error) = append(deps, &self.caller, self.verb, &record).await {
            tracing::warn!(txn = %self.txn, phase, message, error, "an outcome was not audited");
        }
    }
}

async fn append(deps: &ApiDeps, caller: &Name, verb: Verb, record: &AuditRecord) -> Result<(), String> {
    let body = codec::encode(record).map_err(|e| e.to_string())?;
    let phase = if record.phase == "intent" { "intent" } else { "outcome" };
    let mut head = Headers::new()
        .with(headers::CONTENT_TYPE, headers::MSGPACK)
        .with(headers::SCHEMA, AuditRecord::SCHEMA.to_string())
        .with(headers::KIND, AuditRecord::KIND)
        .with(headers::ACTOR, record.actor.to_string())
        .with(headers::REASON, record.phase.clone())
        .with(headers::MESSAGE, record.message.clone());
    if let Some(object) = record.objects.first() {
        head.set(headers::OBJECT, object.to_string());
    }
    if record.count > 1 {
        head.set(headers::COUNT, record.count.to_string());
    }
    let stored = deps.store.append(&subject(caller, verb, phase), head, Bytes::from(body)).await;
    stored.map(|_| ()).map_err(|e| e.to_string())
}

/// Requests refused for want of identity or permission, by caller and verb.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Counted>);

/// How often a caller's verb was refused, and the first one's actor and reason.
type Counted = BTreeMap<(Name, Verb), Refused>;

#[derive(Debug)]
struct Refused {
    actor: Actor,
    count: u64,
    why: &'static str,
}

impl Refusals {
    pub(super) fn note(&self, actor: &Actor, verb: Verb, why: &'static str) {
        let Some(caller) = caller_of(actor) else { return };
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (caller, verb);
        let full = refusals.len() >= REFUSALS_KEPT && !refusals.contains_key(&key);
        let others = "others".parse().ok().filter(|_| full).map(|name: Name| (name, verb));
        let first = || Refused { actor: actor.clone(), count: 0, why };
        refusals.entry(others.unwrap_or(key)).or_insert_with(first).count += 1;
    }

    fn take(&self) -> Counted {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The token that an actor calls under.
fn caller_of(actor: &Actor) -> Option<Name> {
    match actor {
        Actor::User(name) => Some(name.clone()),
        Actor::Node(node) => node.as_str().parse().ok(),
        Actor::Controller(_) => None,
    }
}

/// Tells refusals together, for ever.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        shared.deps.clock.sleep_ms(REFUSALS_MS).await;
        for ((caller, verb), Refused { actor, count, why }) in shared.refusals.take() {
            let entry = Entry {
                actor,
                caller: caller.clone(),
                verb,
                objects: Vec::new(),
                reason: None,
                message: why.to_owned(),
                txn: shared.deps.entropy.txn(),
            };
            let record = entry.record(&shared.deps, "refused", why, count);
            if let Err(error) = append(&shared.deps, &caller, verb, &record).await {
                tracing::warn!(%caller, count, why, error, "refusals were not audited");
            }
        }
    }
}
