//! The parties of a case, and what most cases do.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use ostler_schemas::{Bucket, DocumentKind, Key, Name, NodeName, Revision, Uid};

use super::{NODES, OPERATOR, Subject, must};
use crate::clock::ClockRef;
use crate::entropy::EntropyRef;
use crate::node_link::NodeLink;
use crate::store::{
    CommitError, Committed, Entry, Expect, Guard, Headers, Op, Read, StoreRef, Txn, WatchError, WatchEvent,
    WatchFrom, Write,
};
use crate::topic::{Message, TopicRef};

/// The parties of a case.
pub struct Context {
    /// A controller's store.
    pub store: StoreRef,
    /// Its topics.
    pub topic: TopicRef,
    /// Another controller's store.
    pub rival_store: StoreRef,
    /// Its topics.
    pub rival: TopicRef,
    /// The first node's link.
    pub link: NodeLink,
    /// The first node's topics.
    pub agent: TopicRef,
    /// The other node's link.
    pub other_link: NodeLink,
    /// The other node's topics.
    pub other_agent: TopicRef,
    /// The operator's topics.
    pub operator: TopicRef,
    /// For fresh keys.
    pub entropy: EntropyRef,
    /// The parties' clock.
    pub clock: ClockRef,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

/// How long to wait before believing that something does not happen. Long enough for it to have happened on a busy
/// machine; a shorter wait would only miss a failure, never report a false one.
pub(super) const QUIET: Duration = Duration::from_millis(300);

pub(super) type Watch = BoxStream<'static, Result<WatchEvent, WatchError>>;

pub(super) fn node(index: usize) -> Result<NodeName, String> {
    must("a node's name", NODES[index].parse())
}

impl Context {
    pub(super) async fn connect(subject: &dyn Subject) -> Result<Self, String> {
        let (store, topic) = subject.controller().await;
        let (rival_store, rival) = subject.controller().await;
        let (first, second) = (node(0)?, node(1)?);
        let operator: Name = must("an operator's name", OPERATOR.parse())?;
        let (agent, other_agent) = (subject.agent(&first).await, subject.agent(&second).await);
        Ok(Self {
            store,
            topic,
            rival_store,
            rival,
            link: NodeLink::new(agent.clone(), first, subject.clock()),
            agent,
            other_link: NodeLink::new(other_agent.clone(), second, subject.clock()),
            other_agent,
            operator: subject.operator(&operator).await,
            entropy: subject.entropy(),
            clock: subject.clock(),
        })
    }

    /// A key that nothing was ever written to.
    pub(super) fn fresh(&self) -> Key {
        Key::ProcessSpec(self.uid())
    }

    pub(super) fn uid(&self) -> Uid {
        self.entropy.uid()
    }

    pub(super) fn txn(&self, writes: Vec<Write>) -> Txn {
        Txn { id: self.entropy.txn(), writes }
    }

    /// Commits until it is no conflict any more: on replicated streams a guard on a key with a write in flight is
    /// refused although it holds. Never for transactions that are meant to conflict.
    pub(super) async fn commit(&self, writes: Vec<Write>) -> Result<Committed, CommitError> {
        self.store.commit(&self.txn(writes)).await
    }

    pub(super) async fn done(&self, writes: Vec<Write>) -> Result<Committed, String> {
        must("commit", self.commit(writes).await)
    }

    /// Whether a transaction meets a conflict.
    pub(super) async fn conflicts(&self, what: &str, writes: Vec<Write>) -> Result<(), String> {
        match self.commit(writes).await {
            Err(CommitError::Conflict) => Ok(()),
            other => Err(format!("{what}: found {other:?}, expected a conflict")),
        }
    }

    /// The last write of a key, from the leader.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>, String> {
        must("get", self.store.get(key, Read::Leader).await)
    }

    pub(super) async fn last_of(&self, key: &Key) -> Result<Expect, String> {
        Ok(Expect::after(self.get(key).await?.map(|e| e.revision)))
    }

    /// Writes a node's document over whatever it is.
    pub(super) async fn document(
        &self,
        (index, kind): (usize, DocumentKind),
        body: &str,
    ) -> Result<Revision, String> {
        let key = Key::NodeDocument(node(index)?, kind);
        let guard = Guard::Own(self.last_of(&key).await?);
        Ok(self.done(vec![put(&key, guard, body)]).await?.last)
    }

    pub(super) async fn last_revision(&self, bucket: Bucket) -> Result<Revision, String> {
        Ok(must("info", self.store.info(bucket).await)?.last)
    }

    /// A watch from a revision on that has said that it is synced.
    pub(super) async fn watch_after(&self, revision: Revision) -> Result<Watch, String> {
        let mut watch = self.store.watch(Bucket::Objects, WatchFrom::After(revision));
        loop {
            match next(&mut watch).await? {
                WatchEvent::Synced => return Ok(watch),
                WatchEvent::Entry(_) | WatchEvent::Foreign(_) | WatchEvent::Idle => {}
            }
        }
    }
}

pub(super) fn put(key: &Key, guard: Guard, body: &str) -> Write {
    let op = Op::Put(Bytes::from(body.to_owned()));
    Write { key: key.clone(), op, guard, headers: Headers::new() }
}

pub(super) fn create(key: &Key, body: &str) -> Write {
    put(key, Guard::Own(Expect::Absent), body)
}

pub(super) fn update(key: &Key, revision: Revision, body: &str) -> Write {
    put(key, Guard::Own(Expect::Revision(revision)), body)
}

pub(super) fn delete(key: &Key, revision: Revision) -> Write {
    let guard = Guard::Own(Expect::Revision(revision));
    Write { key: key.clone(), op: Op::Delete, guard, headers: Headers::new() }
}

/// The next event of a watch.
pub(super) async fn next(watch: &mut Watch) -> Result<WatchEvent, String> {
    match watch.next().await {
        Some(event) => must("watch", event),
        None => Err("the watch ended".to_owned()),
    }
}

/// The next write that a watch tells of.
pub(super) async fn next_entry(watch: &mut Watch) -> Result<Entry, String> {
    loop {
        match next(watch).await? {
            WatchEvent::Entry(entry) => return Ok(entry),
            WatchEvent::Foreign(_) | WatchEvent::Synced | WatchEvent::Idle => {}
        }
    }
}

/// The next message.
pub(super) async fn message(stream: &mut BoxStream<'static, Message>) -> Result<Message, String> {
    stream.next().await.ok_or_else(|| "the subscription ended".to_owned())
}

/// Whether nothing comes for a while.
pub(super) async fn stays_quiet<T>(stream: &mut BoxStream<'static, T>) -> bool {
    tokio::time::timeout(QUIET, stream.next()).await.is_err()
}
