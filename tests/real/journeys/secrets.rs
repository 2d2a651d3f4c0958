//! Secrets: who gets them, and that nobody else does. At the end every file that the fleet has written is searched.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::fleet::{Fleet, Size, until};
use ostler_bus::sealing::KeyRing;
use ostler_schemas::hash::sha256;
use ostler_schemas::sealing::PublicKey;

use super::host::{on_host, signal};

const FIRST: &str = "correct-horse-7f3a91c2";
const SECOND: &str = "battery-staple-91b7e3d0";

fn secret(password: &str) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: Secret\nmetadata: {{name: db}}\nspec: {{stringData: {{password: {password}, user: app}}}}\n"
    )
}

const WEB: &str = "---
apiVersion: ostler/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  rollout: {bake: 0s}
  template:
    spec:
      command: [/bin/sleep, \"100000\"]
      env:
        - {name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
        - {name: DB_URL, value: \"postgres://app:$(DB_PASSWORD)@db\"}
        - {name: TOKEN, valueFrom: {secretKeyRef: {name: none, key: token, optional: true}}}
      credentials: [{name: db-password, secretKeyRef: {name: db, key: password}}]
      rollOnSecretChange: true
";

/// The variables that a process was started with.
fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
}

fn variable(pid: u32, name: &str) -> Option<String> {
    environment(pid).into_iter().find_map(|v| v.strip_prefix(&format!("{name}=")).map(str::to_owned))
}

/// What a process was given, by variable and by file.
fn given(pid: u32) -> Option<(String, String)> {
    let folder = PathBuf::from(variable(pid, "CREDENTIALS_DIRECTORY")?);
    let file = folder.join("db-password");
    assert_eq!(fs::metadata(&file).ok()?.mode() & 0o777, 0o400);
    assert_eq!(fs::metadata(&folder).ok()?.mode() & 0o777, 0o500);
    Some((variable(pid, "DB_PASSWORD")?, fs::read_to_string(file).ok()?))
}

fn all_have(fleet: &Fleet, password: &str) -> Vec<u32> {
    until(&format!("both processes have the value of {} letters", password.len()), || {
        let running = fleet.running("web");
        let pids: Vec<u32> = running.values().map(|process| process.pid).collect();
        let both = (password.to_owned(), password.to_owned());
        (pids.len() == 2 && pids.iter().all(|pid| given(*pid).as_ref() == Some(&both))).then_some(pids)
    })
}

/// Each form in which a value could have been written down.
fn forms(value: &str) -> Vec<(&'static str, Vec<u8>)> {
    let hash = sha256(value.as_bytes());
    let hex: String = value.bytes().map(|b| format!("{b:02x}")).collect();
    vec![
        ("as it is", value.as_bytes().to_vec()),
        ("base64", STANDARD.encode(value).into_bytes()),
        ("hex", hex.into_bytes()),
        ("its hash", hash.as_bytes().to_vec()),
        ("its hash, hex", hash.to_string().into_bytes()),
        ("its hash, base64", STANDARD.encode(hash.as_bytes()).into_bytes()),
    ]
}

/// Files below a folder in which a value stands in any form. Credentials are on memory, and are looked at elsewhere.
fn leaks(folder: &Path, value: &str, found: &mut Vec<String>) -> usize {
    let mut looked = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            looked += leaks(&path, value, found);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            looked += 1;
            for (form, wanted) in forms(value) {
                if memchr::memmem::find(&bytes, &wanted).is_some() {
                    found.push(format!("{} has {value:?} ({form})", path.display()));
                }
            }
        }
    }
    looked
}

fn quiet(text: &str) -> &str {
    for value in [FIRST, SECOND] {
        for (form, wanted) in forms(value) {
            assert!(memchr::memmem::find(text.as_bytes(), &wanted).is_none(), "{form} of {value} in {text}");
        }
    }
    text
}

