//! Settings: flag > environment (`OSTLER_*`) > file. Unknown keys are refused; `--check` validates and exits.
//!
//! ```toml
//! # agent.toml
//! name = "web-001"              # the node's name; a DNS label
//! root = ""                     # a sandbox below which all managed paths lie; empty on a host
//! state_dir = "/var/lib/ostler/agent"
//! run_dir = "/run/ostler"       # the holder's folder is run_dir/holder, the agent's socket run_dir/agent/agent.sock
//! log_dir = "/var/log/ostler"
//! address = "10.0.0.7"          # what others reach this node's processes at; found if left out
//! ports = "20000-29999"         # what the scheduler may assign
//! default_user = "ostler-work"  # whom processes run as that name no user
//! allow_root = false            # whether processes may ask to run as root
//! artifact_dir = "/var/lib/ostler/artifacts"  # files that processes are started from; not on a noexec file system
//! artifact_max = "4Gi"          # the largest of them, and what one archive may unpack to
//! artifact_cache = "10Gi"       # all of them; what is in use may be more
//!
//! [labels]
//! rack = "r7"
//!
//! [allow]                       # what this host allows, whatever the control plane asks: docs/hosts.md
//! allow_users = "*"             # any but root; or a list
//! allow_paths = ["/"]           # files that may be written
//! deny_paths = ["/srv/secret"]  # and those that may not, beside the usual ones
//! allow_exec = "own-user"       # off, own-user (not beside root's processes), any
//! max_memory = "8Gi"            # of one process; also max_cpu, max_nofile, and max_processes of the host
//!
//! [bus]
//! servers = ["tls://10.0.0.1:4222"]
//! credentials = "node.nk"
//! ca = "ca.pem"
//! ```
//! Relative paths of `[bus]` are relative to the file's folder.

mod allow;
mod pressure;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

use ostler_agent_core::pressure::Thresholds;
use ostler_agent_core::veto::Veto;
use ostler_bus::nats::connect::BusFile;
use ostler_schemas::NodeName;
use ostler_schemas::quantity::Size;
use serde::Deserialize;

use crate::linux::CacheLimits;
pub use allow::describe as describe_rules;

use crate::ports::Identity;

/// What the scheduler may assign when nothing is said: above what hosts give out to clients of outgoing connections
/// by default is too little room, below it is plenty.
const PORTS: (u16, u16) = (20_000, 29_999);
/// Whom processes run as that name no user, when the agent has root's rights: the user that packages make for this,
/// because what else runs as `nobody` could signal and trace them.
const DEFAULT_USER: &str = "ostler-work";
/// The same on a host where there is no such user.
const FALLBACK_USER: &str = "nobody";

/// The file as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    root: String,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    log_dir: Option<PathBuf>,
    address: Option<String>,
    ports: Option<String>,
    default_user: Option<String>,
    allow_root: Option<bool>,
    artifact_dir: Option<PathBuf>,
    artifact_max: Option<Size>,
    artifact_cache: Option<Size>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    pressure: pressure::Raw,
    #[serde(default)]
    allow: allow::Raw,
    bus: BusFile,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The node's name.
    pub name: NodeName,
    /// What all managed paths lie below; empty on a host.
    pub root: String,
    /// What survives.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    /// Logs of processes.
    pub log_dir: PathBuf,
    /// What others reach this node's processes at.
    pub address: String,
    /// What the scheduler may assign.
    pub ports: (u16, u16),
    /// Whom processes run as that name no user; none = whoever runs the agent.
    pub default_user: Option<String>,
    /// Whether processes may ask to run as root.
    pub allow_root: bool,
    /// Files that processes are started from.
    pub artifact_dir: PathBuf,
    /// How much of them.
    pub artifact_limits: CacheLimits,
    /// Labels that the node is registered with.
    pub labels: BTreeMap<String, String>,
    /// From where on the host is under pressure.
    pub pressure: Thresholds,
    /// What this host allows.
    pub veto: Veto,
    /// Files of Ostler's own that lie where managed files might.
    pub own_files: Vec<PathBuf>,
    /// The bus.
    pub bus: BusFile,
}

