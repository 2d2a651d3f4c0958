//! What a simulated host says of itself.

use std::sync::{Arc, Mutex};

use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::v1::beat::Usage;
use ostler_schemas::v1::report::Facts;

use super::SimHost;
use crate::context::lock;
use crate::ports::{FactsSource, Identity};

/// A source of facts that says what it was told.
pub struct SimFacts {
    host: Arc<SimHost>,
    machine: String,
    facts: Mutex<Facts>,
    usage: Mutex<Usage>,
}

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
        };
        let machine = format!("machine-{name}");
        Arc::new(Self { host, machine, facts: Mutex::new(facts), usage: Mutex::default() })
    }

    /// Changes what it says.
    pub fn set_usage(&self, usage: Usage) {
        *lock(&self.usage) = usage;
    }
}

impl FactsSource for SimFacts {
    fn facts(&self) -> Facts {
        lock(&self.facts).clone()
    }

    fn usage(&self) -> Usage {
        *lock(&self.usage)
    }

    fn identity(&self) -> Identity {
        Identity { machine: self.machine.clone(), boot: self.host.boot() }
    }
}
