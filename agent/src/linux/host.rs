//! The host's processes through the holder's socket.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use ostler_agent_core::confine::{Preparation, default_nofile};
use ostler_agent_core::holder::confine;
use ostler_agent_core::holder::notify::Said;
use ostler_agent_core::holder::protocol::{
    Event, Exit, ExitRecord, KillMode, Limits, LogSpec, Phase, ProcKey, ProcessInfo, RefusalCode, Rlimit,
    SaidBy, SetLimits, Spawn, Spawned,
};
use ostler_agent_core::probe::Question;
use ostler_agent_core::reclaim::Spare;
use ostler_agent_core::unit::{HostExit, HostProcess, HowEnded, StartFailure};
use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::{self, Renewal};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Name, Namespace, Uid};

use super::features;
use super::folders::OwnFolders;
use super::ledger::blocking;
use super::log::{ProcessLog, ship};
use super::weight::weigh;
use super::{exec, probe, units, users};
use crate::context::lock;
use crate::holder_client::{Events, HolderClient, HolderError};
use crate::ports::{
    Held, Host, HostConnection, HostError, HostEvent, HostInfo, HostListing, HostRun, HostSession, HostSpawn,
    HostUser, Listed, LogName, LogQuery, LogReader, LogShipper, Prepared, RunOutcome, Screen, SpawnError,
    UnitEnd,
};

/// The host's processes.
pub struct LinuxHost {
    dir: PathBuf,
    log_dir: PathBuf,
    default_user: Option<String>,
    client: Mutex<Option<Arc<HolderClient>>>,
    /// Set once this host has refused the default limit of open files.
    modest: AtomicBool,
    folders: OwnFolders,
}

impl LinuxHost {
    /// Through the holder of folder `dir`, with logs below `log_dir`; processes that name no user run as
    /// `default_user`, or without one as the agent's own. What is made for them besides is in `folders`.
    #[must_use]
    pub fn new(
        dir: PathBuf,
        log_dir: PathBuf,
        default_user: Option<String>,
        folders: OwnFolders,
    ) -> Arc<Self> {
        Arc::new(Self {
            folders,
            dir,
            log_dir,
            default_user,
            client: Mutex::new(None),
            modest: AtomicBool::new(false),
        })
    }

    fn log_spec(&self, asked: &LogSpec) -> LogSpec {
        LogSpec { dir: self.log_dir.display().to_string(), ..asked.clone() }
    }

    fn client(&self) -> Result<Arc<HolderClient>, HostError> {
        lock(&self.client).clone().ok_or_else(|| HostError("there is no connection to the holder".to_owned()))
    }

    /// The limits, of which the default of open files is a wish.
    fn rlimits(&self, mut limits: Vec<Rlimit>) -> Vec<Rlimit> {
        let modest = self.modest.load(Ordering::Relaxed);
        for limit in limits.iter_mut().filter(|limit| modest && **limit == default_nofile()) {
            let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
            limit.hard = limit.hard.min(most.unwrap_or(u64::MAX));
            limit.soft = limit.soft.min(limit.hard);
        }
        limits
    }

    async fn try_spawn(&self, client: &HolderClient, spawn: HostSpawn) -> Result<Spawned, SpawnError> {
        // Of several starts that are refused at once, each is tried again: only what was asked in full counts.
        let asked_in_full = spawn.rlimits.contains(&default_nofile()) && !self.modest.load(Ordering::Relaxed);
        let tried = client.spawn(self.to_spawn(spawn.clone())).await.map_err(|error| spawn_error(&error));
        let refused = matches!(&tried, Err(SpawnError::Not(StartFailure::Failed(Reason::LimitRefused, _))));
        if refused && asked_in_full {
            self.modest.store(true, Ordering::Relaxed);
            return client.spawn(self.to_spawn(spawn)).await.map_err(|error| spawn_error(&error));
        }
        tried
    }

    fn to_spawn(&self, spawn: HostSpawn) -> Spawn {
        Spawn {
            key: spawn.key,
            name: spawn.name.to_string(),
            namespace: spawn.namespace.to_string(),
            argv: spawn.argv,
            env: spawn.env,
            user: spawn.user,
            cwd: spawn.cwd,
            umask: spawn.umask,
            rlimits: self.rlimits(spawn.rlimits),
            oom_score_adjust: spawn.oom_score_adjust,
            allow_new_privileges: spawn.allow_new_privileges,
            limits: spawn.limits,
            isolation: spawn.isolation,
            own_cgroup: true,
            log: self.log_spec(&spawn.log),
            kill_mode: kill_mode(spawn.kill_mode),
            listen: spawn.listen,
            stop_signal: i32::from(spawn.stop_signal.number()),
            grace_ms: spawn.grace_ms,
        }
    }
}

