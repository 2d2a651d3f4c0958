//! A simulated host: processes that survive the agent, a file system in memory, a ledger with the semantics of a disk.
//!
//! Deterministic under tokio's paused clock: no threads, no real IO, no order that depends on hashing. The same agent
//! runs on these as on a real host.

mod artifacts;
mod facts;
mod files;
mod host;
mod ledger;
#[cfg(test)]
mod tests;

pub use artifacts::{SimArtifacts, Source};
pub use facts::SimFacts;
pub use files::SimFiles;
pub use host::{Manners, Program, SimEvent, SimHost, SimRecord, SimRun};
pub use ledger::SimLedger;
