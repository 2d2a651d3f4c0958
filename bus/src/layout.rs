//! What the bus looks like, as data and in one place: streams, accounts, what crosses between accounts, identities and
//! their permission lists. [`crate::setup`] writes it as server configuration, [`crate::nats`] provisions the streams
//! and verifies them, tests attack it.
//!
//! Guarantees:
//! * Nobody outside account CP can publish an arbitrary JetStream request: what crosses into CP is a literal list of
//!   subjects whose tokens name the caller or are proved harmless.
//! * In streams that agents can publish into, a header cannot wipe, block or hide another party's writes: rollup,
//!   atomic batches and TTL are off, the duplicate window is the shortest.
//! * Every stream has a byte limit.
//!
//! It decides nothing about a deployment: hosts, ports and keys are [`crate::setup`]'s.

mod accounts;
mod conf;
mod simulated;
mod streams;

pub use accounts::{CROSSINGS, Crossing, Flow, Identity, Permissions, permissions};
pub(crate) use conf::line;
pub use conf::{AccountUser, accounts_block};
pub use simulated::{BLOCK, Block, SIMULATED_MAX};
pub use streams::{
    Discard, LOG_BYTES_MAX, Republish, Scale, Sizes, Storage, StreamSpec, replicas_for, streams,
};

/// An account of the bus. Subjects of one are unknown in the others, except for [`CROSSINGS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// The control plane: JetStream, controllers only.
    Cp,
    /// Agents, and the canaries of the controllers.
    Ag,
    /// Operators.
    Op,
    /// Read-only, for the stock NATS tools.
    View,
    /// The servers' own.
    Sys,
}

impl Account {
    /// Every account.
    pub const ALL: [Account; 5] = [Account::Cp, Account::Ag, Account::Op, Account::View, Account::Sys];

    /// Its name in the configuration, and in `Nats-Request-Info`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Account::Cp => "CP",
            Account::Ag => "AG",
            Account::Op => "OP",
            Account::View => "VIEW",
            Account::Sys => "SYS",
        }
    }
}

#[cfg(test)]
mod tests;
