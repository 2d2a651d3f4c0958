//! What the loop does with notification sockets: opens them before a program runs, hears them, closes them.

use std::borrow::Cow;

use ostler_agent_core::holder::Input;
use ostler_agent_core::holder::notify::Listen;
use ostler_agent_core::holder::protocol::{ProcKey, RunAs, Spawn};

use super::super::notify::{Ear, variables};
use super::super::poll::Source;
use super::super::say::say;
use super::{Shell, unix_ms};

impl Shell {
    /// The start with the address of its socket in its environment.
    pub(super) fn with_address<'a>(&self, spawn: &'a Spawn) -> Cow<'a, Spawn> {
        let Some(listen) = spawn.listen else { return Cow::Borrowed(spawn) };
        let mut spawn = spawn.clone();
        let given = variables(&self.ground.dir, spawn.key, listen);
        spawn.env.retain(|(name, _)| given.iter().all(|(other, _)| name != other));
        spawn.env.extend(given);
        Cow::Owned(spawn)
    }

    pub(super) fn open_ear(
        &mut self,
        key: ProcKey,
        (listen, user): (Option<Listen>, Option<&RunAs>),
    ) -> Result<(), String> {
        if listen.is_some() {
            let ear = Ear::open(&self.ground.dir, key, user)
                .map_err(|error| format!("make its notification socket: {error}"))?;
            self.work.ears.insert(key, ear);
        }
        Ok(())
    }

    /// From now on what comes is heard.
    pub(super) fn listen(&mut self, key: ProcKey) -> Result<(), String> {
        let (Some(ear), Some(live)) = (self.work.ears.get(&key), self.work.live.get(&key)) else {
            return Ok(());
        };
        let added = self.poll.add(ear, Source::Ear(live.slot));
        added.map_err(|error| {
            self.forget(key);
            format!("watch its notification socket: {error}")
        })
    }

    /// For an incarnation of a former holder: its socket was that holder's. What was said in between is lost.
    pub(super) fn listen_again(&mut self, key: ProcKey, listen: Option<Listen>) {
        // Its file is of the user that it had before: who it runs as is seen from the main process.
        let user = self.work.live.get(&key).and_then(|live| owner_of(live.root.pid));
        let opened = self.open_ear(key, (listen, user.as_ref())).and_then(|()| self.listen(key));
        if let Err(why) = opened {
            say(&format!("{key} is not listened to any more: {why}"));
        }
    }

    pub(super) fn hear(&mut self, slot: u64) {
        let Some(key) = self.work.slots.get(&slot).copied() else { return };
        let (Some(ear), Some(live)) = (self.work.ears.get_mut(&key), self.work.live.get(&key)) else {
            return;
        };
        let words = ear.hear(live.root, live.cgroup.as_deref());
        if !words.is_empty() {
            self.drive(Input::Said { key, at: unix_ms(), words });
        }
    }

    pub(super) fn close_ear(&mut self, key: ProcKey) {
        if let Some(ear) = self.work.ears.remove(&key) {
            // A child between fork and exec has a copy, which would keep it in the set.
            drop(self.poll.remove(&ear));
        }
    }
}

/// Whom a process runs as. Not by the owner of its folder in `/proc`: that is root where nobody may look into it, as
/// into a program that got capabilities or may not be read.
fn owner_of(pid: i32) -> Option<RunAs> {
    identity(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The effective user and group.
fn identity(status: &str) -> Option<RunAs> {
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some(RunAs { uid: number("Uid:")?, gid: number("Gid:")?, groups: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_the_effective_one() {
        let status = "Name:\tUid:\nState:\tS (sleeping)\nUid:\t1000\t1001\t1002\t1003\nGid:\t7\t8\t9\t10\n";
        let found = identity(status).unwrap();
        assert_eq!((found.uid, found.gid), (1001, 8));
        assert_eq!(identity("Uid:\t1"), None);
    }
}
