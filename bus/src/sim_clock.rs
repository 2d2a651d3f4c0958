//! The clock of a simulated machine, over the runtime's (usually paused) time, and the gate through which everything
//! that a simulated party does must pass.
//!
//! A [`Gate`] belongs to one party: one daemon in one life. While it is paused no timer of the party fires, no call
//! of its ports proceeds and nothing is delivered to it; afterwards all that has piled up arrives, in the order that
//! [`Gate::resume`] is told. After [`Gate::crash`] nothing ever returns, so that the party can be aborted without its
//! having acted once more.
//!
//! A [`SimClock`] adds what hardware clocks do: a rate, steps of the wall clock, and standing still. Pausing the gate
//! alone is `SIGSTOP`: the reading goes on and deadlines pass unseen. [`SimClock::suspend`] also stops the reading,
//! as `CLOCK_MONOTONIC` does while a machine sleeps.
//!
//! Wakeups happen in the order of the waits. Nothing here is random.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use ostler_schemas::time::{Mono, Now, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;

/// What comes first when a paused party goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeOrder {
    /// Timers that became due fire before anything that arrived meanwhile is seen.
    TimersFirst,
    /// What arrived meanwhile is seen before any timer fires.
    BacklogFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Paused,
    Crashed,
}

#[derive(Debug)]
struct GateState {
    mode: Mode,
    timers_from: Instant,
    ports_from: Instant,
}

#[derive(Debug)]
struct GateInner {
    state: Mutex<GateState>,
    changed: Notify,
}

/// Lets one party proceed, or not.
#[derive(Debug, Clone)]
pub struct Gate(Arc<GateInner>);

#[derive(Debug, Clone, Copy)]
enum Side {
    Timers,
    Ports,
}

