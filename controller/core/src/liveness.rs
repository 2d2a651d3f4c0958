//! Liveness: from beats and canaries to phases, warm on every replica.
//!
//! Rules (DESIGN.md 3.6), each so that silence is never mistaken:
//! * Silence is judged only against a canary: a beat per NATS server, heard on the same subscription. While no canary
//!   is fresh this replica is blind and nothing is judged.
//! * After blindness, after a pause of this replica, after a dropped message and at start, silence counts anew, and
//!   only after two beats' time.
//! * A node whose own server's canary is stale, while another's is fresh, gets time to reconnect.
//! * A beat costs one look-up; who is due is found by a timing wheel, not by a scan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ostler_schemas::time::{Mono, Now, Timestamp};
use ostler_schemas::v1::beat::{BEAT_MS, Beat};
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::{Name, NodeName};

/// How long silence may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Then a node is Suspect. Two whole beats missed, with room for one late one.
    pub suspect_ms: u64,
    /// Then it is Lost.
    pub lost_ms: u64,
    /// A canary older than this is stale. Shorter than `suspect_ms`, so that blindness is noticed before anybody is
    /// suspected.
    pub canary_ms: u64,
    /// What a node of a dead server gets on top to reconnect: two beats without reply, jitter, and a handshake.
    pub reconnect_ms: u64,
    /// After blindness silence counts only from so much later: two beats.
    pub settle_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { suspect_ms: 3000, lost_ms: 4000, canary_ms: 2500, reconnect_ms: 4000, settle_ms: 2 * BEAT_MS }
    }
}

/// How often [`Liveness::tick`] must be called. A longer gap means that this replica was paused.
pub const TICK_MS: u64 = 250;
/// A gap between ticks from which on the replica counts as paused: four ticks, as scheduling delays on a loaded
/// machine stay below.
const PAUSE_MS: u64 = 4 * TICK_MS;

/// What this replica knows of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// Ready (beats come), Suspect, Lost (silent past the limit), or Unknown (this replica cannot tell).
    pub phase: NodePhase,
    /// When the last beat came, by this replica's wall clock; none if none was heard.
    pub heard: Option<Timestamp>,
    /// The last beat.
    pub beat: Option<Arc<Beat>>,
    /// The node's wall clock minus this replica's when the last beat came, in milliseconds.
    pub clock_offset: Option<i64>,
    /// Another instance beats under this name.
    pub duplicate: bool,
    /// Milliseconds of silence that count.
    pub silent_ms: u64,
}

/// Everything that this replica knows of liveness, as a value for the reconcilers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signals {
    /// By node; nodes that this replica was never told of are missing.
    pub nodes: BTreeMap<NodeName, Signal>,
    /// Whether nothing can be judged now, and why.
    pub blind: Option<String>,
}

impl Signals {
    /// The phase of a node as heard; Unknown for strangers and while blind.
    #[must_use]
    pub fn phase(&self, node: &NodeName) -> NodePhase {
        self.nodes.get(node).map_or(NodePhase::Unknown, |s| s.phase)
    }
}

/// What to answer a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// Another machine lives under this name: the newcomer must not act.
    Refused(String),
}

#[derive(Debug, Clone)]
struct Node {
    beat: Option<Arc<Beat>>,
    heard: Option<Now>,
    /// Silence counts from here: the last beat, or when this replica began to listen for the node.
    from: Mono,
    offset: Option<i64>,
    duplicate_until: Mono,
    /// The phase last told by [`Liveness::tick`].
    told: NodePhase,
    /// Whether the node had its holder, and its name for itself, when that was last told.
    told_whole: bool,
}

/// The state of one replica's ears.
#[derive(Debug, Clone)]
pub struct Liveness {
    limits: Limits,
    nodes: BTreeMap<NodeName, Node>,
    canaries: BTreeMap<Name, Mono>,
    /// Silence before this moment does not count.
    settled: Mono,
    /// Whether no canary was fresh at the last tick.
    blind: bool,
    last_tick: Mono,
    dropped: u64,
    connection: u64,
    wheel: BTreeMap<Mono, BTreeSet<NodeName>>,
}

