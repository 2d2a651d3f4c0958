//! What happened on a simulated host, for checkers.

use ostler_agent_core::holder::protocol::ProcKey;
use ostler_agent_core::unit::HowEnded;
use ostler_schemas::Name;
use ostler_schemas::quantity::Signal;
use ostler_schemas::time::{Mono, Now, Timestamp};

use super::{Inner, SimHost};
use crate::context::lock;

/// What happened to an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimEvent {
    /// It started, with these words.
    Started(Vec<String>),
    /// It ended.
    Ended(HowEnded),
    /// Somebody asked the holder to end it: with this signal, and to kill it after so many milliseconds.
    Asked(Option<Signal>, u64),
    /// It was sent a signal that asks for nothing but attention.
    Signalled(Signal),
    /// It said `READY=1` to whoever listens.
    SaidReady,
    /// One of its ports, by its name in lower case, answers otherwise than before, or for the first time.
    Answers(String, bool),
    /// A command is run for it: its number, its words.
    RunBegan(u64, Vec<String>),
    /// The command with this number has ended; unknown how if it was killed because nobody waited for it any more.
    RunEnded(u64, HowEnded),
    /// The host went down under it.
    PowerLost,
}

/// One line of a host's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimRecord {
    /// When, by the host's wall clock.
    pub at: Timestamp,
    /// When, by its clock that nobody sets.
    pub mono: Mono,
    /// Which incarnation.
    pub key: ProcKey,
    /// Its process's name.
    pub name: Name,
    /// What.
    pub event: SimEvent,
}

impl Inner {
    pub(super) fn note(&mut self, now: Now, key: ProcKey, name: &Name, event: SimEvent) {
        if self.manners.forgetful {
            return;
        }
        self.history.push(SimRecord { at: now.wall, mono: now.mono, key, name: name.clone(), event });
    }
}

impl SimHost {
    /// Everything that ever happened to processes here.
    #[must_use]
    pub fn history(&self) -> Vec<SimRecord> {
        self.history_since(0)
    }

    /// What happened to processes here after the first so many lines.
    #[must_use]
    pub fn history_since(&self, seen: usize) -> Vec<SimRecord> {
        lock(&self.inner).history.get(seen..).unwrap_or_default().to_vec()
    }
}
