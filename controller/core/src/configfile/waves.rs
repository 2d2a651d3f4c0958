//! The nodes of a ConfigFile in the waves of its rollout: which version each is to hold now, how far a version may
//! spread, and what is to be seen of it.
//!
//! Guarantees: a node beyond the spread of a version on its way keeps what it has, and one that has nothing takes the
//! last good version; a version that was left by a rollback stays nowhere; nodes that cannot be asked are counted
//! apart. A node goes back at once when it has failed with the version that is left, for it is out of service already;
//! the others go back as they came, so many at a time.

use ostler_schemas::spec::{ConfigFileSpec, Rollout};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::document::FileGoal;
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{FileEffect, FileReport, FileState};
use ostler_schemas::v1::state::{Rank, RolloutHold, RolloutPhase, RolloutState};
use ostler_schemas::{NodeName, Uid, Version};

use crate::fleet::Fleet;
use crate::rollout::spread::{self, Course, Stand};
use crate::rollout::{self, Sight, Turn};

use super::{nodes_of, rules_of_version};

/// The version that a node is to hold by now; none where it is to hold nothing yet. `spec` is the object's.
#[must_use]
pub fn version_on(
    fleet: &Fleet,
    object: &Object,
    spec: &ConfigFileSpec,
    state: &RolloutState,
    node: &NodeName,
) -> Option<Version> {
    let target = Some(state.target);
    if rollout::is_over(state.phase) {
        return target;
    }
    let uid = object.metadata.uid;
    let told = told(fleet, &uid, node).map(|(version, _)| version);
    // What was told once is not taken back because labels have changed.
    if told == target {
        return target;
    }
    let reached = || is_reached(fleet, object, spec, state, node);
    let base = Some(state.last_good).filter(|good| *good > Version(0));
    let kept = || told.filter(|told| *told != state.bad || base.is_none()).or(base);
    match state.phase {
        RolloutPhase::RollingBack => match told {
            Some(told) if !reached() && !has_failed(fleet, &uid, node, told) => Some(told),
            Some(_) | None => target,
        },
        RolloutPhase::Paused if state.hold == Some(RolloutHold::Failure) => kept(),
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::Paused
        | RolloutPhase::Failed
        | RolloutPhase::Complete
        | RolloutPhase::RolledBack => {
            if reached() {
                target
            } else {
                kept()
            }
        }
        RolloutPhase::Unknown => kept(),
    }
}

/// How many nodes each wave of these rules ends with, if the object's version started now.
#[must_use]
pub fn sizes(fleet: &Fleet, object: &Object, rules: &Rollout) -> Vec<u32> {
    let state = RolloutState { seed: object.metadata.version, ..RolloutState::default() };
    let course = Field::of(fleet, object, rules, &state).course(&state);
    course.ends.iter().map(|end| end.size).collect()
}

fn is_reached(
    fleet: &Fleet,
    object: &Object,
    spec: &ConfigFileSpec,
    state: &RolloutState,
    node: &NodeName,
) -> bool {
    match state.spread {
        None => false,
        Some(Rank::LAST) => true,
        Some(_) => {
            let rules = rules_of_version(fleet, object, spec, state.target);
            spread::is_reached(place(fleet, object, rules, state, node), state.spread)
        }
    }
}

fn place(fleet: &Fleet, object: &Object, rules: &Rollout, state: &RolloutState, node: &NodeName) -> Rank {
    let group =
        rules.group_by.as_ref().map(|key| fleet.node_labels(node).get(key).cloned().unwrap_or_default());
    spread::rank(&object.metadata.uid, state.seed, group.as_deref(), node)
}

/// The version that the node's document asks it to hold, and since when.
pub(super) fn told(fleet: &Fleet, uid: &Uid, node: &NodeName) -> Option<(Version, Timestamp)> {
    let document = fleet.files_documents.get(node)?;
    let entry = document.entries.iter().find(|entry| entry.u == *uid && entry.g == FileGoal::Hold)?;
    Some((entry.v, document.at))
}

fn has_failed(fleet: &Fleet, uid: &Uid, node: &NodeName, version: Version) -> bool {
    let report = fleet.reports.get(node).and_then(|report| report.value.file(uid));
    report.is_some_and(|file| file.wanted == version && file.state == FileState::Failed)
}

