//! The store's log, transaction by transaction: each is written by whoever may, and leaves the fleet within its rules.

use std::collections::{BTreeMap, BTreeSet};

use ostler_bus::memory::Logged;
use ostler_controller_core::audit;
use ostler_controller_core::fleet::{Change, Fleet};
use ostler_schemas::hash::sha256;
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::epoch::Fence;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::{Bucket, ControllerName, Key, NodeName, Revision, Sha256, Uid, codec};

use super::{Found, Rule};

/// A node that has beaten for so long without anything being wrong with it cannot be lost.
const WELL_MS: u64 = 9_000;

/// What the checkers know of the store.
#[derive(Default)]
pub struct LogCheck {
    /// Everything stored, as of the last transaction seen.
    pub fleet: Fleet,
    /// Processes that somebody has asked to end, and when; kept for ever, also when the store forgets.
    pub asked_to_end: BTreeMap<Uid, u64>,
    /// Every binding ever.
    pub bound: BTreeSet<(Uid, NodeName)>,
    /// Exits reported, with their sequence.
    pub exits: BTreeMap<(Uid, u64), u64>,
    /// Since when nothing is wrong with a node; kept by the world.
    pub well_since: BTreeMap<NodeName, u64>,
    /// Until when leaders may act on an older picture of readiness than the checkers have: they notice within so long.
    pub readiness_unsure_until: u64,
    /// Nodes whose report the store has lost and not got again.
    pub without_report: BTreeSet<NodeName>,
    /// Every message in words, for whoever compares two runs; empty unless asked for.
    pub lines: Option<Vec<String>>,
    held: BTreeMap<NodeName, (HeldDocument, HeldDocument)>,
    known: BTreeSet<audit::Violation>,
    batch: Vec<Logged>,
    trace: Option<Sha256>,
    /// Transactions taken in.
    pub transactions: u64,
}

impl LogCheck {
    /// A hash of everything stored so far.
    #[must_use]
    pub fn trace(&self) -> String {
        self.trace.map(|t| t.to_string()).unwrap_or_default()
    }

    /// Takes in what was stored.
    pub fn take(&mut self, logged: Vec<Logged>, now: u64, found: &mut Vec<Found>) {
        for message in logged {
            self.mark(&message, now);
            let ends = message.ends;
            self.batch.push(message);
            if ends {
                let batch = std::mem::take(&mut self.batch);
                self.transaction(&batch, now, found);
            }
        }
    }

    fn mark(&mut self, m: &Logged, now: u64) {
        let before = self.trace.map(|t| t.as_bytes().to_vec()).unwrap_or_default();
        let head = format!("{}|{}|{}|{:?}|", m.stream, m.sequence, m.subject, m.at);
        if let Some(lines) = &mut self.lines {
            lines.push(format!(
                "{now} {head}{:?}|{}",
                m.headers,
                String::from_utf8_lossy(&m.body).escape_debug()
            ));
        }
        self.trace = Some(sha256(&[&before, head.as_bytes(), &m.body].concat()));
    }

    fn transaction(&mut self, batch: &[Logged], now: u64, found: &mut Vec<Found>) {
        let keyed: Vec<(Key, &Logged)> =
            batch.iter().filter_map(|m| Some((Key::from_subject(&m.subject).ok()?, m))).collect();
        if keyed.is_empty() {
            return;
        }
        self.transactions += 1;
        let before = self.fleet.clone();
        self.fenced(&keyed, now, found);
        for (key, message) in &keyed {
            let value = (!message.is_marker()).then_some(message.body.as_ref());
            let revision = Revision(message.sequence);
            self.fleet.apply(&Change { key, revision, at: message.at, value });
        }
        for (key, _) in &keyed {
            self.note(key, &before, now, found);
        }
        let idle = |key: &Key| matches!(key, Key::Lease(_) | Key::Fence(_) | Key::Term(_));
        let matters = keyed.iter().any(|(k, _)| k.bucket() == Bucket::Objects && !idle(k));
        if matters {
            self.audit(&before, now, found);
        }
    }

    fn audit(&mut self, before: &Fleet, now: u64, found: &mut Vec<Found>) {
        let present: BTreeSet<audit::Violation> = audit::check(&self.fleet).into_iter().collect();
        let steps = audit::check_step(before, &self.fleet);
        let unsure = now <= self.readiness_unsure_until;
        let steps = steps.iter().filter(|v| !unsure || v.rule != audit::Rule::TooFewReady);
        for violation in present.difference(&self.known).chain(steps) {
            let detail = format!("{}: {}", violation.subject, violation.detail);
            found.push(Found { at_ms: now, rule: Rule::Audit(violation.rule), detail });
        }
        self.known = present;
    }

