//! A replica in production: the real bus, the real clock, systemd's notifications, signals, HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ostler_bus::TopicRef;
use ostler_bus::clock::SystemClock;
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::layout::{Identity, Scale, replicas_for};
use ostler_bus::nats::connect::Bus;
use ostler_bus::nats::provision::{ProvisionError, provision};
use ostler_bus::sealing::KeyRing;
use ostler_controller_core::liveness::Limits;
use ostler_schemas::{Name, ReplicaId, ids};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::Identities;
use crate::config::Settings;
use crate::daemon::{self, Daemon, Deps};
use crate::http::{self, Pages};
use crate::vault::{Vault, VaultRef};

/// One attempt to make or verify the streams waits so long for the bus; then it is said, and tried again.
const PROVISION_PATIENCE: Duration = Duration::from_secs(15);
/// Pause between such attempts.
const PROVISION_PAUSE: Duration = Duration::from_millis(500);

/// Logs to stderr, which systemd keeps; `OSTLER_LOG` (else `RUST_LOG`, else `info`) says how much.
pub fn init_tracing() {
    let wanted = std::env::var("OSTLER_LOG").or_else(|_| std::env::var("RUST_LOG"));
    let filter =
        tracing_subscriber::EnvFilter::new(wanted.unwrap_or_else(|_| "info,async_nats=warn".to_owned()));
    let colour =
        std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What makes it impossible to begin: files, keys, a server that is too old, a taken address.
pub fn serve(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(settings))
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let entropy: EntropyRef = Arc::new(SeededEntropy::from_system().context("cannot read random numbers")?);
    let replica = replica_name(&settings, &entropy)?;
    let bus = Bus::connect(&settings.bus.config(Identity::Controller)?, &entropy).await?;
    let store = bus.store.clone().context("this identity has no store: use the controller's credentials")?;
    let canaries = canaries(&settings, &entropy).await?;
    let identities = Arc::new(identities(&settings)?);
    let mut stop = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tracing::info!(%replica, version = env!("CARGO_PKG_VERSION"), "ostler-controller begins");
    tokio::select! {
        biased;
        _ = stop.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        made = make_streams(&bus, &settings) => made?,
    }
    let _streams = keep_streams(bus.clone(), settings.clone());
    let vault = vault(&settings, &entropy)?;
    let clock = SystemClock::shared();
    let (topic, limits) = (bus.topic.clone(), Limits::default());
    let deps = Deps { replica, store, topic, canaries, clock, entropy, vault, identities, limits };
    let daemon = daemon::run(deps).await.context("cannot start the actors")?;
    let pages = Pages { snapshot: daemon.snapshot.clone(), metrics: daemon.metrics.clone() };
    let _http = match settings.http.parse() {
        Ok(address) => Some(tokio::spawn(async move {
            if let Err(error) = http::serve(address, pages).await {
                tracing::error!("{:#}", anyhow::Error::from(error));
            }
        })),
        Err(_) => None,
    };
    wait(daemon, &mut stop, &mut interrupt).await
}

/// What opens and seals Secrets: with the keys of the file that the settings name.
fn vault(settings: &Settings, entropy: &EntropyRef) -> anyhow::Result<VaultRef> {
    let ring = match &settings.secret_keys {
        Some(path) => KeyRing::load(path).with_context(|| format!("cannot use {}", path.display()))?,
        None => KeyRing::default(),
    };
    match ring.newest() {
        Some(key) => tracing::info!(key = key.short(), keys = ring.public_keys().len(), "secrets are sealed"),
        None => {
            tracing::warn!("no secret_keys in the settings: Secrets are refused; run \"ostler setup\" again");
        }
    }
    Ok(Arc::new(Vault::new(ring, entropy.clone())))
}

