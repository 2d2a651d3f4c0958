//! What has changed since the state was last written.
//!
//! It remembers names only; the values are taken when the write is made, so that many changes of one incarnation
//! in one turn are one record.

use std::collections::{BTreeMap, BTreeSet};

use super::Held;
use crate::holder::journal::Change;
use crate::holder::protocol::{ExitRecord, ProcKey};

/// The names of what has changed.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// More than can be named: the whole state has to be written.
    everything: bool,
    processes: BTreeSet<ProcKey>,
    exits: BTreeSet<u64>,
}

impl Unwritten {
    /// Nothing is known to be on disk.
    pub(super) fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    pub(super) fn touch(&mut self, key: ProcKey) {
        self.processes.insert(key);
    }

    pub(super) fn touch_exit(&mut self, seq: u64) {
        self.exits.insert(seq);
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.everything && self.processes.is_empty() && self.exits.is_empty()
    }

    /// The changes, each with its present value; none when only the whole state will do. Nothing is left of them.
    pub(super) fn take(
        &mut self,
        held: &BTreeMap<ProcKey, Held>,
        exits: &BTreeMap<u64, ExitRecord>,
    ) -> Option<Vec<Change>> {
        let Self { everything, processes, exits: seqs } = std::mem::take(self);
        if everything {
            return None;
        }
        let of_process = |key: ProcKey| match held.get(&key) {
            Some(held) => Change::Held(Box::new(held.record.clone())),
            None => Change::Gone(key),
        };
        let of_exit = |seq: u64| match exits.get(&seq) {
            Some(exit) => Change::Exit(exit.clone()),
            None => Change::Acknowledged(seq),
        };
        Some(processes.into_iter().map(of_process).chain(seqs.into_iter().map(of_exit)).collect())
    }
}
