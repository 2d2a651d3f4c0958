//! Deployments: keeps N processes of one template, and exchanges them for those of a newer version.
//!
//! One look: the rollout's state takes in the spec; each process is compared with the template in force; [`moves`]
//! says what ends, what takes the template in place and how many are made; the rollout is judged by what the nodes
//! report. Everything is decided from the snapshot, so a look can be repeated or skipped at any point.
//!
//! A plan that makes processes always writes the state as well. Its guard makes sure that of two plans from one
//! snapshot only one takes effect; else both would make processes, under uids that cannot collide.

pub mod moves;

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::codec::EncodeError;
use ostler_schemas::key::StateSubject;
use ostler_schemas::spec::{DeploymentSpec, LimitAction, ProcessTemplate, Spec, StrategyType, selects};
use ostler_schemas::time::{Now, Timestamp};
use ostler_schemas::v1::object::{Object, OwnerReference};
use ostler_schemas::v1::process::{Goal, GoalReason, ProcessSpecRecord, ProcessTemplateRecord};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{Measure, ProcessPhase, ProcessReport};
use ostler_schemas::v1::state::{RolloutHold, RolloutPhase, RolloutState};
use ostler_schemas::{ControllerName, Key, Kind, Name, Namespace, NodeName, Sha256, Uid, Version};

use crate::fleet::{Fleet, ProcessRecords, StoredTemplate};
use crate::plan::{self, Body, Ids, Plan};
use crate::process::{self, STEPS, Wish};
use crate::references;
use crate::rollout::spread::Course;
use crate::rollout::{self, Sight, Terms, Turn};
use crate::scheduler::room::features_of;

use self::moves::{Fit, Member, Moves, Readiness, Situation};

/// A process that failed for good is replaced when it is at least this old: a template that fails at once on every
/// node costs one process each ten seconds per replica, not one per round trip.
const REPLACE_AGE_MS: u64 = 10_000;
/// How often a random suffix is drawn again when a name is taken: with 11.9 million suffixes even the second draw is
/// rare, so more would only hide a broken source of randomness.
const NAME_DRAWS: usize = 8;

/// Brings one Deployment about. The key is the uid of its object.
#[must_use]
pub fn reconcile(fleet: &Fleet, uid: &Uid, now: Now, ids: &mut dyn Ids) -> Plan {
    let mut plan = Plan::nothing();
    let Some(object) = fleet.object_by_uid(uid) else {
        plan.why.push("no such object".to_owned());
        return plan;
    };
    let Spec::Deployment(spec) = &object.value.spec else {
        plan.why.push(format!("{} is not a Deployment", object.object_ref()));
        return plan;
    };
    if object.is_deleting() {
        end_all(&mut plan, fleet, uid, now);
        return plan;
    }
    let state_key = Key::State(ControllerName::Deployment, StateSubject::Uid(*uid));
    if fleet.unreadable.contains_key(&state_key) {
        plan.why.push("its state was written by a newer version; nothing is decided".to_owned());
        return plan;
    }
    let known = fleet.rollouts.get(&(ControllerName::Deployment, *uid)).map(|s| &*s.value);
    let (state, started) = rollout::admit(known, object, now);
    let turn = rollout::heed(state.clone(), object, terms(fleet, object, spec, &state), now);
    let turn = begin_wave(turn, spec, now);
    let state = turn.state.clone();
    let told: Vec<(Reason, String)> = started.into_iter().chain(turn.tell.iter().cloned()).collect();
    if let Some(ms) = turn.wake_in_ms {
        plan.wake_in(ms);
    }
    let Some(wanted) = Wanted::of(fleet, object, state.target) else {
        plan.why.push(format!("the template of version {} is not kept any more", state.target));
        settle_all(&mut plan, fleet, uid, now);
        return plan;
    };
    let base = base(fleet, object, &state);
    let look = Look { fleet, object, spec, state, wanted, base, now };
    look.decide(&mut plan, known, told, ids);
    plan
}

fn terms<'a>(fleet: &Fleet, object: &Object, spec: &'a DeploymentSpec, state: &RolloutState) -> Terms<'a> {
    Terms { rules: &spec.rollout, can_revert: Wanted::of(fleet, object, state.last_good).is_some() }
}

fn begin_wave(mut turn: Turn, spec: &DeploymentSpec, now: Now) -> Turn {
    let course = Course::of_replicas(&spec.rollout, spec.replicas, &turn.state);
    rollout::start(&mut turn, &course, &spec.rollout, now);
    turn
}

