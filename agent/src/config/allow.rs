//! Table `[allow]` of the settings: what this host allows, whatever the control plane asks.

use std::collections::{BTreeMap, BTreeSet};

use nix::unistd::Group;
use ostler_agent_core::veto::{
    AllowExec, PathRule, Pattern, Setting, USUAL_CAPABILITIES, USUAL_DENIED, USUAL_DENIED_GROUPS, Units,
    Users, Veto,
};
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::spec::Capability;
use serde::Deserialize;

/// The table as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    allow_users: Option<Many>,
    deny_groups: Option<Vec<String>>,
    allow_capabilities: Option<Vec<String>>,
    allow_paths: Option<Vec<String>>,
    deny_paths: Option<Vec<String>>,
    deny_usual: Option<bool>,
    allow_exec: Option<String>,
    allow_units: Option<Many>,
    max_cpu: Option<String>,
    max_memory: Option<String>,
    max_nofile: Option<u64>,
    max_processes: Option<u64>,
}

/// A list, or one word.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Many {
    One(String),
    List(Vec<String>),
}

type Wrong = (&'static str, String);

/// What of the other settings the rules depend on.
pub(super) struct Around<'a> {
    /// The file's name, for messages.
    pub(super) file: String,
    /// Its text, to find lines in.
    pub(super) text: &'a str,
    /// Whether processes may be root, if it is said.
    pub(super) allow_root: Option<bool>,
    /// Whom processes run as that name no user: always allowed.
    pub(super) default_user: Option<&'a str>,
    /// Whether all of it is a sandbox of whoever runs it.
    pub(super) sandbox: bool,
}

impl Raw {
    /// Checks it; an error names the key.
    pub(super) fn read(&self, around: &Around<'_>) -> Result<Veto, Wrong> {
        let line = |key: &str| line_of(around.text, "allow", key, None);
        let exec = match self.allow_exec.as_deref() {
            None if around.sandbox => AllowExec::Any,
            None | Some("own-user") => AllowExec::OwnUser,
            Some("off") => AllowExec::Off,
            Some("any") => AllowExec::Any,
            Some(other) => {
                return Err(("allow.allow_exec", format!("{other:?} is not one of off, own-user, any")));
            }
        };
        Ok(Veto {
            file: around.file.clone(),
            enforced: true,
            root: Setting {
                value: around.allow_root.unwrap_or(around.sandbox),
                line: line_of(around.text, "", "allow_root", None),
            },
            users: Setting { value: self.users(around.default_user)?, line: line("allow_users") },
            denied_groups: Setting { value: self.groups(), line: line("deny_groups") },
            capabilities: Setting { value: self.capabilities()?, line: line("allow_capabilities") },
            allow_paths: rules("allow_paths", self.allow_paths.as_deref(), around.text)?,
            deny_paths: self.denied(around.text)?,
            exec: Setting { value: exec, line: line("allow_exec") },
            units: Setting { value: self.units()?, line: line("allow_units") },
            max_cpu: amount("allow.max_cpu", self.max_cpu.as_deref(), line("max_cpu"), |text| {
                text.parse::<Cpu>().ok().map(|cpu| cpu.as_millis())
            })?,
            max_memory: amount("allow.max_memory", self.max_memory.as_deref(), line("max_memory"), |text| {
                text.parse::<Size>().ok().map(Size::as_bytes)
            })?,
            max_nofile: self.max_nofile.map(|value| Setting { value, line: line("max_nofile") }),
            max_processes: self.max_processes.map(|value| Setting { value, line: line("max_processes") }),
        })
    }

    fn users(&self, default_user: Option<&str>) -> Result<Users, Wrong> {
        let list = match &self.allow_users {
            None => return Ok(Users::Any),
            Some(Many::One(one)) => vec![one.clone()],
            Some(Many::List(list)) => list.clone(),
        };
        if list.iter().any(|user| user == "*") {
            return Ok(Users::Any);
        }
        if let Some(bad) = list.iter().find(|user| user.is_empty() || user.contains(['*', '?', ' '])) {
            return Err((
                "allow.allow_users",
                format!("{bad:?} is no user: write names or numbers, or \"*\" alone"),
            ));
        }
        Ok(Users::Named(list.into_iter().chain(default_user.map(str::to_owned)).collect()))
    }

    fn units(&self) -> Result<Units, Wrong> {
        let list = match &self.allow_units {
            None => return Ok(Units::Any),
            Some(Many::One(one)) => vec![one.clone()],
            Some(Many::List(list)) => list.clone(),
        };
        match list.iter().find(|unit| unit.is_empty() || unit.contains([' ', '/'])) {
            None => Ok(Units::Named(list)),
            Some(bad) => Err((
                "allow.allow_units",
                format!("{bad:?} is no unit: write names as nginx.service or app@*.service"),
            )),
        }
    }

    /// By number, because a template may name a group so. Groups that this host does not have deny nothing.
    fn groups(&self) -> BTreeMap<u32, String> {
        let usual = || USUAL_DENIED_GROUPS.iter().map(|group| (*group).to_owned()).collect();
        let names: Vec<String> = self.deny_groups.clone().unwrap_or_else(usual);
        let number = |name: &String| match name.parse::<u32>() {
            Ok(number) => Some(number),
            Err(_) => Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
        };
        names.iter().filter_map(|name| Some((number(name)?, name.clone()))).collect()
    }

