//! What is answered on the host itself: the agent's socket, and the commands that ask there.
//!
//! Nothing here needs the bus. What can be answered without the agent is: by the holder (`ps`, `stop`), by files
//! (`logs`, `events`).

pub mod client;
pub mod notes;
pub mod owns;
pub mod server;
mod show;
pub mod story;
mod why;

pub(crate) use show::table;
pub use show::{files_table, process_table, status_text};
pub use why::Why;

use ostler_schemas::Uid;
use serde::{Deserialize, Serialize};

/// The socket's name in its folder.
pub const SOCKET: &str = "agent.sock";
/// Longest request: a few words.
const REQUEST_MAX: u64 = 64 << 10;

/// What can be asked: one line of JSON; the answer is one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum Ask {
    /// Everything there is to know: [`crate::status::Status`].
    Status,
    /// What runs as this process and why: [`Why`].
    Why {
        /// Its name, `NAMESPACE/NAME`, or the first digits of its uid.
        process: String,
    },
    /// Whose a path is: an [`owns::Owned`], or null.
    Owns {
        /// The path.
        path: String,
    },
    /// The content that a path should have: [`Managed`].
    Managed {
        /// The path.
        path: String,
    },
    /// Something is to be done: [`Done`].
    Act {
        /// What.
        act: Act,
    },
}

/// What a person on the host has the agent do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "act")]
pub enum Act {
    /// Change nothing of it, for a while.
    Hold {
        /// A process, a path, or `--all`.
        what: String,
        /// For how long.
        for_ms: Option<u64>,
        /// Why.
        reason: String,
    },
    /// Take it up again.
    Release {
        /// A process, a path, or `--all`.
        what: String,
    },
    /// End it, and leave it so.
    Stop {
        /// A process.
        process: String,
        /// Why.
        reason: String,
    },
    /// Start what was stopped.
    Start {
        /// A process.
        process: String,
    },
    /// End it in order and start it anew.
    Restart {
        /// A process.
        process: String,
        /// Why.
        reason: String,
    },
}

/// What came of a question that is no question, or could not be answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Done {
    /// What was done, for people.
    pub done: Option<String>,
    /// Why nothing was done, for people.
    pub error: Option<String>,
}

/// What a managed path should hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Managed {
    /// The path on the host.
    pub path: String,
    /// The ConfigFile and its version.
    pub of: String,
    /// The content.
    pub content: String,
}

/// The path on a host of a path as people write it: in a sandbox both forms are understood.
#[must_use]
pub fn on_host(root: &str, path: &str) -> String {
    let is_below = !root.is_empty() && path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    if is_below { path.to_owned() } else { format!("{root}{path}") }
}

/// Finds the one process that is meant, among (uid, namespace, name).
///
/// # Errors
/// If there is none, or more than one, which are then named.
pub fn find(
    asked: &str,
    all: impl Iterator<Item = (Uid, String, String)>,
) -> Result<(Uid, String, String), String> {
    let is_meant = |(uid, namespace, name): &(Uid, String, String)| {
        let short = asked.len() >= ostler_schemas::ids::SHORT_UID && uid.to_string().starts_with(asked);
        asked == name || asked == format!("{namespace}/{name}") || short
    };
    let mut found: Vec<_> = all.filter(is_meant).collect();
    match found.len() {
        0 => Err(format!("no process {asked} on this host; \"ostler-agent ps\" lists them")),
        1 => Ok(found.remove(0)),
        _ => {
            let lines = found.iter().map(|(uid, ns, name)| format!("\n  {ns}/{name}  {}", uid.short()));
            Err(format!("{asked} may be any of{}\nname one so", lines.collect::<String>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_meant_or_all_are_named() {
        let all = || {
            [(1, "default", "web-1"), (2, "prod", "web-1"), (3, "prod", "db")]
                .into_iter()
                .map(|(n, ns, name)| (Uid::from_bytes([n; 16]), ns.to_owned(), name.to_owned()))
        };
        assert_eq!(find("db", all()).expect("one").0, Uid::from_bytes([3; 16]));
        assert_eq!(find("prod/web-1", all()).expect("one").0, Uid::from_bytes([2; 16]));
        assert_eq!(find("01010101", all()).expect("one").0, Uid::from_bytes([1; 16]));
        let many = find("web-1", all()).expect_err("two");
        assert!(many.contains("default/web-1  01010101") && many.contains("prod/web-1"), "{many}");
        assert!(find("web", all()).expect_err("none").contains("ostler-agent ps"));
    }

    #[test]
    fn a_sandbox_understands_both_forms_of_a_path() {
        assert_eq!(on_host("", "/etc/a"), "/etc/a");
        assert_eq!(on_host("/tmp/box", "/etc/a"), "/tmp/box/etc/a");
        assert_eq!(on_host("/tmp/box", "/tmp/box/etc/a"), "/tmp/box/etc/a");
        assert_eq!(on_host("/tmp/box", "/tmp/boxer"), "/tmp/box/tmp/boxer");
    }
}