/// In a stop: only the deadline.
const NO_SIGNAL: i32 = 0;

fn kill_mode(mode: spec::KillMode) -> KillMode {
    match mode {
        spec::KillMode::Mixed => KillMode::Mixed,
        spec::KillMode::ControlGroup => KillMode::ControlGroup,
        spec::KillMode::Process => KillMode::Process,
    }
}

fn host_error(error: &HolderError) -> HostError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(&format!(": {more}"));
        }
        source = next.source();
    }
    HostError(text)
}

fn exit_of(record: ExitRecord) -> (Uid, HostExit) {
    let how = match record.exit {
        Exit::Code(code) => HowEnded::Code(code),
        Exit::Signal(signal) => HowEnded::Signal(signal),
        Exit::Unknown(why) => HowEnded::Unknown(why),
        Exit::Unrecognised => HowEnded::Unknown("told by a holder of another version".to_owned()),
    };
    let exit = HostExit {
        incarnation: record.key.incarnation,
        seq: record.seq,
        how,
        oom: record.oom,
        watchdog: record.watchdog,
        at: Timestamp(record.at),
    };
    (record.key.uid, exit)
}

fn listed(info: ProcessInfo) -> Option<Listed> {
    match info.phase {
        Phase::Starting | Phase::Running | Phase::Stopping => {}
        // The main process has ended; its exit is among the exits.
        Phase::Leftovers => return None,
    }
    Some(Listed {
        uid: info.key.uid,
        namespace: info.namespace.parse().ok()?,
        name: info.name.parse().ok()?,
        process: HostProcess {
            incarnation: info.key.incarnation,
            pid: u32::try_from(info.pid).ok()?,
            started_at: Timestamp(info.started_at),
            cgroup: info.cgroup,
            log_path: Some(info.log_path).filter(|path| !path.is_empty()),
            said: info.said,
        },
    })
}

fn event_of(event: Event) -> Option<HostEvent> {
    match event {
        Event::Exited(record) => {
            let (uid, exit) = exit_of(record);
            Some(HostEvent::Exited(uid, exit))
        }
        Event::TreeEmpty(key) => Some(HostEvent::TreeEmpty(key)),
        Event::Said(SaidBy { key, said }) => Some(HostEvent::Said(key, said)),
        // Whoever asked for the start has the answer to it.
        Event::Started(_) | Event::Unrecognised => None,
    }
}

fn events(receiver: Events) -> futures::stream::BoxStream<'static, HostEvent> {
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event| (event, receiver))
    });
    stream.filter_map(|event| std::future::ready(event_of(event))).boxed()
}

fn spawn_error(error: &HolderError) -> SpawnError {
    let text = host_error(error).0;
    let HolderError::Refused(refusal) = error else {
        return match error {
            HolderError::Encode(_) => SpawnError::Not(StartFailure::Failed(Reason::StartFailed, text)),
            HolderError::Connect { .. } => SpawnError::Not(StartFailure::Refused(text)),
            HolderError::Refused(_)
            | HolderError::Gone
            | HolderError::Late { .. }
            | HolderError::Mismatch => SpawnError::Unknown(text),
        };
    };
    let message = refusal.message.clone();
    match refusal.code {
        RefusalCode::StartFailed if confine::tells_of_a_limit(&message) => {
            SpawnError::Not(StartFailure::Failed(Reason::LimitRefused, message))
        }
        RefusalCode::StartFailed | RefusalCode::Invalid => {
            SpawnError::Not(StartFailure::Failed(Reason::StartFailed, message))
        }
        RefusalCode::Busy => SpawnError::Not(StartFailure::Busy),
        RefusalCode::AlreadyExists => SpawnError::Unknown(message),
        RefusalCode::Closing | RefusalCode::Failed | RefusalCode::NotFound | RefusalCode::Unsupported => {
            SpawnError::Not(StartFailure::Refused(message))
        }
    }
}

