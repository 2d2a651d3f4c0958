//! A connection: how calls of a party get to the servers and back, and when they do not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::permissions::Permissions;
use super::state::{ConnState, State};
use super::{MemoryOptions, Party};
use crate::clock::ClockRef;
use crate::layout::{Account, Identity};
use crate::sim_clock::Gate;
use crate::topic::LinkState;

/// The servers, shared by all connections.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Something was stored, or the world was changed by a fault.
    pub(super) changed: Notify,
}

impl Shared {
    pub(super) fn new(clock: ClockRef, options: MemoryOptions) -> Self {
        Self { state: Mutex::new(State::new(clock, options)), changed: Notify::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever watches it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let out = change(&mut self.state());
        self.changed.notify_waiters();
        out
    }
}

type Job = Box<dyn FnOnce(&mut State) + Send>;

struct Outbound {
    jobs: VecDeque<Job>,
    /// When the last job arrives: one connection does not overtake itself.
    busy_until: Instant,
}

/// A party's connection.
pub(super) struct Conn {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) party: String,
    pub(super) clock: ClockRef,
    pub(super) gate: Gate,
    pub(super) identity: Identity,
    pub(super) account: Account,
    pub(super) permissions: Permissions,
    pub(super) link: watch::Sender<LinkState>,
    outbound: Mutex<Outbound>,
}

impl Conn {
    /// Connects, to the `server` with this index or to any.
    pub(super) fn open(
        shared: &Arc<Shared>,
        party: &Party,
        identity: Identity,
        server: Option<usize>,
    ) -> Arc<Self> {
        let mut state = shared.state();
        let id = state.fresh_id();
        let servers = state.options.servers.len();
        let server = server.unwrap_or(usize::try_from(id).unwrap_or(0) % servers);
        let (link, _) = watch::channel(LinkState {
            connected: !state.faults.is_deaf_to(&party.name, server),
            server: state.options.servers.get(server).cloned(),
            connection: 1,
            ..LinkState::default()
        });
        let seen = ConnState { party: party.name.clone(), server, link: link.clone() };
        state.conns.insert(id, seen);
        drop(state);
        Arc::new(Self {
            shared: Arc::clone(shared),
            id,
            party: party.name.clone(),
            clock: Arc::clone(&party.clock),
            gate: party.gate.clone(),
            account: identity.account(),
            permissions: Permissions::of(&identity),
            identity,
            link,
            outbound: Mutex::new(Outbound { jobs: VecDeque::new(), busy_until: Instant::now() }),
        })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.borrow().connected
    }

    fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `job` done when it arrives, `delay_ms` from now, after everything sent before. A party that gives up, or
    /// crashes, does not call it back: it is under way.
    pub(super) fn send(self: &Arc<Self>, delay_ms: u64, job: impl FnOnce(&mut State) + Send + 'static) {
        let now = Instant::now();
        let arrival = {
            let mut outbound = self.outbound();
            let arrival = outbound.busy_until.max(now + Duration::from_millis(delay_ms));
            if arrival > now || !outbound.jobs.is_empty() {
                outbound.jobs.push_back(Box::new(job));
                outbound.busy_until = arrival;
                arrival
            } else {
                drop(outbound);
                self.arrive(job);
                return;
            }
        };
        let conn = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(arrival).await;
            // Whichever task wakes first takes the job that was sent first.
            let job = conn.outbound().jobs.pop_front();
            if let Some(job) = job {
                conn.arrive(job);
            }
        });
    }

    fn arrive(&self, job: impl FnOnce(&mut State)) {
        self.shared.change(|state| {
            if state.hears(self.id) {
                job(state);
            }
        });
    }

    /// Runs `apply` at the servers and brings the answer back; `None` if there was none in time.
    pub(super) async fn exchange<T: Send + 'static>(
        self: &Arc<Self>,
        timeout_ms: u64,
        apply: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Option<T> {
        self.gate.ports().await;
        let deadline = self.clock.mono().plus_ms(timeout_ms);
        tokio::select! {
            biased;
            answer = self.answer(apply) => Some(answer),
            () = self.clock.sleep_until(deadline) => None,
        }
    }

    async fn answer<T: Send + 'static>(
        self: &Arc<Self>,
        apply: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> T {
        let sending = self.shared.state().faults.sending(&self.party);
        let Some(out_ms) = sending else { return std::future::pending().await };
        let (answer, answered) = oneshot::channel();
        self.send(out_ms, move |state| drop(answer.send(apply(state))));
        let Ok(answer) = answered.await else { return std::future::pending().await };
        let back_ms = {
            let mut state = self.shared.state();
            state.faults.answering(&self.party).filter(|_| state.reaches(self.id))
        };
        match back_ms {
            None => return std::future::pending().await,
            Some(0) => {}
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        self.gate.ports().await;
        answer
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.shared.state().conns.remove(&self.id);
    }
}