    fn capabilities(&self) -> Result<BTreeSet<String>, Wrong> {
        let Some(list) = &self.allow_capabilities else {
            return Ok(USUAL_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect());
        };
        match list.iter().find(|name| name.parse::<Capability>().is_err()) {
            None => Ok(list.iter().cloned().collect()),
            Some(bad) => Err((
                "allow.allow_capabilities",
                format!("{bad:?} is no capability: write it as CAP_NET_RAW"),
            )),
        }
    }

    fn denied(&self, text: &str) -> Result<Vec<PathRule>, Wrong> {
        let mut denied = rules("deny_paths", self.deny_paths.as_deref(), text)?;
        if self.deny_usual.unwrap_or(true) {
            let usual = USUAL_DENIED.iter().filter_map(|text| Pattern::parse(text).ok());
            denied.extend(usual.map(|pattern| PathRule { pattern, line: None }));
        }
        Ok(denied)
    }
}

fn rules(key: &'static str, list: Option<&[String]>, text: &str) -> Result<Vec<PathRule>, Wrong> {
    let rule = |pattern: &String| match Pattern::parse(pattern) {
        Ok(parsed) => Ok(PathRule { pattern: parsed, line: line_of(text, "allow", key, Some(pattern)) }),
        Err(error) => Err((
            if key == "deny_paths" { "allow.deny_paths" } else { "allow.allow_paths" },
            error.to_string(),
        )),
    };
    list.unwrap_or_default().iter().map(rule).collect()
}

fn amount(
    key: &'static str,
    text: Option<&str>,
    line: Option<usize>,
    read: fn(&str) -> Option<u64>,
) -> Result<Option<Setting<u64>>, Wrong> {
    let Some(text) = text else { return Ok(None) };
    match read(text) {
        Some(value) => Ok(Some(Setting { value, line })),
        None => {
            Err((key, format!("{text:?} is no amount: write cpu as \"2\" or \"500m\", memory as \"4Gi\"")))
        }
    }
}

/// The line of a key, or of an item of its list, counted from 1. For messages only: a file written in another of the
/// ways that TOML has is just not given a line.
fn line_of(text: &str, table: &str, key: &str, item: Option<&str>) -> Option<usize> {
    let mut current = String::new();
    let mut within = false;
    let mut found = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !within && let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            name.trim().clone_into(&mut current);
            continue;
        }
        let starts = line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
        if current == table && starts {
            within = true;
            found = Some(number);
        }
        if within {
            let is_item = item.is_some_and(|item| {
                line.contains(&format!("{item:?}")) || line.contains(&format!("'{item}'"))
            });
            if item.is_none() || is_item {
                return Some(number);
            }
            within = !line.ends_with(']');
        }
    }
    found
}

/// The rules in force, for `--check`.
#[must_use]
pub fn describe(veto: &Veto) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let mut row = |key: &str, value: String, line: Option<usize>| {
        let from = line.map_or_else(|| "default".to_owned(), |line| format!("line {line}"));
        // Writing to a text cannot fail.
        writeln!(out, "{key:<19} {value}  ({from})").ok();
    };
    let list = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(" ") };
    let users = match &veto.users.value {
        Users::Any => "any but root".to_owned(),
        Users::Named(users) => list(users.iter().cloned().collect()),
    };
    row("allow_root", veto.root.value.to_string(), veto.root.line);
    row("allow_users", users, veto.users.line);
    row("deny_groups", list(veto.denied_groups.value.values().cloned().collect()), veto.denied_groups.line);
    row(
        "allow_capabilities",
        list(veto.capabilities.value.iter().cloned().collect()),
        veto.capabilities.line,
    );
    if veto.allow_paths.is_empty() {
        row("allow_paths", "/ (what is not denied)".to_owned(), None);
    }
    for rule in &veto.allow_paths {
        row("allow_paths", rule.pattern.to_string(), rule.line);
    }
    for rule in &veto.deny_paths {
        row("deny_paths", rule.pattern.to_string(), rule.line);
    }
    row("allow_exec", veto.exec.value.as_str().to_owned(), veto.exec.line);
    let units = match &veto.units.value {
        Units::Any => "any but Ostler's own".to_owned(),
        Units::Named(units) => list(units.clone()),
    };
    row("allow_units", units, veto.units.line);
    let limits = [
        ("max_cpu", &veto.max_cpu, "m"),
        ("max_memory", &veto.max_memory, " bytes"),
        ("max_nofile", &veto.max_nofile, ""),
        ("max_processes", &veto.max_processes, ""),
    ];
    for (key, limit, unit) in limits {
        match limit {
            Some(limit) => row(key, format!("{}{unit}", limit.value), limit.line),
            None => row(key, "none".to_owned(), None),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found() {
        let text = "name = \"a\"\nallow_root = false\n[allow]\n# deny_paths = no\ndeny_paths = [\n  \"/srv/x\",\n  '/srv/y',\n]\nallow_exec = \"off\"\n[bus]\nallow_exec = 1\n";
        assert_eq!(line_of(text, "", "allow_root", None), Some(2));
        assert_eq!(line_of(text, "allow", "deny_paths", Some("/srv/x")), Some(6));
        assert_eq!(line_of(text, "allow", "deny_paths", Some("/srv/y")), Some(7));
        assert_eq!(line_of(text, "allow", "allow_exec", None), Some(9));
        assert_eq!(line_of(text, "allow", "max_cpu", None), None);
    }

    #[test]
    fn every_usual_rule_is_a_pattern() {
        for text in USUAL_DENIED {
            assert!(Pattern::parse(text).is_ok(), "{text}");
        }
        for name in USUAL_CAPABILITIES {
            assert!(name.parse::<Capability>().is_ok(), "{name}");
        }
    }
}
