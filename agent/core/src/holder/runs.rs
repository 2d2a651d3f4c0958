//! Commands that run beside processes: hooks, probes, validators, `exec`.
pub mod protocol;
