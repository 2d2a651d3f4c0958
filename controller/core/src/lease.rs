//! Leadership as a sans-IO machine: who leads which controller, without TTLs and without wall clocks (DESIGN.md 3.5).
//!
//! The leader sends a beacon every [`BEACON_MS`] and renews its leases every [`RENEW_MS`] by guarded writes. A
//! candidate that sees neither advance for [`PATIENCE_MS`] on its own monotonic clock, while its own connection was
//! healthy, takes lease, fence and term in one batch. Two replicas may *believe* that they lead; that is safe, because
//! every write of a leader is guarded on its term and every agent checks epochs.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::time::Mono;
use ostler_schemas::v1::epoch::{Beacon, Lease};
use ostler_schemas::{ControllerName, ReplicaId, Revision};

/// From one beacon to the next.
pub const BEACON_MS: u64 = 250;
/// From one renewal to the next.
pub const RENEW_MS: u64 = 1000;
/// Without an advance for so long the leader is taken for dead: eight beacons, two renewals.
pub const PATIENCE_MS: u64 = 2000;
/// The own connection counts as healthy while the last own beacon that came back is younger: three beacons.
const HEALTHY_MS: u64 = 3 * BEACON_MS;
/// A displaced replica may not stand for so long, doubling with each time, up to [`BAN_MAX_MS`].
const BAN_FIRST_MS: u64 = 10_000;
/// See [`BAN_FIRST_MS`].
const BAN_MAX_MS: u64 = 300_000;
/// After so long without being displaced the doubling begins anew.
const BAN_FORGET_MS: u64 = 600_000;

/// What the replica should do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acts {
    /// Send a beacon with this body.
    pub beacon: Option<Beacon>,
    /// Write these leases again, in one batch, guarded on these revisions.
    pub renew: Vec<(ControllerName, Lease, Revision)>,
    /// Take over these controllers.
    pub stand: Vec<ControllerName>,
}

/// A controller that this replica leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leading {
    /// Revision of the term record: the fencing token of everything it writes.
    pub term: Revision,
    /// Drawn at takeover.
    pub nonce: u32,
    /// Revision of the lease as last renewed.
    pub lease: Revision,
    /// The lease's counter.
    pub n: u64,
}

#[derive(Debug, Clone)]
struct Watched {
    lease: Lease,
    advanced: Mono,
}

/// The machine of one replica.
#[derive(Debug, Clone)]
pub struct Leadership {
    replica: ReplicaId,
    watched: BTreeMap<ControllerName, Watched>,
    leading: BTreeMap<ControllerName, Leading>,
    /// Takeovers on their way; nothing else is decided about these controllers meanwhile.
    standing: BTreeSet<ControllerName>,
    renewing: bool,
    beacon_n: u64,
    beacon_due: Mono,
    renew_due: Mono,
    own_heard: Option<Mono>,
    /// Silence before this moment does not count.
    since: Mono,
    last_tick: Mono,
    synced: bool,
    retiring: bool,
    banned_until: Mono,
    ban_ms: u64,
    displaced_at: Option<Mono>,
}

impl Leadership {
    /// A replica that leads nothing yet.
    #[must_use]
    pub fn new(replica: ReplicaId, now: Mono) -> Self {
        Self {
            replica,
            watched: BTreeMap::new(),
            leading: BTreeMap::new(),
            standing: BTreeSet::new(),
            renewing: false,
            beacon_n: 0,
            beacon_due: now,
            renew_due: now,
            own_heard: None,
            since: now,
            last_tick: now,
            synced: false,
            retiring: false,
            banned_until: Mono(0),
            ban_ms: BAN_FIRST_MS,
            displaced_at: None,
        }
    }

    /// The snapshot holds everything (or, after a reset, no longer does).
    pub fn synced(&mut self, synced: bool) {
        self.synced = synced;
    }

    /// What the replica leads.
    #[must_use]
    pub fn leading(&self) -> &BTreeMap<ControllerName, Leading> {
        &self.leading
    }

    /// The store shows this lease; none = it was never written.
    pub fn saw_lease(&mut self, c: ControllerName, lease: Option<&Lease>, now: Mono) {
        let seen = lease.cloned().unwrap_or(Lease { replica: None, n: 0 });
        match self.watched.get_mut(&c) {
            Some(watched) if watched.lease == seen => {}
            Some(watched) => *watched = Watched { lease: seen, advanced: now },
            None => {
                self.watched.insert(c, Watched { lease: seen, advanced: now });
            }
        }
    }

    /// The store shows this term revision. Another one than ours means that we were displaced.
    pub fn saw_term(&mut self, c: ControllerName, term: Revision, now: Mono) {
        if self.leading.get(&c).is_some_and(|l| l.term < term) && !self.standing.contains(&c) {
            self.displaced(c, now);
        }
    }

