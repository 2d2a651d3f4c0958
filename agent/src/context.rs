//! What all actors of one agent share: ports, the board, and each other's addresses.
//!
//! State flows through the [`Board`] (always the latest), commands as messages. An address is a [`Slot`], because an
//! actor that failed is replaced by another one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ostler_agent_core::acts::{Deed, Plan, Probing, Progress, overlay};
use ostler_agent_core::environment::NodeFacts;
use ostler_agent_core::file::Rules;
use ostler_agent_core::holds::Holds;
use ostler_agent_core::ledger::{Change, Ledger};
use ostler_agent_core::needs::HostFacts;
use ostler_agent_core::pressure::Thresholds;
use ostler_agent_core::unit::{Reloads, Verdict};
use ostler_agent_core::veto::Veto;
use ostler_bus::clock::ClockRef;
use ostler_bus::entropy::EntropyRef;
use ostler_bus::node_link::NodeLink;
use ostler_bus::sealing::KeyRing;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::object::OwnerReference;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{
    Condition, ConditionStatus, ExitReport, Facts, FileEffect, FileReport, Measure, OrphanReport,
    ProcessReport,
};
use ostler_schemas::v1::usage::{Others, Strain};
use ostler_schemas::{Kind, Name, Namespace, NodeName, ObjectRef, Sha256, Uid, Version, codec};
use ractor::{ActorRef, Message};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::actors::{acts, bus, events, host, ledger, registry, reporter};
use crate::ports::{ArtifactsRef, FactsRef, FilesRef, HostInfo, HostRef, Identity, LedgerRef};

/// What an agent is told at its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// Labels that the node is registered with.
    pub labels: BTreeMap<String, String>,
    /// What all managed paths lie below; empty on a host.
    pub root: String,
    /// Folders of Ostler's own, where no managed file may lie.
    pub own: Vec<String>,
    /// Where originals of managed files are kept.
    pub originals: String,
    /// Where folders of credentials are; without one, why there is none.
    pub credentials: Option<Result<String, String>>,
    /// Where logs of processes are, for people on the host.
    pub log_dir: String,
    /// Whether processes may ask to run as root.
    pub allow_root: bool,
    /// Whether the agent has root's rights. Without them a file of root's (the default) becomes the agent's own, and
    /// one of anybody else's is refused.
    pub privileged: bool,
    /// From where on the host is under pressure.
    pub pressure: Thresholds,
    /// What this host allows, whatever the control plane asks.
    pub veto: Arc<Veto>,
    /// Where the story is kept for people on the host; none keeps none.
    pub story: Option<std::path::PathBuf>,
}

/// Everything that an agent stands on.
#[derive(Clone)]
pub struct Deps {
    /// The bus, as this node.
    pub link: NodeLink,
    /// Time.
    pub clock: ClockRef,
    /// Randomness.
    pub entropy: EntropyRef,
    /// Processes.
    pub host: HostRef,
    /// Files.
    pub files: FilesRef,
    /// Files that processes are started from.
    pub artifacts: ArtifactsRef,
    /// What survives.
    pub ledger: LedgerRef,
    /// What the host is.
    pub facts: FactsRef,
    /// What opens the secrets of this node.
    pub keys: KeyRing,
    /// What it is told.
    pub config: NodeConfig,
}

/// The address of an actor that may be replaced.
pub(crate) struct Slot<M>(Mutex<Option<ActorRef<M>>>);

impl<M> Default for Slot<M> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<M: Message> Slot<M> {
    pub(crate) fn set(&self, actor: ActorRef<M>) {
        *lock(&self.0) = Some(actor);
    }

    /// Sends, if anybody is there; a message to an actor that is being replaced is lost, and every actor begins by
    /// looking at everything anew.
    pub(crate) fn cast(&self, message: M) -> bool {
        let actor = lock(&self.0).clone();
        actor.is_some_and(|actor| actor.cast(message).is_ok())
    }
}

/// At most one wake is queued in an unbounded mailbox.
#[derive(Default)]
pub(crate) struct Wake(AtomicBool);

