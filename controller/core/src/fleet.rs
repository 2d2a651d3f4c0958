//! The snapshot: everything that the store holds, typed, with indexes, as of one revision per bucket.
//!
//! A `Fleet` is cheap to clone (persistent maps), so a reader keeps an unchanging picture while the informer goes on.
//! Bodies that cannot be read are kept apart in [`Fleet::unreadable`]: such a key counts as present, is never taken
//! for absent and is never overwritten by a reconciler that did not understand it.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use ostler_schemas::codec::{self, DecodeError, Wire};
use ostler_schemas::key::{DocumentKind, StateSubject};
use ostler_schemas::spec::{NamespaceSpec, NodeSpec, ProcessTemplate, Spec};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::document::{FileSpec, FileVars, FilesDocument, RunDocument};
use ostler_schemas::v1::epoch::{Fence, Incarnation, Lease, Term};
use ostler_schemas::v1::object::{Labels, Object, SpecRevision};
use ostler_schemas::v1::process::{BindRecord, Goal, GoalRecord, ProcessSpecRecord, ProcessTemplateRecord};
use ostler_schemas::v1::report::{ProcessReport, Report};
use ostler_schemas::v1::secret::SecretsDocument;
use ostler_schemas::v1::state::{NodeState, PendingState, RolloutState};
use ostler_schemas::{
    Bucket, ControllerName, Generation, Key, Kind, Name, Namespace, NodeName, ObjectRef, Revision, Sha256,
    Uid,
};

/// A stored value and the write that stored it.
#[derive(Debug)]
pub struct Stored<T> {
    /// The value.
    pub value: Arc<T>,
    /// Revision of the write.
    pub revision: Revision,
    /// When the store took it.
    pub at: Timestamp,
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), revision: self.revision, at: self.at }
    }
}

impl<T> std::ops::Deref for Stored<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// The records of one process. Any of them may be missing: they are written at different times.
#[derive(Debug, Clone, Default)]
pub struct ProcessRecords {
    /// `p.<uid>.spec`.
    pub spec: Option<Stored<ProcessSpecRecord>>,
    /// `p.<uid>.tmpl`.
    pub template: Option<Stored<ProcessTemplateRecord>>,
    /// `p.<uid>.bind`.
    pub bind: Option<Stored<BindRecord>>,
    /// `p.<uid>.goal`.
    pub goal: Option<Stored<GoalRecord>>,
}

impl ProcessRecords {
    /// The goal: `run` as long as nobody said otherwise.
    #[must_use]
    pub fn goal(&self) -> Goal {
        self.goal.as_ref().map_or(Goal::Run, |g| g.goal)
    }

    /// The node, once it is bound.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        self.bind.as_ref().map(|b| &b.node)
    }

    fn is_empty(&self) -> bool {
        self.spec.is_none() && self.template.is_none() && self.bind.is_none() && self.goal.is_none()
    }
}

/// What lies under a `t.` key.
#[derive(Debug, Clone)]
pub enum StoredTemplate {
    /// A process template.
    Process(Arc<ProcessTemplate>),
    /// A file spec.
    File(Arc<FileSpec>),
    /// Values of a file.
    Vars(Arc<FileVars>),
}

/// One write, as an informer tells it.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a Key,
    /// Revision of the write.
    pub revision: Revision,
    /// When the store took it.
    pub at: Timestamp,
    /// The value; none for a deletion.
    pub value: Option<&'a [u8]>,
}

