//! Every state of a managed path that another process could see is one complete version, or what somebody else put
//! there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ostler_agent::sim::SimFiles;
use ostler_schemas::hash::sha256;
use ostler_schemas::{NodeName, Sha256};

#[derive(Default)]
struct Inner {
    paths: BTreeSet<String>,
    allowed: BTreeSet<Sha256>,
    found: Vec<String>,
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

    /// This content may be at a path from now on.
    pub fn allow(&self, content: &[u8]) {
        self.inner().allowed.insert(sha256(content));
    }

    /// This path is looked at from now on.
    pub fn manage(&self, path: impl Into<String>) {
        self.inner().paths.insert(path.into());
    }

    /// The paths.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.inner().paths.iter().cloned().collect()
    }

    /// Looks at all paths of a host.
    pub fn look(&self, node: &NodeName, files: &SimFiles) {
        let mut inner = self.inner();
        for path in inner.paths.clone() {
            let Some(bytes) = files.read(&path) else { continue };
            if !inner.allowed.contains(&sha256(&bytes)) {
                inner.found.push(format!("{node}: {path} holds {} bytes that nobody put there", bytes.len()));
            }
        }
    }

    /// What was found since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().found)
    }
}
