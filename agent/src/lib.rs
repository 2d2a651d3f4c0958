//! The agent of one host, and its holder.

pub mod holder;
pub mod holder_client;
