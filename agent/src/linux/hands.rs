//! Whose hand changes managed files: fanotify names the process of every change in the folders that are watched.
//!
//! Guarantees: who it was is read when the kernel tells of the change, and held to be that process by its pidfd; what
//! is not known is said with the reason, and never guessed. Nothing waits for this: drift is noticed by inotify
//! ([`super::watch`]) and put back whether or not anybody can be named.
//!
//! Only names that somebody listens to are remembered, of each the last hand.

mod raw;
mod who;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ostler_agent_core::file::Hand;
use ostler_schemas::v1::report::Writer;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use self::raw::FolderId;
use super::watch::ANY;
use crate::context::lock;

/// Room for some hundred events of one read.
const BUFFER: usize = 32 << 10;
/// The thread that waits for events calls nothing deep.
const STACK: usize = 128 << 10;
/// A process that was looked up so short a time ago is not looked up again: a storm is one writer a thousand times.
const KNOWN_FOR: Duration = Duration::from_millis(500);
/// Most names remembered of a folder of which every name is listened to: what is removed there is soon forgotten.
const NAMES_MAX: usize = 4096;

/// Who was at a name last.
#[derive(Debug, Clone)]
enum Touch {
    /// This agent.
    Ours,
    /// Another process.
    Theirs(Arc<Writer>),
    /// A process that the kernel does not name to us.
    Outside,
}

#[derive(Default)]
struct Folder {
    path: PathBuf,
    names: BTreeSet<OsString>,
    last: BTreeMap<OsString, Touch>,
    /// Why nothing is told of it.
    silent: Option<String>,
}

struct Group {
    fd: OwnedFd,
    folders: BTreeMap<PathBuf, (Option<FolderId>, Folder)>,
    /// One folder may be known by several paths.
    by_id: BTreeMap<FolderId, BTreeSet<PathBuf>>,
    known: Option<(Arc<Writer>, Instant)>,
    buffer: Vec<u8>,
}

/// Whose hands are at work, or why that cannot be known here.
#[derive(Clone)]
pub(super) struct Hands(Result<Arc<Mutex<Group>>, String>);

fn open() -> io::Result<OwnedFd> {
    match raw::open(true) {
        // A kernel before 5.15 gives no pidfds, and may give the rest.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => raw::open(false),
        opened => opened,
    }
}

fn why_not(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) => "needs CAP_SYS_ADMIN".to_owned(),
        Some(Errno::INVAL | Errno::NOSYS) => "needs Linux 5.9 with fanotify".to_owned(),
        _ => format!("fanotify: {error}"),
    }
}

impl Hands {
    pub(super) fn start() -> Self {
        Self(Self::try_start().map_err(|error| {
            let why = why_not(&error);
            tracing::info!(why, "who changes a managed file will not be known");
            why
        }))
    }

    fn try_start() -> io::Result<Arc<Mutex<Group>>> {
        let fd = open()?;
        let heard = fd.try_clone()?;
        let group = Group {
            fd,
            folders: BTreeMap::new(),
            by_id: BTreeMap::new(),
            known: None,
            buffer: vec![0; BUFFER],
        };
        let group = Arc::new(Mutex::new(group));
        let pumped = Arc::clone(&group);
        let thread = std::thread::Builder::new().name("hands".to_owned()).stack_size(STACK);
        thread.spawn(move || pump(&heard, &pumped))?;
        Ok(group)
    }

    /// Remembers from now on who changes a name in a folder.
    pub(super) fn listen(&self, folder: &Path, name: &OsString) {
        let Ok(group) = &self.0 else { return };
        lock(group).listen(folder, name);
    }

    /// A folder is another one now, or there again.
    pub(super) fn renew(&self, folder: &Path) {
        let Ok(group) = &self.0 else { return };
        lock(group).mark(folder);
    }

    /// Nobody listens to anything in a folder any more.
    pub(super) fn forget(&self, folder: &Path) {
        let Ok(group) = &self.0 else { return };
        lock(group).forget(folder);
    }