/// The snapshot.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// API objects.
    pub objects: OrdMap<ObjectRef, Stored<Object>>,
    /// Object by uid.
    pub by_uid: OrdMap<Uid, ObjectRef>,
    /// Kept specs.
    pub spec_revisions: OrdMap<(ObjectRef, Uid, Generation), Stored<SpecRevision>>,
    /// Processes.
    pub processes: OrdMap<Uid, ProcessRecords>,
    /// Processes by the uid of their owner.
    pub by_owner: OrdMap<Uid, OrdSet<Uid>>,
    /// Processes by their own name, made or applied by hand. Two share one while an old one still ends.
    pub by_name: OrdMap<ObjectRef, OrdSet<Uid>>,
    /// Bound processes by node.
    pub by_node: OrdMap<NodeName, OrdSet<Uid>>,
    /// Templates and file specs.
    pub templates: OrdMap<Sha256, StoredTemplate>,
    /// When each of them was last written: one that nothing refers to is collected by age.
    pub template_times: OrdMap<Sha256, Timestamp>,
    /// Run documents.
    pub run_documents: OrdMap<NodeName, Stored<RunDocument>>,
    /// Files documents.
    pub files_documents: OrdMap<NodeName, Stored<FilesDocument>>,
    /// Secrets documents.
    pub secrets_documents: OrdMap<NodeName, Stored<SecretsDocument>>,
    /// Verdicts on nodes.
    pub node_states: OrdMap<NodeName, Stored<NodeState>>,
    /// What is in force of Deployments and ConfigFiles.
    pub rollouts: OrdMap<(ControllerName, Uid), Stored<RolloutState>>,
    /// Why processes have no node.
    pub pending: OrdMap<Uid, Stored<PendingState>>,
    /// Leases.
    pub leases: OrdMap<ControllerName, Stored<Lease>>,
    /// Terms.
    pub terms: OrdMap<ControllerName, Stored<Term>>,
    /// Fences.
    pub fences: OrdMap<ControllerName, Stored<Fence>>,
    /// The store's incarnation.
    pub incarnation: Option<Stored<Incarnation>>,
    /// Reports.
    pub reports: OrdMap<NodeName, Stored<Report>>,
    /// The last write of every key, deletions included.
    pub revisions: OrdMap<Key, Revision>,
    /// Markers of deletions and when they were set.
    pub markers: OrdMap<Key, Timestamp>,
    /// Keys whose body this version cannot read, and why.
    pub unreadable: OrdMap<Key, String>,
    /// Revision of the objects bucket that the snapshot has reached.
    pub revision: Revision,
    /// Revision of the observed bucket that the snapshot has reached.
    pub observed: Revision,
}

impl Fleet {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one write. A write that is not newer than what is known of its key changes nothing.
    pub fn apply(&mut self, change: &Change<'_>) {
        let bucket = change.key.bucket();
        self.reached(bucket, change.revision);
        if self.revisions.get(change.key).is_some_and(|known| *known >= change.revision) {
            return;
        }
        self.revisions.insert(change.key.clone(), change.revision);
        self.unreadable.remove(change.key);
        match change.value {
            None => {
                self.markers.insert(change.key.clone(), change.at);
                self.forget_value(change.key);
            }
            Some(bytes) => {
                self.markers.remove(change.key);
                if let Err(error) = self.read(change, bytes) {
                    self.forget_value(change.key);
                    self.unreadable.insert(change.key.clone(), error.to_string());
                }
            }
        }
    }

    /// Notes that everything up to `revision` has been taken in.
    pub fn reached(&mut self, bucket: Bucket, revision: Revision) {
        match bucket {
            Bucket::Objects => self.revision = self.revision.max(revision),
            Bucket::Observed => self.observed = self.observed.max(revision),
            Bucket::Grants | Bucket::Blobs => {}
        }
    }

    /// Forgets all of one bucket: its store began anew.
    pub fn reset(&mut self, bucket: Bucket) {
        let keys: Vec<Key> = self.revisions.keys().filter(|k| k.bucket() == bucket).cloned().collect();
        for key in keys {
            self.forget(&key);
        }
        match bucket {
            Bucket::Objects => self.revision = Revision(0),
            Bucket::Observed => self.observed = Revision(0),
            Bucket::Grants | Bucket::Blobs => {}
        }
    }

    /// Forgets a key altogether: its marker was purged, or a relist did not show it.
    pub fn forget(&mut self, key: &Key) {
        self.forget_value(key);
        self.revisions.remove(key);
        self.markers.remove(key);
        self.unreadable.remove(key);
    }

