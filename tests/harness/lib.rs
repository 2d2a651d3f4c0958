//! Harness shared by the test packages.
