//! One connection that many agents share. Each agent speaks for its own node only; what it may say is checked by the
//! bus against the whole block's permissions.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_bus::clock::ClockRef;
use ostler_bus::topic::{
    LinkState, Message, Outgoing, RequestError, ServiceSpec, Topic, TopicError, TopicRef,
};
use ostler_schemas::time::Mono;
use tokio::sync::watch;

/// Each agent that misses two answers asks for another connection. What is shared is left once for all of them, and
/// then given time to prove itself: as long as an agent with a connection of its own does.
const AGAIN_MS: u64 = 5_000;

/// A shared connection.
pub(crate) struct Carrier {
    inner: TopicRef,
    clock: ClockRef,
    left: Mutex<Option<Mono>>,
}

impl Carrier {
    pub(crate) fn new(inner: TopicRef, clock: ClockRef) -> Arc<Self> {
        Arc::new(Self { inner, clock, left: Mutex::new(None) })
    }

    /// Whether it is for this caller to leave the connection.
    fn may_leave(&self) -> bool {
        let now = self.clock.mono();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.is_some_and(|at| now.since_ms(at) < AGAIN_MS) {
            return false;
        }
        *left = Some(now);
        true
    }
}

impl Topic for Carrier {
    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), TopicError>> {
        self.inner.publish(message)
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
        queue: Option<&'a str>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Message>, TopicError>> {
        self.inner.subscribe(subject, queue)
    }

    fn request(&self, message: Outgoing, timeout_ms: u64) -> BoxFuture<'_, Result<Message, RequestError>> {
        self.inner.request(message, timeout_ms)
    }

    fn request_many(
        &self,
        message: Outgoing,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        self.inner.request_many(message)
    }

    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        self.inner.serve(service)
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.inner.link()
    }

    fn reconnect(&self) -> BoxFuture<'_, ()> {
        if self.may_leave() { self.inner.reconnect() } else { Box::pin(std::future::ready(())) }
    }
}
