//! Artifacts of a simulated host: each source can be had, or not, now or later; what is not in use is gone at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use ostler_agent_core::artifacts::{Preparing, set_id};
use ostler_agent_core::reclaim::Spare;
use ostler_bus::clock::ClockRef;
use ostler_schemas::Sha256;
use ostler_schemas::spec::Artifact;

use crate::context::lock;
use crate::ports::Artifacts;

/// How often a source that does not answer is asked again.
const AGAIN_MS: u64 = 500;

/// How a source is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// How long a fetch takes.
    pub takes_ms: u64,
    /// What is wrong with what comes of it, in words: a status, another hash.
    pub fails: Option<String>,
    /// It does not answer at all.
    pub hangs: bool,
}

#[derive(Debug, Default)]
struct Inner {
    sources: BTreeMap<String, Source>,
    ready: BTreeSet<Sha256>,
    ever: BTreeSet<Sha256>,
    used: BTreeSet<Sha256>,
}

/// The cache of one host. Outlives agents.
pub struct SimArtifacts {
    clock: ClockRef,
    inner: Arc<Mutex<Inner>>,
}

impl SimArtifacts {
    /// A host that reaches every source at once.
    #[must_use]
    pub fn new(clock: ClockRef) -> Arc<Self> {
        Arc::new(Self { clock, inner: Arc::default() })
    }

    /// How a source is from now on.
    pub fn set_source(&self, source: &str, how: Source) {
        lock(&self.inner).sources.insert(source.to_owned(), how);
    }

    /// The sets that the agent says are in use.
    #[must_use]
    pub fn used(&self) -> BTreeSet<Sha256> {
        lock(&self.inner).used.clone()
    }

    /// The sets that lie there.
    #[must_use]
    pub fn ready(&self) -> BTreeSet<Sha256> {
        lock(&self.inner).ready.clone()
    }

    /// The sets that ever lay there.
    #[must_use]
    pub fn ever_ready(&self) -> BTreeSet<Sha256> {
        lock(&self.inner).ever.clone()
    }
}

impl Inner {
    /// What a fetch of all of these that began so long ago has come to.
    fn fetched(&mut self, artifacts: &[Artifact], passed_ms: u64) -> Preparing {
        let set = set_id(artifacts);
        if self.ready.contains(&set) {
            return Preparing::Ready(folder(artifacts));
        }
        for artifact in artifacts {
            let source = self.sources.get(&artifact.source).cloned().unwrap_or_default();
            if source.hangs || passed_ms < source.takes_ms {
                return Preparing::Underway(format!("fetching {}", artifact.source));
            }
            if let Some(why) = source.fails {
                return Preparing::Failed(format!("{}: {why}", artifact.source));
            }
        }
        self.ready.insert(set);
        self.ever.insert(set);
        Preparing::Ready(folder(artifacts))
    }
}

fn folder(artifacts: &[Artifact]) -> String {
    format!("/artifacts/{}", set_id(artifacts))
}

impl Artifacts for SimArtifacts {
    fn prepare(&self, artifacts: Vec<Artifact>) -> BoxStream<'static, Preparing> {
        let (clock, inner) = (self.clock.clone(), Arc::clone(&self.inner));
        let begin = (0, None, false);
        stream::unfold(begin, move |(mut passed_ms, mut told, over)| {
            let (clock, inner, artifacts) = (clock.clone(), Arc::clone(&inner), artifacts.clone());
            async move {
                if over {
                    return None;
                }
                loop {
                    let state = lock(&inner).fetched(&artifacts, passed_ms);
                    if told.as_ref() != Some(&state) {
                        let over = !matches!(state, Preparing::Underway(_));
                        told = Some(state.clone());
                        return Some((state, (passed_ms, told, over)));
                    }
                    clock.sleep_ms(AGAIN_MS).await;
                    passed_ms += AGAIN_MS;
                }
            }
        })
        .boxed()
    }

    fn folder(&self, artifacts: &[Artifact]) -> String {
        folder(artifacts)
    }

    fn retain(&self, in_use: BTreeSet<Sha256>) {
        let mut inner = lock(&self.inner);
        inner.ready.retain(|set| in_use.contains(set));
        inner.used = in_use;
    }

    fn spare(&self) -> BoxFuture<'_, Vec<Spare>> {
        std::future::ready(Vec::new()).boxed()
    }

    fn remove(&self, _: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>> {
        std::future::ready(Vec::new()).boxed()
    }
}
