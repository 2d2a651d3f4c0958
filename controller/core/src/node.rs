//! The node controller: verdicts on silent nodes, the brake, goals of what was lost, return, taints, and eviction from
//! nodes that are short of memory (`relieve`).
//!
//! Order (DESIGN.md 3.6): a durable verdict; the brake; goals `gone(lost)` of the node's unfenced processes; their
//! owners then make replacements. A node that returns is schedulable only when its report shows that it has read the
//! documents with the tombstones and that nothing tombstoned lives there.

mod relieve;

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::key::{DocumentKind, StateSubject};
use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::{Taint, TaintEffect, tolerates};
use ostler_schemas::time::{Now, Timestamp};
use ostler_schemas::v1::process::{Goal, GoalReason, GoalRecord};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::{LostVerdict, NodeState};
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::{Actor, ControllerName, Key, NodeName, ObjectRef, Revision, Uid};

use crate::fleet::{Fleet, ProcessRecords};
use crate::liveness::{Signal, Signals};
use crate::plan::{Body, Plan, Telling};

/// The key of the taint that a lost node has, without anybody setting it.
pub const LOST_TAINT: &str = "ostler/lost";
/// Most goals of one plan: a batch holds them with room for others.
const GOALS_PER_PLAN: usize = 400;
/// Losses within so long of each other are one event to the brake.
const BRAKE_WINDOW_MS: u64 = 60_000;
/// The brake holds when more than this share of the nodes would be lost within the window (and more than one node).
const BRAKE_PERCENT: usize = 30;

/// Whether evictions must wait, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brake {
    /// Silent nodes, lost ones of the last minute and held ones.
    pub silent: usize,
    /// Nodes that beat a minute ago, and held ones.
    pub of: usize,
    /// More silent ones than this hold everything.
    pub limit: usize,
}

impl Brake {
    /// Weighs the fleet as it is heard now.
    #[must_use]
    pub fn weigh(fleet: &Fleet, signals: &Signals, now: Now) -> Self {
        let (mut silent, mut of) = (0, 0);
        for (name, _, _) in fleet.nodes() {
            let verdict = fleet.node_states.get(&name).and_then(|s| s.lost.as_ref());
            let dealt_with = verdict.is_some_and(|v| !v.held && now.wall.since_ms(v.at) > BRAKE_WINDOW_MS);
            if dealt_with {
                continue;
            }
            of += 1;
            let phase = signals.phase(&name);
            if verdict.is_some() && phase != NodePhase::Ready
                || matches!(phase, NodePhase::Suspect | NodePhase::Lost)
            {
                silent += 1;
            }
        }
        Self { silent, of, limit: (of * BRAKE_PERCENT / 100).max(1) }
    }

    /// Whether nothing may be evicted.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.silent > self.limit
    }

    /// For people.
    #[must_use]
    pub fn why(&self) -> String {
        format!(
            "{} of {} nodes are silent, more than {} at a time: nothing is evicted until they return or are deleted",
            self.silent, self.of, self.limit
        )
    }
}

