//! The agent as a daemon on a real host.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ostler_bus::clock::SystemClock;
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::layout::Identity;
use ostler_bus::nats::connect::Bus;
use ostler_bus::node_link::NodeLink;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{chain, complain};
use crate::config::{self, Settings, holder_dir, socket_dir};
use crate::context::{Deps, NodeConfig};
use crate::linux::credentials;
use crate::linux::{ArtifactCache, FactsConfig, FileLedger, LinuxFacts, LinuxFiles, LinuxHost, OwnFolders};
use crate::local::{notes, server, story};
use crate::resident::give_back;
use crate::run::{self, Handle};
use crate::secrets;

/// Threads for file work: a thousand files change one disk no faster with more.
const BLOCKING_THREADS: usize = 4;
/// How often it is checked that the tree of actors is alive, when systemd does not say.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// What only the start needed is given back then, and what only a change needed so often.
const REST_AFTER: Duration = Duration::from_secs(15);
const REST_EVERY: Duration = Duration::from_secs(30);

/// `--check`.
pub(super) fn check(settings: &Settings, quiet: bool) -> ExitCode {
    match settings.bus.config(Identity::Node(settings.name.clone())) {
        Ok(_) if quiet => ExitCode::SUCCESS,
        Ok(_) => {
            // Whoever only wants to know whether it is right need not read.
            std::io::stdout().write_all(config::describe_rules(&settings.veto).as_bytes()).ok();
            ExitCode::SUCCESS
        }
        Err(error) => complain(&chain(&error)),
    }
}

/// Runs until SIGTERM or SIGINT. Processes go on.
pub(super) fn main(settings: &Settings) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OSTLER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(&chain(&error)),
    };
    match runtime.block_on(serve(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text: Vec<String> = error.chain().map(ToString::to_string).collect();
            complain(&text.join(": "))
        }
    }
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let handle = start(settings).await?;
    let local = server::serve(&socket_dir(&settings.run_dir), handle.viewer())?;
    tracing::info!(node = %settings.name, "agent ready");
    notify(&[NotifyState::Ready]);
    let every = sd_notify::watchdog_enabled().map_or(ALIVE_EVERY, |limit| limit / 3);
    let mut tick = tokio::time::interval(every);
    let mut rest = tokio::time::interval_at(tokio::time::Instant::now() + REST_AFTER, REST_EVERY);
    let ended = loop {
        tokio::select! {
            biased;
            _ = term.recv() => break false,
            _ = interrupt.recv() => break false,
            _ = rest.tick() => give_back(),
            _ = tick.tick() => {
                if handle.has_ended() {
                    break true;
                }
                // Fed only while the root of the tree answers: systemd restarts an agent that hangs.
                if handle.is_alive().await {
                    notify(&[NotifyState::Watchdog]);
                }
            }
        }
    };
    notify(&[NotifyState::Stopping]);
    local.abort();
    handle.stop().await;
    anyhow::ensure!(!ended, "the tree of actors has ended");
    tracing::info!("agent ends; processes go on");
    Ok(())
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not notified");
    }
}

/// What is Ostler's own, where no managed file may lie.
fn own_paths(settings: &Settings) -> Vec<String> {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let folders = [&settings.state_dir, &settings.run_dir, &settings.log_dir].map(|dir| text(dir));
    let files = settings.own_files.iter().map(|file| text(file));
    folders.into_iter().chain(files).chain(["/etc/ostler".to_owned()]).collect()
}

async fn start(settings: &Settings) -> anyhow::Result<Handle> {
    let entropy: EntropyRef = Arc::new(SeededEntropy::from_system()?);
    let clock = SystemClock::shared();
    let bus = Bus::connect(&settings.bus.config(Identity::Node(settings.name.clone()))?, &entropy).await?;
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let holder = holder_dir(&settings.run_dir);
    let identity = config::identity(&settings.root)?;
    let credentials = credentials::place(&settings.run_dir, &settings.state_dir);
    if let Err(why) = &credentials {
        tracing::warn!(why, "processes cannot be given secrets here");
    }
    let folders = OwnFolders::new(&settings.root, &settings.state_dir, &identity.boot)
        .with_credentials(credentials.as_ref().ok().cloned());
    let facts = LinuxFacts::new(FactsConfig {
        address: settings.address.clone(),
        ports: settings.ports,
        state_dir: settings.state_dir.clone(),
        log_dir: settings.log_dir.clone(),
        artifact_dir: settings.artifact_dir.clone(),
        identity,
    });
    let ledger = FileLedger::open(&settings.state_dir)?;
    let keys = secrets::keys(&settings.state_dir, &*entropy)?;
    notes::take_up(&settings.state_dir, &ledger).await.map_err(anyhow::Error::msg)?;
    let deps = Deps {
        link: NodeLink::new(bus.topic, settings.name.clone(), Arc::clone(&clock)),
        clock,
        entropy,
        host: LinuxHost::new(holder, settings.log_dir.clone(), settings.default_user.clone(), folders),
        files: LinuxFiles::new(),
        artifacts: Arc::new(ArtifactCache::open(
            &settings.artifact_dir,
            &settings.root,
            settings.artifact_limits,
        )?),
        ledger: Arc::new(ledger),
        facts,
        keys,
        config: NodeConfig {
            labels: settings.labels.clone(),
            root: settings.root.clone(),
            own: own_paths(settings).into_iter().chain(credentials.iter().map(|path| text(path))).collect(),
            credentials: Some(credentials.as_ref().map(|path| text(path)).map_err(Clone::clone)),
            originals: text(&settings.state_dir.join("originals")),
            log_dir: text(&settings.log_dir),
            allow_root: settings.allow_root,
            privileged: config::is_privileged(),
            pressure: settings.pressure,
            veto: Arc::new(settings.veto.clone()),
            story: Some(story::path(&settings.state_dir)),
        },
    };
    Ok(run::run(deps).await?)
}
