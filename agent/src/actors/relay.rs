//! Orders of the control plane: fetched when hinted at, answered chunk by chunk within a window of credit.

mod exec;
mod files;
mod logs;
mod trial;
mod usage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use futures::StreamExt;
use ostler_bus::store::Headers;
use ostler_bus::topic::Message;
use ostler_schemas::TxnId;
use ostler_schemas::codec;
use ostler_schemas::headers as names;
use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::{ApiError, ApiErrorCode, Ask, AskOp, AsksReply, AsksRequest, RELAY_WINDOW};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::context::{Shared, Task};
use crate::ports::LogQuery;

/// How long answers to a fetch are collected: every replica answers for itself.
const FETCH_MS: u64 = 2_000;
/// How long the others' answers are awaited after one: what comes later comes again with the next hint.
const OTHERS_MS: u64 = 500;
/// Fetches at one time: a hint must not wait for the answers to an earlier one.
const FETCHES: usize = 4;
/// How long a chunk may stay unanswered before the caller is taken for gone.
const CHUNK_MS: u64 = 10_000;
/// The bus's status of a request that nobody is there to hear.
const NOBODY: u16 = 503;
/// Bytes of one chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// Orders carried out at one time; more are answered with an error. A look at the logs of a selection is one for each
/// process of it.
const RELAYS: usize = 128;
/// Finished orders that are remembered, so that one told twice is carried out once.
const REMEMBERED: usize = 256;

pub(crate) struct RelayActor;

pub(crate) enum Msg {
    /// There may be orders.
    Fetch,
    /// Orders came.
    Asks(Vec<Ask>),
    /// A fetch has ended.
    Fetched,
    /// An order has been carried out.
    Done(TxnId),
}

pub(crate) struct State {
    context: Shared,
    fetching: Vec<Task>,
    fetch_again: bool,
    running: BTreeMap<TxnId, Task>,
    known: BTreeSet<TxnId>,
    order: VecDeque<TxnId>,
}

impl Actor for RelayActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.relay.set(me);
        Ok(State {
            context,
            fetching: Vec::new(),
            fetch_again: false,
            running: BTreeMap::new(),
            known: BTreeSet::new(),
            order: VecDeque::new(),
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Fetch if state.is_full() => state.fetch_again = true,
            Msg::Fetch => state.fetch(&me),
            Msg::Fetched => {
                if std::mem::take(&mut state.fetch_again) {
                    state.fetch(&me);
                }
            }
            Msg::Asks(asks) => {
                for ask in asks {
                    state.begin(&me, ask);
                }
            }
            Msg::Done(id) => {
                state.running.remove(&id);
            }
        }
        Ok(())
    }
}

impl State {
    fn fetch(&mut self, me: &ActorRef<Msg>) {
        let (context, me) = (self.context.clone(), me.clone());
        self.fetching.push(Task::spawn(async move {
            fetch(&context, &me).await;
            drop(me.cast(Msg::Fetched));
        }));
    }

    fn is_full(&mut self) -> bool {
        self.fetching.retain(Task::is_running);
        self.fetching.len() >= FETCHES
    }

