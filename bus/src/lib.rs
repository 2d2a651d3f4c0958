//! The bus: what daemons may do to the world outside their process, as ports, with two implementations of each.
//!
//! * [`store`]: guarded transactions on buckets, reads, watches. No blind put can be written.
//! * [`topic`]: messages without durability: publish, subscribe, request, serve.
//! * [`clock`], [`entropy`]: time and randomness, so that a simulation can own them.
//! * [`sim_clock`]: the clock of a simulated machine.
//! * [`definite`]: from "unknown" to a definite outcome, by resending and by reading what was written.
//! * [`informer`]: list and watch with resumption, as whole transactions, with an "as of" revision.
//! * [`node_link`]: what one agent may do, over a [`topic::Topic`] of its account.
//! * [`memory`]: the exact in-memory model; [`nats`]: the adapter to NATS JetStream; [`fault`]: misbehaviour around
//!   either; [`conformance`]: the one suite that both must pass.
//! * [`layout`]: streams, accounts, users and permissions, from one description; [`setup`] writes it as files.

pub mod clock;
pub mod conformance;
pub mod definite;
mod discovery;
pub mod entropy;
pub mod fault;
pub mod informer;
pub mod layout;
pub mod memory;
pub mod nats;
pub mod node_link;
pub mod sealing;
pub mod setup;
pub mod sim_clock;
pub mod store;
pub mod topic;

pub use clock::{Clock, ClockRef};
pub use entropy::{Entropy, EntropyRef};
pub use store::{Store, StoreRef};
pub use topic::{Topic, TopicRef};
