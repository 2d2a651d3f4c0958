//! What of a process's surroundings takes effect only in a new incarnation.
//!
//! Not here, because it can be had in place: resources, bounds of the control group, weights, resource limits,
//! probes, sizes of logs (CONTRACT.md section 2, the cost of a change). A test goes through every field by name.

use serde::Serialize;

use super::process::ProcessTemplate;
use super::{
    Artifact, Capability, EnvironmentFile, Exec, ExitStatus, KillMode, OutputTo, Overflow, ProcessType,
};
use crate::quantity::{Dur, Mode, Signal};

/// The fields; a part of the hash only where they are not all as nobody said anything.
#[derive(PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Surroundings<'a> {
    artifacts: &'a [Artifact],
    r#type: ProcessType,
    supplementary_groups: &'a [String],
    umask: Mode,
    environment_file: &'a [EnvironmentFile],
    nice: i32,
    oom_score_adjust: i32,
    no_new_privileges: bool,
    ambient_capabilities: &'a [Capability],
    capability_bounding_set: Option<&'a [Capability]>,
    directories: [&'a [String]; 4],
    private_tmp: bool,
    read_only_paths: &'a [String],
    exec_start_pre: &'a [Exec],
    exec_reload: Option<&'a Exec>,
    exec_stop: Option<&'a Exec>,
    exec_stop_post: Option<&'a Exec>,
    timeout_start_sec: Dur,
    watchdog_sec: Option<Dur>,
    kill_mode: KillMode,
    pre_stop_delay: Dur,
    reload_signal: Signal,
    success_exit_status: &'a [ExitStatus],
    outputs: [OutputTo; 2],
    overflow: Overflow,
}

impl<'a> Surroundings<'a> {
    pub(super) fn of(template: &'a ProcessTemplate) -> Self {
        Self {
            artifacts: &template.artifacts,
            r#type: template.kind,
            supplementary_groups: &template.supplementary_groups,
            umask: template.umask,
            environment_file: &template.environment_file,
            nice: template.nice,
            oom_score_adjust: template.oom_score_adjust,
            no_new_privileges: template.no_new_privileges,
            ambient_capabilities: &template.ambient_capabilities,
            capability_bounding_set: template.capability_bounding_set.as_deref(),
            directories: [
                &template.state_directory,
                &template.cache_directory,
                &template.logs_directory,
                &template.runtime_directory,
            ],
            private_tmp: template.private_tmp,
            read_only_paths: &template.read_only_paths,
            exec_start_pre: &template.exec_start_pre,
            exec_reload: template.exec_reload.as_ref(),
            exec_stop: template.exec_stop.as_ref(),
            exec_stop_post: template.exec_stop_post.as_ref(),
            timeout_start_sec: template.timeout_start_sec,
            watchdog_sec: template.watchdog_sec,
            kill_mode: template.kill_mode,
            pre_stop_delay: template.pre_stop_delay,
            reload_signal: template.reload_signal,
            success_exit_status: &template.success_exit_status,
            outputs: [template.standard_output, template.standard_error],
            overflow: template.logs.overflow,
        }
    }
}

/// Whether nothing was said of any of them: such templates hash as they did before these fields were known.
pub(super) fn is_none_of_these(surroundings: &Surroundings<'_>) -> bool {
    *surroundings == Surroundings::of(&ProcessTemplate::of(Vec::new()))
}
