//! The story, best effort: what happens while there is no connection waits for the next one, up to [`WAITING`] events;
//! what is lost beyond that is counted and said with the next that can be sent.

use std::collections::VecDeque;

use ostler_bus::store::Headers;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::subject::{EventSource, EventSubject};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::event::Event;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Actor as Who, ObjectRef, Uid, headers as names};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::context::{Shared, Task};
use crate::local::story::{Line, Teller};

/// Events kept while there is no connection. An outage is told from its newest events: those before them are in the
/// agent's log. At a few hundred bytes each this is a small part of the agent's memory.
const WAITING: usize = 512;

pub(crate) struct EventsActor;

pub(crate) enum Msg {
    Tell(Box<Told>),
    /// There is a connection again.
    Connected,
}

pub(crate) struct Told {
    pub(crate) object: ObjectRef,
    pub(crate) uid: Option<Uid>,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

pub(crate) struct State {
    context: Shared,
    waiting: VecDeque<(Timestamp, Told)>,
    lost: u64,
    /// Keeps the story for people on the host.
    teller: Option<Teller>,
    _link: Task,
}

impl Actor for EventsActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.events.set(me.clone());
        let link = Task::spawn(watch_link(context.clone(), me));
        let teller = context.deps.config.story.clone().and_then(Teller::start);
        Ok(State { context, waiting: VecDeque::new(), lost: 0, teller, _link: link })
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Tell(told) => state.keep(*told),
            Msg::Connected => {}
        }
        state.flush().await;
        Ok(())
    }
}

/// Tells the actor of every new connection.
async fn watch_link(context: Shared, me: ActorRef<Msg>) {
    let mut link = context.deps.link.link();
    loop {
        let connected = link.borrow_and_update().connected;
        if (connected && me.cast(Msg::Connected).is_err()) || link.changed().await.is_err() {
            return;
        }
    }
}

impl State {
    fn keep(&mut self, told: Told) {
        if let Some(teller) = &mut self.teller {
            teller.tell(Line {
                at: self.context.deps.clock.wall(),
                kind: told.reason.event_type().as_str().to_owned(),
                reason: told.reason.to_string(),
                object: told.object.to_string(),
                message: told.message.clone(),
            });
        }
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back((self.context.deps.clock.wall(), told));
    }

    async fn flush(&mut self) {
        while self.context.deps.link.link().borrow().connected
            && let Some((at, told)) = self.waiting.pop_front()
        {
            if self.send(at, told).await {
                self.lost = 0;
            } else {
                self.lost += 1;
            }
        }
    }

    async fn send(&self, now: Timestamp, told: Told) -> bool {
        let Told { object, uid, reason, mut message } = told;
        if self.lost > 0 {
            message = format!("{message} ({} events before this one could not be sent)", self.lost);
        }
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
