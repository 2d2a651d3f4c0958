//! Decisions of the agent and the holder: pure, no IO, no clock.
//!
//! * [`documents`]: which documents are followed, and what they ask.
//! * [`mod@unit`]: the life of one process.
//! * [`mod@file`]: the life of one managed file.
//! * [`needs`], [`environment`], [`probe`]: what a process waits for, starts with, and how its readiness is judged.
//! * [`confine`]: by what the host confines it.
//! * [`artifacts`]: the files that it is started from.
//! * [`ledger`]: what survives the agent; [`report`]: what the node says of itself.
//! * [`usage`], [`pressure`]: what is taken of the host, and when it is too much.
//! * [`veto`]: what the host allows; [`holds`]: what a person on it has taken out of the agent's hands.
//! * [`holder`]: the holder's own decisions and its protocol.

pub mod acts;
pub mod artifacts;
pub mod confine;
pub mod documents;
pub mod environment;
pub mod file;
pub mod holder;
pub mod holds;
pub mod ledger;
pub mod needs;
pub mod pressure;
pub mod probe;
pub mod reclaim;
pub mod report;
pub mod secrets;
pub mod unit;
pub mod usage;
pub mod veto;
