//! Which nodes a wave reaches, and how many of them are in action at one time.
//!
//! Every node has a place in an order ([`rank`]): a hash of object, version and node, and before it one of its group
//! where waves must not mix groups. A wave is everything up to a place, so what is kept of it is one place and not a
//! list; nodes that come later have their places too and are in a wave that has passed, or not yet. Hashes draw
//! another first node for each version, so that no host is always the one that things are tried on.

use std::collections::BTreeSet;

use ostler_schemas::hash::sha256;
use ostler_schemas::spec::Rollout;
use ostler_schemas::v1::state::{Rank, RolloutState};
use ostler_schemas::{NodeName, Uid, Version};

/// Where a node stands in the order of an object's nodes. `group` is none without groups, and empty for nodes that do
/// not have the label.
#[must_use]
pub fn rank(uid: &Uid, seed: Version, group: Option<&str>, node: &NodeName) -> Rank {
    let place = |what: &str| {
        let digest = sha256(format!("{uid} {seed} {what}").as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        u64::from_be_bytes(first)
    };
    // A slash is in no name of a node, so a group is never taken for one.
    Rank { g: group.map_or(0, |group| place(&format!("/{group}"))), n: place(node.as_str()) }
}

/// Where a wave ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaveEnd {
    /// The last place in it.
    pub rank: Rank,
    /// How many are in it and the waves before, by now.
    pub size: u32,
}

/// The waves of a rollout as they would be if they started now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// Number of the first of them.
    pub first: u32,
    /// Where they end, in their order; never none.
    pub ends: Vec<WaveEnd>,
    /// How many the waves so far have reached.
    pub reached: u32,
    /// There are some, and none of them can be asked.
    unheard: bool,
}

impl Course {
    /// Of nodes: `ranks` are the places of those that beat, in order; `all` is how many there are.
    #[must_use]
    pub fn of_nodes(rules: &Rollout, ranks: &[Rank], all: usize, state: &RolloutState) -> Self {
        let total = count(ranks.len());
        let within = |end: Option<Rank>| {
            count(ranks.iter().filter(|rank| end.is_some_and(|end| **rank <= end)).count())
        };
        let reached = if state.wave > 1 { within(state.wave_end) } else { 0 };
        // Groups come and go between waves; so those that were passed have no number any more, and those to come are
        // numbered on from the present one.
        let (first, sizes) = match &rules.group_by {
            None => (1, rules.waves.iter().map(|wave| wave.round_up(total).min(total)).collect()),
            Some(_) => (state.wave.max(1), grouped(rules, ranks, reached)),
        };
        let mut ends: Vec<WaveEnd> =
            sizes.iter().map(|size| WaveEnd { rank: at(ranks, *size), size: *size }).collect();
        // Whoever is in no wave before is in the last one, wherever it stands and whenever it comes.
        match ends.last_mut() {
            Some(last) => *last = WaveEnd { rank: Rank::LAST, size: total },
            None => ends.push(WaveEnd { rank: Rank::LAST, size: total }),
        }
        Self { first, ends, reached, unheard: ranks.is_empty() && all > 0 }
    }

    /// Of replicas, of which only the number counts.
    #[must_use]
    pub fn of_replicas(rules: &Rollout, replicas: u32, state: &RolloutState) -> Self {
        let end = |size: u32| WaveEnd { rank: Rank::LAST, size: size.min(replicas) };
        let mut ends: Vec<WaveEnd> = rules.waves.iter().map(|wave| end(wave.round_up(replicas))).collect();
        if ends.is_empty() {
            ends.push(end(replicas));
        }
        let before = usize::try_from(state.wave).unwrap_or(usize::MAX).checked_sub(2);
        let reached = before.and_then(|before| ends.get(before)).map_or(0, |end| end.size);
        Self { first: 1, ends, reached, unheard: false }
    }

    /// Number of the last of them.
    #[must_use]
    pub fn last_number(&self) -> u32 {
        self.first + count(self.ends.len()).saturating_sub(1)
    }

    /// Whether nobody is there who could take the version, though there should be.
    #[must_use]
    pub const fn is_unheard(&self) -> bool {
        self.unheard
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The place of the last of so many.
fn at(ranks: &[Rank], size: u32) -> Rank {
    let index = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(1);
    ranks.get(index).copied().unwrap_or(Rank { g: 0, n: 0 })
}

/// The ends of waves that never mix groups: those that the rules ask for, and one at the end of each group.
fn grouped(rules: &Rollout, ranks: &[Rank], reached: u32) -> Vec<u32> {
    let total = count(ranks.len());
    let asked = rules.waves.iter().map(|wave| wave.round_up(total).min(total));
    let groups = (1..).zip(ranks.windows(2)).filter(|(_, pair)| pair[0].g != pair[1].g).map(|(size, _)| size);
    let mut sizes: BTreeSet<u32> = asked.chain(groups).filter(|size| *size > reached).collect();
    sizes.insert(total);
    sizes.into_iter().collect()
}

/// How a node stands to the version that is coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Was not told, and does not have it.
    Untouched,
    /// Was told and is at it, or has failed with it.
    Busy,
    /// Has it and is well.
    Holds,
    /// Cannot be asked; it costs nothing to tell it.
    Offline,
}

/// How far the version may spread now: so far that no more than `most` are busy at one time. `members` are the nodes of
/// the object in order.
#[must_use]
pub fn extend(spread: Option<Rank>, end: Rank, members: &[(Rank, Stand)], most: u32) -> Option<Rank> {
    let busy = members.iter().filter(|(_, stand)| *stand == Stand::Busy).count();
    let mut room = most.max(1).saturating_sub(count(busy));
    let mut reached = spread;
    let ahead = members.iter().filter(|(rank, _)| spread.is_none_or(|spread| *rank > spread) && *rank <= end);
    for (rank, stand) in ahead {
        match stand {
            Stand::Holds | Stand::Offline | Stand::Busy => {}
            Stand::Untouched if room > 0 => room -= 1,
            Stand::Untouched => return reached,
        }
        reached = Some(*rank);
    }
    Some(end)
}

/// Whether a place has been reached.
#[must_use]
pub fn is_reached(rank: Rank, spread: Option<Rank>) -> bool {
    spread.is_some_and(|spread| rank <= spread)
}
