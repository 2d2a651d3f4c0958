//! The ports of an agent's host behind the agent's gate: a paused agent does not act on its host, and one that has
//! crashed never sees the answer to what it asked last.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use ostler_agent::ports::{
    Artifacts, Files, Held, Host, HostConnection, HostError, HostListing, HostRun, HostSession, HostSpawn,
    HostUser, LedgerStore, LogName, LogQuery, LogReader, LogShipper, Prepared, RunOutcome, Screen,
    SpawnError, UnitEnd,
};
use ostler_agent::sim::{SimArtifacts, SimFiles, SimHost, SimLedger};
use ostler_agent_core::artifacts::Preparing;
use ostler_agent_core::confine::Preparation;
use ostler_agent_core::file::{Observed, Stamp, Step, StepError};
use ostler_agent_core::holder::protocol::{Limits, LogSpec, ProcKey, Rlimit};
use ostler_agent_core::probe::Question;
use ostler_agent_core::reclaim::Spare;
use ostler_agent_core::unit::HostProcess;
use ostler_bus::sim_clock::Gate;
use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::{Artifact, Renewal};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Name, Namespace, NodeName, Sha256, Uid};

use crate::checks::files::FileWatch;

async fn through<T>(gate: &Gate, work: impl Future<Output = T>) -> T {
    gate.ports().await;
    let answer = work.await;
    gate.ports().await;
    answer
}

fn gated<T: Send + 'static>(gate: &Gate, stream: BoxStream<'static, T>) -> BoxStream<'static, T> {
    let gate = gate.clone();
    stream
        .then(move |item| {
            let gate = gate.clone();
            async move {
                gate.ports().await;
                item
            }
        })
        .boxed()
}

/// A host behind a gate.
pub struct GatedHost {
    /// The host.
    pub inner: Arc<SimHost>,
    /// The agent's gate.
    pub gate: Gate,
}

impl Host for GatedHost {
    fn connect(&self) -> BoxFuture<'_, Result<HostConnection, HostError>> {
        async move {
            let connection = through(&self.gate, self.inner.connect()).await?;
            Ok(HostConnection { info: connection.info, events: gated(&self.gate, connection.events) })
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<HostListing, HostError>> {
        through(&self.gate, self.inner.list()).boxed()
    }

    fn spawn(&self, spawn: HostSpawn) -> BoxFuture<'_, Result<HostProcess, SpawnError>> {
        through(&self.gate, self.inner.spawn(spawn)).boxed()
    }

    fn stop(
        &self,
        key: ProcKey,
        signal: Option<Signal>,
        grace_ms: u64,
    ) -> BoxFuture<'_, Result<(), HostError>> {
        // The simulated host acts when it is called, not when its answer is waited for.
        through(&self.gate, async move { self.inner.stop(key, signal, grace_ms).await }).boxed()
    }

    fn signal(&self, key: ProcKey, signal: Signal) -> BoxFuture<'_, Result<(), HostError>> {
        through(&self.gate, async move { self.inner.signal(key, signal).await }).boxed()
    }

    fn adjust(
        &self,
        key: ProcKey,
        limits: Limits,
        others: (Vec<Rlimit>, LogSpec),
    ) -> BoxFuture<'_, Result<(), HostError>> {
        through(&self.gate, async move { self.inner.adjust(key, limits, others).await }).boxed()
    }

    fn prepare(
        &self,
        preparation: Preparation,
        user: HostUser,
    ) -> BoxFuture<'_, Result<Prepared, (Reason, String)>> {
        through(&self.gate, async move { self.inner.prepare(preparation, user).await }).boxed()
    }

    fn tidy(&self, known: BTreeSet<Uid>, gone: BTreeSet<Uid>) -> BoxFuture<'_, ()> {
        through(&self.gate, async move { self.inner.tidy(known, gone).await }).boxed()
    }

    fn old_logs(&self, known: BTreeSet<Uid>) -> BoxFuture<'_, Vec<Spare>> {
        through(&self.gate, self.inner.old_logs(known)).boxed()
    }

    fn remove_logs(&self, known: BTreeSet<Uid>, logs: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>> {
        through(&self.gate, self.inner.remove_logs(known, logs)).boxed()
    }

    fn held(&self, of: Vec<(Uid, Namespace, Name)>) -> BoxFuture<'_, Vec<Held>> {
        through(&self.gate, self.inner.held(of)).boxed()
    }

    fn run(&self, run: HostRun) -> BoxFuture<'_, Result<RunOutcome, HostError>> {
        through(&self.gate, self.inner.run(run)).boxed()
    }

    fn attend(&self, run: HostRun, screen: Option<Screen>) -> BoxFuture<'_, Result<HostSession, HostError>> {
        through(&self.gate, self.inner.attend(run, screen)).boxed()
    }

    fn unit(&self, how: Renewal, unit: String) -> BoxFuture<'_, Result<UnitEnd, String>> {
        through(&self.gate, self.inner.unit(how, unit)).boxed()
    }

    fn acknowledge(&self, key: ProcKey, seq: u64) -> BoxFuture<'_, Result<(), HostError>> {
        through(&self.gate, async move { self.inner.acknowledge(key, seq).await }).boxed()
    }

    fn user(&self, user: Option<String>, group: Option<String>) -> BoxFuture<'_, Result<HostUser, String>> {
        through(&self.gate, async move { self.inner.user(user, group).await }).boxed()
    }

    fn ask(&self, question: Question, timeout_ms: u64) -> BoxFuture<'_, Result<(), String>> {
        through(&self.gate, async move { self.inner.ask(question, timeout_ms).await }).boxed()
    }

    fn log(
        &self,
        namespace: Namespace,
        name: Name,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, String>> {
        through(&self.gate, async move { Host::log(&*self.inner, namespace, name, query).await }).boxed()
    }

    fn ship(&self, log: LogName, uid: Uid) -> BoxFuture<'_, Result<Box<dyn LogShipper>, String>> {
        through(&self.gate, self.inner.ship(log, uid)).boxed()
    }

    fn unshipped(&self) -> BoxFuture<'_, Vec<(LogName, Uid)>> {
        through(&self.gate, self.inner.unshipped()).boxed()
    }
}