impl Node {
    /// Whether nothing that beats show forbids work on it.
    fn is_whole(&self, now: Mono) -> bool {
        self.beat.as_ref().is_none_or(|b| b.holder) && now >= self.duplicate_until
    }
}

impl Liveness {
    /// Begins to listen at `now`.
    #[must_use]
    pub fn new(limits: Limits, now: Mono) -> Self {
        Self {
            limits,
            nodes: BTreeMap::new(),
            canaries: BTreeMap::new(),
            settled: now.plus_ms(limits.settle_ms),
            blind: true,
            last_tick: now,
            dropped: 0,
            connection: 0,
            wheel: BTreeMap::new(),
        }
    }

    /// Makes `nodes` the set of registered nodes: strangers are forgotten, new ones are listened for from now on.
    pub fn registered(&mut self, nodes: &BTreeSet<NodeName>, now: Mono) {
        self.nodes.retain(|name, _| nodes.contains(name));
        for name in nodes {
            if !self.nodes.contains_key(name) {
                self.insert(name.clone(), now);
            }
        }
    }

    fn insert(&mut self, name: NodeName, now: Mono) {
        let node = Node {
            beat: None,
            heard: None,
            from: now,
            offset: None,
            duplicate_until: Mono(0),
            told: NodePhase::Unknown,
            told_whole: true,
        };
        self.nodes.insert(name.clone(), node);
        self.schedule(name, now.plus_ms(self.limits.suspect_ms));
    }

    fn schedule(&mut self, name: NodeName, at: Mono) {
        let slot = Mono(at.0.div_ceil(TICK_MS) * TICK_MS);
        self.wheel.entry(slot).or_default().insert(name);
    }

    /// A canary's beat came through `server`.
    pub fn canary(&mut self, server: Name, now: Mono) {
        self.canaries.insert(server, now);
    }

    /// The connection's counters: a new connection or a dropped message means that beats may have been missed.
    pub fn link(&mut self, connection: u64, dropped: u64, now: Mono) {
        if connection != self.connection || dropped != self.dropped {
            self.connection = connection;
            self.dropped = dropped;
            self.unsettle(now);
        }
    }

    fn unsettle(&mut self, now: Mono) {
        self.settled = self.settled.max(now.plus_ms(self.limits.settle_ms));
    }

    /// A node's beat. Strangers are refused silently by the caller: they have no entry here.
    pub fn beat(&mut self, name: &NodeName, beat: Beat, now: Now) -> Verdict {
        let duplicate_ms = self.limits.lost_ms;
        let Some(node) = self.nodes.get_mut(name) else { return Verdict::Accepted };
        if let (Some(known), Some(heard)) = (&node.beat, node.heard) {
            let other_machine = known.machine != beat.machine;
            if other_machine && now.mono.since_ms(heard.mono) < duplicate_ms {
                node.duplicate_until = now.mono.plus_ms(duplicate_ms);
                let why = format!(
                    "another machine ({}) is alive as {name}; this one is {}",
                    known.machine, beat.machine
                );
                if node.told_whole {
                    self.schedule(name.clone(), now.mono);
                }
                return Verdict::Refused(why);
            }
            let stale = known.incarnation == beat.incarnation && beat.n <= known.n;
            if stale {
                return Verdict::Accepted;
            }
        }
        let ours = i64::try_from(now.wall.0).unwrap_or(i64::MAX);
        node.offset = i64::try_from(beat.wall).ok().map(|theirs| theirs.saturating_sub(ours));
        node.beat = Some(Arc::new(beat));
        node.heard = Some(now);
        node.from = now.mono;
        if node.is_whole(now.mono) != node.told_whole {
            self.schedule(name.clone(), now.mono);
        }
        Verdict::Accepted
    }

