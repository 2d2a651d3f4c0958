//! definite
