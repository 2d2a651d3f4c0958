//! What a simulated host says of itself.

use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_agent_core::pressure::{Amount, Disk, Readings};
use ostler_agent_core::usage::{Counters, HostLook, Look, Watched};
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::v1::beat::Usage;
use ostler_schemas::v1::report::Facts;

use super::SimHost;
use super::host::DEVICE;
use crate::context::lock;
use crate::ports::{FactsSource, Identity};

/// A source of facts that says what it was told.
pub struct SimFacts {
    host: Arc<SimHost>,
    machine: String,
    facts: Mutex<Facts>,
    usage: Mutex<Usage>,
    outside: Mutex<Outside>,
}

/// What is taken by what runs outside Ostler.
#[derive(Debug, Clone, Copy, Default)]
struct Outside {
    memory: u64,
    disk: u64,
    tasks: u64,
}

/// Process numbers of a simulated host.
const PIDS: u64 = 32_768;

impl SimFacts {
    /// Of a host with this machine id, name and capacity.
    #[must_use]
    pub fn new(host: Arc<SimHost>, name: &str, cpu: Cpu, memory: Size) -> Arc<Self> {
        let facts = Facts {
            hostname: format!("{name}.example.net"),
            arch: "x86_64".to_owned(),
            os: "Simulated 1".to_owned(),
            kernel: "6.0.0".to_owned(),
            systemd: String::new(),
            address: "127.0.0.1".to_owned(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            holder: String::new(),
            cpu,
            memory,
            disk: Size::from_mib(1 << 20),
            ports: (20_000, 29_999),
            // The agent fills it in.
            sealing_key: None,
        };
        let machine = format!("machine-{name}");
        Arc::new(Self {
            host,
            machine,
            facts: Mutex::new(facts),
            usage: Mutex::default(),
            outside: Mutex::default(),
        })
    }

    /// Changes what it says.
    pub fn set_usage(&self, usage: Usage) {
        *lock(&self.usage) = usage;
    }

    /// How much memory is taken by what runs outside Ostler.
    pub fn set_outside(&self, bytes: u64) {
        lock(&self.outside).memory = bytes;
    }

    /// How much of the disk is taken by others.
    pub fn set_outside_disk(&self, bytes: u64) {
        lock(&self.outside).disk = bytes;
    }

    /// How many process numbers are taken by others.
    pub fn set_outside_tasks(&self, tasks: u64) {
        lock(&self.outside).tasks = tasks;
    }

    fn memory_used(&self) -> u64 {
        let ours = self.host.memory().into_iter().map(|(_, bytes)| bytes).fold(0, u64::saturating_add);
        ours.saturating_add(lock(&self.outside).memory)
    }
}

impl FactsSource for SimFacts {
    fn facts(&self) -> Facts {
        lock(&self.facts).clone()
    }

    fn usage(&self) -> Usage {
        *lock(&self.usage)
    }

    fn readings(&self) -> Readings {
        let (total, disk) = {
            let facts = lock(&self.facts);
            (facts.memory.as_bytes(), facts.disk.as_bytes())
        };
        let outside = *lock(&self.outside);
        let left = |total: u64, used: u64| Amount { total, free: total.saturating_sub(used) };
        let tasks: u64 = self.host.tasks().into_values().map(u64::from).sum();
        let space = left(disk, self.host.disk_used().saturating_add(outside.disk));
        Readings {
            memory: Some(left(total, self.memory_used())),
            stall: None,
            disks: vec![Disk { what: "state".to_owned(), device: DEVICE, space, files: None }],
            pids: Some(left(PIDS, tasks.saturating_add(outside.tasks))),
        }
    }

    fn look(&self, of: Vec<Watched>) -> BoxFuture<'_, HostLook> {
        let (memory, tasks) = (self.host.memory(), self.host.tasks());
        let one = |watched: Watched| {
            let is_it = |key: &ProcKey| key.uid == watched.uid && key.incarnation == watched.incarnation;
            let (_, bytes) = memory.iter().find(|(key, _)| is_it(key))?;
            let counters = Counters {
                cpu_us: Some(0),
                memory: Some(*bytes),
                tasks: tasks.get(&watched.uid).copied(),
                ..Counters::default()
            };
            Some(Look { uid: watched.uid, incarnation: watched.incarnation, counters })
        };
        let processes = of.into_iter().filter_map(one).collect();
        let look = HostLook { cpu_us: Some(0), memory: Some(self.memory_used()), processes };
        std::future::ready(look).boxed()
    }

    fn identity(&self) -> Identity {
        Identity { machine: self.machine.clone(), boot: self.host.boot() }
    }
}
