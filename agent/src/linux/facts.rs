//! What the host is and how busy it is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use ostler_agent_core::pressure::Readings;
use ostler_agent_core::usage::{HostLook, Watched};
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::v1::beat::Usage;
use ostler_schemas::v1::report::Facts;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, System};

use super::ledger::blocking;
use super::usage;
use crate::context::lock;
use crate::ports::{FactsSource, Identity};

/// What only the configuration knows.
#[derive(Debug, Clone, Default)]
pub struct FactsConfig {
    /// The address that others reach this node's processes at.
    pub address: String,
    /// First and last port that the scheduler may assign.
    pub ports: (u16, u16),
    /// The folder of Ostler's state, whose filesystem is measured.
    pub state_dir: PathBuf,
    /// The folder of processes' logs, whose filesystem is watched too.
    pub log_dir: PathBuf,
    /// The folder of the files that processes are started from, which may be on another one.
    pub artifact_dir: PathBuf,
    /// Machine id and boot id.
    pub identity: Identity,
}

/// Facts from the kernel.
pub struct LinuxFacts {
    config: FactsConfig,
    /// None on a kernel that tells nothing (no /proc).
    system: Mutex<Option<System>>,
}

impl LinuxFacts {
    /// With what only the configuration knows.
    #[must_use]
    pub fn new(config: FactsConfig) -> Arc<Self> {
        let mut system =
            System::new().map_err(|error| tracing::warn!(%error, "usage cannot be measured")).ok();
        if let Some(system) = &mut system {
            refresh(system);
        }
        Arc::new(Self { config, system: Mutex::new(system) })
    }

    fn disk(&self) -> (u64, u64) {
        match nix::sys::statvfs::statvfs(&self.config.state_dir) {
            Ok(stat) => {
                let unit = stat.fragment_size();
                let (all, free) = (stat.blocks() * unit, stat.blocks_available() * unit);
                (all, all.saturating_sub(free))
            }
            Err(_) => (0, 0),
        }
    }
}

fn refresh(system: &mut System) {
    system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
}

impl FactsSource for LinuxFacts {
    fn facts(&self) -> Facts {
        let (disk, _) = self.disk();
        let memory = lock(&self.system).as_ref().map_or(0, System::total_memory);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let os = [System::name(), System::os_version()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        Facts {
            hostname: System::host_name().unwrap_or_default(),
            arch: System::cpu_arch(),
            os,
            kernel: System::kernel_version().unwrap_or_default(),
            systemd: systemd_version(),
            address: self.config.address.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            holder: String::new(),
            cpu: Cpu::from_millis(cores * 1000),
            memory: Size::from_bytes(memory),
            disk: Size::from_bytes(disk),
            ports: self.config.ports,
            // The agent fills it in.
            sealing_key: None,
        }
    }

    fn usage(&self) -> Usage {
        let (_, disk) = self.disk();
        let mut guard = lock(&self.system);
        let (mut cpu, mut memory) = (0, 0);
        if let Some(system) = guard.as_mut() {
            refresh(system);
            let cores = system.cpus().len() as u64;
            // Percent of all cores, in thousandths of one core.
            let percent = f64::from(system.global_cpu_usage()).clamp(0.0, 100.0);
            cpu = scaled(percent * 10.0) * cores;
            memory = system.total_memory().saturating_sub(system.available_memory());
        }
        let load = System::load_average().map_or(0, |load| scaled(load.one * 100.0));
        Usage {
            cpu: Cpu::from_millis(cpu),
            memory: Size::from_bytes(memory),
            disk: Size::from_bytes(disk),
            load1: u32::try_from(load).unwrap_or(u32::MAX),
            pressure: pressure(),
        }
    }

    fn identity(&self) -> Identity {
        self.config.identity.clone()
    }

    fn readings(&self) -> Readings {
        let FactsConfig { state_dir, log_dir, artifact_dir, .. } = &self.config;
        usage::readings(&[("state", state_dir), ("logs", log_dir), ("artifacts", artifact_dir)])
    }

    fn look(&self, of: Vec<Watched>) -> BoxFuture<'_, HostLook> {
        // Thousands of small files: not on the thread that beats.
        let look = blocking(move || Ok(usage::look(&of)));
        look.map(|look| look.unwrap_or_default()).boxed()
    }
}

/// A measured number, never negative, rounded.
fn scaled(number: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    let whole = number.clamp(0.0, f64::from(u32::MAX)).round() as u64;
    whole
}

/// The highest `some avg10` of cpu, memory and io, in hundredths of a percent; none where the kernel does not tell.
fn pressure() -> Option<u32> {
    let one = |name: &str| {
        let text = std::fs::read_to_string(Path::new("/proc/pressure").join(name)).ok()?;
        let value = text.lines().next()?.split("avg10=").nth(1)?.split_whitespace().next()?;
        let percent: f64 = value.parse().ok()?;
        u32::try_from(scaled(percent * 100.0)).ok()
    };
    ["cpu", "memory", "io"].into_iter().filter_map(one).max()
}

/// Empty without systemd.
fn systemd_version() -> String {
    let running = Path::new("/run/systemd/system").is_dir();
    let found = || {
        let names = std::fs::read_dir("/usr/lib/systemd").ok()?;
        names.flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let rest = name.strip_prefix("libsystemd-shared-")?.strip_suffix(".so")?;
            Some(rest.to_owned())
        })
    };
    if running { found().unwrap_or_default() } else { String::new() }
}
