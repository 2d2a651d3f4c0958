//! Folders that processes are given: `stateDirectory` and its like, and their own `/tmp`.
//!
//! Guarantees:
//! * No link is followed below `/var/lib` and its like: a process that owns a folder there cannot make the agent give
//!   away or remove anything outside of it.
//! * A folder that was there never changes its owner, and nothing is made below one of somebody else's: another user's
//!   data, or a part of the system, is not taken over by naming it.
//! * Runtime folders and own `/tmp`s go once their process will not be started again, however the agent ended in
//!   between: which there are is written down before they are made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ostler_agent_core::confine::{Folder, FolderKind, Preparation};
use ostler_agent_core::holder::protocol::PrivateTmp;
use ostler_schemas::Uid;
use rustix::fs::{CWD, Mode, OFlags};

use super::{credentials, env_files};
use crate::context::lock;
use crate::ports::{HostUser, Prepared};

/// The folder below the agent's state that has one folder for each process.
const OWN: &str = "own";
/// The list of runtime folders in it.
const RUNTIME_LIST: &str = "runtime";
/// Where folders wait for their removal.
const ASIDE: &str = "aside";
/// What Ostler's own folders begin with, everywhere.
const RESERVED: &str = "ostler";

/// Permission bits of a folder that is being made: what nothing else has, so that a crash in between is seen.
const UNFINISHED: u32 = 0o1700;

/// Where folders of processes are.
#[derive(Debug, Clone)]
pub struct OwnFolders {
    root: String,
    own: PathBuf,
    boot: String,
    /// Who was prepared in this life of the agent and is not gone: nobody who asks for order may have heard of them.
    active: Arc<Mutex<BTreeSet<Uid>>>,
    /// Where folders of credentials are.
    credentials: Option<PathBuf>,
}

impl OwnFolders {
    /// Below `root` (empty on a host), with what must be remembered in the agent's `state_dir`. What was made in
    /// another boot than `boot` is of no use any more.
    #[must_use]
    pub fn new(root: &str, state_dir: &Path, boot: &str) -> Self {
        Self {
            root: root.to_owned(),
            own: state_dir.join(OWN),
            boot: boot.to_owned(),
            active: Arc::default(),
            credentials: None,
        }
    }

    /// With a place for credentials.
    #[must_use]
    pub fn with_credentials(self, base: Option<PathBuf>) -> Self {
        Self { credentials: base, ..self }
    }

    /// Whether processes can be given credentials.
    pub(super) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// Makes everything ready for a start.
    pub(super) fn prepare(&self, wanted: &Preparation, user: &HostUser) -> Result<Prepared, String> {
        let variables = env_files::read(&wanted.environment_files, &self.root, user)?;
        // Before anything is locked: a disk that hangs holds up nobody else.
        let resolve = |path: &String| match fs::canonicalize(path) {
            Ok(real) => Ok(real.to_string_lossy().into_owned()),
            Err(error) => Err(format!("read-only path {path}: {error}")),
        };
        let read_only_paths = wanted.read_only_paths.iter().map(resolve).collect::<Result<_, _>>()?;
        let mut active = lock(&self.active);
        active.insert(wanted.uid);
        self.remember(wanted, user)?;
        for folder in &wanted.folders {
            self.make(folder, user)?;
        }
        if let Some(credentials) = &wanted.credentials {
            credentials::make(credentials, wanted.uid, user)?;
        }
        let private_tmp = if wanted.private_tmp { Some(self.make_tmp(wanted.uid)?) } else { None };
        Ok(Prepared { groups: Vec::new(), variables, private_tmp, read_only_paths })
    }

    /// The folder that holds a process's own `/tmp`, if it has one.
    pub(super) fn folder_of(&self, uid: Uid) -> PathBuf {
        self.own.join(&self.boot).join(uid.to_string())
    }