impl Wake {
    pub(crate) fn ring<M: Message>(&self, slot: &Slot<M>, message: M) {
        if !self.0.swap(true, Ordering::SeqCst) && !slot.cast(message) {
            self.0.store(false, Ordering::SeqCst);
        }
    }

    /// To be called before looking: what changes from here on rings again.
    pub(crate) fn answered(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A task that ends with whoever holds it.
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        // A task keeps its memory as long as anybody has a handle of it. What is in a box goes when it is done, and
        // thousands of processes keep the handle of what started them.
        Self(tokio::spawn(Box::pin(future)))
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessView {
    pub(crate) namespace: Namespace,
    pub(crate) name: Name,
    pub(crate) owner: Option<OwnerReference>,
    pub(crate) report: ProcessReport,
    pub(crate) exits: Vec<ExitReport>,
    pub(crate) orphan: Option<OrphanReport>,
    pub(crate) goal: Goal,
    pub(crate) alive: bool,
    pub(crate) ready: bool,
    pub(crate) runs_as_meant: bool,
    pub(crate) blocks_starts: bool,
    pub(crate) retired: bool,
    /// What it is to run as, once that is known.
    pub(crate) template: Option<Arc<ProcessTemplate>>,
    /// Ends and failed starts that nobody asked for, ever.
    pub(crate) unplanned: u64,
    /// Reloads that were asked for.
    pub(crate) reloads: Reloads,
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileView {
    pub(crate) named: Option<(Namespace, Name)>,
    pub(crate) report: FileReport,
    pub(crate) orphan: Option<OrphanReport>,
    pub(crate) in_sync: Option<Version>,
    pub(crate) written: bool,
    /// Whether a secret is in it.
    pub(crate) secret: bool,
    pub(crate) retired: bool,
    /// The last change that something follows from.
    pub(crate) change: Option<Plan>,
    /// What will follow from what is on its way.
    pub(crate) coming: Vec<Deed>,
}

/// How far what follows a change of a file has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActsView {
    pub(crate) progress: Progress,
    /// What the answers of its probe come to.
    pub(crate) probed: Option<Verdict>,
    /// Nobody asks its probe or looks at its processes any more: that was for long enough.
    pub(crate) is_over: bool,
    /// What became of the processes that its actions name.
    pub(crate) effect: Option<FileEffect>,
}

/// How the bus is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BusView {
    pub(crate) connected: bool,
    pub(crate) server: Option<Name>,
    /// When the connection was lost; none while connected or never connected.
    pub(crate) alone_since: Option<Timestamp>,
    /// Why this instance may not act under its name.
    pub(crate) refused: Option<String>,
    pub(crate) controllers: bool,
    /// A controller that answered does not know this node, as far as that answer knew.
    pub(crate) unregistered: bool,
}

/// What beats tell of shortages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Strains {
    pub(crate) memory: Option<Strain>,
    pub(crate) disk: Option<Strain>,
    pub(crate) pids: Option<Strain>,
}

/// The present state of everything, for whoever reports or answers.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) processes: BTreeMap<Uid, ProcessView>,
    pub(crate) files: BTreeMap<Uid, FileView>,
    pub(crate) acts: BTreeMap<Uid, ActsView>,
    /// What each incarnation takes and says, as last told.
    pub(crate) measures: BTreeMap<Uid, (u64, Measure)>,
    pub(crate) run: HeldDocument,
    pub(crate) files_held: HeldDocument,
    pub(crate) secrets_held: HeldDocument,
    pub(crate) documents_at: Option<Timestamp>,
    pub(crate) assigned: u32,
    /// Namespaces whose output is shipped, as the run document says.
    pub(crate) ships: BTreeSet<Namespace>,
    /// Namespaces of processes here whose output is not.
    pub(crate) keeps: BTreeSet<Namespace>,
    /// Labels of the node that the run document carries.
    pub(crate) node_labels: BTreeMap<String, String>,
    pub(crate) conditions: BTreeMap<String, Condition>,
    pub(crate) host: Option<HostInfo>,
    /// What the host can do for processes; stays while the holder is away, which says nothing about the host.
    pub(crate) features: Vec<String>,
    /// The most that one process can be given, by the name of the limit; stay as the features do.
    pub(crate) bounds: BTreeMap<String, u64>,
    pub(crate) bus: BusView,
    pub(crate) report_seq: u64,
    /// Number of the last beat: it goes on when the bus actor is started again, for a beat that is not newer than the
    /// last one of its incarnation is no sign of life.
    pub(crate) beat_n: u64,
    pub(crate) exits_dropped: u64,
    pub(crate) facts: Facts,
    /// What runs outside Ostler takes, as last told.
    pub(crate) others: Option<Others>,
    /// What the host is short of now.
    pub(crate) strains: Strains,
}

