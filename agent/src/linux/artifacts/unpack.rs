//! Unpacks archives into a folder, and nothing outside of it.
//!
//! An archive comes from the network and is as trusted as its hash: its author may still be careless or bought. So:
//! only folders, regular files, and links that stay inside; no owners, no special bits, no devices; bounded in number
//! and in bytes. Each file is made anew through a path of which no part is a link.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ostler_agent_core::artifacts::inner_parts;

/// Most entries of an archive: far above what programs consist of, far below what a file system minds.
const ENTRIES_MAX: usize = 100_000;
/// Permission bits that files keep.
const MODE_KEPT: u32 = 0o555;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    /// It is not what it should be.
    #[error("the archive cannot be unpacked: {0}")]
    Archive(String),
    /// It is compressed in a way that is not served.
    #[error("the archive is compressed with {0}, which is not served: use gzip")]
    Compression(&'static str),
    /// An entry that would leave the folder, or is neither file, folder nor link.
    #[error("the archive holds {entry:?}, which {why}")]
    Entry {
        /// Its name.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More than is allowed.
    #[error("the archive unpacks to more than {0}")]
    TooMuch(String),
    /// The host's own file or folder.
    #[error("{}: {source}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

/// What may still be unpacked.
struct Room {
    bytes: u64,
    max: u64,
    entries: usize,
}

impl Room {
    fn entry(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(UnpackError::TooMuch(format!("{ENTRIES_MAX} entries")));
        }
        Ok(())
    }

    /// Copies into a fresh file.
    fn copy(&mut self, from: &mut dyn Read, to: &Path, mode: u32) -> Result<(), UnpackError> {
        let disk = |source| UnpackError::Disk { path: to.to_owned(), source };
        // A later entry of the same name replaces the earlier one, as tar does it.
        match fs::remove_file(to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(disk(error)),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(disk)?;
        // The sizes that archives tell are not believed.
        let mut from = from.take(self.max - self.bytes + 1);
        let copied = io::copy(&mut from, &mut file).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
                UnpackError::Archive(error.to_string())
            }
            _ => disk(error),
        })?;
        self.bytes += copied;
        if self.bytes > self.max {
            return Err(UnpackError::TooMuch(format!("{} bytes", self.max)));
        }
        let executable = if mode & 0o111 == 0 { MODE_KEPT & !0o111 } else { MODE_KEPT };
        file.set_permissions(fs::Permissions::from_mode(executable)).map_err(disk)
    }
}

fn archive(error: &dyn std::fmt::Display) -> UnpackError {
    UnpackError::Archive(error.to_string())
}

/// The path of an entry below the folder, with its parents made. No part of it is a link afterwards.
fn place(folder: &Path, entry: &str) -> Result<Option<PathBuf>, UnpackError> {
    let leaves = |_| UnpackError::Entry { entry: entry.to_owned(), why: "leaves its folder" };
    let parts = inner_parts(entry).map_err(leaves)?;
    let Some((name, parents)) = parts.split_last() else { return Ok(None) };
    let mut path = folder.to_owned();
    for parent in parents {
        path.push(parent);
        make_folder(&path, entry)?;
    }
    Ok(Some(path.join(name)))
}

fn make_folder(path: &Path, entry: &str) -> Result<(), UnpackError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => Err(UnpackError::Entry {
                entry: entry.to_owned(),
                why: "lies below something that is no folder",
            }),
            Err(source) => Err(UnpackError::Disk { path: path.to_owned(), source }),
        },
        Err(source) => Err(UnpackError::Disk { path: path.to_owned(), source }),
    }
}

/// A symbolic link, if it stays inside wherever it is followed from.
fn link(folder: &Path, at: &Path, entry: &str, target: &str) -> Result<(), UnpackError> {
    let outside = || UnpackError::Entry { entry: entry.to_owned(), why: "is a link that leaves its folder" };
    let inside = at.strip_prefix(folder).map_err(|_| outside())?;
    let mut depth = inside.components().count().saturating_sub(1);
    if target.starts_with('/') || target.is_empty() {
        return Err(outside());
    }
    let mut climbing = true;
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            // Only at the beginning: behind another link `..` leads elsewhere than it seems.
            if !climbing || depth == 0 {
                return Err(outside());
            }
            depth -= 1;
        } else {
            climbing = false;
        }
    }
    match fs::remove_file(at) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(UnpackError::Disk { path: at.to_owned(), source }),
    }
    std::os::unix::fs::symlink(target, at).map_err(|source| UnpackError::Disk { path: at.to_owned(), source })
}

