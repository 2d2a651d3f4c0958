//! Which mounts a process of its own kind gets: worked out before the fork from what the host has mounted.
//!
//! Only what the kernel tells of itself is read here (`/proc/self/mountinfo`): a path is never looked at, because a
//! disk or a server that does not answer must hold up nobody but the process that asked for it.

use std::fs;

use nix::libc;
use ostler_agent_core::holder::protocol::Isolation;

use super::child::confined::{Bind, Mounts, ReadOnly};
use super::launch::{c_string, say};

/// What of a mount matters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    path: String,
    flags: libc::c_ulong,
}

/// The mounts that are made for one start.
///
/// # Errors
/// In words, when the kernel does not tell what is mounted.
pub(super) fn plan(isolation: &Isolation) -> Result<Mounts, String> {
    if !isolation.has_mounts() {
        return Ok(Mounts::default());
    }
    let text = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| say("read /proc/self/mountinfo", &error))?;
    of(isolation, &parse(&text))
}

fn of(isolation: &Isolation, mounts: &[Mount]) -> Result<Mounts, String> {
    let mut plan = Mounts::default();
    if let Some(own) = &isolation.private_tmp {
        for (source, target) in [(&own.tmp, "/tmp"), (&own.var_tmp, "/var/tmp")] {
            plan.binds.push(Bind {
                source: c_string(source)?,
                target: c_string(target)?,
                flags: flags_at(source, mounts),
            });
        }
    }
    for (asked, path) in (0u16..).zip(&isolation.read_only_paths) {
        let bind = ReadOnly { target: c_string(path)?, flags: flags_at(path, mounts), bind: true, asked };
        plan.read_only.push(bind);
        for mount in mounts.iter().filter(|mount| is_below(&mount.path, path)) {
            let target = c_string(&mount.path)?;
            plan.read_only.push(ReadOnly { target, flags: mount.flags, bind: false, asked });
        }
    }
    Ok(plan)
}

/// The options of the mount that a path is in: the last of those with the longest path.
fn flags_at(path: &str, mounts: &[Mount]) -> libc::c_ulong {
    let holds = |mount: &&Mount| mount.path == path || is_below(path, &mount.path);
    mounts.iter().filter(holds).max_by_key(|mount| mount.path.len()).map_or(0, |mount| mount.flags)
}

fn is_below(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

fn parse(mountinfo: &str) -> Vec<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let (path, options) = (fields.next()?, fields.next()?);
        Some(Mount { path: unescape(path), flags: options.split(',').map(flag).fold(0, |a, b| a | b) })
    });
    mounts.collect()
}

fn flag(option: &str) -> libc::c_ulong {
    match option {
        "ro" => libc::MS_RDONLY,
        "nosuid" => libc::MS_NOSUID,
        "nodev" => libc::MS_NODEV,
        "noexec" => libc::MS_NOEXEC,
        "noatime" => libc::MS_NOATIME,
        "nodiratime" => libc::MS_NODIRATIME,
        "relatime" => libc::MS_RELATIME,
        _ => 0,
    }
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', digits @ ..] => digits
                .get(..3)
                .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()),
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { rest.get(4..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "1 0 8:1 / / rw,relatime - ext4 /dev/a rw\n\
                          2 1 0:5 / /srv rw,nosuid,nodev shared:4 - ext4 /dev/b rw\n\
                          3 2 0:6 / /srv/a\\040b/c rw - tmpfs t rw\n\
                          4 1 0:7 / /srvx rw - tmpfs t rw\n";

    #[test]
    fn everything_mounted_below_is_read_only_too() {
        let isolation =
            Isolation { read_only_paths: vec!["/etc".to_owned(), "/srv".to_owned()], ..Isolation::default() };
        let plan = of(&isolation, &parse(MOUNTS)).unwrap();
        let seen: Vec<_> = plan
            .read_only
            .iter()
            .map(|one| (one.target.to_str().unwrap(), one.bind, one.asked, one.flags))
            .collect();
        let safe = libc::MS_NOSUID | libc::MS_NODEV;
        assert_eq!(
            seen,
            [("/etc", true, 0, libc::MS_RELATIME), ("/srv", true, 1, safe), ("/srv/a b/c", false, 1, 0),]
        );
    }

    #[test]
    fn nothing_is_mounted_for_who_asks_nothing() {
        let plan = plan(&Isolation::default()).unwrap();
        assert!(plan.binds.is_empty() && plan.read_only.is_empty());
    }
}
