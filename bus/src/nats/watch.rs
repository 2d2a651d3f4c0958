//! A consumer of our own: push, ordered, unnamed, in memory, with flow control and heartbeats.
//!
//! Guarantees: messages in the order of the stream, none missing between two of them; the stream of results ends with
//! an error at the first gap, at silence longer than [`SILENCE`], or when the server has lost the consumer. It never
//! repairs itself: whoever watches begins another one, under a fresh name, from the last revision seen.

use std::time::Duration;

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use ostler_schemas::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connect::Link;
use super::wire::{self, Stored};

/// A consumer with nothing to deliver says so this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Three heartbeats lost: the consumer, or the way to it, is gone.
const SILENCE: Duration = Duration::from_millis(3_500);
/// The server forgets a consumer that nobody listens to.
const FORGET: Duration = Duration::from_secs(30);
/// Status of flow control and heartbeats.
const CONTROL: u16 = 100;
/// Last consumer sequence, on a heartbeat.
const LAST_CONSUMER: &str = "Nats-Last-Consumer";
/// Where to tell a stalled consumer to go on, on a heartbeat.
const STALLED: &str = "Nats-Consumer-Stalled";

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// The last message of each subject.
    LastOfEach,
    /// A sequence.
    At(u64),
}

/// What a consumer delivers.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A message, and whether everything stored has now been delivered.
    Message(Stored, bool),
    /// Nothing new; all stored has been delivered.
    Idle,
}

/// A running consumer. Dropping it ends its subscription, and the server forgets it.
pub(super) struct Consumer {
    link: Link,
    messages: Subscriber,
    /// Messages stored but not yet delivered when it began.
    pub(super) pending: u64,
    delivered: u64,
}

#[derive(Deserialize)]
struct Created {
    #[serde(default)]
    num_pending: u64,
}

/// Begins a consumer of `filter` in `stream`.
pub(super) async fn begin(link: &Link, stream: &str, filter: &str, start: Start) -> Result<Consumer, String> {
    let inbox = link.inbox();
    let messages = link.client().subscribe(inbox.clone()).await.map_err(|e| e.to_string())?;
    let mut config = json!({
        "deliver_subject": inbox,
        "filter_subject": filter,
        "ack_policy": "none",
        "max_deliver": 1,
        "replay_policy": "instant",
        "flow_control": true,
        "idle_heartbeat": nanos(HEARTBEAT),
        "inactive_threshold": nanos(FORGET),
        "mem_storage": true,
        "num_replicas": 1,
    });
    match start {
        Start::LastOfEach => config["deliver_policy"] = json!("last_per_subject"),
        Start::At(sequence) => {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(sequence.max(1));
        }
    }
    let request = json!({"stream_name": stream, "config": config, "action": "create"});
    let created: Created =
        wire::api(link, &format!("CONSUMER.CREATE.{stream}"), &request).await.map_err(|e| e.to_string())?;
    Ok(Consumer { link: link.clone(), messages, pending: created.num_pending, delivered: 0 })
}

fn nanos(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

impl Consumer {
    /// The next delivery; an error is the end.
    pub(super) async fn next(&mut self) -> Result<Delivery, String> {
        loop {
            let message = match tokio::time::timeout(SILENCE, self.messages.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err("the connection is closed".to_owned()),
                Err(_) => return Err("missed heartbeats".to_owned()),
            };
            match message.status {
                None => return self.take(message),
                Some(status) if status.as_u16() == CONTROL => {
                    if self.control(&message).await? {
                        return Ok(Delivery::Idle);
                    }
                }
                Some(status) => return Err(format!("the server ended the consumer with status {status}")),
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<Delivery, String> {
        let place = message.reply.as_deref().and_then(Place::parse).ok_or("a message without its place")?;
        self.delivered += 1;
        if place.consumer_sequence != self.delivered {
            return Err(format!("message {} came after {}", place.consumer_sequence, self.delivered - 1));
        }
        let stored = Stored {
            subject: message.subject.to_string(),
            sequence: place.stream_sequence,
            at: place.at,
            headers: wire::from_header_map(message.headers.as_ref()),
            body: message.payload,
        };
        Ok(Delivery::Message(stored, place.pending == 0))
    }

    /// Answers flow control; true for a heartbeat of a consumer that has nothing left.
    async fn control(&self, message: &Message) -> Result<bool, String> {
        if let Some(reply) = &message.reply {
            self.go_on(reply.to_string()).await?;
            return Ok(false);
        }
        let header = |name| message.headers.as_ref().and_then(|h: &HeaderMap| h.get(name));
        if let Some(stalled) = header(STALLED) {
            self.go_on(stalled.to_string()).await?;
            return Ok(false);
        }
        let last = header(LAST_CONSUMER).and_then(|v| v.as_str().parse::<u64>().ok());
        match last {
            Some(last) if last != self.delivered => {
                Err(format!("messages {} to {last} were lost", self.delivered + 1))
            }
            Some(_) | None => Ok(true),
        }
    }

    async fn go_on(&self, subject: String) -> Result<(), String> {
        self.link.client().publish(subject, Bytes::new()).await.map_err(|e| e.to_string())
    }
}

/// What a delivered message's reply subject tells.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    stream_sequence: u64,
    consumer_sequence: u64,
    at: Timestamp,
    pending: u64,
}

impl Place {
    /// `$JS.ACK.<stream>.<consumer>.<n>.<stream seq>.<consumer seq>.<time>.<pending>`, or the later form with domain
    /// and account before the stream and a random token at the end.
    fn parse(reply: &str) -> Option<Place> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let rest = match tokens.len() {
            7 => &tokens[3..7],
            9.. => &tokens[5..9],
            _ => return None,
        };
        let number = |i: usize| rest[i].parse::<u64>().ok();
        Some(Place {
            stream_sequence: number(0)?,
            consumer_sequence: number(1)?,
            at: Timestamp(number(2)? / 1_000_000),
            pending: number(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_acknowledgement_subject() {
        let place =
            Place { stream_sequence: 7, consumer_sequence: 3, at: Timestamp(1_700_000_000_000), pending: 9 };
        for reply in [
            "$JS.ACK.KV_ostler.abc.1.7.3.1700000000000000000.9",
            "$JS.ACK._.hash.KV_ostler.abc.1.7.3.1700000000000000000.9.rnd",
            "$JS.ACK._.hash.KV_ostler.abc.1.7.3.1700000000000000000.9",
        ] {
            assert_eq!(Place::parse(reply).as_ref(), Some(&place), "{reply}");
        }
        assert_eq!(Place::parse("$JS.ACK.KV_ostler.abc.1.7.x.1700000000000000000.9"), None);
        assert_eq!(Place::parse("_INBOX.1"), None);
    }
}
