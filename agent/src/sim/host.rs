//! Simulated processes under a simulated holder: they live on when the agent dies, end as their program says, and
//! everything that ever happened is written down for checkers.

mod disk;
mod logs;
mod program;
mod runs;
mod stops;
mod story;
mod voices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use ostler_agent_core::confine::{Folder, Preparation};
use ostler_agent_core::environment::UserFacts;
use ostler_agent_core::file::Owner;
use ostler_agent_core::holder::notify::Said;
use ostler_agent_core::holder::protocol::{Limits, LogSpec, ProcKey, Rlimit};
use ostler_agent_core::probe::Question;
use ostler_agent_core::reclaim::Spare;
use ostler_agent_core::secrets::CredentialFolder;
use ostler_agent_core::unit::{HostExit, HostProcess, HowEnded, StartFailure};
use ostler_bus::clock::ClockRef;
use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::Renewal;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Name, Namespace, Uid};
use tokio::sync::mpsc;

use crate::context::lock;
use crate::ports::{
    Held, Host, HostConnection, HostError, HostEvent, HostInfo, HostListing, HostRun, HostSession, HostSpawn,
    HostUser, Listed, LogName, LogQuery, LogReader, LogShipper, Prepared, RunOutcome, Screen, SpawnError,
    UnitEnd,
};

struct Living {
    spawn: HostSpawn,
    process: HostProcess,
    /// When it started, by a clock that nobody sets.
    since: Mono,
    /// When it is killed, once somebody has asked it to end.
    killed_at: Option<Mono>,
    /// What its ports answered last, by name.
    answered: BTreeMap<String, bool>,
}

struct Inner {
    programs: BTreeMap<String, Program>,
    manners: Arc<Manners>,
    living: BTreeMap<ProcKey, Living>,
    exits: Vec<(ProcKey, HostExit)>,
    listeners: Vec<mpsc::UnboundedSender<HostEvent>>,
    history: Vec<SimRecord>,
    ran: Vec<SimRun>,
    units: Vec<(Renewal, String)>,
    logs: logs::Logs,
    shipped: logs::Marks,
    users: BTreeMap<String, Owner>,
    /// Folders of processes.
    folders: BTreeMap<Uid, Vec<Folder>>,
    credentials: BTreeMap<Uid, CredentialFolder>,
    seq: u64,
    next_pid: u32,
    boot: u64,
    on: bool,
    holder: bool,
    /// Incarnations whose main process has ended while something else of them has not.
    leftovers: BTreeMap<ProcKey, Name>,
    next_run: u64,
    unready_ports: BTreeMap<u16, ()>,
    /// What the watchdog is about to end.
    silent: BTreeSet<ProcKey>,
    /// What lies on its disk for processes, gone ones included.
    disk: disk::Disk,
}

/// A host's processes. Outlives agents.
pub struct SimHost {
    clock: ClockRef,
    me: Weak<SimHost>,
    inner: Mutex<Inner>,
}

pub(super) use disk::DEVICE;
pub use program::{Manners, Program};
pub use runs::SimRun;
pub use story::{SimEvent, SimRecord};

const SIGKILL: i32 = 9;
const SIGABRT: i32 = 6;

impl SimHost {
    /// A running host without processes. Its clock is that of the machine, not of one life of an agent.
    #[must_use]
    pub fn new(clock: ClockRef) -> Arc<Self> {
        Self::with_manners(clock, Arc::default(), 1)
    }

