//! Eviction under memory pressure: one process at a time, the greediest first, until the host is no longer short.
//!
//! Guarantees: nothing is evicted for a moment's peak ([`PATIENCE_MS`]); never two at once, and not the next before what
//! the last one freed can be seen ([`PAUSE_MS`]); nothing whose end would not help; and nothing while no other node is
//! free of pressure, because then eviction would only stop work. So two hosts cannot swap a process that is too big for
//! both: the one that got rid of it stays closed for its hold, and meanwhile the other keeps it.
//!
//! Rank: what uses more than it requested comes first, by how much more; then the rest by what it uses.

use ostler_schemas::quantity::Size;
use ostler_schemas::time::Now;
use ostler_schemas::v1::process::{Goal, GoalReason};
use ostler_schemas::v1::state::NodeState;
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::v1::usage::Strain;
use ostler_schemas::{NodeName, Uid};

use super::{Subject, running_here, set_goal};
use crate::capacity::{MEMORY_PRESSURE, is_pressed};
use crate::fitness;
use crate::fleet::{Fleet, ProcessRecords};
use crate::liveness::Signals;
use crate::plan::Plan;

/// How long a host must have been short without a break. Twice the looks of the agent and some: most peaks are over.
const PATIENCE_MS: u64 = 10_000;
/// The next eviction waits so long after the last one was decided: the process has ended (its grace is waited for
/// besides), and the agent has looked again several times.
const PAUSE_MS: u64 = 20_000;
/// While a host is short it is looked at once per beat.
const LOOK_MS: u64 = 1_000;
/// Whose memory is less than this part of the host's is not worth its end.
const WORTH: u64 = 512;

/// A process that could go.
struct Candidate<'a> {
    uid: &'a Uid,
    records: &'a ProcessRecords,
    used: Size,
    requested: Size,
}

impl Candidate<'_> {
    fn excess(&self) -> u64 {
        self.used.as_bytes().saturating_sub(self.requested.as_bytes())
    }
}

/// Evicts at most one process of a node that is short of memory.
pub(super) fn relieve(plan: &mut Plan, state: &mut NodeState, subject: &Subject<'_>, now: Now) {
    let Subject { fleet, signals, node, .. } = *subject;
    if !is_pressed(fleet, node, MEMORY_PRESSURE) || subject.signal.phase != NodePhase::Ready {
        return;
    }
    plan.wake_in(LOOK_MS);
    let strain = subject.signal.beat.as_ref().and_then(|b| b.strain.as_ref());
    let Some(strain) = strain else {
        plan.why.push(format!("{node}: its memory pressure waits for its end"));
        return;
    };
    if let Some(why) = waits(state, fleet, signals, node, strain, now) {
        plan.why.push(format!("{node} is short of memory: {why}"));
        return;
    }
    let capacity = fleet.reports.get(node).map_or(0, |r| r.facts.memory.as_bytes());
    let ranked = ranked(fleet, node, strain);
    let worth = |c: &&Candidate<'_>| c.used.as_bytes() >= capacity / WORTH;
    let Some((place, victim)) = ranked.iter().enumerate().find(|(_, c)| worth(c)) else {
        plan.why.push(format!("{node} is short of memory, and no process is big enough for its end to help"));
        return;
    };
    let why = format!(
        "evicted: node memory pressure {} %, used {} of {} requested ({} of {})",
        strain.used / 10,
        mib(victim.used),
        victim.requested,
        ordinal(place + 1),
        strain.of.max(u32::try_from(ranked.len()).unwrap_or(u32::MAX)),
    );
    set_goal(plan, fleet, (victim.uid, victim.records), (Goal::Stop, GoalReason::Evicted, &why), now);
    state.relieved = Some(now.wall);
}

/// Why nothing is evicted yet.
fn waits(
    state: &NodeState,
    fleet: &Fleet,
    signals: &Signals,
    node: &NodeName,
    strain: &Strain,
    now: Now,
) -> Option<String> {
    if strain.since_ms < PATIENCE_MS {
        return Some(format!("only for {} ms so far", strain.since_ms));
    }
    if state.relieved.is_some_and(|at| now.wall.since_ms(at) < PAUSE_MS) {
        return Some("what the last eviction frees is to be seen first".to_owned());
    }
    let ends = |(uid, records): (&Uid, &ProcessRecords)| {
        records.goal() != Goal::Run && fleet.process_report(uid).is_some_and(|p| p.phase.may_be_alive())
    };
    if running_here(fleet, node).any(ends) {
        return Some("a process ends already".to_owned());
    }
    let free = |other: &NodeName| {
        other != node
            && fitness::phase(fleet, signals, other) == NodePhase::Ready
            && !is_pressed(fleet, other, MEMORY_PRESSURE)
    };
    let elsewhere = fleet.nodes().any(|(name, _, spec)| !spec.unschedulable && free(&name));
    (!elsewhere).then(|| "no other node is free of pressure, eviction would only stop work".to_owned())
}

fn ranked<'a>(fleet: &'a Fleet, node: &NodeName, strain: &Strain) -> Vec<Candidate<'a>> {
    let candidate = |(uid, records): (&'a Uid, &'a ProcessRecords)| {
        if records.goal() != Goal::Run {
            return None;
        }
        let (_, used) = strain.processes.iter().find(|(u, _)| u == uid)?;
        let requested = fleet.process_template(records)?.resources.effective_requests().memory;
        Some(Candidate { uid, records, used: Size::from_bytes(*used), requested })
    };
    let mut all: Vec<Candidate<'a>> = running_here(fleet, node).filter_map(candidate).collect();
    all.sort_by_key(|c| (std::cmp::Reverse((c.excess(), c.used)), *c.uid));
    all
}

/// In whole MiB: a figure like 851443712 helps nobody.
fn mib(size: Size) -> Size {
    Size::from_mib(size.as_bytes() >> 20)
}

fn ordinal(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        (_, _) => "th",
    };
    format!("{n}{ending}")
}

#[cfg(test)]
mod tests;
