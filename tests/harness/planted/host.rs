//! Bugs in how an agent treats processes, as wrappers around the ports of its host.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use ostler_agent::ports::{
    Artifacts, ArtifactsRef, Held, Host, HostConnection, HostError, HostEvent, HostListing, HostRef, HostRun,
    HostSession, HostSpawn, HostUser, LedgerRef, LedgerStore, LogName, LogQuery, LogReader, LogShipper,
    Prepared, RunOutcome, Screen, SpawnError, UnitEnd,
};
use ostler_agent_core::acts::ActState;
use ostler_agent_core::artifacts::Preparing;
use ostler_agent_core::confine::Preparation;
use ostler_agent_core::holder::protocol::{Limits, LogSpec, ProcKey, Rlimit};
use ostler_agent_core::ledger::Ledger;
use ostler_agent_core::probe::Question;
use ostler_agent_core::reclaim::Spare;
use ostler_agent_core::unit::{HostExit, HostProcess, HowEnded};
use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::{Artifact, Renewal};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Name, Namespace, Sha256, Uid};

use super::LifeBug;

/// A host that an agent with a bug sees.
pub(super) struct PlantedHost {
    pub(super) inner: HostRef,
    pub(super) bug: LifeBug,
}

fn gloomy(exit: HostExit) -> HostExit {
    let how = if exit.how == HowEnded::Code(0) { HowEnded::Code(1) } else { exit.how };
    HostExit { how, ..exit }
}

impl Host for PlantedHost {
    fn connect(&self) -> BoxFuture<'_, Result<HostConnection, HostError>> {
        Box::pin(async move {
            let connection = self.inner.connect().await?;
            if self.bug != LifeBug::Gloomy {
                return Ok(connection);
            }
            let events = connection.events.map(|event| match event {
                HostEvent::Exited(uid, exit) => HostEvent::Exited(uid, gloomy(exit)),
                other @ (HostEvent::TreeEmpty(_) | HostEvent::Said(..)) => other,
            });
            Ok(HostConnection { info: connection.info, events: events.boxed() })
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<HostListing, HostError>> {
        self.inner.list()
    }

    fn spawn(&self, spawn: HostSpawn) -> BoxFuture<'_, Result<HostProcess, SpawnError>> {
        Box::pin(async move {
            let mut process = self.inner.spawn(spawn).await?;
            process.said.ready |= self.bug == LifeBug::BelievesAll;
            Ok(process)
        })
    }

    fn stop(
        &self,
        key: ProcKey,
        signal: Option<Signal>,
        grace_ms: u64,
    ) -> BoxFuture<'_, Result<(), HostError>> {
        let grace_ms = if self.bug == LifeBug::KillsAtOnce { 0 } else { grace_ms };
        self.inner.stop(key, signal, grace_ms)
    }

