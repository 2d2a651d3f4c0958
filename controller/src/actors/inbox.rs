//! Which keys changed since a reconciler last looked: a set per controller, so a storm of changes of one key is one
//! entry, and at most one wake is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use ostler_schemas::time::Mono;
use ostler_schemas::{ControllerName, Key, NodeName};
use tokio::sync::Notify;

/// What a reconciler finds when it wakes.
#[derive(Debug, Default)]
pub struct Mail {
    /// Keys that changed.
    pub keys: BTreeSet<Key>,
    /// Nodes whose liveness changed.
    pub nodes: BTreeSet<NodeName>,
    /// Look at everything: the snapshot began anew.
    pub everything: bool,
    /// When the oldest of these came in.
    pub since: Option<Mono>,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.nodes.is_empty() && !self.everything
    }
}

/// One controller's inbox.
#[derive(Debug, Default)]
pub struct Inbox {
    mail: Mutex<Mail>,
    wake: Notify,
}

impl Inbox {
    /// Takes what is there.
    pub fn take(&self) -> Mail {
        std::mem::take(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Done when there is mail.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    fn put(&self, now: Mono, edit: impl FnOnce(&mut Mail)) {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut mail);
        if !mail.is_empty() {
            mail.since.get_or_insert(now);
            self.wake.notify_one();
        }
    }
}

/// The inboxes of a replica's reconcilers.
#[derive(Debug)]
pub struct Inboxes(BTreeMap<ControllerName, Inbox>);

impl Default for Inboxes {
    fn default() -> Self {
        Self(ControllerName::ALL.into_iter().map(|c| (c, Inbox::default())).collect())
    }
}

impl Inboxes {
    /// The inbox of a controller.
    #[must_use]
    pub fn of(&self, c: ControllerName) -> &Inbox {
        &self.0[&c]
    }

    /// These keys changed.
    pub fn changed(&self, keys: &[Key], now: Mono) {
        for inbox in self.0.values() {
            inbox.put(now, |mail| mail.keys.extend(keys.iter().cloned()));
        }
    }

    /// These nodes' liveness changed.
    pub fn heard(&self, nodes: &[NodeName], now: Mono) {
        for inbox in self.0.values() {
            inbox.put(now, |mail| mail.nodes.extend(nodes.iter().cloned()));
        }
    }

    /// Everything may have changed.
    pub fn reset(&self, now: Mono) {
        for inbox in self.0.values() {
            inbox.put(now, |mail| mail.everything = true);
        }
    }
}