    /// Keys that only leaders write come in a batch with the fence of a term that still holds.
    fn fenced(&self, keyed: &[(Key, &Logged)], now: u64, found: &mut Vec<Found>) {
        let mut holds: BTreeSet<ControllerName> = BTreeSet::new();
        for (key, message) in keyed {
            let Key::Fence(c) = key else { continue };
            let takes_over = keyed.iter().any(|(k, _)| *k == Key::Term(*c));
            let Ok(fence) = codec::decode::<Fence>(&message.body) else { continue };
            let term = self.fleet.terms.get(c);
            let same = term.is_some_and(|t| t.revision == fence.epoch.term && t.replica == fence.replica);
            if same || takes_over {
                holds.insert(*c);
            } else {
                let detail = format!(
                    "{} wrote as {c} under term {}, but the term is {:?} of {:?}",
                    fence.replica,
                    fence.epoch.term,
                    term.map(|t| t.revision),
                    term.map(|t| t.replica.clone())
                );
                found.push(Found { at_ms: now, rule: Rule::OldLeader, detail });
                return;
            }
        }
        let leaders = keyed.iter().filter(|(k, m)| is_leaders(k, m));
        for (key, _) in leaders {
            if holds.is_empty() {
                let detail = format!("{key} was written without a fence");
                found.push(Found { at_ms: now, rule: Rule::OldLeader, detail });
            }
        }
    }

    fn note(&mut self, key: &Key, before: &Fleet, now: u64, found: &mut Vec<Found>) {
        match key {
            Key::ProcessGoal(uid) | Key::ProcessSpec(uid) => {
                let records = self.fleet.processes.get(uid);
                let ends = match key {
                    // Without its records a process has been ended and retired.
                    Key::ProcessSpec(_) => records.is_none_or(|r| r.spec.is_none()),
                    _ => records.is_none_or(|r| r.goal() != Goal::Run),
                };
                if ends {
                    self.asked_to_end.entry(*uid).or_insert(now);
                }
            }
            Key::ProcessBind(uid) => {
                let node = self.fleet.processes.get(uid).and_then(|r| r.node().cloned());
                self.bound.extend(node.map(|n| (*uid, n)));
            }
            Key::Object(object) => {
                let (was, is) = (before.objects.get(object), self.fleet.objects.get(object));
                if let (Some(was), Some(is)) = (was, is)
                    && was.metadata.uid == is.metadata.uid
                    && was.spec != is.spec
                    && is.metadata.generation.0 != was.metadata.generation.0 + 1
                {
                    let (a, b) = (was.metadata.generation, is.metadata.generation);
                    let detail = format!("{object}: another spec, from generation {a} to {b}");
                    found.push(Found { at_ms: now, rule: Rule::GenerationForked, detail });
                }
            }
            Key::State(ControllerName::Node, _) => self.verdicts(before, now, found),
            Key::Report(node) => self.report(node, now, found),
            _ => {}
        }
    }

    fn verdicts(&self, before: &Fleet, now: u64, found: &mut Vec<Found>) {
        for (node, state) in &self.fleet.node_states {
            let newly = state.lost.is_some() && !before.is_lost(node);
            let well = self.well_since.get(node).is_some_and(|since| now.saturating_sub(*since) >= WELL_MS);
            if newly && well {
                let detail = format!("{node} was judged lost, but has beaten all the time");
                found.push(Found { at_ms: now, rule: Rule::FalseVerdict, detail });
            }
        }
    }

    fn report(&mut self, node: &NodeName, now: u64, found: &mut Vec<Found>) {
        self.without_report.remove(node);
        let Some(report) = self.fleet.reports.get(node) else { return };
        let (run, files) = (report.run, report.files);
        if let Some((was_run, was_files)) = self.held.insert(node.clone(), (run, files)) {
            for (was, is) in [(was_run, run), (was_files, files)] {
                if (is.epoch.rank(), is.revision) < (was.epoch.rank(), was.revision)
                    && is.epoch.rank() <= was.epoch.rank()
                {
                    let detail = format!(
                        "{node} held {} of {}, now {} of {}",
                        was.revision, was.epoch, is.revision, is.epoch
                    );
                    found.push(Found { at_ms: now, rule: Rule::HeldFellBack, detail });
                }
            }
        }
        for exit in &report.exits {
            let known = self.exits.insert((exit.u, exit.i), exit.seq);
            if known.is_some_and(|seq| seq != exit.seq) {
                let detail = format!(
                    "{node}: incarnation {} of {} ended as {known:?} and as {}",
                    exit.i,
                    exit.u.short(),
                    exit.seq
                );
                found.push(Found { at_ms: now, rule: Rule::ExitTwice, detail });
            }
        }
    }

    /// The store is as it was when `fleet` was seen.
    pub fn rolled_back(&mut self, fleet: Fleet) {
        self.fleet = fleet;
        self.known = audit::check(&self.fleet).into_iter().collect();
    }

    /// The observed plane is empty. What it said stays known: a leader that has not noticed yet acts on it, and rightly.
    pub fn observed_lost(&mut self) {
        let keys: Vec<Key> =
            self.fleet.revisions.keys().filter(|k| k.bucket() == Bucket::Observed).cloned().collect();
        for key in keys {
            self.fleet.revisions.remove(&key);
        }
        self.without_report = self.fleet.reports.keys().cloned().collect();
    }
}

/// Whether only a leader may write the key so. Goals are tightened by the API too, and objects are its own.
fn is_leaders(key: &Key, message: &Logged) -> bool {
    match key {
        Key::Template(_)
        | Key::ProcessSpec(_)
        | Key::ProcessTemplate(_)
        | Key::ProcessBind(_)
        | Key::NodeDocument(..)
        | Key::State(..) => true,
        Key::ProcessGoal(_) => message.is_marker(),
        Key::Object(_)
        | Key::SpecRevision(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaIncarnation
        | Key::MetaFormatFloor
        | Key::Report(_)
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => false,
    }
}
