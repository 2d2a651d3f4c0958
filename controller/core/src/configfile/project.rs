//! The files document of one node: a pure projection of ConfigFiles, their versions in force and the node's labels.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::codec::{self, EncodeError};
use ostler_schemas::spec::{OnRemove, Spec, Taken, features};
use ostler_schemas::time::Now;
use ostler_schemas::v1::document::{FileEntry, FileGoal, FileSpec, FileVars, FilesDocument, NodeFacts};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{FileState, Report};
use ostler_schemas::{DocumentKind, Key, NodeName, Sha256, Uid};

use crate::fleet::{Fleet, Stored, StoredTemplate};
use crate::plan::{Body, Plan, Telling};
use crate::process::{guard_object, holds};
use crate::references;

use super::values::{facts_of, values_of};
use super::{InForce, configfiles, in_force_on, selects_node, seniority};

/// Brings the files document of one node up to date.
pub(super) fn reconcile(fleet: &Fleet, node: &NodeName, now: Now) -> Plan {
    let mut plan = Plan::nothing();
    let key = Key::NodeDocument(node.clone(), DocumentKind::Files);
    if fleet.node(node).is_none() {
        plan.why.push("the node is not registered".to_owned());
        return plan;
    }
    if fleet.unreadable.contains_key(&key) {
        plan.why.push("the document was written by a newer version; it is left alone".to_owned());
        return plan;
    }
    let mut draft =
        Draft { fleet, node, now, entries: BTreeMap::new(), taken: Taken::default(), facts: None, plan };
    draft.claims();
    draft.carry_over();
    draft.finish(key)
}

/// A document in the making.
struct Draft<'a> {
    fleet: &'a Fleet,
    node: &'a NodeName,
    now: Now,
    entries: BTreeMap<Uid, FileEntry>,
    /// Which file holds a path.
    taken: Taken<Uid>,
    /// What templates may say of the node; none while nothing here is rendered.
    facts: Option<NodeFacts>,
    plan: Plan,
}

/// What a file is rendered with.
enum Values {
    /// Nothing in it is rendered.
    None,
    /// These.
    Some(FileVars),
    /// The node is not known well enough yet.
    Unknown,
}

/// A ConfigFile that is to be on the node.
type Claim<'a> = (&'a Stored<Object>, InForce);

