//! What something takes on disk, so what its end gives back.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A block of `st_blocks`, whatever the file system's own are.
pub(super) const BLOCK: u64 = 512;

/// What a file, or a folder with all that is in it, takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// The file system that it lies on; what lies on another one does not count.
    pub(super) device: u64,
    /// Bytes on disk: holes of files take none, and a file that has another name elsewhere takes none here.
    pub(super) bytes: u64,
    /// Files and folders.
    pub(super) files: u64,
    /// The latest change of anything of it, in seconds since 1970.
    pub(super) changed: u64,
}

/// Weighs; links are not followed. None if nothing is there.
pub(super) fn weigh(path: &Path) -> Option<Weight> {
    let meta = fs::symlink_metadata(path).ok()?;
    let mut weight = Weight { device: meta.dev(), ..Weight::default() };
    let mut waiting = vec![(path.to_owned(), meta)];
    while let Some((path, meta)) = waiting.pop() {
        if meta.dev() != weight.device {
            continue;
        }
        let shared = !meta.is_dir() && meta.nlink() > 1;
        if !shared {
            weight.bytes = weight.bytes.saturating_add(meta.blocks().saturating_mul(BLOCK));
            weight.files = weight.files.saturating_add(1);
        }
        weight.changed = weight.changed.max(u64::try_from(meta.mtime()).unwrap_or(0));
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))));
        }
    }
    Some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_or_a_hole_weighs_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("tree")).expect("makes");
        let empty = weigh(&at("tree")).expect("is there");
        fs::write(at("tree/full"), vec![1; 1 << 20]).expect("writes");
        let holes = fs::File::create(at("tree/holes")).expect("makes");
        holes.set_len(1 << 30).expect("grows");
        std::os::unix::fs::symlink("/etc", at("tree/link")).expect("links");
        let weight = weigh(&at("tree")).expect("is there");
        assert_eq!(weight.files, empty.files + 3);
        assert!((1 << 20..2 << 20).contains(&weight.bytes), "{weight:?}");
        fs::hard_link(at("tree/full"), at("other")).expect("links");
        let shared = weigh(&at("tree")).expect("is there");
        assert_eq!((shared.files, weight.files - shared.files), (empty.files + 2, 1));
        assert!(shared.bytes < 1 << 20, "{shared:?}");
        assert_eq!(weigh(&at("nothing")), None);
    }
}