/// Nodes to look at when a key has changed.
#[must_use]
pub fn affected(fleet: &Fleet, key: &Key) -> BTreeSet<NodeName> {
    match key {
        Key::Report(node) | Key::NodeDocument(node, _) => [node.clone()].into(),
        Key::State(ControllerName::Node, StateSubject::Node(node)) => [node.clone()].into(),
        Key::Object(object) if object.kind == ostler_schemas::Kind::Node => {
            object.name.as_str().parse().into_iter().collect()
        }
        Key::ProcessBind(uid) | Key::ProcessGoal(uid) | Key::ProcessTemplate(uid) => {
            fleet.processes.get(uid).and_then(ProcessRecords::node).cloned().into_iter().collect()
        }
        Key::Object(_)
        | Key::SpecRevision(..)
        | Key::Template(_)
        | Key::ProcessSpec(_)
        | Key::State(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaIncarnation
        | Key::MetaFormatFloor
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => BTreeSet::new(),
    }
}

/// Every node that has an object, a state or a bound process.
#[must_use]
pub fn all(fleet: &Fleet) -> BTreeSet<NodeName> {
    let registered = fleet.nodes().map(|(name, _, _)| name);
    registered.chain(fleet.node_states.keys().cloned()).chain(fleet.by_node.keys().cloned()).collect()
}

/// What to do about one node.
#[must_use]
pub fn reconcile(fleet: &Fleet, signals: &Signals, node: &NodeName, now: Now) -> Plan {
    let mut plan = Plan::nothing();
    let Some((object, spec)) = fleet.node(node) else {
        if fleet.by_node.contains_key(node) {
            evict_all(&mut plan, fleet, node, now, "the node was deleted");
        }
        return plan;
    };
    let before = fleet.node_states.get(node);
    let mut state = before.map(|s| (*s.value).clone()).unwrap_or_default();
    let uid = Some(object.metadata.uid);
    match signals.nodes.get(node) {
        Some(signal) => {
            let subject = Subject { fleet, signals, node, uid, signal };
            judge(&mut plan, &mut state, &subject, now);
            if state.lost.is_none() {
                relieve::relieve(&mut plan, &mut state, &subject, now);
            }
        }
        None => plan.why.push(format!("{node}: this replica has not listened for it yet")),
    }
    remember_taints(&mut state, &spec.taints, now);
    if let Some(verdict) = &state.lost {
        if verdict.held {
            plan.why.push(verdict.why.clone().unwrap_or_default());
        } else {
            evict_lost(&mut plan, fleet, node, verdict, now);
        }
    }
    evict_tainted(&mut plan, fleet, node, &spec.taints, &state, now);
    if before.is_none_or(|b| differs(&b.value, &state)) && !(before.is_none() && is_blank(&state)) {
        let key = Key::State(ControllerName::Node, StateSubject::Node(node.clone()));
        plan.put(fleet, key, Body::NodeState(state));
    }
    plan
}

fn differs(a: &NodeState, b: &NodeState) -> bool {
    a.lost != b.lost || a.tainted_since != b.tainted_since || a.relieved != b.relieved
}

fn is_blank(state: &NodeState) -> bool {
    state.lost.is_none() && state.tainted_since.is_empty() && state.relieved.is_none()
}

/// The node being judged.
#[derive(Clone, Copy)]
struct Subject<'a> {
    fleet: &'a Fleet,
    signals: &'a Signals,
    node: &'a NodeName,
    uid: Option<Uid>,
    signal: &'a Signal,
}

impl Subject<'_> {
    fn tell(&self, plan: &mut Plan, reason: Reason, message: String) {
        let Some(object) = ObjectRef::node(self.node) else { return };
        let node = Some(self.node.clone());
        plan.tell.push(Telling { object, uid: self.uid, node, reason, message });
    }
}

fn judge(plan: &mut Plan, state: &mut NodeState, subject: &Subject<'_>, now: Now) {
    let brake = Brake::weigh(subject.fleet, subject.signals, now);
    match (&mut state.lost, subject.signal.phase) {
        (None, NodePhase::Lost) => {
            let beat = subject.signal.beat.as_ref();
            let verdict = LostVerdict {
                at: now.wall,
                last_beat: subject.signal.heard.unwrap_or_default(),
                boot: beat.map(|b| b.boot.clone()).unwrap_or_default(),
                incarnation: beat.map_or(0, |b| b.incarnation),
                held: brake.holds(),
                why: brake.holds().then(|| brake.why()),
            };
            let seconds = subject.signal.silent_ms / 1000;
            subject.tell(plan, Reason::Lost, format!("no beat for {seconds} s"));
            if brake.holds() {
                subject.tell(plan, Reason::EvictionHeld, brake.why());
            }
            state.lost = Some(verdict);
        }
        (Some(_), NodePhase::Ready) => {
            if has_returned(subject) {
                state.lost = None;
                let message = "beats again, has read its documents, nothing lost lives there".to_owned();
                subject.tell(plan, Reason::Ready, message);
            } else {
                plan.why.push(format!("{}: beats again, its report has not caught up yet", subject.node));
            }
        }
        (Some(verdict), NodePhase::Lost | NodePhase::Suspect | NodePhase::Unknown)
            if verdict.held && !brake.holds() =>
        {
            if subject.signals.blind.is_none() {
                verdict.held = false;
                verdict.why = None;
                plan.why.push(format!(
                    "{}: no longer held, {} of {} nodes are silent",
                    subject.node, brake.silent, brake.of
                ));
            }
        }
        (
            Some(_) | None,
            NodePhase::Ready
            | NodePhase::NotReady
            | NodePhase::Suspect
            | NodePhase::Lost
            | NodePhase::Unknown,
        ) => {}
    }
}