impl Board {
    /// The row of a process, with what it takes.
    pub(crate) fn process_report(&self, view: &ProcessView) -> ProcessReport {
        let mut report = view.report.clone();
        let measured = self.measures.get(&report.u).filter(|(incarnation, _)| *incarnation == report.i);
        report.measure = measured.map(|(_, measure)| *measure);
        report
    }

    /// The row of a file, with what follows its last change.
    pub(crate) fn file_report(&self, uid: &Uid, view: &FileView) -> FileReport {
        let mut report = view.report.clone();
        if let Some(plan) = &view.change {
            let acts = self.acts.get(uid).filter(|acts| acts.progress.n == plan.n);
            let probing = match acts {
                _ if plan.probe.is_none() => Probing::Over,
                Some(acts) if acts.is_over => Probing::Over,
                Some(acts) => Probing::Asked(acts.probed.as_ref()),
                None => Probing::Asked(None),
            };
            overlay(&mut report, plan, acts.map(|acts| &acts.progress), probing);
            let is_of_it = report.wanted == plan.version;
            report.effect = acts.filter(|_| is_of_it).and_then(|acts| acts.effect);
        }
        report
    }
}

/// What all actors of one agent share.
pub(crate) struct Context {
    pub(crate) deps: Deps,
    pub(crate) node: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) identity: Identity,
    pub(crate) board: Mutex<Board>,
    pub(crate) memory: Mutex<Ledger>,
    pub(crate) ledger: Slot<ledger::Msg>,
    pub(crate) bus: Slot<bus::Msg>,
    pub(crate) registry: Slot<registry::Msg>,
    pub(crate) reporter: Slot<reporter::Msg>,
    pub(crate) events: Slot<events::Msg>,
    pub(crate) host: Slot<host::Msg>,
    pub(crate) relay: Slot<crate::actors::relay::Msg>,
    pub(crate) pressure: Slot<crate::actors::pressure::Msg>,
    pub(crate) acts: Slot<acts::Msg>,
    pub(crate) acts_wake: Wake,
    /// Something of a process has changed: for the one who waits for that.
    pub(crate) stirred: tokio::sync::Notify,
    pub(crate) report_wake: Wake,
    pub(crate) registry_wake: Wake,
    /// One dry run of a file at a time: candidates of one path have one name.
    pub(crate) trials: tokio::sync::Mutex<()>,
    /// How many starts this agent has heard the end of: what the host tells of itself was asked for before or after
    /// each.
    pub(crate) starts: AtomicU64,
}

impl Context {
    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    /// Makes a change durable; an error says why it is not.
    pub(crate) async fn persist(&self, change: Change) -> Result<(), String> {
        let (done, result) = oneshot::channel();
        if !self.ledger.cast(ledger::Msg::Change(Box::new(change), Some(done))) {
            return Err("the ledger is being restarted".to_owned());
        }
        result.await.unwrap_or_else(|_| Err("the ledger is being restarted".to_owned()))
    }

    /// Makes a change durable soon.
    pub(crate) fn note(&self, change: Change) {
        self.ledger.cast(ledger::Msg::Change(Box::new(change), None));
    }