    fn signal(&self, key: ProcKey, signal: Signal) -> BoxFuture<'_, Result<(), HostError>> {
        self.inner.signal(key, signal)
    }

    fn adjust(
        &self,
        key: ProcKey,
        limits: Limits,
        others: (Vec<Rlimit>, LogSpec),
    ) -> BoxFuture<'_, Result<(), HostError>> {
        self.inner.adjust(key, limits, others)
    }

    fn prepare(
        &self,
        preparation: Preparation,
        user: HostUser,
    ) -> BoxFuture<'_, Result<Prepared, (Reason, String)>> {
        self.inner.prepare(preparation, user)
    }

    fn tidy(&self, known: BTreeSet<Uid>, gone: BTreeSet<Uid>) -> BoxFuture<'_, ()> {
        self.inner.tidy(known, gone)
    }

    fn old_logs(&self, known: BTreeSet<Uid>) -> BoxFuture<'_, Vec<Spare>> {
        self.inner.old_logs(known)
    }

    fn remove_logs(&self, known: BTreeSet<Uid>, logs: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>> {
        self.inner.remove_logs(known, logs)
    }

    fn held(&self, of: Vec<(Uid, Namespace, Name)>) -> BoxFuture<'_, Vec<Held>> {
        self.inner.held(of)
    }

    fn run(&self, run: HostRun) -> BoxFuture<'_, Result<RunOutcome, HostError>> {
        Box::pin(async move {
            match self.bug {
                LifeBug::HooksNever => Ok(RunOutcome {
                    how: HowEnded::Code(0),
                    timed_out: false,
                    ended_because: None,
                    output: Bytes::new(),
                }),
                LifeBug::HooksTwice => {
                    self.inner.run(run.clone()).await?;
                    self.inner.run(run).await
                }
                LifeBug::BelievesAll
                | LifeBug::KillsAtOnce
                | LifeBug::ArtifactsAtOnce
                | LifeBug::Hasty
                | LifeBug::Gloomy
                | LifeBug::Amnesia => self.inner.run(run).await,
            }
        })
    }

    fn attend(&self, run: HostRun, screen: Option<Screen>) -> BoxFuture<'_, Result<HostSession, HostError>> {
        self.inner.attend(run, screen)
    }

    fn unit(&self, how: Renewal, unit: String) -> BoxFuture<'_, Result<UnitEnd, String>> {
        self.inner.unit(how, unit)
    }

    fn acknowledge(&self, key: ProcKey, seq: u64) -> BoxFuture<'_, Result<(), HostError>> {
        self.inner.acknowledge(key, seq)
    }

    fn user(&self, user: Option<String>, group: Option<String>) -> BoxFuture<'_, Result<HostUser, String>> {
        self.inner.user(user, group)
    }

    fn ask(&self, question: Question, timeout_ms: u64) -> BoxFuture<'_, Result<(), String>> {
        if self.bug == LifeBug::BelievesAll {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.inner.ask(question, timeout_ms)
    }

    fn log(
        &self,
        namespace: Namespace,
        name: Name,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, String>> {
        self.inner.log(namespace, name, query)
    }

    fn ship(&self, log: LogName, uid: Uid) -> BoxFuture<'_, Result<Box<dyn LogShipper>, String>> {
        self.inner.ship(log, uid)
    }

    fn unshipped(&self) -> BoxFuture<'_, Vec<(LogName, Uid)>> {
        self.inner.unshipped()
    }
}

/// Artifacts that are ready as soon as they are asked for.
pub(super) struct AtOnce(pub(super) ArtifactsRef);

impl Artifacts for AtOnce {
    fn prepare(&self, artifacts: Vec<Artifact>) -> BoxStream<'static, Preparing> {
        stream::iter([Preparing::Ready(self.0.folder(&artifacts))]).boxed()
    }

    fn folder(&self, artifacts: &[Artifact]) -> String {
        self.0.folder(artifacts)
    }

    fn retain(&self, in_use: BTreeSet<Sha256>) {
        self.0.retain(in_use);
    }

    fn spare(&self) -> BoxFuture<'_, Vec<Spare>> {
        self.0.spare()
    }

    fn remove(&self, spares: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>> {
        self.0.remove(spares)
    }
}

/// A ledger that nothing is read from.
pub(super) struct Amnesia(pub(super) LedgerRef);

impl LedgerStore for Amnesia {
    fn load(&self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn save(&self, record: Bytes) -> BoxFuture<'_, Result<(), String>> {
        self.0.save(record)
    }

    fn put(&self, hash: Sha256, bytes: Bytes) -> BoxFuture<'_, Result<(), String>> {
        self.0.put(hash, bytes)
    }

    fn get(&self, hash: Sha256) -> BoxFuture<'_, Option<Bytes>> {
        self.0.get(hash)
    }

    fn retain(&self, used: BTreeSet<Sha256>) -> BoxFuture<'_, Result<(), String>> {
        self.0.retain(used)
    }
}

/// A ledger that never heard that an action was begun.
pub(super) struct ForgetsBegun(pub(super) LedgerRef);

impl LedgerStore for ForgetsBegun {
    fn load(&self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            let Some(bytes) = self.0.load().await? else { return Ok(None) };
            let mut ledger = Ledger::decode(&bytes).map_err(|error| error.to_string())?;
            for state in ledger.acts.values_mut().flat_map(|progress| &mut progress.states) {
                if matches!(state, ActState::Begun { .. }) {
                    *state = ActState::Planned;
                }
            }
            ledger.encode().map(|bytes| Some(bytes.into())).map_err(|error| error.to_string())
        })
    }

    fn save(&self, record: Bytes) -> BoxFuture<'_, Result<(), String>> {
        self.0.save(record)
    }

    fn put(&self, hash: Sha256, bytes: Bytes) -> BoxFuture<'_, Result<(), String>> {
        self.0.put(hash, bytes)
    }

    fn get(&self, hash: Sha256) -> BoxFuture<'_, Option<Bytes>> {
        self.0.get(hash)
    }

    fn retain(&self, used: BTreeSet<Sha256>) -> BoxFuture<'_, Result<(), String>> {
        self.0.retain(used)
    }
}
