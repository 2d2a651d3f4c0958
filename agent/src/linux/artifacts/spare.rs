//! What of the cache can be removed when a disk is full: what nothing is started from, and nobody waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use ostler_agent_core::artifacts::{BLOBS, BUILDING, PARTIAL, SETS};
use ostler_agent_core::reclaim::{Kind, Spare};
use ostler_schemas::Sha256;

use super::{Inner, remove_tree};
use crate::context::lock;
use crate::linux::weight::{BLOCK, weigh};

impl Inner {
    /// Everything that can go.
    pub(super) fn spares(&self) -> Vec<Spare> {
        if !self.is_told.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let busy = self.busy();
        [(PARTIAL, Kind::Partial), (BLOBS, Kind::Artifact), (SETS, Kind::Artifact)]
            .into_iter()
            .flat_map(|(folder, kind)| self.spares_in(folder, kind, &busy))
            .collect()
    }

    /// Sets in use or awaited, and files that are fetched or awaited.
    fn busy(&self) -> BTreeSet<Sha256> {
        let mut busy = lock(&self.in_use).clone();
        busy.extend(self.awaited());
        let running = lock(&self.running);
        busy.extend(running.iter().filter(|(_, one)| one.strong_count() > 0).map(|(hash, _)| *hash));
        busy
    }

    /// What somebody waits for: sets, and the files that they are built from.
    pub(super) fn awaited(&self) -> BTreeSet<Sha256> {
        let mut all = lock(&self.wanted);
        all.retain(|set| set.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).flat_map(|set| set.iter().copied().collect::<Vec<_>>()).collect()
    }

    fn spares_in(&self, folder: &str, kind: Kind, busy: &BTreeSet<Sha256>) -> Vec<Spare> {
        let Ok(entries) = fs::read_dir(self.dir.join(folder)) else { return Vec::new() };
        let one = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let hash: Sha256 = name.parse().ok()?;
            if busy.contains(&hash) {
                return None;
            }
            let weight = weigh(&entry.path())?;
            // Used when it was last touched, not when what is in it was made.
            let used = u64::try_from(entry.metadata().ok()?.mtime()).unwrap_or(0);
            // Fetched files that only this set shares go with it.
            let shared = if kind == Kind::Artifact { shared_files(&entry.path()) } else { BTreeMap::new() };
            Some(Spare {
                kind,
                id: format!("{folder}/{name}"),
                device: weight.device,
                bytes: weight.bytes.saturating_add(shared.values().sum()),
                files: weight.files.saturating_add(shared.len() as u64),
                used,
            })
        };
        entries.flatten().filter_map(one).collect()
    }

    /// Removes what was chosen and is still not in use.
    pub(super) fn remove_spares(&self, spares: Vec<Spare>) -> Vec<Spare> {
        let remove = |spare: &Spare| {
            let (folder, name) = spare.id.split_once('/')?;
            let hash: Sha256 = name.parse().ok()?;
            let path = self.dir.join(folder).join(name);
            if self.busy().contains(&hash) {
                return None;
            }
            match folder {
                SETS => {
                    let numbers = shared_files(&path).into_keys().collect();
                    self.remove_set(hash, &path)?;
                    self.remove_unshared(&numbers);
                    Some(())
                }
                BLOBS | PARTIAL => fs::remove_file(&path).ok(),
                _ => None,
            }
        };
        spares.into_iter().filter(|spare| remove(spare).is_some()).collect()
    }

    /// First its name goes: a set that is there is whole.
    pub(super) fn remove_set(&self, hash: Sha256, path: &Path) -> Option<()> {
        let building = self.dir.join(BUILDING).join(hash.to_string());
        remove_tree(&building);
        fs::rename(path, &building).ok()?;
        remove_tree(&building);
        Some(())
    }

    /// Removes fetched files of these numbers that no set shares any more, and nobody waits for.
    fn remove_unshared(&self, numbers: &BTreeSet<u64>) {
        let busy = self.busy();
        let entries = fs::read_dir(self.dir.join(BLOBS)).into_iter().flatten().flatten();
        for entry in entries {
            let is_busy = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                .is_none_or(|h| busy.contains(&h));
            let alone = entry.metadata().is_ok_and(|meta| meta.nlink() == 1 && numbers.contains(&meta.ino()));
            if alone && !is_busy {
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}

/// Files of a set that have exactly one other name, that in the cache: their numbers and bytes.
fn shared_files(set: &Path) -> BTreeMap<u64, u64> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![set.to_owned()]);
    while let Some(path) = waiting.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => waiting.push(entry.path()),
                Ok(meta) if meta.nlink() == 2 => {
                    found.insert(meta.ino(), meta.blocks().saturating_mul(BLOCK));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}