    /// The last write of a key, deletions included: what a guard on the key expects.
    #[must_use]
    pub fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.revisions.get(key).copied()
    }

    fn read(&mut self, change: &Change<'_>, bytes: &[u8]) -> Result<(), DecodeError> {
        match change.key {
            Key::Object(object) => self.read_object(object, change, bytes)?,
            Key::SpecRevision(object, uid, generation) => {
                let index = (object.clone(), *uid, *generation);
                self.spec_revisions.insert(index, stored(change, bytes)?);
            }
            Key::Template(hash) => {
                self.templates.insert(*hash, read_template(bytes)?);
                self.template_times.insert(*hash, change.at);
            }
            Key::ProcessSpec(uid) => {
                let spec: Stored<ProcessSpecRecord> = stored(change, bytes)?;
                let (owner, name) = (spec.owner.uid, spec.process());
                self.with_process(uid, |p| p.spec = Some(spec));
                self.by_owner.entry(owner).or_default().insert(*uid);
                self.by_name.entry(name).or_default().insert(*uid);
            }
            Key::ProcessTemplate(uid) => {
                let template = stored(change, bytes)?;
                self.with_process(uid, |p| p.template = Some(template));
            }
            Key::ProcessBind(uid) => {
                let bind: Stored<BindRecord> = stored(change, bytes)?;
                let node = bind.node.clone();
                self.with_process(uid, |p| p.bind = Some(bind));
                self.by_node.entry(node).or_default().insert(*uid);
            }
            Key::ProcessGoal(uid) => {
                let goal = stored(change, bytes)?;
                self.with_process(uid, |p| p.goal = Some(goal));
            }
            Key::NodeDocument(node, DocumentKind::Run) => {
                self.run_documents.insert(node.clone(), stored(change, bytes)?);
            }
            Key::NodeDocument(node, DocumentKind::Files) => {
                self.files_documents.insert(node.clone(), stored(change, bytes)?);
            }
            Key::NodeDocument(node, DocumentKind::Secrets) => {
                self.secrets_documents.insert(node.clone(), stored(change, bytes)?);
            }
            Key::State(controller, subject) => self.read_state(*controller, subject, change, bytes)?,
            Key::Lease(c) => {
                self.leases.insert(*c, stored(change, bytes)?);
            }
            Key::Term(c) => {
                self.terms.insert(*c, stored(change, bytes)?);
            }
            Key::Fence(c) => {
                self.fences.insert(*c, stored(change, bytes)?);
            }
            Key::MetaIncarnation => self.incarnation = Some(stored(change, bytes)?),
            Key::Report(node) => {
                self.reports.insert(node.clone(), stored(change, bytes)?);
            }
            Key::MetaFormatFloor | Key::Status(_) | Key::Grant(_) | Key::BlobChunk(..) => {}
        }
        Ok(())
    }

    fn read_object(
        &mut self,
        object: &ObjectRef,
        change: &Change<'_>,
        bytes: &[u8],
    ) -> Result<(), DecodeError> {
        let value: Stored<Object> = stored(change, bytes)?;
        if let Some(before) = self.objects.get(object) {
            self.by_uid.remove(&before.metadata.uid);
        }
        self.by_uid.insert(value.metadata.uid, object.clone());
        self.objects.insert(object.clone(), value);
        Ok(())
    }

    fn read_state(
        &mut self,
        controller: ControllerName,
        subject: &StateSubject,
        change: &Change<'_>,
        bytes: &[u8],
    ) -> Result<(), DecodeError> {
        match (controller, subject) {
            (ControllerName::Node, StateSubject::Node(node)) => {
                self.node_states.insert(node.clone(), stored(change, bytes)?);
            }
            (ControllerName::Scheduler, StateSubject::Uid(uid)) => {
                self.pending.insert(*uid, stored(change, bytes)?);
            }
            (ControllerName::Deployment | ControllerName::ConfigFile, StateSubject::Uid(uid)) => {
                self.rollouts.insert((controller, *uid), stored(change, bytes)?);
            }
            (_, _) => {}
        }
        Ok(())
    }

    fn with_process(&mut self, uid: &Uid, edit: impl FnOnce(&mut ProcessRecords)) {
        let mut records = self.processes.get(uid).cloned().unwrap_or_default();
        edit(&mut records);
        if records.is_empty() {
            self.processes.remove(uid);
        } else {
            self.processes.insert(*uid, records);
        }
    }

    fn forget_value(&mut self, key: &Key) {
        match key {
            Key::Object(object) => {
                if let Some(before) = self.objects.remove(object) {
                    self.by_uid.remove(&before.metadata.uid);
                }
            }
            Key::SpecRevision(object, uid, generation) => {
                self.spec_revisions.remove(&(object.clone(), *uid, *generation));
            }
            Key::Template(hash) => {
                self.templates.remove(hash);
                self.template_times.remove(hash);
            }
            Key::ProcessSpec(uid) => {
                let spec = self.processes.get(uid).and_then(|p| p.spec.as_ref());
                if let Some((owner, name)) = spec.map(|s| (s.owner.uid, s.process())) {
                    remove_from(&mut self.by_owner, &owner, uid);
                    remove_from(&mut self.by_name, &name, uid);
                }
                self.with_process(uid, |p| p.spec = None);
            }
            Key::ProcessTemplate(uid) => self.with_process(uid, |p| p.template = None),
            Key::ProcessBind(uid) => {
                let node = self.processes.get(uid).and_then(|p| p.node().cloned());
                if let Some(node) = node {
                    remove_from(&mut self.by_node, &node, uid);
                }
                self.with_process(uid, |p| p.bind = None);
            }
            Key::ProcessGoal(uid) => self.with_process(uid, |p| p.goal = None),
            Key::NodeDocument(node, DocumentKind::Run) => {
                self.run_documents.remove(node);
            }
            Key::NodeDocument(node, DocumentKind::Files) => {
                self.files_documents.remove(node);
            }
            Key::NodeDocument(node, DocumentKind::Secrets) => {
                self.secrets_documents.remove(node);
            }
            Key::State(controller, subject) => self.forget_state(*controller, subject),
            Key::Lease(c) => {
                self.leases.remove(c);
            }
            Key::Term(c) => {
                self.terms.remove(c);
            }
            Key::Fence(c) => {
                self.fences.remove(c);
            }
            Key::MetaIncarnation => self.incarnation = None,
            Key::Report(node) => {
                self.reports.remove(node);
            }
            Key::MetaFormatFloor | Key::Status(_) | Key::Grant(_) | Key::BlobChunk(..) => {}
        }
    }

    fn forget_state(&mut self, controller: ControllerName, subject: &StateSubject) {
        match (controller, subject) {
            (ControllerName::Node, StateSubject::Node(node)) => {
                self.node_states.remove(node);
            }
            (ControllerName::Scheduler, StateSubject::Uid(uid)) => {
                self.pending.remove(uid);
            }
            (_, StateSubject::Uid(uid)) => {
                self.rollouts.remove(&(controller, *uid));
            }
            (_, StateSubject::Node(_)) => {}
        }
    }
}

