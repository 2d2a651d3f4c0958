//! The steps of which every change of a file consists. Each can be carried out again after a crash.
//!
//! Paths are those of the folder that was looked at and judged, with its links resolved: a link that is put in the way
//! afterwards is not followed but ends the work. Where originals are kept is not judged, and may be reached by links.

use ostler_schemas::Sha256;
use ostler_schemas::quantity::Mode;

use super::{Candidate, FileRecord, Owner};

/// Bytes to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Content by hash, from the ledger.
    Blob(Sha256),
    /// A kept original at this host path.
    Kept(String),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the record durable.
    Record(Box<FileRecord>),
    /// Make a folder and what is missing above it, root's and 0755 (the agent's own without root).
    MakeDirs {
        /// The folder.
        dir: String,
    },
    /// Copy a file aside, durably: copied, synced, renamed into place, folder synced.
    Keep {
        /// The file.
        from: String,
        /// The copy.
        to: String,
    },
    /// Write a new file of mode 0600; one that is there is removed first, never followed.
    WriteTemp {
        /// Where.
        temp: String,
        /// What.
        content: Content,
    },
    /// Set owner and group.
    Own {
        /// Of what.
        path: String,
        /// Whose.
        owner: Owner,
    },
    /// Set permission bits. After [`Step::Own`], because a change of owner clears some of them.
    SetMode {
        /// Of what.
        path: String,
        /// Which.
        mode: Mode,
    },
    /// Give a file the security label of the one that it will replace, if there is one. Before [`Step::Sync`].
    Label {
        /// To what.
        path: String,
        /// Whose.
        like: String,
    },
    /// Have what is written beside its place looked at. It is not put in place if that says no, and it must be as it was
    /// when that has ended.
    Validate(Box<Candidate>),
    /// Remove a candidate: a file, or a folder with all that is in it; nothing there is fine.
    RemoveTree {
        /// Which.
        dir: String,
    },
    /// Sync a file's content and metadata.
    Sync {
        /// Which.
        path: String,
    },
    /// Rename over what is there; refused if that is no regular file.
    Rename {
        /// From.
        from: String,
        /// To.
        to: String,
    },
    /// Sync a folder, so that renames in it survive power loss.
    SyncDir {
        /// Which.
        dir: String,
    },
    /// Remove a regular file; nothing there is fine.
    Remove {
        /// Which.
        path: String,
    },
    /// Remove a kept original; nothing there is fine.
    Discard {
        /// Where it is kept.
        kept: String,
    },
}

/// What kind of failure stopped a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepErrorKind {
    /// No space, or no quota.
    DiskFull,
    /// Owner and group could not be set.
    OwnerRefused,
    /// What is there is no regular file.
    NotRegular,
    /// The validator refused it.
    Rejected,
    /// What would do it is away for the moment.
    NotNow,
    /// Anything else.
    Failed,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// The kind.
    pub kind: StepErrorKind,
    /// What was tried and what the system said.
    pub message: String,
}
