//! What a Deployment does next with its processes: a pure function from counts and states to moves.
//!
//! Guarantees, by its own acts:
//! * it never makes more than `replicas + surge` processes that should run;
//! * it never ends a ready process when that leaves fewer than `replicas - unavailable` known to be ready, except when
//!   fewer are wanted or the strategy is `Recreate`;
//! * what is not known to be ready does not count as available, and is not taken for broken either.

use ostler_schemas::Uid;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::process::GoalReason;

/// How a process stands to the template in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Has it.
    Current,
    /// Can take it as it runs.
    InPlace,
    /// Must be replaced.
    Outdated,
}

/// Whether a process works, ordered by how little its end would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// It has no node.
    Unplaced,
    /// Its node says that it is not ready.
    NotReady,
    /// Its node has said nothing of it yet, or cannot be heard.
    Unknown,
    /// Its node says that it is ready.
    Ready,
}

/// A process whose goal is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub uid: Uid,
    /// How it stands to the template in force.
    pub fit: Fit,
    /// Whether it works.
    pub readiness: Readiness,
    /// When it was made.
    pub at: Timestamp,
    /// It failed for good and its owner is to replace it.
    pub replace: bool,
}

/// What the moves depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// So many are wanted.
    pub replicas: u32,
    /// So many more there may be.
    pub surge: u32,
    /// So many fewer may be ready.
    pub unavailable: u32,
    /// All old ones must have ended before a new one is made.
    pub recreate: bool,
    /// No version replaces another now.
    pub frozen: bool,
    /// So many may have the template in force: the waves so far. None means all.
    pub quota: Option<u32>,
    /// There is a version to make the others from.
    pub has_base: bool,
    /// Processes that should run.
    pub members: Vec<Member>,
    /// Outdated processes that were told to end and have not.
    pub ending_outdated: u32,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// Processes to end, and why.
    pub end: Vec<(Uid, GoalReason)>,
    /// Processes to give the template in force.
    pub adopt: Vec<Uid>,
    /// How many to make.
    pub create: u32,
    /// How many to make of the version before, which holds where no wave has come yet.
    pub create_base: u32,
}

