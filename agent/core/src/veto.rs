//! What this host allows, whatever the control plane asks: users, paths, commands, limits.
//!
//! The rules are the host's own (`agent.toml`), so whoever holds the control plane, or forged it, gets no more than
//! they say. Every refusal names the rule, the file and the line to change.
//!
//! Guarantees: a denied path is refused in every spelling (`//`, `.`, `..`, case, links), and an allowed one whose real
//! folder is denied is denied. Not here: reading the rules, resolving links, looking users up.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::spec::Capability;

use crate::confine::default_nofile;
use crate::holder::protocol::{Limits, Rlimit};

mod glob;
#[cfg(test)]
mod tests;

pub use glob::{Pattern, PatternError};

/// What nobody may have the control plane write: what makes root or another user of whoever writes it, and what keeps
/// a host from booting. `allow_paths` is the way to allow less; nothing but `deny_usual = false` allows these.
pub const USUAL_DENIED: &[&str] = &[
    "/etc/sudoers*",
    "/etc/doas*",
    "/etc/passwd*",
    "/etc/shadow*",
    "/etc/group*",
    "/etc/gshadow*",
    "/etc/subuid*",
    "/etc/subgid*",
    "/etc/security/opasswd",
    "/etc/pam.*",
    "/etc/polkit-1",
    "/etc/ld.so.preload",
    "/etc/machine-id",
    "/etc/ssh/*key*",
    "/etc/ssh/*authorized*",
    "/etc/krb5.keytab",
    "**/.ssh",
    "**/.gnupg",
    "**/authorized_keys*",
    "/boot",
    "/efi",
    "/etc/ostler",
    "/var/lib/ostler*",
    "/var/log/ostler",
    "/run/ostler*",
    "/run/systemd",
];

/// Groups whose members are root by another way: disks, containers, passwords.
pub const USUAL_DENIED_GROUPS: &[&str] =
    &["root", "disk", "shadow", "kmem", "docker", "podman", "lxd", "incus", "libvirt"];

/// Capabilities with which a process becomes nobody else and sees nobody else's data.
pub const USUAL_CAPABILITIES: &[&str] =
    &["CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_SYS_NICE"];

/// A value, and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// The line of the file; none if it is a default.
    pub line: Option<usize>,
}

/// A rule of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// What it matches, with everything below.
    pub pattern: Pattern,
    /// The line of the file; none if it is a default.
    pub line: Option<usize>,
}

/// Whom processes may run as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Users {
    /// Anybody but root, who has a rule of his own.
    #[default]
    Any,
    /// These, by name or number.
    Named(BTreeSet<String>),
}

/// Which units of the host's service manager may be reloaded and restarted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Units {
    /// Any but Ostler's own, which would end whoever asks.
    #[default]
    Any,
    /// Those of which one of these, with `*` for anything, is the name.
    Named(Vec<String>),
}

/// How names of Ostler's own units begin.
const OWN_UNITS: &str = "ostler-";

/// Beside which processes commands may be run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AllowExec {
    /// None.
    Off,
    /// All but root's.
    OwnUser,
    /// All.
    #[default]
    Any,
}

impl AllowExec {
    /// As in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OwnUser => "own-user",
            Self::Any => "any",
        }
    }
}

/// Whether a name is as a pattern says, in which `*` is anything.
fn is_like(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(tail) = name.strip_prefix(first) else { return false };
    (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| is_like(rest, &tail[at..]))
}

/// The rules of a host. The default forbids nothing: it is for whoever has no host to protect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Veto {
    /// The file they are in, for messages.
    pub file: String,
    /// Whether the rules on root, groups, capabilities and set-user-id files are in force.
    pub enforced: bool,
    /// Whether processes may be root, or come to it.
    pub root: Setting<bool>,
    /// Whom they may be.
    pub users: Setting<Users>,
    /// Groups that nobody may be in, by number.
    pub denied_groups: Setting<BTreeMap<u32, String>>,
    /// Capabilities that may be given to who is not root.
    pub capabilities: Setting<BTreeSet<String>>,
    /// Only these paths may be written; empty = all that are not denied.
    pub allow_paths: Vec<PathRule>,
    /// These may not.
    pub deny_paths: Vec<PathRule>,
    /// Commands beside processes.
    pub exec: Setting<AllowExec>,
    /// Units that actions of files may reload and restart.
    pub units: Setting<Units>,
    /// CPU of one process, in thousandths of a core.
    pub max_cpu: Option<Setting<u64>>,
    /// Memory of one process, in bytes.
    pub max_memory: Option<Setting<u64>>,
    /// Open files of one process.
    pub max_nofile: Option<Setting<u64>>,
    /// Processes on this host.
    pub max_processes: Option<Setting<u64>>,
}

