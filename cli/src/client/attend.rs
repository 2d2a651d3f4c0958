//! Answers that last are attended: the bus does not tell a controller whether anybody still listens to one.
//!
//! While an answer is read, an empty message goes to `api.<caller>.relay.<id>` every `RENEWAL` and after each
//! `READ_STEP` messages of it, with their number in header `Ostler-Seq`, and one with header
//! `Ostler-End` when it is read no more, whatever the reason; a controller that misses them ends the answer by itself.
//! Guarantees: each answer is attended under an id of its own, so that the farewell of one never ends another. Not
//! guaranteed: that a farewell arrives.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ostler_bus::TopicRef;
use ostler_bus::layout::Identity;
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_schemas::subject::{ApiSubject, Verb};
use ostler_schemas::v1::api::LOGS_WINDOW;
use ostler_schemas::{Name, TxnId, headers};
use tokio::sync::watch;

/// Controllers give an answer up after three of these.
const RENEWAL: Duration = Duration::from_secs(5);
/// How long the end of this program may wait for farewells: more than a round trip, less than an operator notices as
/// a hang. What does not get through in this time is found out by the controller.
const FAREWELL: Duration = Duration::from_millis(500);

/// The attended answers of this program.
#[derive(Debug, Clone)]
pub struct Attendance(Arc<State>);

#[derive(Debug)]
struct State {
    closing: watch::Sender<bool>,
    open: watch::Sender<usize>,
}

impl Default for Attendance {
    fn default() -> Self {
        Self(Arc::new(State { closing: watch::Sender::new(false), open: watch::Sender::new(0) }))
    }
}

/// How often it is said how much was read: several times within the window that a controller keeps open.
const READ_STEP: u64 = LOGS_WINDOW / 4;

/// An answer is attended until this is dropped.
#[derive(Debug)]
pub(super) struct Attended {
    read: watch::Sender<u64>,
}

impl Attended {
    /// So many messages of the answer were read.
    pub(super) fn has_read(&self, messages: u64) {
        if messages.is_multiple_of(READ_STEP) {
            self.read.send_replace(messages);
        }
    }
}

impl Attendance {
    /// Attends what `caller` opened under `id`.
    pub(super) fn attend(&self, topic: &TopicRef, caller: &Name, id: TxnId) -> Attended {
        let (read, reader) = watch::channel(0);
        let post = Post::new(topic, caller, id);
        let open = Open::new(&self.0);
        let closing = self.0.closing.subscribe();
        tokio::spawn(async move {
            post.renew(reader, closing).await;
            post.farewell().await;
            drop(open);
        });
        Attended { read }
    }

    /// Takes leave of all of them.
    pub async fn end(&self) {
        self.0.closing.send_replace(true);
        let mut open = self.0.open.subscribe();
        let _late = tokio::time::timeout(FAREWELL, open.wait_for(|count| *count == 0)).await;
    }
}

/// Counts an answer for as long as leave of it has not been taken.
struct Open(Arc<State>);

impl Open {
    fn new(state: &Arc<State>) -> Self {
        state.open.send_modify(|count| *count += 1);
        Self(Arc::clone(state))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Where one answer is attended.
struct Post {
    topic: TopicRef,
    subject: String,
    /// A subject that this caller alone hears.
    echo: String,
}

impl Post {
    fn new(topic: &TopicRef, caller: &Name, id: TxnId) -> Self {
        let relay = ApiSubject { caller: caller.clone(), verb: Verb::Relay, rest: Some(id.to_string()) };
        let echo = format!("{}.{id}", Identity::Operator(caller.clone()).inbox_prefix());
        Self { topic: topic.clone(), subject: relay.subject(), echo }
    }

    /// Returns when nobody reads any more.
    async fn renew(&self, mut reader: watch::Receiver<u64>, mut closing: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                more = reader.changed() => if more.is_err() { return },
                _ = closing.wait_for(|is| *is) => return,
                () = tokio::time::sleep(RENEWAL) => {}
            }
            let read = reader.borrow_and_update().to_string();
            let message = Outgoing::new(self.subject.clone(), Bytes::new());
            // Without a connection there is nothing to do but to go on: it comes back, or the reader gives up.
            let _unsent =
                self.topic.publish(message.with_headers(Headers::new().with(headers::SEQ, read))).await;
        }
    }

    async fn farewell(&self) {
        let head = Headers::new().with(headers::END, "ok");
        let message = Outgoing::new(self.subject.clone(), Bytes::new()).with_headers(head);
        if self.topic.publish(message).await.is_ok() {
            // The program may end next. A subscription is in force once the server has answered, and the server takes
            // what comes over one connection in order: then it has the farewell too.
            let _in_force = self.topic.subscribe(&self.echo, None).await;
        }
    }
}

#[cfg(test)]
mod tests;