/// What holds where the version in force has not come yet: the last good one.
fn base(fleet: &Fleet, object: &Object, state: &RolloutState) -> Option<Wanted> {
    let good = state.last_good;
    (good > Version(0) && good != state.target).then(|| Wanted::of(fleet, object, good)).flatten()
}

/// Deployments to look at again after a change of `key`.
#[must_use]
pub fn affected(fleet: &Fleet, key: &Key) -> Vec<Uid> {
    if let Key::State(ControllerName::Deployment, StateSubject::Uid(uid)) = key {
        return vec![*uid];
    }
    process::affected_workloads(fleet, key, Kind::Deployment)
}

/// Every Deployment.
#[must_use]
pub fn all(fleet: &Fleet) -> Vec<Uid> {
    fleet.of_kind(Kind::Deployment).map(|(_, object)| object.metadata.uid).collect()
}

fn end_all(plan: &mut Plan, fleet: &Fleet, uid: &Uid, now: Now) {
    settle_all(plan, fleet, uid, now);
    let wish = Wish { reason: GoalReason::Delete, by: ControllerName::Deployment };
    for (member, _) in fleet.processes_of(uid) {
        if plan.steps.len() >= STEPS {
            plan.wake_in(0);
            return;
        }
        process::end(plan, fleet, member, wish, now);
    }
    plan.why.push("deleted: its processes end".to_owned());
}

fn settle_all(plan: &mut Plan, fleet: &Fleet, uid: &Uid, now: Now) {
    for (member, _) in fleet.processes_of(uid) {
        if plan.steps.len() >= STEPS {
            plan.wake_in(0);
            return;
        }
        process::settle(plan, fleet, member, ControllerName::Deployment, now);
    }
}

/// The template in force.
struct Wanted {
    version: Version,
    template: ProcessTemplate,
    hash: Sha256,
    restart: Sha256,
}

impl Wanted {
    fn of(fleet: &Fleet, object: &Object, version: Version) -> Option<Self> {
        let spec = rollout::spec_of_version(fleet, object, version)?;
        let template = spec.template_to_store(&object.metadata.labels)?;
        let hash = Plan::nothing().template(fleet, &template).ok()?;
        let restart = template.restart_hash();
        Some(Self { version, template, hash, restart })
    }
}

/// One look at one Deployment.
struct Look<'a> {
    fleet: &'a Fleet,
    object: &'a Object,
    spec: &'a DeploymentSpec,
    state: RolloutState,
    wanted: Wanted,
    base: Option<Wanted>,
    now: Now,
}

