//! What an informer knows of its bucket, and what it tells of what it sees. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::time::Timestamp;
use ostler_schemas::{Key, Revision};

use super::InformerEvent;
use crate::store::{BucketInfo, Entry, WatchEvent, WatchFrom};

/// Entries that are told together while everything is read: a message for each would cost more than the entry.
const LIST_CHUNK: usize = 512;

/// What is known of a bucket.
#[derive(Debug, Default)]
pub struct Tracker {
    created: Option<Timestamp>,
    /// Everything up to here has been seen.
    last: Revision,
    /// The bucket's last revision when the present watch began: reached when it says that it is synced.
    goal: Revision,
    /// The last revision told of each key, markers included.
    known: BTreeMap<Key, Revision>,
    /// While everything is read: the keys seen so far.
    listing: Option<BTreeSet<Key>>,
    /// Whether all has been read once, so that a watch may resume.
    listed: bool,
    synced: bool,
    /// Entries not told yet: a list's chunk, or a transaction's beginning.
    held: Vec<Entry>,
    /// What had been seen when the bucket's state was asked for.
    asked: Revision,
    /// The bucket was ahead at the last check, and this had been seen.
    behind: Option<Revision>,
}

impl Tracker {
    /// Knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether everything is being read.
    #[must_use]
    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// Everything up to here has been seen.
    #[must_use]
    pub fn last(&self) -> Revision {
        self.last
    }

    fn reset(&mut self, reason: &str) -> Vec<InformerEvent> {
        let told = self.last > Revision(0) || !self.known.is_empty();
        *self = Self::default();
        if told { vec![InformerEvent::Reset { reason: reason.to_owned() }] } else { Vec::new() }
    }

    /// The bucket does not exist.
    pub fn gone(&mut self) -> Vec<InformerEvent> {
        self.reset("the bucket is gone")
    }