/// Unpacks a tar archive, compressed with gzip or not.
pub(super) fn tar(from: &Path, folder: &Path, max: u64) -> Result<(), UnpackError> {
    let disk = |source| UnpackError::Disk { path: from.to_owned(), source };
    let mut file = File::open(from).map_err(disk)?;
    let mut magic = [0; 6];
    let read = file.read(&mut magic).map_err(disk)?;
    file.seek(SeekFrom::Start(0)).map_err(disk)?;
    let file = BufReader::with_capacity(256 << 10, file);
    match &magic[..read] {
        [0x1f, 0x8b, ..] => tar_entries(&mut flate2::read::MultiGzDecoder::new(file), folder, max),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(UnpackError::Compression("xz")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(UnpackError::Compression("zstd")),
        [b'B', b'Z', b'h', ..] => Err(UnpackError::Compression("bzip2")),
        _ => {
            let mut file = file;
            tar_entries(&mut file, folder, max)
        }
    }
}

fn tar_entries(from: &mut dyn Read, folder: &Path, max: u64) -> Result<(), UnpackError> {
    let mut room = Room { bytes: 0, max, entries: 0 };
    let mut tar = tar::Archive::new(from);
    for entry in tar.entries().map_err(|error| archive(&error))? {
        let mut entry = entry.map_err(|error| archive(&error))?;
        room.entry()?;
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| UnpackError::Archive("a name in it is not UTF-8".to_owned()))?;
        let kind = entry.header().entry_type();
        let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        if kind.is_pax_global_extensions() {
            continue;
        }
        let Some(at) = place(folder, &name)? else { continue };
        match kind {
            tar::EntryType::Directory => make_folder(&at, &name)?,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let mode = entry.header().mode().unwrap_or(0o644);
                room.copy(&mut entry, &at, mode)?;
            }
            tar::EntryType::Symlink => link(folder, &at, &name, &target.unwrap_or_default())?,
            tar::EntryType::Link => hard_link(folder, &at, &name, &target.unwrap_or_default())?,
            _ => {
                return Err(UnpackError::Entry {
                    entry: name,
                    why: "is neither a file, a folder nor a link",
                });
            }
        }
    }
    Ok(())
}

fn hard_link(folder: &Path, at: &Path, entry: &str, target: &str) -> Result<(), UnpackError> {
    let bad = |why| UnpackError::Entry { entry: entry.to_owned(), why };
    let source = place(folder, target).map_err(|_| bad("is a link that leaves its folder"))?;
    let source = source.ok_or_else(|| bad("is a link to nothing"))?;
    if !fs::symlink_metadata(&source).is_ok_and(|meta| meta.is_file()) {
        return Err(bad("is a link to something that is not in the archive before it"));
    }
    fs::hard_link(&source, at).map_err(|source| UnpackError::Disk { path: at.to_owned(), source })
}

