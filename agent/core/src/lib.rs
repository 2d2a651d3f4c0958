//! Decisions of the agent and the holder: pure, no IO, no clock.

pub mod holder;