    /// As [`SimHost::new`], with these manners, in the life with this number.
    #[must_use]
    pub fn with_manners(clock: ClockRef, manners: Arc<Manners>, boot: u64) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            clock,
            me: me.clone(),
            inner: Mutex::new(Inner {
                programs: BTreeMap::new(),
                manners,
                living: BTreeMap::new(),
                exits: Vec::new(),
                listeners: Vec::new(),
                history: Vec::new(),
                ran: Vec::new(),
                units: Vec::new(),
                logs: logs::Logs::default(),
                shipped: logs::Marks::default(),
                folders: BTreeMap::new(),
                credentials: BTreeMap::new(),
                users: BTreeMap::from([("root".to_owned(), Owner { uid: 0, gid: 0 })]),
                seq: 0,
                next_pid: 100,
                boot,
                on: true,
                holder: true,
                leftovers: BTreeMap::new(),
                next_run: 0,
                unready_ports: BTreeMap::new(),
                silent: BTreeSet::new(),
                disk: disk::Disk::default(),
            }),
        })
    }

    /// How processes whose first word is `command` behave from now on.
    pub fn program(&self, command: &str, program: Program) {
        lock(&self.inner).programs.insert(command.to_owned(), program);
    }

    /// The present boot id.
    #[must_use]
    pub fn boot(&self) -> String {
        format!("boot-{}", lock(&self.inner).boot)
    }

    /// What lives, with its words.
    #[must_use]
    pub fn living(&self) -> Vec<(ProcKey, Name, Vec<String>)> {
        let inner = lock(&self.inner);
        inner.living.iter().map(|(k, l)| (*k, l.spawn.name.clone(), l.spawn.argv.clone())).collect()
    }

    /// How much memory each living incarnation takes, as its program says.
    #[must_use]
    pub fn memory(&self) -> Vec<(ProcKey, u64)> {
        let inner = lock(&self.inner);
        let takes = |living: &Living| inner.program_of(living).memory;
        inner.living.iter().map(|(key, living)| (*key, takes(living))).collect()
    }

    /// Exits that no agent has acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        lock(&self.inner).exits.len()
    }

    /// Ends an incarnation as if by itself.
    pub fn end(&self, key: ProcKey, how: HowEnded) {
        let mut inner = lock(&self.inner);
        let Some(living) = inner.living.remove(&key) else { return };
        inner.seq += 1;
        let watchdog = inner.silent.remove(&key);
        let lingers_ms = inner.program_of(&living).lingers_ms;
        let at = self.clock.now();
        // What nobody's child is any more leaves no code behind.
        let how = if inner.holder { how } else { HowEnded::Unknown("no holder ran".to_owned()) };
        let exit =
            HostExit { incarnation: key.incarnation, seq: inner.seq, how, oom: false, watchdog, at: at.wall };
        inner.exits.push((key, exit.clone()));
        inner.note(at, key, &living.spawn.name, SimEvent::Ended(exit.how.clone()));
        inner.tell(&HostEvent::Exited(key.uid, exit));
        if lingers_ms == 0 {
            inner.tell(&HostEvent::TreeEmpty(key));
            return;
        }
        inner.leftovers.insert(key, living.spawn.name);
        drop(inner);
        let (me, clock) = (self.me.clone(), self.clock.clone());
        tokio::spawn(async move {
            clock.sleep_ms(lingers_ms).await;
            if let Some(host) = me.upgrade() {
                host.clear(key);
            }
        });
    }

    /// Ends an incarnation because it was silent for too long.
    fn end_by_watchdog(&self, key: ProcKey) {
        if !lock(&self.inner).living.contains_key(&key) {
            return;
        }
        lock(&self.inner).silent.insert(key);
        self.end(key, HowEnded::Signal(SIGABRT));
    }

    /// A port on which readiness probes fail from now on, or succeed again.
    pub fn set_port_ready(&self, port: u16, ready: bool) {
        let mut inner = lock(&self.inner);
        if ready {
            inner.unready_ports.remove(&port);
        } else {
            inner.unready_ports.insert(port, ());
        }
    }

    /// The power goes: nothing lives, nothing is remembered. The agent must be ended by the test.
    pub fn power_off(&self) {
        let at = self.clock.now();
        let mut inner = lock(&self.inner);
        for (key, living) in std::mem::take(&mut inner.living) {
            inner.note(at, key, &living.spawn.name, SimEvent::PowerLost);
        }
        inner.leftovers.clear();
        inner.exits.clear();
        inner.listeners.clear();
        inner.on = false;
    }

    /// The host boots.
    pub fn power_on(&self) {
        let mut inner = lock(&self.inner);
        inner.boot += 1;
        inner.on = true;
        inner.holder = true;
    }

    /// The holder goes; what lives lives on.
    pub fn holder_down(&self) {
        let mut inner = lock(&self.inner);
        inner.listeners.clear();
        inner.holder = false;
    }

    /// The holder is back and has adopted everything.
    pub fn holder_up(&self) {
        lock(&self.inner).holder = true;
    }

    /// Puts lines into a process's log.
    pub fn log(&self, namespace: &Namespace, name: &Name, text: &str) {
        let key = (namespace.clone(), name.clone());
        lock(&lock(&self.inner).logs).entry(key).or_default().extend_from_slice(text.as_bytes());
    }

    fn up(&self) -> Result<(), HostError> {
        let inner = lock(&self.inner);
        if inner.on && inner.holder { Ok(()) } else { Err(HostError("nobody listens".to_owned())) }
    }

    fn admit(&self, spawn: &HostSpawn) -> Result<Program, SpawnError> {
        let inner = lock(&self.inner);
        if !inner.on || !inner.holder {
            return Err(SpawnError::Not(StartFailure::Refused("nobody listens".to_owned())));
        }
        if inner.is_busy(spawn.key.uid) {
            return Err(SpawnError::Not(StartFailure::Busy));
        }
        let program = inner.program(&spawn.argv);
        match &program.broken {
            Some(why) => Err(SpawnError::Not(StartFailure::Failed(Reason::StartFailed, why.clone()))),
            None => Ok(program),
        }
    }

    fn begin(&self, spawn: HostSpawn, program: &Program) -> Result<HostProcess, SpawnError> {
        let now = self.clock.now();
        let (key, listen) = (spawn.key, spawn.listen);
        let process = {
            let mut inner = lock(&self.inner);
            if !inner.on || !inner.holder {
                return Err(SpawnError::Unknown("the connection ended".to_owned()));
            }
            if inner.is_busy(key.uid) {
                return Err(SpawnError::Not(StartFailure::Busy));
            }
            inner.next_pid += 1;
            let process = HostProcess {
                incarnation: key.incarnation,
                pid: inner.next_pid,
                started_at: now.wall,
                cgroup: None,
                log_path: None,
                said: Said::default(),
            };
            inner.note(now, key, &spawn.name, SimEvent::Started(spawn.argv.clone()));
            let answered = BTreeMap::new();
            let living =
                Living { spawn, process: process.clone(), since: now.mono, killed_at: None, answered };
            inner.living.insert(key, living);
            process
        };
        if let Some((ms, code)) = program.exits {
            self.end_after(key, ms, HowEnded::Code(code));
        }
        if let Some(listen) = listen {
            self.speak(key, listen, program);
        }
        Ok(process)
    }

    fn end_after(&self, key: ProcKey, ms: u64, how: HowEnded) {
        let (me, clock) = (self.me.clone(), self.clock.clone());
        tokio::spawn(async move {
            clock.sleep_ms(ms).await;
            if let Some(host) = me.upgrade() {
                host.end(key, how);
            }
        });
    }

    /// A process that is not here cannot be changed; what lives has from then on what was asked.
    fn adjusted(
        &self,
        key: ProcKey,
        limits: Limits,
        (rlimits, log): (Vec<Rlimit>, LogSpec),
    ) -> Result<(), HostError> {
        self.up()?;
        let mut inner = lock(&self.inner);
        let living = inner.living.get_mut(&key).ok_or_else(|| HostError(format!("{key} is not here")))?;
        living.spawn.limits = limits;
        living.spawn.rlimits = rlimits;
        living.spawn.log = log;
        Ok(())
    }

    /// The limits that a living process has now.
    #[must_use]
    pub fn limits(&self, key: ProcKey) -> Option<Limits> {
        lock(&self.inner).living.get(&key).map(|living| living.spawn.limits.clone())
    }

    /// The credentials that a process was given last.
    #[must_use]
    pub fn credentials(&self, uid: Uid) -> Option<CredentialFolder> {
        lock(&self.inner).credentials.get(&uid).cloned()
    }

    fn prepared(&self, preparation: &Preparation) -> Prepared {
        let folders = preparation.folders.clone();
        let mut inner = lock(&self.inner);
        inner.folders.insert(preparation.uid, folders);
        if let Some(folder) = &preparation.credentials {
            // The folder of an incarnation never changes.
            let kept = inner.credentials.get(&preparation.uid).is_some_and(|kept| kept.path == folder.path);
            if !kept {
                inner.credentials.insert(preparation.uid, folder.clone());
            }
        }
        Prepared { read_only_paths: preparation.read_only_paths.clone(), ..Prepared::default() }
    }
}

