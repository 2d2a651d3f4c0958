//! A fleet of the shipped programs on this machine, driven as a user would: `ostler dev` and the `ostler` command line.
//!
//! Guarantees: one fleet at a time in a test program; everything lies in one temporary folder; nothing outlives the
//! value, also when the test panics (it asks `dev` to end and then looks for what is left) or is killed (`dev` is tied
//! to the life of the thread that started it). The folder with all logs is kept when a test fails, and named. Unlike the
//! rest of the harness this lives in real time: it waits for states and has no opinion on how long they take, below
//! [`PATIENCE`].

mod children;
mod command;
mod parties;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use children::{alive, heard, kill, left_behind, term};
pub use command::{Done, programs};

/// What no healthy fleet on a loaded machine takes for any one thing.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// How long `dev` may take to end everything in order.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// Two cores hold one fleet: tests of one program take turns.
static TURN: Mutex<()> = Mutex::new(());

/// How big a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Hosts.
    pub agents: u16,
    /// Controllers.
    pub controllers: u16,
    /// Servers of the bus: 1 or 3.
    pub servers: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self { agents: 3, controllers: 1, servers: 1 }
    }
}

/// A live process of the fleet, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its node.
    pub node: String,
    /// Its pid on this machine.
    pub pid: u32,
    /// How often it was started again.
    pub restarts: u64,
    /// The version of its template.
    pub version: u64,
}

/// A fleet. Dropping it ends it.
#[derive(Debug)]
pub struct Fleet {
    folder: PathBuf,
    dev: Child,
    programs: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Fleet {
    /// Starts one and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready, with what it said.
    #[must_use]
    pub fn start(size: Size) -> Self {
        let folder = tempfile::Builder::new().prefix("ostler-real-").tempdir().expect("a folder").keep();
        Self::start_in(folder, size, &[])
    }

    /// Starts one in a folder that goes with it, `dev` being given these words too.
    ///
    /// # Panics
    /// As [`Fleet::start`].
    #[must_use]
    pub fn start_in(folder: PathBuf, size: Size, words: &[&OsStr]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let programs = programs();
        let log = fs::File::create(folder.join("dev.log")).expect("a log");
        let errors = log.try_clone().expect("a log");
        let ostler = programs.join("ostler");
        let mut command = Command::new(&ostler);
        // `dev-child` is how `dev` ties its own children to its life; here it ties `dev` to this thread's.
        command.args(["dev-child", &std::process::id().to_string(), "--"]).arg(&ostler);
        command.args(["dev", "--agents", &size.agents.to_string(), "--servers", &size.servers.to_string()]);
        command.args(["--controllers", &size.controllers.to_string()]).args(words);
        command.arg("--dir").arg(folder.join("dev")).arg("--ready-file").arg(folder.join("ready.json"));
        command.env("XDG_CONFIG_HOME", folder.join("config")).env("NO_COLOR", "1");
        command.env_remove("OSTLER_CONTEXT").env_remove("OSTLER_NAMESPACE");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let dev = command.spawn().expect("ostler starts");
        let mut fleet = Self { folder, dev, programs, _turn: turn };
        until("the fleet is ready", || {
            if let Ok(Some(status)) = fleet.dev.try_wait() {
                panic!("ostler dev ended ({status}): {}", fleet.log());
            }
            fleet.folder.join("ready.json").exists().then_some(())
        });
        fleet.nodes_become(&["Ready"]);
        fleet
    }

    /// The folder of everything.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What `ostler setup` wrote.
    #[must_use]
    pub fn setup(&self) -> PathBuf {
        self.folder.join("dev/setup")
    }

    /// Where the stock tools and the command line find their contexts.
    #[must_use]
    pub fn config_home(&self) -> PathBuf {
        self.folder.join("config")
    }

    /// What `dev` says of itself, as it is now.
    #[must_use]
    pub fn state(&self) -> Value {
        let text = fs::read(self.folder.join("ready.json")).expect("a ready file");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// What `dev` has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("dev.log")).unwrap_or_default()
    }

    /// The file of a managed path on a host.
    #[must_use]
    pub fn file(&self, node: &str, path: &str) -> PathBuf {
        self.folder.join("dev/hosts").join(node).join("root").join(path.trim_start_matches('/'))
    }

    /// Every daemon that runs, by its role and name: servers, controllers, agents and holders.
    #[must_use]
    pub fn daemons(&self) -> BTreeMap<String, u64> {
        let state = self.state();
        let list = |name: &str| state[name].as_array().cloned().unwrap_or_default();
        let mut all = BTreeMap::new();
        for (role, field) in
            [("servers", "pid"), ("controllers", "pid"), ("hosts", "agent"), ("hosts", "holder")]
        {
            for entry in list(role) {
                let name = format!("{field} {}", entry["name"].as_str().unwrap_or_default());
                all.extend(entry[field].as_u64().map(|pid| (name, pid)));
            }
        }
        all
    }

    /// Runs `ostler …`.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Done {
        self.run_with(words, "")
    }

    /// Runs `ostler …` with this on its standard input.
    #[must_use]
    pub fn run_with(&self, words: &[&str], input: &str) -> Done {
        command::run(self.command(words), input)
    }