#[test]
fn a_secret_reaches_those_who_refer_to_it_and_no_file_of_the_fleet() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    let missing = fleet.run_with(&["apply", "-f", "-"], WEB).ends(1);
    assert!(missing.contains("refers to secret/db, which does not exist in namespace default"), "{missing}");
    fleet.run_with(&["apply", "-f", "-"], &(secret(FIRST) + WEB)).ok();
    let first = all_have(&fleet, FIRST);
    for pid in &first {
        assert_eq!(variable(*pid, "DB_URL"), Some(format!("postgres://app:{FIRST}@db")));
        assert_eq!(variable(*pid, "TOKEN"), None, "what is optional and not there is not set");
    }

    let table = fleet.ok(&["get", "secrets"]);
    let row: Vec<&str> =
        quiet(&table).lines().nth(1).unwrap_or_default().split_whitespace().take(4).collect();
    assert_eq!(row, ["db", "2", "1", "1"], "{table}");
    let shown = fleet.ok(&["get", "secret/db", "-o", "yaml"]);
    assert!(quiet(&shown).contains("keep:") && shown.contains("size: 22"), "{shown}");
    quiet(&fleet.ok(&["get", "secret/db", "-o", "json"]));
    quiet(&fleet.ok(&["get", "deployment/web", "-o", "yaml"]));
    assert!(quiet(&fleet.ok(&["describe", "secret/db"])).contains("deployment/web"));
    let again = fleet.run_with(&["apply", "-f", "-"], &(secret(FIRST) + WEB)).ok();
    assert_eq!(again, "secret/db unchanged\ndeployment/web unchanged\n");
    let exported = fleet.run_with(&["apply", "-f", "-"], &shown).ok();
    assert_eq!(exported, "secret/db unchanged\n", "what was exported wipes nothing");
    let refused = fleet.run(&["delete", "secret/db"]).ends(1);
    assert!(refused.contains("is needed by deployment/web"), "{refused}");

    let diff = fleet.run_with(&["diff", "-f", "-"], &secret(SECOND)).ends(1);
    assert!(quiet(&diff).contains("of version 2"), "{diff}");
    fleet.run_with(&["apply", "-f", "-"], &secret(SECOND)).ok();
    let second = all_have(&fleet, SECOND);
    assert!(second.iter().all(|pid| !first.contains(pid)), "a changed secret is a new version");

    // Without the bus a process starts again with what its node has sealed.
    let servers = fleet.state()["servers"].as_array().cloned().unwrap_or_default();
    let servers: Vec<u64> = servers.iter().filter_map(|s| s["pid"].as_u64()).collect();
    assert_eq!(servers.len(), 1);
    servers.iter().for_each(|pid| signal("-STOP", *pid));
    let own = variable(second[0], "OSTLER_UID").expect("has a uid");
    signal("-KILL", u64::from(second[0]));
    let alone = until("it is started again without the bus", || {
        let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != second[0]).find(|pid| {
            variable(*pid, "OSTLER_UID").as_deref() == Some(&own)
                && given(*pid).is_some_and(|(value, file)| value == SECOND && file == SECOND)
        })
    });
    servers.iter().for_each(|pid| signal("-CONT", *pid));
    assert_ne!(alone, second[0]);
    all_have(&fleet, SECOND);

    quiet(&fleet.ok(&["events", "-A", "-o", "json"]));
    let mut found = Vec::new();
    let looked: usize = [FIRST, SECOND].iter().map(|value| leaks(fleet.folder(), value, &mut found)).sum();
    assert!(found.is_empty() && looked > 20, "{looked} files, {found:#?}");
    // A search that finds nothing may be blind: it finds what is planted.
    let plant = fleet.folder().join("planted");
    fs::write(&plant, format!("x{}", sha256(FIRST.as_bytes()))).expect("writes");
    leaks(fleet.folder(), FIRST, &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
}

/// Kills a daemon, and waits until another has taken its place.
fn again(fleet: &Fleet, daemon: &str) {
    let before = fleet.daemons()[daemon];
    signal("-KILL", before);
    until(&format!("{daemon} is started again"), || {
        fleet.daemons().get(daemon).filter(|pid| **pid != before).copied()
    });
}

/// Whether something in the store of the servers is sealed to this key.
fn is_sealed_to(fleet: &Fleet, key: PublicKey) -> bool {
    fn any(folder: &Path, wanted: &[u8]) -> bool {
        fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => any(&entry.path(), wanted),
            _ => memchr::memmem::find(&fs::read(entry.path()).unwrap_or_default(), wanted).is_some(),
        })
    }
    any(&fleet.folder().join("dev/store"), key.to_string().as_bytes())
}

#[test]
fn keys_of_the_control_plane_and_of_a_node_rotate_under_what_runs() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    fleet.run_with(&["apply", "-f", "-"], &(secret(FIRST) + WEB)).ok();
    let running = all_have(&fleet, FIRST);

    let file = fleet.setup().join("controller/secrets.key");
    let newest = || KeyRing::load(&file).expect("a ring of keys").newest().expect("a key");
    let (old, out) = (newest(), fleet.setup());
    fleet.ok(&["setup", "--out", out.to_str().expect("a name"), "--rotate-secret-key"]);
    let fresh = newest();
    assert_ne!(fresh, old);
    assert!(is_sealed_to(&fleet, old) && !is_sealed_to(&fleet, fresh));
    again(&fleet, "pid controller-1");
    until("the Secret is sealed anew", || is_sealed_to(&fleet, fresh).then_some(()));
    let text = fs::read_to_string(&file).expect("reads");
    let without_old: String = text.lines().take(text.lines().count() - 1).map(|l| format!("{l}\n")).collect();
    fs::write(&file, without_old).expect("writes");
    assert_eq!(KeyRing::load(&file).expect("still a ring").public_keys(), [fresh]);
    again(&fleet, "pid controller-1");

    let node = fleet.folder().join("dev/hosts/node-1/state/secrets.key");
    let newest = || KeyRing::load(&node).expect("a ring of keys").newest().expect("a key");
    let old = newest();
    let (code, said) = on_host(&fleet, "node-1", &["rotate-key"]);
    assert!(code == 0 && said.contains("systemctl restart ostler-agent"), "{said}");
    assert_ne!(newest(), old);
    again(&fleet, "agent node-1");
    let text = fs::read_to_string(&node).expect("reads");
    fs::write(&node, text.lines().next().expect("a key")).expect("writes");
    again(&fleet, "agent node-1");

    assert_eq!(all_have(&fleet, FIRST), running, "nothing was restarted for it");
    // What starts now is opened with the new keys alone.
    signal("-KILL", u64::from(running[0]));
    until("it is started again, with the value", || {
        let pids: Vec<u32> = fleet.running("web").values().map(|process| process.pid).collect();
        let has = |pid: &u32| given(*pid).is_some_and(|(value, _)| value == FIRST);
        (pids.len() == 2 && !pids.contains(&running[0]) && pids.iter().all(has)).then_some(())
    });
    fleet.run_with(&["apply", "-f", "-"], &secret(SECOND)).ok();
    all_have(&fleet, SECOND);
}
