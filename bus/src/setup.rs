//! From a few names to everything that a bus needs on disk: server configurations, certificates, keys, and the settings
//! of controllers, agents, operators and the stock NATS tools. `ostler setup`, `ostler dev` and the tests all use it.
//!
//! What it writes below the folder OUT (`*` = secret, mode 0600):
//!
//! ```text
//! setup.json                         the names and servers so far; read again by the next run
//! ca/ca.pem, ca/ca-key.pem*          the bus's own certificate authority; the key stays here
//! nats/<server>.conf                 one per NATS server, complete; paths in it are relative to its folder
//! nats/tls/ca.pem, <server>.pem, <server>-key.pem*
//! controller/controller.toml, controller.nk*, canary.nk*, secrets.key*, ca.pem, identities.json
//! nodes/<node>/agent.toml, node.nk*, ca.pem
//! operators/<operator>/context.json, operator.nk*, ca.pem
//! simulated/<prefix>/fleet.json, block-<n>.nk*, ca.pem      only with simulated nodes: one key for each block of them
//! view/context.json, nats-context.json, view.nk*, ca.pem
//! ```
//!
//! `controller.toml` and `agent.toml`:
//!
//! ```text
//! name = "web-001"                   agent.toml only: the node's name
//! secret_keys = "secrets.key"        controller.toml only: what Secrets are sealed to; the newest key stands first
//! [bus]
//! servers = ["tls://10.0.0.1:4222"]  every NATS server
//! credentials = "node.nk"            this party's key; relative paths are relative to the file's folder
//! ca = "ca.pem"                      who signs the servers' certificates
//! canary = "canary.nk"               controller.toml only: the key for beats through each server
//! identities = "identities.json"     controller.toml only: [{name, account, nkey}], who may call
//! ```
//!
//! `context.json` is a [`Context`], `identities.json` a list of [`Identified`], `fleet.json` a [`SimulatedFleet`].
//!
//! Guarantees: a key or the certificate authority that is already there is kept; names are added, never taken away; the
//! same input writes the same files. Files are replaced whole. It does not talk to a server: after a later run,
//! `nats-server --signal reload` makes new identities known.

mod files;
mod server_conf;
mod simulated;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ostler_schemas::{Name, NodeName};
use serde::{Deserialize, Serialize};

use crate::entropy::Entropy;
use crate::layout::{Block, SIMULATED_MAX};

pub use files::{Context, Identified};
pub use simulated::SimulatedFleet;

/// One NATS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its name: a DNS label, unique.
    pub name: Name,
    /// How clients and other servers reach it: a host name or an address.
    pub host: String,
    /// Where it listens: `0.0.0.0`, or one address.
    pub listen: String,
    /// Port for clients.
    pub client_port: u16,
    /// Port for the other servers; unused where there is only one.
    pub cluster_port: u16,
    /// Where it keeps its streams.
    pub store_dir: PathBuf,
}

impl Server {
    /// What clients connect to. Always TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("tls://{}", address(&self.host, self.client_port))
    }
}

/// Host and port as URLs and listeners want them: an IPv6 address in brackets.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What a host name or an address consists of. They go into files of three syntaxes, none of which gives these
/// characters a meaning inside a string.
fn is_host(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// What should be there.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The servers. Empty: those of the earlier run.
    pub servers: Vec<Server>,
    /// Nodes to add.
    pub nodes: BTreeSet<NodeName>,
    /// Operators to add.
    pub operators: BTreeSet<Name>,
    /// Prefixes of simulated nodes, and how many of each there should be at least.
    pub simulated: BTreeMap<Name, u32>,
    /// Put a fresh key in front of those that secrets are sealed to.
    pub rotate_secret_key: bool,
}

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub bytes: Vec<u8>,
    /// Whether only its owner may read it.
    pub secret: bool,
}

/// Files by path relative to OUT.
pub type Files = BTreeMap<String, File>;

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Neither this run nor an earlier one names a server.
    #[error("no NATS server is named, and no earlier setup is in the folder")]
    NoServer,
    /// One name for two parties; the API could not tell them apart.
    #[error(
        "{name:?} would be the name of two parties (a node, an operator, a simulated node): choose another"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A prefix that makes no names, or too many nodes.
    #[error(
        "{prefix:?} cannot be the prefix of {count} simulated nodes: at most {SIMULATED_MAX}, and a short prefix"
    )]
    Simulated {
        /// The prefix.
        prefix: String,
        /// How many were asked for.
        count: u32,
    },
    /// Two servers of one name.
    #[error("two servers are named {name:?}")]
    ServerTwice {
        /// The name.
        name: Name,
    },
    /// A host that can be none.
    #[error("{host:?} is neither a host name nor an address")]
    BadHost {
        /// What was given.
        host: String,
    },
    /// A file of an earlier run is not what this program writes.
    #[error("{path} is not readable as what setup writes: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {what}")]
    Certificate {
        /// For whom.
        what: String,
        /// What the generator met.
        #[source]
        source: rcgen::Error,
    },
    /// A key could not be made.
    #[error("cannot make a key for {what}")]
    Key {
        /// For whom.
        what: String,
        /// What the generator met.
        #[source]
        source: nkeys::error::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// Read, write or create.
        act: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What setup remembers of its earlier runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    servers: Vec<Server>,
    nodes: BTreeSet<NodeName>,
    operators: BTreeSet<Name>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    simulated: BTreeMap<Name, u32>,
}

impl State {
    /// The blocks of all simulated nodes.
    fn blocks(&self) -> impl Iterator<Item = Block> {
        self.simulated.iter().flat_map(|(prefix, count)| Block::all(prefix, *count).unwrap_or_default())
    }
}

