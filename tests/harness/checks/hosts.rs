//! Everything that happened to processes was asked for, happened once, and is known to the control plane.

use std::collections::{BTreeMap, BTreeSet};

use ostler_agent::sim::{SimEvent, SimHost};
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_schemas::hash::sha256;
use ostler_schemas::{NodeName, Sha256, Uid};

use super::log::LogCheck;
use super::{Found, Rule};

/// What the checkers know of processes.
#[derive(Default)]
pub struct HostCheck {
    seen: BTreeMap<NodeName, usize>,
    living: BTreeMap<Uid, (NodeName, u64)>,
    ended_on_demand: BTreeSet<(NodeName, Uid)>,
    /// Ends that must be accounted for, and when they happened.
    ended: BTreeMap<(Uid, u64), u64>,
    /// Incarnations that the nemesis ended.
    pub excused: BTreeSet<ProcKey>,
    /// Processes come and go by themselves: [`super::life`] knows which may.
    pub lively: bool,
    /// Starts so far.
    pub starts: u64,
    /// Ends so far, losses of power included.
    pub ends: u64,
    trace: Option<Sha256>,
}

impl HostCheck {
    /// A hash of everything that happened so far.
    #[must_use]
    pub fn trace(&self) -> String {
        self.trace.map(|t| t.to_string()).unwrap_or_default()
    }

    /// Takes in what happened on a host.
    pub fn take(
        &mut self,
        node: &NodeName,
        host: &SimHost,
        log: &LogCheck,
        now: u64,
        found: &mut Vec<Found>,
    ) {
        let seen = self.seen.entry(node.clone()).or_default();
        let news = host.history_since(*seen);
        *seen += news.len();
        for record in &news {
            let before = self.trace.map(|t| t.to_string()).unwrap_or_default();
            let line = format!("{before}|{node}|{}|{:?}|{:?}", record.key, record.at, record.event);
            self.trace = Some(sha256(line.as_bytes()));
            let mut tell = |rule, what: &str| {
                let detail = format!("{node}: {} ({}): {what}", record.name, record.key);
                found.push(Found { at_ms: now, rule, detail });
            };
            let uid = record.key.uid;
            match &record.event {
                SimEvent::Started(_) => {
                    self.starts += 1;
                    if let Some((other, i)) = self.living.insert(uid, (node.clone(), record.key.incarnation))
                    {
                        tell(Rule::TwoLive, &format!("incarnation {i} lives on {other}"));
                    }
                    if !log.bound.contains(&(uid, node.clone())) {
                        tell(Rule::StartedUnbound, "was never bound to this node");
                    }
                    if self.ended_on_demand.contains(&(node.clone(), uid)) {
                        tell(Rule::Resurrected, "had been ended here on demand");
                    }
                }
                SimEvent::Ended(how) => {
                    self.ends += 1;
                    self.living.remove(&uid);
                    self.ended.insert((uid, record.key.incarnation), now);
                    // An accident says nothing of what the agent has heard.
                    if self.excused.contains(&record.key) {
                        continue;
                    }
                    if log.asked_to_end.contains_key(&uid) {
                        self.ended_on_demand.insert((node.clone(), uid));
                    } else if !self.lively {
                        tell(Rule::EndedUnasked, &format!("ended ({how:?}) although nobody asked for it"));
                    }
                }
                SimEvent::Signalled(_)
                | SimEvent::Asked(..)
                | SimEvent::SaidReady
                | SimEvent::Answers(..)
                | SimEvent::RunBegan(..)
                | SimEvent::RunEnded(..) => {}
                SimEvent::PowerLost => {
                    self.ends += 1;
                    self.living.remove(&uid);
                }
            }
        }
    }

    /// Ends that were never reported.
    pub fn unaccounted(&self, log: &LogCheck) -> Vec<String> {
        let missing = self.ended.iter().filter(|(end, _)| !log.exits.contains_key(end));
        missing.map(|((uid, i), at)| format!("incarnation {i} of {} ended at {at} ms", uid.short())).collect()
    }
}
