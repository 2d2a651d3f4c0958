//! The pure half of the holder, the small process that is the parent of everything that runs on one host.
//!
//! * [`protocol`]: what agent and holder say to each other, tolerant of fields and variants from other versions.
//! * [`frame`]: how those messages are cut out of a byte stream, with a size limit before anything is decoded.
//! * [`state`]: what the holder must remember to adopt its processes after it was itself replaced.
//! * [`journal`]: how that lies on disk, so that a write costs what has changed.
//! * [`machine`]: every decision: starts, stops, deadlines, exits and their acknowledgements.
//! * [`runs`]: commands that run beside processes: hooks, probes, `exec`.
//! * [`notify`]: what a process says of itself over its notification socket.
//! * [`lines`]: from the bytes of a process to the lines of its log.
//!
//! Nothing here does IO or reads a clock; the shell is `ostler_agent::holder`.

pub mod confine;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod journal;
pub mod lines;
mod log_spec;
pub mod machine;
pub mod notify;
pub mod protocol;
pub mod runs;
pub mod state;
mod wire;

pub use machine::{HolderCore, Input, Output};
