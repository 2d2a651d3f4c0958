//! The whole control plane in virtual time.

mod life;
mod planted;
mod random;
mod scenarios;
