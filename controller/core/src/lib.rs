//! ostler-controller-core
