//! What a template asks of its host beyond what every host can do, by name.
//!
//! Agents say in their report which of these names their host has; the scheduler leaves out nodes that lack one that a
//! template asks for. So nothing that a manifest says is ever silently not done. The list is closed: a name that a
//! reader does not know is of a newer agent and asks for nothing. Defaults ask for nothing, so that a template that says
//! little runs everywhere.

use std::collections::BTreeSet;

use super::process::{ProcessTemplate, TASKS_MAX, WEIGHT};
use super::{OutputTo, Probe};

/// The agent knows every field of the process runtime. Each agent that has a list of features at all says so, whatever
/// its host; one that does not would not do what it has never heard of.
pub const RUNTIME: &str = "runtime";
/// Processor time is bounded and shared out (cgroup controller `cpu`).
pub const CGROUP_CPU: &str = "cgroup.cpu";
/// Memory is bounded and protected (cgroup controller `memory`).
pub const CGROUP_MEMORY: &str = "cgroup.memory";
/// The number of tasks is bounded (cgroup controller `pids`).
pub const CGROUP_PIDS: &str = "cgroup.pids";
/// Disk traffic is bounded and shared out (cgroup controller `io`).
pub const CGROUP_IO: &str = "cgroup.io";
/// Processes are kept on chosen cores (cgroup controller `cpuset`).
pub const CGROUP_CPUSET: &str = "cgroup.cpuset";
/// Processes can run as other users than the agent's default one.
pub const USERS: &str = "users";
/// Processes can have mounts of their own.
pub const MOUNTS: &str = "mounts";
/// Capabilities can be given and taken.
pub const CAPABILITIES: &str = "capabilities";
/// The agent can open Secrets, and has a folder on memory for credentials.
pub const SECRETS: &str = "secrets";
/// There is a journal to write to.
pub const JOURNAL: &str = "journal";

/// Validators of files look at a version before it is put in place. Not asked for by templates: a node that does not say
/// so is not told of a file that has one, because it would put it in place unseen.
pub const VALIDATORS: &str = "validators";

/// All of them, in the order in which they are told.
pub const ALL: [&str; 12] = [
    RUNTIME,
    CGROUP_CPU,
    CGROUP_MEMORY,
    CGROUP_PIDS,
    CGROUP_IO,
    CGROUP_CPUSET,
    USERS,
    MOUNTS,
    CAPABILITIES,
    JOURNAL,
    SECRETS,
    VALIDATORS,
];

/// What a host that lacks a feature cannot do, in words that follow its name.
#[must_use]
pub fn lack_of(feature: &str) -> &'static str {
    match feature {
        RUNTIME => "has an agent that does not know all of its fields",
        CGROUP_CPU => "cannot enforce limits of cpu",
        CGROUP_MEMORY => "cannot enforce limits of memory",
        CGROUP_PIDS => "cannot enforce tasksMax",
        CGROUP_IO => "cannot enforce limits of io",
        CGROUP_CPUSET => "cannot enforce allowedCPUs",
        USERS => "cannot run processes as another user",
        MOUNTS => "cannot give processes mounts of their own",
        CAPABILITIES => "cannot give or take capabilities",
        JOURNAL => "has no journal",
        SECRETS => "cannot be given secrets",
        VALIDATORS => "has an agent that does not know validators",
        _ => "lacks a feature that this version does not know",
    }
}

/// Whether a feature is one of limits, enforced by control groups.
#[must_use]
pub fn is_of_limits(feature: &str) -> bool {
    feature.starts_with("cgroup.")
}

