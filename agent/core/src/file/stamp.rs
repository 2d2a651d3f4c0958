//! Whether a file may have changed since it was read, told by what the file system keeps of it.
//!
//! The kernel sets a file's change time at each change of content, owner or mode, and nobody can set it otherwise but by
//! setting the clock; together with size, number and device it stands for what was read. Two changes within one tick of
//! that clock have the same time, so what was changed shortly before it was read is never taken for known.

use ostler_schemas::spec::Drift;

use super::{FileState, ManagedFile, part_path};

/// Between the last change of a file and the reading of it, so that every later change has a later time: file systems
/// count time in steps of up to two seconds.
pub const SURE_AFTER_MS: u64 = 2_500;

/// What lay at a path when it was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stamp {
    /// It cannot be told whether that is still so.
    #[default]
    Unsure,
    /// Nothing lay there.
    Nothing,
    /// A file.
    File {
        /// Device and number.
        place: (u64, u64),
        /// Bytes.
        size: u64,
        /// Last change of the content, in seconds and nanoseconds.
        modified: (i64, i64),
        /// Last change of anything.
        changed: (i64, i64),
    },
}

impl Stamp {
    /// Whether what was known at `self` is still so at `now`.
    #[must_use]
    pub fn still(&self, now: &Stamp) -> bool {
        *self != Stamp::Unsure && self == now
    }
}

impl ManagedFile {
    /// Whether nobody looks what becomes of it: it was written, and its drift is nobody's business.
    #[must_use]
    pub fn is_left_alone(&self) -> bool {
        let spec = self.wanted.as_ref().and_then(|w| w.spec.as_ref());
        spec.is_some_and(|spec| spec.drift == Drift::Ignore) && self.standing.state == FileState::InSync
    }

    /// By the paths of its files what tells whether they have changed since they were seen to be right; none where
    /// that alone does not tell.
    #[must_use]
    pub fn stamps(&self) -> Option<Vec<(String, Stamp)>> {
        let (_, unlisted) = self.to_look_at();
        let seen =
            self.observed.as_ref().filter(|_| self.standing.state == FileState::InSync && !unlisted)?;
        let path = self.path()?;
        Some(seen.parts.iter().map(|(name, seen)| (part_path(&path, name), seen.stamp)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unsure_is_never_still_so() {
        assert!(!Stamp::Unsure.still(&Stamp::Unsure));
        assert!(Stamp::Nothing.still(&Stamp::Nothing));
        let file = |size| Stamp::File { place: (1, 2), size, modified: (3, 4), changed: (5, 6) };
        assert!(file(1).still(&file(1)) && !file(1).still(&file(2)) && !file(1).still(&Stamp::Nothing));
    }
}