const STATE: &str = "setup.json";
/// What secrets are sealed to.
const SECRET_KEYS: &str = "controller/secrets.key";

/// All files for `options`, given what an earlier run left ([`read`]). `root` is where OUT will be, absolute: the
/// contexts of tools name it. Pure but for the certificates' keys, which their generator draws itself.
///
/// # Errors
/// [`SetupError`].
pub fn generate(
    options: &Options,
    root: &Path,
    existing: &Files,
    entropy: &dyn Entropy,
) -> Result<Files, SetupError> {
    let before = earlier(existing)?;
    let state = merged(options, &before)?;
    let mut out = files::Builder::new(existing, entropy);
    tls::issue(&mut out, &state.servers, &before.servers)?;
    let users = files::keys(&mut out, &state)?;
    for server in &state.servers {
        let conf = server_conf::render(server, &state.servers, &users);
        out.open(&format!("nats/{}.conf", server.name), conf.into_bytes());
    }
    out.secret_keys(SECRET_KEYS, options.rotate_secret_key)?;
    files::settings(&mut out, &state, &users, root);
    simulated::settings(&mut out, &state);
    out.json(STATE, &state);
    Ok(out.into_files())
}

fn earlier(existing: &Files) -> Result<State, SetupError> {
    let Some(file) = existing.get(STATE) else { return Ok(State::default()) };
    serde_json::from_slice(&file.bytes)
        .map_err(|e| SetupError::Unreadable { path: STATE.to_owned(), reason: e.to_string() })
}

fn merged(options: &Options, before: &State) -> Result<State, SetupError> {
    let servers = if options.servers.is_empty() { &before.servers } else { &options.servers };
    if servers.is_empty() {
        return Err(SetupError::NoServer);
    }
    let mut names = BTreeSet::new();
    for server in servers {
        if !names.insert(server.name.as_str()) {
            return Err(SetupError::ServerTwice { name: server.name.clone() });
        }
        if let Some(host) = [&server.host, &server.listen].into_iter().find(|h| !is_host(h)) {
            return Err(SetupError::BadHost { host: host.clone() });
        }
    }
    let nodes: BTreeSet<NodeName> = before.nodes.union(&options.nodes).cloned().collect();
    let operators: BTreeSet<Name> = before.operators.union(&options.operators).cloned().collect();
    let mut simulated = before.simulated.clone();
    for (prefix, count) in &options.simulated {
        if Block::all(prefix, *count).is_none() {
            return Err(SetupError::Simulated { prefix: prefix.to_string(), count: *count });
        }
        let known = simulated.entry(prefix.clone()).or_default();
        *known = (*known).max(*count);
    }
    let state = State { servers: servers.clone(), nodes, operators, simulated };
    let mut parties = BTreeSet::new();
    let blocks: Vec<Block> = state.blocks().collect();
    let simulated = blocks.iter().flat_map(Block::nodes).map(NodeName::as_str);
    let mut all = state
        .nodes
        .iter()
        .map(NodeName::as_str)
        .chain(simulated)
        .chain(state.operators.iter().map(Name::as_str));
    if let Some(twice) = all.find(|name| !parties.insert(*name)) {
        return Err(SetupError::NameTaken { name: twice.to_owned() });
    }
    Ok(state)
}

/// What an earlier run left in `out` that the next one builds on: its state, keys and certificates.
///
/// # Errors
/// [`SetupError::Io`] if something is there but cannot be read.
pub fn read(out: &Path) -> Result<Files, SetupError> {
    let mut found = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = out.join(&folder);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(SetupError::Io { act: "read", path, source }),
        };
        for entry in entries {
            let entry = entry.map_err(|source| SetupError::Io { act: "read", path: path.clone(), source })?;
            let below = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(below);
                continue;
            }
            let Some(name) = below.to_str() else { continue };
            let kept =
                name == STATE || name == SECRET_KEYS || name.ends_with(".nk") || name.ends_with(".pem");
            if kept {
                let path = entry.path();
                let bytes =
                    std::fs::read(&path).map_err(|source| SetupError::Io { act: "read", path, source })?;
                found.insert(name.to_owned(), File { bytes, secret: true });
            }
        }
    }
    Ok(found)
}

/// Writes `files` below `out`, each whole (a new file, then renamed).
///
/// # Errors
/// [`SetupError::Io`].
pub fn write(out: &Path, files: &Files) -> Result<(), SetupError> {
    for (name, file) in files {
        let path = out.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| SetupError::Io {
                act: "create",
                path: folder.to_owned(),
                source,
            })?;
        }
        write_one(&path, file).map_err(|source| SetupError::Io { act: "write", path, source })?;
    }
    Ok(())
}

fn write_one(path: &Path, file: &File) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // A leftover of an interrupted run may have another mode; `mode` applies to files that are created.
    match std::fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mode = if file.secret { 0o600 } else { 0o644 };
    let mut handle = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    handle.write_all(&file.bytes)?;
    handle.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Reads what is in `out`, generates and writes: the whole of `ostler setup`.
///
/// # Errors
/// [`SetupError`]; nothing is written unless everything could be generated.
pub fn run(out: &Path, options: &Options, entropy: &dyn Entropy) -> Result<Files, SetupError> {
    let io = |act, source| SetupError::Io { act, path: out.to_owned(), source };
    std::fs::create_dir_all(out).map_err(|e| io("create", e))?;
    let root = out.canonicalize().map_err(|e| io("read", e))?;
    let files = generate(options, &root, &read(out)?, entropy)?;
    write(out, &files)?;
    Ok(files)
}

#[cfg(test)]
mod tests;
