//! `logs` of processes: an order to the node of each, and their relays merged on the way back to the caller.
//!
//! What is there already comes in the order of its times, as far as windows of credit allow: a log that does not answer
//! holds the others up for a moment, not for ever. What is new comes as it comes. Who does not answer is named, and the
//! rest goes on; a request for one process fails with it. Followed, processes that begin to match join, and those that
//! end leave, each with a word.

mod merge;
mod order;
mod pace;
mod source;
mod stored;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

use ostler_controller_core::admission::{conflict, unavailable};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::api::{
    ApiError, ApiErrorCode, LOGS_PROCESSES, LOGS_PROCESSES_MAX, LogsOf, LogsRequest,
};
use ostler_schemas::{Kind, Name, NodeName, ObjectRef, Revision, Uid};

use crate::api::asks::Chunk;
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};
use pace::Pace;
use source::{Broken, Source};
use targets::Target;

/// How often orders are looked after, and followed selections are looked up again.
const TICK_MS: u64 = 500;

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: LogsRequest = call.decode(shared)?;
    let limit = request.max_processes.unwrap_or(LOGS_PROCESSES).min(LOGS_PROCESSES_MAX);
    let is_one = matches!(request.of, LogsOf::Process | LogsOf::Owner(Kind::Process));
    let fleet = shared.fleet(call).await?;
    let reading = request.paced.then(|| shared.streams.reading(&call.caller.name, &call.message)).flatten();
    let mut session = Session {
        shared,
        caller: call.caller.name.clone(),
        is_one,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        sources: Vec::new(),
        known: BTreeSet::new(),
        seen: None,
        asked: 0,
        silent: BTreeSet::new(),
        failed: None,
        told: shared.deps.clock.mono(),
        over_limit: false,
        lost: 0,
        pace: Pace::new(reading),
        request,
    };
    session.begin(&fleet, to).await?;
    session.run(to).await
}

/// One request, until it ends.
struct Session<'a> {
    shared: &'a Shared,
    caller: Name,
    request: LogsRequest,
    is_one: bool,
    limit: usize,
    sources: Vec<Source<'a>>,
    /// All that were ever begun.
    known: BTreeSet<Uid>,
    /// The revision that the selection was looked up at.
    seen: Option<Revision>,
    asked: usize,
    /// Nodes that never answered.
    silent: BTreeSet<NodeName>,
    failed: Option<String>,
    /// When the caller was last told anything.
    told: Mono,
    over_limit: bool,
    lost: u64,
    pace: Pace,
}

