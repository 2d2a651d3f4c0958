//! What this host can do for processes, by the names that templates ask for, and the words for what it cannot.

use std::path::Path;

use ostler_agent_core::holder::protocol::Welcome;
use ostler_schemas::spec::features::{
    ALL, CAPABILITIES, CGROUP_CPU, CGROUP_CPUSET, CGROUP_IO, CGROUP_MEMORY, CGROUP_PIDS, JOURNAL, MOUNTS,
    RUNTIME, SECRETS, USERS, VALIDATORS,
};

/// Where journald listens for the output of services.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// The features of a host with this holder, and with or without a place on memory for credentials.
pub(super) fn of(welcome: &Welcome, has_credentials: bool) -> Vec<String> {
    let controller = |name: &str| welcome.controllers.iter().any(|has| has == name);
    let told = |name: &str| welcome.features.iter().any(|has| has == name);
    let has = |name: &str| match name {
        // A holder that says nothing of what it can do does not know the fields either.
        RUNTIME => !welcome.features.is_empty() || welcome.version == env!("CARGO_PKG_VERSION"),
        CGROUP_CPU => controller("cpu"),
        CGROUP_MEMORY => controller("memory"),
        CGROUP_PIDS => controller("pids"),
        CGROUP_IO => controller("io"),
        CGROUP_CPUSET => controller("cpuset"),
        USERS => welcome.other_users,
        MOUNTS | CAPABILITIES => told(name),
        SECRETS => has_credentials,
        VALIDATORS => true,
        JOURNAL => Path::new(JOURNAL_SOCKET).exists(),
        _ => false,
    };
    ALL.into_iter().filter(|name| has(name)).map(str::to_owned).collect()
}

/// What is missing, in words that end the sentence "this host cannot …". A host without a journal or without root is
/// not a lesser one: work that asks for these is told so when it is placed.
pub(super) fn missing(features: &[String]) -> Vec<String> {
    let lacks = |name: &str| !features.iter().any(|has| has == name);
    let limits = [
        (CGROUP_CPU, "cpu"),
        (CGROUP_MEMORY, "memory"),
        (CGROUP_PIDS, "pids"),
        (CGROUP_IO, "io"),
        (CGROUP_CPUSET, "cpuset"),
    ];
    limits.into_iter().filter(|(name, _)| lacks(name)).map(|(_, word)| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(controllers: &[&str], features: &[&str]) -> Welcome {
        let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        Welcome {
            controllers: owned(controllers),
            features: owned(features),
            other_users: true,
            ..Welcome::default()
        }
    }

    #[test]
    fn features_are_what_the_holder_tells() {
        let found = of(&welcome(&["cpu", "memory"], &["mounts", "clone3"]), false);
        let found: Vec<&str> = found.iter().map(String::as_str).filter(|name| *name != JOURNAL).collect();
        assert_eq!(found, [RUNTIME, CGROUP_CPU, CGROUP_MEMORY, USERS, MOUNTS, VALIDATORS]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let found = of(&welcome(&["memory"], &["mounts"]), false);
        assert_eq!(missing(&found), ["cpu", "pids", "io", "cpuset"]);
    }
}
