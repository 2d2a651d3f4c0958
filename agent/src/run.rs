//! An agent from its start to its end.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use ostler_agent_core::holds::By;
use ostler_agent_core::ledger::{Change, Ledger};
use ractor::{Actor, ActorRef, SpawnErr};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::actors::{registry, reporter, root};
use crate::context::{Board, BusView, Context, Deps, Shared, Slot, Wake, lock};
use crate::local::owns::{Owned, owner};
use crate::local::{Act, Managed, Why, on_host};
use crate::status::{Standing, Status};

/// How long the last report of a graceful end is waited for.
const LAST_WORDS_MS: u64 = 2_000;
/// How long the tree may take to say that it is alive.
const ALIVE_MS: u64 = 2_000;

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger cannot be read: starting without it could start what was stopped.
    #[error("the ledger cannot be read: {0}")]
    Ledger(String),
    /// The tree of actors did not come up.
    #[error("the agent's actors did not start")]
    Actors(#[source] Box<SpawnErr>),
}

/// A running agent. Dropping it does not end it.
pub struct Handle {
    context: Shared,
    root: ActorRef<root::Msg>,
    join: JoinHandle<()>,
}

/// Starts an agent.
///
/// # Errors
/// [`StartError`].
pub async fn run(deps: Deps) -> Result<Handle, StartError> {
    let stored = deps.ledger.load().await.map_err(StartError::Ledger)?;
    let memory = match stored {
        None => Ledger::default(),
        Some(bytes) => Ledger::decode(&bytes).map_err(|error| StartError::Ledger(error.to_string()))?,
    };
    let identity = deps.facts.identity();
    let facts = deps.facts.facts();
    let context = Arc::new(Context {
        node: deps.link.node().clone(),
        incarnation: deps.entropy.number(),
        identity: identity.clone(),
        board: Mutex::new(Board { facts, bus: BusView::default(), ..Board::default() }),
        memory: Mutex::new(memory),
        ledger: Slot::default(),
        bus: Slot::default(),
        registry: Slot::default(),
        reporter: Slot::default(),
        events: Slot::default(),
        host: Slot::default(),
        relay: Slot::default(),
        pressure: Slot::default(),
        acts: Slot::default(),
        acts_wake: Wake::default(),
        stirred: tokio::sync::Notify::new(),
        report_wake: Wake::default(),
        registry_wake: Wake::default(),
        trials: tokio::sync::Mutex::new(()),
        starts: AtomicU64::new(0),
        deps,
    });
    let spawned = Actor::spawn(None, root::RootActor, context.clone()).await;
    let (root, join) = spawned.map_err(|error| StartError::Actors(Box::new(error)))?;
    context.note(Change::Boot(identity.boot));
    Ok(Handle { context, root, join })
}

impl Handle {
    /// Ends the agent in order: processes go on, a last report is tried.
    pub async fn stop(self) {
        let (done, stored) = oneshot::channel();
        if self.context.reporter.cast(reporter::Msg::Final(done)) {
            tokio::select! {
                biased;
                // Stored or given up: either way it is time to end.
                _ = stored => {}
                () = self.context.deps.clock.sleep_ms(LAST_WORDS_MS) => {}
            }
        }
        self.kill();
    }

    /// Ends the agent at once, as a crash would.
    pub fn kill(self) {
        self.root.kill();
    }

    /// Ends the `n`th of the root's children (modulo their number) as a failure would; the root starts it again. For
    /// tests of supervision.
    pub fn crash_part(&self, n: usize) {
        // A root that has ended has no parts left.
        self.root.cast(root::Msg::Crash(n)).ok();
    }

    /// Whether the tree of actors answers; what feeds a watchdog.
    pub async fn is_alive(&self) -> bool {
        let (asked, answer) = oneshot::channel();
        if self.root.cast(root::Msg::Alive(asked)).is_err() {
            return false;
        }
        tokio::select! {
            biased;
            answer = answer => answer.is_ok(),
            () = self.context.deps.clock.sleep_ms(ALIVE_MS) => false,
        }
    }

    /// Whether the agent has ended by itself: an invariant is broken, and its supervisor should start it anew.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.join.is_finished()
    }

    /// How things stand, for people on the host and for tests.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.context)
    }

    /// How far it has come with the control plane.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::of(&self.context)
    }

    /// What answers [`Self::status`] after this handle has moved on.
    #[must_use]
    pub fn viewer(&self) -> Viewer {
        Viewer(self.context.clone())
    }
}

/// Looks at a running agent.
#[derive(Clone)]
pub struct Viewer(Shared);

impl Viewer {
    /// How things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.0)
    }

    /// What runs as a process, and why.
    ///
    /// # Errors
    /// If no process, or more than one, is meant.
    pub async fn why(&self, process: &str) -> Result<Why, String> {
        Why::of(&self.0, process).await
    }

    /// Whose a path is.
    #[must_use]
    pub fn owns(&self, path: &str) -> Option<Owned> {
        let path = on_host(&self.0.deps.config.root, path);
        let reports: Vec<_> = self.0.board().files.values().map(|view| view.report.clone()).collect();
        owner(&lock(&self.0.memory), &reports, &path)
    }

    /// What a managed path should hold.
    ///
    /// # Errors
    /// If it is not managed, or its content is not at hand or no text.
    pub async fn managed(&self, path: &str) -> Result<Managed, String> {
        let path = on_host(&self.0.deps.config.root, path);
        let written = {
            let memory = lock(&self.0.memory);
            let mut managed = memory.file_records.values().filter(|r| !r.released);
            managed.find_map(|r| {
                let written = r.written.as_ref()?;
                let part = written.all().into_iter().find(|part| r.path_of(&part.name) == path)?;
                Some((r.named.clone()?, (written.version, part.sha256)))
            })
        };
        let Some(((namespace, name), (version, sha256))) = written else {
            return Err(format!("{path} is not managed here; \"ostler-agent files\" lists what is"));
        };
        let bytes = self.0.deps.ledger.get(sha256).await;
        let bytes = bytes.ok_or_else(|| format!("the content of {path} is not at hand"))?;
        let content = String::from_utf8(bytes.to_vec());
        let content =
            content.map_err(|_| format!("{path} is no text and cannot be compared line by line"))?;
        Ok(Managed { path, of: format!("configfile/{namespace}/{name} version {version}"), content })
    }

    /// Does what a person on this host asks.
    ///
    /// # Errors
    /// Why nothing was done.
    pub async fn act(&self, act: Act, by: By) -> Result<String, String> {
        let (asked, answer) = oneshot::channel();
        tracing::info!(%by, ?act, "asked on the host");
        let again = || "the agent is starting again what knows its processes; try again".to_owned();
        if !self.0.registry.cast(registry::Msg::Act(act, by, asked)) {
            return Err(again());
        }
        answer.await.map_err(|_| again())?
    }
}
