//! Who a process is, read at the moment at which the kernel names it.

use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use ostler_schemas::v1::report::Writer;

/// A process that started before this is no other one that got its number since an event of a moment ago.
const OLD_ENOUGH_TICKS: u64 = 100;

/// What `/proc` says of a process. With its pidfd that is certainly the one that is meant, or nothing but its pid is
/// told; without one (Linux before 5.15) only a process that began a second ago or earlier is believed.
pub(super) fn who(pid: u32, pidfd: Option<BorrowedFd<'_>>) -> Writer {
    let bare = Writer { pid, ..Writer::default() };
    let folder = format!("/proc/{pid}");
    let Ok(status) = fs::read_to_string(format!("{folder}/status")) else { return bare };
    let exe = fs::read_link(format!("{folder}/exe")).ok();
    let cgroup = fs::read_to_string(format!("{folder}/cgroup")).ok();
    let is_meant = match pidfd {
        Some(pidfd) => !is_reaped(pidfd),
        None => is_old(&folder),
    };
    if !is_meant {
        return bare;
    }
    let exe = exe.map(|exe| exe.to_string_lossy().into_owned());
    Writer {
        uid: field(&status, "Uid:").and_then(effective),
        name: field(&status, "Name:").map(str::to_owned),
        // A program that was replaced while it ran.
        exe: exe.map(|exe| exe.strip_suffix(" (deleted)").map_or(exe.clone(), str::to_owned)),
        unit: cgroup.as_deref().and_then(unit),
        ..bare
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Real, effective, saved, file system: the second is what it acts as.
fn effective(uids: &str) -> Option<u32> {
    uids.split_whitespace().nth(1)?.parse().ok()
}

/// Once a process is reaped its number may be another's.
fn is_reaped(pidfd: BorrowedFd<'_>) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    info.is_ok_and(|info| field(&info, "Pid:").is_none_or(|pid| pid == "-1"))
}

fn is_old(folder: &str) -> bool {
    let started = fs::read_to_string(format!("{folder}/stat")).ok();
    let started = started.as_deref().and_then(|stat| stat.rsplit_once(") "));
    let started = started.and_then(|(_, rest)| rest.split(' ').nth(19)?.parse::<u64>().ok());
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let uptime = uptime.as_deref().and_then(|text| text.split(['.', ' ']).next()?.parse::<u64>().ok());
    // The kernel counts starts in hundredths of a second.
    started.zip(uptime).is_some_and(|(started, uptime)| started + OLD_ENOUGH_TICKS <= uptime * 100)
}

/// The innermost unit of a control group, else the group itself.
fn unit(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::")).map(str::trim)?;
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    let found = path.rsplit('/').find(is_unit).unwrap_or(path);
    (found != "/" && !found.is_empty()).then(|| found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_counts() {
        let unit = |text: &str| unit(text);
        let session = "0::/user.slice/user-1001.slice/session-812.scope\n";
        assert_eq!(unit(session).as_deref(), Some("session-812.scope"));
        assert_eq!(unit("0::/system.slice/ssh.service/child\n").as_deref(), Some("ssh.service"));
        assert_eq!(unit("12:cpu:/x\n0::/lxc/box\n").as_deref(), Some("/lxc/box"));
        assert_eq!(unit("0::/\n"), None);
    }

    #[test]
    fn this_process_is_known_and_one_that_is_gone_is_not() {
        let me = std::process::id();
        let own =
            rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
        let own = own.expect("opens");
        let who_am_i = who(me, Some(std::os::fd::AsFd::as_fd(&own)));
        assert_eq!(who_am_i.uid, Some(rustix::process::geteuid().as_raw()));
        assert!(who_am_i.exe.is_some() && who_am_i.name.is_some());
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("opens");
        child.wait().expect("ends");
        // Whoever has the number by now is somebody else.
        let gone = who(me, Some(std::os::fd::AsFd::as_fd(&pidfd)));
        assert_eq!(gone, Writer { pid: me, ..Writer::default() });
    }
}