impl Look<'_> {
    fn decide(
        &self,
        plan: &mut Plan,
        known: Option<&RolloutState>,
        told: Vec<(Reason, String)>,
        ids: &mut dyn Ids,
    ) {
        let uid = self.object.metadata.uid;
        let situation = self.situation();
        let moves = moves::next_moves(&situation);
        let sight = self.sight(&situation, &moves);
        let mut next = Turn::of(self.state.clone());
        self.take_baseline(&mut next.state);
        rollout::advance(&mut next, &sight, terms(self.fleet, self.object, self.spec, &self.state), self.now);
        rollout::tell(plan, self.object, told.into_iter().chain(next.tell));
        if let Some(ms) = next.wake_in_ms {
            plan.wake_in(ms);
        }
        let turned = next.state.target != self.state.target;
        let makes = if turned { 0 } else { moves.create + moves.create_base };
        if makes > 0 || known != Some(&next.state) {
            let key = Key::State(ControllerName::Deployment, StateSubject::Uid(uid));
            plan.put(self.fleet, key, Body::Rollout(Box::new(next.state)));
        }
        plan.why.push(format!("version {}: {}", self.wanted.version, sight.summary));
        if turned {
            // The moves were for the version that has just been given up.
            plan.wake_in(0);
        } else {
            self.enact(plan, &moves, ids);
        }
        settle_all(plan, self.fleet, &uid, self.now);
        if !plan.is_idle() {
            process::guard_object(plan, self.fleet, self.object);
        }
        self.wake_for_replacements(plan);
    }

    fn enact(&self, plan: &mut Plan, moves: &Moves, ids: &mut dyn Ids) {
        for (uid, reason) in &moves.end {
            if plan.steps.len() >= STEPS {
                plan.wake_in(0);
                return;
            }
            let wish = Wish { reason: *reason, by: ControllerName::Deployment };
            process::end(plan, self.fleet, uid, wish, self.now);
        }
        let made = self.adopt(plan, &moves.adopt).and_then(|()| self.create(plan, moves, ids));
        if let Err(error) = made {
            plan.why.push(format!("its template cannot be stored: {error}"));
        }
    }

    fn adopt(&self, plan: &mut Plan, uids: &[Uid]) -> Result<(), EncodeError> {
        for uid in uids {
            if plan.steps.len() >= STEPS {
                plan.wake_in(0);
                break;
            }
            let template = references::process_template(plan, self.fleet, &self.wanted.template, self.now)?;
            let record = ProcessTemplateRecord { template, version: self.wanted.version };
            plan.put(self.fleet, Key::ProcessTemplate(*uid), Body::ProcessTemplate(record));
        }
        Ok(())
    }

    fn create(&self, plan: &mut Plan, moves: &Moves, ids: &mut dyn Ids) -> Result<(), EncodeError> {
        let mut taken: BTreeSet<Name> = self
            .fleet
            .processes_of(&self.object.metadata.uid)
            .filter_map(|(_, p)| p.spec.as_ref().map(|s| s.name.clone()))
            .collect();
        self.make(plan, (&self.wanted, moves.create), &mut taken, ids)?;
        match &self.base {
            Some(base) => self.make(plan, (base, moves.create_base), &mut taken, ids),
            None => Ok(()),
        }
    }

    fn make(
        &self,
        plan: &mut Plan,
        (wanted, count): (&Wanted, u32),
        taken: &mut BTreeSet<Name>,
        ids: &mut dyn Ids,
    ) -> Result<(), EncodeError> {
        if count == 0 {
            return Ok(());
        }
        let template = references::process_template(plan, self.fleet, &wanted.template, self.now)?;
        for _ in 0..count {
            if plan.steps.len() >= STEPS {
                plan.wake_in(0);
                break;
            }
            let Some(name) = self.fresh_name(wanted, taken, ids) else {
                plan.why.push("no free name for a process".to_owned());
                break;
            };
            let uid = ids.uid();
            let record = ProcessTemplateRecord { template, version: wanted.version };
            plan.put(self.fleet, Key::ProcessSpec(uid), Body::ProcessSpec(self.spec_record(name)));
            plan.put(self.fleet, Key::ProcessTemplate(uid), Body::ProcessTemplate(record));
        }
        Ok(())
    }

    fn spec_record(&self, name: Name) -> ProcessSpecRecord {
        let metadata = &self.object.metadata;
        ProcessSpecRecord {
            owner: OwnerReference { kind: Kind::Deployment, name: metadata.name.clone(), uid: metadata.uid },
            namespace: metadata.namespace.clone().unwrap_or_else(Namespace::default_namespace),
            name,
            ordinal: None,
            at: self.now.wall,
        }
    }

    fn fresh_name(&self, wanted: &Wanted, taken: &mut BTreeSet<Name>, ids: &mut dyn Ids) -> Option<Name> {
        let hash = plan::name_hash(&wanted.restart);
        for _ in 0..NAME_DRAWS {
            let name = format!("{}-{hash}-{}", self.object.metadata.name, plan::suffix(ids)).parse().ok()?;
            if taken.insert(Name::clone(&name)) {
                return Some(name);
            }
        }
        None
    }

    fn situation(&self) -> Situation {
        let (surge, unavailable) = self.spec.strategy.bounds(self.spec.replicas);
        let mut restarts = BTreeMap::new();
        let mut situation = Situation {
            replicas: self.spec.replicas,
            surge,
            unavailable,
            recreate: self.spec.strategy.kind == StrategyType::Recreate,
            frozen: rollout::is_frozen(self.state.phase),
            quota: self.quota(),
            has_base: self.base.is_some(),
            ..Situation::default()
        };
        for (uid, records) in self.fleet.processes_of(&self.object.metadata.uid) {
            let Some(spec) = &records.spec else { continue };
            let fit = self.fit(uid, records, &mut restarts);
            match records.goal() {
                Goal::Run => situation.members.push(Member {
                    uid: *uid,
                    fit,
                    readiness: self.readiness(uid, records),
                    at: spec.at,
                    replace: self.is_to_be_replaced(uid, records, spec.at),
                }),
                Goal::Stop if fit == Fit::Outdated => situation.ending_outdated += 1,
                Goal::Stop | Goal::Gone => {}
            }
        }
        situation
    }

    /// How many may have the version in force: those of the waves that have started. None means all.
    fn quota(&self) -> Option<u32> {
        let state = &self.state;
        match state.phase {
            RolloutPhase::Progressing | RolloutPhase::Baking => {}
            // While a bad version is left where it is, what is missing is made from the last good one.
            RolloutPhase::Paused if state.hold == Some(RolloutHold::Failure) || state.hold.is_none() => {
                return self.base.as_ref().map(|_| 0);
            }
            RolloutPhase::Paused => {}
            RolloutPhase::Complete
            | RolloutPhase::RollingBack
            | RolloutPhase::RolledBack
            | RolloutPhase::Failed
            | RolloutPhase::Unknown => return None,
        }
        let started = state.wave.saturating_sub(u32::from(state.wave_started_at.is_none()));
        if started >= state.waves && state.wave_started_at.is_some() {
            return None;
        }
        let end = usize::try_from(started)
            .ok()
            .and_then(|started| self.spec.rollout.waves.get(started.checked_sub(1)?));
        Some(end.map_or(0, |end| end.round_up(self.spec.replicas)))
    }

    /// What the processes of the versions before take, on average, before the first of this one runs.
    fn take_baseline(&self, state: &mut RolloutState) {
        let rules = &self.spec.rollout;
        let asks = rules.max_memory_increase.is_some() || rules.max_error_line_increase.is_some();
        if !asks || state.baseline.is_some() || state.phase != RolloutPhase::Progressing {
            return;
        }
        let before = self.fleet.processes_of(&self.object.metadata.uid).filter_map(|(uid, _)| {
            self.report(uid).filter(|report| report.v != self.wanted.version)?.measure
        });
        let before: Vec<Measure> = before.collect();
        let count = before.len() as u64;
        let mean = |of: fn(&Measure) -> u64| {
            before.iter().map(of).fold(0_u64, u64::saturating_add).checked_div(count)
        };
        state.baseline = mean(|m| m.memory)
            .zip(mean(|m| m.error_lines))
            .map(|(memory, error_lines)| Measure { memory, error_lines });
    }

    fn report(&self, uid: &Uid) -> Option<&ProcessReport> {
        self.fleet.process_report(uid)
    }

    fn fit(
        &self,
        uid: &Uid,
        records: &ProcessRecords,
        restarts: &mut BTreeMap<Sha256, Option<Sha256>>,
    ) -> Fit {
        let Some(record) = &records.template else {
            // What this version cannot read is left as it is.
            let unreadable = self.fleet.unreadable.contains_key(&Key::ProcessTemplate(*uid));
            return if unreadable { Fit::Current } else { Fit::InPlace };
        };
        if record.template == self.wanted.hash && record.version == self.wanted.version {
            return Fit::Current;
        }
        let stored = match self.fleet.templates.get(&record.template) {
            Some(StoredTemplate::Process(template)) => Some(template),
            Some(StoredTemplate::File(_) | StoredTemplate::Vars(_)) | None => None,
        };
        let restart = *restarts
            .entry(record.template)
            .or_insert_with(|| stored.map(|template| template.restart_hash()));
        let failed = self.report(uid).is_some_and(|r| r.phase == ProcessPhase::Failed);
        match stored {
            Some(template)
                if restart == Some(self.wanted.restart) && !failed && self.may_stay(records, template) =>
            {
                Fit::InPlace
            }
            Some(_) | None => Fit::Outdated,
        }
    }

    /// Whether the node of a process still is where the changed template wants it. Only a change of the template moves
    /// a process, never a change of the node's labels.
    fn may_stay(&self, records: &ProcessRecords, had: &ProcessTemplate) -> bool {
        let Some(node) = records.node() else { return true };
        let wants = &self.wanted.template;
        let selector_ok = had.node_selector == wants.node_selector
            || selects(&wants.node_selector, &self.fleet.node_labels(node));
        let name_ok =
            had.node_name == wants.node_name || wants.node_name.as_ref().is_none_or(|name| name == node);
        selector_ok && name_ok && self.can_host(node, had)
    }

    /// Whether the host can do what the changed template asks of it and the present one does not. A limit that is
    /// changed in place where nothing enforces it would be said and not be so.
    fn can_host(&self, node: &NodeName, had: &ProcessTemplate) -> bool {
        let had = had.features();
        let Some(report) = self.fleet.reports.get(node) else { return true };
        let has = features_of(report);
        self.wanted.template.features().difference(&had).all(|feature| has.contains(feature))
    }

    fn readiness(&self, uid: &Uid, records: &ProcessRecords) -> Readiness {
        let Some(node) = records.node() else { return Readiness::Unplaced };
        match self.report(uid) {
            Some(report) if !self.fleet.is_lost(node) => {
                if report.ready {
                    Readiness::Ready
                } else {
                    Readiness::NotReady
                }
            }
            Some(_) | None => Readiness::Unknown,
        }
    }

    fn is_to_be_replaced(&self, uid: &Uid, records: &ProcessRecords, made: Timestamp) -> bool {
        let replaces = self
            .fleet
            .process_template(records)
            .is_some_and(|template| template.start_limit_action == LimitAction::Replace);
        let failed = self.report(uid).is_some_and(|r| r.phase == ProcessPhase::Failed);
        replaces && failed && self.now.wall.since_ms(made) >= REPLACE_AGE_MS
    }

    /// A failed process that is too young to be replaced is looked at again when it is old enough.
    fn wake_for_replacements(&self, plan: &mut Plan) {
        for (uid, records) in self.fleet.processes_of(&self.object.metadata.uid) {
            let failed = self.report(uid).is_some_and(|r| r.phase == ProcessPhase::Failed);
            if let Some(spec) = records.spec.as_ref().filter(|_| failed && records.goal() == Goal::Run) {
                let age = self.now.wall.since_ms(spec.at);
                if age < REPLACE_AGE_MS {
                    plan.wake_in(REPLACE_AGE_MS - age);
                }
            }
        }
    }

    /// What is to be seen of the version in force.
    fn sight(&self, situation: &Situation, moves: &Moves) -> Sight {
        let current = situation.members.iter().filter(|m| m.fit == Fit::Current);
        let mut sight = Sight::default();
        let mut ready = 0;
        let mut newest = self.state.started_at.unwrap_or(self.now.wall);
        for member in current {
            newest = newest.max(member.at);
            let Some(report) = self.report(&member.uid) else { continue };
            sight.exits = sight.exits.saturating_add(report.exits);
            let runs_it = report.t == Some(self.wanted.hash);
            if let Some(failure) = self.failure_of(&member.uid, report) {
                sight.failures.add(|| failure);
            } else if member.readiness == Readiness::Ready && runs_it {
                ready += 1;
            }
        }
        let total = situation.members.len();
        let quota = situation.quota.map_or(situation.replicas, |quota| quota.min(situation.replicas));
        let is_complete = u32::try_from(total) == Ok(situation.replicas);
        sight.settled =
            moves.is_idle() && (is_complete || (situation.quota.is_some() && self.base.is_none()));
        sight.members = quota;
        sight.well = ready;
        sight.waiting = quota.saturating_sub(ready.saturating_add(sight.failures.count));
        newest = newest.max(self.state.wave_started_at.unwrap_or(newest));
        let is_well = sight.settled && sight.waiting == 0 && sight.failures.count == 0;
        sight.waiting_since = (!is_well && moves.is_idle()).then_some(newest);
        sight.summary = format!(
            "{ready} of {quota} ready, {total} should run; {} to end, {} to make",
            moves.end.len(),
            moves.create + moves.create_base
        );
        sight
    }

    fn failure_of(&self, uid: &Uid, report: &ProcessReport) -> Option<String> {
        if report.v != self.wanted.version {
            return None;
        }
        let name = self.fleet.processes.get(uid)?.spec.as_ref()?.name.clone();
        let said = report.message.as_deref().unwrap_or("no reason given");
        let probe_failed = is_failed_probe(self.state.phase, report);
        if report.phase == ProcessPhase::Failed {
            Some(format!("process {name} failed: {said}"))
        } else if probe_failed {
            Some(format!("process {name} was not ready while baking: {said}"))
        } else {
            let (before, now) = self.state.baseline.zip(report.measure)?;
            let excess = rollout::excess(&self.spec.rollout, &before, &now);
            let excess = excess.filter(|_| self.state.phase == RolloutPhase::Baking)?;
            Some(format!("process {name}: {excess}"))
        }
    }
}

/// Whether what a node says of a process is a failure of its version (CONTRACT.md section 3): it was given up, or its
/// probe failed while baking. Exits while baking are counted over all processes, and whether one is ready in time is
/// for the deadline to say; one that has no place yet has not failed.
#[must_use]
pub fn is_failure(phase: RolloutPhase, report: &ProcessReport) -> bool {
    report.phase == ProcessPhase::Failed || is_failed_probe(phase, report)
}

fn is_failed_probe(phase: RolloutPhase, report: &ProcessReport) -> bool {
    phase == RolloutPhase::Baking && !report.ready && report.reason == Some(Reason::ProbeFailed)
}

#[cfg(test)]
mod tests;
