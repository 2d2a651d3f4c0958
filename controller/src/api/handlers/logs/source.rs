//! One process's log on its way here: the order to its node and the chunks that come back, or a reading of what its
//! node has stored on the bus.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use ostler_bus::topic::Outgoing;
use ostler_controller_core::status::Lens;
use ostler_schemas::Name;
use ostler_schemas::subject::Hint;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::api::{Ask, AskOp, LogsRequest, RELAY_WINDOW};
use ostler_schemas::v1::status::NodePhase;
use tokio::sync::mpsc::Receiver;
use tokio_util::task::AbortOnDropHandle;

use super::merge::{Block, confessed};
use super::order::InOrder;
use super::stored::{self, Wanted};
use super::targets::Target;
use crate::api::asks::{Chunk, Order};
use crate::api::reply::Responder;
use crate::api::server::Shared;

/// A hint may be lost: it is repeated until the node has begun.
const HINT_MS: u64 = 1_000;
/// A chunk that has not come so long after a later one was lost.
const GAP_MS: u64 = 2_000;
/// A node that has not begun by then will not.
pub(super) const BEGIN_MS: u64 = 10_000;
/// A relay that is silent for so long has died: a node says something at least every five seconds.
const SILENCE_MS: u64 = 15_000;
/// Other logs do not wait longer than this for one that may have older lines.
const MERGE_MS: u64 = 3_000;
/// A node that waits for its credit is told so often that it is not forgotten: well below the ten seconds after which
/// it gives its caller up.
const HOLD_MS: u64 = 4_000;

/// Where a log comes from.
enum Origin<'a> {
    /// Its node.
    Node(Order<'a>),
    /// The stream of shipped output, because of this.
    Stream { _reading: AbortOnDropHandle<()>, because: Option<Broken> },
}

/// Why a log ended before its end.
pub(super) enum Broken {
    /// The node never began.
    NoAnswer(String),
    /// Something else, in words.
    Other(String),
}

/// Lines that wait for their turn, and what their node waits for.
struct Waiting {
    block: Block,
    credit: Option<Responder>,
    told: Mono,
}

/// One log.
pub(super) struct Source<'a> {
    pub(super) target: Target,
    pub(super) chunks: Receiver<Chunk>,
    origin: Origin<'a>,
    line: InOrder,
    waiting: VecDeque<Waiting>,
    last_us: u64,
    began: Mono,
    heard: Mono,
    hinted: Option<Mono>,
    /// All that was there has come; what follows is new.
    live: bool,
    /// How it ended.
    pub(super) end: Option<Result<(), Broken>>,
    /// Parts that were lost, as the node or the numbers say.
    lost: u64,
    /// Anything came at all.
    came: bool,
    /// The stream has nothing of it.
    nothing: bool,
}

impl<'a> Source<'a> {
    pub(super) fn begin(shared: &'a Shared, target: Target, request: &LogsRequest, caller: &Name) -> Self {
        let op = AskOp::Logs {
            uid: target.uid,
            follow: request.follow,
            tail: request.tail,
            filter: request.filter.clone(),
        };
        let ask = Ask { id: shared.deps.entropy.txn(), op, caller: caller.clone() };
        let (order, chunks) = shared.asks.hold(target.node.clone(), ask);
        Self::new(shared, target, Origin::Node(order), chunks)
    }

    /// The same from the stream, because of what was met.
    pub(super) fn stored(
        shared: &'a Shared,
        target: Target,
        request: &LogsRequest,
        because: Option<Broken>,
    ) -> Option<Self> {
        let wanted = Wanted::new(target.subject()?, target.uid, request);
        let (sender, chunks) = stored::channel();
        let reading = stored::read(shared.deps.store.clone(), Arc::clone(&shared.stored), wanted, sender);
        let origin = Origin::Stream { _reading: AbortOnDropHandle::new(tokio::spawn(reading)), because };
        Some(Self::new(shared, target, origin, chunks))
    }

    fn new(shared: &Shared, target: Target, origin: Origin<'a>, chunks: Receiver<Chunk>) -> Self {
        let now = shared.deps.clock.mono();
        Self {
            target,
            chunks,
            origin,
            line: InOrder::new(),
            waiting: VecDeque::new(),
            last_us: 0,
            began: now,
            heard: now,
            hinted: None,
            live: false,
            end: None,
            lost: 0,
            came: false,
            nothing: false,
        }
    }

    /// What it broke off with, if the stream may have what its node did not give.
    pub(super) fn take_broken(&mut self, is_previous: bool) -> Option<Broken> {
        let Origin::Node(_) = &self.origin else { return None };
        let may_be_stored = !self.came
            && match &self.end {
                Some(Err(Broken::NoAnswer(_))) => true,
                Some(Err(Broken::Other(_))) => !is_previous,
                Some(Ok(())) | None => false,
            };
        if !may_be_stored {
            return None;
        }
        self.end.take().and_then(Result::err)
    }

    /// What to say, once, of what is from the stream instead of its node.
    pub(super) fn why_stored(&mut self) -> Option<String> {
        let Origin::Stream { because, .. } = &mut self.origin else { return None };
        let (Broken::NoAnswer(why) | Broken::Other(why)) = because.take()?;
        let name = &self.target.object.name;
        Some(format!("{name}: {why}; this is what the node had stored on the bus by then"))
    }

    /// Whether all that comes is from the stream.
    pub(super) const fn is_stored(&self) -> bool {
        matches!(self.origin, Origin::Stream { .. })
    }

