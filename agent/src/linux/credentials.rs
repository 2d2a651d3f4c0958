//! Folders of credentials: files on memory that only the process's user can read.
//!
//! Guarantees: nothing is written that does not lie on memory (tmpfs or ramfs), which is looked at before each write;
//! the folder of an incarnation is there whole or not at all, and never changes; of one process there is only the folder
//! of its latest start.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ostler_agent_core::secrets::CredentialFolder;
use ostler_schemas::Uid;

use crate::ports::HostUser;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of Linux.
const ON_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Others may pass through to their own folder, and list nothing.
const BASE_MODE: u32 = 0o711;
/// A folder that is still being made begins with this.
const UNFINISHED: &str = ".new-";

/// Where folders of credentials are: below the agent's folder of sockets, which is on memory on every host; else, as in a
/// sandbox on a disk, below the system's shared memory.
///
/// # Errors
/// Why there is no such place, in words for people.
pub fn place(run_dir: &Path, state_dir: &Path) -> Result<PathBuf, String> {
    let near = run_dir.join("credentials");
    if is_on_memory(run_dir).unwrap_or_default() {
        return make_base(&near).map(|()| near.clone()).map_err(|e| format!("{}: {e}", near.display()));
    }
    let state = ostler_schemas::hash::sha256(state_dir.as_os_str().as_encoded_bytes()).short();
    let uid = rustix::process::geteuid().as_raw();
    let far = PathBuf::from(format!("/dev/shm/ostler-{uid}-{state}"));
    if !is_on_memory(Path::new("/dev/shm")).unwrap_or_default() {
        return Err(format!("neither {} nor /dev/shm lies on memory (tmpfs)", run_dir.display()));
    }
    make_base(&far).map_err(|e| format!("{}: {e}", far.display()))?;
    // So that whoever takes a sandbox down finds it. An older link, or none that could be made, does no harm.
    drop(fs::remove_file(&near));
    drop(std::os::unix::fs::symlink(&far, &near));
    Ok(far)
}

fn is_on_memory(path: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(path)?.f_type;
    // The type of the field differs between architectures; the magic numbers fit into 32 bits.
    #[expect(clippy::cast_sign_loss, reason = "magic numbers are patterns of bits")]
    Ok(ON_MEMORY.contains(&(kind as u64 & 0xffff_ffff)))
}

/// The folder itself, its own and no link: in shared memory anybody may have made one of that name.
fn make_base(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(path)?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if !ours {
        return Err(io::Error::other("it is there already and not this agent's own folder"));
    }
    fs::set_permissions(path, Permissions::from_mode(BASE_MODE))
}

/// Makes the folder of one incarnation, unless it is there, and removes those of earlier ones.
pub(super) fn make(wanted: &CredentialFolder, process: Uid, user: &HostUser) -> Result<(), String> {
    let path = Path::new(&wanted.path);
    let failed = |what: &str, error: &io::Error| format!("credentials: cannot {what}: {error}");
    let (Some(base), Some(name)) = (path.parent(), path.file_name()) else {
        return Err("credentials: there is no place for them".to_owned());
    };
    match is_on_memory(base) {
        Ok(true) => {}
        Ok(false) => return Err(format!("credentials: {} does not lie on memory", base.display())),
        Err(error) => return Err(failed("look at their place", &error)),
    }
    if path.exists() {
        return Ok(());
    }
    remove_of(base, &|uid| uid == process);
    let unfinished = base.join(format!("{UNFINISHED}{}", name.to_string_lossy()));
    remove(&unfinished).map_err(|error| failed("remove what a crash left", &error))?;
    let made = fill(&unfinished, wanted, user).and_then(|()| fs::rename(&unfinished, path));
    made.map_err(|error| {
        // What stays behind is removed by the next start.
        drop(remove(&unfinished));
        failed("write them", &error)
    })
}

