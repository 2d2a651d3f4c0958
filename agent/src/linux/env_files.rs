//! Environment files, read on the host at each start.
//!
//! The agent may read everything, whoever writes manifests may not: a file is used only if the process's own user
//! may read it, by the permissions of the file and of the folders it is in. Otherwise a manifest could show any file
//! of the host to its process. (systemd reads them as root; there only root writes units.)

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use ostler_agent_core::environment::file::{FileVariables, parse};
use ostler_schemas::spec::EnvironmentFile;

use crate::ports::HostUser;

/// No environment is larger: the kernel takes 2 MiB of words and variables with the usual stack.
const FILE_MAX: u64 = 1 << 20;
/// Permission bits.
const READ: u32 = 4;
const SEARCH: u32 = 1;

/// Reads them all, in order, with `root` before each path.
///
/// # Errors
/// In words that name the file.
pub(super) fn read(
    files: &[EnvironmentFile],
    root: &str,
    user: &HostUser,
) -> Result<Vec<(String, String)>, String> {
    let mut variables = Vec::new();
    for file in files {
        let path = format!("{root}{}", file.path);
        let text = match read_one(Path::new(&path), user) {
            Ok(text) => text,
            Err(error) if file.optional && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("environment file {path}: {}", words(&error, user))),
        };
        let FileVariables { variables: found, passed_over } =
            parse(&text).map_err(|error| format!("environment file {path}: {error}"))?;
        if !passed_over.is_empty() {
            tracing::warn!(path, lines = ?passed_over, "lines that are no assignments were passed over");
        }
        variables.extend(found);
    }
    Ok(variables)
}

fn words(error: &io::Error, user: &HostUser) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file (say optional: true if it may be missing)".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("user {} may not read it; give it a group of that user's and mode 0640", user.facts.name)
        }
        _ => error.to_string(),
    }
}

fn read_one(path: &Path, user: &HostUser) -> io::Result<String> {
    // Without waiting, for a pipe in its place would never be opened.
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if !user.is_self {
        let at = fs::read_link(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))?;
        if !may(user, &metadata, READ) || !may_reach(&at, user)? {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    let mut text = String::new();
    if file.by_ref().take(FILE_MAX + 1).read_to_string(&mut text)? as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Whether the user may go through all folders above a path that has no links in it.
fn may_reach(path: &Path, user: &HostUser) -> io::Result<bool> {
    for folder in path.ancestors().skip(1) {
        if !may(user, &fs::metadata(folder)?, SEARCH) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn may(user: &HostUser, of: &fs::Metadata, what: u32) -> bool {
    let mode = of.mode();
    let bits = if user.owner.uid == 0 {
        return true;
    } else if user.owner.uid == of.uid() {
        mode >> 6
    } else if user.owner.gid == of.gid() || user.groups.contains(&of.gid()) {
        mode >> 3
    } else {
        mode
    };
    bits & what != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ostler_agent_core::environment::UserFacts;
    use ostler_agent_core::file::Owner;

    use super::*;

    fn file(path: &str, optional: bool) -> EnvironmentFile {
        EnvironmentFile { path: path.to_owned(), optional }
    }

    fn user(uid: u32, is_self: bool) -> HostUser {
        let facts = UserFacts { name: "app".to_owned(), ..UserFacts::default() };
        HostUser { facts, owner: Owner { uid, gid: uid }, groups: Vec::new(), is_self }
    }

    #[test]
    fn files_are_read_in_order_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        fs::write(dir.path().join("a"), "A=1\nB=1\n").unwrap();
        fs::write(dir.path().join("b"), "B=2").unwrap();
        let all = [file("/a", false), file("/none", true), file("/b", false)];
        let found = read(&all, root, &user(1, true)).unwrap();
        let text: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(text, ["A=1", "B=1", "B=2"]);
        let error = read(&[file("/none", false)], root, &user(1, true)).unwrap_err();
        assert!(error.contains("/none: there is no such file"), "{error}");
        let error = read(&[file("/", false)], root, &user(1, true)).unwrap_err();
        assert!(error.contains("it is not a file"), "{error}");
    }

    #[test]
    fn what_the_user_may_not_read_is_not_shown_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "A=1\n").unwrap();
        let other = user(4_321, false);
        let all = [file("/a", true)];
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(&all, root, &other).unwrap().len(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&all, root, &other).unwrap_err().contains("may not read it"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(read(&all, root, &other).is_err(), "a folder on the way is closed to it");
    }
}