/// How one node stands to the version in force.
enum Standing {
    Offline,
    Holds,
    Failed(String),
    /// Not there yet; since when it was told, if it was.
    Waiting(Option<Timestamp>),
}

/// What is to be seen of a ConfigFile's rollout, for whoever asks.
#[must_use]
pub fn seen(fleet: &Fleet, object: &Object, rules: &Rollout, state: &RolloutState) -> Sight {
    Field::of(fleet, object, rules, state).sight(state)
}

/// The nodes of one ConfigFile, in the order in which they take a version.
pub(super) struct Field<'a> {
    fleet: &'a Fleet,
    uid: Uid,
    rules: &'a Rollout,
    members: Vec<(Rank, NodeName)>,
}

impl<'a> Field<'a> {
    pub(super) fn of(fleet: &'a Fleet, object: &Object, rules: &'a Rollout, state: &RolloutState) -> Self {
        let is_ordered = rules.waves.len() > 1 || rules.max_unavailable.is_some() || rules.group_by.is_some();
        let rank = |node: &NodeName| match is_ordered && !rollout::is_over(state.phase) {
            true => place(fleet, object, rules, state, node),
            // In one wave with all others no node is before another.
            false => Rank { g: 0, n: 0 },
        };
        let nodes = nodes_of(fleet, object).into_iter();
        let mut members: Vec<(Rank, NodeName)> = nodes.map(|node| (rank(&node), node)).collect();
        members.sort();
        Self { fleet, uid: object.metadata.uid, rules, members }
    }

    /// The waves as they would be now: of nodes that beat and have said so.
    pub(super) fn course(&self, state: &RolloutState) -> Course {
        let is_heard = |node: &NodeName| !self.fleet.is_lost(node) && self.fleet.reports.contains_key(node);
        let ranks: Vec<Rank> =
            self.members.iter().filter(|(_, node)| is_heard(node)).map(|(rank, _)| *rank).collect();
        Course::of_nodes(self.rules, &ranks, self.members.len(), state)
    }

    /// Lets the version spread as far as the rules allow now.
    pub(super) fn spread(&self, turn: &mut Turn) {
        let state = &mut turn.state;
        let is_open = match state.phase {
            RolloutPhase::Progressing => state.wave_started_at.is_some(),
            RolloutPhase::RollingBack => true,
            RolloutPhase::Baking
            | RolloutPhase::Complete
            | RolloutPhase::Paused
            | RolloutPhase::RolledBack
            | RolloutPhase::Failed
            | RolloutPhase::Unknown => false,
        };
        let Some(end) = state.wave_end.filter(|end| is_open && state.spread != Some(*end)) else { return };
        let Some(share) = self.rules.max_unavailable else {
            state.spread = Some(end);
            return;
        };
        let stands: Vec<(Rank, Stand)> =
            self.members.iter().map(|(rank, node)| (*rank, self.stand(state, *rank, node))).collect();
        let size = stands.iter().filter(|(rank, _)| *rank <= end).count();
        let most = share.round_down(u32::try_from(size).unwrap_or(u32::MAX));
        state.spread = spread::extend(state.spread, end, &stands, most);
    }

    fn stand(&self, state: &RolloutState, rank: Rank, node: &NodeName) -> Stand {
        let left = state.phase == RolloutPhase::RollingBack
            && told(self.fleet, &self.uid, node)
                .is_none_or(|(told, _)| has_failed(self.fleet, &self.uid, node, told));
        match self.standing(state, node) {
            Standing::Offline => Stand::Offline,
            Standing::Holds => Stand::Holds,
            Standing::Failed(_) | Standing::Waiting(Some(_)) => Stand::Busy,
            // Its document follows the state, so it is as good as told.
            Standing::Waiting(None) if left || spread::is_reached(rank, state.spread) => Stand::Busy,
            Standing::Waiting(None) if self.is_in_action(node) => Stand::Busy,
            Standing::Waiting(None) => Stand::Untouched,
        }
    }

    /// Whether a node is still at a version that it was told before. One that has failed with it is at nothing any more.
    fn is_in_action(&self, node: &NodeName) -> bool {
        let Some((told, _)) = told(self.fleet, &self.uid, node) else { return false };
        let report = self.fleet.reports.get(node).and_then(|r| r.value.file(&self.uid));
        report.is_none_or(|file| {
            file.wanted != told
                || matches!(file.state, FileState::Applying | FileState::Pending | FileState::Unknown)
        })
    }

