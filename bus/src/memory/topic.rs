//! The topic port on the model.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::watch;

use super::conn::Conn;
use super::pattern::Pattern;
use super::router::{Inbox, Packet, Subscription};
use super::services::ServiceState;
use super::state::State;
use crate::store::Headers;
use crate::topic::{LinkState, Message, Outgoing, RequestError, ServiceSpec, Topic, TopicError};

/// A connection's topics.
pub(super) struct MemoryTopic {
    conn: Arc<Conn>,
}

/// Messages that reach one or more subscriptions; ends them when dropped.
struct Feed {
    conn: Arc<Conn>,
    inbox: Arc<Inbox>,
    ids: Vec<u64>,
    service: Option<u64>,
}

impl Feed {
    fn new(conn: &Arc<Conn>) -> Self {
        let capacity = conn.shared.state().options.subscription_capacity;
        Self { conn: Arc::clone(conn), inbox: Inbox::new(capacity), ids: Vec::new(), service: None }
    }

    fn add(&mut self, state: &mut State, subject: &str, queue: Option<&str>, endpoint: Option<(u64, usize)>) {
        let id = state.subscribe(Subscription {
            account: self.conn.account,
            text: subject.to_owned(),
            pattern: Pattern::new(subject),
            queue: queue.map(str::to_owned),
            conn: self.conn.id,
            inbox: Arc::clone(&self.inbox),
            endpoint,
        });
        self.ids.push(id);
    }

    async fn next(&mut self) -> Message {
        loop {
            self.conn.gate.ports().await;
            let at = match self.inbox.take() {
                Ok(message) => return message,
                Err(at) => at,
            };
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => self.inbox.ready.notified().await,
            }
        }
    }

    fn stream(self) -> BoxStream<'static, Message> {
        futures::stream::unfold(self, |mut feed| async move {
            let message = feed.next().await;
            Some((message, feed))
        })
        .boxed()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut state = self.conn.shared.state();
        for id in &self.ids {
            state.unsubscribe(*id);
        }
        if let Some(service) = self.service {
            state.services.remove(&service);
        }
    }
}

impl MemoryTopic {
    pub(super) fn new(conn: Arc<Conn>) -> Self {
        Self { conn }
    }

    fn packet(&self, message: Outgoing, reply: Option<String>) -> Packet {
        Packet {
            account: self.conn.account,
            user: self.conn.identity.caller(),
            subject: message.subject,
            reply,
            headers: message.headers,
            body: message.body,
            status: None,
        }
    }

    /// Whether the server lets it pass; if not, it says so to the connection only, some time later.
    fn may_publish(&self, subject: &str) -> bool {
        let allowed = self.conn.permissions.may_publish(subject);
        if !allowed {
            let error = format!("Permissions Violation for Publish to {subject:?}");
            self.conn.shared.state().protest(self.conn.id, error);
        }
        allowed
    }

    /// Sends a request and returns where its answers will arrive.
    fn ask(&self, message: Outgoing) -> Feed {
        let mut feed = Feed::new(&self.conn);
        let inbox = {
            let mut state = self.conn.shared.state();
            let inbox =
                format!("{}.{}.{}", self.conn.identity.inbox_prefix(), self.conn.id, state.fresh_id());
            feed.add(&mut state, &inbox, None, None);
            inbox
        };
        if !self.may_publish(&message.subject) {
            return feed;
        }
        let packet = self.packet(message, Some(inbox.clone()));
        let sending = self.conn.shared.state().faults.sending(&self.conn.party);
        if let Some(out_ms) = sending {
            self.conn.send(out_ms, move |state| {
                if state.route(&packet) == 0 {
                    let status = Some(NO_RESPONDERS);
                    let reply = Packet::of_server(packet.account, inbox, Headers::new(), bytes::Bytes::new());
                    state.route(&Packet { status, ..reply });
                }
            });
        }
        feed
    }

    fn disconnected(&self) -> Option<String> {
        (!self.conn.is_connected()).then(|| "the connection is down".to_owned())
    }
}

/// Status of the server's answer when nobody serves a subject.
const NO_RESPONDERS: u16 = 503;

impl Topic for MemoryTopic {
    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), TopicError>> {
        Box::pin(async move {
            self.conn.gate.ports().await;
            if let Some(reason) = self.disconnected() {
                return Err(TopicError { reason });
            }
            if self.may_publish(&message.subject) {
                let packet = self.packet(message, None);
                let sending = self.conn.shared.state().faults.sending(&self.conn.party);
                if let Some(out_ms) = sending {
                    self.conn.send(out_ms, move |state| {
                        state.route(&packet);
                    });
                }
            }
            Ok(())
        })
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
        queue: Option<&'a str>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(async move {
            self.conn.gate.ports().await;
            let mut feed = Feed::new(&self.conn);
            let mut state = self.conn.shared.state();
            if self.conn.permissions.may_subscribe(&Pattern::new(subject)) {
                feed.add(&mut state, subject, queue, None);
            } else {
                let error = format!("Permissions Violation for Subscription to {subject:?}");
                state.protest(self.conn.id, error);
            }
            drop(state);
            Ok(feed.stream())
        })
    }

    fn request(&self, message: Outgoing, timeout_ms: u64) -> BoxFuture<'_, Result<Message, RequestError>> {
        Box::pin(async move {
            self.conn.gate.ports().await;
            let subject = message.subject.clone();
            if let Some(reason) = self.disconnected() {
                return Err(RequestError::Disconnected { reason });
            }
            let deadline = self.conn.clock.mono().plus_ms(timeout_ms);
            let mut feed = self.ask(message);
            tokio::select! {
                biased;
                answer = feed.next() => match answer.status {
                    Some(NO_RESPONDERS) => Err(RequestError::NoResponders { subject }),
                    Some(_) | None => Ok(answer),
                },
                () = self.conn.clock.sleep_until(deadline) => Err(RequestError::Timeout { subject }),
            }
        })
    }

    fn request_many(
        &self,
        message: Outgoing,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(async move {
            self.conn.gate.ports().await;
            match self.disconnected() {
                Some(reason) => Err(TopicError { reason }),
                None => Ok(self.ask(message).stream()),
            }
        })
    }

    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(async move {
            self.conn.gate.ports().await;
            let mut feed = Feed::new(&self.conn);
            let mut state = self.conn.shared.state();
            let id = state.fresh_id();
            feed.service = Some(id);
            for (i, endpoint) in service.endpoints.iter().enumerate() {
                let queue = endpoint.shared.then_some(ostler_schemas::subject::API_GROUP);
                feed.add(&mut state, &endpoint.subject, queue, Some((id, i)));
            }
            let started = state.wall().to_string();
            state.services.insert(id, ServiceState::new(service, id, started, self.conn.id));
            drop(state);
            Ok(feed.stream())
        })
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.conn.link.subscribe()
    }

    fn reconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.conn.gate.ports().await;
            self.conn.shared.change(|state| state.reconnect(self.conn.id));
        })
    }
}
