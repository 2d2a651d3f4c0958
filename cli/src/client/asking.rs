//! How a request gets its answer: sent, sent again, and told about while it takes long.
//!
//! Guarantees: a request that may change something bears a transaction id of its own (header `Ostler-Txn`), the same on
//! every copy of it, and copies after the first say that they are (`Ostler-Resend`): the servers see to it that it takes
//! effect once, whoever of them was killed while working on it. So silence is no reason to give up: the request goes to
//! whoever else answers, until the patience of the command ends. Not guaranteed: that a failure means that nothing was
//! done; where that is not known the message says so and names the transaction.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_schemas::codec::Wire;
use ostler_schemas::subject::{ApiSubject, Verb};
use ostler_schemas::v1::api::{ApiErrorCode, ApplyRequest};
use ostler_schemas::{TxnId, headers};
use tokio::time::Instant;

use super::{Client, Replies, encode, lasts};
use crate::failure::{Failure, Unreachable};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the first copy may be silent, after the 2 s in which the bus says that nobody listens. Changes take a tenth of a second, and what is read from memory less: whoever
/// is silent for longer was killed or hangs, or the store is electing a leader, and then another copy does no harm.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// Each later copy may be silent for so many times as long as the one before.
const PATIENCE_GROWS: u32 = 3;
/// The same for an apply that is larger than a message.
const LARGE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a later copy may be silent at most: an apply may be large, and commits wait for synced replicas.
const LAST_PATIENCE: Duration = Duration::from_secs(20);
/// A person who waits for longer wonders what for.
const WONDERS: Duration = Duration::from_secs(2);

/// A request, for as many copies as it takes.
struct Asking {
    verb: Verb,
    body: Bytes,
    txn: Option<TxnId>,
    /// How long the first copy may be silent.
    patience: Duration,
}

/// What a client waits for, as told to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Bus,
    Controller,
    Answer,
}

impl Waiting {
    fn text(self) -> &'static str {
        match self {
            Waiting::Bus => "there is no connection to the bus",
            Waiting::Controller => "no controller answers yet",
            Waiting::Answer => "a controller took the request and has not answered yet",
        }
    }
}

impl Client {
    /// All parts of the answer to what changes nothing.
    pub(super) async fn ask<T: Wire>(&self, verb: Verb, request: &T) -> Result<Vec<Bytes>, Failure> {
        let asking = Asking { verb, body: encode(request)?, txn: None, patience: FIRST_PATIENCE };
        self.patiently(verb, self.insist(asking)).await
    }

    /// All parts of the answer to what may change something.
    pub(super) async fn order<T: Wire>(&self, verb: Verb, request: &T) -> Result<Vec<Bytes>, Failure> {
        let txn = Some(self.entropy.txn());
        let asking = Asking { verb, body: encode(request)?, txn, patience: FIRST_PATIENCE };
        self.patiently(verb, self.insist(asking)).await
    }

    /// All parts of the answer to an apply.
    pub(super) async fn order_apply(&self, request: &ApplyRequest) -> Result<Vec<Bytes>, Failure> {
        let txn = (!request.dry_run).then(|| self.entropy.txn());
        // Thousands of lines take a server a while, and copies would only keep it from them.
        let patience = if request.content.is_some() { LARGE_PATIENCE } else { FIRST_PATIENCE };
        let asking = Asking { verb: Verb::Apply, body: encode(request)?, txn, patience };
        self.patiently(Verb::Apply, self.insist(asking)).await
    }

