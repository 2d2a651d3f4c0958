//! Eviction from a host that is short of something: one process at a time, the greediest first, until it is no longer.
//!
//! Guarantees: nothing is evicted for a moment's peak ([`PATIENCE_MS`]); never two at once, and not the next before what
//! the last one freed can be seen ([`PAUSE_MS`]); nothing whose end would not help; and nothing while no other node is
//! free of this pressure, because then eviction would only stop work. So two hosts cannot swap a process that is too big
//! for both: the one that got rid of it stays closed for its hold, and meanwhile the other keeps it.
//!
//! Rank: of memory, what uses more than it requested comes first, by how much more; then the rest by what it uses. Of
//! disk, what its end gives back: its log and its own `/tmp`. Of process numbers, threads. What is bound to the node by
//! hand comes last, and what tolerates the pressure never goes: it would come back to the same node.

use ostler_schemas::quantity::Size;
use ostler_schemas::spec::{ProcessTemplate, Taint, TaintEffect, tolerates};
use ostler_schemas::time::Now;
use ostler_schemas::v1::beat::Beat;
use ostler_schemas::v1::process::{Goal, GoalReason};
use ostler_schemas::v1::state::NodeState;
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::v1::usage::Strain;
use ostler_schemas::{NodeName, Uid};

use super::{Subject, running_here, set_goal};
use crate::capacity::{DISK_PRESSURE, MEMORY_PRESSURE, PID_PRESSURE, Pressure, is_pressed};
use crate::fitness;
use crate::fleet::{Fleet, ProcessRecords};
use crate::liveness::Signals;
use crate::plan::Plan;

/// How long a host must have been short without a break. Twice the looks of the agent and some: most peaks are over.
const PATIENCE_MS: u64 = 10_000;
/// The next eviction waits so long after the last one was decided: the process has ended (its grace is waited for
/// besides), and the agent has looked again several times.
const PAUSE_MS: u64 = 20_000;
/// What a stop may take beyond all that its template allows: the way to the node and back, and the kernel's time. Who
/// has not ended by then cannot be ended (it hangs in the kernel), and must not keep a whole host short.
const SLACK_MS: u64 = 15_000;
/// While a host is short it is looked at once per beat.
const LOOK_MS: u64 = 1_000;
/// Who holds less than this part of the whole is not worth its end.
const WORTH: u64 = 512;
/// Threads that are worth an end on any host: hosts have many more process numbers than processes ever use at once.
const WORTH_THREADS: u64 = 64;

/// What a host can be short of, in the order in which it is relieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortage {
    Memory,
    Disk,
    Pids,
}

impl Shortage {
    const ALL: [Shortage; 3] = [Shortage::Memory, Shortage::Disk, Shortage::Pids];

    const fn pressure(self) -> Pressure {
        match self {
            Shortage::Memory => MEMORY_PRESSURE,
            Shortage::Disk => DISK_PRESSURE,
            Shortage::Pids => PID_PRESSURE,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Shortage::Memory => "memory",
            Shortage::Disk => "disk",
            Shortage::Pids => "pid",
        }
    }

    fn strain(self, beat: &Beat) -> Option<&Strain> {
        match self {
            Shortage::Memory => beat.strain.as_ref(),
            Shortage::Disk => beat.disk_strain.as_ref(),
            Shortage::Pids => beat.pid_strain.as_ref(),
        }
    }

    /// From how much on the end of a process helps.
    fn worth(self, total: u64) -> u64 {
        match self {
            Shortage::Memory | Shortage::Disk => (total / WORTH).max(1),
            Shortage::Pids => (total / WORTH).clamp(1, WORTH_THREADS),
        }
    }
}

/// A process that could go.
struct Candidate<'a> {
    uid: &'a Uid,
    records: &'a ProcessRecords,
    template: &'a ProcessTemplate,
    used: u64,
}

impl Candidate<'_> {
    fn requested(&self) -> Size {
        self.template.resources.effective_requests().memory
    }

    fn excess(&self, shortage: Shortage) -> u64 {
        match shortage {
            Shortage::Memory => self.used.saturating_sub(self.requested().as_bytes()),
            // Nobody requests disk or process numbers.
            Shortage::Disk | Shortage::Pids => 0,
        }
    }

    fn words(&self, shortage: Shortage) -> String {
        match shortage {
            Shortage::Memory => format!("used {} of {} requested", mib(self.used), self.requested()),
            Shortage::Disk => format!("{} in its log and its own /tmp", mib(self.used)),
            Shortage::Pids => format!("has {} threads", self.used),
        }
    }
}

/// Evicts at most one process of a node that is short of something.
pub(super) fn relieve(plan: &mut Plan, state: &mut NodeState, subject: &Subject<'_>, now: Now) {
    if subject.signal.phase != NodePhase::Ready {
        return;
    }
    for shortage in Shortage::ALL {
        if is_pressed(subject.fleet, subject.node, shortage.pressure())
            && relieve_of(plan, state, (subject, shortage), now)
        {
            return;
        }
    }
}