    /// Lets time pass. Returns the nodes to be judged anew, with their phase now: those whose phase changed, and those
    /// whose beats began or ceased to show something that forbids work.
    pub fn tick(&mut self, now: Mono) -> Vec<(NodeName, NodePhase)> {
        let gap = now.since_ms(self.last_tick);
        self.last_tick = now;
        let was_blind = self.blind;
        self.blind = !self.any_canary_fresh(now);
        if gap >= PAUSE_MS || (was_blind && !self.blind) {
            self.unsettle(now);
        }
        let mut due: BTreeSet<NodeName> = BTreeSet::new();
        if was_blind == self.blind && gap < PAUSE_MS {
            while let Some(entry) = self.wheel.first_entry() {
                if *entry.key() > now {
                    break;
                }
                due.extend(entry.remove());
            }
            due.extend(
                self.nodes.iter().filter(|(_, n)| n.told != NodePhase::Ready).map(|(name, _)| name.clone()),
            );
        } else {
            self.wheel.clear();
            due.extend(self.nodes.keys().cloned());
        }
        due.into_iter().filter_map(|name| self.look(name, now)).collect()
    }

    /// Looks at one node that is due, schedules the next look, and says if it is to be judged anew.
    fn look(&mut self, name: NodeName, now: Mono) -> Option<(NodeName, NodePhase)> {
        let phase = self.phase_of(self.nodes.get(&name)?, now);
        let node = self.nodes.get_mut(&name)?;
        let whole = node.is_whole(now);
        let changed = node.told != phase || node.told_whole != whole;
        node.told = phase;
        node.told_whole = whole;
        let next = match phase {
            NodePhase::Ready => {
                node.from.max(self.settled).plus_ms(self.limits.suspect_ms).max(now.plus_ms(TICK_MS))
            }
            NodePhase::NotReady | NodePhase::Suspect | NodePhase::Lost | NodePhase::Unknown => {
                now.plus_ms(TICK_MS)
            }
        };
        // A second machine that has fallen silent is no trouble any more.
        let next = if now < node.duplicate_until { next.min(node.duplicate_until) } else { next };
        self.schedule(name.clone(), next);
        changed.then_some((name, phase))
    }

    fn is_fresh(&self, server: &Name, now: Mono) -> bool {
        self.canaries.get(server).is_some_and(|at| now.since_ms(*at) <= self.limits.canary_ms)
    }

    fn any_canary_fresh(&self, now: Mono) -> bool {
        self.canaries.values().any(|at| now.since_ms(*at) <= self.limits.canary_ms)
    }

    fn silent_ms(&self, node: &Node, now: Mono) -> u64 {
        now.since_ms(node.from.max(self.settled))
    }

    fn phase_of(&self, node: &Node, now: Mono) -> NodePhase {
        let since_heard = node.heard.map(|h| now.since_ms(h.mono));
        if since_heard.is_some_and(|ms| ms < self.limits.suspect_ms) {
            return NodePhase::Ready;
        }
        if self.blind || !self.any_canary_fresh(now) {
            return NodePhase::Unknown;
        }
        let server = node.beat.as_ref().and_then(|b| b.server.as_ref());
        let orphaned = server.is_some_and(|s| self.canaries.contains_key(s) && !self.is_fresh(s, now));
        let extra = if orphaned { self.limits.reconnect_ms } else { 0 };
        let silent = self.silent_ms(node, now);
        if silent >= self.limits.lost_ms + extra {
            NodePhase::Lost
        } else if node.heard.is_none() || now < self.settled {
            NodePhase::Unknown
        } else {
            NodePhase::Suspect
        }
    }

    /// What is known of one node.
    #[must_use]
    pub fn signals_of(&self, name: &NodeName, now: Mono) -> Option<Signal> {
        self.nodes.get(name).map(|node| self.signal(node, now))
    }

    fn signal(&self, node: &Node, now: Mono) -> Signal {
        Signal {
            phase: self.phase_of(node, now),
            heard: node.heard.map(|h| h.wall),
            beat: node.beat.clone(),
            clock_offset: node.offset,
            duplicate: now < node.duplicate_until,
            silent_ms: self.silent_ms(node, now),
        }
    }

    /// Everything known, as a value.
    #[must_use]
    pub fn signals(&self, now: Mono) -> Signals {
        let blind = (self.blind || !self.any_canary_fresh(now)).then(|| match self.canaries.len() {
            0 => "no canary was heard yet".to_owned(),
            n => format!("none of {n} canaries was heard for {} ms", self.limits.canary_ms),
        });
        let nodes = self.nodes.iter().map(|(name, node)| (name.clone(), self.signal(node, now))).collect();
        Signals { nodes, blind }
    }
}

#[cfg(test)]
mod tests;
