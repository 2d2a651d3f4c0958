//! Complete specs for tests of this crate.

use super::*;
use crate::quantity::{CountOrPercent, Dur, Mode, Rlimit, Signal};

/// A template with nothing but a command.
pub(crate) fn template() -> ProcessTemplate {
    ProcessTemplate {
        command: vec!["/usr/bin/app".to_owned()],
        args: Vec::new(),
        env: Vec::new(),
        user: None,
        group: None,
        working_directory: "/".to_owned(),
        ports: Vec::new(),
        resources: Resources::default(),
        kill_signal: Signal::TERM,
        timeout_stop_sec: Dur::from_secs(30),
        restart: Restart::Always,
        restart_sec: Dur::from_secs(1),
        restart_max_delay_sec: Dur::from_secs(60),
        start_limit_burst: 5,
        start_limit_interval_sec: Dur::from_secs(600),
        start_limit_action: LimitAction::Replace,
        readiness_probe: None,
        node_selector: Labels::new(),
        node_name: None,
        tolerations: Vec::new(),
        limit_nofile: Rlimit::NOFILE,
        needs: Vec::new(),
        labels: Default::default(),
    }
}

/// The default rollout.
pub(crate) fn rollout() -> Rollout {
    Rollout { waves: vec![CountOrPercent::ALL], bake: Dur::from_secs(10), on_failure: OnFailure::Rollback }
}

/// A small Deployment.
pub(crate) fn deployment() -> DeploymentSpec {
    let quarter = CountOrPercent::Percent(25);
    DeploymentSpec {
        replicas: 3,
        strategy: Strategy {
            kind: StrategyType::RollingUpdate,
            rolling_update: Some(RollingUpdate { max_surge: quarter, max_unavailable: quarter }),
        },
        rollout: rollout(),
        template: Template { metadata: TemplateMeta::default(), spec: template() },
    }
}

/// A small ConfigFile.
pub(crate) fn configfile() -> ConfigFileSpec {
    ConfigFileSpec {
        path: "/etc/app.conf".to_owned(),
        node_selector: Labels::new(),
        content: None,
        owner: "root".to_owned(),
        group: None,
        mode: Mode::from_bits(0o644),
        create_directories: true,
        drift: Drift::Enforce,
        on_existing: OnExisting::Replace,
        on_remove: OnRemove::Keep,
        rollout: rollout(),
    }
}
