//! Output of processes on its way to the bus, for namespaces that ship it: it outlives this host there.
//!
//! Guarantees: no process waits for it, and nothing is kept in memory for a bus that is away: the files are the buffer,
//! and what rotation takes from them is counted and said. Each log has one message under way, so its parts are stored
//! in order; of all logs a few have. What was begun for a process that is gone goes on to its end, also after a restart.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use ostler_bus::store::{CommitError, Headers};
use ostler_schemas::subject::LogSubject;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Uid, headers as names};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::context::{Shared, Task};
use crate::ports::{LogName, LogShipper, Parcel};

/// How often logs are looked at: what a host that is lost takes with it.
const LOOK_MS: u64 = 1_000;
/// Messages under way at one time: 64 KiB each, also of the memory that they take.
const AT_ONCE: usize = 8;
/// Messages of one log in one turn: a process that says a lot must not keep others waiting.
const IN_A_ROW: usize = 16;
/// Nothing could be stored for so long: somebody should know. Longer than a controller's or server's change takes.
const STALLED_MS: u64 = 30_000;

pub(crate) struct ShipperActor;

/// Nothing is asked of it: it looks for itself.
pub(crate) enum Msg {}

/// The task that ships.
pub(crate) struct State {
    _task: Task,
}

impl Actor for ShipperActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, _: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        Ok(State { _task: Task::spawn(run(context)) })
    }
}

/// One log.
struct Log {
    name: LogName,
    uid: Uid,
    shipper: Option<Box<dyn LogShipper>>,
}

/// What came of a turn.
enum Turn {
    /// All that was there is stored.
    Through,
    /// Something is stored, and there is more.
    More,
    /// The bus did not take it, or the log could not be read.
    Stopped(String),
}

async fn run(context: Shared) {
    let mut logs: BTreeMap<LogName, Log> = BTreeMap::new();
    for (name, uid) in context.deps.host.unshipped().await {
        logs.insert(name.clone(), Log { name, uid, shipper: None });
    }
    let mut link = context.deps.link.link();
    let mut failing: Option<Mono> = None;
    loop {
        while !link.borrow_and_update().connected || context.board().bus.refused.is_some() {
            tokio::select! {
                changed = link.changed() => if changed.is_err() { return },
                () = context.deps.clock.sleep_ms(LOOK_MS) => {}
            }
        }
        take_up(&context, &mut logs);
        let turns: Vec<(Log, Turn)> = futures::stream::iter(std::mem::take(&mut logs).into_values())
            .map(|log| turn(&context, log))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (mut more, mut why) = (false, None);
        for (mut log, turn) in turns {
            match turn {
                Turn::Through if is_gone(&context, &log.name) => {
                    finish(&mut log).await;
                    continue;
                }
                Turn::Through => {}
                Turn::More => more = true,
                Turn::Stopped(reason) => why = Some(reason),
            }
            logs.insert(log.name.clone(), log);
        }
        more &= why.is_none();
        tell(&context, &mut failing, why);
        if !more {
            context.deps.clock.sleep_ms(LOOK_MS).await;
        }
    }
}

/// Begins with what is to be shipped by now, and lets go of what is not any more.
fn take_up(context: &Shared, logs: &mut BTreeMap<LogName, Log>) {
    let board = context.board();
    logs.retain(|(namespace, _), _| !board.keeps.contains(namespace));
    for (uid, process) in &board.processes {
        if board.ships.contains(&process.namespace) {
            let name = (process.namespace.clone(), process.name.clone());
            let log = || Log { name: name.clone(), uid: *uid, shipper: None };
            logs.entry(name.clone()).or_insert_with(log);
        }
    }
}

fn is_gone(context: &Shared, (namespace, name): &LogName) -> bool {
    let board = context.board();
    !board.processes.values().any(|p| p.namespace == *namespace && p.name == *name)
}

async fn turn(context: &Shared, mut log: Log) -> (Log, Turn) {
    let mut shipper = match log.shipper.take() {
        Some(shipper) => shipper,
        None => match context.deps.host.ship(log.name.clone(), log.uid).await {
            Ok(shipper) => shipper,
            Err(why) => return (log, Turn::Stopped(why)),
        },
    };
    let mut outcome = Turn::More;
    for _ in 0..IN_A_ROW {
        let stop = match shipper.next().await {
            Ok(Some(parcel)) => match store(context, &log.name, parcel).await {
                Ok(()) => {
                    shipper.stored();
                    continue;
                }
                Err(why) => Turn::Stopped(why.to_string()),
            },
            Ok(None) => Turn::Through,
            Err(why) => Turn::Stopped(format!("{}/{}: {why}", log.name.0, log.name.1)),
        };
        outcome = stop;
        break;
    }
    log.shipper = Some(shipper);
    (log, outcome)
}

async fn store(context: &Shared, (namespace, process): &LogName, parcel: Parcel) -> Result<(), CommitError> {
    let subject =
        LogSubject { node: context.node.clone(), namespace: namespace.clone(), process: process.clone() };
    let headers = Headers::new().with(names::STRETCH, parcel.stretch.to_string());
    context.deps.link.ship_log(&subject, headers, parcel.bytes).await.map(drop)
}

async fn finish(log: &mut Log) {
    if let Some(shipper) = &mut log.shipper
        && let Err(why) = shipper.finish().await
    {
        // Looked at again by the next agent, and found to be through.
        tracing::debug!(namespace = %log.name.0, name = %log.name.1, why, "a log was not marked as shipped");
    }
}

/// Says it when nothing was stored for long, and when that is over.
fn tell(context: &Shared, failing: &mut Option<Mono>, why: Option<String>) {
    let Some(why) = why else {
        if failing.take().is_some() {
            context.condition(Reason::LogsNotShipped, None);
        }
        return;
    };
    tracing::debug!(why, "output was not shipped");
    let now = context.deps.clock.mono();
    let since = *failing.get_or_insert(now);
    if now.since_ms(since) >= STALLED_MS {
        context.condition(Reason::LogsNotShipped, Some(format!("output is not shipped: {why}")));
    }
}
