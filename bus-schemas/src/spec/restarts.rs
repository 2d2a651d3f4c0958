//! What of a process's surroundings takes effect only in a new incarnation.
//!
//! Not here, because it can be had in place: resources, bounds of the control group, weights, resource limits,
//! probes, sizes of logs (CONTRACT.md section 2, the cost of a change). A test goes through every field by name.
//!
//! A field is a part of the hash only where it is said. So a template hashes as it did before a field was known, and an
//! upgrade that brings new fields restarts nothing.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::process::ProcessTemplate;

/// Those fields of a template, as far as they have another value than the one that nobody need say.
pub(super) struct Surroundings<'a>(&'a ProcessTemplate);

impl<'a> Surroundings<'a> {
    pub(super) const fn of(template: &'a ProcessTemplate) -> Self {
        Self(template)
    }
}

/// Each field with its name in the hash. An order or name that changes restarts every process that says it.
macro_rules! surroundings {
    ($($name:literal: $($field:ident).+,)*) => {
        impl Serialize for Surroundings<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let unsaid = ProcessTemplate::of(Vec::new());
                let mut map = serializer.serialize_map(None)?;
                $(
                    if self.0.$($field).+ != unsaid.$($field).+ {
                        map.serialize_entry($name, &self.0.$($field).+)?;
                    }
                )*
                map.end()
            }
        }

        /// Whether nothing is said of any of them.
        pub(super) fn is_none_of_these(Surroundings(template): &Surroundings<'_>) -> bool {
            let unsaid = ProcessTemplate::of(Vec::new());
            [$(template.$($field).+ == unsaid.$($field).+),*].into_iter().all(|is_unsaid| is_unsaid)
        }
    };
}

surroundings! {
    "artifacts": artifacts,
    "type": kind,
    "supplementaryGroups": supplementary_groups,
    "umask": umask,
    "environmentFile": environment_file,
    "credentials": credentials,
    "rollOnSecretChange": roll_on_secret_change,
    "secretVersions": secret_versions,
    "nice": nice,
    "oomScoreAdjust": oom_score_adjust,
    "noNewPrivileges": no_new_privileges,
    "ambientCapabilities": ambient_capabilities,
    "capabilityBoundingSet": capability_bounding_set,
    "stateDirectory": state_directory,
    "cacheDirectory": cache_directory,
    "logsDirectory": logs_directory,
    "runtimeDirectory": runtime_directory,
    "privateTmp": private_tmp,
    "readOnlyPaths": read_only_paths,
    "execStartPre": exec_start_pre,
    "execReload": exec_reload,
    "execStop": exec_stop,
    "execStopPost": exec_stop_post,
    "timeoutStartSec": timeout_start_sec,
    "watchdogSec": watchdog_sec,
    "killMode": kill_mode,
    "preStopDelay": pre_stop_delay,
    "reloadSignal": reload_signal,
    "successExitStatus": success_exit_status,
    "standardOutput": standard_output,
    "standardError": standard_error,
    "overflow": logs.overflow,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;

    use super::super::{LimitAction, Overflow, samples};
    use super::*;

    /// What can be had in place (CONTRACT.md section 2, the cost of a change).
    const IN_PLACE: [&str; 25] = [
        "resources",
        "tasksMax",
        "memoryMin",
        "memoryHigh",
        "memorySwapMax",
        "allowedCPUs",
        "ioReadBandwidthMax",
        "ioWriteBandwidthMax",
        "cpuWeight",
        "ioWeight",
        "limitNOFILE",
        "limitNPROC",
        "limitCORE",
        "limitMEMLOCK",
        "limitSTACK",
        "limitFSIZE",
        "limitAS",
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
        "logs",
        // What only moves a process, when its node no longer meets it.
        "nodeName",
        "nodeSelector",
        "tolerations",
        // What no process sees, unless a variable shows it.
        "labels",
    ];

    /// Everything else.
    const RESTART: [&str; 47] = [
        "command",
        "args",
        "artifacts",
        "type",
        "user",
        "group",
        "supplementaryGroups",
        "workingDirectory",
        "umask",
        "env",
        "environmentFile",
        "credentials",
        "rollOnSecretChange",
        "secretVersions",
        "ports",
        "nice",
        "oomScoreAdjust",
        "noNewPrivileges",
        "ambientCapabilities",
        "capabilityBoundingSet",
        "stateDirectory",
        "cacheDirectory",
        "logsDirectory",
        "runtimeDirectory",
        "privateTmp",
        "readOnlyPaths",
        "execStartPre",
        "execReload",
        "execStop",
        "execStopPost",
        "timeoutStartSec",
        "watchdogSec",
        "killSignal",
        "killMode",
        "timeoutStopSec",
        "preStopDelay",
        "reloadSignal",
        "restart",
        "successExitStatus",
        "restartSec",
        "restartMaxDelaySec",
        "startLimitBurst",
        "startLimitIntervalSec",
        "startLimitAction",
        "standardOutput",
        "standardError",
        "needs",
    ];

    fn json(template: &ProcessTemplate) -> Json {
        serde_json::to_value(template).expect("has a JSON form")
    }

    #[test]
    fn every_field_is_decided_on() {
        let base = ProcessTemplate {
            start_limit_action: LimitAction::Replace,
            ..ProcessTemplate::of(vec!["/x".to_owned()])
        };
        let mut every = samples::every();
        every.labels.insert("app".to_owned(), "every".to_owned());
        every.logs.overflow = Overflow::Drop;
        let Json::Object(fields) = json(&every) else { panic!("is a map") };
        let decided: BTreeSet<&str> = IN_PLACE.into_iter().chain(RESTART).collect();
        for (name, value) in fields {
            let mut changed = json(&base);
            changed[&name] = value;
            let changed: ProcessTemplate = serde_json::from_value(changed).expect("reads");
            assert_ne!(changed, base, "{name} has its default in the sample");
            assert!(decided.contains(name.as_str()), "{name}: say what a change of it costs");
            let restarts = changed.restart_hash() != base.restart_hash();
            assert_eq!(restarts, RESTART.contains(&name.as_str()), "{name}");
        }
        for field in crate::manifest::schema::TEMPLATE.fields {
            let is_served = !matches!(field.presence, crate::manifest::schema::Presence::Reserved);
            assert_eq!(decided.contains(field.name), is_served, "{}", field.name);
        }
        let mut blocking = base.clone();
        blocking.logs.overflow = Overflow::Block;
        assert_ne!(
            blocking.restart_hash(),
            base.restart_hash(),
            "who waits for a disk is decided at the start"
        );
    }

    /// What was stored before these fields were known must not restart by an upgrade.
    #[test]
    fn a_template_that_says_nothing_of_them_hashes_as_ever() {
        let hash = ProcessTemplate::of(vec!["/x".to_owned()]).restart_hash().to_string();
        assert_eq!(hash, "95fecf87a2936e71246f76538190cf60529366fca581b0296f2dea7c9a27edb9");
    }
}