impl Host for LinuxHost {
    fn connect(&self) -> BoxFuture<'_, Result<HostConnection, HostError>> {
        async move {
            *lock(&self.client) = None;
            let (client, receiver) =
                HolderClient::connect(&self.dir, "agent").await.map_err(|error| host_error(&error))?;
            let welcome = client.welcome();
            let features = features::of(welcome, self.folders.has_credentials());
            let info = HostInfo {
                version: welcome.version.clone(),
                boot: welcome.boot_id.clone(),
                unenforced: features::missing(&features),
                features,
                rlimits: welcome.rlimits.clone(),
            };
            *lock(&self.client) = Some(Arc::new(client));
            Ok(HostConnection { info, events: events(receiver) })
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<HostListing, HostError>> {
        async move {
            let all = self.client()?.list().await.map_err(|error| host_error(&error))?;
            Ok(HostListing {
                leftovers: all
                    .processes
                    .iter()
                    .filter(|p| p.phase == Phase::Leftovers)
                    .map(|p| p.key)
                    .collect(),
                processes: all.processes.into_iter().filter_map(listed).collect(),
                exits: all.exits.into_iter().map(exit_of).collect(),
            })
        }
        .boxed()
    }

    fn spawn(&self, spawn: HostSpawn) -> BoxFuture<'_, Result<HostProcess, SpawnError>> {
        async move {
            let client = self.client().map_err(|error| SpawnError::Not(StartFailure::Refused(error.0)))?;
            let key = spawn.key;
            let spawned = self.try_spawn(&client, spawn).await?;
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Ok(HostProcess {
                incarnation: key.incarnation,
                pid: u32::try_from(spawned.pid).unwrap_or_default(),
                started_at: Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
                cgroup: None,
                log_path: Some(spawned.log_path).filter(|path| !path.is_empty()),
                said: Said::default(),
            })
        }
        .boxed()
    }