impl ProcessTemplate {
    /// The features that a host needs to do all that this template says.
    #[must_use]
    pub fn features(&self) -> BTreeSet<&'static str> {
        let limits = self.resources.limits;
        let journal = OutputTo::Journal;
        let asked = [
            (RUNTIME, self.asks_for_runtime()),
            (CGROUP_CPU, limits.cpu.is_some() || self.cpu_weight != WEIGHT),
            (CGROUP_MEMORY, limits.memory.is_some() || self.bounds_memory()),
            (CGROUP_PIDS, self.tasks_max != TASKS_MAX),
            (CGROUP_IO, self.bounds_io()),
            (CGROUP_CPUSET, self.allowed_cpus.is_some()),
            (USERS, self.asks_for_users()),
            (MOUNTS, self.private_tmp || !self.read_only_paths.is_empty()),
            (CAPABILITIES, !self.ambient_capabilities.is_empty() || self.capability_bounding_set.is_some()),
            (JOURNAL, self.standard_output == journal || self.standard_error == journal),
            (SECRETS, self.secret_refs().next().is_some()),
        ];
        asked.into_iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| name).collect()
    }

    fn bounds_memory(&self) -> bool {
        self.memory_min.is_some() || self.memory_high.is_some() || self.memory_swap_max.is_some()
    }

    fn bounds_io(&self) -> bool {
        self.io_read_bandwidth_max.is_some()
            || self.io_write_bandwidth_max.is_some()
            || self.io_weight != WEIGHT
    }

    fn asks_for_users(&self) -> bool {
        let hooks = [&self.exec_reload, &self.exec_stop, &self.exec_stop_post];
        let mut hooks = self.exec_start_pre.iter().chain(hooks.into_iter().flatten());
        self.user.is_some()
            || self.group.is_some()
            || !self.supplementary_groups.is_empty()
            || hooks.any(|hook| hook.user.is_some())
    }

    /// Whether anything is said that agents of the first version had not heard of.
    fn asks_for_runtime(&self) -> bool {
        let known = ProcessTemplate {
            args: self.args.clone(),
            env: self.env.clone(),
            user: self.user.clone(),
            group: self.group.clone(),
            working_directory: self.working_directory.clone(),
            ports: self.ports.clone(),
            resources: self.resources,
            kill_signal: self.kill_signal,
            timeout_stop_sec: self.timeout_stop_sec,
            restart: self.restart,
            restart_sec: self.restart_sec,
            restart_max_delay_sec: self.restart_max_delay_sec,
            start_limit_burst: self.start_limit_burst,
            start_limit_interval_sec: self.start_limit_interval_sec,
            start_limit_action: self.start_limit_action,
            readiness_probe: self.readiness_probe.clone(),
            node_selector: self.node_selector.clone(),
            node_name: self.node_name.clone(),
            tolerations: self.tolerations.clone(),
            limit_nofile: self.limit_nofile,
            needs: self.needs.clone(),
            labels: self.labels.clone(),
            ..ProcessTemplate::of(self.command.clone())
        };
        let runs_a_command = |probe: &Probe| probe.exec.is_some();
        known != *self || self.readiness_probe.as_ref().is_some_and(runs_a_command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::{Cpu, Size};

    fn asked(change: impl FnOnce(&mut ProcessTemplate)) -> Vec<&'static str> {
        let mut template = ProcessTemplate::of(vec!["/x".to_owned()]);
        change(&mut template);
        template.features().into_iter().collect()
    }

    #[test]
    fn each_lack_has_words_of_its_own() {
        let words: BTreeSet<&str> = ALL.into_iter().map(lack_of).collect();
        assert_eq!(words.len(), ALL.len());
        assert!(!words.contains(lack_of("clairvoyance")));
    }

    #[test]
    fn what_is_not_said_asks_for_nothing() {
        assert!(asked(|_| {}).is_empty());
        assert!(asked(|t| t.working_directory = "/srv".to_owned()).is_empty());
        assert!(asked(|t| t.limit_nofile = "1:2".parse().expect("a limit")).is_empty());
    }

    #[test]
    fn each_feature_is_asked_by_what_needs_it() {
        assert_eq!(asked(|t| t.resources.limits.cpu = Some(Cpu::from_millis(1))), [CGROUP_CPU]);
        assert_eq!(asked(|t| t.resources.limits.memory = Some(Size::from_mib(1))), [CGROUP_MEMORY]);
        assert_eq!(asked(|t| t.user = Some("app".to_owned())), [USERS]);
        let with_runtime = |name: &'static str, change: fn(&mut ProcessTemplate)| {
            assert_eq!(asked(change), BTreeSet::from([name, RUNTIME]).into_iter().collect::<Vec<_>>());
        };
        with_runtime(CGROUP_CPU, |t| t.cpu_weight = 200);
        with_runtime(CGROUP_MEMORY, |t| t.memory_high = Some(Size::from_mib(1)));
        with_runtime(CGROUP_PIDS, |t| t.tasks_max = 7);
        with_runtime(CGROUP_IO, |t| t.io_weight = 7);
        with_runtime(CGROUP_CPUSET, |t| t.allowed_cpus = "0-3".parse().ok());
        with_runtime(USERS, |t| t.supplementary_groups = vec!["ssl".to_owned()]);
        with_runtime(MOUNTS, |t| t.private_tmp = true);
        with_runtime(CAPABILITIES, |t| t.capability_bounding_set = Some(Vec::new()));
        with_runtime(JOURNAL, |t| t.standard_error = OutputTo::Journal);
        assert_eq!(asked(|t| t.nice = 5), [RUNTIME]);
    }
}
