//! Decisions of the controllers: pure functions from a snapshot of the fleet, the time and fresh ids to a plan.
//!
//! No IO, no clock, no randomness, no unordered iteration (see `clippy.toml` beside the manifest). The words:
//!
//! * [`fleet::Fleet`]: the immutable snapshot, fed change by change from the store.
//! * [`plan::Plan`]: what a reconciler decided: guarded steps, events, status, when to look again, and why.
//! * [`liveness`]: beats and canaries to phases, on every replica. [`fitness`]: whether a node may be given work,
//!   [`capacity`]: how much.
//! * [`lease`]: leadership as a sans-IO machine. [`lane`]: plans to fenced batches.
//! * [`queue`]: which object to look at next.
//! * Reconcilers: [`node`], [`scheduler`], [`process`], [`deployment`], [`configfile`], [`secret`], [`garbage`].
//! * [`admission`]: from requests to transactions of the API.
//! * [`status`]: what users read, computed from the snapshot. [`audit`]: the invariants, checked on snapshots.

pub mod admission;
pub mod audit;
pub mod capacity;
pub mod configfile;
pub mod deployment;
pub mod fitness;
pub mod fleet;
pub mod garbage;
pub mod lane;
pub mod lease;
pub mod liveness;
pub mod node;
pub mod plan;
pub mod process;
pub mod queue;
pub mod references;
pub mod rollout;
pub mod scheduler;
pub mod secret;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
