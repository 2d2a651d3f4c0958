//! The disk of a simulated host: logs of processes, which stay when the processes are gone, until somebody removes them.

use std::collections::{BTreeMap, BTreeSet};

use ostler_agent_core::reclaim::{Kind, Spare};
use ostler_schemas::{Name, Namespace, Uid};

use super::{Inner, SimHost};
use crate::context::lock;
use crate::ports::Held;

/// The one file system of a simulated host.
pub(crate) const DEVICE: u64 = 1;

/// Bytes of each process that ever wrote a log here, and when it was last seen alive.
#[derive(Debug, Default)]
pub(super) struct Disk(BTreeMap<Uid, (u64, u64)>);

impl Inner {
    fn write_logs(&mut self, now: u64) {
        let living: Vec<(Uid, u64)> =
            self.living.iter().map(|(key, living)| (key.uid, self.program_of(living).disk)).collect();
        for (uid, bytes) in living {
            self.disk.0.insert(uid, (bytes, now));
        }
    }
}

impl SimHost {
    /// Bytes of logs on the disk, those of processes that are gone included.
    #[must_use]
    pub fn disk_used(&self) -> u64 {
        let now = self.clock.wall().0 / 1000;
        let mut inner = lock(&self.inner);
        inner.write_logs(now);
        inner.disk.0.values().map(|(bytes, _)| bytes).sum()
    }

    /// How many threads each living process has.
    #[must_use]
    pub fn tasks(&self) -> BTreeMap<Uid, u32> {
        let inner = lock(&self.inner);
        inner.living.iter().map(|(key, living)| (key.uid, inner.program_of(living).tasks.max(1))).collect()
    }

    pub(super) fn logs_left(&self, known: &BTreeSet<Uid>) -> Vec<Spare> {
        let inner = lock(&self.inner);
        let left = inner.disk.0.iter().filter(|(uid, _)| !known.contains(uid) && !inner.lives(uid));
        left.map(|(uid, (bytes, used))| Spare {
            kind: Kind::Log,
            id: uid.to_string(),
            device: DEVICE,
            bytes: *bytes,
            files: 1,
            used: *used,
        })
        .collect()
    }

    pub(super) fn logs_removed(&self, known: &BTreeSet<Uid>, logs: Vec<Spare>) -> Vec<Spare> {
        let mut inner = lock(&self.inner);
        let mut remove = |log: &Spare| {
            let uid: Option<Uid> = log.id.parse().ok();
            let gone = uid.filter(|uid| !known.contains(uid) && !inner.lives(uid));
            gone.is_some_and(|uid| inner.disk.0.remove(&uid).is_some())
        };
        logs.into_iter().filter(|log| remove(log)).collect()
    }

    pub(super) fn disk_held(&self, of: &[(Uid, Namespace, Name)]) -> Vec<Held> {
        let inner = lock(&self.inner);
        let held = |(uid, _, _): &(Uid, Namespace, Name)| {
            let (bytes, _) = inner.disk.0.get(uid)?;
            Some(Held { uid: *uid, device: DEVICE, bytes: *bytes })
        };
        of.iter().filter_map(held).collect()
    }
}

impl Inner {
    fn lives(&self, uid: &Uid) -> bool {
        self.living.keys().any(|key| key.uid == *uid)
    }
}