impl Draft<'_> {
    /// Entries of the ConfigFiles that are to be here, the oldest first, so that it keeps a contested path.
    fn claims(&mut self) {
        let fleet = self.fleet;
        let mut claims: Vec<Claim<'_>> = configfiles(fleet)
            .filter(|(_, spec)| selects_node(fleet, &spec.node_selector, self.node))
            .filter_map(|(object, _)| Some((object, in_force_on(fleet, object, self.node)?)))
            .collect();
        claims.sort_by_key(|(object, _)| seniority(object));
        for (object, force) in claims {
            let claims = force.file.claims();
            if let Some((path, holder)) = self.taken.holder_of(&claims) {
                self.conflict(object, &path, holder);
                continue;
            }
            let uid = object.metadata.uid;
            if !self.knows_how(&force.file) {
                let why = format!(
                    "{} waits for an agent on {} that knows validators",
                    object.object_ref(),
                    self.node
                );
                self.plan.why.push(why);
                self.taken.take(&claims, uid);
                continue;
            }
            let values = match self.values(object, &force) {
                Values::None => None,
                Values::Some(values) => Some(values),
                // Its path is its own all the same: nobody younger may take it meanwhile.
                Values::Unknown => {
                    self.taken.take(&claims, uid);
                    continue;
                }
            };
            match self.refer(&force.file).and_then(|d| Ok((d, self.refer_values(values.as_ref())?))) {
                Ok((d, w)) => {
                    self.guard_newcomer(object);
                    self.taken.take(&claims, uid);
                    let entry = FileEntry { u: uid, v: force.version, d, w, g: FileGoal::Hold };
                    self.entries.insert(uid, entry);
                }
                Err(error) => {
                    self.plan.why.push(format!("{}: cannot be stored: {error}", object.object_ref()));
                }
            }
        }
    }

    /// Whether the node's agent would have a version looked at: one that has never heard of it would put it in place
    /// unseen, and a bad file must never exist.
    fn knows_how(&self, file: &FileSpec) -> bool {
        let said = |report: &Stored<Report>| report.features.iter().any(|name| name == features::VALIDATORS);
        file.validator.is_none() || self.fleet.reports.get(self.node).is_some_and(said)
    }

    /// A file that comes to this node must still stand when it does: once its object is gone nobody would release it.
    fn guard_newcomer(&mut self, object: &Object) {
        let document = self.fleet.files_documents.get(self.node);
        if !document.is_some_and(|d| d.entries.iter().any(|e| e.u == object.metadata.uid)) {
            guard_object(&mut self.plan, self.fleet, object);
        }
    }

    fn conflict(&mut self, object: &Object, path: &str, holder: Uid) {
        let older = self.fleet.by_uid.get(&holder).map_or_else(|| holder.short(), ToString::to_string);
        let message = format!("{path} on {} is managed by {older}, which is older", self.node);
        self.plan.why.push(format!("PathConflict: {}: {message}", object.object_ref()));
        self.tell(object, Reason::PathConflict, message);
    }

    fn tell(&mut self, object: &Object, reason: Reason, message: String) {
        self.plan.tell.push(Telling {
            object: object.object_ref(),
            uid: Some(object.metadata.uid),
            node: Some(self.node.clone()),
            reason,
            message,
        });
    }

    /// Hash of a file spec; stored only if the document does not refer to it already. What it refers to is compared
    /// and not hashed: most looks at most nodes find nothing new.
    fn refer(&mut self, file: &FileSpec) -> Result<Sha256, EncodeError> {
        let fleet = self.fleet;
        let is_same = |entry: &&FileEntry| matches!(fleet.templates.get(&entry.d), Some(StoredTemplate::File(held)) if **held == *file);
        let document = fleet.files_documents.get(self.node);
        match document.and_then(|d| d.entries.iter().find(is_same)) {
            Some(entry) => Ok(entry.d),
            None => references::file_spec(&mut self.plan, fleet, file, self.now),
        }
    }

    /// What a file is rendered with here.
    fn values(&mut self, object: &Object, force: &InForce) -> Values {
        if !force.file.has_template() {
            return Values::None;
        }
        if self.facts.is_none() {
            self.facts = facts_of(self.fleet, self.node);
        }
        let labels = self.facts.as_ref().map(|facts| &facts.labels);
        let values =
            labels.and_then(|labels| values_of(self.fleet, object, force.version, (self.node, labels)));
        match values {
            Some(values) => Values::Some(values),
            None => {
                let why = format!("{} waits for the first report of {}", object.object_ref(), self.node);
                self.plan.why.push(why);
                Values::Unknown
            }
        }
    }

    /// Likewise of its values, which most nodes share.
    fn refer_values(&mut self, values: Option<&FileVars>) -> Result<Option<Sha256>, EncodeError> {
        let Some(values) = values else { return Ok(None) };
        let fleet = self.fleet;
        let is_same = |hash: &Sha256| matches!(fleet.templates.get(hash), Some(StoredTemplate::Vars(held)) if **held == *values);
        let document = fleet.files_documents.get(self.node);
        match document.and_then(|d| d.entries.iter().filter_map(|e| e.w).find(is_same)) {
            Some(hash) => Ok(Some(hash)),
            None => references::file_vars(&mut self.plan, fleet, values, self.now).map(Some),
        }
    }

    /// What the document has and is not to be here any more becomes a tombstone, or goes when the node has reported
    /// that it is done. What cannot be explained stays as it is: absence is never a command.
    fn carry_over(&mut self) {
        let fleet = self.fleet;
        let Some(document) = fleet.files_documents.get(self.node) else { return };
        for entry in &document.entries {
            if self.entries.contains_key(&entry.u) || self.is_released(document, entry) {
                continue;
            }
            let carried = match fleet.object_by_uid(&entry.u) {
                Some(object) if self.leaves(object) => self.tombstone(entry, Some(object)),
                None if entry.g == FileGoal::Release => self.tombstone(entry, None),
                Some(_) | None => entry.clone(),
            };
            self.entries.insert(entry.u, carried);
        }
    }

    fn is_released(&self, document: &Stored<FilesDocument>, entry: &FileEntry) -> bool {
        let Some(report) = self.fleet.reports.get(self.node) else { return false };
        let released = report.value.file(&entry.u).is_some_and(|f| f.state == FileState::Released);
        entry.g == FileGoal::Release && released && holds(&report.files, &document.epoch, document.revision)
    }

    /// Whether an object without an entry of its own is certainly not to be here.
    fn leaves(&self, object: &Object) -> bool {
        let Spec::ConfigFile(spec) = &object.spec else { return false };
        let selected = selects_node(self.fleet, &spec.node_selector, self.node);
        // Labels that agents set are not known while a node's report is missing: then nothing follows from them.
        let by_agent = spec.node_selector.keys().any(|key| key.starts_with("ostler/"));
        let is_known = !by_agent || self.fleet.reports.contains_key(self.node);
        let holder = self.taken.holder_of(&spec.claims());
        object.is_deleting()
            || (!selected && is_known)
            || holder.is_some_and(|(_, holder)| holder != object.metadata.uid)
    }

    /// The tombstone of an entry. It does as `onRemove` says, but where another ConfigFile holds the path by now it
    /// leaves the path alone.
    fn tombstone(&mut self, entry: &FileEntry, object: Option<&Stored<Object>>) -> FileEntry {
        let mut tombstone = FileEntry { g: FileGoal::Release, ..entry.clone() };
        let Some(StoredTemplate::File(held)) = self.fleet.templates.get(&entry.d) else { return tombstone };
        let mut file = FileSpec::clone(held);
        if let Some(Spec::ConfigFile(spec)) = object.map(|o| &o.value.spec) {
            file.on_remove = spec.on_remove;
        }
        if self.taken.holder_of(&file.claims()).is_some_and(|(_, holder)| holder != entry.u) {
            file.on_remove = OnRemove::Keep;
        }
        match self.refer(&file) {
            Ok(hash) => tombstone.d = hash,
            Err(error) => self.plan.why.push(format!("{}: {error}", file.path)),
        }
        tombstone
    }

    fn finish(mut self, key: Key) -> Plan {
        let fleet = self.fleet;
        let known = fleet.files_documents.get(self.node);
        self.shrink_to_limit();
        let entries: Vec<FileEntry> = self.entries.into_values().collect();
        let up_to_date = match known {
            Some(known) => {
                known.entries == entries
                    && known.node.as_deref() == self.facts.as_ref()
                    && known.epoch.incarnation >= fleet.store_incarnation()
            }
            None => entries.is_empty(),
        };
        if up_to_date {
            // Said when it came about; the reasons stay in `why`.
            self.plan.steps.clear();
            self.plan.reads.clear();
            self.plan.tell.clear();
            return self.plan;
        }
        let epoch = ostler_schemas::v1::epoch::Epoch::default();
        let document = FilesDocument { epoch, entries, node: self.facts.map(Box::new) };
        self.plan.put(fleet, key, Body::Files(Box::new(document)));
        self.plan
    }

    /// Takes out files that are new here, the youngest first, while the document is too large to be stored. What the
    /// node holds already stays.
    fn shrink_to_limit(&mut self) {
        let fleet = self.fleet;
        let held: BTreeSet<Uid> = fleet
            .files_documents
            .get(self.node)
            .into_iter()
            .flat_map(|d| d.entries.iter().map(|e| e.u))
            .collect();
        let mut newcomers: Vec<Uid> = self.entries.keys().filter(|u| !held.contains(*u)).copied().collect();
        newcomers.sort_by_key(|u| fleet.object_by_uid(u).map(|o| seniority(o)));
        while let Err(error) = self.size() {
            let Some(uid) = newcomers.pop() else {
                self.plan.why.push(format!("the document cannot be stored: {error}"));
                return;
            };
            self.entries.remove(&uid);
            if let Some(object) = fleet.object_by_uid(&uid) {
                let message = format!("node {} has no room for another file: {error}", self.node);
                self.plan.why.push(format!("{}: {message}", object.object_ref()));
                self.tell(&object.value, Reason::Degraded, message);
            }
        }
    }

    fn size(&self) -> Result<usize, EncodeError> {
        // The widest epoch, because the true one is known only when the batch is made.
        let epoch = ostler_schemas::v1::epoch::Epoch {
            incarnation: u32::MAX,
            term: ostler_schemas::Revision(u64::MAX),
            nonce: u32::MAX,
        };
        let entries = self.entries.values().cloned().collect();
        let node = self.facts.clone().map(Box::new);
        codec::encode(&FilesDocument { epoch, entries, node }).map(|bytes| bytes.len())
    }
}
