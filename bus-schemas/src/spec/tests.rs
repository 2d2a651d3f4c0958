//! Wire forms, and the few decisions that live beside the data.

use super::samples::{configfile, deployment, template};
use super::*;
use crate::ids::Version;
use crate::quantity::{CountOrPercent, Cpu, Dur, Mode, Rlimit, Size};

fn taint(key: &str, value: &str, effect: TaintEffect) -> Taint {
    Taint { key: key.to_owned(), value: value.to_owned(), effect }
}

fn toleration(key: Option<&str>, operator: TolerationOperator, value: &str) -> Toleration {
    let key = key.map(str::to_owned);
    Toleration { key, operator, value: value.to_owned(), effect: None, toleration_time: None }
}

#[test]
fn every_spec_survives_json_and_messagepack() {
    let specs = [
        Spec::Node(NodeSpec::default()),
        Spec::Namespace(NamespaceSpec::default()),
        Spec::Process(Box::new(ProcessSpec(template()))),
        Spec::Deployment(Box::new(deployment())),
        Spec::ConfigFile(Box::new(configfile())),
    ];
    for spec in specs {
        let bytes = rmp_serde::to_vec_named(&spec).expect("encodes");
        assert_eq!(rmp_serde::from_slice::<Spec>(&bytes).expect("decodes"), spec);
        let json = spec.to_json().expect("has a JSON form");
        assert_eq!(Spec::from_json(spec.kind(), json).expect("reads"), Some(spec));
    }
    assert_eq!(Spec::from_json(Kind::Secret, serde_json::Value::Null).expect("no error"), None);
}