    /// Why the bucket is another one than when `seen` was its last revision.
    fn regression(&self, info: &BucketInfo, seen: Revision) -> Option<&'static str> {
        if self.created.is_some_and(|created| created != info.created) {
            Some("the bucket was created anew")
        } else if info.last < seen {
            Some("the last revision went backwards")
        } else if info.messages == 0 && !self.known.is_empty() {
            Some("the bucket is empty")
        } else {
            None
        }
    }

    /// A watch is about to begin on a bucket in this state.
    pub fn begin(&mut self, info: &BucketInfo) -> Vec<InformerEvent> {
        // What the last watch left unfinished comes again: only what was told counts as seen.
        self.held.clear();
        self.listing = None;
        self.synced = false;
        self.behind = None;
        let events = match self.regression(info, self.last) {
            Some(reason) => self.reset(reason),
            None => Vec::new(),
        };
        self.created = Some(info.created);
        self.goal = info.last;
        events
    }

    /// The keys that were written last, `most` of them, with the revisions told.
    #[must_use]
    pub fn newest(&self, most: usize) -> Vec<(Key, Revision)> {
        let mut keys: Vec<(Key, Revision)> = self.known.iter().map(|(k, r)| (k.clone(), *r)).collect();
        keys.sort_by_key(|(_, revision)| std::cmp::Reverse(*revision));
        keys.truncate(most);
        keys
    }

    /// The bucket in this state holds an older write of a key than was told: it was rolled back, and has grown again
    /// past what had been seen.
    pub fn rolled_back(&mut self, info: &BucketInfo) -> Vec<InformerEvent> {
        let events = self.reset("a key's last revision went backwards");
        self.created = Some(info.created);
        self.goal = info.last;
        events
    }

    /// Where that watch should begin: with everything if that was asked for or if it never was done to the end.
    pub fn from(&mut self, whole: bool) -> WatchFrom {
        if whole || !self.listed {
            self.listing = Some(BTreeSet::new());
            WatchFrom::Everything
        } else {
            WatchFrom::After(self.last)
        }
    }

    /// Takes what a watch yields.
    pub fn take(&mut self, event: WatchEvent) -> Vec<InformerEvent> {
        match event {
            WatchEvent::Entry(entry) => self.entry(entry),
            WatchEvent::Foreign(revision) => {
                let mut events = self.flush();
                if !self.is_listing() {
                    events.extend(self.reach(revision));
                }
                events
            }
            WatchEvent::Synced => self.synced(),
            WatchEvent::Idle => self.flush(),
        }
    }

    fn entry(&mut self, entry: Entry) -> Vec<InformerEvent> {
        if let Some(seen) = &mut self.listing {
            seen.insert(entry.key.clone());
            if self.known.get(&entry.key).is_none_or(|known| *known < entry.revision) {
                self.held.push(entry);
            }
            return if self.held.len() >= LIST_CHUNK { self.flush() } else { Vec::new() };
        }
        if entry.revision <= self.last {
            return Vec::new();
        }
        if !self.synced {
            // Catching up: batches may have lost messages and nobody looks in between, so chunks will do.
            self.held.push(entry);
            return if self.held.len() >= LIST_CHUNK { self.flush() } else { Vec::new() };
        }
        let mut events = Vec::new();
        let of_other_batch = match (self.held.last().and_then(|e| e.batch.as_ref()), &entry.batch) {
            (Some(held), Some(batch)) => held.id != batch.id,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if of_other_batch {
            // The last message of the held batch has been overwritten already: this is all that is left of it.
            events.extend(self.flush());
        }
        let ends = entry.batch.as_ref().is_none_or(|batch| batch.last);
        self.held.push(entry);
        if ends {
            events.extend(self.flush());
        }
        events
    }

    /// Tells what is held.
    fn flush(&mut self) -> Vec<InformerEvent> {
        let entries = std::mem::take(&mut self.held);
        let Some(last) = entries.last().map(|e| e.revision) else { return Vec::new() };
        for entry in &entries {
            self.known.insert(entry.key.clone(), entry.revision);
        }
        if !self.is_listing() {
            self.last = self.last.max(last);
        }
        // While everything is read nothing is claimed beyond what had been seen before.
        vec![InformerEvent::Changes { entries, revision: self.last }]
    }

    /// Everything up to `revision` has been seen, though the last of it was nothing to tell.
    fn reach(&mut self, revision: Revision) -> Vec<InformerEvent> {
        if revision <= self.last {
            return Vec::new();
        }
        self.last = revision;
        vec![InformerEvent::Changes { entries: Vec::new(), revision }]
    }

    fn synced(&mut self) -> Vec<InformerEvent> {
        let mut reached = self.held.last().map_or(self.goal, |e| e.revision.max(self.goal));
        reached = reached.max(self.known.values().max().copied().unwrap_or_default());
        let mut events = self.flush();
        if let Some(seen) = self.listing.take() {
            let vanished: Vec<Key> = self.known.keys().filter(|k| !seen.contains(*k)).cloned().collect();
            for key in &vanished {
                self.known.remove(key);
            }
            if !vanished.is_empty() {
                events.push(InformerEvent::Vanished { keys: vanished });
            }
            self.listed = true;
        }
        events.extend(self.reach(reached));
        self.synced = true;
        events.push(InformerEvent::Synced);
        events
    }

    /// The bucket's state is being asked for.
    pub fn asked(&mut self) {
        self.asked = self.last;
    }

    /// Compares the bucket with what has been seen. Why the watch must not go on, if it must not.
    pub fn check(&mut self, info: &BucketInfo) -> Option<String> {
        if let Some(reason) = self.regression(info, self.asked) {
            return Some(reason.to_owned());
        }
        if !self.synced || info.last <= self.last {
            self.behind = None;
            return None;
        }
        // The watch may just be on its way. If it has not moved since the last check, it hangs.
        let before = self.behind.replace(self.last);
        (before == Some(self.last)).then(|| "the watch stays behind the bucket".to_owned())
    }
}

#[cfg(test)]
mod tests;
