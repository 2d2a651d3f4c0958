//! A real holder in a folder of its own, and what tests need around it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ostler_agent::holder_client::{Events, HolderClient, Snapshot};
use ostler_agent_core::holder::protocol::{
    Event, ExitRecord, Isolation, KillMode, Limits, LogSpec, ProcKey, Spawn, default_grace_ms,
    default_stop_signal,
};
use ostler_schemas::Uid;

/// How long anything may take before the test fails: far above what it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// How the holder names trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A cgroup each; needs root and a cgroup2 file system.
    Cgroups,
    /// The same, as on a kernel where children cannot be born in their cgroup.
    ForkedIntoCgroups,
    /// Sessions, descent and marks.
    Plain,
}

/// The modes this host can test; says what it leaves out.
pub(crate) fn modes() -> Vec<Mode> {
    match cgroup_mount().filter(|_| is_root()) {
        Some(_) => vec![Mode::Plain, Mode::Cgroups],
        None => {
            eprintln!("skipped with cgroups: needs root and a writable cgroup2 file system");
            vec![Mode::Plain]
        }
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    let path = PathBuf::from(mount.split(' ').nth(1)?);
    rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).ok()?;
    Some(path)
}

/// A holder and its folder. Dropping it ends the holder and everything it has.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) holder: Child,
    mode: Mode,
    user: Option<u32>,
}

impl Rig {
    pub(crate) async fn start(mode: Mode) -> Self {
        Self::start_as(mode, None).await
    }

    pub(crate) async fn start_as(mode: Mode, user: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(user) = user {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(user)).unwrap();
        }
        let holder = run(folder.path(), mode, user);
        let rig = Self { folder, holder, mode, user };
        rig.connect().await;
        rig
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("holder")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    pub(crate) async fn connect(&self) -> (HolderClient, Events) {
        let dir = self.dir();
        let begin = Instant::now();
        loop {
            match HolderClient::connect(&dir, "test").await {
                Ok(connected) => return connected,
                Err(error) => assert!(begin.elapsed() < LIMIT, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Where its processes get their cgroups.
    pub(crate) fn cgroup(&self) -> Option<PathBuf> {
        (self.mode != Mode::Plain).then(|| cgroup_of(self.folder.path()))
    }

    pub(crate) fn kill(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.holder = run(self.folder.path(), self.mode, self.user);
    }

    /// A start of `sh -c script`.
    pub(crate) fn shell(&self, key: ProcKey, script: &str) -> Spawn {
        self.program(key, &["/bin/sh", "-c", script])
    }

    pub(crate) fn program(&self, key: ProcKey, argv: &[&str]) -> Spawn {
        Spawn {
            key,
            name: format!("web-{}", key.uid.short()),
            namespace: "default".to_owned(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            user: None,
            cwd: "/".to_owned(),
            umask: 0o022,
            rlimits: Vec::new(),
            oom_score_adjust: 0,
            allow_new_privileges: false,
            limits: Limits::default(),
            isolation: Isolation::default(),
            own_cgroup: true,
            log: LogSpec::below(self.logs().display().to_string()),
            kill_mode: KillMode::Mixed,
            listen: None,
            stop_signal: default_stop_signal(),
            grace_ms: default_grace_ms(),
        }
    }

    /// Living processes that a holder of this folder started, by the mark in their environment.
    pub(crate) fn marked(&self) -> BTreeSet<i32> {
        let Ok(dir) = self.dir().canonicalize() else { return BTreeSet::new() };
        let mark = format!("OSTLER_HOLDER={}", dir.display());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_marked = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) && alive(*pid)
        };
        pids.filter(is_marked).collect()
    }

    pub(crate) fn log_of(&self, key: ProcKey) -> String {
        let path = self.logs().join("default").join(format!("web-{}", key.uid.short())).join("current.log");
        fs::read_to_string(path).unwrap_or_default()
    }
}

fn run(folder: &Path, mode: Mode, user: Option<u32>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostler-agent"));
    command.arg("holder").arg("--dir").arg(folder.join("holder")).arg("--cgroup");
    match mode {
        Mode::Plain => command.arg("none"),
        Mode::Cgroups => command.arg(cgroup_of(folder)),
        Mode::ForkedIntoCgroups => command.arg(cgroup_of(folder)).args(["--without", "clone3"]),
    };
    if let Some(user) = user {
        use std::os::unix::process::CommandExt as _;
        command.uid(user).gid(user);
    }
    command.stdin(Stdio::null()).spawn().unwrap()
}

fn cgroup_of(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap().to_string_lossy().trim_start_matches('.').to_owned();
    cgroup_mount().unwrap().join(format!("ostler-test-{name}"))
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
        for pid in self.marked() {
            // It may have ended just now.
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
        if self.mode != Mode::Plain {
            let path = cgroup_of(self.folder.path());
            drop(fs::write(path.join("cgroup.kill"), "1"));
            let begin = Instant::now();
            while remove(&path).is_err() && path.exists() && begin.elapsed() < LIMIT {
                std::thread::yield_now();
            }
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path())?;
    }
    fs::remove_dir(path)
}

pub(crate) fn key(n: u8) -> ProcKey {
    ProcKey { uid: Uid::from_bytes([n; 16]), incarnation: 1 }
}

/// Whether the process is there and not only a corpse.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !stat.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// The next exit of one incarnation.
pub(crate) async fn exit_of(events: &mut Events, key: ProcKey) -> ExitRecord {
    let exit = async {
        loop {
            match events.recv().await.expect("the holder lives") {
                Event::Exited(exit) if exit.key == key => return exit,
                Event::Exited(_)
                | Event::Started(_)
                | Event::TreeEmpty(_)
                | Event::Said(_)
                | Event::Unrecognised => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, exit).await.expect("an exit")
}

/// Waits until nothing of one incarnation is left.
pub(crate) async fn tree_empty(events: &mut Events, key: ProcKey) {
    let empty = async { while events.recv().await.expect("the holder lives") != Event::TreeEmpty(key) {} };
    tokio::time::timeout(LIMIT, empty).await.expect("an empty tree");
}

/// Waits until something holds.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < LIMIT, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the holder's listing is as wanted.
pub(crate) async fn until_listed(
    client: &HolderClient,
    what: &str,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Snapshot {
    let begin = Instant::now();
    loop {
        let snapshot = client.list().await.unwrap();
        if wanted(&snapshot) {
            return snapshot;
        }
        assert!(begin.elapsed() < LIMIT, "waited in vain until {what}: {snapshot:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