impl Session<'_> {
    async fn begin(
        &mut self,
        fleet: &ostler_controller_core::fleet::Fleet,
        to: &mut Responder,
    ) -> Result<(), ApiError> {
        let found = match targets::resolve(self.shared, fleet, &self.request) {
            Err(error) if self.is_one => return self.begin_with_gone(error, to).await,
            other => other?,
        };
        self.seen = Some(fleet.revision);
        let count = found.placed.len();
        if count > self.limit {
            let limit = self.limit;
            return Err(conflict(format!(
                "{count} processes match, and logs of at most {limit} are read at once: narrow the selection, or ask \
                 for more with --max-processes {count} (up to {LOGS_PROCESSES_MAX})"
            )));
        }
        if count == 0 && found.unplaced.is_empty() && !self.request.follow {
            return Err(conflict("no process matches: see ostler get processes".to_owned()));
        }
        if !found.unplaced.is_empty() {
            let names: Vec<String> = found.unplaced.iter().take(5).map(|o| o.name.to_string()).collect();
            self.note(
                &format!("{} without a node have no logs: {}", found.unplaced.len(), names.join(", ")),
                to,
            )
            .await?;
        } else if count == 0 {
            self.note("no process matches yet: waiting for the first", to).await?;
        }
        for target in found.placed {
            self.open(target);
        }
        Ok(())
    }

    /// A process that is not there, or has no node any more: what of it is stored on the bus.
    async fn begin_with_gone(&mut self, error: ApiError, to: &mut Responder) -> Result<(), ApiError> {
        let namespace = self.request.namespace.clone();
        let Ok(name) = self.request.process.parse::<Name>() else { return Err(error) };
        let last = stored::last_of(&self.shared.deps.store, &namespace, &name).await;
        let Ok(Some((node, uid, at))) = last else { return Err(error) };
        let text = format!("{name} is gone: this is what node {node} has stored of it, the last at {at}");
        self.note(&text, to).await?;
        let object = ObjectRef { kind: Kind::Process, namespace: Some(namespace), name };
        let target = Target { uid, node, object };
        self.asked += 1;
        self.sources.extend(Source::stored(self.shared, target, &self.request, None));
        Ok(())
    }

    /// Those whose nodes did not give anything are read from what is stored.
    fn turn_to_stored(&mut self) {
        for source in &mut self.sources {
            let Some(broken) = source.take_broken(self.request.filter.previous) else { continue };
            let target = source.target.clone();
            match Source::stored(self.shared, target, &self.request, Some(broken)) {
                Some(stored) => *source = stored,
                None => return,
            }
        }
    }

    fn open(&mut self, target: Target) {
        self.asked += 1;
        self.known.insert(target.uid);
        self.sources.push(Source::begin(self.shared, target, &self.request, &self.caller));
    }

    async fn run(&mut self, to: &mut Responder) -> Result<u64, ApiError> {
        let clock = &self.shared.deps.clock;
        let mut next_tick = clock.mono();
        loop {
            self.turn_to_stored();
            self.pass_on(to).await?;
            self.retire(to).await?;
            let waits_for_more = self.request.follow && !self.is_one;
            if self.sources.is_empty() && !waits_for_more {
                return self.finish();
            }
            let next = tokio::select! {
                biased;
                next = next_chunk(&mut self.sources) => Some(next),
                () = self.pace.moved() => continue,
                () = clock.sleep_until(next_tick) => None,
            };
            let now = clock.mono();
            match next {
                Some((place, chunk)) => {
                    if let Some(source) = self.sources.get_mut(place) {
                        source.chunk(chunk, now).await;
                    }
                }
                None => {
                    next_tick = now.plus_ms(TICK_MS);
                    self.tick(now, to).await?;
                }
            }
        }
    }

    /// Passes on the oldest lines that wait, as long as no log may have older ones.
    async fn pass_on(&mut self, to: &mut Responder) -> Result<(), ApiError> {
        loop {
            let now = self.shared.deps.clock.mono();
            if !self.pace.may_send(to.sent()) || self.sources.iter().any(|source| source.is_awaited(now)) {
                return Ok(());
            }
            let heads = self.sources.iter().enumerate().filter_map(|(at, s)| s.head_us().map(|us| (us, at)));
            let mut heads: Vec<(u64, usize)> = heads.collect();
            heads.sort_unstable();
            let Some((_, place)) = heads.first().copied() else { return Ok(()) };
            let until = heads.get(1).map_or(u64::MAX, |(us, _)| *us);
            let Some(source) = self.sources.get_mut(place) else { return Ok(()) };
            let why_stored = source.why_stored();
            let bytes = source.take(until).await;
            let object = source.target.object.to_string();
            if let Some(text) = why_stored {
                to.note(&text).await?;
            }
            to.raw_of(bytes, &object).await?;
            self.told = now;
        }
    }

    /// Lets go of what is over.
    async fn retire(&mut self, to: &mut Responder) -> Result<(), ApiError> {
        let mut silent: BTreeMap<NodeName, String> = BTreeMap::new();
        let mut place = 0;
        while let Some(source) = self.sources.get(place) {
            if !source.is_over() {
                place += 1;
                continue;
            }
            let mut source = self.sources.remove(place);
            self.lost = self.lost.saturating_add(source.lost());
            let outcome = source.outcome();
            if let Some(text) = source.why_stored() {
                self.note(&text, to).await?;
            }
            let name = &source.target.object.name;
            match outcome {
                Ok(()) if self.request.follow && !self.is_one => {
                    self.note(&format!("{name} has ended"), to).await?;
                }
                Ok(()) => {}
                Err(Broken::NoAnswer(why) | Broken::Other(why)) if self.is_one => {
                    return Err(definite(why));
                }
                Err(Broken::NoAnswer(why)) => {
                    self.asked -= 1;
                    silent.insert(source.target.node.clone(), why);
                }
                Err(Broken::Other(why)) => {
                    self.asked -= 1;
                    self.note(&format!("{name}: {why}"), to).await?;
                    self.failed = Some(why);
                }
            }
        }
        silent.retain(|node, _| self.silent.insert(node.clone()));
        if !silent.is_empty() {
            let names: Vec<&str> = silent.keys().map(NodeName::as_str).collect();
            let nodes = if names.len() == 1 { "node" } else { "nodes" };
            self.note(&format!("{} {nodes} did not answer: {}", names.len(), names.join(", ")), to).await?;
            self.failed = silent.into_values().next();
        }
        Ok(())
    }

    /// Everything is told. That nobody answered at all is a failure.
    fn finish(&mut self) -> Result<u64, ApiError> {
        match self.failed.take() {
            Some(why) if self.asked == 0 => Err(definite(why)),
            Some(_) | None => Ok(self.lost),
        }
    }

    async fn tick(&mut self, now: Mono, to: &mut Responder) -> Result<(), ApiError> {
        for source in &mut self.sources {
            source.tick(self.shared, now).await;
        }
        if self.request.follow && !self.is_one {
            self.look_again(to).await?;
        }
        if now.since_ms(self.told) >= self.shared.deps.limits.keep_alive_ms {
            to.keep_alive().await?;
            self.told = now;
        }
        Ok(())
    }

    /// Processes that match by now, and did not when it was looked last.
    async fn look_again(&mut self, to: &mut Responder) -> Result<(), ApiError> {
        let fleet = self.shared.deps.snapshot.fleet();
        if self.seen == Some(fleet.revision) {
            return Ok(());
        }
        self.seen = Some(fleet.revision);
        // An owner that is gone has no processes any more; what is read goes on to its end.
        let Ok(found) = targets::resolve(self.shared, &fleet, &self.request) else { return Ok(()) };
        let new = found.placed.into_iter().filter(|target| !self.known.contains(&target.uid));
        for target in new.collect::<Vec<_>>() {
            if self.sources.len() >= self.limit {
                if !std::mem::replace(&mut self.over_limit, true) {
                    let text = format!("more than {} processes match: new ones are left out", self.limit);
                    self.note(&text, to).await?;
                }
                return Ok(());
            }
            self.note(&format!("{} joins, on {}", target.object.name, target.node), to).await?;
            // Of what is new, everything: it has only begun.
            self.request.tail = None;
            self.open(target);
        }
        Ok(())
    }

    async fn note(&mut self, text: &str, to: &mut Responder) -> Result<(), ApiError> {
        self.told = self.shared.deps.clock.mono();
        to.note(text).await
    }
}

/// The next chunk of any of them.
async fn next_chunk(sources: &mut [Source<'_>]) -> (usize, Chunk) {
    std::future::poll_fn(|context| {
        for (place, source) in sources.iter_mut().enumerate() {
            if source.has_room()
                && let Poll::Ready(Some(chunk)) = source.chunks.poll_recv(context)
            {
                return Poll::Ready((place, chunk));
            }
        }
        Poll::Pending
    })
    .await
}

/// Repeating it by itself would only wait as long again: the client tells it to its user at once.
fn definite(why: String) -> ApiError {
    ApiError { code: ApiErrorCode::Conflict, ..unavailable(why) }
}
