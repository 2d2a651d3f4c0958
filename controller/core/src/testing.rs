//! A small world for tests of reconcilers: a store that takes plans, agents that follow their documents, a clock.
//!
//! The store checks every guard, as the real one does, and audits the invariants after each write. The agents are
//! scripted by the second word of a template's command ([`agent`]). Nothing here is concurrent: whatever order matters
//! is chosen by the test.

pub(crate) mod agent;

use std::collections::BTreeMap;

use ostler_schemas::codec::{Wire, encode};
use ostler_schemas::sealing::{PublicKey, Sealed};
use ostler_schemas::spec::{ContentRef, DeploymentSpec, NodeSpec, Spec};
use ostler_schemas::time::{Mono, Now, Timestamp};
use ostler_schemas::v1::beat::Beat;
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::object::{Metadata, Object, SpecRevision};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::state::RolloutState;
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::{ControllerName, Generation, Key, Kind, NodeName, ObjectRef, Revision, Uid, Version};

use crate::configfile::Subject;
use crate::fleet::{Change, Fleet, ProcessRecords};
use crate::liveness::{Signal, Signals};
use crate::plan::{Act, BatchContext, Ids, Plan};
use crate::status::rig;
use crate::{audit, configfile, deployment, garbage, node, process, scheduler, secret};

use self::agent::Agent;

/// Ids from a counter.
#[derive(Debug, Clone, Default)]
pub(crate) struct CountedIds(u64);

impl Ids for CountedIds {
    fn uid(&mut self) -> Uid {
        self.0 += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.0.to_be_bytes());
        bytes[0] = 0xf0;
        Uid::from_bytes(bytes)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 += 1;
        // SplitMix64: neighbours in the count are strangers in the outcome.
        let mut z = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).checked_rem(bound).unwrap_or(0)
    }
}

/// Seals nothing: shows what would be given to whom.
pub(crate) struct OpenSealer;

impl secret::Sealer for OpenSealer {
    fn give(
        &self,
        secret: &ObjectRef,
        values: &BTreeMap<&str, &ostler_schemas::spec::SecretValue>,
        (node, to): (&NodeName, PublicKey),
    ) -> Result<Sealed, String> {
        let keys: Vec<&str> = values.keys().copied().collect();
        let broken = values.values().any(|value| value.sealed.is_none());
        let bytes = format!("{secret} {} for {node}", keys.join(",")).into_bytes();
        if broken { Err("it cannot be opened".to_owned()) } else { Ok(Sealed { to, bytes }) }
    }
}

/// One reconciler's look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    Deployment(Uid),
    Process(Uid),
    Config(Subject),
    Secret(NodeName),
    Scheduler,
    Node(String),
    Garbage,
}

