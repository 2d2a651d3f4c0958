//! From what a template says to what the holder confines a process by.
//!
//! Nothing is decided here that the template does not say; what a host cannot do is found out by the host.

use ostler_schemas::Uid;
use ostler_schemas::quantity::Rlimit;
use ostler_schemas::spec::{Capability, EnvironmentFile, ProcessTemplate, TASKS_MAX, WEIGHT};

use crate::holder::protocol::{self, Capabilities, Limits};
use crate::secrets::CredentialFolder;

/// Limits of the control group.
#[must_use]
pub fn limits(template: &ProcessTemplate) -> Limits {
    let bytes = |size: Option<ostler_schemas::quantity::Size>| size.map(|size| size.as_bytes());
    let weight = |weight: u32| (weight != WEIGHT).then_some(weight);
    let most = template.resources.limits;
    Limits {
        memory_max: bytes(most.memory),
        cpu_millis: most.cpu.map(|cpu| cpu.as_millis()),
        tasks_max: Some(template.tasks_max),
        memory_min: bytes(template.memory_min),
        memory_high: bytes(template.memory_high),
        memory_swap_max: bytes(template.memory_swap_max),
        cpu_weight: weight(template.cpu_weight),
        cpus: template.allowed_cpus.as_ref().map(ToString::to_string),
        io_read_max: bytes(template.io_read_bandwidth_max),
        io_write_max: bytes(template.io_write_bandwidth_max),
        io_weight: weight(template.io_weight),
    }
}

/// Whether somebody asked for a bound of the number of tasks: the default is a wish that not every host can fulfil.
#[must_use]
pub fn asks_for_tasks(limits: &Limits) -> bool {
    limits.tasks_max.is_some_and(|tasks| tasks != TASKS_MAX)
}

/// Resource limits of the main process, those that are not the host's own.
#[must_use]
pub fn rlimits(template: &ProcessTemplate) -> Vec<protocol::Rlimit> {
    let all = [
        ("nofile", Some(template.limit_nofile)),
        ("nproc", template.limit_nproc),
        ("core", template.limit_core),
        ("memlock", template.limit_memlock),
        ("stack", template.limit_stack),
        ("fsize", template.limit_fsize),
        ("as", template.limit_as),
    ];
    all.into_iter().filter_map(|(resource, limit)| limit.map(|limit| rlimit(resource, limit))).collect()
}

/// The limit of open files that is given to who asks for none: a wish and not a demand. On a host that gives less,
/// that is what there is, as systemd does it.
#[must_use]
pub fn default_nofile() -> protocol::Rlimit {
    rlimit("nofile", Rlimit::NOFILE)
}

/// One limit in the holder's words.
#[must_use]
pub fn rlimit(resource: &str, limit: Rlimit) -> protocol::Rlimit {
    protocol::Rlimit { resource: resource.to_owned(), soft: limit.soft(), hard: limit.hard() }
}

/// Capabilities of a process of that user: root has all that are not taken from it, others only what was given them.
/// None where nothing was asked and nobody's can be changed, because the process runs as whoever runs the agent.
#[must_use]
pub fn capabilities(template: &ProcessTemplate, uid: u32, is_self: bool) -> Option<Capabilities> {
    let bits = |list: &[Capability]| list.iter().fold(0u64, |bits, one| bits | 1 << one.number());
    let ambient = bits(&template.ambient_capabilities);
    let bounding = match &template.capability_bounding_set {
        Some(list) => Some(bits(list)),
        None if uid == 0 => None,
        None if is_self && ambient == 0 => return None,
        None => Some(ambient),
    };
    (bounding.is_some() || ambient != 0).then_some(Capabilities { bounding, ambient })
}

/// Whose folder it is, and which variable names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FolderKind {
    /// What a program keeps.
    State,
    /// What it can make again.
    Cache,
    /// What it writes for people.
    Logs,
    /// What ends with it.
    Runtime,
}

impl FolderKind {
    /// All of them, in the order of their variables.
    pub const ALL: [FolderKind; 4] = [Self::State, Self::Cache, Self::Logs, Self::Runtime];

    /// Where such folders are.
    #[must_use]
    pub const fn base(self) -> &'static str {
        match self {
            Self::State => "/var/lib",
            Self::Cache => "/var/cache",
            Self::Logs => "/var/log",
            Self::Runtime => "/run",
        }
    }

    /// The variable that names them, as systemd has it.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::State => "STATE_DIRECTORY",
            Self::Cache => "CACHE_DIRECTORY",
            Self::Logs => "LOGS_DIRECTORY",
            Self::Runtime => "RUNTIME_DIRECTORY",
        }
    }

    fn names(self, template: &ProcessTemplate) -> &[String] {
        match self {
            Self::State => &template.state_directory,
            Self::Cache => &template.cache_directory,
            Self::Logs => &template.logs_directory,
            Self::Runtime => &template.runtime_directory,
        }
    }
}

