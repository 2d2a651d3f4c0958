//! Every state of a managed path that another process could see is one complete version, or what somebody else put
//! there; and no version is followed by an older one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ostler_agent::sim::SimFiles;
use ostler_schemas::hash::sha256;
use ostler_schemas::{NodeName, Sha256};

use super::Rule;

/// Something odd about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd {
    /// The rule that it breaks.
    pub rule: Rule,
    /// The path.
    pub path: String,
    /// In words.
    pub what: String,
}

#[derive(Default)]
struct Inner {
    paths: BTreeSet<String>,
    allowed: BTreeSet<Sha256>,
    /// Versions in the order in which they were asked for.
    ranks: BTreeMap<(String, Sha256), u64>,
    asked: u64,
    newest: BTreeMap<(NodeName, String), u64>,
    forgiving: bool,
    found: Vec<Odd>,
}

/// Looks at managed paths.
#[derive(Default)]
pub struct FileWatch(Mutex<Inner>);

impl FileWatch {
    /// One that manages nothing yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another hand puts this somewhere.
    pub fn allow(&self, content: &[u8]) {
        self.inner().allowed.insert(sha256(content));
    }

    /// This content is asked for at a path, which is looked at from now on.
    pub fn version(&self, path: &str, content: &[u8]) {
        let (hash, mut inner) = (sha256(content), self.inner());
        inner.asked += 1;
        let rank = inner.asked;
        inner.allowed.insert(hash);
        inner.paths.insert(path.to_owned());
        inner.ranks.insert((path.to_owned(), hash), rank);
    }

    /// A host lost power: a version whose folder was not synced may be gone again.
    pub fn power_lost(&self, node: &NodeName) {
        self.inner().newest.retain(|(n, _), _| n != node);
    }

    /// The store was rolled back: older versions are newer than what was lost.
    pub fn forgive(&self) {
        self.inner().forgiving = true;
    }

    /// The paths.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.inner().paths.iter().cloned().collect()
    }

    /// Looks at all paths of a host.
    pub fn look(&self, node: &NodeName, files: &SimFiles) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        for path in &inner.paths {
            let Some(bytes) = files.read(path) else { continue };
            let hash = sha256(&bytes);
            if !inner.allowed.contains(&hash) {
                let what = format!("{node}: {path} holds {} bytes that nobody put there", bytes.len());
                inner.found.push(Odd { rule: Rule::TornFile, path: path.clone(), what });
            }
            let Some(rank) = inner.ranks.get(&(path.clone(), hash)) else { continue };
            let newest = inner.newest.entry((node.clone(), path.clone())).or_default();
            if *rank < *newest && !inner.forgiving {
                let what = format!("{node}: {path} holds an older version again");
                inner.found.push(Odd { rule: Rule::FileFellBack, path: path.clone(), what });
            }
            *newest = *rank;
        }
    }

    /// What was found since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Odd> {
        std::mem::take(&mut self.inner().found)
    }
}
