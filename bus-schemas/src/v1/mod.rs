//! The types of version 1, as stored and sent. Frozen once released: fields are only added, and golden bytes in
//! `fixtures/v1` prove it.
//!
//! Field names in node documents and reports are short because there are thousands of entries in one document; all
//! other names are the words of DESIGN.md section 1.

pub mod api;
pub mod beat;
pub mod document;
pub mod drift;
pub mod epoch;
pub mod event;
pub mod log_line;
pub mod object;
pub mod process;
pub mod reason;
pub mod report;
pub mod secret;
pub mod state;
pub mod status;
pub mod stretch;
pub mod usage;

#[cfg(test)]
mod golden;