/// Files behind a gate, looked at by a checker after each step.
pub struct GatedFiles {
    /// The files.
    pub inner: Arc<SimFiles>,
    /// The agent's gate.
    pub gate: Gate,
    /// Whose they are.
    pub node: NodeName,
    /// The checker.
    pub watch: Arc<FileWatch>,
}

impl Files for GatedFiles {
    fn list(&self, dir: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
        through(&self.gate, async move { self.inner.list(dir).await }).boxed()
    }

    fn observe(&self, path: String, wanted: Option<Bytes>) -> BoxFuture<'_, Result<Observed, String>> {
        through(&self.gate, async move { self.inner.observe(path, wanted).await }).boxed()
    }

    fn glance(&self, path: String) -> BoxFuture<'_, Stamp> {
        through(&self.gate, async move { self.inner.glance(path).await }).boxed()
    }

    fn apply(&self, step: Step, content: Option<Bytes>) -> BoxFuture<'_, Result<(), StepError>> {
        through(&self.gate, async move {
            let done = self.inner.apply(step, content).await;
            self.watch.look(&self.node, &self.inner);
            done
        })
        .boxed()
    }

    fn watch(&self, path: String) -> BoxStream<'static, ()> {
        gated(&self.gate, self.inner.watch(path))
    }

    fn exists(&self, path: &str) -> bool {
        self.inner.exists(path)
    }

    fn is_mounted(&self, path: &str) -> bool {
        self.inner.is_mounted(path)
    }
}

/// A ledger behind a gate.
pub struct GatedLedger {
    /// The ledger.
    pub inner: Arc<SimLedger>,
    /// The agent's gate.
    pub gate: Gate,
}

impl LedgerStore for GatedLedger {
    fn load(&self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        through(&self.gate, async move { self.inner.load().await }).boxed()
    }

    fn save(&self, record: Bytes) -> BoxFuture<'_, Result<(), String>> {
        through(&self.gate, async move { self.inner.save(record).await }).boxed()
    }

    fn put(&self, hash: Sha256, bytes: Bytes) -> BoxFuture<'_, Result<(), String>> {
        through(&self.gate, async move { self.inner.put(hash, bytes).await }).boxed()
    }

    fn get(&self, hash: Sha256) -> BoxFuture<'_, Option<Bytes>> {
        through(&self.gate, async move { self.inner.get(hash).await }).boxed()
    }

    fn retain(&self, used: BTreeSet<Sha256>) -> BoxFuture<'_, Result<(), String>> {
        through(&self.gate, async move { self.inner.retain(used).await }).boxed()
    }
}

/// A cache of artifacts behind a gate.
pub struct GatedArtifacts {
    /// The cache.
    pub inner: Arc<SimArtifacts>,
    /// The agent's gate.
    pub gate: Gate,
}

impl Artifacts for GatedArtifacts {
    fn prepare(&self, artifacts: Vec<Artifact>) -> BoxStream<'static, Preparing> {
        gated(&self.gate, self.inner.prepare(artifacts))
    }

    fn folder(&self, artifacts: &[Artifact]) -> String {
        self.inner.folder(artifacts)
    }

    fn retain(&self, in_use: BTreeSet<Sha256>) {
        if self.gate.is_open() {
            self.inner.retain(in_use);
        }
    }

    fn spare(&self) -> BoxFuture<'_, Vec<Spare>> {
        through(&self.gate, self.inner.spare()).boxed()
    }

    fn remove(&self, spares: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>> {
        through(&self.gate, async move { self.inner.remove(spares).await }).boxed()
    }
}