/// What the command line overrides.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Key and value, as in the file.
    pub values: Vec<(&'static str, String)>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Unreadable, not TOML, an unknown key, a wrong type.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the key.
        #[source]
        source: config::ConfigError,
    },
    /// A value that makes no sense.
    #[error("{}: {key}: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong and what to write.
        message: String,
    },
}

/// Where sockets are when nothing is said.
#[must_use]
pub fn default_run_dir() -> PathBuf {
    PathBuf::from("/run/ostler")
}

/// The holder's folder.
#[must_use]
pub fn holder_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("holder")
}

/// The folder of the agent's own socket.
#[must_use]
pub fn socket_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("agent")
}

/// Reads and checks the settings.
///
/// # Errors
/// [`SettingsError`], naming file and key.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Settings, SettingsError> {
    let file = |source| SettingsError::File { path: path.to_owned(), source };
    let environment =
        config::Environment::with_prefix("OSTLER").separator("__").source(Some(known_variables()));
    let mut builder = config::Config::builder()
        .add_source(config::File::from(path).format(config::FileFormat::Toml))
        .add_source(environment);
    for (key, value) in &overrides.values {
        builder = builder.set_override(*key, value.as_str()).map_err(file)?;
    }
    let mut raw: Raw = builder.build().and_then(config::Config::try_deserialize).map_err(file)?;
    raw.labels.extend(overrides.labels.clone());
    check(path, raw)
}

/// Only variables that name a setting: others of the same prefix belong to other tools.
fn known_variables() -> config::Map<String, String> {
    let known = [
        "OSTLER_NAME",
        "OSTLER_ROOT",
        "OSTLER_STATE_DIR",
        "OSTLER_RUN_DIR",
        "OSTLER_LOG_DIR",
        "OSTLER_ADDRESS",
        "OSTLER_PORTS",
        "OSTLER_DEFAULT_USER",
        "OSTLER_ALLOW_ROOT",
    ];
    std::env::vars().filter(|(name, _)| known.contains(&name.as_str())).collect()
}

fn check(path: &Path, raw: Raw) -> Result<Settings, SettingsError> {
    let wrong = |key, message: String| SettingsError::Value { path: path.to_owned(), key, message };
    let name = raw.name.parse::<NodeName>().map_err(|error| wrong("name", error.to_string()))?;
    if !raw.root.is_empty() && (!raw.root.starts_with('/') || raw.root.ends_with('/')) {
        return Err(wrong("root", format!("{:?} is not an absolute path without a final slash", raw.root)));
    }
    let below = |dir: &str| PathBuf::from(format!("{}{dir}", raw.root));
    let dirs = [
        ("state_dir", raw.state_dir.unwrap_or_else(|| below("/var/lib/ostler/agent"))),
        ("run_dir", raw.run_dir.unwrap_or_else(default_run_dir)),
        ("log_dir", raw.log_dir.unwrap_or_else(|| below("/var/log/ostler"))),
    ];
    // Beside the state folder, which only the agent may enter.
    let beside = || dirs[0].1.parent().unwrap_or(Path::new("/")).join("artifacts");
    let artifact_dir = raw.artifact_dir.unwrap_or_else(beside);
    let artifacts = ("artifact_dir", artifact_dir.clone());
    for (key, dir) in dirs.iter().chain([&artifacts]) {
        if !dir.is_absolute() {
            return Err(wrong(key, format!("{} must be an absolute path", dir.display())));
        }
    }
    let [(_, state_dir), (_, run_dir), (_, log_dir)] = dirs;
    let ports = match &raw.ports {
        Some(text) => read_ports(text).ok_or_else(|| {
            wrong("ports", format!("{text:?} is not a range of ports: write it as 20000-29999"))
        })?,
        None => PORTS,
    };
    if raw.bus.servers.is_empty() {
        return Err(wrong(
            "bus.servers",
            "name at least one server, for example tls://10.0.0.1:4222".to_owned(),
        ));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let bus = raw.bus.resolved(folder);
    let pressure = raw.pressure.read().map_err(|(key, message)| wrong(key, message))?;
    let usual = CacheLimits::default();
    let artifact_limits = CacheLimits {
        one: raw.artifact_max.map_or(usual.one, Size::as_bytes),
        all: raw.artifact_cache.map_or(usual.all, Size::as_bytes),
    };
    let privileged = is_privileged();
    let sandbox = !raw.root.is_empty();
    // In a sandbox whoever runs it; without root's rights there is no choice.
    let default_user =
        raw.default_user.or_else(|| (privileged && !sandbox).then(|| default_user().to_owned()));
    let around = allow::Around {
        file: path.display().to_string(),
        text: &std::fs::read_to_string(path).unwrap_or_default(),
        allow_root: raw.allow_root,
        default_user: default_user.as_deref(),
        sandbox,
    };
    let veto = raw.allow.read(&around).map_err(|(key, message)| wrong(key, message))?;
    Ok(Settings {
        address: raw.address.unwrap_or_else(|| own_address(&bus.servers)),
        default_user,
        allow_root: veto.root.value,
        own_files: vec![path.to_owned(), bus.credentials.clone(), bus.ca.clone()],
        veto,
        artifact_dir,
        artifact_limits,
        labels: raw.labels,
        root: raw.root,
        name,
        state_dir,
        run_dir,
        log_dir,
        ports,
        pressure,
        bus,
    })
}

/// Whether this process has root's rights.
#[must_use]
pub fn is_privileged() -> bool {
    nix::unistd::geteuid().is_root()
}

fn default_user() -> &'static str {
    match nix::unistd::User::from_name(DEFAULT_USER) {
        Ok(Some(_)) => DEFAULT_USER,
        Ok(None) | Err(_) => FALLBACK_USER,
    }
}

