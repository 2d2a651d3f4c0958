//! The whole control plane in virtual time.

mod random;
mod scenarios;