    /// What is to be seen of the waves so far.
    pub(super) fn sight(&self, state: &RolloutState) -> Sight {
        let end = match state.phase {
            RolloutPhase::RollingBack | RolloutPhase::RolledBack | RolloutPhase::Complete => None,
            RolloutPhase::Progressing
            | RolloutPhase::Baking
            | RolloutPhase::Paused
            | RolloutPhase::Failed
            | RolloutPhase::Unknown => state.wave_end,
        };
        let mut members: Vec<&NodeName> = self
            .members
            .iter()
            .filter(|(rank, _)| end.is_none_or(|end| *rank <= end))
            .map(|(_, n)| n)
            .collect();
        members.sort();
        let mut sight =
            Sight { settled: end.is_none_or(|end| state.spread == Some(end)), ..Sight::default() };
        sight.members = count(members.len());
        for node in members {
            match self.standing(state, node) {
                Standing::Offline => sight.offline += 1,
                Standing::Holds => sight.well += 1,
                Standing::Failed(message) => sight.failures.add(|| format!("node {node}: {message}")),
                Standing::Waiting(told) => {
                    sight.wait_for(|| format!("node {node}"));
                    // The node that was told first is the one whose time runs out first.
                    sight.waiting_since = match (sight.waiting_since, told) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (known, told) => known.or(told),
                    };
                }
            }
        }
        let began = state.wave_started_at.or(state.started_at);
        let is_deaf = sight.members > 0 && sight.offline == sight.members;
        sight.waiting_since = match (sight.waiting_since, began) {
            (Some(since), Some(began)) => Some(since.max(began)),
            // A wave that only had nodes which are gone is judged by nobody; it does not wait for ever.
            (None, began) if is_deaf => began,
            (since, _) => since,
        };
        let first = sight.waits_for.first().map(|node| format!("; waits for {node}")).unwrap_or_default();
        sight.summary = format!(
            "{} of {} nodes hold it, {} failed, {} offline{first}",
            sight.well, sight.members, sight.failures.count, sight.offline
        );
        sight
    }

    fn standing(&self, state: &RolloutState, node: &NodeName) -> Standing {
        if self.fleet.is_lost(node) {
            return Standing::Offline;
        }
        let told = told(self.fleet, &self.uid, node).filter(|(version, _)| *version == state.target);
        let told = told.map(|(_, at)| at);
        match self.fleet.reports.get(node).and_then(|r| r.value.file(&self.uid)) {
            Some(file) if file.wanted == state.target && told.is_some() => {
                match self.harm(state.phase, file.effect.as_ref()) {
                    Some(harm) => Standing::Failed(harm),
                    None => by_report(file, state.target, told),
                }
            }
            Some(_) | None => Standing::Waiting(told),
        }
    }

    /// What the processes that its actions name have done since.
    fn harm(&self, phase: RolloutPhase, effect: Option<&FileEffect>) -> Option<String> {
        let effect = effect?;
        if phase == RolloutPhase::RollingBack {
            return None;
        }
        if effect.restarts > 0 {
            return Some(format!("{}: a process that its action names was restarted", Reason::Exited));
        }
        let (before, now) = effect.before.zip(effect.now).filter(|_| phase == RolloutPhase::Baking)?;
        rollout::excess(self.rules, &before, &now)
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn by_report(file: &FileReport, version: Version, told: Option<Timestamp>) -> Standing {
    match file.state {
        FileState::Failed => {
            let reason = file.reason.map_or("Failed", Reason::as_str);
            // One line says why; what came out of a validator follows it.
            let message = file.message.as_deref().and_then(|message| message.lines().next());
            let message = message.unwrap_or("no reason given");
            Standing::Failed(format!("{reason}: {message}"))
        }
        // The version has been written; that somebody changes the file since is told, and is no fault of the version.
        FileState::InSync | FileState::Drifted | FileState::Contested | FileState::Held
            if file.v == version =>
        {
            Standing::Holds
        }
        FileState::InSync
        | FileState::Drifted
        | FileState::Contested
        | FileState::Held
        | FileState::Offline
        | FileState::Applying
        | FileState::Pending
        | FileState::Released
        | FileState::Unknown => Standing::Waiting(told),
    }
}
