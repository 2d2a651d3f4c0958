//! A terminal for a run: the agent keeps the master, the command gets the slave.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;

use super::failed;
use crate::ports::{HostError, Screen};

#[expect(unsafe_code, reason = "the registration of a descriptor that must stay the same")]
fn registered(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a file is one descriptor from its making to its end, and nobody takes it out of there.
    Ok(unsafe { AsyncFd::register(file) }?)
}

/// The agent's side of a terminal.
#[derive(Debug)]
pub(super) struct Terminal(AsyncFd<File>);

/// The command of a session may open its terminal by name: only its own user can.
const SLAVE_MODE: Mode = Mode::from_raw_mode(0o600);

impl Terminal {
    /// A new terminal, and its side for the command, which belongs to the command's user.
    pub(super) fn open(screen: Screen, owner: Option<(u32, u32)>) -> Result<(Self, OwnedFd), HostError> {
        let open = || -> io::Result<(Self, OwnedFd)> {
            let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            rustix::pty::grantpt(&master)?;
            rustix::pty::unlockpt(&master)?;
            let name = rustix::pty::ptsname(&master, Vec::new())?;
            let slave = rustix::fs::open(
                name.as_c_str(),
                OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            if let Some((uid, gid)) = owner {
                rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                rustix::fs::fchmod(&slave, SLAVE_MODE)?;
            }
            rustix::fs::fcntl_setfl(&master, rustix::fs::fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
            let terminal = Self(registered(File::from(master))?);
            terminal.resize(screen);
            Ok((terminal, slave))
        };
        open().map_err(|error| failed("make a terminal", &error))
    }

    /// Tells the size; the kernel tells who runs on it. A terminal that is gone needs none.
    pub(super) fn resize(&self, screen: Screen) {
        let Screen { rows, columns } = screen;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _gone = rustix::termios::tcsetwinsize(self.0.get_ref(), size);
    }

    /// Nothing more comes after 0: the last process that had it open is gone.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|inner| inner.get_ref().read(buffer)) {
                // EIO is how Linux says that nobody has the other side.
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    return Ok(0);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|inner| inner.get_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}
