//! Telling what happened: one message per occurrence, readable from its headers alone.
//!
//! Best effort. An event that cannot be sent is counted and forgotten: nothing is ever decided by events. The same
//! thing told again within [`COALESCE_MS`] is counted and told once more, with the count, when that time is over; the
//! reader adds up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_bus::{ClockRef, TopicRef};
use ostler_controller_core::plan::Telling;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::subject::{EventSource, EventSubject};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::event::Event;
use ostler_schemas::{Actor, Revision, TxnId, headers};

/// Repeats within this time are told as one: long enough to calm a loop, short enough to read live.
const COALESCE_MS: u64 = 10_000;
/// Things that can be remembered as just told. Beyond that nothing is coalesced: telling too often is better than
/// growing without bound.
const REMEMBERED: usize = 4_096;

/// Who caused an event, and by which write.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// Who.
    pub actor: Option<Actor>,
    /// Objects revision of the write.
    pub revision: Option<Revision>,
    /// Its transaction.
    pub txn: Option<TxnId>,
}

/// Tells events. Cheap to clone; clones coalesce together.
#[derive(Clone)]
pub struct Teller(Arc<Inner>);

struct Inner {
    topic: TopicRef,
    clock: ClockRef,
    told: Mutex<BTreeMap<(EventSubject, String), Told>>,
    lost: AtomicU64,
}

/// What was told a moment ago.
struct Told {
    /// Occurrences since, not told yet: the event with their count.
    more: Option<Event>,
}

impl Teller {
    /// Tells over `topic`.
    #[must_use]
    pub fn new(topic: TopicRef, clock: ClockRef) -> Self {
        let (told, lost) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0));
        Self(Arc::new(Inner { topic, clock, told, lost }))
    }

    /// Events that could not be sent so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Tells what a plan has brought about.
    pub async fn tell(
        &self,
        source: EventSource,
        telling: &Telling,
        revision: Option<Revision>,
        txn: Option<TxnId>,
    ) {
        let actor = match &source {
            EventSource::Controller(controller) => Some(Actor::Controller(*controller)),
            EventSource::Node(node) => Some(Actor::Node(node.clone())),
            EventSource::Api => None,
        };
        self.tell_of(source, telling, Cause { actor, revision, txn }).await;
    }

    /// Tells what somebody has brought about.
    pub async fn tell_of(&self, source: EventSource, telling: &Telling, cause: Cause) {
        let now = self.0.clock.wall();
        let subject = EventSubject {
            source,
            object: telling.object.clone(),
            reason: telling.reason.as_str().to_owned(),
        };
        let event = event(telling, cause, now);
        let first = self.0.note(&subject, &event);
        if first {
            self.0.publish(&subject, &event).await;
            return;
        }
        tracing::debug!(%subject, "told a moment ago: counted");
    }
}

fn event(telling: &Telling, cause: Cause, now: Timestamp) -> Event {
    Event {
        kind: telling.reason.event_type(),
        reason: telling.reason,
        object: telling.object.clone(),
        uid: telling.uid,
        node: telling.node.clone(),
        message: telling.message.clone(),
        count: 1,
        first_time: now,
        last_time: now,
        actor: cause.actor,
        cause_revision: cause.revision,
        txn: cause.txn,
    }
}

impl Inner {
    fn told(&self) -> MutexGuard<'_, BTreeMap<(EventSubject, String), Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the event is to be sent now. If not, it is counted and will be told with the others like it.
    fn note(self: &Arc<Self>, subject: &EventSubject, event: &Event) -> bool {
        let key = (subject.clone(), event.message.clone());
        let mut told = self.told();
        if let Some(known) = told.get_mut(&key) {
            match &mut known.more {
                Some(more) => {
                    more.count += 1;
                    more.last_time = event.last_time;
                    more.cause_revision = event.cause_revision;
                    more.txn = event.txn;
                }
                None => known.more = Some(event.clone()),
            }
            return false;
        }
        if told.len() < REMEMBERED {
            told.insert(key.clone(), Told { more: None });
            tokio::spawn(flush(Arc::downgrade(self), self.clock.clone(), key));
        }
        true
    }

    async fn publish(&self, subject: &EventSubject, event: &Event) {
        let Ok(body) = codec::encode(event) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%subject, "an event is too large to be told");
            return;
        };
        let mut head = Headers::new()
            .with(headers::CONTENT_TYPE, headers::MSGPACK)
            .with(headers::SCHEMA, Event::SCHEMA.to_string())
            .with(headers::KIND, Event::KIND)
            .with(headers::TYPE, event.kind.as_str())
            .with(headers::OBJECT, event.object.to_string())
            .with(headers::REASON, event.reason.as_str())
            .with(headers::MESSAGE, event.message.clone());
        if let Some(actor) = &event.actor {
            head.set(headers::ACTOR, actor.to_string());
        }
        if event.count > 1 {
            head.set(headers::COUNT, event.count.to_string());
        }
        let message = Outgoing::new(subject.to_string(), body).with_headers(head);
        if let Err(error) = self.topic.publish(message).await {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%subject, %error, "an event was lost");
        }
    }
}

/// Tells what has been counted, until nothing was for a whole while.
async fn flush(inner: Weak<Inner>, clock: ClockRef, key: (EventSubject, String)) {
    loop {
        clock.sleep_ms(COALESCE_MS).await;
        let Some(inner) = inner.upgrade() else { return };
        let more = {
            let mut told = inner.told();
            let more = told.get_mut(&key).and_then(|t| t.more.take());
            if more.is_none() {
                told.remove(&key);
            }
            more
        };
        match more {
            Some(event) => inner.publish(&key.0, &event).await,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use ostler_bus::memory::{MemoryBus, Party};
    use ostler_schemas::v1::reason::Reason;
    use ostler_schemas::{Kind, ObjectRef};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeats_are_told_once_with_their_count() {
        let party = Party::new("cp");
        let bus = MemoryBus::new(party.clock.clone());
        bus.provision();
        let (store, topic) = bus.cp(&party);
        let teller = Teller::new(topic, party.clock.clone());
        let name = "n1".parse().expect("a name");
        let telling = Telling {
            object: ObjectRef { kind: Kind::Node, namespace: None, name },
            uid: None,
            node: None,
            reason: Reason::Suspect,
            message: "late".to_owned(),
        };
        for _ in 0..5 {
            teller.tell(EventSource::Api, &telling, None, None).await;
        }
        let mut records = store.records(
            ostler_schemas::subject::EVENTS_STREAM,
            ostler_schemas::subject::ALL_EVENTS,
            0,
            true,
        );
        let mut counts = Vec::new();
        let begun = party.clock.mono();
        while counts.len() < 2 {
            let record = records.next().await.expect("a record").expect("readable");
            let passed = party.clock.mono().since_ms(begun);
            // The first one at once; only what repeats it waits.
            assert_eq!(passed, if counts.is_empty() { 0 } else { COALESCE_MS });
            assert_eq!(record.headers.get(headers::REASON), Some("Suspect"));
            let event: Event = codec::decode(&record.body).expect("an event");
            counts.push(event.count);
        }
        assert_eq!(counts, [1, 4]);
        assert_eq!(teller.lost(), 0);
    }
}
