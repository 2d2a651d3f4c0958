//! The topic port on a NATS connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{RequestErrorKind, Subscriber};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use ostler_schemas::subject::API_GROUP;
use tokio::sync::watch;

use super::connect::Link;
use super::service::{OpenRequests, Service};
use super::wire;
use crate::clock::{Clock as _, SystemClock};
use crate::topic::{LinkState, Message, Outgoing, RequestError, ServiceSpec, Topic, TopicError};

/// Messages of one account.
#[derive(Debug)]
pub struct NatsTopic {
    link: Link,
    open: Arc<OpenRequests>,
}

impl NatsTopic {
    /// On a connection.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link, open: Arc::default() }
    }

    fn must_be_connected(&self) -> Result<(), TopicError> {
        if self.link.is_connected() { Ok(()) } else { Err(failed("not connected")) }
    }
}

fn failed(reason: impl std::fmt::Display) -> TopicError {
    TopicError { reason: format!("{reason}") }
}

/// The server's 200 is what a message without status is.
const OK: u16 = 200;

fn received(message: async_nats::Message) -> Message {
    Message {
        subject: message.subject.to_string(),
        reply: message.reply.map(|r| r.to_string()),
        headers: wire::from_header_map(message.headers.as_ref()),
        body: message.payload,
        status: message.status.map(|s| s.as_u16()).filter(|s| *s != OK),
    }
}

fn messages(subscriber: Subscriber) -> BoxStream<'static, Message> {
    subscriber.map(received).boxed()
}

impl NatsTopic {
    async fn subscribed(&self, subject: &str, queue: Option<&str>) -> Result<Subscriber, TopicError> {
        let client = self.link.client();
        let subject = subject.to_owned();
        match queue {
            None => client.subscribe(subject).await,
            Some(queue) => client.queue_subscribe(subject, queue.to_owned()).await,
        }
        .map_err(failed)
    }

    async fn in_force(&self) -> Result<(), TopicError> {
        // Without a connection the client subscribes as soon as there is one, before anything else that is sent then.
        if self.link.is_connected() { self.link.round_trip().await.map_err(failed) } else { Ok(()) }
    }

    async fn send(&self, message: Outgoing, reply: Option<String>) -> Result<(), TopicError> {
        self.must_be_connected()?;
        let client = self.link.client();
        let Outgoing { subject, headers, body } = message;
        if reply.is_none() {
            self.open.sent(&subject, &headers);
        }
        let headers = wire::header_map(&headers);
        match reply {
            Some(reply) => client.publish_with_reply_and_headers(subject, reply, headers, body).await,
            None if headers.is_empty() => client.publish(subject, body).await,
            None => client.publish_with_headers(subject, headers, body).await,
        }
        .map_err(failed)
    }

    async fn ask(&self, message: Outgoing, timeout: Duration) -> Result<Message, RequestError> {
        if !self.link.is_connected() {
            return Err(RequestError::Disconnected { reason: "no connection to any server".to_owned() });
        }
        let Outgoing { subject, headers, body } = message;
        let mut request = async_nats::Request::new().payload(body).timeout(Some(timeout));
        if !headers.is_empty() {
            request = request.headers(wire::header_map(&headers));
        }
        let answer = self.link.client().send_request(subject.clone(), request).await;
        answer.map(received).map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => RequestError::NoResponders { subject },
            RequestErrorKind::TimedOut => RequestError::Timeout { subject },
            RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded
            | RequestErrorKind::Other => RequestError::Disconnected { reason: error.to_string() },
        })
    }

    /// Endpoints that replicas share are a NATS micro service; one that every replica must hear is a plain
    /// subscription, which discovery does not list.
    async fn served(&self, spec: ServiceSpec) -> Result<BoxStream<'static, Message>, TopicError> {
        let mut all: SelectAll<BoxStream<'static, Message>> = SelectAll::new();
        let mut names = BTreeSet::new();
        let service = Arc::new(Service::new(spec.clone(), self.link.unique(), SystemClock::new().now().wall));
        for (i, endpoint) in spec.endpoints.into_iter().enumerate() {
            if !names.insert(endpoint.name.clone()) {
                return Err(failed(format!("two endpoints are named {:?}", endpoint.name)));
            }
            let queue = endpoint.shared.then_some(API_GROUP);
            let requests = messages(self.subscribed(&endpoint.subject, queue).await?);
            if endpoint.shared {
                let (open, service) = (Arc::clone(&self.open), Arc::clone(&service));
                all.push(requests.inspect(move |message| open.begun(&service, i, message)).boxed());
            } else {
                all.push(requests);
            }
        }
        let discovery = service.discoverable(self.link.client()).await.map_err(failed)?;
        self.in_force().await?;
        // The service answers discovery as long as it lives, which is as long as its requests are read.
        Ok(futures::stream::unfold((all, discovery), |(mut all, discovery)| async move {
            let message = all.next().await?;
            Some((message, (all, discovery)))
        })
        .boxed())
    }
}

impl Topic for NatsTopic {
    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), TopicError>> {
        self.send(message, None).boxed()
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
        queue: Option<&'a str>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Message>, TopicError>> {
        async move {
            let subscriber = self.subscribed(subject, queue).await?;
            self.in_force().await?;
            Ok(messages(subscriber))
        }
        .boxed()
    }

    fn request(&self, message: Outgoing, timeout_ms: u64) -> BoxFuture<'_, Result<Message, RequestError>> {
        self.ask(message, Duration::from_millis(timeout_ms)).boxed()
    }

    fn request_many(
        &self,
        message: Outgoing,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        async move {
            self.must_be_connected()?;
            let inbox = self.link.inbox();
            // Subscription and request are commands of one connection: the server takes them in this order.
            let answers = self.subscribed(&inbox, None).await?;
            self.send(message, Some(inbox)).await?;
            Ok(messages(answers))
        }
        .boxed()
    }

    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        self.served(service).boxed()
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.link.watch()
    }

    fn reconnect(&self) -> BoxFuture<'_, ()> {
        async move {
            self.link.leave_server().await;
        }
        .boxed()
    }
}
