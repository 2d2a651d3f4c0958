//! Complete specs for tests of this crate.

use super::*;
use crate::quantity::{CountOrPercent, Mode};

/// A template with nothing but a command.
pub(crate) fn template() -> ProcessTemplate {
    ProcessTemplate {
        start_limit_action: LimitAction::Replace,
        ..ProcessTemplate::of(vec!["/usr/bin/app".to_owned()])
    }
}

/// The default rollout.
pub(crate) fn rollout() -> Rollout {
    Rollout::default()
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
        paused: false,
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
        template: None,
        files: Vec::new(),
        unlisted: Unlisted::Keep,
        vars: Vars::new(),
        overrides: Vec::new(),
        owner: "root".to_owned(),
        group: None,
        mode: Mode::from_bits(0o644),
        create_directories: true,
        validator: None,
        drift: Drift::Enforce,
        on_existing: OnExisting::Replace,
        on_remove: OnRemove::Keep,
        on_change: Vec::new(),
        probe: None,
        paused: false,
        rollout: rollout(),
    }
}

/// A template in which every field has another value than its default, from the manifest of which a test shows that it is
/// read so. What cannot be given together is from two of its documents.
pub(crate) fn every() -> ProcessTemplate {
    let text = include_bytes!("../../fixtures/manifests/good/runtime.yaml");
    let read = crate::manifest::read_manifests(None, text, &crate::manifest::Options::default());
    let mut templates: Vec<ProcessTemplate> = read
        .unwrap_or_else(|refusal| panic!("is good: {refusal}"))
        .into_iter()
        .filter_map(|manifest| manifest.body.process_template().cloned())
        .collect();
    let startup_probe = templates.pop().and_then(|last| last.startup_probe);
    // Never in a manifest: the API server sets it.
    let (u, v) = (crate::ids::Uid::from_bytes([7; 16]), crate::ids::Version(3));
    let secret = crate::v1::secret::SecretVersion { u, v };
    let secret_versions = BTreeMap::from([("db".parse().expect("a name"), secret)]);
    ProcessTemplate { startup_probe, secret_versions, ..templates.swap_remove(0) }
}
