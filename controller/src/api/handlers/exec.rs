//! `exec`: an order to the node of a process, attended by the caller in both directions.
//!
//! Nothing is dropped: chunks of the node wait here, without their credit, for as long as the caller has not read what
//! was sent before. What was asked, and how the command ended, is audited.

use std::collections::BTreeMap;

use bytes::Bytes;
use ostler_bus::topic::Outgoing;
use ostler_controller_core::admission::{conflict, forbidden, invalid, unavailable};
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::status::Lens;
use ostler_schemas::subject::Hint;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::api::{
    ApiError, Ask, AskOp, EXEC_COMMAND_MAX, EXEC_UNREAD, ExecEnded, ExecOutput, ExecRequest, ListRequest,
    RELAY_WINDOW,
};
use ostler_schemas::v1::report::ProcessPhase;
use ostler_schemas::v1::status::{NodePhase, Status, View};
use ostler_schemas::{Kind, NodeName, ObjectRef, TxnId, Uid, codec, headers};
use tokio::sync::mpsc::Receiver;

use super::reads::find;
use crate::api::ApiDeps;
use crate::api::asks::{Chunk, Order};
use crate::api::audit::Entry;
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

/// A hint may be lost: it is repeated until the node has begun.
const HINT_MS: u64 = 1_000;
/// How often polls that wait are looked at.
const TICK_MS: u64 = 500;
/// How often a caller that has much unread is looked at: below what it reads one message in.
const UNREAD_MS: u64 = 10;
/// A node that has not begun by then will not.
const BEGIN_MS: u64 = 10_000;
/// A node asks for input at least every three seconds: one that is silent for so long has died.
const SILENCE_MS: u64 = 10_000;
/// Processes that are named to choose from.
const NAMED: usize = 10;

/// Which process, and where it is.
struct Place {
    object: ObjectRef,
    uid: Uid,
    node: NodeName,
}

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: ExecRequest = call.decode(shared)?;
    let size: usize = request.exec.words.iter().map(String::len).sum();
    if request.exec.words.first().is_none_or(String::is_empty) || size > EXEC_COMMAND_MAX {
        return Err(invalid(format!("a command of 1 to {EXEC_COMMAND_MAX} bytes is needed")));
    }
    let session = call.message.headers.get(headers::TXN).and_then(|text| text.parse::<TxnId>().ok());
    let session = session.ok_or_else(|| invalid("exec is attended: header Ostler-Txn is missing"))?;
    let fleet = shared.fleet(call).await?;
    let place = place(shared, &fleet, &request)?;
    let mut record = Record::begin(shared, call, (&request, &place)).await?;
    let op = AskOp::Exec { uid: place.uid, exec: request.exec };
    let ask = Ask { id: shared.deps.entropy.txn(), op, caller: call.caller.name.clone() };
    let attended = (call.caller.name.clone(), session);
    let (order, chunks) = shared.asks.hold_with_input(place.node.clone(), ask, attended);
    let mut relay =
        Relay { shared, node: place.node, order, chunks, next: 1, waiting: BTreeMap::new(), sent: 0 };
    let result = relay.run(to).await;
    record.end(match &result {
        Ok(ended) => ("done", words(ended)),
        Err(error) => ("failed", error.message.clone()),
    });
    result.map(|_| 0)
}

fn words(ended: &ExecEnded) -> String {
    let how = match (ended.code, ended.signal) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended, how is not known".to_owned(),
    };
    ended.message.as_ref().map_or(how.clone(), |why| format!("{how}: {why}"))
}

fn place(shared: &Shared, fleet: &Fleet, request: &ExecRequest) -> Result<Place, ApiError> {
    let signals = shared.signals();
    let lens = Lens::new(fleet, &signals, shared.deps.clock.wall());
    let object = find(fleet, request.kind, &request.namespace, &request.name)?;
    let object = if object.kind == Kind::Process { object } else { only_process_of(&lens, &object)? };
    let Some(View { metadata, status: Status::Process(status), .. }) = lens.view(&object) else {
        return Err(conflict(format!("{} is no process", object.short())));
    };
    let why = status.message.clone().map_or(String::new(), |why| format!(": {why}"));
    let phase = status.phase;
    match (phase, status.node.clone()) {
        (
            ProcessPhase::Pending | ProcessPhase::Succeeded | ProcessPhase::Failed | ProcessPhase::Stopped,
            _,
        )
        | (_, None) => Err(conflict(format!("{} is not running ({}{why})", object.short(), phase.as_str()))),
        (_, Some(node)) => Ok(Place { object, uid: metadata.uid, node }),
    }
}

