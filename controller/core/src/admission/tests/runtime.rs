//! Templates with every field of the process runtime: what is shown of them can be applied again.

use ostler_schemas::manifest::{to_yaml, written_spec};
use ostler_schemas::spec::{SecretSpec, SecretValue, Spec};
use ostler_schemas::v1::api::ApplyOutcome;
use ostler_schemas::{Kind, Version};

use super::super::Apply;
use super::applied;
use crate::status::rig::{Rig, object, uid};

/// The fixture, less what must exist beside it.
fn every_field() -> String {
    let fixture = include_str!("../../../../../bus-schemas/fixtures/manifests/good/runtime.yaml");
    fixture
        .replace("needs: [configfile/app-conf@>=7]", "needs: []")
        .replace("nodeName: web-001", "nodeName: a")
}

/// As `get -o yaml` writes it, less the status.
fn shown(rig: &Rig, name: &str) -> String {
    let stored = rig.fleet.objects.get(&object(Kind::Process, name)).expect("is stored");
    let spec = written_spec(&stored.spec, &|_| None).expect("has a JSON form");
    to_yaml(&serde_json::json!({
        "apiVersion": "ostler/v1",
        "kind": "Process",
        "metadata": { "name": name, "labels": stored.metadata.labels },
        "spec": spec,
    }))
}

/// The Secret that one of them refers to.
fn secret(rig: &mut Rig) {
    let value = SecretValue { size: 1, since: Version(1), sealed: None };
    let spec = SecretSpec { immutable: false, values: [("password".to_owned(), value)].into() };
    rig.object(object(Kind::Secret, "db"), uid(7), Spec::Secret(Box::new(spec)));
}

fn outcomes(apply: &Apply) -> Vec<ApplyOutcome> {
    apply.results.iter().map(|result| result.outcome).collect()
}

#[test]
fn what_get_shows_is_unchanged_and_a_change_of_any_field_is_one() {
    let mut rig = Rig::new();
    rig.node("a", 1);
    secret(&mut rig);
    assert_eq!(outcomes(&applied(&mut rig, &every_field())), [ApplyOutcome::Created; 3]);
    assert_eq!(outcomes(&applied(&mut rig, &every_field())), [ApplyOutcome::Unchanged; 3]);
    for name in ["every", "once", "slow"] {
        let yaml = shown(&rig, name);
        assert_eq!(outcomes(&applied(&mut rig, &yaml)), [ApplyOutcome::Unchanged], "{yaml}");
    }
    let yaml = shown(&rig, "every");
    for (is, asked) in [
        ("umask: \"0027\"", "umask: \"0022\""),
        ("maxFiles: 2", "maxFiles: 3"),
        ("allowedCPUs: \"0-3,8\"", "allowedCPUs: 0-3"),
        ("mode: \"0440\"", "mode: \"0444\""),
        ("ioWriteBandwidthMax: 1536Ki", "ioWriteBandwidthMax: 1M"),
    ] {
        assert!(yaml.contains(is), "{is} is shown:\n{yaml}");
        let changed = yaml.replacen(is, asked, 1);
        assert_eq!(outcomes(&applied(&mut rig, &changed)), [ApplyOutcome::Configured], "{asked}");
    }
}
