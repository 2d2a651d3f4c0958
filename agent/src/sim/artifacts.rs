//! Artifacts of a simulated host: sources are there, or are not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use ostler_agent_core::artifacts::{Preparing, set_id};
use ostler_schemas::Sha256;
use ostler_schemas::spec::Artifact;

use crate::context::lock;
use crate::ports::Artifacts;

/// Every source is there unless it was said to be missing.
#[derive(Debug, Default)]
pub struct SimArtifacts {
    missing: Mutex<BTreeMap<String, String>>,
    used: Mutex<BTreeSet<Sha256>>,
}

impl SimArtifacts {
    /// A host that reaches every source.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on a source cannot be had, for a reason; or can again.
    pub fn set_missing(&self, source: &str, why: Option<&str>) {
        let mut missing = lock(&self.missing);
        match why {
            Some(why) => missing.insert(source.to_owned(), why.to_owned()),
            None => missing.remove(source),
        };
    }

    /// The sets that the agent says are in use.
    #[must_use]
    pub fn used(&self) -> BTreeSet<Sha256> {
        lock(&self.used).clone()
    }
}

impl Artifacts for SimArtifacts {
    fn prepare(&self, artifacts: Vec<Artifact>) -> BoxStream<'static, Preparing> {
        let missing = lock(&self.missing);
        let lacks = artifacts.iter().find_map(|a| missing.get(&a.source).map(|why| (a, why)));
        let state = match lacks {
            Some((artifact, why)) => Preparing::Failed(format!("{}: {why}", artifact.source)),
            None => Preparing::Ready(self.folder(&artifacts)),
        };
        stream::iter([state]).boxed()
    }

    fn folder(&self, artifacts: &[Artifact]) -> String {
        format!("/artifacts/{}", set_id(artifacts))
    }

    fn retain(&self, in_use: BTreeSet<Sha256>) {
        *lock(&self.used) = in_use;
    }
}