    fn begin(&mut self, me: &ActorRef<Msg>, ask: Ask) {
        if !self.known.insert(ask.id) {
            return;
        }
        self.order.push_back(ask.id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let busy = self.running.len() >= RELAYS;
        let (context, me, id) = (self.context.clone(), me.clone(), ask.id);
        let task = Task::spawn(async move {
            match ask.op {
                _ if busy => {
                    let why = "this node carries out too many orders already; try again".to_owned();
                    Chunks::new(context, id).end(Err(why)).await;
                }
                AskOp::Exec { uid, exec } => {
                    exec::carry_out(&context, exec::Order { id, caller: ask.caller, uid, exec }).await;
                }
                op => {
                    let mut chunks = Chunks::new(context.clone(), id);
                    let result = carry_out(&context, op, &mut chunks).await;
                    chunks.end(result).await;
                }
            }
            drop(me.cast(Msg::Done(id)));
        });
        self.running.insert(id, task);
    }
}

async fn fetch(context: &Shared, me: &ActorRef<Msg>) {
    let Ok(body) = codec::encode(&AsksRequest::default()) else { return };
    let headers = Headers::new().with(names::CONTENT_TYPE, names::MSGPACK);
    let Ok(mut answers) = context.deps.link.api(Verb::Asks, None, headers, body.into()).await else { return };
    let mut until = context.deps.clock.mono().plus_ms(FETCH_MS);
    loop {
        let next = tokio::select! {
            biased;
            next = answers.next() => next,
            () = context.deps.clock.sleep_until(until) => None,
        };
        let Some(message) = next else { return };
        if message.status.is_some() {
            return;
        }
        until = until.min(context.deps.clock.mono().plus_ms(OTHERS_MS));
        if let Ok(reply) = codec::decode::<AsksReply>(&message.body)
            && me.cast(Msg::Asks(reply.asks)).is_err()
        {
            return;
        }
    }
}

async fn carry_out(context: &Shared, op: AskOp, chunks: &mut Chunks) -> Result<(), String> {
    match op {
        AskOp::Logs { uid, follow, tail, filter } => {
            let query = LogQuery { uid: Some(uid), tail, filter };
            logs::carry_out(context, query, follow, chunks).await
        }
        AskOp::File(ask) => files::carry_out(context, *ask, chunks).await,
        AskOp::Usage => usage::carry_out(context, chunks).await,
        AskOp::Try(trial) => trial::carry_out(context, *trial, chunks).await,
        // Begun apart, because it says itself how it ends.
        AskOp::Exec { .. } => Ok(()),
        AskOp::Unknown => Err("this agent does not know how to do that".to_owned()),
    }
}

/// Numbered chunks to the caller, at most [`RELAY_WINDOW`] of them unanswered.
struct Chunks {
    context: Shared,
    id: TxnId,
    seq: u64,
    pending: VecDeque<tokio::task::JoinHandle<Result<(), String>>>,
}

impl Drop for Chunks {
    fn drop(&mut self) {
        for task in &self.pending {
            task.abort();
        }
    }
}

impl Chunks {
    fn new(context: Shared, id: TxnId) -> Self {
        Self { context, id, seq: 0, pending: VecDeque::new() }
    }

    /// Sends bytes in chunks that end with whole lines where they can.
    async fn send(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let mut cut = bytes.len().min(CHUNK_BYTES);
            if cut < bytes.len() {
                cut = bytes[..cut].iter().rposition(|b| *b == b'\n').map_or(cut, |at| at + 1);
            }
            let (part, rest) = bytes.split_at(cut);
            self.one(Bytes::copy_from_slice(part), None).await?;
            bytes = rest;
        }
        Ok(())
    }

    async fn one(&mut self, body: Bytes, end: Option<Result<(), String>>) -> Result<(), String> {
        while self.pending.len() >= RELAY_WINDOW {
            self.oldest().await?;
        }
        self.seq += 1;
        let mut headers = Headers::new().with(names::SEQ, self.seq.to_string());
        match end {
            Some(Ok(())) => headers.set(names::END, "ok"),
            Some(Err(why)) => {
                headers.set(names::END, "error");
                headers.set(names::MESSAGE, why);
            }
            None => {}
        }
        let (context, id) = (self.context.clone(), self.id);
        self.pending.push_back(tokio::spawn(async move { request(&context, id, headers, body).await }));
        Ok(())
    }

    async fn oldest(&mut self) -> Result<(), String> {
        match self.pending.pop_front() {
            Some(task) => task.await.unwrap_or_else(|_| Err("the relay was stopped".to_owned())),
            None => Ok(()),
        }
    }

