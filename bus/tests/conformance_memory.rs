//! The conformance suite on the model in memory.

use std::sync::Arc;

use futures::future::BoxFuture;
use ostler_bus::clock::ClockRef;
use ostler_bus::conformance::{self, Subject};
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::memory::{MemoryBus, Noise, Party, START_WALL_MS};
use ostler_bus::sim_clock::{Gate, SimClock};
use ostler_bus::{StoreRef, TopicRef};
use ostler_schemas::time::Timestamp;
use ostler_schemas::{Name, NodeName};

struct Memory {
    bus: MemoryBus,
    clock: ClockRef,
    entropy: EntropyRef,
}

impl Memory {
    fn new() -> Self {
        let clock: ClockRef = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
        let entropy = Arc::new(SeededEntropy::from_number(1));
        Self { bus: MemoryBus::new(Arc::clone(&clock)), clock, entropy }
    }
}

impl Subject for Memory {
    fn controller(&self) -> BoxFuture<'_, (StoreRef, TopicRef)> {
        Box::pin(std::future::ready(self.bus.cp(&Party::new("controller"))))
    }

    fn agent<'a>(&'a self, node: &'a NodeName) -> BoxFuture<'a, TopicRef> {
        Box::pin(std::future::ready(self.bus.agent(&Party::new(node.as_str()), node)))
    }

    fn operator<'a>(&'a self, user: &'a Name) -> BoxFuture<'a, TopicRef> {
        Box::pin(std::future::ready(self.bus.operator(&Party::new(user.as_str()), user)))
    }

    fn clock(&self) -> ClockRef {
        Arc::clone(&self.clock)
    }

    fn entropy(&self) -> EntropyRef {
        Arc::clone(&self.entropy)
    }
}

#[tokio::test(start_paused = true)]
async fn the_model_conforms() {
    let report = conformance::run(&Memory::new()).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.passed.len(), conformance::cases().len());
}

#[tokio::test(start_paused = true)]
async fn a_slow_model_conforms_too() {
    let memory = Memory::new();
    memory.bus.faults().noise(Noise { delay_ms: (1, 20), ..Noise::default() });
    let report = conformance::run(&memory).await;
    assert!(report.is_clean(), "{report}");
}

/// A suite that cannot fail proves nothing.
#[tokio::test(start_paused = true)]
async fn a_bus_that_loses_messages_does_not_conform() {
    let memory = Memory::new();
    memory.bus.faults().noise(Noise { lose_message_ppm: 500_000, ..Noise::default() });
    let report = conformance::run(&memory).await;
    assert!(!report.failed.is_empty(), "{report}");
}
