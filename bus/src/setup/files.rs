//! Keys, settings and contexts, and the set of files that they make up.

use std::path::{Path, PathBuf};

use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{File, Files, SetupError, State};
use crate::entropy::Entropy;
use crate::layout::{AccountUser, Identity};
use crate::nats::Config;
use crate::sealing::KeyRing;

/// One entry of `identities.json`: who may call the API, and how the bus names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identified {
    /// The caller's name: the token of its subjects.
    pub name: String,
    /// The account that it must come from.
    pub account: String,
    /// Its public key.
    pub nkey: String,
}

/// `context.json`: how one operator, or the read-only account, reaches the bus. Relative paths are relative to the
/// file's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The operator's name; `_view` for the read-only account.
    pub user: String,
    /// URLs of every server.
    pub servers: Vec<String>,
    /// File with the key.
    pub credentials: PathBuf,
    /// File with the certificate authority.
    pub ca: PathBuf,
}

impl Context {
    /// The connection, given the folder of the file; `None` if the user's name can be nobody's.
    #[must_use]
    pub fn config(&self, folder: &Path) -> Option<Config> {
        let view = Identity::View;
        let identity =
            if self.user == view.caller() { view } else { Identity::Operator(self.user.parse().ok()?) };
        Some(Config {
            servers: self.servers.clone(),
            credentials: folder.join(&self.credentials),
            ca: folder.join(&self.ca),
            name: identity.caller(),
            identity,
        })
    }
}

/// Collects files; keeps what an earlier run made.
pub(super) struct Builder<'a> {
    existing: &'a Files,
    entropy: &'a dyn Entropy,
    pub(super) files: Files,
}

impl<'a> Builder<'a> {
    pub(super) fn new(existing: &'a Files, entropy: &'a dyn Entropy) -> Self {
        Self { existing, entropy, files: Files::new() }
    }

    pub(super) fn open(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.insert(path.to_owned(), File { bytes, secret: false });
    }

    pub(super) fn secret(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.insert(path.to_owned(), File { bytes, secret: true });
    }

    pub(super) fn json<T: Serialize>(&mut self, path: &str, value: &T) {
        let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
        text.push('\n');
        self.open(path, text.into_bytes());
    }

    pub(super) fn is_kept(&self, path: &str) -> bool {
        self.existing.contains_key(path)
    }

    /// Takes over an existing file; false if there is none.
    pub(super) fn keep(&mut self, path: &str, secret: bool) -> bool {
        let Some(file) = self.existing.get(path) else { return false };
        self.files.insert(path.to_owned(), File { bytes: file.bytes.clone(), secret });
        true
    }

    /// The text of an existing file.
    pub(super) fn kept_text(&self, path: &str) -> Result<Option<String>, SetupError> {
        let Some(file) = self.existing.get(path) else { return Ok(None) };
        String::from_utf8(file.bytes.clone())
            .map(Some)
            .map_err(|e| SetupError::Unreadable { path: path.to_owned(), reason: e.to_string() })
    }

    /// The key in `path`, made if there is none. Returns its public half.
    fn key(&mut self, path: &str) -> Result<String, SetupError> {
        let made = |source| SetupError::Key { what: path.to_owned(), source };
        let pair = match self.kept_text(path)? {
            Some(seed) => KeyPair::from_seed(seed.trim())
                .map_err(|e| SetupError::Unreadable { path: path.to_owned(), reason: e.to_string() })?,
            None => {
                let mut raw = [0; 32];
                self.entropy.fill(&mut raw);
                KeyPair::new_from_raw(KeyPairType::User, raw).map_err(made)?
            }
        };
        let seed = pair.seed().map_err(made)?;
        self.secret(path, format!("{seed}\n").into_bytes());
        Ok(pair.public_key())
    }

    /// The keys that secrets are sealed to, made if there are none; with a fresh one in front if that is asked for.
    pub(super) fn secret_keys(&mut self, path: &str, rotate: bool) -> Result<(), SetupError> {
        let unreadable = |e: String| SetupError::Unreadable { path: path.to_owned(), reason: e };
        let mut ring = match self.kept_text(path)? {
            Some(text) => KeyRing::from_text(&text).map_err(|e| unreadable(e.to_string()))?,
            None => KeyRing::default(),
        };
        if rotate || ring.newest().is_none() {
            ring.rotate(self.entropy);
        }
        self.secret(path, ring.to_text().as_bytes().to_vec());
        Ok(())
    }