impl Moves {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

/// The next moves.
#[must_use]
pub fn next_moves(situation: &Situation) -> Moves {
    let mut moves = Moves::default();
    let mut members = situation.members.clone();
    end_where(&mut members, &mut moves, GoalReason::Failed, |m| m.replace);
    let quota = situation.quota.map_or(situation.replicas, |quota| quota.min(situation.replicas));
    if situation.frozen {
        end_excess(&mut members, &mut moves, situation.replicas);
        let current = members.iter().filter(|m| m.fit == Fit::Current).count();
        let missing = situation.replicas.saturating_sub(count(&members));
        let wanted = if situation.quota.is_some() {
            quota.saturating_sub(u32::try_from(current).unwrap_or(u32::MAX))
        } else {
            missing
        };
        make(&mut moves, situation, (wanted, missing), missing);
        return moves;
    }
    let (mut old, mut new) = by_version(members, quota);
    end_excess(&mut new, &mut moves, situation.replicas);
    moves.adopt = new.iter().filter(|m| m.fit == Fit::InPlace).map(|m| m.uid).collect();
    // So many keep what they have until their wave comes.
    let keep = situation.replicas.saturating_sub(quota.max(count(&new)));
    if situation.recreate {
        by_cost(&mut old);
        let spare = usize::try_from(count(&old).saturating_sub(keep)).unwrap_or(0);
        moves.end.extend(old.drain(..spare).map(|m| (m.uid, GoalReason::Rollout)));
        let all_ended = situation.ending_outdated == 0 && !ends_any_outdated(situation, &moves);
        let wanted = if all_ended { quota.saturating_sub(count(&new)) } else { 0 };
        let missing = if all_ended { keep.saturating_sub(count(&old)) } else { 0 };
        make(&mut moves, situation, (wanted, missing), situation.replicas);
        return moves;
    }
    end_old(&mut old, &new, situation, (keep, &mut moves));
    let most = situation.replicas.saturating_add(situation.surge);
    let room = most.saturating_sub(count(&new) + count(&old));
    let wanted = (quota.saturating_sub(count(&new)), keep.saturating_sub(count(&old)));
    make(&mut moves, situation, wanted, room);
    moves
}

/// Makes what is wanted of the version in force, and of the one before, as far as there is room.
fn make(moves: &mut Moves, situation: &Situation, (new, base): (u32, u32), room: u32) {
    moves.create = new.min(room);
    if situation.has_base {
        moves.create_base = base.min(room - moves.create);
    }
}

/// Those that have the version in force or take it as they run, as many as may have it, and the others.
fn by_version(members: Vec<Member>, quota: u32) -> (Vec<Member>, Vec<Member>) {
    let current = members.iter().filter(|m| m.fit == Fit::Current).count();
    let mut may_adopt = usize::try_from(quota).unwrap_or(usize::MAX).saturating_sub(current);
    members.into_iter().partition(|m| match m.fit {
        Fit::Current => false,
        Fit::Outdated => true,
        Fit::InPlace => {
            let waits = may_adopt == 0;
            may_adopt = may_adopt.saturating_sub(1);
            waits
        }
    })
}

fn count(members: &[Member]) -> u32 {
    u32::try_from(members.len()).unwrap_or(u32::MAX)
}

fn ends_any_outdated(situation: &Situation, moves: &Moves) -> bool {
    let ended = |m: &&Member| moves.end.iter().any(|(uid, _)| *uid == m.uid);
    situation
        .members
        .iter()
        .filter(|m| m.fit == Fit::Outdated && m.readiness != Readiness::Unplaced)
        .any(|m| ended(&m))
}

fn end_where(
    members: &mut Vec<Member>,
    moves: &mut Moves,
    reason: GoalReason,
    which: impl Fn(&Member) -> bool,
) {
    moves.end.extend(members.iter().filter(|m| which(m)).map(|m| (m.uid, reason)));
    members.retain(|m| !which(m));
}

/// Those that go first when there are too many: what works least, then the youngest, then by uid.
fn by_cost(members: &mut [Member]) {
    members.sort_by(|a, b| a.readiness.cmp(&b.readiness).then(b.at.cmp(&a.at)).then(a.uid.cmp(&b.uid)));
}

fn end_excess(members: &mut Vec<Member>, moves: &mut Moves, most: u32) {
    by_cost(members);
    let excess = usize::try_from(count(members).saturating_sub(most)).unwrap_or(0);
    moves.end.extend(members.drain(..excess).map(|m| (m.uid, GoalReason::Scale)));
}

/// Ends outdated ones but for so many that keep what they have: those that do not work at once, the others as far as
/// enough are known to be ready without them.
fn end_old(old: &mut Vec<Member>, new: &[Member], situation: &Situation, (keep, moves): (u32, &mut Moves)) {
    by_cost(old);
    let mut spare = count(old).saturating_sub(keep);
    let is_ready = |m: &&Member| m.readiness == Readiness::Ready;
    let ready = old.iter().filter(is_ready).count() + new.iter().filter(is_ready).count();
    let least =
        usize::try_from(situation.replicas.saturating_sub(situation.unavailable)).unwrap_or(usize::MAX);
    let mut budget = ready.saturating_sub(least);
    let mut kept = Vec::new();
    for member in old.drain(..) {
        let ends = spare > 0
            && match member.readiness {
                Readiness::Unplaced | Readiness::NotReady => true,
                Readiness::Unknown => ready >= least,
                Readiness::Ready => {
                    let may = budget > 0;
                    budget = budget.saturating_sub(1);
                    may
                }
            };
        if ends {
            spare -= 1;
            moves.end.push((member.uid, GoalReason::Rollout));
        } else {
            kept.push(member);
        }
    }
    *old = kept;
}

#[cfg(test)]
mod tests;
