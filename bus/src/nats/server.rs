//! nats-servers as children, for `ostler dev` and for tests: found, started, watched until ready, stopped, killed.
//!
//! A child dies with the value that stands for it; only a parent that is killed with SIGKILL leaves its children behind. It listens where its configuration says, on the loopback for
//! [`Local`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ostler_schemas::{Name, NodeName};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::connect::{BusFile, Config};
use crate::entropy::Entropy;
use crate::layout::Identity;
use crate::setup::{self, Options};

/// Where `make` puts the server, below cargo's target folder.
const INSTALLED: &str = "nats-server/bin/nats-server";
/// The oldest server that is any use.
const OLDEST: (u64, u64) = (2, 15);
/// A server that was asked to stop and has not after this is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// A server that is not ready after this has a reason; its log tells it.
const READY_PATIENCE: Duration = Duration::from_secs(15);
/// Pause between looks at a starting server.
const POLL: Duration = Duration::from_millis(10);
/// Enough of a log to show with an error.
const LOG_SHOWN: usize = 2_000;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// None is installed.
    #[error(
        "no nats-server 2.15 or newer: looked at $OSTLER_NATS_SERVER, on PATH and in target/nats-server ({found}); \
         run `make nats`, or install one and put it on PATH"
    )]
    NotFound {
        /// What was found instead.
        found: String,
    },
    /// It could not be started.
    #[error("cannot start {}", binary.display())]
    Start {
        /// The program.
        binary: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ended, or did not listen in time.
    #[error("nats-server {name} is not ready: {reason}\n{log}")]
    NotReady {
        /// The server.
        name: String,
        /// What happened.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// A file, folder or port could not be had.
    #[error("cannot {act}")]
    Io {
        /// What was tried.
        act: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The configuration could not be made.
    #[error("cannot write the servers' configuration")]
    Setup {
        /// What setup met.
        #[source]
        source: setup::SetupError,
    },
}

/// The version that a program says it has, if it is a nats-server.
fn version_of(binary: &Path) -> Option<(u64, u64)> {
    let output = std::process::Command::new(binary).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.trim().strip_prefix("nats-server: v")?.split('.').map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The nats-server to run: `$OSTLER_NATS_SERVER`, else the first on PATH that is new enough, else what `make` has
/// installed beside this program.
///
/// # Errors
/// [`ServerError::NotFound`], with what to do.
pub fn find_binary() -> Result<PathBuf, ServerError> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    if let Some(named) = std::env::var_os("OSTLER_NATS_SERVER") {
        candidates.push(named.into());
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        candidates.extend(std::env::split_paths(&path).map(|folder| folder.join("nats-server")));
        let own = std::env::current_exe().unwrap_or_default();
        for folder in own.ancestors().skip(1) {
            candidates.push(folder.join(INSTALLED));
            candidates.push(folder.join("target").join(INSTALLED));
        }
    }
    let mut found = Vec::new();
    if let [named] = candidates.as_slice()
        && !named.is_file()
    {
        found.push(format!("{} is no file", named.display()));
    }
    for candidate in candidates.into_iter().filter(|c| c.is_file()) {
        match version_of(&candidate) {
            Some(version) if version >= OLDEST => return Ok(candidate),
            Some((major, minor)) => found.push(format!("{} is {major}.{minor}", candidate.display())),
            None => found.push(format!("{} is no nats-server", candidate.display())),
        }
    }
    let found = if found.is_empty() { "nothing there".to_owned() } else { found.join(", ") };
    Err(ServerError::NotFound { found })
}

/// `count` ports that are free on the loopback now. Somebody may take one before its user does; then the server says
/// so.
///
/// # Errors
/// [`ServerError::Io`] if the system gives none.
pub fn free_ports(count: usize) -> Result<Vec<u16>, ServerError> {
    let io = |source| ServerError::Io { act: "find a free port".to_owned(), source };
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io)?);
    }
    held.iter().map(|l| l.local_addr().map(|a| a.port()).map_err(io)).collect()
}