/// A folder that a process is given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder {
    /// Of which kind.
    pub kind: FolderKind,
    /// Below what of that kind.
    pub name: String,
}

/// The folders that a template asks for.
#[must_use]
pub fn folders(template: &ProcessTemplate) -> Vec<Folder> {
    let of =
        |kind: FolderKind| kind.names(template).iter().map(move |name| Folder { kind, name: name.clone() });
    FolderKind::ALL.into_iter().flat_map(of).collect()
}

/// The variables that name them, with `root` before each path.
#[must_use]
pub fn folder_variables(template: &ProcessTemplate, root: &str) -> Vec<(&'static str, String)> {
    let path = |kind: FolderKind, name: &String| format!("{root}{}/{name}", kind.base());
    let all = FolderKind::ALL.into_iter().map(|kind| {
        let paths: Vec<String> = kind.names(template).iter().map(|name| path(kind, name)).collect();
        (kind.variable(), paths.join(":"))
    });
    all.filter(|(_, paths)| !paths.is_empty()).collect()
}

/// What is made ready on the host before a start, outside of the holder: what takes a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preparation {
    /// For which process.
    pub uid: Uid,
    /// Groups that it is in besides those of its user, by name or number.
    pub supplementary_groups: Vec<String>,
    /// Folders that it is given.
    pub folders: Vec<Folder>,
    /// Whether it has its own `/tmp`.
    pub private_tmp: bool,
    /// Paths that it may not write to.
    pub read_only_paths: Vec<String>,
    /// Files of variables.
    pub environment_files: Vec<EnvironmentFile>,
    /// Credentials that it is given.
    pub credentials: Option<CredentialFolder>,
}

impl Preparation {
    /// What a template asks for.
    #[must_use]
    pub fn of(uid: Uid, template: &ProcessTemplate) -> Self {
        Self {
            uid,
            supplementary_groups: template.supplementary_groups.clone(),
            folders: folders(template),
            private_tmp: template.private_tmp,
            read_only_paths: template.read_only_paths.clone(),
            environment_files: template.environment_file.clone(),
            credentials: None,
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.supplementary_groups.is_empty()
            && self.folders.is_empty()
            && !self.private_tmp
            && self.read_only_paths.is_empty()
            && self.environment_files.is_empty()
            && self.credentials.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> ProcessTemplate {
        ProcessTemplate::of(vec!["/bin/app".to_owned()])
    }

    fn names(list: &[&str]) -> Vec<Capability> {
        list.iter().map(|name| name.parse().expect("a capability")).collect()
    }

    #[test]
    fn nobody_but_root_has_capabilities_that_were_not_given() {
        let plain = template();
        assert_eq!(capabilities(&plain, 0, false), None);
        assert_eq!(capabilities(&plain, 1000, true), None, "an agent without root can take nothing away");
        let none = Capabilities { bounding: Some(0), ambient: 0 };
        assert_eq!(capabilities(&plain, 1000, false), Some(none));
        let web = ProcessTemplate { ambient_capabilities: names(&["CAP_NET_BIND_SERVICE"]), ..template() };
        let bind = Capabilities { bounding: Some(1 << 10), ambient: 1 << 10 };
        assert_eq!(capabilities(&web, 1000, false), Some(bind));
        let kept = ProcessTemplate { capability_bounding_set: Some(names(&["CAP_CHOWN"])), ..template() };
        assert_eq!(capabilities(&kept, 0, false), Some(Capabilities { bounding: Some(1), ambient: 0 }));
    }

    #[test]
    fn folders_are_named_by_systemds_variables() {
        let template = ProcessTemplate {
            state_directory: vec!["app".to_owned(), "app/more".to_owned()],
            runtime_directory: vec!["app".to_owned()],
            ..template()
        };
        let variables = folder_variables(&template, "/box");
        let (state, run) = ("/box/var/lib/app:/box/var/lib/app/more", "/box/run/app");
        assert_eq!(variables, [("STATE_DIRECTORY", state.to_owned()), ("RUNTIME_DIRECTORY", run.to_owned())]);
        assert_eq!(folders(&template).len(), 3);
    }

    #[test]
    fn what_a_template_does_not_say_is_not_limited() {
        let limits = limits(&template());
        assert_eq!(limits, Limits { tasks_max: Some(TASKS_MAX), ..Limits::default() });
        assert!(!asks_for_tasks(&limits));
        assert_eq!(rlimits(&template()).len(), 1);
        let bounded = ProcessTemplate { limit_as: Rlimit::new(1, 2), ..template() };
        assert_eq!(rlimits(&bounded).last(), Some(&rlimit("as", Rlimit::new(1, 2).expect("a limit"))));
    }
}