    /// Who changed a path last, as far as is known by now. Asks the host's name service, which may block.
    pub(super) fn last(&self, path: &Path) -> Hand {
        let group = match &self.0 {
            Ok(group) => group,
            Err(why) => return Hand::Unknown(why.clone()),
        };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Hand::Unasked };
        let touch = {
            let mut group = lock(group);
            group.drain();
            let Some((_, folder)) = group.folders.get(folder) else { return Hand::Unasked };
            if let Some(why) = &folder.silent {
                return Hand::Unknown(why.clone());
            }
            folder.last.get(name).cloned()
        };
        match touch {
            Some(Touch::Theirs(writer)) => Hand::Known(with_user(&writer)),
            Some(Touch::Outside) => Hand::Unknown("it is no process of this host's view".to_owned()),
            Some(Touch::Ours) | None => Hand::Unknown("the kernel told of no change".to_owned()),
        }
    }
}

fn with_user(writer: &Writer) -> Writer {
    let named = writer.uid.and_then(|uid| nix::unistd::User::from_uid(uid.into()).ok().flatten());
    Writer { user: named.map(|user| user.name), ..writer.clone() }
}

/// Blocks in the kernel for as long as nothing happens; ends with the process.
fn pump(fd: &OwnedFd, group: &Mutex<Group>) {
    loop {
        let mut polled = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) => lock(group).drain(),
            Err(Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "who changes managed files is not known any more");
                return;
            }
        }
    }
}

impl Group {
    fn listen(&mut self, folder: &Path, name: &OsString) {
        if !self.folders.contains_key(folder) {
            let new = Folder { path: folder.to_owned(), ..Folder::default() };
            self.folders.insert(folder.to_owned(), (None, new));
            self.mark(folder);
        }
        if let Some((_, folder)) = self.folders.get_mut(folder) {
            folder.names.insert(name.clone());
        }
    }

    fn mark(&mut self, path: &Path) {
        let Some((id, folder)) = self.folders.get_mut(path) else { return };
        let marked = raw::mark(self.fd.as_fd(), path, true).and_then(|()| raw::folder_id(path));
        match marked {
            Ok(new) => {
                folder.silent = None;
                if let Some(old) = id.replace(new.clone()).filter(|old| *old != new) {
                    folder.last.clear();
                    self.unname(&old, path);
                }
                self.by_id.entry(new).or_default().insert(path.to_owned());
            }
            Err(error) => {
                folder.silent = Some(format!("{} does not tell: {error}", folder.path.display()));
            }
        }
    }

    /// A path is not that folder any more; says whether no other path is.
    fn unname(&mut self, id: &FolderId, path: &Path) -> bool {
        let Some(paths) = self.by_id.get_mut(id) else { return false };
        paths.remove(path);
        let is_last = paths.is_empty();
        if is_last {
            self.by_id.remove(id);
        }
        is_last
    }

    fn forget(&mut self, path: &Path) {
        let Some((Some(id), _)) = self.folders.remove(path) else { return };
        if self.unname(&id, path)
            && let Err(error) = raw::mark(self.fd.as_fd(), path, false)
        {
            // The folder is gone, and its mark with it.
            tracing::debug!(%error, folder = %path.display(), "a folder cannot be let go");
        }
    }