/// One server, running or not.
#[derive(Debug)]
pub struct Server {
    name: String,
    binary: PathBuf,
    conf: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// A server that is not started yet. It runs in the folder of `conf` and logs to `log`; `address` is where its
    /// clients reach it.
    #[must_use]
    pub fn new(name: &str, binary: &Path, conf: &Path, log: &Path, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            conf: conf.to_owned(),
            log: log.to_owned(),
            address,
            child: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts it; [`Server::ready`] waits for it.
    ///
    /// # Errors
    /// [`ServerError`] if it cannot be started.
    pub fn start(&mut self) -> Result<(), ServerError> {
        assert!(self.child.is_none(), "a server is started once at a time");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(|source| ServerError::Io {
            act: format!("open the log {}", self.log.display()),
            source,
        })?;
        let folder = self.conf.parent().unwrap_or(Path::new("/"));
        let child = Command::new(&self.binary)
            .arg("-c")
            .arg(&self.conf)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            // A terminal's Ctrl-C is for the parent, which stops its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ServerError::Start { binary: self.binary.clone(), source })?;
        self.child = Some(child);
        Ok(())
    }

    fn not_ready(&self, reason: impl Into<String>) -> ServerError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let start = log.char_indices().rev().nth(LOG_SHOWN).map_or(0, |(i, _)| i);
        ServerError::NotReady { name: self.name.clone(), reason: reason.into(), log: log[start..].to_owned() }
    }

    /// Done when it greets clients.
    ///
    /// # Errors
    /// [`ServerError::NotReady`] with the end of its log.
    pub async fn ready(&mut self) -> Result<(), ServerError> {
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                return Err(self.not_ready(format!("it ended with {status}")));
            }
            if self.greets().await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.not_ready("it does not listen"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn greets(&self) -> bool {
        let Ok(mut stream) = tokio::net::TcpStream::connect(self.address).await else { return false };
        let mut start = [0; 5];
        let read = tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut start)).await;
        matches!(read, Ok(Ok(_))) && &start == b"INFO "
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|p| i32::try_from(p).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It fails only if the process has just ended, and then there is nothing to signal.
            kill_process(pid, signal).unwrap_or_default();
        }
    }

    /// Ends it as its operator would, and waits.
    pub async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let Some(child) = self.child.as_mut() else { return };
        if tokio::time::timeout(STOP_PATIENCE, child.wait()).await.is_err() {
            drop(child.kill().await);
        }
        self.child = None;
    }

    /// Ends it as a crash would, and waits.
    pub async fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(child.kill().await);
    }

    /// Done when it has ended by itself, with its status; it may then be started again.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.wait().await.ok();
        self.child = None;
        status
    }

    /// Holds it still, as a hung host would be; [`Server::thaw`] lets it go on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        // The signal is under way until each of its threads has met it, and until then that thread answers.
        while self.child.is_some() && self.pid().is_some_and(|pid| !is_stopped(pid)) {
            std::thread::yield_now();
        }
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Has it read its configuration again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }
}

/// What a bus on the loopback consists of.
#[derive(Debug, Clone, Default)]
pub struct LocalOptions {
    /// One, three or five servers.
    pub servers: usize,
    /// Nodes.
    pub nodes: BTreeSet<NodeName>,
    /// Operators.
    pub operators: BTreeSet<Name>,
    /// Prefixes of simulated nodes, and how many of each.
    pub simulated: BTreeMap<Name, u32>,
}

/// A whole bus on the loopback, with generated credentials: `<dir>/setup` is what [`setup::run`] writes, `<dir>/store`
/// and `<dir>/log` are the servers'.
#[derive(Debug)]
pub struct Local {
    dir: PathBuf,
    bus: BusFile,
    /// The servers, in the order of their names `s1`, `s2`, ….
    pub servers: Vec<Server>,
}

