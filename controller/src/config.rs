//! Settings: flag > environment (`OSTLER_*`) > file. Unknown keys are refused; `--check` validates and exits.
//!
//! ```toml
//! # controller.toml
//! name = "ctl-1"                # optional; the host's name and a random part if left out
//! http = "127.0.0.1:9310"       # health and metrics; "" switches them off
//! secret_keys = "secrets.key"   # what Secrets are sealed to, the newest key first; without it they are refused
//! replicas = 3                  # optional; copies of each stream: 1, 3 or 5; as many as the servers carry if left out
//!
//! [bus]
//! servers = ["tls://10.0.0.1:4222"]
//! credentials = "controller.nk"
//! ca = "ca.pem"
//! canary = "canary.nk"
//! identities = "identities.json"
//!
//! [logs]                        # output of namespaces that ship it (docs/logs.md)
//! max_bytes = "1Gi"             # how much of it is kept; never lowered
//! max_age = "7d"                # and for how long
//! ```
//! Relative paths are relative to the file's folder.

use std::path::{Path, PathBuf};

use ostler_bus::layout::Sizes;
use ostler_bus::nats::connect::BusFile;
use ostler_schemas::quantity::{Dur, Size};
use serde::{Deserialize, Serialize};

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of this replica; a DNS label.
    #[serde(default)]
    pub name: Option<String>,
    /// Address of health and metrics; empty = none.
    #[serde(default = "default_http")]
    pub http: String,
    /// Copies of each stream; none = as many as the named servers carry.
    #[serde(default)]
    pub replicas: Option<u8>,
    /// What Secrets are sealed to; none = Secrets are refused.
    #[serde(default)]
    pub secret_keys: Option<PathBuf>,
    /// The bus.
    pub bus: BusFile,
    /// Output of namespaces that ship it.
    #[serde(default)]
    pub logs: LogSettings,
}

/// How much shipped output is kept on the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Bytes of the stream; the oldest goes first.
    pub max_bytes: Size,
    /// Age.
    pub max_age: Dur,
}

impl Default for LogSettings {
    fn default() -> Self {
        let sizes = Sizes::default();
        Self { max_bytes: Size::from_bytes(sizes.logs), max_age: Dur::from_millis(sizes.logs_age_ms) }
    }
}

impl Settings {
    /// Limits of the streams.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            logs: self.logs.max_bytes.as_bytes(),
            logs_age_ms: self.logs.max_age.as_millis(),
            ..Sizes::default()
        }
    }
}

/// The stream of shipped output holds at least this: some messages of the largest size.
const LOGS_LEAST: u64 = 1 << 20;

fn default_http() -> String {
    "127.0.0.1:9310".to_owned()
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

/// What the command line overrides.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// See [`Settings::name`].
    pub name: Option<String>,
    /// See [`Settings::http`].
    pub http: Option<String>,
    /// See [`LogSettings::max_bytes`].
    pub logs_max_bytes: Option<String>,
}

/// Reads and checks the settings.
///
/// # Errors
/// [`SettingsError`], naming file and key.
pub fn load(path: &Path, overrides: Overrides) -> Result<Settings, SettingsError> {
    let file = |source| SettingsError::File { path: path.to_owned(), source };
    let mut builder = config::Config::builder()
        .add_source(config::File::from(path).format(config::FileFormat::Toml))
        .add_source(
            config::Environment::with_prefix("OSTLER")
                .separator("__")
                .try_parsing(true)
                .source(Some(known_variables())),
        );
    if let Some(name) = overrides.name {
        builder = builder.set_override("name", name).map_err(file)?;
    }
    if let Some(http) = overrides.http {
        builder = builder.set_override("http", http).map_err(file)?;
    }
    if let Some(bytes) = overrides.logs_max_bytes {
        builder = builder.set_override("logs.max_bytes", bytes).map_err(file)?;
    }
    let settings: Settings = builder.build().and_then(config::Config::try_deserialize).map_err(file)?;
    check(path, &settings)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let secret_keys = settings.secret_keys.as_ref().map(|path| folder.join(path));
    Ok(Settings { bus: settings.bus.resolved(folder), secret_keys, ..settings })
}

/// Only variables that name a setting: others of the same prefix (`OSTLER_NATS_SERVER`, …) belong to other tools.
fn known_variables() -> config::Map<String, String> {
    let known =
        ["OSTLER_NAME", "OSTLER_HTTP", "OSTLER_REPLICAS", "OSTLER_LOGS__MAX_BYTES", "OSTLER_LOGS__MAX_AGE"];
    std::env::vars().filter(|(name, _)| known.contains(&name.as_str())).collect()
}

fn check(path: &Path, settings: &Settings) -> Result<(), SettingsError> {
    let wrong = |key, message: String| Err(SettingsError::Value { path: path.to_owned(), key, message });
    if let Some(found) = settings.replicas.filter(|r| ![1, 3, 5].contains(r)) {
        return wrong("replicas", format!("must be 1, 3 or 5, found {found}"));
    }
    if settings.bus.servers.is_empty() {
        return wrong("bus.servers", "name at least one server, for example tls://10.0.0.1:4222".to_owned());
    }
    if settings.logs.max_bytes.as_bytes() < LOGS_LEAST {
        let found = settings.logs.max_bytes;
        return wrong("logs.max_bytes", format!("must be at least 1Mi, found {found}"));
    }
    if settings.logs.max_age.as_millis() == 0 {
        return wrong("logs.max_age", "must be longer than 0; for example 7d".to_owned());
    }
    if let Some(name) = &settings.name
        && let Err(error) = name.parse::<ostler_schemas::Name>()
    {
        return wrong("name", error.to_string());
    }
    if !settings.http.is_empty() && settings.http.parse::<std::net::SocketAddr>().is_err() {
        return wrong(
            "http",
            format!("{:?} is not an address; for example 127.0.0.1:9310, or \"\"", settings.http),
        );
    }
    Ok(())
}
