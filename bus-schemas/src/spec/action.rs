//! What follows a change of a managed file on its node.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Exec, Selector};

/// One action. Exactly one of its fields is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// Has what is named read its configuration again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<ActionTarget>,
    /// Ends what is named in order and starts it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<ActionTarget>,
    /// Runs a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
}

/// What an action is done to. Exactly one of its fields is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionTarget {
    /// Processes of the file's namespace on the same node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_selector: Option<Selector>,
    /// A unit of the host's systemd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// What an action does; none of a form that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind<'a> {
    /// `reload` or `restart` of processes.
    Processes(Renewal, &'a Selector),
    /// Likewise of a unit.
    Unit(Renewal, &'a str),
    /// A command.
    Exec(&'a Exec),
}

/// How what runs comes to its new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Renewal {
    /// It reads it again.
    Reload,
    /// It is ended and started anew.
    Restart,
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Renewal::Reload => "reload",
            Renewal::Restart => "restart",
        })
    }
}

impl Action {
    /// What it does.
    #[must_use]
    pub fn kind(&self) -> Option<ActionKind<'_>> {
        let reload = self.reload.as_ref().map(|target| (Renewal::Reload, target));
        let target = reload.or_else(|| self.restart.as_ref().map(|target| (Renewal::Restart, target)));
        match (target, &self.exec) {
            (Some((how, target)), _) => match (&target.process_selector, &target.unit) {
                (Some(selector), _) => Some(ActionKind::Processes(how, selector)),
                (None, Some(unit)) => Some(ActionKind::Unit(how, unit)),
                (None, None) => None,
            },
            (None, Some(exec)) => Some(ActionKind::Exec(exec)),
            (None, None) => None,
        }
    }

    /// The processes that it is done to, if it is done to processes.
    #[must_use]
    pub fn selector(&self) -> Option<&Selector> {
        match self.kind()? {
            ActionKind::Processes(_, selector) => Some(selector),
            ActionKind::Unit(..) | ActionKind::Exec(_) => None,
        }
    }
}

/// For people, in a few words.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(ActionKind::Processes(how, selector)) => {
                write!(f, "{how} of processes")?;
                let labels = selector.match_labels.iter();
                for (n, (key, value)) in labels.enumerate() {
                    write!(f, "{}{key}={value}", if n == 0 { " " } else { "," })?;
                }
                Ok(())
            }
            Some(ActionKind::Unit(how, unit)) => write!(f, "{how} of {unit}"),
            Some(ActionKind::Exec(exec)) => {
                write!(f, "exec {}", exec.command.first().map_or("", String::as_str))
            }
            None => f.write_str("an action that this version does not know"),
        }
    }
}

/// Variables that the words of an action's command, and of a file's probe, can refer to.
pub const ACTION_VARIABLES: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "OSTLER_NODE",
    "OSTLER_ROOT",
    "OSTLER_NAMESPACE",
    "OSTLER_NAME",
    "OSTLER_VERSION",
    "OSTLER_PATH",
    "OSTLER_UID",
];

/// Kinds of systemd units that can be reloaded or restarted: what runs, or waits for something to run.
pub const UNIT_KINDS: [&str; 4] = [".service", ".socket", ".timer", ".path"];

/// Whether a text is the whole name of a unit of one of [`UNIT_KINDS`].
#[must_use]
pub fn is_unit_name(name: &str) -> bool {
    let is_char = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = UNIT_KINDS.iter().find_map(|kind| name.strip_suffix(kind));
    stem.is_some_and(|stem| !stem.is_empty() && !stem.starts_with('@') && !stem.ends_with('@'))
        && name.len() <= 255
        && name.chars().all(is_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units() {
        for good in ["nginx.service", "app@7.service", "a-b.c.timer", "dev-x\\x2dy.socket"] {
            assert!(is_unit_name(good), "{good}");
        }
        for bad in
            ["nginx", ".service", "a b.service", "../x.service", "@.service", "app@.service", "x.mount", ""]
        {
            assert!(!is_unit_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_says_nothing_known_is_nothing() {
        assert_eq!(Action::default().kind(), None);
        let action = Action { reload: Some(ActionTarget::default()), ..Action::default() };
        assert_eq!(action.kind(), None);
    }
}