/// The world.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) signals: Signals,
    pub(crate) agents: BTreeMap<String, Agent>,
    pub(crate) told: Vec<(Reason, String)>,
    pub(crate) ids: CountedIds,
    wall: u64,
    revision: u64,
    observed: u64,
    batch: u32,
    term: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            fleet: Fleet::new(),
            signals: Signals::default(),
            agents: BTreeMap::new(),
            told: Vec::new(),
            ids: CountedIds::default(),
            wall: rig::NOW.0,
            revision: 0,
            observed: 0,
            batch: 0,
            term: 1,
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: Mono(self.wall - rig::NOW.0), wall: Timestamp(self.wall) }
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.wall += ms;
    }

    fn write(&mut self, key: &Key, value: Option<&[u8]>) {
        let counter = match key.bucket() {
            ostler_schemas::Bucket::Observed => &mut self.observed,
            ostler_schemas::Bucket::Objects
            | ostler_schemas::Bucket::Grants
            | ostler_schemas::Bucket::Blobs => &mut self.revision,
        };
        *counter += 1;
        let change = Change { key, revision: Revision(*counter), at: Timestamp(self.wall), value };
        self.fleet.apply(&change);
    }

    pub(crate) fn put<T: Wire>(&mut self, key: &Key, value: &T) {
        let bytes = encode(value).expect("encodes");
        self.write(key, Some(&bytes));
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        self.write(key, None);
    }

    /// Commits a plan as one batch: all of it, or nothing when a guard does not hold. Audits the step.
    pub(crate) fn commit(&mut self, plan: &Plan) -> bool {
        let guards =
            plan.steps.iter().map(|s| (&s.key, s.expect)).chain(plan.reads.iter().map(|(k, r)| (k, *r)));
        for (key, expect) in guards {
            if self.fleet.revision_of(key) != expect {
                return false;
            }
        }
        assert_eq!(plan.keys().len(), plan.steps.len(), "no key twice");
        assert!(plan.steps.len() <= process::STEPS + 2, "{} steps", plan.steps.len());
        let before = self.fleet.clone();
        self.batch += 1;
        let epoch = Epoch { incarnation: 1, term: Revision(self.term), nonce: 7 };
        let context = BatchContext { epoch, batch: self.batch };
        for step in &plan.steps {
            match &step.act {
                Act::Put(body) => self.write(&step.key, Some(&body.render(&context).expect("renders"))),
                Act::Delete => self.write(&step.key, None),
            }
        }
        assert!(self.fleet.unreadable.is_empty(), "{:?}", self.fleet.unreadable);
        self.told.extend(plan.tell.iter().map(|t| (t.reason, t.message.clone())));
        let mut found = audit::check_step(&before, &self.fleet);
        found.extend(audit::check(&self.fleet));
        assert!(found.is_empty(), "{found:#?}\nby {plan:#?}");
        true
    }

    /// The plan of one look at a snapshot of this world.
    pub(crate) fn plan(&mut self, look: &Look) -> Plan {
        let fleet = self.fleet.clone();
        self.plan_on(&fleet, look)
    }

    /// The plan of one look at some snapshot, which may be older.
    pub(crate) fn plan_on(&mut self, fleet: &Fleet, look: &Look) -> Plan {
        let now = self.now();
        match look {
            Look::Deployment(uid) => deployment::reconcile(fleet, uid, now, &mut self.ids),
            Look::Process(uid) => process::reconcile(fleet, uid, now, &mut self.ids),
            Look::Config(subject) => configfile::reconcile(fleet, subject, now, &mut self.ids),
            Look::Secret(node) => secret::reconcile(fleet, node, &OpenSealer),
            Look::Scheduler => scheduler::reconcile(fleet, &self.signals, now),
            Look::Node(name) => node::reconcile(fleet, &self.signals, &rig::node_name(name), now),
            Look::Garbage => garbage::reconcile(fleet, now).plan,
        }
    }

    /// Looks, and commits what was planned. Says whether something was written.
    pub(crate) fn look(&mut self, look: &Look) -> bool {
        let plan = self.plan(look);
        !plan.is_idle() && self.commit(&plan)
    }

    /// Every look there is.
    pub(crate) fn looks(&self) -> Vec<Look> {
        let mut looks: Vec<Look> = deployment::all(&self.fleet).into_iter().map(Look::Deployment).collect();
        looks.extend(process::all(&self.fleet).into_iter().map(Look::Process));
        looks.extend(configfile::all(&self.fleet).into_iter().map(Look::Config));
        looks.push(Look::Scheduler);
        looks.extend(secret::all(&self.fleet).into_iter().map(Look::Secret));
        looks.extend(node::all(&self.fleet).into_iter().map(|n| Look::Node(n.to_string())));
        looks.push(Look::Garbage);
        looks
    }

    /// One second of life: every look, every agent.
    pub(crate) fn tick(&mut self) -> bool {
        let mut busy = false;
        for look in self.looks() {
            busy |= self.look(&look);
        }
        busy |= self.agents_act();
        self.reap();
        self.tidy();
        self.pass_ms(1000);
        busy
    }

    /// Lets seconds pass until nothing happens for longer than a bake, or `most` seconds.
    pub(crate) fn settle(&mut self, most: u32) {
        let mut quiet = 0;
        for _ in 0..most {
            quiet = if self.tick() { 0 } else { quiet + 1 };
            if quiet > 25 {
                let found = audit::check_quiet(&self.fleet);
                assert!(found.is_empty(), "{found:#?}");
                for look in self.looks() {
                    let plan = self.plan(&look);
                    assert!(plan.is_idle(), "{look:?} of a quiet world plans {plan:#?}");
                }
                return;
            }
        }
        panic!("still busy after {most} seconds: {:#?}", self.told.iter().rev().take(20).collect::<Vec<_>>());
    }

    /// What a sweep wants outside the lane.
    pub(crate) fn tidy(&mut self) {
        let sweep = garbage::reconcile(&self.fleet, self.now());
        for (key, revision) in sweep.observed {
            if self.fleet.revision_of(&key) == Some(revision) {
                self.delete(&key);
            }
        }
        for (key, revision) in sweep.purges {
            assert_eq!(self.fleet.revision_of(&key), Some(revision), "{key}");
            self.fleet.forget(&key);
        }
    }

    /// What the API does at the end of deletions.
    fn reap(&mut self) {
        for decision in crate::admission::reap(&self.fleet) {
            for write in decision.writes {
                self.delete(&write.key);
            }
        }
    }

    pub(crate) fn agents_act(&mut self) -> bool {
        let names: Vec<String> = self.agents.keys().cloned().collect();
        names.iter().filter(|name| self.agent_acts(name)).count() > 0
    }

    /// One agent reads its documents, moves its processes and files on, and reports what changed.
    pub(crate) fn agent_acts(&mut self, name: &str) -> bool {
        let Some(agent) = self.agents.get_mut(name) else { return false };
        if !agent.alive {
            return false;
        }
        let node = rig::node_name(name);
        let Some(report) = agent.act(&self.fleet, &node, Timestamp(self.wall)) else { return false };
        self.put(&Key::Report(node), &report);
        true
    }

    /// A registered node that beats and has reported.
    pub(crate) fn add_node(&mut self, name: &str) {
        let uid = self.ids.uid();
        self.apply(rig::object(Kind::Node, name), uid, Spec::Node(NodeSpec::default()));
        self.agents.insert(name.to_owned(), Agent::new());
        self.heard(name, NodePhase::Ready);
        self.agent_acts(name);
    }

    /// The host is gone for good, and somebody deletes its node.
    pub(crate) fn remove_node(&mut self, name: &str) {
        if self.agents.remove(name).is_some() {
            self.signals.nodes.remove(&rig::node_name(name));
            self.delete(&Key::Object(rig::object(Kind::Node, name)));
        }
    }

    pub(crate) fn heard(&mut self, name: &str, phase: NodePhase) {
        let incarnation = self.agents.get(name).map_or(0, |a| a.incarnation);
        let beat = Beat { holder: true, incarnation, ..Beat::default() };
        let signal = Signal {
            phase,
            heard: Some(Timestamp(self.wall)),
            beat: Some(std::sync::Arc::new(beat)),
            clock_offset: Some(0),
            duplicate: false,
            silent_ms: 5000,
        };
        self.signals.nodes.insert(rig::node_name(name), signal);
    }

    /// The host goes dark; its processes live on unseen.
    pub(crate) fn lose(&mut self, name: &str) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.alive = false;
            self.heard(name, NodePhase::Lost);
        }
    }

    pub(crate) fn bring_back(&mut self, name: &str) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.alive = true;
            self.heard(name, NodePhase::Ready);
        }
    }

    /// What the API writes: object and kept revision, version and generation risen as they should.
    pub(crate) fn apply(&mut self, name: ObjectRef, uid: Uid, spec: Spec) {
        let known = self.fleet.objects.get(&name).map(|o| o.value.metadata.clone());
        let known_spec = self.fleet.objects.get(&name).map(|o| o.value.spec.clone());
        let rises = match (&known_spec, &spec) {
            (Some(Spec::Deployment(a)), Spec::Deployment(b)) => a.template != b.template,
            (Some(Spec::Process(a)), Spec::Process(b)) => a != b,
            (Some(Spec::ConfigFile(a)), Spec::ConfigFile(b)) => b.has_content() && a.is_new_version(b),
            (None, Spec::ConfigFile(file)) => file.has_content(),
            (None, Spec::Deployment(_) | Spec::Process(_) | Spec::Secret(_)) => true,
            (_, _) => false,
        };
        let mut metadata = known.unwrap_or_else(|| fresh_metadata(&name, uid, Timestamp(self.wall)));
        metadata.generation = Generation(metadata.generation.0 + 1);
        metadata.version = Version(metadata.version.0 + u64::from(rises));
        self.store_object(name, &Object { metadata, spec });
    }

    fn store_object(&mut self, name: ObjectRef, object: &Object) {
        let metadata = &object.metadata;
        let revision = SpecRevision {
            generation: metadata.generation,
            version: metadata.version,
            applied: metadata.applied.clone(),
            spec: object.spec.clone(),
        };
        self.put(&Key::SpecRevision(name.clone(), metadata.uid, metadata.generation), &revision);
        self.put(&Key::Object(name), object);
    }

    pub(crate) fn edit_object(&mut self, name: &ObjectRef, edit: impl FnOnce(&mut Object)) {
        let mut object = Object::clone(&self.fleet.objects[name].value);
        edit(&mut object);
        self.put(&Key::Object(name.clone()), &object);
    }

    pub(crate) fn ask_deletion(&mut self, name: &ObjectRef) {
        let at = Timestamp(self.wall);
        self.edit_object(name, |o| o.metadata.deletion_timestamp = Some(at));
    }

    pub(crate) fn deployment(&mut self, name: &str, spec: DeploymentSpec) -> Uid {
        let object = rig::object(Kind::Deployment, name);
        let known = self.fleet.objects.get(&object).map(|o| o.value.metadata.uid);
        let uid = known.unwrap_or_else(|| self.ids.uid());
        self.apply(object, uid, Spec::Deployment(Box::new(spec)));
        uid
    }

    pub(crate) fn edit_deployment(&mut self, name: &str, edit: impl FnOnce(&mut DeploymentSpec)) {
        let object = rig::object(Kind::Deployment, name);
        let Some(Spec::Deployment(spec)) = self.fleet.objects.get(&object).map(|o| o.value.spec.clone())
        else {
            panic!("no Deployment {name}")
        };
        let mut spec = *spec;
        edit(&mut spec);
        self.deployment(name, spec);
    }

    pub(crate) fn state(&self, controller: ControllerName, uid: Uid) -> RolloutState {
        self.fleet.rollouts.get(&(controller, uid)).map(|s| RolloutState::clone(&s.value)).unwrap_or_default()
    }

    /// Processes of an owner that should run.
    pub(crate) fn running(&self, owner: Uid) -> Vec<(Uid, ProcessRecords)> {
        let all = self.fleet.processes_of(&owner).map(|(u, p)| (*u, p.clone()));
        all.filter(|(_, p)| p.goal() == Goal::Run).collect()
    }

    /// Of these, ready ones at their own template.
    pub(crate) fn ready(&self, owner: Uid) -> usize {
        let ready = |(uid, p): &&(Uid, ProcessRecords)| {
            let wanted = p.template.as_ref().map(|t| t.template);
            self.fleet.process_report(uid).is_some_and(|r| r.ready && r.t == wanted)
        };
        self.running(owner).iter().filter(ready).count()
    }

    pub(crate) fn was_told(&self, reason: Reason) -> usize {
        self.told.iter().filter(|(r, _)| *r == reason).count()
    }
}

fn fresh_metadata(name: &ObjectRef, uid: Uid, at: Timestamp) -> Metadata {
    Metadata {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
        uid,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        generation: Generation(0),
        version: Version(0),
        creation_timestamp: at,
        deletion_timestamp: None,
        finalizers: Vec::new(),
        owner_references: Vec::new(),
        applied: rig::applied("apply"),
        touched: BTreeMap::new(),
        order: None,
    }
}

/// Content that is told apart by its size; agents refuse to write sizes from [`agent::BAD_SIZE`] on.
pub(crate) fn content(size: u64) -> ContentRef {
    ContentRef { sha256: ostler_schemas::hash::sha256(&size.to_be_bytes()), size }
}