/// A simulated host can do everything.
fn features() -> Vec<String> {
    ostler_schemas::spec::features::ALL.iter().map(|name| (*name).to_owned()).collect()
}

impl Inner {
    fn tell(&mut self, event: &HostEvent) {
        self.listeners.retain(|listener| listener.send(event.clone()).is_ok());
    }

    /// How what is started with these words behaves.
    fn program(&self, argv: &[String]) -> Program {
        self.described(argv).unwrap_or_else(|| self.manners.usual.clone())
    }

    fn described(&self, argv: &[String]) -> Option<Program> {
        let described = argv.first().and_then(|command| self.programs.get(command));
        described.cloned().or_else(|| self.manners.failure(argv))
    }

    fn program_of(&self, living: &Living) -> Program {
        self.program(&living.spawn.argv)
    }

    /// Whether something of a process is still there.
    fn is_busy(&self, uid: Uid) -> bool {
        self.living.keys().chain(self.leftovers.keys()).any(|key| key.uid == uid)
    }
}

impl Host for SimHost {
    fn connect(&self) -> BoxFuture<'_, Result<HostConnection, HostError>> {
        async move {
            self.up()?;
            let (sender, receiver) = mpsc::unbounded_channel();
            lock(&self.inner).listeners.push(sender);
            let events = futures::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|event| (event, receiver))
            });
            let info = HostInfo {
                version: "sim".to_owned(),
                boot: self.boot(),
                unenforced: Vec::new(),
                features: features(),
                rlimits: BTreeMap::new(),
            };
            Ok(HostConnection { info, events: events.boxed() })
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<HostListing, HostError>> {
        async move {
            self.up()?;
            let inner = lock(&self.inner);
            let processes = inner.living.iter().map(|(key, l)| Listed {
                uid: key.uid,
                namespace: l.spawn.namespace.clone(),
                name: l.spawn.name.clone(),
                process: l.process.clone(),
            });
            let exits = inner.exits.iter().map(|(key, exit)| (key.uid, exit.clone())).collect();
            let leftovers = inner.leftovers.keys().copied().collect();
            Ok(HostListing { processes: processes.collect(), leftovers, exits })
        }
        .boxed()
    }

    fn spawn(&self, spawn: HostSpawn) -> BoxFuture<'_, Result<HostProcess, SpawnError>> {
        async move {
            let program = self.admit(&spawn)?;
            if program.starts_in_ms > 0 {
                self.clock.sleep_ms(program.starts_in_ms).await;
            }
            self.begin(spawn, &program)
        }
        .boxed()
    }

    fn stop(
        &self,
        key: ProcKey,
        signal: Option<Signal>,
        grace_ms: u64,
    ) -> BoxFuture<'_, Result<(), HostError>> {
        std::future::ready(self.begin_stop(key, signal, grace_ms)).boxed()
    }

    fn signal(&self, key: ProcKey, signal: Signal) -> BoxFuture<'_, Result<(), HostError>> {
        std::future::ready(self.signalled(key, signal)).boxed()
    }

    fn adjust(
        &self,
        key: ProcKey,
        limits: Limits,
        (rlimits, log): (Vec<Rlimit>, LogSpec),
    ) -> BoxFuture<'_, Result<(), HostError>> {
        std::future::ready(self.adjusted(key, limits, (rlimits, log))).boxed()
    }

    fn prepare(
        &self,
        preparation: Preparation,
        _: HostUser,
    ) -> BoxFuture<'_, Result<Prepared, (Reason, String)>> {
        std::future::ready(Ok(self.prepared(&preparation))).boxed()
    }

    fn tidy(&self, _: BTreeSet<Uid>, gone: BTreeSet<Uid>) -> BoxFuture<'_, ()> {
        let mut inner = lock(&self.inner);
        inner.folders.retain(|uid, _| !gone.contains(uid));
        inner.credentials.retain(|uid, _| !gone.contains(uid));
        drop(inner);
        std::future::ready(()).boxed()
    }

    fn old_logs(&self, known: BTreeSet<Uid>) -> BoxFuture<'_, Vec<Spare>> {
        std::future::ready(self.logs_left(&known)).boxed()
    }

    fn remove_logs(&self, known: BTreeSet<Uid>, logs: Vec<Spare>) -> BoxFuture<'_, Vec<Spare>> {
        std::future::ready(self.logs_removed(&known, logs)).boxed()
    }

    fn held(&self, of: Vec<(Uid, Namespace, Name)>) -> BoxFuture<'_, Vec<Held>> {
        std::future::ready(self.disk_held(&of)).boxed()
    }

    fn run(&self, run: HostRun) -> BoxFuture<'_, Result<RunOutcome, HostError>> {
        self.run_to_its_end(run).boxed()
    }

    fn attend(&self, run: HostRun, screen: Option<Screen>) -> BoxFuture<'_, Result<HostSession, HostError>> {
        std::future::ready(self.attended(run, screen)).boxed()
    }

    fn unit(&self, how: Renewal, unit: String) -> BoxFuture<'_, Result<UnitEnd, String>> {
        lock(&self.inner).units.push((how, unit));
        std::future::ready(Ok(UnitEnd::Done)).boxed()
    }

    fn acknowledge(&self, key: ProcKey, seq: u64) -> BoxFuture<'_, Result<(), HostError>> {
        let up = self.up();
        if up.is_ok() {
            lock(&self.inner).exits.retain(|(k, exit)| *k != key || exit.seq != seq);
        }
        std::future::ready(up).boxed()
    }

    fn user(&self, user: Option<String>, _: Option<String>) -> BoxFuture<'_, Result<HostUser, String>> {
        let inner = lock(&self.inner);
        let found = match &user {
            None => Ok(Owner { uid: 1000, gid: 1000 }),
            Some(name) => {
                let known = inner.users.get(name).copied();
                known
                    .or_else(|| inner.manners.stranger())
                    .ok_or(format!("user {name} is not known on this host"))
            }
        };
        let name = user.clone().unwrap_or_else(|| "nobody".to_owned());
        let result = found.map(|owner| HostUser {
            facts: UserFacts { name, home: "/".to_owned(), shell: "/bin/sh".to_owned() },
            owner,
            groups: Vec::new(),
            is_self: user.is_none(),
        });
        std::future::ready(result).boxed()
    }

    fn ask(&self, question: Question, _: u64) -> BoxFuture<'_, Result<(), String>> {
        let port = match question {
            Question::Http { port, .. } | Question::Tcp { port, .. } => port,
        };
        let result = if self.answers(port) { Ok(()) } else { Err("connection refused".to_owned()) };
        std::future::ready(result).boxed()
    }

    fn log(
        &self,
        namespace: Namespace,
        name: Name,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, String>> {
        std::future::ready(Ok(logs::open(&lock(&self.inner).logs, (namespace, name), &query))).boxed()
    }

    fn ship(&self, log: LogName, uid: Uid) -> BoxFuture<'_, Result<Box<dyn LogShipper>, String>> {
        let inner = lock(&self.inner);
        std::future::ready(Ok(logs::ship((&inner.logs, &inner.shipped), log, uid))).boxed()
    }

    fn unshipped(&self) -> BoxFuture<'_, Vec<(LogName, Uid)>> {
        let marks = lock(&self.inner).shipped.clone();
        let all = lock(&marks).iter().map(|(log, (uid, ..))| (log.clone(), *uid)).collect();
        std::future::ready(all).boxed()
    }
}
