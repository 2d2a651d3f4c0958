//! The controller daemon: actors around the pure decisions of `ostler-controller-core`.
//!
//! Any number of replicas run. All serve the API and keep snapshot and liveness warm; per controller one leads.
//! A daemon owns no state: it is rebuilt from the store and the agents.

pub mod actors;
pub mod api;
pub mod config;
pub mod daemon;
pub mod events;
pub mod http;
pub mod metrics;
pub mod serve;
pub mod snapshot;
pub mod vault;
