//! ostler-controller