/// The process of an owner that has one; of several the caller chooses.
fn only_process_of(lens: &Lens<'_>, owner: &ObjectRef) -> Result<ObjectRef, ApiError> {
    let all = ListRequest {
        kind: Kind::Process,
        namespace: owner.namespace.clone(),
        labels: Vec::new(),
        names: Vec::new(),
    };
    let owned = |view: &View| {
        let owners = &view.metadata.owner_references;
        owners.iter().any(|o| o.kind == owner.kind && o.name == owner.name)
    };
    let runs = |view: &View| matches!(&view.status, Status::Process(status) if status.phase == ProcessPhase::Running);
    let mut names: Vec<String> = lens
        .list(&all)
        .into_iter()
        .filter(|view| owned(view) && runs(view))
        .map(|view| view.metadata.name.to_string())
        .collect();
    match names.as_slice() {
        [] => Err(conflict(format!("{} has no running process", owner.short()))),
        [name] => {
            let name = name.parse().map_err(|_| conflict("a process without a name"))?;
            Ok(ObjectRef { kind: Kind::Process, namespace: owner.namespace.clone(), name })
        }
        [..] => {
            let (count, more) = (names.len(), names.len().saturating_sub(NAMED));
            names.truncate(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names = names.join(", ");
            Err(conflict(format!("{} has {count} processes, choose one: {names}{more}", owner.short())))
        }
    }
}

/// The audit record of one command; one that is dropped before its end says that its caller went.
struct Record {
    deps: ApiDeps,
    entry: Entry,
    told: bool,
}

impl Record {
    async fn begin(
        shared: &Shared,
        call: &Call,
        (request, place): (&ExecRequest, &Place),
    ) -> Result<Self, ApiError> {
        let terminal = if request.exec.screen.is_some() { " on a terminal" } else { "" };
        let entry = Entry {
            caller: call.caller.name.clone(),
            actor: call.caller.actor(),
            verb: call.verb,
            objects: vec![place.object.clone()],
            reason: request.reason.clone(),
            message: format!("on node {}{terminal}: {:?}", place.node, request.exec.words),
            txn: shared.deps.entropy.txn(),
        };
        entry.intent(shared).await?;
        Ok(Self { deps: shared.deps.clone(), entry, told: false })
    }

    fn end(&mut self, (phase, how): (&'static str, String)) {
        self.told = true;
        let (deps, entry) = (self.deps.clone(), self.entry.clone());
        // Not waited for: the caller may be gone, and with it whoever would wait.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { entry.outcome_with(&deps, phase, &how).await });
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.told {
            self.end(("failed", "its caller went, and it was ended".to_owned()));
        }
    }
}

struct Relay<'a> {
    shared: &'a Shared,
    node: NodeName,
    order: Order<'a>,
    chunks: Receiver<Chunk>,
    /// Number of the next chunk to pass on.
    next: u64,
    waiting: BTreeMap<u64, Chunk>,
    /// Messages sent to the caller.
    sent: u64,
}

impl Relay<'_> {
    async fn run(&mut self, to: &mut Responder) -> Result<ExecEnded, ApiError> {
        let clock = &self.shared.deps.clock;
        let start = clock.mono();
        let (mut heard, mut told, mut hinted) = (start, start, start);
        self.hint().await;
        loop {
            let blocked = self.is_blocked() && self.waiting.contains_key(&self.next);
            let chunk = tokio::select! {
                biased;
                chunk = self.chunks.recv() => chunk,
                () = clock.sleep_ms(if blocked { UNREAD_MS } else { TICK_MS }) => None,
            };
            let now = clock.mono();
            if let Some(chunk) = chunk {
                heard = now;
                self.take(chunk).await;
            }
            while !self.is_blocked()
                && let Some(chunk) = self.waiting.remove(&self.next)
            {
                self.next += 1;
                told = now;
                if let Some(ended) = self.pass_on(chunk, to).await? {
                    return Ok(ended);
                }
            }
            self.order.tick(now).await;
            heard = self.order.heard().map_or(heard, |polled| polled.max(heard));
            self.check_node(start, heard, now)?;
            if !self.order.has_begun() && now.since_ms(hinted) >= HINT_MS {
                hinted = now;
                self.hint().await;
            }
            if now.since_ms(told) >= self.shared.deps.limits.keep_alive_ms {
                to.keep_alive().await?;
                self.sent += 1;
                told = now;
            }
        }
    }

    fn is_blocked(&self) -> bool {
        self.sent.saturating_sub(self.order.read()) >= EXEC_UNREAD
    }

    /// Chunks come in any order, and again when their credit is late. One far ahead breaks the window and is dropped:
    /// it comes again.
    async fn take(&mut self, chunk: Chunk) {
        if chunk.seq >= self.next + 2 * RELAY_WINDOW as u64 {
            return;
        }
        let known = if chunk.seq < self.next { Some(chunk) } else { self.waiting.insert(chunk.seq, chunk) };
        if let Some(mut credit) = known.and_then(|known| known.credit) {
            credit.credit(RELAY_WINDOW).await;
        }
    }

    async fn hint(&self) {
        let message = Outgoing::new(Hint::Ask.subject(&self.node), Bytes::new());
        if let Err(error) = self.shared.deps.topic.publish(message).await {
            tracing::debug!(node = %self.node, %error, "a hint could not be sent");
        }
    }

    /// A node that is lost, or does not answer, is told of as such.
    fn check_node(&self, start: Mono, heard: Mono, now: Mono) -> Result<(), ApiError> {
        let node = &self.node;
        let silent = |why: String| Err(conflict(why));
        if !self.order.has_begun() {
            let (fleet, signals) = (self.shared.deps.snapshot.fleet(), self.shared.signals());
            let phase = Lens::new(&fleet, &signals, self.shared.deps.clock.wall()).node_phase(node);
            if phase == NodePhase::Lost {
                return silent(format!("node {node} is lost"));
            }
            if now.since_ms(start) >= BEGIN_MS {
                let (phase, seconds) = (phase.as_str(), BEGIN_MS / 1_000);
                return silent(format!("node {node} ({phase}) did not answer within {seconds}s"));
            }
        } else if now.since_ms(heard) >= SILENCE_MS {
            let seconds = SILENCE_MS / 1_000;
            return silent(format!(
                "node {node} has not been heard of for {seconds}s: how the command ended is not known"
            ));
        }
        Ok(())
    }

    /// Passes a chunk on; says how it ended, if it was the last.
    async fn pass_on(&mut self, chunk: Chunk, to: &mut Responder) -> Result<Option<ExecEnded>, ApiError> {
        let Chunk { bytes, end, message, credit, .. } = chunk;
        let told = codec::decode::<ExecOutput>(&bytes).ok().filter(|_| end.is_some());
        let result = match (end.as_deref(), told) {
            (Some("error"), _) => {
                let why = message.unwrap_or_else(|| "it failed, and did not say why".to_owned());
                Err(conflict(format!("node {}: {why}", self.node)))
            }
            (Some(_), Some(ExecOutput::Refused(refused))) => {
                let why = format!("node {}: {}", self.node, refused.message);
                Err(if refused.forbidden { forbidden(why) } else { conflict(why) })
            }
            (Some(_), Some(ExecOutput::Ended(ended))) => to.raw(bytes).await.map(|()| Some(ended)),
            (Some(_), _) => Err(unavailable(format!("node {} did not say how it ended", self.node))),
            (None, _) if bytes.is_empty() => Ok(None),
            (None, _) => {
                self.sent += 1;
                to.raw(bytes).await.map(|()| None)
            }
        };
        if let Some(mut credit) = credit {
            credit.credit(RELAY_WINDOW).await;
        }
        result
    }
}
