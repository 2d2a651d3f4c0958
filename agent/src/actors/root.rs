//! Starts the other actors and starts them anew when they fail.

use std::collections::BTreeMap;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::acts::ActsActor;
use super::bus::BusActor;
use super::events::EventsActor;
use super::host::HostActor;
use super::ledger::LedgerActor;
use super::pressure::PressureActor;
use super::registry::RegistryActor;
use super::relay::RelayActor;
use super::reporter::ReporterActor;
use super::shipper::ShipperActor;
use crate::context::{Shared, Task};

/// First wait before a failed actor is started again; doubles. What failed at once because of bad input would else
/// turn in a circle as fast as the machine can.
const AGAIN_FIRST_MS: u64 = 100;
/// Longest such wait.
const AGAIN_MAX_MS: u64 = 10_000;
/// An actor that ran so long is forgiven its failures.
const FORGIVEN_MS: u64 = 60_000;

/// The children, in the order in which they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Child {
    Ledger,
    Events,
    Reporter,
    Relay,
    Host,
    Acts,
    Registry,
    Pressure,
    Shipper,
    Bus,
}

const CHILDREN: [Child; 10] = [
    Child::Ledger,
    Child::Events,
    Child::Reporter,
    Child::Relay,
    Child::Host,
    Child::Acts,
    Child::Registry,
    Child::Pressure,
    Child::Shipper,
    Child::Bus,
];

pub(crate) struct RootActor;

pub(crate) enum Msg {
    /// Start a child again.
    Again(Child),
    /// Is the tree alive? Answered by whoever feeds the watchdog.
    Alive(tokio::sync::oneshot::Sender<()>),
    /// End child `n` (modulo their number) as a failure would: for tests of supervision.
    Crash(usize),
}

pub(crate) struct State {
    context: Shared,
    running: BTreeMap<ActorId, Child>,
    cells: BTreeMap<Child, ActorCell>,
    failures: BTreeMap<Child, (u64, u64)>,
    timers: Vec<Task>,
}

impl Actor for RootActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        let mut state = State {
            context,
            running: BTreeMap::new(),
            cells: BTreeMap::new(),
            failures: BTreeMap::new(),
            timers: Vec::new(),
        };
        for child in CHILDREN {
            state.start(&me, child).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Again(child) => state.start(&me, child).await,
            Msg::Crash(n) => {
                if let Some(cell) = state.cells.get(&CHILDREN[n % CHILDREN.len()]) {
                    cell.kill();
                }
                Ok(())
            }
            Msg::Alive(answer) => {
                // Whoever asked may have stopped waiting.
                answer.send(()).ok();
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, why) = match event {
            SupervisionEvent::ActorFailed(cell, why) => (cell, why.to_string()),
            SupervisionEvent::ActorTerminated(cell, ..) => (cell, "it ended".to_owned()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let Some(child) = state.running.remove(&cell.get_id()) else { return Ok(()) };
        state.cells.remove(&child);
        state.again(&me, child, &why);
        Ok(())
    }
}

impl State {
    async fn start(&mut self, me: &ActorRef<Msg>, child: Child) -> Result<(), ActorProcessingErr> {
        let (context, supervisor) = (self.context.clone(), me.get_cell());
        let cell = match child {
            Child::Ledger => {
                Actor::spawn_linked(None, LedgerActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Events => {
                Actor::spawn_linked(None, EventsActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Reporter => {
                Actor::spawn_linked(None, ReporterActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Relay => {
                Actor::spawn_linked(None, RelayActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Host => {
                Actor::spawn_linked(None, HostActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Acts => {
                Actor::spawn_linked(None, ActsActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Registry => {
                Actor::spawn_linked(None, RegistryActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Pressure => {
                Actor::spawn_linked(None, PressureActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Shipper => {
                Actor::spawn_linked(None, ShipperActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
            Child::Bus => {
                Actor::spawn_linked(None, BusActor, context, supervisor).await.map(|a| a.0.get_cell())
            }
        };
        match cell {
            Ok(cell) => {
                self.running.insert(cell.get_id(), child);
                self.cells.insert(child, cell);
            }
            Err(error) => self.again(me, child, &error.to_string()),
        }
        Ok(())
    }

    fn again(&mut self, me: &ActorRef<Msg>, child: Child, why: &str) {
        let now = self.context.deps.clock.mono().0;
        let (at, ms) = self.failures.get(&child).copied().unwrap_or((now, 0));
        let forgiven = now.saturating_sub(at) >= FORGIVEN_MS;
        let wait = if ms == 0 || forgiven { AGAIN_FIRST_MS } else { (ms * 2).min(AGAIN_MAX_MS) };
        self.failures.insert(child, (now, wait));
        tracing::error!(?child, why, wait, "an actor failed and is started anew");
        let (clock, me) = (self.context.deps.clock.clone(), me.clone());
        self.timers.retain(Task::is_running);
        self.timers.push(Task::spawn(async move {
            clock.sleep_ms(wait).await;
            drop(me.cast(Msg::Again(child)));
        }));
    }
}
