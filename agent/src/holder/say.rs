//! The holder's own few words, on standard error, where its service manager keeps them.
//!
//! A reader that does not read must never stop the holder, so a line is dropped when standard error has no room.

use std::io::Write as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes one line.
pub(super) fn say(line: &str) {
    let error = std::io::stderr();
    let has_room = {
        use std::os::fd::AsFd as _;
        let mut fds = [PollFd::new(error.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    };
    if has_room {
        // There is nobody to tell that telling failed.
        drop(error.lock().write_all(format!("holder {line}\n").as_bytes()));
    }
}
