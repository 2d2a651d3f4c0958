//! `exec`: one answer that lasts, and input for it under the id that it is attended by.
//!
//! It is asked for once: what may have begun is not begun again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ostler_bus::TopicRef;
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_schemas::codec;
use ostler_schemas::headers;
use ostler_schemas::subject::{ApiSubject, Verb};
use ostler_schemas::v1::api::{ExecInput, ExecItem, ExecRequest};
use tokio::sync::mpsc;

use super::{Client, Replies, WATCH_PATIENCE, encode};
use crate::failure::Failure;

/// How long one input waits for its answer before it is sent again.
const ANSWER_MS: u64 = 3_000;
/// The pause before it is sent again when the bus says at once that nobody is there.
const AGAIN: Duration = Duration::from_millis(200);
/// Input that nobody takes: a command that does not read holds it up for longer, and its answers go on meanwhile.
const BROKEN: Duration = Duration::from_secs(15);
/// Items of one input.
const ITEMS: usize = 64;
/// Bytes of one input, about: half of what the bus carries.
const WEIGHT: usize = 256 << 10;

/// What the caller of a command holds.
pub struct Exec {
    /// Its output.
    pub replies: Replies,
    /// For its input.
    pub speaker: Speaker,
}

/// The way of input to the command.
#[derive(Clone)]
pub struct Speaker {
    topic: TopicRef,
    subject: String,
    read: Arc<AtomicU64>,
}

impl Client {
    /// Asks for a command.
    ///
    /// # Errors
    /// When nobody serves it.
    pub async fn exec(&self, request: &ExecRequest) -> Result<Exec, Failure> {
        let session = self.entropy.txn();
        let subject = |verb, rest| ApiSubject { caller: self.caller.clone(), verb, rest }.subject();
        let head = Headers::new()
            .with(headers::CONTENT_TYPE, headers::MSGPACK)
            .with(headers::TXN, session.to_string())
            .with(headers::MIN_REVISION, self.seen.load(Ordering::Relaxed).to_string());
        let message = Outgoing::new(subject(Verb::Exec, None), encode(request)?).with_headers(head);
        let stream = self.topic.request_many(message).await;
        let stream = stream.map_err(|error| Failure::local("cannot send the request", error))?;
        let attended = self.attendance.attend(&self.topic, &self.caller, session);
        let mut replies = Replies::new(stream, self.servers.clone()).with_patience(WATCH_PATIENCE);
        if replies.nobody_listens().await {
            return Err(Failure::message(
                "no controller serves exec: see that the controllers run, and that they are not older than this program",
            ));
        }
        let speaker = Speaker {
            topic: self.topic.clone(),
            subject: subject(Verb::Relay, Some(session.to_string())),
            read: Arc::new(AtomicU64::new(0)),
        };
        Ok(Exec { replies: replies.attended(attended), speaker })
    }
}

impl Speaker {
    /// Says how many messages of the answer were read.
    pub async fn has_read(&self, messages: u64) {
        self.read.store(messages, Ordering::Relaxed);
        if let Some(message) = self.message(0, Vec::new()) {
            // The next one says it too.
            let _unsent = self.topic.publish(message).await;
        }
    }

    fn message(&self, n: u64, items: Vec<ExecItem>) -> Option<Outgoing> {
        let input = ExecInput { n, read: self.read.load(Ordering::Relaxed), items };
        let body = Bytes::from(codec::encode(&input).ok()?);
        let head = Headers::new().with(headers::CONTENT_TYPE, headers::MSGPACK);
        Some(Outgoing::new(self.subject.clone(), body).with_headers(head))
    }

    /// Sends everything that comes, in order, one after the other; ends with the input.
    ///
    /// # Errors
    /// When the other side does not follow any more.
    pub async fn say_all(&self, mut input: mpsc::Receiver<ExecItem>) -> Result<(), Failure> {
        let mut n = 0;
        while let Some(first) = input.recv().await {
            let mut weight = first.weight();
            let mut items = vec![first];
            while items.len() < ITEMS
                && weight < WEIGHT
                && let Ok(more) = input.try_recv()
            {
                weight += more.weight();
                items.push(more);
            }
            n += 1;
            self.say(n, &items).await?;
        }
        Ok(())
    }

    async fn say(&self, n: u64, items: &[ExecItem]) -> Result<(), Failure> {
        let mut refused = None;
        loop {
            let Some(message) = self.message(n, items.to_vec()) else {
                return Err(Failure::message("the input cannot be sent"));
            };
            match self.topic.request(message, ANSWER_MS).await {
                Ok(answer) if answer.headers.get(headers::END) == Some("error") => {
                    return Err(Failure::Broken("input was lost on the way to the command".to_owned()));
                }
                Ok(answer) if answer.status.is_none() => return Ok(()),
                Ok(_) | Err(ostler_bus::topic::RequestError::NoResponders { .. }) => {
                    let since = *refused.get_or_insert_with(Instant::now);
                    if since.elapsed() >= BROKEN {
                        return Err(Failure::Broken("no controller takes the input any more".to_owned()));
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                // Held up, or lost: the answers tell whether the other side is still there.
                Err(_) => refused = None,
            }
        }
    }
}
