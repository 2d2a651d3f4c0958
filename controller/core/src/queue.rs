//! Which object to look at next: deduplicated, delayed, rate-limited by backoff, never one object twice at once.
//!
//! An object that is marked while it is being looked at is looked at again afterwards. A failure delays the object by
//! an exponential backoff with jitter; a success forgets its failures. Pure: time and jitter are arguments.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::time::Mono;

/// The first delay after a failure. Conflicts are usually over as soon as the snapshot has caught up.
const BACKOFF_FIRST_MS: u64 = 20;
/// The longest delay after failures: what a slow resync costs at most.
const BACKOFF_MAX_MS: u64 = 15_000;

/// How a look at an object ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// What was planned is done, or there was nothing to do.
    Well,
    /// It must be tried again.
    Failed,
}

/// The queue of one reconciler.
#[derive(Debug, Clone)]
pub struct WorkQueue<K> {
    ready: BTreeSet<K>,
    running: BTreeSet<K>,
    again: BTreeSet<K>,
    delayed: BTreeMap<K, Mono>,
    failures: BTreeMap<K, u32>,
}

impl<K> Default for WorkQueue<K> {
    fn default() -> Self {
        Self {
            ready: BTreeSet::new(),
            running: BTreeSet::new(),
            again: BTreeSet::new(),
            delayed: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// Marks an object to be looked at now.
    pub fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if !self.failures.contains_key(&key) || !self.delayed.contains_key(&key) {
            self.delayed.remove(&key);
            self.ready.insert(key);
        }
    }

    /// Marks an object to be looked at at `at`, if not earlier.
    pub fn add_at(&mut self, key: K, at: Mono) {
        if self.ready.contains(&key) {
            return;
        }
        let due = self.delayed.entry(key).or_insert(at);
        *due = (*due).min(at);
    }

    /// The next object to look at; it is running until [`WorkQueue::done`].
    pub fn take(&mut self, now: Mono) -> Option<K> {
        let due: Vec<K> = self.delayed.iter().filter(|(_, at)| **at <= now).map(|(k, _)| k.clone()).collect();
        for key in due {
            if !self.running.contains(&key) {
                self.delayed.remove(&key);
                self.ready.insert(key);
            }
        }
        let key = self.ready.pop_first()?;
        self.running.insert(key.clone());
        Some(key)
    }

    /// A look has ended. `jitter` is a random number; it spreads retries over half their delay.
    pub fn done(&mut self, key: &K, how: Done, now: Mono, jitter: u64) {
        self.running.remove(key);
        let again = self.again.remove(key);
        match how {
            Done::Well => {
                self.failures.remove(key);
                if again {
                    self.ready.insert(key.clone());
                }
            }
            Done::Failed => {
                let count = self.failures.entry(key.clone()).or_insert(0);
                let delay = (BACKOFF_FIRST_MS << (*count).min(12)).min(BACKOFF_MAX_MS);
                *count = count.saturating_add(1);
                let delay = delay / 2 + jitter % (delay / 2 + 1);
                self.delayed.insert(key.clone(), now.plus_ms(delay));
            }
        }
    }

    /// When the next delayed object is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        self.delayed.iter().filter(|(k, _)| !self.running.contains(*k)).map(|(_, at)| *at).min()
    }

    /// Objects that wait or run.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.ready.len() + self.running.len()
    }

    /// Forgets everything: this replica leads no more.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_is_never_looked_at_twice_at_once() {
        let mut queue = WorkQueue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take(Mono(0)), Some("a"));
        queue.add("a");
        assert_eq!(queue.take(Mono(0)), None);
        queue.done(&"a", Done::Well, Mono(0), 0);
        assert_eq!(queue.take(Mono(0)), Some("a"), "marked while running: again");
        queue.done(&"a", Done::Well, Mono(0), 0);
        assert_eq!(queue.take(Mono(0)), None);
    }

    #[test]
    fn failures_wait_longer_and_longer_and_changes_do_not_shorten_it() {
        let mut queue = WorkQueue::default();
        let mut waits = Vec::new();
        let mut now = Mono(0);
        queue.add("a");
        for _ in 0..12 {
            assert_eq!(queue.take(now), Some("a"));
            queue.done(&"a", Done::Failed, now, u64::MAX - 7);
            queue.add("a");
            assert_eq!(queue.take(now), None);
            let due = queue.next_due().expect("delayed");
            waits.push(due.since_ms(now));
            now = due;
        }
        assert!(waits.windows(2).all(|w| w[0] <= w[1] * 2), "{waits:?}");
        assert!(waits[11] <= BACKOFF_MAX_MS && waits[11] >= BACKOFF_MAX_MS / 2, "{waits:?}");
        queue.take(now);
        queue.done(&"a", Done::Well, now, 0);
        queue.add("a");
        assert_eq!(queue.take(now), Some("a"));
    }

    #[test]
    fn the_earliest_time_wins() {
        let mut queue = WorkQueue::default();
        queue.add_at("a", Mono(100));
        queue.add_at("a", Mono(50));
        queue.add_at("a", Mono(200));
        assert_eq!(queue.take(Mono(49)), None);
        assert_eq!(queue.next_due(), Some(Mono(50)));
        assert_eq!(queue.take(Mono(50)), Some("a"));
    }
}