fn loopback_servers(dir: &Path, count: usize) -> Result<Vec<setup::Server>, ServerError> {
    let ports = free_ports(2 * count)?;
    let pairs = ports.chunks_exact(2).enumerate();
    let servers = pairs.filter_map(|(i, pair)| {
        let name: Name = format!("s{}", i + 1).parse().ok()?;
        Some(setup::Server {
            store_dir: dir.join("store").join(name.as_str()),
            name,
            host: "127.0.0.1".to_owned(),
            listen: "127.0.0.1".to_owned(),
            client_port: pair[0],
            cluster_port: pair[1],
        })
    });
    Ok(servers.collect())
}

impl Local {
    /// Generates everything below `dir`, starts the servers and waits until each greets clients. Streams are
    /// [`super::provision`]'s.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn start(
        dir: &Path,
        options: LocalOptions,
        entropy: &dyn Entropy,
    ) -> Result<Local, ServerError> {
        let binary = find_binary()?;
        let mut local = Local::prepare(dir, options, &binary, entropy)?;
        for server in &mut local.servers {
            server.start()?;
        }
        for server in &mut local.servers {
            server.ready().await?;
        }
        Ok(local)
    }

    fn prepare(
        dir: &Path,
        options: LocalOptions,
        binary: &Path,
        entropy: &dyn Entropy,
    ) -> Result<Local, ServerError> {
        let LocalOptions { servers: count, nodes, operators, simulated } = options;
        let io = |act: &str, source| ServerError::Io { act: act.to_owned(), source };
        std::fs::create_dir_all(dir.join("log")).map_err(|e| io("create the log folder", e))?;
        let dir = dir.canonicalize().map_err(|e| io("find the bus's folder", e))?;
        let servers = loopback_servers(&dir, count)?;
        let out = dir.join("setup");
        let options = Options { servers: servers.clone(), nodes, operators, simulated, ..Options::default() };
        setup::run(&out, &options, entropy).map_err(|source| ServerError::Setup { source })?;
        let made = servers.iter().map(|s| {
            let conf = out.join(format!("nats/{}.conf", s.name));
            let log = dir.join(format!("log/nats-{}.log", s.name));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, s.client_port));
            Server::new(s.name.as_str(), binary, &conf, &log, address)
        });
        let bus = BusFile {
            servers: servers.iter().map(setup::Server::url).collect(),
            credentials: "controller.nk".into(),
            ca: "ca.pem".into(),
            canary: Some("canary.nk".into()),
            identities: Some("identities.json".into()),
        };
        let servers = made.collect();
        Ok(Local { bus: bus.resolved(&out.join("controller")), dir, servers })
    }

    /// Where [`setup::run`] wrote.
    #[must_use]
    pub fn setup_dir(&self) -> PathBuf {
        self.dir.join("setup")
    }

    /// The controllers' section `[bus]`, its paths absolute.
    #[must_use]
    pub fn bus(&self) -> &BusFile {
        &self.bus
    }

    /// The connection of one identity of this bus.
    #[must_use]
    pub fn config(&self, identity: Identity) -> Config {
        let out = self.setup_dir();
        let credentials = match &identity {
            Identity::Controller => out.join("controller/controller.nk"),
            Identity::Canary { .. } => out.join("controller/canary.nk"),
            Identity::Node(node) => out.join(format!("nodes/{node}/node.nk")),
            Identity::Simulated(block) => out.join(block.key_file()),
            Identity::Operator(user) => out.join(format!("operators/{user}/operator.nk")),
            Identity::View => out.join("view/view.nk"),
        };
        let name = identity.caller();
        Config { servers: self.bus.servers.clone(), credentials, ca: self.bus.ca.clone(), identity, name }
    }

    /// Stops every server, as their operator would.
    pub async fn stop(&mut self) {
        for server in &self.servers {
            server.signal(Signal::TERM);
        }
        for server in &mut self.servers {
            server.stop().await;
        }
    }
}

/// Whether no thread of a process goes on: each is stopped, or the process is gone.
fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats.into_iter().all(|stat| {
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        state.starts_with(['T', 't', 'Z', 'X'])
    })
}