    pub(super) fn into_files(self) -> Files {
        self.files
    }
}

/// Every identity and its key.
pub(super) fn keys(out: &mut Builder<'_>, state: &State) -> Result<Vec<AccountUser>, SetupError> {
    let servers = state.servers.iter().map(|s| s.name.clone()).collect();
    let mut all = vec![
        (Identity::Controller, "controller/controller.nk".to_owned()),
        (Identity::Canary { servers }, "controller/canary.nk".to_owned()),
        (Identity::View, "view/view.nk".to_owned()),
    ];
    all.extend(state.nodes.iter().map(|n| (Identity::Node(n.clone()), format!("nodes/{n}/node.nk"))));
    all.extend(state.blocks().map(|block| (Identity::Simulated(block.clone()), block.key_file())));
    all.extend(
        state.operators.iter().map(|o| (Identity::Operator(o.clone()), format!("operators/{o}/operator.nk"))),
    );
    all.into_iter()
        .map(|(identity, path)| out.key(&path).map(|nkey| AccountUser { identity, nkey }))
        .collect()
}

fn toml_list(items: &[String]) -> String {
    // The texts are URLs, which hold nothing that TOML would escape differently from JSON.
    Value::from(items.to_vec()).to_string()
}

const WRITTEN: &str = "# Written by `ostler setup`, and again each time it runs for this folder.\n";

/// Settings of the daemons, contexts of the tools, and the list of identities.
pub(super) fn settings(out: &mut Builder<'_>, state: &State, users: &[AccountUser], root: &Path) {
    let urls: Vec<String> = state.servers.iter().map(super::Server::url).collect();
    let bus = |credentials: &str| {
        format!("[bus]\nservers = {}\ncredentials = \"{credentials}\"\nca = \"ca.pem\"\n", toml_list(&urls))
    };
    let ca = out.files.get("ca/ca.pem").map(|f| f.bytes.clone()).unwrap_or_default();
    let controller = format!(
        "{WRITTEN}secret_keys = \"secrets.key\"\n\n{}canary = \"canary.nk\"\nidentities = \"identities.json\"\n",
        bus("controller.nk")
    );
    out.open("controller/controller.toml", controller.into_bytes());
    out.open("controller/ca.pem", ca.clone());
    let identified: Vec<Identified> = users
        .iter()
        .flat_map(|u| {
            let callers = match &u.identity {
                // Each of its nodes calls for itself.
                Identity::Simulated(block) => block.nodes().iter().map(ToString::to_string).collect(),
                Identity::Controller
                | Identity::Canary { .. }
                | Identity::Node(_)
                | Identity::Operator(_)
                | Identity::View => vec![u.identity.caller()],
            };
            let account = u.identity.account().as_str().to_owned();
            callers.into_iter().map(move |name| Identified {
                name,
                account: account.clone(),
                nkey: u.nkey.clone(),
            })
        })
        .collect();
    out.json("controller/identities.json", &identified);
    for node in &state.nodes {
        let text = format!("{WRITTEN}name = \"{node}\"\n\n{}", bus("node.nk"));
        out.open(&format!("nodes/{node}/agent.toml"), text.into_bytes());
        out.open(&format!("nodes/{node}/ca.pem"), ca.clone());
    }
    let context = |identity: &Identity, credentials: &str| Context {
        user: identity.caller(),
        servers: urls.clone(),
        credentials: credentials.into(),
        ca: "ca.pem".into(),
    };
    for operator in &state.operators {
        let folder = format!("operators/{operator}");
        let of_operator = context(&Identity::Operator(operator.clone()), "operator.nk");
        out.json(&format!("{folder}/context.json"), &of_operator);
        out.open(&format!("{folder}/ca.pem"), ca.clone());
    }
    out.open("view/ca.pem", ca);
    out.json("view/context.json", &context(&Identity::View, "view.nk"));
    out.json("view/nats-context.json", &nats_context(&urls, root));
}

/// A context of the stock `nats` command. It may be copied anywhere, so its paths are absolute.
fn nats_context(urls: &[String], root: &Path) -> Value {
    json!({
        "description": "Ostler, read only",
        "url": urls.join(","),
        "nkey": root.join("view/view.nk"),
        "ca": root.join("view/ca.pem"),
        "inbox_prefix": Identity::View.inbox_prefix(),
    })
}
