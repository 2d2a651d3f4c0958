//! The shipped programs on this machine, as children: real servers, real processes, real files, real kills.
//!
//! Needs `cargo build --workspace --bins` and a nats-server (`make nats`). No root, nothing outside of temporary folders.
//! Nothing here measures: each test waits for states. How fast things are is `make bench`'s business.

mod again;
mod garbage;
mod journeys;
mod leaders;
mod logs;
mod lost;
mod quorum;
mod survival;
mod work;