    /// `ostler …`, not started.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("ostler"));
        command.args(words).env("XDG_CONFIG_HOME", self.config_home()).env("NO_COLOR", "1");
        command.env_remove("OSTLER_CONTEXT").env_remove("OSTLER_NAMESPACE");
        command
    }

    /// Runs `ostler …`, which must end well; what it printed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        self.run(words).ok()
    }

    /// Applies manifests and waits until they are so.
    ///
    /// # Panics
    /// When they are refused or do not converge.
    #[track_caller]
    pub fn converges(&self, manifest: &str) {
        self.run_with(&["apply", "-f", "-", "--wait", "--timeout", "60s"], manifest).ok();
    }

    /// `ostler get … -o json`: the objects; none while nobody answers.
    #[must_use]
    pub fn try_get(&self, what: &[&str]) -> Option<Vec<Value>> {
        let done = self.run(&[&["get"], what, &["-o", "json"]].concat());
        let value: Value = (done.code == 0).then(|| serde_json::from_str(&done.out).ok()).flatten()?;
        if value["kind"] == "List" { value["items"].as_array().cloned() } else { Some(vec![value]) }
    }

    /// As [`Fleet::try_get`], when somebody must answer.
    ///
    /// # Panics
    /// When nobody does, within [`PATIENCE`].
    #[must_use]
    pub fn get(&self, what: &[&str]) -> Vec<Value> {
        until(&format!("an answer to get {}", what.join(" ")), || self.try_get(what))
    }

    /// Processes that should run and are ready, by name; of one owner's where `owner` is not empty.
    #[must_use]
    pub fn running(&self, owner: &str) -> BTreeMap<String, Running> {
        let of_owner = |p: &Value| owner.is_empty() || p["metadata"]["ownerReferences"][0]["name"] == owner;
        let items = self.try_get(&["processes"]).unwrap_or_default();
        let live = items.iter().filter(|p| of_owner(p));
        live.filter_map(|p| {
            let status = &p["status"];
            (status["goal"] == "run" && status["ready"] == true).then_some(())?;
            let running = Running {
                node: status["node"].as_str()?.to_owned(),
                pid: u32::try_from(status["pid"].as_u64()?).ok()?,
                restarts: status["restarts"].as_u64()?,
                version: status["version"].as_u64()?,
            };
            Some((p["metadata"]["name"].as_str()?.to_owned(), running))
        })
        .collect()
    }

    /// Waits until exactly so many of an owner's processes run and are ready.
    ///
    /// # Panics
    /// When they are not, within [`PATIENCE`].
    #[track_caller]
    pub fn until_running(&self, owner: &str, count: usize) -> BTreeMap<String, Running> {
        until(&format!("{count} processes of {owner} are ready"), || {
            let now = self.running(owner);
            (now.len() == count).then_some(now)
        })
    }

    /// The phases of all nodes, by name.
    #[must_use]
    pub fn phases(&self) -> BTreeMap<String, String> {
        let nodes = self.try_get(&["nodes"]).unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        nodes.iter().map(|n| (text(&n["metadata"]["name"]), text(&n["status"]["phase"]))).collect()
    }

    /// Waits until every node is in one of these phases.
    ///
    /// # Panics
    /// When they are not, within [`PATIENCE`].
    #[track_caller]
    pub fn nodes_become(&self, phases: &[&str]) {
        until(&format!("all nodes are {phases:?}"), || {
            let now = self.phases();
            (!now.is_empty() && now.values().all(|phase| phases.contains(&phase.as_str()))).then_some(())
        });
    }

    /// All events, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let parse = |out: &str| serde_json::from_str::<Value>(out).ok()?["items"].as_array().cloned();
        until("an answer to events", || {
            let done = self.run(&["events", "-A", "-o", "json"]);
            (done.code == 0).then(|| parse(&done.out)).flatten()
        })
    }

    /// How many events have this reason.
    #[must_use]
    pub fn count(&self, reason: &str) -> usize {
        self.events().iter().filter(|event| event["reason"] == reason).count()
    }

    /// Waits for an event of this reason about an object (`deployment/web`).
    ///
    /// # Panics
    /// When there is none, within [`PATIENCE`].
    #[track_caller]
    pub fn until_event(&self, reason: &str, object: &str) -> Value {
        let (kind, name) = object.split_once('/').expect("KIND/NAME");
        until(&format!("event {reason} about {object}"), || {
            self.events().into_iter().rev().find(|event| {
                let about = &event["object"];
                let same = about["kind"].as_str().is_some_and(|k| k.eq_ignore_ascii_case(kind));
                same && event["reason"] == reason
                    && (about["name"] == name || about["name"].as_str().is_some_and(|n| prefixed(n, name)))
            })
        })
    }

    /// Asks `dev` to end; whether it ended well and left nothing.
    fn end(&mut self) -> Result<(), String> {
        children::signal_child(&self.dev);
        let status = children::ended(&mut self.dev, END_PATIENCE);
        // What processes end by themselves may take a moment longer to be reaped.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut left = left_behind(&self.folder);
        while !left.is_empty() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
            left = left_behind(&self.folder);
        }
        for (pid, _) in &left {
            kill(*pid);
        }
        match status {
            None => Err("ostler dev did not end when asked".to_owned()),
            Some(status) if !status.success() => {
                Err(format!("ostler dev ended with {status}: {}", self.log()))
            }
            Some(_) if !left.is_empty() => Err(format!("left behind: {left:?}")),
            Some(_) => Ok(()),
        }
    }
}

/// `web` stands for processes of its, too: their names begin with it.
fn prefixed(name: &str, owner: &str) -> bool {
    name.strip_prefix(owner).is_some_and(|rest| rest.starts_with('-'))
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let ended = self.end();
        if std::thread::panicking() {
            eprintln!("the fleet's folder, with all logs: {}", self.folder.display());
            return;
        }
        if let Err(what) = ended {
            panic!("{what}\nthe fleet's folder, with all logs: {}", self.folder.display());
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Waits until `look` sees something, and returns it.
///
/// # Panics
/// When it does not, within [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK);
    }
}
