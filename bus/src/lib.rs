//! ostler-bus
