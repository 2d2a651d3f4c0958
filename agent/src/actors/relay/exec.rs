//! `exec`, as an order of the control plane: a command beside a process, its output to the caller, the caller's input
//! to it.
//!
//! Input never comes by itself: it is the answer to a poll of ours. Output is sent in numbered chunks, each again until
//! it was taken, a window of them at a time: a caller that does not read holds the command up. A caller that is gone,
//! or not heard of for a while, ends the command.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::StreamExt as _;
use ostler_agent_core::unit::HowEnded;
use ostler_bus::store::Headers;
use ostler_schemas::codec::{self, Wire as _};
use ostler_schemas::headers as names;
use ostler_schemas::quantity::Signal;
use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::{
    EXEC_CHUNK, ExecCommand, ExecEnded, ExecItem, ExecOutput, ExecRefused, ExecScreen, RELAY_WINDOW,
    RelayInput, RelayPoll,
};
use ostler_schemas::{Name, TxnId, Uid};
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot};

use super::{Answer, answer_of};
use crate::actors::registry;
use crate::context::Shared;
use crate::ports::{HostRun, HostSession, HostSpawn, RunOutcome, Screen, SessionInput, SessionOutput};

/// How long one request of ours waits: a poll is answered within three seconds.
const ANSWER_MS: u64 = 5_000;
/// The pause before a request is made again.
const AGAIN_MS: u64 = 200;
/// A caller's side that was not heard of for so long is gone.
const GONE_MS: u64 = 15_000;
/// How often we poll while the command does not take its input, to say that we are here.
const ALIVE_MS: u64 = 2_000;

/// What is asked.
pub(super) struct Order {
    pub(super) id: TxnId,
    pub(super) caller: Name,
    pub(super) uid: Uid,
    pub(super) exec: ExecCommand,
}

/// Carries it out to its end.
pub(super) async fn carry_out(context: &Shared, order: Order) {
    let mut uplink = Uplink { context: context.clone(), id: order.id, seq: 0, pending: VecDeque::new() };
    let id = order.id;
    match begin(context, order).await {
        Ok(HostSession { input, output }) => {
            let talk = async {
                let ended = pass_on(output, &mut uplink).await?;
                uplink.last(ExecOutput::Ended(ended)).await
            };
            tokio::select! {
                biased;
                told = talk => if told.is_err() {
                    tracing::debug!(%id, "a command lost its caller");
                },
                // Dropping the session ends the command.
                why = take_input(context, id, input) => tracing::info!(%id, why, "a command is ended"),
            }
        }
        Err(refused) => {
            if uplink.last(ExecOutput::Refused(refused)).await.is_err() {
                tracing::debug!(%id, "a command lost its caller before it began");
            }
        }
    }
}

/// Whether this host lets anybody run commands beside its processes; an error names the rule that forbids it.
fn may_exec(context: &Shared, spawn: &HostSpawn, caller: &Name) -> Result<(), String> {
    // A process without a user of its own runs as the agent does.
    let as_agent = if context.deps.config.privileged { 0 } else { u32::MAX };
    let uid = spawn.user.as_ref().map_or(as_agent, |user| user.uid);
    context
        .deps
        .config
        .veto
        .exec(uid)
        .inspect_err(|why| tracing::warn!(%caller, why, "a command was refused"))
}

