//! Users and groups of the host.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use ostler_agent_core::environment::UserFacts;
use ostler_agent_core::file::Owner;

use crate::ports::HostUser;

/// Looks up a user, by name or number, and a group. Without a user: `default`, else whoever the agent runs as. Asks
/// the host's name service, which may block.
pub(super) fn look_up(
    user: Option<&str>,
    group: Option<&str>,
    default: Option<&str>,
) -> Result<HostUser, String> {
    let own = Uid::effective();
    let found = match user.or(default) {
        Some(text) => find_user(text)?,
        None => by_uid(own)?,
    };
    let gid = match group {
        Some(text) => find_group(text)?,
        None => found.gid,
    };
    let is_self = found.uid == own && gid == Gid::effective();
    if !own.is_root() && found.uid != own {
        return Err(format!("{} is another user, and the agent runs without root", found.name));
    }
    let groups = supplementary(&found, gid);
    Ok(HostUser {
        facts: UserFacts {
            name: found.name,
            home: found.dir.to_string_lossy().into_owned(),
            shell: found.shell.to_string_lossy().into_owned(),
        },
        owner: Owner { uid: found.uid.as_raw(), gid: gid.as_raw() },
        groups,
        is_self,
    })
}

fn supplementary(user: &User, gid: Gid) -> Vec<u32> {
    let groups =
        std::ffi::CString::new(user.name.as_str()).ok().and_then(|name| getgrouplist(&name, gid).ok());
    groups.unwrap_or_default().into_iter().map(Gid::as_raw).collect()
}

/// Numbers of groups by name or number. Only root can put a process into groups that the agent is not in.
pub(super) fn groups(names: &[String]) -> Result<Vec<u32>, String> {
    let found = names.iter().map(|name| find_group(name).map(Gid::as_raw));
    let found = found.collect::<Result<Vec<u32>, String>>()?;
    if !found.is_empty() && !Uid::effective().is_root() {
        return Err("supplementary groups need an agent that runs as root".to_owned());
    }
    Ok(found)
}

/// The names of a user and a group, where they have some; else their numbers.
pub(super) fn names(uid: u32, gid: u32) -> (String, String) {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
    (user.unwrap_or_else(|| uid.to_string()), group.unwrap_or_else(|| gid.to_string()))
}

fn find_user(text: &str) -> Result<User, String> {
    if let Ok(number) = text.parse::<u32>() {
        return by_uid(Uid::from_raw(number));
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(format!("user {text} is not known on this host")),
        Err(error) => Err(format!("user {text} could not be looked up: {error}")),
    }
}

/// A number without a name is a user too.
fn by_uid(uid: Uid) -> Result<User, String> {
    match User::from_uid(uid) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Ok(User {
            name: uid.to_string(),
            passwd: std::ffi::CString::default(),
            uid,
            gid: if uid == Uid::effective() { Gid::effective() } else { Gid::from_raw(uid.as_raw()) },
            gecos: std::ffi::CString::default(),
            dir: "/".into(),
            shell: "/bin/sh".into(),
        }),
        Err(error) => Err(format!("user {uid} could not be looked up: {error}")),
    }
}

fn find_group(text: &str) -> Result<Gid, String> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("group {text} is not known on this host")),
        Err(error) => Err(format!("group {text} could not be looked up: {error}")),
    }
}