    /// Takes in all that the kernel has to tell by now.
    fn drain(&mut self) {
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = rustix::io::read(&self.fd, &mut buffer);
            let events = read.map(|length| raw::events(&buffer[..length]));
            self.buffer = buffer;
            if read == Ok(0) {
                return;
            }
            match events {
                Ok(events) => events.into_iter().for_each(|event| self.heard(event)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    tracing::warn!(%error, "who changed a managed file could not be read");
                    return;
                }
            }
        }
    }

    fn heard(&mut self, event: raw::Event) {
        let Some((id, name)) = event.at else {
            // Something was lost: what was known is not the last any more.
            self.folders.values_mut().for_each(|(_, folder)| folder.last.clear());
            return;
        };
        let Some(paths) = self.by_id.get(&id) else { return };
        let is_heard = |folder: &Folder| {
            folder.names.contains(&name) || folder.names.contains(std::ffi::OsStr::new(ANY))
        };
        if !paths.iter().filter_map(|path| self.folders.get(path)).any(|(_, folder)| is_heard(folder)) {
            return;
        }
        let touch = match u32::try_from(event.pid) {
            Ok(pid) if pid == std::process::id() => Touch::Ours,
            Ok(0) | Err(_) => Touch::Outside,
            Ok(pid) => Touch::Theirs(known(&mut self.known, pid, event.pidfd.as_ref())),
        };
        for path in paths {
            let Some((_, folder)) = self.folders.get_mut(path) else { continue };
            if folder.last.len() >= NAMES_MAX && !folder.last.contains_key(&name) {
                folder.last.pop_first();
            }
            folder.last.insert(name.clone(), touch.clone());
        }
    }
}

fn known(last: &mut Option<(Arc<Writer>, Instant)>, pid: u32, pidfd: Option<&OwnedFd>) -> Arc<Writer> {
    let now = Instant::now();
    if let Some((writer, at)) = last
        && writer.pid == pid
        && writer.exe.is_some()
        && now.duration_since(*at) < KNOWN_FOR
    {
        return Arc::clone(writer);
    }
    let writer = Arc::new(who::who(pid, pidfd.map(|fd| fd.as_fd())));
    *last = Some((Arc::clone(&writer), now));
    writer
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The last hand at a path, or none where this host does not tell.
    fn hand(hands: &Hands, path: &Path) -> Option<Writer> {
        match hands.last(path) {
            Hand::Known(writer) => Some(writer),
            Hand::Unknown(why) => {
                assert!(hands.0.is_err() || why.contains("told of no change"), "{why}");
                None
            }
            Hand::Unasked => panic!("it was listened to"),
        }
    }

    #[test]
    fn the_last_hand_is_named_and_ours_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, other) = (dir.path().join("a.conf"), dir.path().join("b.conf"));
        std::fs::write(&path, "one\n").expect("writes");
        let hands = Hands::start();
        hands.listen(dir.path(), &"a.conf".into());
        if hands.0.is_err() {
            let Hand::Unknown(why) = hands.last(&path) else { panic!("nobody can be named here") };
            assert!(why.contains("needs") || why.contains("fanotify"), "{why}");
            return;
        }
        std::fs::write(&path, "two\n").expect("writes");
        assert_eq!(hand(&hands, &path), None, "our own hand is nobody's");
        // A shell that lives on while it is asked about.
        let script = format!("echo x >> {}; echo y >> {}; read line", path.display(), other.display());
        let mut shell = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        let writer = loop {
            if let Some(writer) = hand(&hands, &path) {
                break writer;
            }
            assert!(Instant::now() < deadline, "the shell's hand is not told");
            std::thread::yield_now();
        };
        assert_eq!(writer.pid, shell.id());
        assert_eq!(writer.uid, Some(rustix::process::geteuid().as_raw()));
        let exe = std::fs::canonicalize("/bin/sh").expect("there");
        assert_eq!(writer.exe.as_deref(), exe.to_str());
        drop(shell.stdin.take());
        shell.wait().expect("ends");
        assert_eq!(hand(&hands, &path).map(|w| w.pid), Some(writer.pid), "also when it is gone");
        assert!(matches!(hands.last(&other), Hand::Unknown(_)), "nobody listened to it");
        // Another file renamed over it, and a folder in its place: somebody's hand, too.
        Command::new("mv").arg(&other).arg(&path).status().expect("moves");
        let mover = hand(&hands, &path).expect("told");
        assert_ne!(mover.pid, writer.pid);
        hands.forget(dir.path());
        assert!(matches!(hands.last(&path), Hand::Unasked));
    }
}