    /// Writes down the runtime folders, so that they can be removed by whoever comes after.
    /// Whose they are stands beside each: one that turns out to be somebody else's is never removed.
    fn remember(&self, wanted: &Preparation, user: &HostUser) -> Result<(), String> {
        let runtime = wanted.folders.iter().filter(|folder| folder.kind == FolderKind::Runtime);
        let list: BTreeSet<&str> = runtime.map(|folder| folder.name.as_str()).collect();
        if list.is_empty() && !wanted.private_tmp {
            return Ok(());
        }
        let dir = self.folder_of(wanted.uid);
        let failed = |error: io::Error| format!("make {}: {error}", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        let known = runtime_list(&dir);
        let mut file =
            OpenOptions::new().append(true).create(true).open(dir.join(RUNTIME_LIST)).map_err(failed)?;
        let uid = user.owner.uid;
        for name in list.into_iter().filter(|name| known.get(*name) != Some(&uid)) {
            writeln!(file, "{uid} {name}").map_err(failed)?;
        }
        Ok(())
    }

    fn make_tmp(&self, uid: Uid) -> Result<PrivateTmp, String> {
        let make = |name: &str| -> Result<String, String> {
            let path = self.folder_of(uid).join(name);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            // Everybody may write there, as in /tmp; the folder above lets nobody in but through the mount.
            made.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o1777)))
                .map_err(|error| format!("make {}: {error}", path.display()))?;
            Ok(path.to_string_lossy().into_owned())
        };
        Ok(PrivateTmp { tmp: make("tmp")?, var_tmp: make("var-tmp")? })
    }

    fn make(&self, folder: &Folder, user: &HostUser) -> Result<(), String> {
        let base = format!("{}{}", self.root, folder.kind.base());
        let say = |why: String| format!("{base}/{}: {why}", folder.name);
        let parts = parts(&folder.name).map_err(say)?;
        if !self.root.is_empty() {
            DirBuilder::new().recursive(true).mode(0o755).create(&base).map_err(|e| say(e.to_string()))?;
        }
        let open = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at =
            rustix::fs::openat(CWD, base.as_str(), open, Mode::empty()).map_err(|e| say(e.to_string()))?;
        // Each of them is the user's, those on the way too: below a part of the system nobody gets a folder.
        for part in &parts {
            match rustix::fs::mkdirat(&at, *part, Mode::from_raw_mode(UNFINISHED)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(say(error.to_string())),
            }
            at = rustix::fs::openat(&at, *part, open | OFlags::NOFOLLOW, Mode::empty())
                .map_err(|_| say(format!("{part} is not a folder (links are not followed)")))?;
            hand_over(&at, user).map_err(say)?;
        }
        Ok(())
    }

    /// Removes what belongs to processes that are gone, or that neither are known nor were prepared meanwhile.
    pub(super) fn tidy(&self, known: &BTreeSet<Uid>, gone: &BTreeSet<Uid>) {
        if let Some(base) = &self.credentials {
            let active = lock(&self.active);
            credentials::tidy(base, &known.union(&active).copied().collect(), gone);
        }
        for path in self.set_aside(known, gone) {
            // What cannot be removed now is tried again the next time.
            drop(fs::remove_dir_all(path));
        }
    }

    /// Removes runtime folders, and moves the rest to where nobody looks for it: a large `/tmp` takes its time, and
    /// starts are not to wait for that.
    fn set_aside(&self, known: &BTreeSet<Uid>, gone: &BTreeSet<Uid>) -> Vec<PathBuf> {
        let mut active = lock(&self.active);
        active.retain(|uid| !gone.contains(uid));
        let is_known = |uid: Uid| !gone.contains(&uid) && (known.contains(&uid) || active.contains(&uid));
        let aside = self.own.join(ASIDE);
        let mut kept: BTreeSet<String> = BTreeSet::new();
        let mut others: BTreeMap<PathBuf, BTreeMap<String, u32>> = BTreeMap::new();
        let mut boots = Vec::new();
        for boot in entries(&self.own) {
            let present = boot.file_name().is_some_and(|name| name == self.boot.as_str());
            for dir in entries(&boot) {
                let uid = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                let names = runtime_list(&dir);
                if present && uid.is_some_and(is_known) {
                    kept.extend(names.into_keys());
                } else {
                    others.insert(dir, names);
                }
            }
            if !present {
                boots.push(boot);
            }
        }
        let mut to_remove = Vec::new();
        for (dir, names) in others {
            let is_kept =
                |name: &str| kept.iter().any(|other| other == name || other.starts_with(&format!("{name}/")));
            for (name, uid) in names.iter().filter(|(name, _)| !is_kept(name)) {
                self.remove_runtime(name, *uid);
            }
            let uid = dir.file_name().unwrap_or_default();
            let moved = fs::create_dir_all(&aside).and_then(|()| fs::rename(&dir, aside.join(uid)));
            to_remove.push(if moved.is_ok() { aside.join(uid) } else { dir });
        }
        // Empty, or used up once what is in them is removed.
        to_remove.extend(boots);
        to_remove.push(aside);
        to_remove
    }

    /// Removes a runtime folder of a user, reached without links. One that is gone needs nothing.
    fn remove_runtime(&self, name: &str, uid: u32) {
        let base = format!("{}{}", self.root, FolderKind::Runtime.base());
        let Ok(parts) = parts(name) else { return };
        let Some((last, above)) = parts.split_last() else { return };
        let open = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(mut at) = rustix::fs::openat(CWD, base.as_str(), open, Mode::empty()) else { return };
        for part in above {
            match rustix::fs::openat(&at, *part, open | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(next) => at = next,
                Err(_) => return,
            }
        }
        let leaf = rustix::fs::openat(&at, *last, open | OFlags::NOFOLLOW, Mode::empty());
        if !leaf.is_ok_and(|leaf| rustix::fs::fstat(&leaf).is_ok_and(|stat| stat.st_uid == uid)) {
            // Gone, or somebody else's.
            return;
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", at.as_raw_fd())).join(last);
        if let Err(error) = fs::remove_dir_all(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(name, %error, "a runtime folder was not removed");
        }
    }
}

