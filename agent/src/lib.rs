//! The agent of one host, and its holder.