fn fill(folder: &Path, wanted: &CredentialFolder, user: &HostUser) -> io::Result<()> {
    let own = |path: &Path| {
        if user.is_self {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(user.owner.uid), Some(user.owner.gid))
    };
    DirBuilder::new().mode(0o700).create(folder)?;
    for (name, value) in &wanted.files {
        let path = folder.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
        file.write_all(value.reveal())?;
        own(&path)?;
    }
    own(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o500))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::set_permissions(folder, Permissions::from_mode(0o700)) {
        Ok(()) => fs::remove_dir_all(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The process that a folder belongs to.
fn process_of(folder: &Path) -> Option<Uid> {
    let name = folder.file_name()?.to_str()?;
    let name = name.strip_prefix(UNFINISHED).unwrap_or(name);
    name.split_once('.')?.0.parse().ok()
}

fn remove_of(base: &Path, of: &dyn Fn(Uid) -> bool) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for folder in entries.flatten().map(|entry| entry.path()) {
        if process_of(&folder).is_some_and(of)
            && let Err(error) = remove(&folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "credentials were not removed");
        }
    }
}

/// Removes folders of processes that are gone, or that nobody knows.
pub(super) fn tidy(base: &Path, known: &BTreeSet<Uid>, gone: &BTreeSet<Uid>) {
    remove_of(base, &|uid| gone.contains(&uid) || !known.contains(&uid));
}

#[cfg(test)]
mod tests {
    use ostler_schemas::sealing::Hidden;

    use super::*;

    fn folder(base: &Path, process: Uid, incarnation: u64, value: &str) -> CredentialFolder {
        let path = base.join(format!("{process}.{incarnation}")).to_string_lossy().into_owned();
        CredentialFolder {
            path,
            files: vec![("password".to_owned(), Hidden::new(value.as_bytes().to_vec()))],
        }
    }

    #[test]
    fn a_folder_is_its_users_alone_and_lasts_as_long_as_its_incarnation() {
        let shared = tempfile::tempdir_in("/dev/shm").expect("a folder on memory");
        let base = place(shared.path(), Path::new("/x")).expect("a place");
        assert_eq!(base, shared.path().join("credentials"));
        let (one, other) = (Uid::from_bytes([1; 16]), Uid::from_bytes([2; 16]));
        let user = HostUser { is_self: true, ..HostUser::default() };
        let first = folder(&base, one, 1, "correct-horse");
        make(&first, one, &user).expect("makes");
        let file = Path::new(&first.path).join("password");
        assert_eq!(fs::read(&file).expect("reads"), b"correct-horse");
        let mode = |path: &Path| fs::metadata(path).expect("is there").mode() & 0o777;
        assert_eq!((mode(&file), mode(Path::new(&first.path)), mode(&base)), (0o400, 0o500, 0o711));
        make(&folder(&base, one, 1, "battery"), one, &user).expect("is there already");
        assert_eq!(
            fs::read(&file).expect("reads"),
            b"correct-horse",
            "an incarnation keeps what it began with"
        );
        make(&folder(&base, other, 1, "staple"), other, &user).expect("makes");
        make(&folder(&base, one, 2, "battery"), one, &user).expect("makes");
        assert!(!file.exists(), "of one process there is one folder");
        tidy(&base, &[one, other].into(), &[other].into());
        let left: Vec<_> = fs::read_dir(&base).expect("lists").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [std::ffi::OsString::from(format!("{one}.2"))]);
    }

    #[test]
    fn nothing_is_written_to_a_disk() {
        let Some(disk) =
            ["/var/tmp", "/tmp", "."].into_iter().find(|p| !is_on_memory(Path::new(p)).unwrap_or(true))
        else {
            return;
        };
        let disk = tempfile::tempdir_in(disk).expect("a folder");
        let one = Uid::from_bytes([1; 16]);
        let user = HostUser { is_self: true, ..HostUser::default() };
        let why = make(&folder(disk.path(), one, 1, "x"), one, &user).expect_err("is a disk");
        assert!(why.contains("does not lie on memory"), "{why}");
        assert_eq!(fs::read_dir(disk.path()).expect("lists").count(), 0);
        let elsewhere = place(disk.path(), disk.path()).expect("another place");
        assert!(elsewhere.starts_with("/dev/shm"), "{}", elsewhere.display());
        fs::remove_dir(elsewhere).expect("removes");
    }
}