    async fn insist(&self, asking: Asking) -> Result<Vec<Bytes>, Failure> {
        let deadline = Instant::now() + self.persistence;
        let mut patience = asking.patience;
        let mut again = false;
        loop {
            let answer = match self.send(&asking, again, deadline).await {
                Ok(replies) => whole(replies.with_patience(patience)).await,
                Err(failure) => Err(failure),
            };
            match answer {
                Err(failure) if may_repeat(&failure) && Instant::now() < deadline => {
                    again = true;
                    patience = (patience * PATIENCE_GROWS).min(LAST_PATIENCE);
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Opens an answer that lasts: sent until its first part is there, or patience ends.
    pub(super) async fn open<T: Wire>(&self, verb: Verb, request: &T) -> Result<Replies, Failure> {
        let asking = Asking { verb, body: encode(request)?, txn: None, patience: FIRST_PATIENCE };
        self.patiently(verb, self.opened(asking)).await
    }

    async fn opened(&self, asking: Asking) -> Result<Replies, Failure> {
        let deadline = Instant::now() + self.persistence;
        loop {
            let answer = match self.send(&asking, false, deadline).await {
                // A quiet process is no silence of the server: nothing can be asked of the first part.
                Ok(replies) if asking.verb == Verb::Logs => return Ok(replies),
                Ok(replies) => {
                    let mut replies = replies.with_patience(FIRST_PATIENCE);
                    replies.peek().await.map(|()| replies)
                }
                Err(failure) => Err(failure),
            };
            match answer {
                Err(failure) if may_repeat(&failure) && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// A request without a body, for what every version answers.
    pub(super) async fn bare(&self, verb: Verb) -> Result<Vec<Bytes>, Failure> {
        let asking = Asking { verb, body: Bytes::new(), txn: None, patience: FIRST_PATIENCE };
        self.patiently(verb, self.insist(asking)).await
    }

    /// Sends one copy, until somebody takes it.
    async fn send(&self, asking: &Asking, again: bool, deadline: Instant) -> Result<Replies, Failure> {
        let subject = ApiSubject { caller: self.caller.clone(), verb: asking.verb, rest: None }.subject();
        let mut head = Headers::new().with(headers::CONTENT_TYPE, headers::MSGPACK);
        let seen = self.seen.load(Ordering::Relaxed);
        if seen > 0 {
            head.set(headers::MIN_REVISION, seen.to_string());
        }
        // Of what lasts, an id of its own for each: the farewell to an answer that broke must not end the next one.
        let attended = lasts(asking.verb).then(|| self.entropy.txn());
        if let Some(id) = attended.or(asking.txn) {
            head.set(headers::TXN, id.to_string());
        }
        if again && asking.txn.is_some() {
            head.set(headers::RESEND, "1");
        }
        loop {
            let message = Outgoing::new(subject.clone(), asking.body.clone()).with_headers(head.clone());
            let failure = match self.topic.request_many(message).await {
                Err(error) => {
                    self.waits_for(Waiting::Bus);
                    self.no_bus(&error.reason)
                }
                Ok(stream) => {
                    self.waits_for(Waiting::Answer);
                    let mut replies = Replies::new(stream, self.place(&subject)).changing(asking.txn);
                    if !replies.nobody_listens().await {
                        return Ok(match attended {
                            Some(id) => {
                                replies.attended(self.attendance.attend(&self.topic, &self.caller, id))
                            }
                            None => replies,
                        });
                    }
                    self.waits_for(Waiting::Controller);
                    self.no_controller(&subject)
                }
            };
            if Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn waits_for(&self, what: Waiting) {
        *self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = what;
    }

    /// Tells a person once what is waited for, when it takes long.
    async fn patiently<F: Future>(&self, verb: Verb, work: F) -> F::Output {
        let Some(notice) = &self.notice else { return work.await };
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(WONDERS) => {}
        }
        if !self.noticed.swap(true, Ordering::Relaxed) {
            let what = *self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (verb, most) = (verb.as_str(), self.persistence.as_secs());
            notice(&format!("still waiting: {} ({verb} at {}, at most {most}s)", what.text(), self.servers));
        }
        work.await
    }

    fn place(&self, subject: &str) -> String {
        let link = self.topic.link();
        let state = link.borrow();
        let server = state.server.as_ref().map(|s| format!(" (connected to {s})")).unwrap_or_default();
        format!("{subject} through {}{server}", self.servers)
    }

    fn no_bus(&self, reason: &str) -> Failure {
        Failure::Unreachable(Box::new(Unreachable {
            what: format!("no connection to the bus: {reason}"),
            tried: self.servers.clone(),
            next: "see that nats-server runs and that the context names it: ostler context show".to_owned(),
        }))
    }

    fn no_controller(&self, subject: &str) -> Failure {
        Failure::Unreachable(Box::new(Unreachable {
            what: "the bus answers, but no controller does".to_owned(),
            tried: format!("{} for {}s", self.place(subject), self.persistence.as_secs()),
            next: "see that an ostler-controller runs; the hosts go on with what they have meanwhile"
                .to_owned(),
        }))
    }
}

async fn whole(mut replies: Replies) -> Result<Vec<Bytes>, Failure> {
    let mut parts = Vec::new();
    while let Some(body) = replies.next().await? {
        parts.push(body);
    }
    Ok(parts)
}

/// Whether another copy may bring the answer: nothing was done, nothing was heard, or nobody could tell.
fn may_repeat(failure: &Failure) -> bool {
    let untold = match failure {
        Failure::Api(error) => error.code == ApiErrorCode::Unknown,
        Failure::Broken(_) => true,
        Failure::Message(_)
        | Failure::Usage(_)
        | Failure::Refused(_)
        | Failure::Unreachable(_)
        | Failure::NotConverged(_)
        | Failure::Different
        | Failure::PipeClosed
        | Failure::Exited(_)
        | Failure::Interrupted => false,
    };
    untold || failure.is_nothing_done()
}