/// The side that comes second opens this much later. Simulated time moves only when no task can run, so everything
/// that the first side sets off has happened by then.
const SECOND_SIDE_AFTER: Duration = Duration::from_millis(1);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// An open one. Needs a runtime.
    #[must_use]
    pub fn new() -> Self {
        let now = Instant::now();
        let state = GateState { mode: Mode::Open, timers_from: now, ports_from: now };
        Self(Arc::new(GateInner { state: Mutex::new(state), changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes it. No effect on a crashed one.
    pub fn pause(&self) {
        let mut state = self.state();
        if state.mode == Mode::Open {
            state.mode = Mode::Paused;
        }
    }

    /// Opens a paused one.
    pub fn resume(&self, order: ResumeOrder) {
        let now = Instant::now();
        let later = now + SECOND_SIDE_AFTER;
        {
            let mut state = self.state();
            if state.mode != Mode::Paused {
                return;
            }
            state.mode = Mode::Open;
            (state.timers_from, state.ports_from) = match order {
                ResumeOrder::TimersFirst => (now, later),
                ResumeOrder::BacklogFirst => (later, now),
            };
        }
        self.0.changed.notify_waiters();
    }

    /// Nothing that waits at it, or comes to it, ever goes on.
    pub fn crash(&self) {
        self.state().mode = Mode::Crashed;
    }

    /// Whether the party runs.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().mode == Mode::Open
    }

    /// Whether the party has crashed.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.state().mode == Mode::Crashed
    }

    /// Done when calls and deliveries may proceed.
    pub async fn ports(&self) {
        self.pass(Side::Ports).await;
    }

    /// Done when timers may fire.
    pub async fn timers(&self) {
        self.pass(Side::Timers).await;
    }

    async fn pass(&self, side: Side) {
        loop {
            // Taken before the state is looked at, so no change falls in between.
            let changed = self.0.changed.notified();
            let (mode, from) = {
                let state = self.state();
                let from = match side {
                    Side::Timers => state.timers_from,
                    Side::Ports => state.ports_from,
                };
                (state.mode, from)
            };
            match mode {
                Mode::Open if from <= Instant::now() => return,
                Mode::Open => tokio::time::sleep_until(from).await,
                Mode::Paused => changed.await,
                Mode::Crashed => std::future::pending().await,
            }
        }
    }
}

const PPM: i128 = 1_000_000;

#[derive(Debug)]
struct Reading {
    /// The runtime's time at which `mono_us` was read.
    since: Instant,
    mono_us: i128,
    rate_ppm: i64,
    stopped: bool,
    /// Wall clock minus monotonic clock.
    wall_minus_mono_ms: i64,
}

impl Reading {
    /// Microseconds of this clock that pass in a million microseconds of the runtime's.
    fn speed(&self) -> i128 {
        if self.stopped { 0 } else { (PPM + i128::from(self.rate_ppm)).max(0) }
    }

    fn mono_us(&self, now: Instant) -> i128 {
        let elapsed = i128::try_from(now.duration_since(self.since).as_micros()).unwrap_or(i128::MAX >> 64);
        self.mono_us + elapsed * self.speed() / PPM
    }

    fn rebase(&mut self) {
        let now = Instant::now();
        self.mono_us = self.mono_us(now);
        self.since = now;
    }

    /// When this clock will show `deadline`; `None` if it stands.
    fn reaches(&self, deadline: Mono) -> Option<Instant> {
        let speed = self.speed();
        if speed == 0 {
            return None;
        }
        let missing = (i128::from(deadline.0) * 1000 - self.mono_us).max(0);
        let micros = (missing * PPM + speed - 1) / speed;
        // A deadline beyond what the runtime can hold is as good as never.
        let micros = u64::try_from(micros).unwrap_or(u64::MAX).min(FAR_US);
        Some(self.since + Duration::from_micros(micros))
    }
}

/// Ten years: further ahead than any simulation goes, and within what the runtime's timers can hold.
const FAR_US: u64 = 10 * 365 * 86_400 * 1_000_000;

/// A simulated machine's clock.
#[derive(Debug)]
pub struct SimClock {
    gate: Gate,
    reading: Arc<Mutex<Reading>>,
    changed: Arc<Notify>,
}

fn lock(reading: &Mutex<Reading>) -> MutexGuard<'_, Reading> {
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimClock {
    /// A true clock whose monotonic reading starts at 0 and whose wall clock shows `wall`.
    #[must_use]
    pub fn new(gate: Gate, wall: Timestamp) -> Arc<Self> {
        let reading = Reading {
            since: Instant::now(),
            mono_us: 0,
            rate_ppm: 0,
            stopped: false,
            wall_minus_mono_ms: i64::try_from(wall.0).unwrap_or(i64::MAX),
        };
        Arc::new(Self { gate, reading: Arc::new(Mutex::new(reading)), changed: Arc::new(Notify::new()) })
    }

    /// A clock of the same machine for another life of a daemon on it: same reading, same rate, another gate.
    #[must_use]
    pub fn with_gate(&self, gate: Gate) -> Arc<Self> {
        Arc::new(Self { gate, reading: Arc::clone(&self.reading), changed: Arc::clone(&self.changed) })
    }

    /// The gate that holds back its timers.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    fn change(&self, change: impl FnOnce(&mut Reading)) {
        {
            let mut reading = lock(&self.reading);
            reading.rebase();
            change(&mut reading);
        }
        self.changed.notify_waiters();
    }

    /// Runs this much too fast, in millionths; negative: too slow.
    pub fn set_rate_ppm(&self, ppm: i64) {
        self.change(|r| r.rate_ppm = ppm);
    }

    /// Steps the wall clock.
    pub fn step_wall_ms(&self, by: i64) {
        self.change(|r| r.wall_minus_mono_ms = r.wall_minus_mono_ms.saturating_add(by));
    }

    /// The reading stands still: a machine that sleeps. Its wall clock falls behind too, until it is stepped.
    pub fn stop(&self) {
        self.change(|r| r.stopped = true);
    }

    /// The reading goes on from where it stood.
    pub fn start(&self) {
        self.change(|r| r.stopped = false);
    }

    /// The whole machine sleeps: reading and gate.
    pub fn suspend(&self) {
        self.gate.pause();
        self.stop();
    }

    /// Ends [`Self::suspend`].
    pub fn wake(&self, order: ResumeOrder) {
        self.start();
        self.gate.resume(order);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let reading = lock(&self.reading);
        let mono_ms = reading.mono_us(Instant::now()) / 1000;
        let wall = mono_ms + i128::from(reading.wall_minus_mono_ms);
        Now {
            mono: Mono(u64::try_from(mono_ms).unwrap_or(0)),
            wall: Timestamp(u64::try_from(wall).unwrap_or(0)),
        }
    }

    fn sleep_until(&self, deadline: Mono) -> BoxFuture<'static, ()> {
        let (gate, reading, changed) =
            (self.gate.clone(), Arc::clone(&self.reading), Arc::clone(&self.changed));
        Box::pin(async move {
            loop {
                gate.timers().await;
                let change = changed.notified();
                let (due, at) = {
                    let reading = lock(&reading);
                    let shown = reading.mono_us(Instant::now());
                    (shown >= i128::from(deadline.0) * 1000, reading.reaches(deadline))
                };
                if due {
                    return;
                }
                match at {
                    Some(at) => tokio::select! {
                        biased;
                        () = change => {}
                        () = tokio::time::sleep_until(at) => {}
                    },
                    None => change.await,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
