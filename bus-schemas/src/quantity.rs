//! Durations, sizes, CPU and the other values of manifests.