fn remove_from<K: Ord + Clone>(index: &mut OrdMap<K, OrdSet<Uid>>, key: &K, uid: &Uid) {
    let Some(set) = index.get(key) else { return };
    let mut set = set.clone();
    set.remove(uid);
    if set.is_empty() {
        index.remove(key);
    } else {
        index.insert(key.clone(), set);
    }
}

fn stored<T: Wire>(change: &Change<'_>, bytes: &[u8]) -> Result<Stored<T>, DecodeError> {
    let value = Arc::new(codec::decode::<T>(bytes)?);
    Ok(Stored { value, revision: change.revision, at: change.at })
}

fn read_template(bytes: &[u8]) -> Result<StoredTemplate, DecodeError> {
    match codec::decode::<ProcessTemplate>(bytes) {
        Ok(template) => Ok(StoredTemplate::Process(Arc::new(template))),
        Err(DecodeError::OtherKind { .. }) => match codec::decode::<FileSpec>(bytes) {
            Ok(file) => Ok(StoredTemplate::File(Arc::new(file))),
            Err(DecodeError::OtherKind { .. }) => {
                codec::decode::<FileVars>(bytes).map(|vars| StoredTemplate::Vars(Arc::new(vars)))
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Questions that several reconcilers ask.
impl Fleet {
    /// The object of a node.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<(&Stored<Object>, &NodeSpec)> {
        let object = self.objects.get(&ObjectRef::node(name)?)?;
        match &object.value.spec {
            Spec::Node(spec) => Some((object, spec)),
            Spec::Namespace(_)
            | Spec::Process(_)
            | Spec::Deployment(_)
            | Spec::ConfigFile(_)
            | Spec::Secret(_) => None,
        }
    }

    /// What is asked of a namespace.
    #[must_use]
    pub fn namespace(&self, namespace: &Namespace) -> Option<NamespaceSpec> {
        let name = namespace.as_str().parse().ok()?;
        match &self.objects.get(&ObjectRef { kind: Kind::Namespace, namespace: None, name })?.value.spec {
            Spec::Namespace(spec) => Some(*spec),
            Spec::Node(_)
            | Spec::Process(_)
            | Spec::Deployment(_)
            | Spec::ConfigFile(_)
            | Spec::Secret(_) => None,
        }
    }

    /// Every registered node by name.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeName, &Stored<Object>, &NodeSpec)> {
        self.of_kind(Kind::Node).filter_map(|(object_ref, object)| match &object.value.spec {
            Spec::Node(spec) => object_ref.name.as_str().parse().ok().map(|name| (name, object, spec)),
            Spec::Namespace(_)
            | Spec::Process(_)
            | Spec::Deployment(_)
            | Spec::ConfigFile(_)
            | Spec::Secret(_) => None,
        })
    }

    /// Every object of a kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectRef, &Stored<Object>)> {
        let least: Option<Name> = "0".parse().ok();
        least
            .map(|name| ObjectRef { kind, namespace: None, name })
            .into_iter()
            .flat_map(move |from| self.objects.range(from..))
            .take_while(move |(object_ref, _)| object_ref.kind == kind)
    }

    /// The object with this uid.
    #[must_use]
    pub fn object_by_uid(&self, uid: &Uid) -> Option<&Stored<Object>> {
        self.objects.get(self.by_uid.get(uid)?)
    }

    /// Labels of a node: the API's, and those that the agent sets (`ostler/…`), which cannot override the API's.
    #[must_use]
    pub fn node_labels(&self, name: &NodeName) -> Labels {
        let mut labels = self.reports.get(name).map(|r| r.labels.clone()).unwrap_or_default();
        if let Some((object, _)) = self.node(name) {
            labels.extend(object.metadata.labels.clone());
        }
        labels
    }

    /// The processes of an owner.
    pub fn processes_of(&self, owner: &Uid) -> impl Iterator<Item = (&Uid, &ProcessRecords)> {
        let uids = self.by_owner.get(owner).into_iter().flat_map(OrdSet::iter);
        uids.filter_map(|uid| self.processes.get_key_value(uid))
    }

    /// What its node says of a process.
    #[must_use]
    pub fn process_report(&self, uid: &Uid) -> Option<&ProcessReport> {
        let node = self.processes.get(uid)?.node()?;
        self.reports.get(node)?.value.process(uid)
    }

    /// The template that a process should have.
    #[must_use]
    pub fn process_template(&self, records: &ProcessRecords) -> Option<&Arc<ProcessTemplate>> {
        match self.templates.get(&records.template.as_ref()?.template)? {
            StoredTemplate::Process(template) => Some(template),
            StoredTemplate::File(_) | StoredTemplate::Vars(_) => None,
        }
    }

    /// Whether a durable verdict says that the node is lost.
    #[must_use]
    pub fn is_lost(&self, node: &NodeName) -> bool {
        self.node_states.get(node).is_some_and(|s| s.lost.is_some())
    }

    /// Whether the run document of a node has an entry for the process.
    #[must_use]
    pub fn has_entry(&self, node: &NodeName, uid: &Uid) -> bool {
        self.run_documents.get(node).is_some_and(|d| d.entries.iter().any(|e| e.u == *uid))
    }

    /// The present store incarnation; 1 before anything was written.
    #[must_use]
    pub fn store_incarnation(&self) -> u32 {
        self.incarnation.as_ref().map_or(1, |i| i.n)
    }
}