    /// A template as it is kept beside the ledger.
    pub(crate) async fn kept_template(&self, hash: Sha256) -> Option<ProcessTemplate> {
        let bytes = self.deps.ledger.get(hash).await?;
        codec::decode(&bytes).ok()
    }

    /// Something that is reported changed.
    pub(crate) fn changed(&self) {
        self.report_wake.ring(&self.reporter, reporter::Msg::Wake);
    }

    /// Something that decisions of the registry depend on changed.
    pub(crate) fn reassess(&self) {
        self.registry_wake.ring(&self.registry, registry::Msg::Reassess);
    }

    /// Something that actions depend on changed.
    pub(crate) fn act(&self) {
        self.acts_wake.ring(&self.acts, acts::Msg::Wake);
    }

    /// Tells the story, best effort.
    pub(crate) fn tell(&self, object: ObjectRef, uid: Option<Uid>, reason: Reason, message: String) {
        tracing::info!(object = %object, %reason, "{message}");
        self.events.cast(events::Msg::Tell(Box::new(events::Told { object, uid, reason, message })));
    }

    pub(crate) fn node_ref(&self) -> Option<ObjectRef> {
        let name = self.node.as_str().parse().ok()?;
        Some(ObjectRef { kind: Kind::Node, namespace: None, name })
    }

    /// Sets a condition of the node, and tells when it begins.
    pub(crate) fn condition(&self, reason: Reason, message: Option<String>) {
        let kind = reason.as_str().to_owned();
        let begins = {
            let mut board = self.board();
            let before = board.conditions.get(&kind);
            match &message {
                None if before.is_none() => return,
                Some(text) if before.is_some_and(|c| c.message == *text) => return,
                None | Some(_) => {}
            }
            let begins = message.is_some() && before.is_none();
            match &message {
                None => {
                    board.conditions.remove(&kind);
                }
                Some(text) => {
                    let now = self.deps.clock.wall();
                    let since = before.map_or(now, |c| c.last_transition_time);
                    board.conditions.insert(
                        kind.clone(),
                        Condition {
                            kind,
                            status: ConditionStatus::True,
                            reason: reason.as_str().to_owned(),
                            message: text.clone(),
                            last_transition_time: since,
                            observed_generation: None,
                        },
                    );
                }
            }
            begins
        };
        if begins && let (Some(text), Some(object)) = (message, self.node_ref()) {
            self.tell(object, None, reason, text);
        }
        self.changed();
    }

    pub(crate) fn node_facts(&self) -> NodeFacts {
        let (facts, told) = {
            let board = self.board();
            (board.facts.clone(), board.node_labels.clone())
        };
        let mut labels = self.deps.config.labels.clone();
        labels.extend(fact_labels(&facts));
        labels.extend(told);
        NodeFacts {
            hostname: facts.hostname,
            address: facts.address,
            root: self.deps.config.root.clone(),
            labels,
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        let config = &self.deps.config;
        Rules {
            root: config.root.clone(),
            own: config.own.clone(),
            originals: config.originals.clone(),
            veto: Arc::clone(&config.veto),
        }
    }

    /// What is held on this host.
    pub(crate) fn holds(&self) -> Holds {
        lock(&self.memory).holds.clone()
    }

    pub(crate) fn dice(&self) -> u64 {
        self.deps.entropy.number()
    }
}

impl HostFacts for Context {
    fn is_mounted(&self, path: &str) -> bool {
        self.deps.files.is_mounted(&format!("{}{path}", self.deps.config.root))
    }

    fn exists(&self, path: &str) -> bool {
        self.deps.files.exists(&format!("{}{path}", self.deps.config.root))
    }
}

/// The labels that a node's facts give it.
pub(crate) fn fact_labels(facts: &Facts) -> BTreeMap<String, String> {
    let os = facts.os.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    [("ostler/arch", facts.arch.clone()), ("ostler/os", os), ("ostler/kernel", facts.kernel.clone())]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

pub(crate) type Shared = Arc<Context>;
