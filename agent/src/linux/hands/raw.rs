//! The system calls of fanotify, and its events as the kernel writes them. Every `unsafe` of this folder is here.

#![expect(unsafe_code, reason = "raw system calls that no crate in use wraps for events with names")]

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use nix::libc;

/// What is listened to in a folder: changes of what is in its files, of the files' attributes, and of its names.
const MASK: u64 = libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_EVENT_ON_CHILD
    | libc::FAN_ONDIR;
/// Largest handle that the kernel gives (`MAX_HANDLE_SZ`).
const HANDLE_MAX: usize = 128;
/// Size of `struct fanotify_event_metadata`.
const METADATA: usize = 24;
/// Size of `struct fanotify_event_info_header`.
const HEADER: usize = 4;

/// A folder, as events name it: its file system, and the handle in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FolderId {
    file_system: u64,
    kind: i32,
    handle: Vec<u8>,
}

/// One event.
#[derive(Debug)]
pub(super) struct Event {
    /// The folder and the name in it; none if events were lost.
    pub(super) at: Option<(FolderId, OsString)>,
    /// Whose doing it was; 0 outside of this process's view.
    pub(super) pid: i32,
    /// Holds on to that process, where the kernel gives that.
    pub(super) pidfd: Option<OwnedFd>,
}

/// Opens a group. `with_pidfd` needs Linux 5.15.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` and `ENOSYS` on kernels that do not know it.
pub(super) fn open(with_pidfd: bool) -> io::Result<OwnedFd> {
    // Without a limit of marks, because whoever may ask for that is told pids, and nobody else is.
    let mut flags = libc::FAN_CLASS_NOTIF
        | libc::FAN_CLOEXEC
        | libc::FAN_NONBLOCK
        | libc::FAN_UNLIMITED_MARKS
        | libc::FAN_REPORT_DFID_NAME;
    if with_pidfd {
        flags |= libc::FAN_REPORT_PIDFD;
    }
    // SAFETY: two numbers go in, a descriptor or an error comes out.
    let fd = unsafe { libc::fanotify_init(flags, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Listens to a folder.
///
/// # Errors
/// Where its file system cannot name what is in it.
pub(super) fn mark(group: BorrowedFd<'_>, folder: &Path, add: bool) -> io::Result<()> {
    let path = text(folder)?;
    let act = if add { libc::FAN_MARK_ADD } else { libc::FAN_MARK_REMOVE };
    // SAFETY: the group is open and the path ends with a zero.
    let done = unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            act | libc::FAN_MARK_ONLYDIR,
            MASK,
            libc::AT_FDCWD,
            path.as_ptr(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; HANDLE_MAX],
}

/// What events will call a folder.
///
/// # Errors
/// Where its file system has no handles.
pub(super) fn folder_id(folder: &Path) -> io::Result<FolderId> {
    let path = text(folder)?;
    let mut handle = Handle { bytes: HANDLE_MAX as u32, kind: 0, data: [0; HANDLE_MAX] };
    let mut mount: libc::c_int = 0;
    // SAFETY: `Handle` begins as `struct file_handle` does and has the room behind it that it says it has.
    let done = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            path.as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let file_system = nix::sys::statfs::statfs(folder)?.filesystem_id();
    // SAFETY: `fsid_t` is two numbers of 32 bits, whose fields the crate does not show.
    let file_system = unsafe { std::mem::transmute::<libc::fsid_t, u64>(file_system) };
    let used = (handle.bytes as usize).min(HANDLE_MAX);
    Ok(FolderId { file_system, kind: handle.kind, handle: handle.data[..used].to_vec() })
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The events of one read, in order. Their pidfds are taken over: to be called once for each read.
pub(super) fn events(mut bytes: &[u8]) -> Vec<Event> {
    let mut out = Vec::new();
    while let Some(length) = number(bytes, 0).map(u32::from_ne_bytes) {
        let length = length as usize;
        if length < METADATA || length > bytes.len() {
            break;
        }
        let (event, rest) = bytes.split_at(length);
        out.extend(one(event));
        bytes = rest;
    }
    out
}

fn one(event: &[u8]) -> Option<Event> {
    let version = *event.get(4)?;
    let mut at_info = u16::from_ne_bytes(number(event, 6)?) as usize;
    let mask = u64::from_ne_bytes(number(event, 8)?);
    let pid = i32::from_ne_bytes(number(event, 20)?);
    let mut out = Event { at: None, pid, pidfd: None };
    let mut lost = mask & libc::FAN_Q_OVERFLOW != 0 || version != libc::FANOTIFY_METADATA_VERSION;
    while !lost && at_info + HEADER <= event.len() {
        let length = u16::from_ne_bytes(number(event, at_info + 2)?) as usize;
        if length < HEADER {
            lost = true;
            break;
        }
        let info = event.get(at_info..(at_info + length).min(event.len()))?;
        match info[0] {
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME => out.at = named(info),
            libc::FAN_EVENT_INFO_TYPE_PIDFD => out.pidfd = pidfd(info),
            _ => {}
        }
        at_info += length;
    }
    // What has no name is of the folder itself and says nothing of a file in it.
    (lost || out.at.is_some()).then_some(out)
}

fn named(info: &[u8]) -> Option<(FolderId, OsString)> {
    let file_system = u64::from_ne_bytes(number(info, HEADER)?);
    let bytes = u32::from_ne_bytes(number(info, HEADER + 8)?) as usize;
    let kind = i32::from_ne_bytes(number(info, HEADER + 12)?);
    let handle = info.get(HEADER + 16..HEADER + 16 + bytes)?.to_vec();
    let name = info.get(HEADER + 16 + bytes..)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = OsString::from_vec(name[..end].to_vec());
    (name.as_os_str() != OsStr::new(".")).then_some((FolderId { file_system, kind, handle }, name))
}

fn pidfd(info: &[u8]) -> Option<OwnedFd> {
    let fd: RawFd = i32::from_ne_bytes(number(info, HEADER)?);
    // Negative: the process was gone already, or there was no room for a descriptor.
    // SAFETY: the kernel opened this descriptor for this event, which is read once.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}