/// Whom a process would be.
#[derive(Debug, Clone, Copy)]
pub struct Runner<'a> {
    /// The user's name.
    pub name: &'a str,
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: &'a [u32],
}

impl Veto {
    fn where_(&self, key: &str, line: Option<usize>) -> String {
        match line {
            Some(line) => format!("{key} in {} line {line}", self.file),
            None => format!("the default of {key}; set it in [allow] of {}", self.file),
        }
    }

    /// Whether a process may be this user.
    ///
    /// # Errors
    /// Why not.
    pub fn user(&self, runner: Runner<'_>) -> Result<(), String> {
        if !self.enforced {
            return Ok(());
        }
        let name = runner.name;
        if runner.uid == 0 {
            return match self.root.value {
                true => Ok(()),
                false => {
                    let place = match self.root.line {
                        Some(line) => format!("allow_root in {} line {line}", self.file),
                        None => format!("the default of allow_root; set it in {}", self.file),
                    };
                    Err(format!("this host does not allow processes to run as root ({place})"))
                }
            };
        }
        let named = match &self.users.value {
            Users::Any => false,
            Users::Named(users) => {
                if !users.contains(name) && !users.contains(&runner.uid.to_string()) {
                    let place = self.where_("allow_users", self.users.line);
                    return Err(format!("this host does not allow processes to run as {name} ({place})"));
                }
                true
            }
        };
        // Who is named in the file was thought about; his groups with him.
        let own = if named { Default::default() } else { runner.groups };
        let denied = std::iter::once(&runner.gid).chain(own).find_map(|g| self.denied_groups.value.get(g));
        match denied {
            Some(group) if !self.root.value => {
                let place = self.where_("deny_groups", self.denied_groups.line);
                Err(format!(
                    "this host does not allow processes in group {group}, as {name} would be ({place})"
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a process of this user may be in groups that its template picked.
    ///
    /// # Errors
    /// Why not.
    pub fn groups(&self, name: &str, groups: &[u32]) -> Result<(), String> {
        if !self.enforced || self.root.value {
            return Ok(());
        }
        match groups.iter().find_map(|group| self.denied_groups.value.get(group)) {
            None => Ok(()),
            Some(group) => {
                let place = self.where_("deny_groups", self.denied_groups.line);
                Err(format!(
                    "this host does not allow processes in group {group}, as {name} would be ({place})"
                ))
            }
        }
    }

    /// Whether a process that is not root may have these capabilities.
    ///
    /// # Errors
    /// Why not.
    pub fn capabilities(&self, asked: &[Capability]) -> Result<(), String> {
        if !self.enforced || self.root.value {
            return Ok(());
        }
        let names: Vec<String> = asked.iter().map(ToString::to_string).collect();
        match names.iter().find(|name| !self.capabilities.value.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let place = self.where_("allow_capabilities", self.capabilities.line);
                Err(format!("this host does not give {name} to processes ({place})"))
            }
        }
    }

    /// Why a path of a manifest may not be written, if it may not. `real` is where it really is, links resolved and
    /// without the sandbox.
    #[must_use]
    pub fn path(&self, path: &str, real: Option<&str>) -> Option<String> {
        let spelled = std::iter::once(path).chain(real);
        for (n, candidate) in spelled.enumerate() {
            let plain = glob::normal(candidate);
            let leads = if n == 0 { String::new() } else { format!("{path} really is {plain}; ") };
            if let Some(why) = self.denies(&plain) {
                return Some(format!("{leads}{why}"));
            }
            if !self.allow_paths.is_empty() && !self.allow_paths.iter().any(|r| r.pattern.matches(&plain)) {
                let line = self.allow_paths.iter().find_map(|r| r.line);
                let place = self.where_("allow_paths", line);
                return Some(format!("{leads}no rule of this host allows {plain} ({place})"));
            }
        }
        None
    }

    /// Why a folder of a process may not be there, if it may not: `allow_paths` speaks of managed files only.
    #[must_use]
    pub fn folder(&self, path: &str) -> Option<String> {
        self.denies(&glob::normal(path))
    }

    fn denies(&self, plain: &str) -> Option<String> {
        let rule = self.deny_paths.iter().find(|r| r.pattern.matches_any_case(plain))?;
        let place = match rule.line {
            Some(line) => format!("{} line {line}", self.file),
            None => format!("a default; deny_usual = false in [allow] of {} turns those off", self.file),
        };
        Some(format!("this host denies {} (deny_paths, {place})", rule.pattern))
    }

    /// Why a file may not have these permission bits, if it may not: a program that changes its user is a way to be it.
    #[must_use]
    pub fn mode(&self, bits: u32) -> Option<String> {
        let set_id = bits & 0o6000 != 0;
        (self.enforced && set_id && !self.root.value)
            .then(|| format!("this host takes no set-user-id files (allow_root is false in {})", self.file))
    }

    /// Whether a command may be run beside a process that has this user id.
    ///
    /// # Errors
    /// Why not.
    pub fn exec(&self, uid: u32) -> Result<(), String> {
        let place = || self.where_("allow_exec", self.exec.line);
        match self.exec.value {
            AllowExec::Any => Ok(()),
            AllowExec::OwnUser if uid != 0 => Ok(()),
            AllowExec::OwnUser => {
                Err(format!("this host does not allow commands beside root's processes ({})", place()))
            }
            AllowExec::Off => {
                Err(format!("this host does not allow commands beside its processes ({})", place()))
            }
        }
    }

    /// Whether an action of a file may reload or restart a unit.
    ///
    /// # Errors
    /// Why not.
    pub fn unit(&self, name: &str) -> Result<(), String> {
        if !self.enforced {
            return Ok(());
        }
        if name.starts_with(OWN_UNITS) {
            return Err(format!("{name} is a unit of Ostler itself"));
        }
        match &self.units.value {
            Units::Any => Ok(()),
            Units::Named(patterns) if patterns.iter().any(|pattern| is_like(pattern, name)) => Ok(()),
            Units::Named(_) => {
                let place = self.where_("allow_units", self.units.line);
                Err(format!("this host does not let {name} be reloaded or restarted ({place})"))
            }
        }
    }

    /// Holds a process to what this host gives one: more is refused, what was not asked for is bounded.
    ///
    /// # Errors
    /// Which limit, and where it stands.
    pub fn limits(&self, limits: &mut Limits) -> Result<(), String> {
        let bound = |key: &str, most: &Option<Setting<u64>>, asked: &mut Option<u64>, unit: &str| {
            let Some(most) = most else { return Ok(()) };
            match *asked {
                Some(value) if value > most.value => {
                    let place = self.where_(key, most.line);
                    Err(format!(
                        "it asks for {value}{unit}, this host gives one process {}{unit} ({place})",
                        most.value
                    ))
                }
                Some(_) => Ok(()),
                None => {
                    *asked = Some(most.value);
                    Ok(())
                }
            }
        };
        bound("max_cpu", &self.max_cpu, &mut limits.cpu_millis, "m of cpu")?;
        bound("max_memory", &self.max_memory, &mut limits.memory_max, " bytes of memory")
    }

    /// The same for resource limits. The usual limit of open files is a wish and is cut; what somebody asked for is
    /// given or refused.
    ///
    /// # Errors
    /// Which limit, and where it stands.
    pub fn rlimits(&self, rlimits: &mut [Rlimit]) -> Result<(), String> {
        let Some(most) = &self.max_nofile else { return Ok(()) };
        let wish = default_nofile();
        for limit in rlimits.iter_mut().filter(|l| l.resource == "nofile") {
            if *limit != wish && limit.hard > most.value {
                let place = self.where_("max_nofile", most.line);
                return Err(format!("limitNOFILE {} is above {} ({place})", limit.hard, most.value));
            }
            limit.hard = limit.hard.min(most.value);
            limit.soft = limit.soft.min(limit.hard);
        }
        Ok(())
    }

    /// The most that one process can be given, by the name of the limit: what this host allows of what it `can` give.
    #[must_use]
    pub fn bounds(&self, can: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut bounds = can.clone();
        let allowed = [("nofile", &self.max_nofile), ("cpu", &self.max_cpu), ("memory", &self.max_memory)];
        for (name, setting) in allowed {
            let Some(most) = setting else { continue };
            let bound = bounds.entry(name.to_owned()).or_insert(most.value);
            *bound = most.value.min(*bound);
        }
        bounds
    }

    /// Whether so many processes, the one to be started among them, may live here.
    ///
    /// # Errors
    /// The limit, and where it stands.
    pub fn processes(&self, count: usize) -> Result<(), String> {
        match &self.max_processes {
            Some(most) if count as u64 > most.value => {
                let place = self.where_("max_processes", most.line);
                Err(format!("this host runs {} processes at most ({place})", most.value))
            }
            Some(_) | None => Ok(()),
        }
    }
}
