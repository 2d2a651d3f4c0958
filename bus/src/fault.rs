//! Misbehaviour around any store or topic, real ones too: requests and answers lost, delayed, failed, by a [`Plan`].
//!
//! The model in memory has faults of its own that reach deeper ([`crate::memory::faults`]). This wrapper is for what
//! runs on real servers: it turns calls into those outcomes that a bad network makes of them, and no others, so
//! whoever is correct on the ports is correct behind it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use ostler_schemas::{Bucket, Key, Revision};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::sync::watch;

use crate::clock::ClockRef;
use crate::store::{
    BucketInfo, CommitError, Committed, Entry, Headers, Read, ReadError, Record, Store, StoreRef, Txn,
    WatchError, WatchEvent, WatchFrom,
};
use crate::topic::{LinkState, Message, Outgoing, RequestError, ServiceSpec, Topic, TopicError, TopicRef};

/// A sort of call, each with its own part of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Reads: `get`, `info`, `purge_marker`.
    Read,
    /// Writes: `commit`, `append`.
    Write,
    /// The beginning of a watch or of reading records.
    Watch,
    /// `publish`.
    Publish,
    /// `request`, `request_many`.
    Request,
    /// One message delivered to a subscription, service or stream of answers.
    Delivery,
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Pass,
    /// It never arrives; the caller meets silence.
    LoseRequest,
    /// It is done, but the caller meets silence.
    LoseReply,
    /// It is done this much later.
    Delay(u64),
    /// It fails at once, without having been done.
    Fail,
}

/// Chances for calls that no script covers, in parts per million.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chances {
    /// Of [`Act::LoseRequest`].
    pub lose_request_ppm: u32,
    /// Of [`Act::LoseReply`].
    pub lose_reply_ppm: u32,
    /// Of [`Act::Fail`].
    pub fail_ppm: u32,
    /// Of [`Act::Delay`].
    pub delay_ppm: u32,
    /// The longest delay.
    pub delay_max_ms: u64,
}

struct PlanState {
    rng: ChaCha20Rng,
    chances: Chances,
    scripts: BTreeMap<Call, VecDeque<Act>>,
}

/// What happens to calls. Shared by the wrappers that follow it and by the test that writes it.
#[derive(Clone)]
pub struct Plan {
    state: Arc<Mutex<PlanState>>,
    clock: ClockRef,
    silence_ms: u64,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plan")
    }
}

impl Plan {
    /// Lets everything pass, until told otherwise. A store's caller waits `silence_ms` on `clock` before it gives a
    /// lost call up.
    #[must_use]
    pub fn new(seed: u64, clock: ClockRef, silence_ms: u64) -> Self {
        let rng = ChaCha20Rng::seed_from_u64(seed);
        let state = PlanState { rng, chances: Chances::default(), scripts: BTreeMap::new() };
        Self { state: Arc::new(Mutex::new(state)), clock, silence_ms }
    }

    fn state(&self) -> MutexGuard<'_, PlanState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next calls of this sort meet these acts, in order.
    pub fn script(&self, call: Call, acts: impl IntoIterator<Item = Act>) {
        self.state().scripts.entry(call).or_default().extend(acts);
    }

    /// All other calls meet these chances.
    pub fn chances(&self, chances: Chances) {
        self.state().chances = chances;
    }

    /// Everything passes again.
    pub fn calm(&self) {
        let mut state = self.state();
        state.chances = Chances::default();
        state.scripts.clear();
    }

    fn act(&self, call: Call) -> Act {
        let mut state = self.state();
        if let Some(act) = state.scripts.get_mut(&call).and_then(VecDeque::pop_front) {
            return act;
        }
        let chances = state.chances;
        let mut drawn = state.rng.next_u32() % 1_000_000;
        for (ppm, act) in [
            (chances.lose_request_ppm, Act::LoseRequest),
            (chances.lose_reply_ppm, Act::LoseReply),
            (chances.fail_ppm, Act::Fail),
            (chances.delay_ppm, Act::Delay(0)),
        ] {
            if drawn < ppm {
                return match act {
                    Act::Delay(_) => Act::Delay(state.rng.next_u64() % (chances.delay_max_ms + 1)),
                    Act::Pass | Act::LoseRequest | Act::LoseReply | Act::Fail => act,
                };
            }
            drawn -= ppm;
        }
        Act::Pass
    }

    /// Does a call as the plan has it; `None` means silence, an error that it was failed.
    async fn around<T>(&self, call: Call, work: impl Future<Output = T>) -> Result<Option<T>, Failed> {
        match self.act(call) {
            Act::Pass => Ok(Some(work.await)),
            Act::LoseRequest => Ok(None),
            Act::LoseReply => {
                work.await;
                Ok(None)
            }
            Act::Delay(ms) => {
                self.clock.sleep_ms(ms).await;
                Ok(Some(work.await))
            }
            Act::Fail => Err(Failed),
        }
    }

    /// Messages as the plan lets them through.
    fn deliveries(&self, messages: BoxStream<'static, Message>) -> BoxStream<'static, Message> {
        let plan = self.clone();
        messages
            .filter_map(move |message| {
                let plan = plan.clone();
                async move {
                    match plan.act(Call::Delivery) {
                        Act::Pass => Some(message),
                        Act::LoseRequest | Act::LoseReply | Act::Fail => None,
                        Act::Delay(ms) => {
                            plan.clock.sleep_ms(ms).await;
                            Some(message)
                        }
                    }
                }
            })
            .boxed()
    }

    /// A stream that begins as the plan has it.
    fn stream<T: Send + 'static>(
        &self,
        stream: BoxStream<'static, T>,
        failure: impl FnOnce() -> T + Send + 'static,
    ) -> BoxStream<'static, T> {
        match self.act(Call::Watch) {
            Act::Pass => stream,
            // Neither events nor an error: what a hung consumer looks like.
            Act::LoseRequest | Act::LoseReply => futures::stream::pending().boxed(),
            Act::Delay(ms) => {
                let clock = self.clock.clone();
                futures::stream::once(async move {
                    clock.sleep_ms(ms).await;
                    stream
                })
                .flatten()
                .boxed()
            }
            Act::Fail => futures::stream::once(async move { failure() }).boxed(),
        }
    }
}

