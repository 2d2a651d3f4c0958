use super::*;
use crate::entropy::SeededEntropy;

fn options(nodes: &[&str]) -> Options {
    Options {
        rotate_secret_key: false,
        servers: vec![Server {
            name: "s1".parse().expect("a name"),
            host: "127.0.0.1".to_owned(),
            listen: "127.0.0.1".to_owned(),
            client_port: 4222,
            cluster_port: 6222,
            store_dir: "/tmp/none".into(),
        }],
        nodes: nodes.iter().map(|n| n.parse().expect("a name")).collect(),
        operators: ["anna".parse().expect("a name")].into(),
        simulated: BTreeMap::new(),
    }
}

fn generated(nodes: &[&str], existing: &Files, seed: u64) -> Files {
    generate(&options(nodes), Path::new("/out"), existing, &SeededEntropy::from_number(seed)).expect("files")
}

#[test]
fn a_second_run_keeps_every_key_and_adds_names() {
    let first = generated(&["n1"], &Files::new(), 1);
    let second = generated(&["n2"], &first, 2);
    for (path, file) in &first {
        if path.ends_with(".nk") || path.ends_with(".pem") {
            assert_eq!(Some(file), second.get(path), "{path}");
        }
    }
    let conf = String::from_utf8_lossy(&second["nats/s1.conf"].bytes);
    assert!(conf.contains("beat.n1") && conf.contains("beat.n2"));
    assert_eq!(generated(&[], &second, 3), second);
}

#[test]
fn one_name_is_one_party() {
    let both =
        generate(&options(&["anna"]), Path::new("/out"), &Files::new(), &SeededEntropy::from_number(1));
    assert!(matches!(both, Err(SetupError::NameTaken { name }) if name == "anna"));
}

#[test]
fn secrets_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a folder");
    let files = run(dir.path(), &options(&["n1"]), &SeededEntropy::from_number(1)).expect("written");
    for (path, file) in &files {
        let mode = std::fs::metadata(dir.path().join(path)).expect("written").permissions().mode() & 0o777;
        let is_secret = [".nk", "-key.pem", "secrets.key"].iter().any(|end| path.ends_with(end));
        assert_eq!(file.secret, is_secret, "{path}");
        assert_eq!(mode, if is_secret { 0o600 } else { 0o644 }, "{path}");
    }
    let again = run(dir.path(), &options(&["n1"]), &SeededEntropy::from_number(9)).expect("written");
    assert_eq!(files, again);
}

#[test]
fn hosts_are_hosts() {
    let mut six = options(&[]);
    six.servers[0].host = "fd00::1".to_owned();
    let files =
        generate(&six, Path::new("/out"), &Files::new(), &SeededEntropy::from_number(1)).expect("files");
    let toml = String::from_utf8_lossy(&files["controller/controller.toml"].bytes).into_owned();
    assert!(toml.contains("tls://[fd00::1]:4222"), "{toml}");
    for bad in ["", "a b", "x\"\ny", "a/b"] {
        let mut options = options(&[]);
        options.servers[0].host = bad.to_owned();
        let refused = generate(&options, Path::new("/out"), &Files::new(), &SeededEntropy::from_number(1));
        assert!(matches!(refused, Err(SetupError::BadHost { .. })), "{bad:?}");
    }
}

#[test]
fn simulated_nodes_are_added_and_are_nobody_else() {
    let simulated = |count: u32, nodes: &[&str], existing: &Files| {
        let simulated = BTreeMap::from([("sim".parse().expect("a name"), count)]);
        let options = Options { simulated, ..options(nodes) };
        generate(&options, Path::new("/out"), existing, &SeededEntropy::from_number(1))
    };
    let few = simulated(2, &[], &Files::new()).expect("files");
    let text = |files: &Files, path: &str| String::from_utf8_lossy(&files[path].bytes).into_owned();
    let many = simulated(501, &[], &few).expect("files");
    assert_eq!(simulated(1, &[], &many).expect("files"), many, "none is taken away");
    let (first, second) = ("simulated/sim/block-001.nk", "simulated/sim/block-002.nk");
    assert_eq!(few[first], many[first]);
    assert!(many[second].secret && !few.contains_key(second));
    let identities: Vec<Identified> =
        serde_json::from_slice(&many["controller/identities.json"].bytes).expect("a list");
    let of = |name: &str| identities.iter().find(|i| i.name == name).map(|i| i.nkey.as_str());
    assert_eq!(of("sim-00001"), of("sim-00500"));
    assert!(of("sim-00501").is_some() && of("sim-00501") != of("sim-00001") && of("sim-00502").is_none());
    assert!(text(&many, "nats/s1.conf").contains("beat.sim-00501"));
    let fleet: SimulatedFleet =
        serde_json::from_slice(&many["simulated/sim/fleet.json"].bytes).expect("a fleet");
    let connections = fleet.connections(Path::new("/out/simulated/sim"));
    assert_eq!(connections[1].1.credentials, Path::new("/out").join(second));
    let taken = simulated(2, &["sim-00002"], &Files::new());
    assert!(matches!(taken, Err(SetupError::NameTaken { name }) if name == "sim-00002"));
    assert!(matches!(simulated(100_000, &[], &Files::new()), Err(SetupError::Simulated { .. })));
}
