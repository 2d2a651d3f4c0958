//! Which object to look at next: deduplicated, delayed, rate-limited by backoff, never one object twice at once.
//!
//! An object that is marked while it is being looked at is looked at again afterwards. A failure delays the object by
//! an exponential backoff with jitter; a success forgets its failures. An object whose look took long rests before the
//! next one, however often it is marked: a look at a rollout goes over all its nodes, and ten thousand nodes report one
//! by one. Pure: time and jitter are arguments.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::time::Mono;

/// The first delay after a failure. Conflicts are usually over as soon as the snapshot has caught up.
const BACKOFF_FIRST_MS: u64 = 20;
/// The longest delay after failures: what a slow resync costs at most.
const BACKOFF_MAX_MS: u64 = 15_000;

/// A look that takes less is not worth a rest.
const LONG_MS: u64 = 2;
/// An object rests so many times as long as its look took: looks at it take half a core at most. More rest was tried:
/// with three times as long, a thousand processes of one Deployment were started a tenth later.
const REST: u64 = 1;
/// And never longer than this: whoever waits for a rollout hardly sees it.
const REST_MAX_MS: u64 = 250;

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
    /// The same, soonest first.
    due: BTreeSet<(Mono, K)>,
    failures: BTreeMap<K, u32>,
    /// Until when objects rest whose last look took long.
    resting: BTreeMap<K, Mono>,
}

impl<K> Default for WorkQueue<K> {
    fn default() -> Self {
        Self {
            ready: BTreeSet::new(),
            running: BTreeSet::new(),
            again: BTreeSet::new(),
            delayed: BTreeMap::new(),
            due: BTreeSet::new(),
            failures: BTreeMap::new(),
            resting: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// Marks an object to be looked at now, or as soon as it has rested.
    pub fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if !self.failures.contains_key(&key) || !self.delayed.contains_key(&key) {
            self.make_ready(key);
        }
    }

    fn make_ready(&mut self, key: K) {
        match self.resting.get(&key).copied() {
            Some(until) => self.add_at(key, until),
            None => {
                self.undelay(&key);
                self.ready.insert(key);
            }
        }
    }

    fn undelay(&mut self, key: &K) {
        if let Some(at) = self.delayed.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    fn delay(&mut self, key: K, at: Mono) {
        self.undelay(&key);
        self.due.insert((at, key.clone()));
        self.delayed.insert(key, at);
    }

    /// The look that is under way took so long, until now: the object rests.
    pub fn took(&mut self, key: &K, ms: u64, now: Mono) {
        if ms >= LONG_MS {
            self.resting.insert(key.clone(), now.plus_ms((ms * REST).min(REST_MAX_MS)));
        }
    }

    /// Marks an object to be looked at at `at`, if not earlier.
    pub fn add_at(&mut self, key: K, at: Mono) {
        if self.ready.contains(&key) {
            return;
        }
        if self.delayed.get(&key).is_none_or(|known| at < *known) {
            self.delay(key, at);
        }
    }

    /// The next object to look at; it is running until [`WorkQueue::done`].
    pub fn take(&mut self, now: Mono) -> Option<K> {
        self.resting.retain(|_, until| *until > now);
        let running = &self.running;
        let is_due = |(at, key): &&(Mono, K)| *at <= now && !running.contains(key);
        let due: Vec<K> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .filter(is_due)
            .map(|(_, key)| key.clone())
            .collect();
        for key in due {
            self.undelay(&key);
            self.ready.insert(key);
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
                    self.make_ready(key.clone());
                }
            }
            Done::Failed => {
                let count = self.failures.entry(key.clone()).or_insert(0);
                let delay = (BACKOFF_FIRST_MS << (*count).min(12)).min(BACKOFF_MAX_MS);
                *count = count.saturating_add(1);
                let delay = delay / 2 + jitter % (delay / 2 + 1);
                self.delay(key.clone(), now.plus_ms(delay));
            }
        }
    }

    /// When the next delayed object is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        self.due.iter().find(|(_, key)| !self.running.contains(key)).map(|(at, _)| *at)
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
    fn who_took_long_rests_however_often_it_is_marked() {
        let mut queue = WorkQueue::default();
        queue.add("a");
        queue.take(Mono(0));
        queue.took(&"a", 20, Mono(20));
        queue.add("a");
        queue.done(&"a", Done::Well, Mono(20), 0);
        queue.add("a");
        assert_eq!((queue.take(Mono(39)), queue.next_due()), (None, Some(Mono(40))));
        assert_eq!(queue.take(Mono(40)), Some("a"));
        queue.took(&"a", 1, Mono(81));
        queue.done(&"a", Done::Well, Mono(81), 0);
        queue.add("a");
        assert_eq!(queue.take(Mono(81)), Some("a"), "a short look needs no rest");
        queue.took(&"a", 10_000, Mono(10_081));
        queue.done(&"a", Done::Well, Mono(10_081), 0);
        queue.add("a");
        assert_eq!(queue.next_due(), Some(Mono(10_081 + REST_MAX_MS)));
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
