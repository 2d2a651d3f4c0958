//! The whole control plane in virtual time.

mod scenarios;
