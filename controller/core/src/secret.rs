//! Secrets: which values each node is given.
//!
//! One look is about one node. It writes `n.<node>.secrets`, a pure projection of what is bound to the node, of what
//! its templates refer to, and of the Secrets. Values are never seen here: a [`Sealer`] opens them and seals them to the
//! node in one go.
//!
//! Guarantees: a node is given the values that a process bound to it refers to, and no others; what it should have
//! already is not sealed anew; every Secret that is referred to has an entry, also where it does not exist, so that the
//! node can tell that from what has not come yet; what nothing refers to any more leaves the document. A node with
//! another key (a new host, a new file of keys) gets everything sealed anew.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::sealing::{PublicKey, Sealed};
use ostler_schemas::spec::{SecretSpec, SecretValue, Spec};
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::secret::{SecretEntry, SecretVersion, SecretsDocument};
use ostler_schemas::{DocumentKind, Key, Kind, Name, Namespace, NodeName, ObjectRef};

use crate::fleet::{Fleet, ProcessRecords, Stored, StoredTemplate};
use crate::plan::{Body, Plan, Telling};

/// What all entries of one document may take together; the rest of its limit is for what stands around them.
const ENTRIES_LIMIT: usize = 448 << 10;

/// Opens what was sealed to the control plane and seals it to a node. Plaintext never leaves it.
pub trait Sealer {
    /// The values of a Secret by name, sealed to a node.
    ///
    /// # Errors
    /// Why it cannot be done, in words for people that tell nothing of a value.
    fn give(
        &self,
        secret: &ObjectRef,
        values: &BTreeMap<&str, &SecretValue>,
        to: (&NodeName, PublicKey),
    ) -> Result<Sealed, String>;
}

/// The names of values that are asked for, by Secret.
type Asked = BTreeMap<(Namespace, Name), BTreeSet<String>>;

/// Every node.
#[must_use]
pub fn all(fleet: &Fleet) -> Vec<NodeName> {
    fleet.nodes().map(|(node, ..)| node).collect()
}

/// Nodes to look at again after a change of `key`.
#[must_use]
pub fn affected(fleet: &Fleet, key: &Key) -> Vec<NodeName> {
    match key {
        // Every Secret that a node's processes refer to has an entry in its document.
        Key::Object(object) if object.kind == Kind::Secret => {
            let names = |entry: &SecretEntry| {
                entry.name == object.name && Some(&entry.ns) == object.namespace.as_ref()
            };
            let having = fleet.secrets_documents.iter().filter(|(_, d)| d.entries.iter().any(names));
            having.map(|(node, _)| node.clone()).collect()
        }
        Key::Object(object) if object.kind == Kind::Node => {
            object.name.as_str().parse().into_iter().collect()
        }
        Key::ProcessSpec(uid) | Key::ProcessTemplate(uid) | Key::ProcessBind(uid) | Key::ProcessGoal(uid) => {
            fleet.processes.get(uid).and_then(ProcessRecords::node).cloned().into_iter().collect()
        }
        // Reports are many, and keys change hardly ever.
        Key::Report(node) => {
            let document = fleet.secrets_documents.get(node);
            let key = node_key(fleet, node);
            let is_other = |entry: &SecretEntry| !entry.keys.is_empty() && entry.key() != key;
            let changed = document.is_some_and(|d| d.entries.iter().any(is_other));
            changed.then(|| node.clone()).into_iter().collect()
        }
        Key::NodeDocument(node, DocumentKind::Secrets) => vec![node.clone()],
        Key::MetaIncarnation => all(fleet),
        Key::Object(_)
        | Key::SpecRevision(..)
        | Key::Template(_)
        | Key::NodeDocument(_, DocumentKind::Run | DocumentKind::Files)
        | Key::State(..)
        | Key::Lease(_)
        | Key::Term(_)
        | Key::Fence(_)
        | Key::MetaFormatFloor
        | Key::Status(_)
        | Key::Grant(_)
        | Key::BlobChunk(..) => Vec::new(),
    }
}

/// The key that a node has said of itself.
fn node_key(fleet: &Fleet, node: &NodeName) -> Option<PublicKey> {
    fleet.reports.get(node).and_then(|report| report.facts.sealing_key)
}

/// The Secret of that name, as long as it is not being deleted.
#[must_use]
pub fn find<'a>(fleet: &'a Fleet, secret: &ObjectRef) -> Option<(&'a Stored<Object>, &'a SecretSpec)> {
    let stored = fleet.objects.get(secret).filter(|stored| !stored.value.is_deleting())?;
    match &stored.value.spec {
        Spec::Secret(spec) => Some((stored, spec)),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::ConfigFile(_) => {
            None
        }
    }
}