    /// The last chunk says how it ended; then what is under way is waited for.
    async fn end(&mut self, result: Result<(), String>) {
        if let Err(why) = self.one(Bytes::new(), Some(result)).await {
            tracing::debug!(why, "a relay lost its caller");
            return;
        }
        while !self.pending.is_empty() {
            if let Err(why) = self.oldest().await {
                tracing::debug!(why, "a relay lost its caller");
                return;
            }
        }
    }
}

/// What one answer to a message of a relay says. Every controller hears every message of a relay, and any of them may
/// be unable to answer for the moment: only the one that holds the order knows that its caller is gone.
enum Answer {
    /// It was taken.
    Taken,
    /// It was heard of, and is taken later.
    Later,
    /// The order has no caller any more.
    Gone,
    /// Nothing is known, for this reason: another controller may answer yet, or the same one the next time.
    NotNow(String),
}

fn answer_of(message: &Message) -> Answer {
    if let Some(status) = message.status {
        let nobody = status == NOBODY;
        let why = if nobody { "no controller runs".to_owned() } else { format!("the bus says {status}") };
        return Answer::NotNow(why);
    }
    match message.headers.get(names::END) {
        Some("error") => match codec::decode::<ApiError>(&message.body) {
            Ok(ApiError { code: ApiErrorCode::Conflict | ApiErrorCode::NotFound, .. }) => Answer::Gone,
            Ok(error) => Answer::NotNow(error.message),
            Err(_) => Answer::NotNow("a controller cannot answer".to_owned()),
        },
        Some(_) => Answer::Taken,
        None => Answer::Later,
    }
}

async fn request(context: &Shared, id: TxnId, headers: Headers, body: Bytes) -> Result<(), String> {
    let link = &context.deps.link;
    let mut answers =
        link.api(Verb::Relay, Some(id.to_string()), headers, body).await.map_err(|error| error.reason)?;
    let mut why = "the caller does not answer".to_owned();
    loop {
        let answer = tokio::select! {
            biased;
            answer = answers.next() => answer,
            () = context.deps.clock.sleep_ms(CHUNK_MS) => None,
        };
        match answer.as_ref().map(answer_of) {
            Some(Answer::Taken) => return Ok(()),
            Some(Answer::Gone) => return Err("the caller is gone".to_owned()),
            Some(Answer::NotNow(reason)) => {
                if answer.is_some_and(|message| message.status.is_some()) {
                    return Err(reason);
                }
                why = reason;
            }
            // The caller is slow, and still there: the credit comes later.
            Some(Answer::Later) => {}
            None => return Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(end: Option<&str>, body: Vec<u8>) -> Message {
        let mut headers = Headers::new();
        if let Some(end) = end {
            headers.set(names::END, end);
        }
        let body = Bytes::from(body);
        Message { subject: "_INBOX.1".to_owned(), reply: None, headers, body, status: None }
    }

    fn refusal(code: ApiErrorCode) -> Message {
        let message = "why".to_owned();
        let error = ApiError { code, message, hint: None, findings: Vec::new(), txn: None };
        self::message(Some("error"), codec::encode(&error).expect("encodes"))
    }

    #[test]
    fn only_who_holds_the_order_can_say_that_its_caller_is_gone() {
        for code in [ApiErrorCode::Unavailable, ApiErrorCode::Forbidden, ApiErrorCode::Unknown] {
            assert!(matches!(answer_of(&refusal(code)), Answer::NotNow(_)), "{code:?}");
        }
        assert!(matches!(answer_of(&refusal(ApiErrorCode::Conflict)), Answer::Gone));
        assert!(matches!(answer_of(&message(Some("error"), vec![0xc1])), Answer::NotNow(_)));
        assert!(matches!(answer_of(&message(Some("ok"), Vec::new())), Answer::Taken));
        assert!(matches!(answer_of(&message(None, Vec::new())), Answer::Later));
        let nobody = Message { status: Some(NOBODY), ..message(None, Vec::new()) };
        assert!(matches!(answer_of(&nobody), Answer::NotNow(_)));
    }
}
