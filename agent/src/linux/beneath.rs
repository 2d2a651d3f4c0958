//! Folders reached without symbolic links, and the names in them.
//!
//! What a path leads to may change at any moment: whoever owns a folder above can put a link in the place of the next
//! one. So a path is judged with its links resolved, and whatever is done afterwards is done to a name in a folder that
//! was reached part by part, none of them a link. A link that was put there meanwhile ends the work with an error, and
//! the path is looked at and judged anew.
//!
//! Not here: what is allowed where, and links that lead somewhere already when a path is judged; those are fine.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// How a folder on the way is opened: permission to pass is enough.
const PASS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder in `above`; a link is none.
pub(super) fn folder_in(above: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    rustix::fs::openat(above, name.as_ref(), PASS, Mode::empty()).map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => {
            let words = format!("{} is no folder (links are not followed)", name.as_ref().display());
            io::Error::new(io::ErrorKind::NotADirectory, words)
        }
        other => other.into(),
    })
}

/// The folder at an absolute path in normal form.
fn folder(path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::openat(CWD, "/", PASS, Mode::empty())?;
    parts(path)?.into_iter().try_fold(root, |at, part| folder_in(&at, part))
}

fn parts(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut parts = path.components();
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute and in normal form");
    if parts.next() != Some(Component::RootDir) {
        return Err(invalid());
    }
    parts
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
                Err(invalid())
            }
        })
        .collect()
}

/// Makes the folder at a path and what is missing above it, 0755, and makes their entries durable.
pub(super) fn make_folders(path: &Path) -> io::Result<()> {
    let mut at = rustix::fs::openat(CWD, "/", PASS, Mode::empty())?;
    for part in parts(path)? {
        at = match folder_in(&at, part) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
                    // Somebody else made it meanwhile, which is as good.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                sync_folder_fd(&at)?;
                folder_in(&at, part)?
            }
            found => found?,
        };
    }
    Ok(())
}

/// How deep a tree that is removed may be: a candidate is as deep as the names of its files, and no deeper.
const TREE_DEPTH: usize = 64;

/// Removes a folder with all that is in it; links in it are removed, never followed. Nothing there is fine.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let place = match Place::at(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        place => place?,
    };
    remove_any(&place.folder, place.name, TREE_DEPTH)
}

fn remove_any(above: &OwnedFd, name: &OsStr, depth: usize) -> io::Result<()> {
    match rustix::fs::unlinkat(above, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says the one of a folder, others the other.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let Some(depth) = depth.checked_sub(1) else {
        return Err(io::Error::other("its folders lie too deep in one another"));
    };
    let folder = folder_in(above, name)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = rustix::fs::Dir::new(rustix::fs::openat(&folder, ".", flags, Mode::empty())?)?;
    for entry in entries {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            remove_any(&folder, name, depth)?;
        }
    }
    match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    sync_folder_fd(&folder(path)?)
}

fn sync_folder_fd(folder: &OwnedFd) -> io::Result<()> {
    // What is opened to pass only cannot be synced.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(folder, ".", flags, Mode::empty())?).sync_all()
}

/// A name in a folder.
#[derive(Debug)]
pub(super) struct Place<'a> {
    folder: OwnedFd,
    name: &'a OsStr,
}

impl<'a> Place<'a> {
    /// The last part of an absolute path in normal form, in its folder.
    ///
    /// # Errors
    /// If its folder is not there, or a part of the way is a link or no folder.
    pub(super) fn at(path: &'a Path) -> io::Result<Self> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        // `file_name` passes over what follows the last name.
        if !path.as_os_str().as_bytes().ends_with(name.as_bytes()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { folder: folder(above)?, name })
    }

    /// What lies there itself; nothing is fine.
    pub(super) fn look(&self) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens what lies there to be read: no link, and without waiting for a writer of a pipe.
    pub(super) fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, self.name, flags, Mode::empty())?.into())
    }

    /// Opens a regular file that has no other name: one with more may be somebody's way to have another file changed.
    pub(super) fn open_only(&self) -> io::Result<File> {
        let file = self.open()?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.nlink() > 1 {
            return Err(io::Error::other("another hand has put something else there"));
        }
        Ok(file)
    }

    /// Makes a file where nothing is.
    pub(super) fn make(&self, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, self.name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Removes the name, if it is there and no folder.
    pub(super) fn remove(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.folder, self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Renames it over what lies at `to`.
    pub(super) fn rename(&self, to: &Place<'_>) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, self.name, &to.folder, to.name)?)
    }
}

/// What something is, if it is no regular file.
pub(super) fn not_regular(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Symlink => Some("a symbolic link"),
        FileType::Directory => Some("a directory"),
        FileType::BlockDevice | FileType::CharacterDevice => Some("a device"),
        FileType::Fifo => Some("a named pipe"),
        FileType::Socket | FileType::Unknown => Some("a socket"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_on_the_way_is_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(dir.path()).expect("is there");
        fs::create_dir(real.join("a")).expect("makes it");
        fs::write(real.join("a/file"), "text").expect("writes");
        symlink("a", real.join("link")).expect("links");
        assert!(Place::at(&real.join("a/file")).expect("reached").look().expect("looks").is_some());
        assert!(Place::at(&real.join("a/none")).expect("reached").look().expect("looks").is_none());
        let refused = Place::at(&real.join("link/file")).expect_err("a link");
        assert_eq!(refused.kind(), io::ErrorKind::NotADirectory);
        assert!(make_folders(&real.join("link/new")).is_err());
        make_folders(&real.join("b/c")).expect("makes them");
        sync_folder(&real.join("b/c")).expect("syncs");
        assert!(!real.join("a/new").exists());
        for odd in ["relative/file", "/a/../b", "/", "/a/file/"] {
            assert!(Place::at(Path::new(odd)).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_tree_goes_and_what_links_in_it_lead_to_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(dir.path()).expect("is there");
        fs::create_dir_all(real.join("tree/a/b")).expect("makes it");
        fs::write(real.join("tree/a/b/file"), "text").expect("writes");
        fs::create_dir(real.join("other")).expect("makes it");
        fs::write(real.join("other/file"), "text").expect("writes");
        symlink("../../other", real.join("tree/a/link")).expect("links");
        remove_tree(&real.join("tree")).expect("removes it");
        assert!(!real.join("tree").exists() && real.join("other/file").exists());
        remove_tree(&real.join("tree")).expect("nothing there is fine");
        remove_tree(&real.join("none/tree")).expect("nothing there is fine");
        symlink("other", real.join("tree")).expect("links");
        remove_tree(&real.join("tree")).expect("removes the link");
        assert!(real.join("other/file").exists());
    }

    #[test]
    fn a_file_with_another_name_is_not_taken_for_ours() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(dir.path()).expect("is there");
        let (one, two) = (real.join("one"), real.join("two"));
        fs::write(&one, "text").expect("writes");
        Place::at(&one).expect("reached").open_only().expect("its only name");
        fs::hard_link(&one, &two).expect("links");
        assert!(Place::at(&two).expect("reached").open_only().is_err());
        symlink(&one, real.join("three")).expect("links");
        assert!(Place::at(&real.join("three")).expect("reached").open_only().is_err());
    }
}