fn read_ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

/// The address that this host has towards the bus: what others of the fleet reach it at. Nothing is sent.
fn own_address(servers: &[String]) -> String {
    let towards = |server: &String| -> Option<IpAddr> {
        let rest = server.split_once("://").map_or(server.as_str(), |(_, rest)| rest);
        let address: SocketAddr = rest.to_socket_addrs().ok()?.next()?;
        let any: SocketAddr =
            if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { "[::]:0".parse().ok()? };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(address).ok()?;
        socket.local_addr().ok().map(|own| own.ip())
    };
    let found = servers.iter().find_map(towards);
    found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_string()
}

/// Machine id and boot id: the host's, or in a sandbox those of files below it.
///
/// # Errors
/// If one of them cannot be read.
pub fn identity(root: &str) -> std::io::Result<Identity> {
    let boot = if root.is_empty() {
        "/proc/sys/kernel/random/boot_id".to_owned()
    } else {
        format!("{root}/etc/boot-id")
    };
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| std::io::Error::new(error.kind(), format!("{path}: {error}")))
    };
    Ok(Identity { machine: read(&format!("{root}/etc/machine-id"))?, boot: read(&boot)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, overrides: &Overrides) -> Result<Settings, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).expect("writes");
        load(&path, overrides).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error} {source}")
        })
    }

    const BUS: &str =
        "[bus]\nservers = [\"tls://127.0.0.1:4222\"]\ncredentials = \"node.nk\"\nca = \"ca.pem\"\n";

    #[test]
    fn flags_win_and_a_sandbox_moves_the_folders() {
        let overrides = Overrides {
            values: vec![("root", "/tmp/box".to_owned()), ("ports", "25000-25009".to_owned())],
            labels: BTreeMap::from([("rack".to_owned(), "r7".to_owned())]),
        };
        let settings = load_text(&format!("name = \"web-1\"\n{BUS}"), &overrides).expect("loads");
        assert_eq!(settings.state_dir, Path::new("/tmp/box/var/lib/ostler/agent"));
        assert_eq!((settings.ports, settings.address.as_str()), ((25_000, 25_009), "127.0.0.1"));
        assert_eq!(settings.labels["rack"], "r7");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, word) in [
            (format!("name = \"Web_1\"\n{BUS}"), "is not a name"),
            (format!("name = \"web-1\"\nprots = \"1-2\"\n{BUS}"), "prots"),
            (format!("name = \"web-1\"\nports = \"9-2\"\n{BUS}"), "not a range"),
            (format!("name = \"web-1\"\nroot = \"box\"\n{BUS}"), "absolute"),
        ] {
            let error = load_text(&text, &Overrides::default()).expect_err("refused");
            assert!(error.contains(word), "{error}");
        }
    }
}