async fn begin(context: &Shared, order: Order) -> Result<HostSession, ExecRefused> {
    let refused = |message: String| ExecRefused { forbidden: false, message };
    let Order { uid, exec, caller, id } = order;
    let (asker, answer) = oneshot::channel();
    let again = || refused("the agent is starting again what knows its processes; try again".to_owned());
    if !context.registry.cast(registry::Msg::Describe(uid, asker)) {
        return Err(again());
    }
    let mut spawn = answer.await.map_err(|_| again())?.map_err(refused)?;
    may_exec(context, &spawn, &caller).map_err(|message| ExecRefused { forbidden: true, message })?;
    // It speaks for nobody: only the process tells that it is ready or alive.
    spawn.listen = None;
    let screen = exec.screen.map(screen_of);
    if let Some(term) = exec.term.filter(|_| screen.is_some()) {
        spawn.env.retain(|(name, _)| name != "TERM");
        spawn.env.push(("TERM".to_owned(), term));
    }
    tracing::info!(%id, %caller, %uid, words = ?exec.words, "runs a command beside a process");
    let run = HostRun { beside: true, ..HostRun::like(&spawn, exec.words) };
    let session = context.deps.host.attend(run, screen).await.map_err(|error| refused(error.0))?;
    if !exec.stdin && screen.is_none() {
        // A command that has ended already needs no end of its input.
        session.input.send(SessionInput::End).await.ok();
    }
    Ok(session)
}

fn screen_of(screen: ExecScreen) -> Screen {
    Screen { rows: screen.rows, columns: screen.columns }
}

/// The caller is gone.
struct Gone;

async fn pass_on(mut output: mpsc::Receiver<SessionOutput>, uplink: &mut Uplink) -> Result<ExecEnded, Gone> {
    uplink.one(&ExecOutput::Begun, false).await?;
    while let Some(said) = output.recv().await {
        let (bytes, wrap): (Bytes, fn(ByteBuf) -> ExecOutput) = match said {
            SessionOutput::Stdout(bytes) => (bytes, ExecOutput::Stdout),
            SessionOutput::Stderr(bytes) => (bytes, ExecOutput::Stderr),
            SessionOutput::Ended(outcome) => return Ok(ended(outcome)),
        };
        for part in bytes.chunks(EXEC_CHUNK) {
            uplink.one(&wrap(ByteBuf::from(part)), false).await?;
        }
    }
    let message = Some("the agent lost sight of it".to_owned());
    Ok(ExecEnded { code: None, signal: None, message })
}

fn ended(outcome: RunOutcome) -> ExecEnded {
    let because = outcome.ended_because;
    match outcome.how {
        HowEnded::Code(code) => ExecEnded { code: Some(code), signal: None, message: because },
        HowEnded::Signal(signal) => ExecEnded { code: None, signal: Some(signal), message: because },
        HowEnded::Unknown(why) => ExecEnded { code: None, signal: None, message: because.or(Some(why)) },
    }
}

/// Gives the command what the caller sends. Ends when the caller is gone, and says how that is known.
async fn take_input(context: &Shared, id: TxnId, input: mpsc::Sender<SessionInput>) -> &'static str {
    let clock = &context.deps.clock;
    let mut have = 0;
    let mut heard = clock.mono();
    let head = Headers::new().with(names::CONTENT_TYPE, names::MSGPACK).with(names::KIND, RelayPoll::KIND);
    loop {
        let Ok(body) = codec::encode(&RelayPoll { have }) else { return "its input cannot be asked for" };
        match ask(context, id, (head.clone(), body.into())).await {
            Heard::Gone => return "its caller is gone",
            Heard::Nothing if clock.mono().since_ms(heard) >= GONE_MS => {
                return "no controller has answered for it in time";
            }
            Heard::Nothing => clock.sleep_ms(AGAIN_MS).await,
            Heard::Answer(body) => {
                heard = clock.mono();
                let Ok(RelayInput { first, items }) = codec::decode(&body) else { continue };
                for (number, item) in (first..).zip(items) {
                    if number <= have {
                        continue;
                    }
                    let given = tokio::select! {
                        biased;
                        given = give(&input, item) => given,
                        () = clock.sleep_ms(ALIVE_MS) => false,
                    };
                    if !given {
                        // What was not taken comes again with the next poll.
                        break;
                    }
                    have = number;
                }
            }
        }
    }
}

