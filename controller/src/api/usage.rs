//! What processes took when their hosts were last asked: kept in memory for as long as it can be called present, so that
//! status shows it to everybody who reads meanwhile. Never stored; a watch is not woken by it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ostler_schemas::Uid;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::beat::BEAT_MS;
use ostler_schemas::v1::report::ProcessPhase;
use ostler_schemas::v1::status::{Status, View};
use ostler_schemas::v1::usage::{ProcessUsage, UsageEntry};

/// Figures are told up to one beat's age, and one more for their way, as those of nodes are: what is older is not known.
const FRESH_MS: u64 = 2 * BEAT_MS;

/// The last figures.
#[derive(Debug, Default)]
pub(super) struct UsageMemory(Mutex<BTreeMap<Uid, (Mono, ProcessUsage)>>);

impl UsageMemory {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Uid, (Mono, ProcessUsage)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an answer, and forgets what is old.
    pub(super) fn keep(&self, now: Mono, answer: &[UsageEntry]) {
        let mut known = self.known();
        known.retain(|_, (at, _)| now.since_ms(*at) <= FRESH_MS);
        known.extend(answer.iter().map(|entry| (entry.u, (now, entry.usage))));
    }

    /// Shows it in the status of a process.
    pub(super) fn show(&self, now: Mono, view: &mut View) {
        let uid = view.metadata.uid;
        if let Status::Process(process) = &mut view.status
            && process.phase != ProcessPhase::Unknown
        {
            let known = self.known().get(&uid).copied();
            process.usage = known.filter(|(at, _)| now.since_ms(*at) <= FRESH_MS).map(|(_, usage)| usage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_forgotten() {
        let memory = UsageMemory::default();
        let entry = |n: u8| UsageEntry { u: Uid::from_bytes([n; 16]), usage: ProcessUsage::default() };
        memory.keep(Mono(1_000), &[entry(1)]);
        memory.keep(Mono(1_000 + FRESH_MS), &[entry(2)]);
        assert_eq!(memory.known().len(), 2);
        memory.keep(Mono(1_001 + FRESH_MS), &[]);
        assert_eq!(memory.known().keys().copied().collect::<Vec<_>>(), [entry(2).u]);
    }
}