/// Tells systemd when the snapshot is complete, feeds its watchdog while it moves, and ends on a signal.
async fn wait(
    mut daemon: Daemon,
    stop: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) -> anyhow::Result<()> {
    let mut views = daemon.snapshot.subscribe();
    let mut signals = daemon.signals.clone();
    let mut said_ready = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.recv() => break,
            _ = interrupt.recv() => break,
            () = daemon.ended() => anyhow::bail!("the root actor ended"),
            // The ears publish four times a second: no beat from them means that the daemon hangs.
            heard = signals.changed() => {
                if heard.is_ok() {
                    notify(sd_notify::NotifyState::Watchdog);
                }
            }
            ready = views.wait_for(|v| v.synced), if !said_ready => {
                if ready.is_ok() {
                    said_ready = true;
                    tracing::info!("ready");
                    notify(sd_notify::NotifyState::Ready);
                }
            }
        }
    }
    tracing::info!("giving leases back");
    notify(sd_notify::NotifyState::Stopping);
    daemon.stop().await;
    Ok(())
}

fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not told");
    }
}

async fn make_streams(bus: &Bus, settings: &Settings) -> anyhow::Result<()> {
    let replicas = settings.replicas.unwrap_or_else(|| replicas_for(settings.bus.servers.len()));
    let scale = Scale { replicas, sizes: settings.sizes() };
    loop {
        match provision(bus, scale, PROVISION_PATIENCE).await {
            Ok(done) => {
                for warning in &done.warnings {
                    tracing::warn!("{warning}");
                }
                for stream in &done.created {
                    tracing::info!(stream, "stream made");
                }
                for stream in &done.repaired {
                    tracing::warn!(stream, "the stream's settings had drifted and are right again");
                }
                return Ok(());
            }
            Err(error @ ProvisionError::NotReady { .. }) => {
                tracing::warn!("{:#}; trying again", anyhow::Error::from(error));
                tokio::time::sleep(PROVISION_PAUSE).await;
            }
            Err(
                error @ (ProvisionError::TooOld { .. }
                | ProvisionError::Refused { .. }
                | ProvisionError::Drift { .. }),
            ) => return Err(error.into()),
        }
    }
}

/// Makes and verifies the streams again after every new connection: those in memory are gone when their server was
/// restarted.
fn keep_streams(bus: Bus, settings: Settings) -> tokio_util::task::AbortOnDropHandle<()> {
    crate::actors::task(async move {
        let mut link = bus.topic.link();
        let mut known = link.borrow().connection;
        loop {
            let Ok(state) = link.wait_for(|s| s.connected && s.connection != known).await.map(|s| s.clone())
            else {
                return;
            };
            known = state.connection;
            if let Err(error) = make_streams(&bus, &settings).await {
                tracing::error!("{error:#}");
            }
        }
    })
}

async fn canaries(settings: &Settings, entropy: &EntropyRef) -> anyhow::Result<Vec<TopicRef>> {
    let mut topics = Vec::new();
    for url in &settings.bus.servers {
        let mut config = settings.bus.config(Identity::Canary { servers: Vec::new() })?;
        config.servers = vec![url.clone()];
        topics.push(Bus::connect(&config, entropy).await?.topic);
    }
    Ok(topics)
}

fn identities(settings: &Settings) -> anyhow::Result<Identities> {
    let path = settings
        .bus
        .identities
        .as_ref()
        .context("bus.identities is missing: name the file that `ostler setup` wrote")?;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Identities::from_json(&bytes).with_context(|| format!("cannot use {}", path.display()))
}

/// Unique among all replicas that ever were: a predecessor's lease is never taken for one's own.
fn replica_name(settings: &Settings, entropy: &EntropyRef) -> anyhow::Result<ReplicaId> {
    let base = match &settings.name {
        Some(name) => name.clone(),
        None => {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            ids::nearest_label(host.trim().split('.').next().unwrap_or("controller"))
        }
    };
    let base: Name = base.parse()?;
    let short: String = base.as_str().chars().take(48).collect();
    Ok(format!("{}-{}", short.trim_end_matches('-'), &entropy.uid().to_string()[..8]).parse()?)
}