/// Gives one item; to a command that has ended it is given too.
async fn give(input: &mpsc::Sender<SessionInput>, item: ExecItem) -> bool {
    let item = match item {
        ExecItem::Bytes(bytes) => SessionInput::Bytes(Bytes::from(bytes.into_vec())),
        ExecItem::Resize(screen) => SessionInput::Resize(screen_of(screen)),
        ExecItem::Signal(number) => match Signal::from_number(number) {
            Some(signal) => SessionInput::Signal(signal),
            None => return true,
        },
        ExecItem::End => SessionInput::End,
        ExecItem::Unknown => return true,
    };
    // The room is waited for, not the sending: nothing is given twice.
    if let Ok(room) = input.reserve().await {
        room.send(item);
    }
    true
}

/// What came of a request of ours.
enum Heard {
    Answer(Bytes),
    /// There is no such order any more.
    Gone,
    /// Nothing that counts: it is asked again, and taken for gone when that lasts.
    Nothing,
}

async fn ask(context: &Shared, id: TxnId, (head, body): (Headers, Bytes)) -> Heard {
    let link = &context.deps.link;
    let Ok(mut answers) = link.api(Verb::Relay, Some(id.to_string()), head, body).await else {
        return Heard::Nothing;
    };
    let until = context.deps.clock.mono().plus_ms(ANSWER_MS);
    loop {
        let answer = tokio::select! {
            biased;
            answer = answers.next() => answer,
            () = context.deps.clock.sleep_until(until) => None,
        };
        let Some(message) = answer else { return Heard::Nothing };
        match answer_of(&message) {
            Answer::Taken | Answer::Later => return Heard::Answer(message.body),
            Answer::Gone => return Heard::Gone,
            Answer::NotNow(why) => {
                tracing::debug!(%id, why, "a controller does not answer for a command");
                if message.status.is_some() {
                    return Heard::Nothing;
                }
                // Another one may.
            }
        }
    }
}

/// Numbered chunks to the caller, at most [`RELAY_WINDOW`] of them unanswered, each again until it is answered.
struct Uplink {
    context: Shared,
    id: TxnId,
    seq: u64,
    pending: VecDeque<tokio::task::JoinHandle<Result<(), Gone>>>,
}

impl Drop for Uplink {
    fn drop(&mut self) {
        for task in &self.pending {
            task.abort();
        }
    }
}

impl Uplink {
    async fn one(&mut self, output: &ExecOutput, last: bool) -> Result<(), Gone> {
        while self.pending.len() >= RELAY_WINDOW {
            self.oldest().await?;
        }
        self.seq += 1;
        let mut head = Headers::new().with(names::SEQ, self.seq.to_string());
        if last {
            head.set(names::END, "ok");
        }
        let body = Bytes::from(codec::encode(output).map_err(|_| Gone)?);
        let (context, id) = (self.context.clone(), self.id);
        self.pending.push_back(tokio::spawn(async move {
            let since = context.deps.clock.mono();
            loop {
                match ask(&context, id, (head.clone(), body.clone())).await {
                    Heard::Answer(_) => return Ok(()),
                    Heard::Gone => return Err(Gone),
                    // A caller that does not read is told apart from one that is gone by the polls. Only the last
                    // chunk has none beside it.
                    Heard::Nothing if last && context.deps.clock.mono().since_ms(since) >= GONE_MS => {
                        return Err(Gone);
                    }
                    Heard::Nothing => context.deps.clock.sleep_ms(AGAIN_MS).await,
                }
            }
        }));
        Ok(())
    }

    async fn oldest(&mut self) -> Result<(), Gone> {
        match self.pending.front_mut() {
            Some(task) => {
                let result = task.await.unwrap_or(Err(Gone));
                self.pending.pop_front();
                result
            }
            None => Ok(()),
        }
    }

    /// The last one; done when everything was taken.
    async fn last(&mut self, output: ExecOutput) -> Result<(), Gone> {
        self.one(&output, true).await?;
        while !self.pending.is_empty() {
            self.oldest().await?;
        }
        Ok(())
    }
}
