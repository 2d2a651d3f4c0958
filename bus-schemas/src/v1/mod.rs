//! The types of version 1.
