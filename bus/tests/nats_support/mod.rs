//! A bus of real servers on the loopback for tests, and connections of its parties.

pub(crate) mod raw;

use std::sync::Arc;
use std::time::Duration;

use ostler_bus::conformance;
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::layout::{Identity, Scale, Sizes, replicas_for};
use ostler_bus::nats::Bus;
use ostler_bus::nats::provision::provision;
use ostler_bus::nats::server::{Local, LocalOptions, ServerError};
use tempfile::TempDir;

/// What no healthy bus on a loaded machine takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Servers, provisioned, with a controller's connection. Everything ends with it.
pub(crate) struct Rig {
    _dir: TempDir,
    pub(crate) local: Local,
    pub(crate) entropy: EntropyRef,
    pub(crate) controller: Bus,
}

/// The nodes of every rig, those of the conformance suite among them.
pub(crate) const NODES: [&str; 4] = ["n1", "n2", conformance::NODES[0], conformance::NODES[1]];
/// The operators of every rig, likewise.
pub(crate) const OPERATORS: [&str; 3] = ["anna", "bert", conformance::OPERATOR];

/// Whether OSTLER_SKIP_NATS=1 says to do without real servers, which is printed.
pub(crate) fn skipped() -> bool {
    let skipped = std::env::var_os("OSTLER_SKIP_NATS").is_some_and(|v| v == "1");
    if skipped {
        eprintln!("SKIPPED: OSTLER_SKIP_NATS=1, no real nats-server is tested");
    }
    skipped
}

/// Servers without streams.
pub(crate) async fn servers(dir: &TempDir, count: usize, entropy: &EntropyRef) -> Local {
    match Local::start(dir.path(), options(count), &**entropy).await {
        Ok(local) => local,
        Err(error @ ServerError::NotFound { .. }) => {
            panic!("{error}; or set OSTLER_SKIP_NATS=1 to leave these tests out")
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn entropy() -> EntropyRef {
    Arc::new(SeededEntropy::from_system().expect("system entropy"))
}

/// A rig of so many servers; `None` where there should be none.
pub(crate) async fn rig(count: usize) -> Option<Rig> {
    if skipped() {
        return None;
    }
    let entropy = entropy();
    let dir = tempfile::tempdir().expect("a folder");
    let local = servers(&dir, count, &entropy).await;
    let controller = connect(&local, Identity::Controller, &entropy).await;
    let provisioned =
        provision(&controller, scale(count), PATIENCE).await.expect("streams as the layout says");
    assert_eq!((provisioned.created.len(), provisioned.repaired.len()), (7, 0));
    Some(Rig { _dir: dir, local, entropy, controller })
}

pub(crate) fn options(servers: usize) -> LocalOptions {
    LocalOptions {
        servers,
        nodes: NODES.iter().map(|n| n.parse().expect("a name")).collect(),
        operators: OPERATORS.iter().map(|n| n.parse().expect("a name")).collect(),
        ..LocalOptions::default()
    }
}

pub(crate) fn scale(servers: usize) -> Scale {
    Scale { replicas: replicas_for(servers), sizes: Sizes::default() }
}

pub(crate) async fn connect(local: &Local, identity: Identity, entropy: &EntropyRef) -> Bus {
    let bus = Bus::connect(&local.config(identity), entropy).await.expect("usable settings");
    assert!(bus.connected(PATIENCE).await, "no connection: {:?}", bus.topic.link().borrow());
    bus
}

impl Rig {
    pub(crate) async fn party(&self, identity: Identity) -> Bus {
        connect(&self.local, identity, &self.entropy).await
    }
}