/// Whether the report of a node that beats again shows that it knows of everything decided meanwhile: it has read the
/// present run document, this instance of the agent wrote the report, and nothing whose goal is `gone` is alive.
fn has_returned(subject: &Subject<'_>) -> bool {
    let fleet = subject.fleet;
    let wanted = fleet.run_documents.get(subject.node).map_or(Revision(0), |d| d.revision);
    let Some(report) = fleet.reports.get(subject.node) else { return false };
    let same_instance = subject.signal.beat.as_ref().is_some_and(|b| b.incarnation == report.incarnation);
    let tombstoned = |uid: &Uid| fleet.processes.get(uid).is_some_and(|p| p.goal() == Goal::Gone);
    let alive = report.processes.iter().any(|p| p.phase.may_be_alive() && tombstoned(&p.u))
        || report.orphans.iter().any(|o| o.pid.is_some() && tombstoned(&o.u));
    same_instance && report.run.revision >= wanted && !alive
}

fn taint_id(taint: &Taint) -> String {
    format!("{}={}", taint.key, taint.value)
}

fn remember_taints(state: &mut NodeState, taints: &[Taint], now: Now) {
    let present: BTreeSet<String> =
        taints.iter().filter(|t| t.effect == TaintEffect::NoExecute).map(taint_id).collect();
    state.tainted_since.retain(|id, _| present.contains(id));
    for id in present {
        state.tainted_since.entry(id).or_insert(now.wall);
    }
}

fn running_here<'a>(
    fleet: &'a Fleet,
    node: &NodeName,
) -> impl Iterator<Item = (&'a Uid, &'a ProcessRecords)> + use<'a> {
    let bound = fleet.by_node.get(node).into_iter().flat_map(imbl::OrdSet::iter);
    bound.filter_map(|uid| fleet.processes.get_key_value(uid))
}

fn evict_all(plan: &mut Plan, fleet: &Fleet, node: &NodeName, now: Now, why: &str) {
    for (uid, records) in running_here(fleet, node) {
        if records.goal() < Goal::Gone {
            set_goal(plan, fleet, (uid, records), (Goal::Gone, GoalReason::Lost, why), now);
        }
    }
}

fn evict_lost(plan: &mut Plan, fleet: &Fleet, node: &NodeName, verdict: &LostVerdict, now: Now) {
    let taint = Taint { key: LOST_TAINT.to_owned(), value: String::new(), effect: TaintEffect::NoExecute };
    for (uid, records) in running_here(fleet, node) {
        if records.goal() == Goal::Gone {
            continue;
        }
        let tolerations = fleet.process_template(records).map(|t| t.tolerations.clone()).unwrap_or_default();
        match due(tolerates(&tolerations, &taint), verdict.at, now) {
            Due::Now => {
                let why = format!("node {node} is lost");
                set_goal(plan, fleet, (uid, records), (Goal::Gone, GoalReason::Lost, &why), now);
            }
            Due::In(ms) => plan.wake_in(ms),
            Due::Never => {}
        }
    }
}