/// Brings the secrets document of one node up to date.
#[must_use]
pub fn reconcile(fleet: &Fleet, node: &NodeName, sealer: &dyn Sealer) -> Plan {
    let mut plan = Plan::nothing();
    let key = Key::NodeDocument(node.clone(), DocumentKind::Secrets);
    if fleet.node(node).is_none() {
        plan.why.push("the node is not registered".to_owned());
        return plan;
    }
    if fleet.unreadable.contains_key(&key) {
        plan.why.push("the document was written by a newer version; it is left alone".to_owned());
        return plan;
    }
    let known = fleet.secrets_documents.get(node);
    let mut draft = Draft { fleet, node, sealer, known: known.map(|d| &*d.value), plan, bytes: 0 };
    let asked = draft.asked();
    let entries: Vec<SecretEntry> =
        asked.into_iter().map(|(secret, keys)| draft.entry(secret, &keys)).collect();
    let mut plan = draft.plan;
    let up_to_date = match known {
        Some(known) => known.entries == entries && known.epoch.incarnation >= fleet.store_incarnation(),
        None => entries.is_empty(),
    };
    if up_to_date {
        // Said when it came about; the reasons stay in `why`.
        plan.tell.clear();
        return plan;
    }
    let document = SecretsDocument { epoch: Epoch::default(), entries };
    plan.put(fleet, key, Body::Secrets(Box::new(document)));
    plan
}

/// A document in the making.
struct Draft<'a> {
    fleet: &'a Fleet,
    node: &'a NodeName,
    sealer: &'a dyn Sealer,
    known: Option<&'a SecretsDocument>,
    plan: Plan,
    /// What its entries take so far.
    bytes: usize,
}

impl Draft<'_> {
    /// What the processes refer to that are bound to the node and may still be started or run hooks.
    fn asked(&mut self) -> Asked {
        let mut asked = Asked::new();
        for uid in self.fleet.by_node.get(self.node).into_iter().flatten() {
            let Some(records) = self.fleet.processes.get(uid) else { continue };
            let (Some(spec), Some(template)) = (&records.spec, &records.template) else { continue };
            if records.goal() == Goal::Gone {
                continue;
            }
            let Some(StoredTemplate::Process(template)) = self.fleet.templates.get(&template.template) else {
                self.plan.why.push(format!("the template of {} is not there yet", spec.name));
                self.plan.wake_in(TEMPLATE_WAIT_MS);
                continue;
            };
            for (name, keys) in template.secrets() {
                asked.entry((spec.namespace.clone(), name)).or_default().extend(keys);
            }
        }
        asked
    }

    fn entry(&mut self, (ns, name): (Namespace, Name), asked: &BTreeSet<String>) -> SecretEntry {
        let known = self.known.and_then(|d| d.entries.iter().find(|e| e.ns == ns && e.name == name));
        let mut entry = SecretEntry { ns, name, of: None, keys: Vec::new(), sealed: None, trouble: None };
        let secret = entry.object_ref();
        let Some((stored, spec)) = find(self.fleet, &secret) else { return entry };
        let metadata = &stored.value.metadata;
        let values: BTreeMap<&str, &SecretValue> = spec
            .values
            .iter()
            .filter(|(key, _)| asked.contains(*key))
            .map(|(k, v)| (k.as_str(), v))
            .collect();
        entry.of = Some(SecretVersion { u: metadata.uid, v: metadata.version });
        entry.keys = values.keys().map(|key| (*key).to_owned()).collect();
        if values.is_empty() {
            return entry;
        }
        match self.seal(&secret, &values, (&entry, known)) {
            Ok(sealed) => entry.sealed = Some(sealed),
            Err(trouble) => {
                self.tell(&stored.value, &trouble);
                entry.trouble = Some(trouble);
            }
        }
        entry
    }

    fn seal(
        &mut self,
        secret: &ObjectRef,
        values: &BTreeMap<&str, &SecretValue>,
        (entry, known): (&SecretEntry, Option<&SecretEntry>),
    ) -> Result<Sealed, String> {
        let to = node_key(self.fleet, self.node)
            .ok_or_else(|| format!("node {} has not said what to seal secrets to", self.node))?;
        let same = known.filter(|k| k.of == entry.of && k.keys == entry.keys && k.key() == Some(to));
        let sealed = match same.and_then(|known| known.sealed.clone()) {
            Some(sealed) => sealed,
            None => self.sealer.give(secret, values, (self.node, to))?,
        };
        let size = sealed.bytes.len() + entry.keys.iter().map(String::len).sum::<usize>();
        if self.bytes + size > ENTRIES_LIMIT {
            let limit = ENTRIES_LIMIT >> 10;
            return Err(format!(
                "node {} has no room for it: all its secrets together are over {limit}Ki",
                self.node
            ));
        }
        self.bytes += size;
        Ok(sealed)
    }

    fn tell(&mut self, object: &Object, trouble: &str) {
        let message = format!("not given to node {}: {trouble}", self.node);
        self.plan.why.push(format!("{}: {message}", object.object_ref()));
        self.plan.tell.push(Telling {
            object: object.object_ref(),
            uid: Some(object.metadata.uid),
            node: Some(self.node.clone()),
            reason: Reason::Degraded,
            message,
        });
    }
}

/// A template and what names it come in one batch, but the snapshot may show it in between.
const TEMPLATE_WAIT_MS: u64 = 200;

/// The objects that refer to a Secret, as `deployment/web`, by name.
#[must_use]
pub fn users(fleet: &Fleet, secret: &ObjectRef) -> Vec<String> {
    let refers = |spec: &Spec| {
        spec.process_template().is_some_and(|t| t.secret_refs().any(|other| other.name == secret.name))
    };
    fleet
        .objects
        .iter()
        .filter(|(name, stored)| {
            name.namespace == secret.namespace && !stored.value.is_deleting() && refers(&stored.value.spec)
        })
        .map(|(name, _)| name.short())
        .collect()
}

#[cfg(test)]
mod tests;
