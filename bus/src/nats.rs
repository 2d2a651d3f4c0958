//! The adapter to NATS JetStream.
//!
//! * [`connect`]: one connection of one identity, its options and its observed state.
//! * [`store`]: the [`crate::Store`] port; [`topic`]: the [`crate::Topic`] port.
//! * [`provision`]: creates and verifies the streams of [`crate::layout`].
//! * [`server`]: runs nats-servers as children, for `ostler dev` and tests.
//!
//! It speaks JetStream's API in JSON itself: the client library's own types cannot say all that the layout needs, and
//! its ordered consumers hang after the loss of a server (NATS.md, trap T2). Errors are told apart by API code, never
//! by text.

mod commit;
pub mod connect;
pub mod provision;
pub mod server;
mod service;
pub mod store;
pub mod topic;
mod watch;
mod wire;

pub use connect::{Bus, BusFile, Config, ConnectError};
