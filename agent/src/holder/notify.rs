//! The notification sockets: one per incarnation that is listened to, in the holder's folder, of the process's user.
//!
//! A datagram counts only if its sender, as the kernel names it, is in the incarnation's control group, or, on hosts
//! without one, of its session or descends from its main process. A sender that is gone before it was looked at
//! cannot be told from any other and is not heard; programs that wait for their word to be taken (`systemd-notify`
//! does) are. Descriptors that come along are closed at once, which is what such programs wait for.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use ostler_agent_core::holder::notify::{DATAGRAM_MAX, Listen, Word, words};
use ostler_agent_core::holder::protocol::{ProcKey, RunAs};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

use super::proc_tree::{self, Root};
use super::say::say;

/// Bytes of a socket's path that the kernel takes.
const PATH_MAX: usize = 107;

/// Datagrams taken from one socket in one turn: who says more waits for the others.
const TURN: usize = 32;

/// How many parents are looked at.
const ANCESTORS: usize = 64;

/// A socket that is listened on.
#[derive(Debug)]
pub(super) struct Ear {
    socket: UnixDatagram,
    /// Its file, where it has one.
    path: Option<PathBuf>,
    /// Whether it was said that its words about a main process are not followed.
    told: bool,
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Where an incarnation's socket is: a file, or where the path would be too long a name without one.
fn place(dir: &Path, key: ProcKey) -> Result<PathBuf, String> {
    let path = dir.join("notify").join(format!("{key}.sock"));
    if path.as_os_str().len() <= PATH_MAX { Ok(path) } else { Err(format!("ostler-notify-{key}")) }
}

/// What the environment says of it.
pub(super) fn variables(dir: &Path, key: ProcKey, listen: Listen) -> Vec<(String, String)> {
    let address = match place(dir, key) {
        Ok(path) => path.display().to_string(),
        Err(name) => format!("@{name}"),
    };
    let mut variables = vec![("NOTIFY_SOCKET".to_owned(), address)];
    if listen.watchdog_ms > 0 {
        variables.push(("WATCHDOG_USEC".to_owned(), listen.watchdog_ms.saturating_mul(1_000).to_string()));
    }
    variables
}

impl Ear {
    /// Makes the socket, anew if there is one: who speaks looks it up for each word.
    pub(super) fn open(dir: &Path, key: ProcKey, user: Option<&RunAs>) -> io::Result<Self> {
        let (socket, path) = match place(dir, key) {
            Ok(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                    // Others pass through it to theirs; nobody lists it.
                    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
                }
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
                let socket = UnixDatagram::bind(&path)?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
                if let Some(user) = user {
                    std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))?;
                }
                (socket, Some(path))
            }
            Err(name) => (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?, None),
        };
        socket.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self { socket, path, told: false })
    }

    /// The words that have come from the incarnation.
    pub(super) fn hear(&mut self, root: Root, cgroup: Option<&Path>) -> Vec<Word> {
        let mut all = Vec::new();
        for _ in 0..TURN {
            let Ok((datagram, sender)) = self.receive() else { break };
            if datagram.is_empty() || !sender.is_some_and(|pid| belongs(pid, root, cgroup)) {
                continue;
            }
            all.extend(words(&datagram));
        }
        if all.contains(&Word::MainPid) && !std::mem::replace(&mut self.told, true) {
            let key = root.key;
            say(&format!("{key} says MAINPID=, which is not followed: its main process is pid {}", root.pid));
        }
        all
    }

    /// One datagram and its sender; empty if it was too long.
    fn receive(&self) -> io::Result<(Vec<u8>, Option<i32>)> {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = rustix::net::recvmsg(&self.socket, &mut slices, &mut control, flags)?;
        let mut sender = None;
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmCredentials(who) => sender = Some(who.pid.as_raw_nonzero().get()),
                // Dropped, and so closed.
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.for_each(drop),
                _ => {}
            }
        }
        let whole = !received.flags.contains(ReturnFlags::TRUNC);
        buffer.truncate(if whole { received.bytes } else { 0 });
        Ok((buffer, sender))
    }
}

impl std::os::fd::AsFd for Ear {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a process is of an incarnation.
fn belongs(pid: i32, root: Root, cgroup: Option<&Path>) -> bool {
    if pid == root.pid {
        // Until it was reaped its number is its own, and nothing more of it comes afterwards.
        return true;
    }
    match cgroup.and_then(Path::file_name) {
        Some(name) => {
            let groups = std::fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let mut parts = groups.split(|byte| matches!(byte, b'/' | b'\n'));
            parts.any(|part| part == name.as_bytes())
        }
        None => descends(pid, root),
    }
}

fn descends(mut pid: i32, root: Root) -> bool {
    for _ in 0..ANCESTORS {
        let Some(stat) = proc_tree::stat(pid).filter(|stat| stat.start_time >= root.start_time) else {
            return false;
        };
        if [stat.pid, stat.parent, stat.session, stat.group].contains(&root.pid) {
            return true;
        }
        pid = stat.parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use ostler_schemas::Uid;

    use super::*;

    fn own() -> Root {
        let pid = i32::try_from(std::process::id()).unwrap();
        let key = ProcKey { uid: Uid::from_bytes([3; 16]), incarnation: 4 };
        Root { key, run: None, pid, start_time: proc_tree::stat(pid).unwrap().start_time }
    }

    #[test]
    fn what_the_process_says_is_heard_and_what_others_say_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = own();
        let mut ear = Ear::open(dir.path(), root.key, None).unwrap();
        let variables = variables(dir.path(), root.key, Listen { ready: true, watchdog_ms: 1_500 });
        assert_eq!(variables[1], ("WATCHDOG_USEC".to_owned(), "1500000".to_owned()));
        let mouth = UnixDatagram::unbound().unwrap();
        mouth.send_to(b"READY=1\nSTATUS=well", &variables[0].1).unwrap();
        mouth.send_to(&[b'x'; DATAGRAM_MAX + 1], &variables[0].1).unwrap();
        mouth.send_to(b"WATCHDOG=1", &variables[0].1).unwrap();
        let heard = ear.hear(root, None);
        assert_eq!(heard, [Word::Ready, Word::Status("well".to_owned()), Word::Alive]);
        mouth.send_to(b"READY=1", &variables[0].1).unwrap();
        // A tree that began after this process cannot have it for a member.
        let other = Root { pid: 1, start_time: u64::MAX, ..root };
        assert_eq!(ear.hear(other, None), []);
        mouth.send_to(b"READY=1", &variables[0].1).unwrap();
        assert_eq!(ear.hear(other, Some(Path::new("/sys/fs/cgroup/ostler/not-ours.1"))), []);
        drop(ear);
        assert!(!Path::new(&variables[0].1).exists());
    }

    #[test]
    fn a_long_folder_gets_a_name_without_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        let root = own();
        let mut ear = Ear::open(&long, root.key, None).unwrap();
        let (_, address) = variables(&long, root.key, Listen::default()).remove(0);
        let name = address.strip_prefix('@').unwrap();
        let mouth = UnixDatagram::unbound().unwrap();
        mouth.send_to_addr(b"READY=1", &SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        assert_eq!(ear.hear(root, None), [Word::Ready]);
    }
}
