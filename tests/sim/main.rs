//! The whole control plane in virtual time.

mod planted;
mod random;
mod scenarios;