/// Whether somebody goes.
fn relieve_of(
    plan: &mut Plan,
    state: &mut NodeState,
    (subject, shortage): (&Subject<'_>, Shortage),
    now: Now,
) -> bool {
    let Subject { fleet, node, .. } = *subject;
    plan.wake_in(LOOK_MS);
    let word = shortage.word();
    let Some(strain) = subject.signal.beat.as_ref().and_then(|beat| shortage.strain(beat)) else {
        plan.why
            .push(format!("{node}: its {word} pressure waits for its end, or for what its agent removes"));
        return false;
    };
    if let Some(why) = waits(state, (subject, shortage), strain, now) {
        plan.why.push(format!("{node} is short of {word}: {why}"));
        return false;
    }
    let ranked = ranked(fleet, node, shortage, strain);
    // What the report says where an older agent does not tell the whole.
    let of_report = || fleet.reports.get(node).map_or(0, |r| r.facts.memory.as_bytes());
    let total = if strain.total == 0 && shortage == Shortage::Memory { of_report() } else { strain.total };
    let worth = |c: &&Candidate<'_>| c.used >= shortage.worth(total);
    let Some((place, victim)) = ranked.iter().enumerate().find(|(_, c)| worth(c)) else {
        plan.why.push(format!("{node} is short of {word}, and no process is big enough for its end to help"));
        return false;
    };
    let why = format!(
        "evicted: node {word} pressure {} %, {} ({} of {})",
        strain.used / 10,
        victim.words(shortage),
        ordinal(place + 1),
        strain.of.max(u32::try_from(ranked.len()).unwrap_or(u32::MAX)),
    );
    set_goal(plan, fleet, (victim.uid, victim.records), (Goal::Stop, GoalReason::Evicted, &why), now);
    state.relieved = Some(now.wall);
    true
}

/// Why nothing is evicted yet.
fn waits(
    state: &NodeState,
    (subject, shortage): (&Subject<'_>, Shortage),
    strain: &Strain,
    now: Now,
) -> Option<String> {
    let Subject { fleet, signals, node, .. } = *subject;
    if strain.since_ms < PATIENCE_MS {
        return Some(format!("only for {} ms so far", strain.since_ms));
    }
    if state.relieved.is_some_and(|at| now.wall.since_ms(at) < PAUSE_MS) {
        return Some("what the last eviction frees is to be seen first".to_owned());
    }
    if running_here(fleet, node).any(|(uid, records)| ends(fleet, uid, records, now)) {
        return Some("a process ends already".to_owned());
    }
    (!has_elsewhere(fleet, signals, node, shortage))
        .then(|| "no other node is free of pressure, eviction would only stop work".to_owned())
}

/// Whether a process is on its way to its end, and may be believed to reach it.
fn ends(fleet: &Fleet, uid: &Uid, records: &ProcessRecords, now: Now) -> bool {
    let Some(goal) = records.goal.as_ref().filter(|goal| goal.goal > Goal::Run) else { return false };
    let alive = fleet.process_report(uid).is_some_and(|p| p.phase.may_be_alive());
    let allowed = fleet.process_template(records).map_or(0, |template| stop_ms(template));
    alive && now.wall.since_ms(goal.value.at) < allowed.saturating_add(SLACK_MS)
}

/// The longest that a stop of this template takes, when every part of it takes its whole time.
fn stop_ms(template: &ProcessTemplate) -> u64 {
    let hooks = template.exec_stop.iter().chain(&template.exec_stop_post);
    let hooks = hooks.map(|hook| hook.timeout.as_millis()).fold(0, u64::saturating_add);
    hooks
        .saturating_add(template.pre_stop_delay.as_millis())
        .saturating_add(template.timeout_stop_sec.as_millis())
}

fn has_elsewhere(fleet: &Fleet, signals: &Signals, node: &NodeName, shortage: Shortage) -> bool {
    let free = |other: &NodeName| {
        other != node
            && fitness::phase(fleet, signals, other) == NodePhase::Ready
            && !is_pressed(fleet, other, shortage.pressure())
    };
    fleet.nodes().any(|(name, _, spec)| !spec.unschedulable && free(&name))
}

fn ranked<'a>(fleet: &'a Fleet, node: &NodeName, shortage: Shortage, strain: &Strain) -> Vec<Candidate<'a>> {
    let key = shortage.pressure().taint.to_owned();
    let taint = Taint { key, value: String::new(), effect: TaintEffect::NoSchedule };
    let candidate = |(uid, records): (&'a Uid, &'a ProcessRecords)| {
        if records.goal() != Goal::Run {
            return None;
        }
        let (_, used) = strain.processes.iter().find(|(u, _)| u == uid)?;
        let template: &'a ProcessTemplate = fleet.process_template(records)?;
        let stays = tolerates(&template.tolerations, &taint).is_some();
        (!stays).then_some(Candidate { uid, records, template, used: *used })
    };
    let mut all: Vec<Candidate<'a>> = running_here(fleet, node).filter_map(candidate).collect();
    all.sort_by_key(|c| {
        let by_hand = c.template.node_name.is_some();
        (by_hand, std::cmp::Reverse((c.excess(shortage), c.used)), *c.uid)
    });
    all
}

/// In whole MiB: a figure like 851443712 helps nobody.
fn mib(bytes: u64) -> Size {
    Size::from_mib(bytes >> 20)
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