/// Unpacks a zip archive.
pub(super) fn zip(from: &Path, folder: &Path, max: u64) -> Result<(), UnpackError> {
    const LINK_TARGET_MAX: u64 = 4096;
    let disk = |source| UnpackError::Disk { path: from.to_owned(), source };
    let file = BufReader::new(File::open(from).map_err(disk)?);
    let mut zip = zip::ZipArchive::new(file).map_err(|error| archive(&error))?;
    let mut room = Room { bytes: 0, max, entries: 0 };
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| archive(&error))?;
        room.entry()?;
        let name = entry.name().map_err(|error| archive(&error))?.into_owned();
        let Some(at) = place(folder, &name)? else { continue };
        if entry.is_dir() {
            make_folder(&at, &name)?;
        } else if entry.is_symlink() {
            let mut target = String::new();
            let mut bounded = (&mut entry).take(LINK_TARGET_MAX);
            bounded.read_to_string(&mut target).map_err(|error| archive(&error))?;
            link(folder, &at, &name, &target)?;
        } else {
            let mode = entry.unix_mode().unwrap_or(0o644);
            room.copy(&mut entry, &at, mode)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let (archive, folder) = (dir.path().join("archive"), dir.path().join("out"));
        fs::write(&archive, bytes).expect("written");
        fs::create_dir(&folder).expect("made");
        (dir, archive, folder)
    }

    fn entry(name: &str, kind: tar::EntryType, target: Option<&str>, body: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        // Written by hand: the library refuses to make such archives.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(target) = target {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(body.len() as u64);
        header.set_cksum();
        builder.append(&header, body).expect("appended");
        let whole = builder.into_inner().expect("finished");
        // Without the end: more may follow.
        whole[..whole.len() - 1024].to_vec()
    }

    #[test]
    fn a_tar_is_unpacked_without_owners_and_special_bits() {
        let mut bytes = entry("./bin/app", tar::EntryType::Regular, None, b"program");
        bytes.extend(entry("lib", tar::EntryType::Symlink, Some("bin/../bin"), b""));
        let (_dir, archive, folder) = written(&bytes);
        // `bin/..` behind a name is refused even where it would be harmless.
        assert!(matches!(tar(&archive, &folder, 1 << 20), Err(UnpackError::Entry { .. })));
        let mut bytes = entry("./bin/app", tar::EntryType::Regular, None, b"program");
        bytes.extend(entry("bin/same", tar::EntryType::Symlink, Some("../bin/app"), b""));
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&bytes).expect("compressed");
        let (_dir, archive, folder) = written(&gz.finish().expect("compressed"));
        tar(&archive, &folder, 1 << 20).expect("unpacked");
        assert_eq!(fs::read(folder.join("bin/same")).expect("there"), b"program");
        let mode = fs::metadata(folder.join("bin/app")).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o555);
    }

    #[test]
    fn nothing_leaves_the_folder() {
        let link = |target| entry("out", tar::EntryType::Symlink, Some(target), b"");
        let through = {
            let mut bytes = entry("a", tar::EntryType::Symlink, Some("b"), b"");
            bytes.extend(entry("a/x", tar::EntryType::Regular, None, b"1"));
            bytes
        };
        for (what, bytes) in [
            ("absolute", entry("/etc/evil", tar::EntryType::Regular, None, b"1")),
            ("climbing", entry("../evil", tar::EntryType::Regular, None, b"1")),
            ("absolute link", link("/etc/passwd")),
            ("climbing link", link("../../etc/passwd")),
            ("hard link outside", entry("h", tar::EntryType::Link, Some("../archive"), b"")),
            ("through a link", through),
            ("device", entry("dev", tar::EntryType::Block, None, b"")),
            ("fifo", entry("fifo", tar::EntryType::Fifo, None, b"")),
        ] {
            let (dir, archive, folder) = written(&bytes);
            let error = tar(&archive, &folder, 1 << 20).expect_err(what);
            assert!(matches!(error, UnpackError::Entry { .. }), "{what}: {error}");
            assert!(!dir.path().join("evil").exists(), "{what}");
        }
    }

    #[test]
    fn bombs_end() {
        let bytes = entry("zeros", tar::EntryType::Regular, None, &vec![0; 100_000]);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(&bytes).expect("compressed");
        let (_dir, archive, folder) = written(&gz.finish().expect("compressed"));
        assert!(matches!(tar(&archive, &folder, 10_000), Err(UnpackError::TooMuch(_))));
    }

    #[test]
    fn zips_are_unpacked_and_bounded_alike() {
        let make = |name: &str| {
            let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
            let options: zip::write::FileOptions<'_, '_, ()> =
                zip::write::FileOptions::default().unix_permissions(0o755);
            zip.start_file(name, options).expect("begun");
            zip.write_all(b"program").expect("written");
            zip.finish().expect("finished").into_inner()
        };
        let (_dir, archive, folder) = written(&make("bin/app"));
        zip(&archive, &folder, 100).expect("unpacked");
        assert_eq!(fs::read(folder.join("bin/app")).expect("there"), b"program");
        assert!(matches!(zip(&archive, &folder, 3), Err(UnpackError::TooMuch(_))));
        let (dir, archive, folder) = written(&make("../evil"));
        assert!(matches!(zip(&archive, &folder, 100), Err(UnpackError::Entry { .. })));
        assert!(!dir.path().join("evil").exists());
    }

    #[test]
    fn garbage_is_an_error() {
        for bytes in [&b"\x1f\x8bnot gzip"[..], b"PK\x03\x04", b"\xfd7zXZ\0...", b"hello"] {
            let (_dir, archive, folder) = written(bytes);
            assert!(zip(&archive, &folder, 100).is_err());
            // Short texts are an empty tar to the library; nothing comes of them.
            let _outcome = tar(&archive, &folder, 100);
            assert_eq!(fs::read_dir(&folder).expect("there").count(), 0);
        }
    }
}