#[test]
fn json_has_the_names_of_manifests() {
    let json = serde_json::to_value(deployment()).expect("has a JSON form");
    assert_eq!(json["strategy"]["type"], "RollingUpdate");
    assert_eq!(json["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert_eq!(json["rollout"]["onFailure"], "rollback");
    let spec = &json["template"]["spec"];
    assert_eq!(spec["timeoutStopSec"], "30s");
    assert_eq!(spec["limitNOFILE"], "1024:524288");
    assert_eq!(spec["startLimitAction"], "replace");
    assert_eq!(serde_json::to_value(configfile()).expect("has a JSON form")["mode"], "0644");
}

#[test]
fn a_restart_is_needed_only_for_what_cannot_change_in_place() {
    let base = template().restart_hash();
    let same = |change: fn(&mut ProcessTemplate)| {
        let mut other = template();
        change(&mut other);
        other != template() && other.restart_hash() == base
    };
    assert!(same(|t| t.resources.limits.cpu = Some(Cpu::from_millis(1))));
    assert!(same(|t| t.limit_nofile = Rlimit::new(1, 2).expect("ordered")));
    assert!(same(|t| {
        t.node_selector.insert("role".to_owned(), "web".to_owned());
    }));
    assert!(same(|t| t.node_name = "web-1".parse().ok()));
    assert!(same(|t| t.tolerations = vec![toleration(None, TolerationOperator::Exists, "")]));
    assert!(!same(|t| t.args.push("x".to_owned())));
    assert!(!same(|t| t.timeout_stop_sec = Dur::from_secs(1)));
    assert!(!same(|t| t.needs = vec!["path:/x".parse().expect("is a need")]));
}

#[test]
fn limits_count_for_the_restart_when_a_variable_shows_them() {
    let field_ref = FieldRef { field_path: FieldPath::LimitMemory };
    let shown =
        EnvVar { name: "M".to_owned(), value: None, value_from: Some(EnvSource::FieldRef(field_ref)) };
    let with = |mib, cpu| {
        let mut t = template();
        t.env = vec![shown.clone()];
        t.resources.limits = Amounts { cpu: Some(Cpu::from_millis(cpu)), memory: Some(Size::from_mib(mib)) };
        t.restart_hash()
    };
    assert_ne!(with(1, 1), with(2, 1));
    assert_eq!(with(1, 1), with(1, 2));
}

#[test]
fn labels_count_for_the_restart_when_a_variable_shows_them_and_travel_with_the_stored_template() {
    let labels = |app: &str, tier: &str| -> Labels {
        [("app", app), ("tier", tier)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    };
    let with = |env: &[EnvVar], labels| {
        let spec = Spec::Process(Box::new(ProcessSpec(ProcessTemplate { env: env.to_vec(), ..template() })));
        spec.template_to_store(&labels).expect("a template")
    };
    let field_ref = FieldRef { field_path: FieldPath::Label("app".to_owned()) };
    let shown =
        [EnvVar { name: "A".to_owned(), value: None, value_from: Some(EnvSource::FieldRef(field_ref)) }];
    let hash = |env: &[EnvVar], app, tier| with(env, labels(app, tier)).restart_hash();
    assert_eq!(hash(&[], "a", "b"), hash(&[], "c", "d"));
    assert_eq!(hash(&shown, "a", "b"), hash(&shown, "a", "d"));
    assert_ne!(hash(&shown, "a", "b"), hash(&shown, "c", "b"));
    let stored = with(&shown, labels("a", "b"));
    let back: ProcessTemplate =
        crate::codec::decode(&crate::codec::encode(&stored).expect("encodes")).expect("decodes");
    assert_eq!(back, stored);
    let bare = crate::codec::encode(&template()).expect("encodes");
    assert!(!bare.windows(7).any(|w| w == b"\xa6labels"), "without labels its bytes are as they ever were");
}

#[test]
fn selectors_need_every_pair() {
    let labels: Labels = [("role", "web"), ("rack", "r7")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let pick = |k: &str, v: &str| -> Labels { [(k.to_owned(), v.to_owned())].into() };
    assert!(selects(&Labels::new(), &labels));
    assert!(selects(&pick("role", "web"), &labels));
    assert!(!selects(&pick("role", "db"), &labels));
    assert!(!selects(&pick("dc", "ams"), &labels));
}

#[test]
fn tolerations_as_in_kubernetes() {
    use TolerationOperator::{Equal, Exists};
    let lost = taint("ostler/lost", "", TaintEffect::NoExecute);
    let disk = taint("maintenance", "disk", TaintEffect::NoSchedule);
    assert_eq!(tolerates(&[], &lost), None);
    assert_eq!(tolerates(&[toleration(None, Exists, "")], &lost), Some(None));
    assert_eq!(tolerates(&[toleration(Some("ostler/lost"), Exists, "")], &lost), Some(None));
    assert_eq!(tolerates(&[toleration(Some("ostler/lost"), Exists, "")], &disk), None);
    assert_eq!(tolerates(&[toleration(Some("maintenance"), Equal, "disk")], &disk), Some(None));
    assert_eq!(tolerates(&[toleration(Some("maintenance"), Equal, "cpu")], &disk), None);
    assert_eq!(tolerates(&[toleration(None, Equal, "disk")], &disk), None);
    let mut bounded = toleration(Some("ostler/lost"), Exists, "");
    bounded.toleration_time = Some(Dur::from_secs(5));
    let endless = toleration(None, Exists, "");
    assert_eq!(tolerates(&[endless, bounded.clone()], &lost), Some(Some(Dur::from_secs(5))));
    bounded.effect = Some(TaintEffect::NoSchedule);
    assert_eq!(tolerates(&[bounded], &lost), None);
}

#[test]
fn requests_fall_back_to_limits_and_then_to_the_least() {
    let mut resources = Resources::default();
    assert_eq!(resources.effective_requests(), Requests::LEAST);
    resources.limits.cpu = Some(Cpu::from_millis(500));
    assert_eq!(resources.effective_requests().cpu, Cpu::from_millis(500));
    resources.requests.cpu = Some(Cpu::from_millis(200));
    assert_eq!(resources.effective_requests().cpu, Cpu::from_millis(200));
    assert_eq!(resources.effective_requests().memory, Size::from_mib(16));
}

#[test]
fn needs_are_read_and_written() {
    for text in [
        "configfile/app",
        "configfile/app@>=7",
        "deployment/web",
        "daemonset/x",
        "process/db",
        "mount:/srv",
        "path:/x",
    ] {
        assert_eq!(text.parse::<Need>().map(|n| n.to_string()), Ok(text.to_owned()));
    }
    for bad in [
        "",
        "app",
        "secret/x",
        "configfile/",
        "configfile/a@7",
        "configfile/a@>=0",
        "process/a@>=1",
        "mount:x",
    ] {
        assert!(bad.parse::<Need>().is_err(), "{bad}");
    }
    let need: Need = "configfile/app@>=7".parse().expect("is a need");
    assert!(matches!(need, Need::ConfigFile { at_least: Some(Version(7)), .. }));
}

#[test]
fn field_paths_are_read_and_written() {
    for text in ["metadata.name", "metadata.labels['a']", "node.labels['rack']", "node.addresses['internal']"]
    {
        assert_eq!(text.parse::<FieldPath>().map(|p| p.to_string()), Ok(text.to_owned()));
    }
    for bad in
        ["", "metadata", "node.labels", "node.labels['']", "node.labels['a'b']", "node.addresses['public']"]
    {
        assert!(bad.parse::<FieldPath>().is_err(), "{bad}");
    }
}

#[test]
fn something_can_always_be_exchanged() {
    let mut strategy = deployment().strategy;
    assert_eq!(strategy.bounds(6), (2, 1));
    assert_eq!(strategy.bounds(1), (1, 0));
    strategy.rolling_update = Some(RollingUpdate {
        max_surge: CountOrPercent::Count(0),
        max_unavailable: CountOrPercent::Percent(25),
    });
    assert_eq!(strategy.bounds(3), (0, 1));
    strategy.kind = StrategyType::Recreate;
    assert_eq!(strategy.bounds(3), (0, 3));
}

#[test]
fn a_new_version_of_a_file_is_new_content_or_attributes() {
    let base = configfile();
    let mut other = base.clone();
    other.drift = Drift::Warn;
    assert!(!base.is_new_version(&other));
    other.mode = Mode::from_bits(0o600);
    assert!(base.is_new_version(&other));
}

#[test]
fn variables_are_found_and_filled_in() {
    let of = |name: &str| (name == "A").then(|| "x".to_owned());
    for (text, expanded) in [
        ("$(A)", "x"),
        ("a$(A)$(A)b", "axxb"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$$(A)"),
        ("$$(A) $(A)", "$(A) x"),
        ("$(ls -l) $A $$ $( $", "$(ls -l) $A $$ $( $"),
        ("", ""),
    ] {
        assert_eq!(expand(text, of), Ok(expanded.to_owned()), "{text}");
    }
    assert_eq!(expand("$(A) $(B)", of), Err("B"));
    assert_eq!(port_variable("http-alt"), "OSTLER_PORT_HTTP_ALT");
}