/// The folder is the user's: one that was made for this, else only if it is already. An empty one is no exception: the
/// system has such, too.
fn hand_over(folder: &OwnedFd, user: &HostUser) -> Result<(), String> {
    let folder = File::from(folder.try_clone().map_err(|error| error.to_string())?);
    let metadata = folder.metadata().map_err(|error| error.to_string())?;
    // Also one that a crash left unfinished.
    let made =
        metadata.mode() & 0o7777 == UNFINISHED && metadata.uid() == rustix::process::geteuid().as_raw();
    if !made && metadata.uid() != user.owner.uid {
        return Err(format!(
            "it, or a folder on the way, belongs to user {}: give it to user {} first if that is meant",
            metadata.uid(),
            user.facts.name
        ));
    }
    if made {
        std::os::unix::fs::fchown(&folder, Some(user.owner.uid), Some(user.owner.gid))
            .map_err(|error| format!("give it to user {}: {error}", user.facts.name))?;
    }
    if made {
        // The agent's own mask must not matter.
        folder.set_permissions(Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The parts of a relative name. Manifests with others are refused; nobody is to depend on that.
fn parts(name: &str) -> Result<Vec<&str>, String> {
    let parts: Vec<&str> = name.split('/').collect();
    if parts.iter().any(|part| part.is_empty() || *part == "." || *part == ".." || part.contains('\0')) {
        return Err("it is not a relative name".to_owned());
    }
    match parts.first() {
        Some(first) if *first == RESERVED => Err("it is Ostler's own".to_owned()),
        Some(_) | None => Ok(parts),
    }
}

/// Runtime folders, and whose they are.
fn runtime_list(dir: &Path) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(dir.join(RUNTIME_LIST)).unwrap_or_default();
    let line = |line: &str| {
        let (uid, name) = line.split_once(' ')?;
        Some((name.to_owned(), uid.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests;