/// The plan had the call fail.
struct Failed;

/// What failed calls say.
const INJECTED: &str = "failed by the test's plan";

/// A store behind a plan.
pub struct FaultyStore {
    inner: StoreRef,
    plan: Plan,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl FaultyStore {
    /// `inner` behind `plan`.
    #[must_use]
    pub fn shared(inner: StoreRef, plan: Plan) -> StoreRef {
        Arc::new(Self { inner, plan })
    }

    async fn read<T>(&self, work: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
        match self.plan.around(Call::Read, work).await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                self.plan.clock.sleep_ms(self.plan.silence_ms).await;
                Err(ReadError::Unavailable { reason: "no answer in time".to_owned() })
            }
            Err(Failed) => Err(ReadError::Unavailable { reason: INJECTED.to_owned() }),
        }
    }

    async fn write<T>(&self, work: impl Future<Output = Result<T, CommitError>>) -> Result<T, CommitError> {
        match self.plan.around(Call::Write, work).await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                self.plan.clock.sleep_ms(self.plan.silence_ms).await;
                Err(CommitError::Unknown { reason: "no answer in time".to_owned() })
            }
            Err(Failed) => Err(CommitError::Refused { reason: INJECTED.to_owned(), retryable: true }),
        }
    }
}

impl Store for FaultyStore {
    fn get<'a>(&'a self, key: &'a Key, read: Read) -> BoxFuture<'a, Result<Option<Entry>, ReadError>> {
        Box::pin(self.read(self.inner.get(key, read)))
    }

    fn commit<'a>(&'a self, txn: &'a Txn) -> BoxFuture<'a, Result<Committed, CommitError>> {
        Box::pin(self.write(self.inner.commit(txn)))
    }

    fn watch(&self, bucket: Bucket, from: WatchFrom) -> BoxStream<'static, Result<WatchEvent, WatchError>> {
        let failure = || Err(WatchError { reason: INJECTED.to_owned() });
        self.plan.stream(self.inner.watch(bucket, from), failure)
    }

    fn info(&self, bucket: Bucket) -> BoxFuture<'_, Result<BucketInfo, ReadError>> {
        Box::pin(self.read(self.inner.info(bucket)))
    }

    fn purge_marker<'a>(&'a self, key: &'a Key, revision: Revision) -> BoxFuture<'a, Result<(), ReadError>> {
        Box::pin(self.read(self.inner.purge_marker(key, revision)))
    }

    fn append<'a>(
        &'a self,
        subject: &'a str,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'a, Result<u64, CommitError>> {
        Box::pin(self.write(self.inner.append(subject, headers, body)))
    }

    fn records(
        &self,
        stream: &'static str,
        filter: &str,
        from: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Record, ReadError>> {
        let failure = || Err(ReadError::Unavailable { reason: INJECTED.to_owned() });
        self.plan.stream(self.inner.records(stream, filter, from, follow), failure)
    }
}

/// Topics behind a plan.
pub struct FaultyTopic {
    inner: TopicRef,
    plan: Plan,
}

impl fmt::Debug for FaultyTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyTopic")
    }
}

impl FaultyTopic {
    /// `inner` behind `plan`.
    #[must_use]
    pub fn shared(inner: TopicRef, plan: Plan) -> TopicRef {
        Arc::new(Self { inner, plan })
    }

    async fn received(
        &self,
        stream: impl Future<Output = Result<BoxStream<'static, Message>, TopicError>>,
    ) -> Result<BoxStream<'static, Message>, TopicError> {
        Ok(self.plan.deliveries(stream.await?))
    }
}

impl Topic for FaultyTopic {
    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), TopicError>> {
        Box::pin(async move {
            match self.plan.around(Call::Publish, self.inner.publish(message)).await {
                Ok(answer) => answer.unwrap_or(Ok(())),
                Err(Failed) => Err(TopicError { reason: INJECTED.to_owned() }),
            }
        })
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a str,
        queue: Option<&'a str>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(self.received(self.inner.subscribe(subject, queue)))
    }

    fn request(&self, message: Outgoing, timeout_ms: u64) -> BoxFuture<'_, Result<Message, RequestError>> {
        Box::pin(async move {
            let subject = message.subject.clone();
            match self.plan.around(Call::Request, self.inner.request(message, timeout_ms)).await {
                Ok(Some(answer)) => answer,
                Ok(None) => {
                    self.plan.clock.sleep_ms(timeout_ms).await;
                    Err(RequestError::Timeout { subject })
                }
                Err(Failed) => Err(RequestError::Disconnected { reason: INJECTED.to_owned() }),
            }
        })
    }

    fn request_many(
        &self,
        message: Outgoing,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(async move {
            match self.plan.around(Call::Request, self.inner.request_many(message)).await {
                Ok(Some(stream)) => self.received(std::future::ready(stream)).await,
                Ok(None) => Ok(futures::stream::pending().boxed()),
                Err(Failed) => Err(TopicError { reason: INJECTED.to_owned() }),
            }
        })
    }

    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(self.received(self.inner.serve(service)))
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.inner.link()
    }

    fn reconnect(&self) -> BoxFuture<'_, ()> {
        self.inner.reconnect()
    }
}

#[cfg(test)]
mod tests;