fn evict_tainted(
    plan: &mut Plan,
    fleet: &Fleet,
    node: &NodeName,
    taints: &[Taint],
    state: &NodeState,
    now: Now,
) {
    let acting: Vec<&Taint> = taints.iter().filter(|t| t.effect == TaintEffect::NoExecute).collect();
    if acting.is_empty() || state.lost.is_some() {
        return;
    }
    for (uid, records) in running_here(fleet, node) {
        if records.goal() != Goal::Run {
            continue;
        }
        let Some(template) = fleet.process_template(records) else { continue };
        for taint in &acting {
            let since = state.tainted_since.get(&taint_id(taint)).copied().unwrap_or(now.wall);
            match due(tolerates(&template.tolerations, taint), since, now) {
                Due::Now => {
                    let why = format!("taint {} on {node} is not tolerated", taint_id(taint));
                    set_goal(plan, fleet, (uid, records), (Goal::Stop, GoalReason::Evicted, &why), now);
                    break;
                }
                Due::In(ms) => plan.wake_in(ms),
                Due::Never => {}
            }
        }
    }
}

enum Due {
    Now,
    In(u64),
    Never,
}

fn due(tolerated: Option<Option<Dur>>, since: Timestamp, now: Now) -> Due {
    match tolerated {
        None => Due::Now,
        Some(None) => Due::Never,
        Some(Some(time)) => match time.as_millis().saturating_sub(now.wall.since_ms(since)) {
            0 => Due::Now,
            left => Due::In(left),
        },
    }
}

fn set_goal(
    plan: &mut Plan,
    fleet: &Fleet,
    (uid, records): (&Uid, &ProcessRecords),
    (goal, reason, why): (Goal, GoalReason, &str),
    now: Now,
) {
    if plan.steps.len() >= GOALS_PER_PLAN {
        plan.wake_in(0);
        return;
    }
    let record = GoalRecord {
        goal,
        reason,
        actor: Actor::Controller(ControllerName::Node),
        epoch: None,
        at: now.wall,
    };
    plan.put(fleet, Key::ProcessGoal(*uid), Body::Goal(record));
    if let Some(spec) = &records.spec {
        let object = ObjectRef {
            kind: ostler_schemas::Kind::Process,
            namespace: Some(spec.namespace.clone()),
            name: spec.name.clone(),
        };
        let node = records.node().cloned();
        plan.tell.push(Telling {
            object,
            uid: Some(*uid),
            node,
            reason: Reason::Evicted,
            message: why.to_owned(),
        });
    }
}

/// Beats that show a store older than what agents have already seen: it was restored or rolled back without its
/// incarnation being raised. Returns the incarnation that is above every agent's.
///
/// A revision alone may be ahead only because this snapshot lags, so the caller gives `last`, the last revision of the
/// objects bucket read from the store *after* the beats were heard.
#[must_use]
pub fn regression(fleet: &Fleet, signals: &Signals, last: Revision) -> Option<u32> {
    let ours = fleet.store_incarnation();
    let newest_terms: BTreeMap<ControllerName, Revision> =
        fleet.terms.iter().map(|(c, t)| (*c, t.revision)).collect();
    let term_of = |c: ControllerName| newest_terms.get(&c).copied().unwrap_or_default();
    let held =
        signals.nodes.iter().filter_map(|(node, s)| Some((node, s.beat.as_ref()?))).flat_map(|(node, b)| {
            let key = |kind| Key::NodeDocument(node.clone(), kind);
            [
                (b.run, ControllerName::Scheduler, key(DocumentKind::Run)),
                (b.files, ControllerName::ConfigFile, key(DocumentKind::Files)),
                (b.secrets, ControllerName::Secret, key(DocumentKind::Secrets)),
            ]
        });
    let mut above = None;
    for (document, controller, key) in held {
        // A store that was rolled back and written to again has passed what the agent has seen, but not for this key.
        let passed = document.revision <= fleet.revision;
        let fell_back = passed && fleet.revision_of(&key).is_some_and(|r| r < document.revision);
        let seen = document.epoch.incarnation;
        let ahead = seen > ours
            || (seen == ours && (document.revision > last || fell_back))
            || (seen == ours && document.epoch.term > term_of(controller).max(last));
        if ahead {
            above = above.max(Some(seen.max(ours) + 1));
        }
    }
    above
}

#[cfg(test)]
mod tests;