    /// A beacon came.
    pub fn heard(&mut self, beacon: &Beacon, now: Mono) {
        if beacon.replica == self.replica {
            self.own_heard = Some(now);
            return;
        }
        for c in &beacon.leads {
            if let Some(watched) = self.watched.get_mut(c)
                && watched.lease.replica.as_ref() == Some(&beacon.replica)
            {
                watched.advanced = now;
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Mono) -> Acts {
        let paused = now.since_ms(self.last_tick) > HEALTHY_MS;
        self.last_tick = now;
        let healthy = self.own_heard.is_some_and(|at| now.since_ms(at) <= HEALTHY_MS);
        if paused || !healthy {
            self.since = now;
        }
        let mut acts = Acts::default();
        if now >= self.beacon_due {
            self.beacon_due = now.plus_ms(BEACON_MS);
            self.beacon_n += 1;
            let leads = self.leading.keys().copied().collect();
            acts.beacon = Some(Beacon { replica: self.replica.clone(), n: self.beacon_n, leads });
        }
        if self.retiring {
            return acts;
        }
        if now >= self.renew_due && !self.leading.is_empty() && !self.renewing {
            self.renew_due = now.plus_ms(RENEW_MS);
            self.renewing = true;
            acts.renew = self.renewals();
        }
        if self.synced && healthy && !paused {
            acts.stand = self.candidates(now);
            self.standing.extend(acts.stand.iter().copied());
        }
        acts
    }

    fn renewals(&self) -> Vec<(ControllerName, Lease, Revision)> {
        let lease = |l: &Leading| Lease { replica: Some(self.replica.clone()), n: l.n + 1 };
        self.leading.iter().map(|(c, l)| (*c, lease(l), l.lease)).collect()
    }

    fn candidates(&self, now: Mono) -> Vec<ControllerName> {
        let stands = |c: &ControllerName| {
            if self.leading.contains_key(c) || self.standing.contains(c) {
                return false;
            }
            match self.watched.get(c) {
                None => false,
                Some(watched) => match &watched.lease.replica {
                    // Succession after a give-back is never delayed.
                    None => true,
                    // A predecessor of the same name is this replica before its restart: nobody else will renew it.
                    Some(replica) if *replica == self.replica => true,
                    Some(_) => {
                        now >= self.banned_until
                            && now.since_ms(watched.advanced.max(self.since)) >= PATIENCE_MS
                    }
                },
            }
        };
        ControllerName::ALL.into_iter().filter(stands).collect()
    }

    /// A takeover took effect.
    pub fn took(&mut self, c: ControllerName, leading: Leading) {
        self.standing.remove(&c);
        self.leading.insert(c, leading);
    }

    /// A takeover did not take effect: somebody was faster, or the store did not take it.
    pub fn not_taken(&mut self, c: ControllerName, now: Mono) {
        self.standing.remove(&c);
        if let Some(watched) = self.watched.get_mut(&c)
            && watched.lease.replica.is_some()
        {
            watched.advanced = now;
        }
    }

    /// The renewal batch took effect; the revision of each lease.
    pub fn renewed(&mut self, revisions: &BTreeMap<ControllerName, Revision>) {
        self.renewing = false;
        for (c, revision) in revisions {
            if let Some(leading) = self.leading.get_mut(c) {
                leading.lease = *revision;
                leading.n += 1;
            }
        }
    }

    /// The renewal batch was not answered, or the store could not take it: it is tried again at the next due time.
    pub fn not_renewed(&mut self) {
        self.renewing = false;
    }

    /// The renewal batch met a conflict: these leases show another writer in the store.
    pub fn lost(&mut self, lost: &[ControllerName], now: Mono) {
        self.renewing = false;
        for c in lost {
            if self.leading.contains_key(c) {
                self.displaced(*c, now);
            }
        }
    }

    /// Displaced while still renewing: a duel. Stays back for a while, longer each time.
    fn displaced(&mut self, c: ControllerName, now: Mono) {
        self.leading.remove(&c);
        match self.displaced_at {
            Some(at) if now.since_ms(at) < BAN_FIRST_MS / 10 => {}
            Some(at) if now.since_ms(at) < BAN_FORGET_MS => self.ban_ms = (self.ban_ms * 2).min(BAN_MAX_MS),
            Some(_) | None => self.ban_ms = BAN_FIRST_MS,
        }
        self.displaced_at = Some(now);
        self.banned_until = now.plus_ms(self.ban_ms);
    }

    /// SIGTERM: what to write so that others succeed at once. Nothing is taken or renewed any more.
    pub fn retire(&mut self) -> Vec<(ControllerName, Lease, Revision)> {
        self.retiring = true;
        let free = |l: &Leading| Lease { replica: None, n: l.n + 1 };
        self.leading.iter().map(|(c, l)| (*c, free(l), l.lease)).collect()
    }
}

#[cfg(test)]
mod tests;