    fn stop(
        &self,
        key: ProcKey,
        signal: Option<Signal>,
        grace_ms: u64,
    ) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            let signal = signal.map_or(NO_SIGNAL, |signal| i32::from(signal.number()));
            let client = self.client()?;
            let done = match client.stop(key, Some(signal), Some(grace_ms)).await {
                // A holder that knows no stop without a signal: a signal too many is better than no deadline.
                Err(HolderError::Refused(refusal)) if refusal.code == RefusalCode::Invalid => {
                    client.stop(key, None, Some(grace_ms)).await
                }
                done => done,
            };
            done.map_err(|error| host_error(&error))
        }
        .boxed()
    }

    fn signal(&self, key: ProcKey, signal: Signal) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            let signal = i32::from(signal.number());
            self.client()?.signal(key, signal, false).await.map_err(|error| host_error(&error))
        }
        .boxed()
    }

    fn adjust(
        &self,
        key: ProcKey,
        limits: Limits,
        (rlimits, log): (Vec<Rlimit>, LogSpec),
    ) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            let client = self.client()?;
            let rlimits = self.rlimits(rlimits);
            let log = Some(self.log_spec(&log));
            let set = SetLimits { key, limits, rlimits: rlimits.clone(), log };
            match client.set_limits(set).await {
                // An older holder: what it knows is better than nothing, and what it does not is said.
                Err(HolderError::Refused(refusal)) if refusal.code == RefusalCode::Unsupported => {
                    client.set_rlimit(key, rlimits).await.map_err(|error| host_error(&error))?;
                    let why = "limits of control groups change with the next start: the holder is older";
                    Err(HostError(why.to_owned()))
                }
                result => result.map_err(|error| host_error(&error)),
            }
        }
        .boxed()
    }

    fn prepare(
        &self,
        preparation: Preparation,
        user: HostUser,
    ) -> BoxFuture<'_, Result<Prepared, (Reason, String)>> {
        if preparation.is_nothing() {
            return std::future::ready(Ok(Prepared::default())).boxed();
        }
        let folders = self.folders.clone();
        async move {
            let wanted = preparation.supplementary_groups.clone();
            let groups = blocking(move || users::groups(&wanted));
            let groups = groups.await.map_err(|why| (Reason::UserUnknown, why))?;
            let mut user = user;
            user.groups.extend(&groups);
            let prepared = blocking(move || folders.prepare(&preparation, &user)).await;
            prepared.map(|prepared| Prepared { groups, ..prepared }).map_err(|why| (Reason::StartFailed, why))
        }
        .boxed()
    }

    fn tidy(&self, known: BTreeSet<Uid>, gone: BTreeSet<Uid>) -> BoxFuture<'_, ()> {
        let (folders, log_dir) = (self.folders.clone(), self.log_dir.clone());
        async move {
            let work = move || {
                folders.tidy(&known, &gone);
                super::log::sweep::sweep(&log_dir, &known, std::time::SystemTime::now());
                Ok(())
            };
            if let Err(why) = blocking(work).await {
                tracing::warn!(why, "folders of processes that are gone were not looked at");
            }
        }
        .boxed()
    }

    fn old_logs(&self, known: BTreeSet<Uid>) -> BoxFuture<'_, Vec<Spare>> {
        let log_dir = self.log_dir.clone();
        blocking(move || Ok(super::old_logs::find(&log_dir, &known))).map(Result::unwrap_or_default).boxed()
    }

    fn remove_logs(&self, known: BTreeSet<Uid>, logs: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>> {
        let log_dir = self.log_dir.clone();
        let work = move || Ok(super::old_logs::remove(&log_dir, &known, logs));
        blocking(work).map(Result::unwrap_or_default).boxed()
    }

    fn held(&self, of: Vec<(Uid, Namespace, Name)>) -> BoxFuture<'_, Vec<Held>> {
        let (log_dir, folders) = (self.log_dir.clone(), self.folders.clone());
        let one = move |(uid, namespace, name): (Uid, Namespace, Name)| {
            let log = log_dir.join(namespace.as_str()).join(name.as_str());
            let places = [log, folders.folder_of(uid)];
            let weights = places.into_iter().filter_map(|path| weigh(&path));
            weights.map(move |w| Held { uid, device: w.device, bytes: w.bytes }).collect::<Vec<_>>()
        };
        blocking(move || Ok(of.into_iter().flat_map(one).collect())).map(Result::unwrap_or_default).boxed()
    }

    fn run(&self, run: HostRun) -> BoxFuture<'_, Result<RunOutcome, HostError>> {
        let order = exec::Order::new(run.beside, run.timeout_ms, self.to_spawn(run.like));
        async move { exec::run(&self.dir, order, run.output_max).await }.boxed()
    }

    fn attend(&self, run: HostRun, screen: Option<Screen>) -> BoxFuture<'_, Result<HostSession, HostError>> {
        let order = exec::Order::new(run.beside, run.timeout_ms, self.to_spawn(run.like));
        async move { exec::attend(&self.dir, order, screen).await }.boxed()
    }

    fn unit(&self, how: Renewal, unit: String) -> BoxFuture<'_, Result<UnitEnd, String>> {
        async move {
            let bus = std::path::Path::new(units::SYSTEM_BUS);
            units::renew(bus, how, &unit).await.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn error_lines(&self) -> BoxFuture<'_, Vec<(ProcKey, u64)>> {
        async move {
            let Ok(client) = self.client() else { return Vec::new() };
            let listed = client.list().await.map(|all| all.processes).unwrap_or_default();
            listed.into_iter().map(|process| (process.key, process.log.errors)).collect()
        }
        .boxed()
    }

    fn acknowledge(&self, key: ProcKey, seq: u64) -> BoxFuture<'_, Result<(), HostError>> {
        async move { self.client()?.ack_exit(key, seq).await.map_err(|error| host_error(&error)) }.boxed()
    }

    fn user(&self, user: Option<String>, group: Option<String>) -> BoxFuture<'_, Result<HostUser, String>> {
        let default = self.default_user.clone();
        blocking(move || users::look_up(user.as_deref(), group.as_deref(), default.as_deref())).boxed()
    }

    fn ask(&self, question: Question, timeout_ms: u64) -> BoxFuture<'_, Result<(), String>> {
        probe::ask(question, timeout_ms).boxed()
    }

    fn log(
        &self,
        namespace: Namespace,
        name: Name,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, String>> {
        let log = ProcessLog::new(&self.log_dir, namespace.as_str(), name.as_str());
        blocking(move || {
            let reader = log.open(&query).map_err(|error| format!("the log cannot be read: {error}"))?;
            Ok(Box::new(Some(reader)) as Box<dyn LogReader>)
        })
        .boxed()
    }

    fn ship(
        &self,
        (namespace, name): LogName,
        uid: Uid,
    ) -> BoxFuture<'_, Result<Box<dyn LogShipper>, String>> {
        let log = ProcessLog::new(&self.log_dir, namespace.as_str(), name.as_str());
        blocking(move || Ok(Box::new(Some(ship::Shipper::open(log, uid))) as Box<dyn LogShipper>)).boxed()
    }

    fn unshipped(&self) -> BoxFuture<'_, Vec<(LogName, Uid)>> {
        let dir = self.log_dir.clone();
        blocking(move || Ok(ship::unfinished(&dir))).map(Result::unwrap_or_default).boxed()
    }
}