    /// How it ended. Where the stream has nothing either, it is as its node left it.
    pub(super) fn outcome(&mut self) -> Result<(), Broken> {
        let end = self.end.take().unwrap_or(Ok(()));
        match (&mut self.origin, end) {
            (Origin::Stream { because, .. }, Ok(())) if self.nothing => because.take().map_or(Ok(()), Err),
            (Origin::Stream { .. } | Origin::Node(_), end) => end,
        }
    }

    /// Whether it takes chunks: what waits is bounded, whatever the node sends.
    pub(super) fn has_room(&self) -> bool {
        self.end.is_none() && self.waiting.len() < 2 * RELAY_WINDOW
    }

    /// Whether older lines may be on the way, and are worth waiting for.
    pub(super) fn is_awaited(&self, now: Mono) -> bool {
        self.end.is_none() && !self.live && self.waiting.is_empty() && now.since_ms(self.heard) < MERGE_MS
    }

    /// When its next line was written.
    pub(super) fn head_us(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.block.at_us())
    }

    /// Everything has been passed on, and nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() && self.waiting.is_empty()
    }

    /// Takes lines up to a time, and gives the node its credit for what is used up.
    pub(super) async fn take(&mut self, until_us: u64) -> Bytes {
        let Some(first) = self.waiting.front_mut() else { return Bytes::new() };
        let bytes = first.block.take_until(until_us);
        self.last_us = first.block.at_us();
        if first.block.is_empty()
            && let Some(used) = self.waiting.pop_front()
        {
            give(used.credit).await;
        }
        self.lost = self.lost.saturating_add(confessed(&bytes));
        bytes
    }

    /// A chunk came.
    pub(super) async fn chunk(&mut self, chunk: Chunk, now: Mono) {
        self.heard = now;
        if let Some(known) = self.line.take(chunk) {
            // What has been passed on already only wants its credit.
            give(known.credit).await;
        }
        self.put_ready(now).await;
    }

    async fn put_ready(&mut self, now: Mono) {
        while let Some(chunk) = self.line.ready() {
            let Chunk { bytes, end, message, credit, .. } = chunk;
            if let Some(end) = end {
                self.end = Some(match end.as_str() {
                    "error" => {
                        let told = String::from_utf8_lossy(&bytes).chars().take(500).collect();
                        let why = message.unwrap_or(told);
                        Err(Broken::Other(match &self.origin {
                            Origin::Node(_) => format!("node {}: {why}", self.target.node),
                            Origin::Stream { .. } => why,
                        }))
                    }
                    _ => Ok(()),
                });
                self.nothing = end == stored::NOTHING;
                let lost = end.strip_prefix("lost=").and_then(|n| n.parse::<u64>().ok());
                self.lost = self.lost.saturating_add(lost.unwrap_or(0));
                if self.end.as_ref().is_some_and(Result::is_err) {
                    give(credit).await;
                    continue;
                }
            }
            if bytes.is_empty() {
                self.live = true;
                give(credit).await;
                continue;
            }
            self.came = true;
            let last_us = self.last_us;
            self.waiting.push_back(Waiting { block: Block::new(bytes, last_us), credit, told: now });
        }
    }

    /// Looks after it once in a while.
    pub(super) async fn tick(&mut self, shared: &Shared, now: Mono) {
        for waiting in &mut self.waiting {
            if let Some(credit) = waiting.credit.as_mut().filter(|_| now.since_ms(waiting.told) >= HOLD_MS) {
                waiting.told = now;
                // It is told of a caller that lives by the next one.
                credit.keep_alive().await.ok();
            }
        }
        if self.end.is_some() || self.is_stored() {
            return;
        }
        if now.since_ms(self.heard) >= GAP_MS {
            // What has not come by now was lost on the way.
            self.line.skip_gap();
            self.put_ready(now).await;
        }
        if !self.waiting.is_empty() {
            // It waits for its credit; silence is as it should be.
            self.heard = now;
        }
        if let Some(broken) = self.broken(shared, now) {
            self.end = Some(Err(broken));
            return;
        }
        if !self.has_begun() && self.hinted.is_none_or(|at| now.since_ms(at) >= HINT_MS) {
            self.hinted = Some(now);
            let node = &self.target.node;
            let message = Outgoing::new(Hint::Ask.subject(node), Bytes::new());
            if let Err(error) = shared.deps.topic.publish(message).await {
                tracing::debug!(%node, %error, "a hint could not be sent");
            }
        }
    }

    fn has_begun(&self) -> bool {
        match &self.origin {
            Origin::Node(order) => order.has_begun(),
            Origin::Stream { .. } => true,
        }
    }

    /// A node that is lost, or does not answer, is told of as such.
    fn broken(&self, shared: &Shared, now: Mono) -> Option<Broken> {
        let (fleet, signals) = (shared.deps.snapshot.fleet(), shared.signals());
        let phase = Lens::new(&fleet, &signals, shared.deps.clock.wall()).node_phase(&self.target.node);
        let node = &self.target.node;
        if phase == NodePhase::Lost {
            let message = format!("node {node} is lost; its logs can be read on the host: ostler-agent logs");
            return Some(Broken::NoAnswer(message));
        }
        if !self.has_begun() && now.since_ms(self.began) >= BEGIN_MS {
            return Some(Broken::NoAnswer(format!(
                "node {node} ({}) did not answer within {}s",
                phase.as_str(),
                BEGIN_MS / 1000
            )));
        }
        (now.since_ms(self.heard) >= SILENCE_MS)
            .then(|| Broken::Other(format!("node {node} stopped in the middle of the logs; try again")))
    }

    /// Parts and lines that were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.saturating_add(self.line.lost)
    }
}

async fn give(credit: Option<Responder>) {
    if let Some(mut credit) = credit {
        credit.credit(RELAY_WINDOW).await;
    }
}
