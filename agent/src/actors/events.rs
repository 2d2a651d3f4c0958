//! The story, best effort: what cannot be sent is counted and said with the next that can.

use ostler_bus::store::Headers;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::subject::{EventSource, EventSubject};
use ostler_schemas::v1::event::Event;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Actor as Who, ObjectRef, Uid, headers as names};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::context::Shared;

pub(crate) struct EventsActor;

pub(crate) enum Msg {
    Tell(Box<Told>),
}

pub(crate) struct Told {
    pub(crate) object: ObjectRef,
    pub(crate) uid: Option<Uid>,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

pub(crate) struct State {
    context: Shared,
    lost: u64,
}

impl Actor for EventsActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.events.set(me);
        Ok(State { context, lost: 0 })
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Msg::Tell(told) = message;
        if !state.context.deps.link.link().borrow().connected {
            state.lost += 1;
            return Ok(());
        }
        if state.send(*told).await {
            state.lost = 0;
        } else {
            state.lost += 1;
        }
        Ok(())
    }
}

impl State {
    async fn send(&self, told: Told) -> bool {
        let Told { object, uid, reason, mut message } = told;
        if self.lost > 0 {
            message = format!("{message} ({} events before this one could not be sent)", self.lost);
        }
        let now = self.context.deps.clock.wall();
        let node = self.context.node.clone();
        let event = Event {
            kind: reason.event_type(),
            reason,
            object: object.clone(),
            uid,
            node: Some(node.clone()),
            message: message.clone(),
            count: 1,
            first_time: now,
            last_time: now,
            actor: Some(Who::Node(node.clone())),
            cause_revision: None,
            txn: None,
        };
        let Ok(body) = codec::encode(&event) else { return false };
        let headers = Headers::new()
            .with(names::CONTENT_TYPE, names::MSGPACK)
            .with(names::SCHEMA, Event::SCHEMA.to_string())
            .with(names::KIND, Event::KIND)
            .with(names::OBJECT, object.to_string())
            .with(names::REASON, reason.as_str())
            .with(names::TYPE, reason.event_type().as_str())
            .with(names::ACTOR, format!("node/{node}"))
            .with(names::MESSAGE, message);
        let subject =
            EventSubject { source: EventSource::Node(node), object, reason: reason.as_str().to_owned() };
        self.context.deps.link.publish_event(&subject, headers, body.into()).await.is_ok()
    }
}
