//! What a process is confined by, seen from inside of it. Most of it takes root; what is left out says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ostler_agent::holder_client::{Events, HolderClient};
use ostler_agent::linux::{LinuxHost, OwnFolders};
use ostler_agent::ports::Host as _;
use ostler_agent_core::confine::Preparation;
use ostler_agent_core::holder::protocol::{
    Capabilities, Exit, Limits, PrivateTmp, ProcKey, Rlimit, RunAs, SetLimits, Spawn,
};
use ostler_schemas::spec::{EnvironmentFile, ProcessTemplate, features};
use ostler_schemas::v1::reason::Reason;

use super::refusal;
use super::rig::{Mode, Rig, exit_of, is_root, key, modes, tree_empty, until};

const NOBODY: u32 = 65_534;
const CHOWN: u64 = 1;
const NET_BIND_SERVICE: u64 = 1 << 10;

/// Without root nothing can be taken from a process or given to it.
fn left_out() -> bool {
    if !is_root() {
        eprintln!("skipped: needs root");
    }
    !is_root()
}

/// What a process wrote to its output, when it has ended.
async fn said(rig: &Rig, client: &HolderClient, events: &mut Events, spawn: Spawn) -> Vec<String> {
    let key = spawn.key;
    client.spawn(spawn).await.unwrap();
    assert_eq!(exit_of(events, key).await.exit, Exit::Code(0), "{}", rig.log_of(key));
    tree_empty(events, key).await;
    let log = until("the log is complete", || Some(rig.log_of(key)).filter(|l| l.contains("the end"))).await;
    log.lines().filter_map(|line| Some(line.split_once(" stdout F ")?.1.to_owned())).collect()
}

fn as_nobody(mut spawn: Spawn) -> Spawn {
    spawn.user = Some(RunAs { uid: NOBODY, gid: NOBODY, groups: vec![4_321, 4_322] });
    spawn
}

fn limit(resource: &str, soft: u64, hard: u64) -> Rlimit {
    Rlimit { resource: resource.to_owned(), soft, hard }
}

const STATUS: &str =
    "cat /proc/self/status; cat /proc/self/limits; cat /proc/self/oom_score_adj; nice; umask; echo the end";

#[tokio::test]
async fn everything_that_is_asked_is_seen_from_inside() {
    if left_out() {
        return;
    }
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        let mut spawn = as_nobody(rig.shell(key(1), STATUS));
        spawn.umask = 0o027;
        spawn.oom_score_adjust = 300;
        spawn.isolation.nice = 5;
        spawn.isolation.capabilities =
            Some(Capabilities { bounding: Some(NET_BIND_SERVICE | CHOWN), ambient: NET_BIND_SERVICE });
        spawn.rlimits = vec![
            limit("nofile", 321, 654),
            limit("nproc", 3_000, 4_000),
            limit("core", 0, 4_096),
            limit("memlock", 8_192, 8_192),
            limit("stack", 1 << 20, 2 << 20),
            limit("fsize", 1 << 30, 1 << 31),
            limit("as", 1 << 33, 1 << 34),
        ];
        let lines = said(&rig, &client, &mut events, spawn).await;
        let words: Vec<String> =
            lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in [
            "Uid: 65534 65534 65534 65534",
            "Groups: 4321 4322",
            "CapInh: 0000000000000400",
            "CapPrm: 0000000000000400",
            "CapEff: 0000000000000400",
            "CapBnd: 0000000000000401",
            "CapAmb: 0000000000000400",
            "NoNewPrivs: 1",
            "Max open files 321 654 files",
            "Max processes 3000 4000 processes",
            "Max core file size 0 4096 bytes",
            "Max locked memory 8192 8192 bytes",
            "Max stack size 1048576 2097152 bytes",
            "Max file size 1073741824 2147483648 bytes",
            "Max address space 8589934592 17179869184 bytes",
            "300",
            "5",
            "0027",
        ] {
            assert!(words.iter().any(|found| found == line), "{line:?} in {words:#?}");
        }
    }
}

#[tokio::test]
async fn without_being_given_any_nobody_but_root_has_capabilities() {
    if left_out() {
        return;
    }
    let rig = Rig::start(Mode::Plain).await;
    let (client, mut events) = rig.connect().await;
    let mut spawn = as_nobody(rig.shell(key(1), STATUS));
    spawn.isolation.capabilities = Some(Capabilities { bounding: Some(0), ambient: 0 });
    let lines = said(&rig, &client, &mut events, spawn).await;
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let line = format!("{name}:\t0000000000000000");
        assert!(lines.contains(&line), "{line} in {lines:#?}");
    }
    // Root has what it may have at all, also when it cannot gain anything by exec.
    let mut spawn = rig.shell(key(2), STATUS);
    spawn.isolation.capabilities = Some(Capabilities { bounding: Some(CHOWN), ambient: 0 });
    let lines = said(&rig, &client, &mut events, spawn).await;
    assert!(lines.contains(&"CapEff:\t0000000000000001".to_owned()), "{lines:#?}");
    let mut spawn = rig.shell(key(3), STATUS);
    spawn.isolation.capabilities = Some(Capabilities { bounding: None, ambient: NET_BIND_SERVICE });
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let all = own.lines().find(|line| line.starts_with("CapEff")).unwrap();
    let lines = said(&rig, &client, &mut events, spawn).await;
    assert!(lines.iter().any(|line| line == all), "{all} in {lines:#?}");
}

#[tokio::test]
async fn what_is_not_said_is_the_host_s_and_not_the_holder_s() {
    let rig = Rig::start(Mode::Plain).await;
    let (client, mut events) = rig.connect().await;
    let lines = said(&rig, &client, &mut events, rig.shell(key(1), STATUS)).await;
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = fs::read_to_string("/proc/1/limits").unwrap();
    let name = "Max core file size";
    // The soft one: the hard one can be lower, where the holder has less than the first process.
    assert_eq!(line(&lines.join("\n"), name)[4], line(&first, name)[4]);
}

#[tokio::test]
async fn its_own_tmp_and_read_only_paths_are_its_own() {
    if left_out() {
        return;
    }
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        if !client.welcome().features.iter().any(|name| name == "mounts") {
            eprintln!("skipped: this host gives nobody mounts of its own");
            return;
        }
        let dir = rig.folder.path();
        let make = |name: &str| {
            let path = dir.join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            path.display().to_string()
        };
        let (tmp, var_tmp, kept) = (make("tmp"), make("var-tmp"), make("kept"));
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let file = format!("ostler-test-{}", std::process::id());
        // The folder of the test is itself below /tmp, which the process sees as its own: hence /proc/1/root.
        let script = format!(
            "touch /tmp/{file} /var/tmp/{file} && ls /tmp /var/tmp; touch {kept}/x 2>&1 || true; \
             grep -c ' /tmp ' /proc/self/mountinfo; echo the end"
        );
        let kept_path = kept.clone();
        let mut spawn = as_nobody(rig.shell(key(1), &script));
        spawn.isolation.private_tmp = Some(PrivateTmp { tmp: tmp.clone(), var_tmp: var_tmp.clone() });
        let lines = said(&rig, &client, &mut events, spawn).await;
        assert!(lines.iter().filter(|line| **line == file).count() == 2, "{lines:#?}");
        assert!(Path::new(&tmp).join(&file).exists() && Path::new(&var_tmp).join(&file).exists());
        assert!(!Path::new("/tmp").join(&file).exists(), "the host's own was not touched");
        let mut spawn = rig.shell(key(2), &format!("touch {kept}/x 2>&1; touch {tmp}/y && echo the end"));
        spawn.isolation.read_only_paths = vec![kept_path];
        let lines = said(&rig, &client, &mut events, spawn).await;
        assert!(lines[0].contains("Read-only file system"), "{lines:#?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&kept), "nothing of it is seen outside");
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_named() {
    let rig = Rig::start_as(Mode::Plain, is_root().then_some(NOBODY)).await;
    let (client, _events) = rig.connect().await;
    let why = |spawn: Spawn| async { refusal(client.spawn(spawn).await.unwrap_err()).1 };
    let mut spawn = rig.shell(key(1), "true");
    spawn.isolation.capabilities = Some(Capabilities { bounding: None, ambient: NET_BIND_SERVICE });
    assert_eq!(why(spawn).await, "set capabilities: Operation not permitted");
    let mut spawn = rig.shell(key(1), "true");
    spawn.isolation.nice = -5;
    assert_eq!(why(spawn).await, "set nice: Permission denied");
    let mut spawn = rig.shell(key(1), "true");
    spawn.isolation.read_only_paths = vec!["/etc".to_owned()];
    assert_eq!(why(spawn).await, "have mounts of its own: Operation not permitted");
    assert!(!client.welcome().features.iter().any(|name| name == "mounts" || name == "capabilities"));
    if is_root() {
        let rig = Rig::start(Mode::Plain).await;
        let (client, _events) = rig.connect().await;
        let mut spawn = rig.shell(key(1), "true");
        spawn.isolation.read_only_paths = vec!["/etc".to_owned(), "/no/such".to_owned()];
        let refused = refusal(client.spawn(spawn).await.unwrap_err()).1;
        assert_eq!(refused, "make /no/such read-only: No such file or directory");
    }
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, _events) = rig.connect().await;
        let spawned = client.spawn(rig.program(key(1), &["sleep", "1000"])).await.unwrap();
        let limits = Limits { memory_max: Some(1 << 30), cpu_weight: Some(50), ..Limits::default() };
        let rlimits = vec![limit("nofile", 77, 88), limit("core", 0, 0)];
        client.set_limits(SetLimits { key: key(1), limits, rlimits, log: None }).await.unwrap();
        let seen = fs::read_to_string(format!("/proc/{}/limits", spawned.pid)).unwrap();
        let files = seen.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().collect::<Vec<_>>()[3..5], ["77", "88"]);
        let gone = SetLimits { key: key(2), limits: Limits::default(), rlimits: Vec::new(), log: None };
        assert!(refusal(client.set_limits(gone).await.unwrap_err()).1.contains("no process"));
    }
}

fn incarnation(n: u64) -> ProcKey {
    ProcKey { incarnation: n, ..key(1) }
}

/// The kernel's trap: what is born in a cgroup that was ever killed is killed at birth. Each incarnation has a fresh
/// one, so neither way of making children meets it.
#[tokio::test]
async fn a_killed_incarnation_does_not_hurt_the_next() {
    if !modes().contains(&Mode::Cgroups) {
        return;
    }
    for mode in [Mode::Cgroups, Mode::ForkedIntoCgroups] {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        let born = client.welcome().features.iter().any(|name| name == "clone3");
        eprintln!("{mode:?}: children are born in their cgroup: {born}");
        assert!(mode == Mode::Cgroups || !born, "it was switched off");
        for n in 1..=4 {
            let spawned = client.spawn(rig.program(incarnation(n), &["sleep", "1000"])).await.unwrap();
            let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", spawned.pid)).unwrap();
            assert!(cgroup.contains(&format!("{}", incarnation(n))), "{cgroup}");
            client.kill_tree(incarnation(n)).await.unwrap();
            assert_eq!(exit_of(&mut events, incarnation(n)).await.exit, Exit::Signal(9));
            tree_empty(&mut events, incarnation(n)).await;
        }
    }
}

/// Somebody kills the cgroup above all processes: on some kernels what is born below it dies from then on. After one
/// such start children are forked.
#[tokio::test]
async fn a_killed_parent_cgroup_costs_one_start_at_most() {
    if !modes().contains(&Mode::Cgroups) {
        return;
    }
    let rig = Rig::start(Mode::Cgroups).await;
    let (client, mut events) = rig.connect().await;
    client.spawn(rig.program(incarnation(1), &["sleep", "1000"])).await.unwrap();
    fs::write(rig.cgroup().unwrap().join("cgroup.kill"), "1").unwrap();
    assert_eq!(exit_of(&mut events, incarnation(1)).await.exit, Exit::Signal(9));
    tree_empty(&mut events, incarnation(1)).await;
    if let Err(error) = client.spawn(rig.program(incarnation(2), &["sleep", "1000"])).await {
        eprintln!("this kernel kills at birth: {error}");
    }
    client.spawn(rig.program(ProcKey { incarnation: 3, ..key(2) }, &["sleep", "1000"])).await.unwrap();
}

/// The agent's side of it: what its host can do, by the names that templates ask for, and what is made ready before
/// the holder is asked.
#[tokio::test]
async fn the_agent_tells_features_and_makes_ready() {
    let rig = Rig::start(Mode::Plain).await;
    let root = rig.folder.path().join("root");
    let folders = OwnFolders::new(root.to_str().unwrap(), &rig.folder.path().join("state"), "boot");
    let host = LinuxHost::new(rig.dir(), rig.logs(), None, folders);
    let info = host.connect().await.unwrap().info;
    let has = |name: &str| info.features.iter().any(|feature| feature == name);
    assert!(has(features::RUNTIME) && !has(features::CGROUP_MEMORY), "{:?}", info.features);
    assert_eq!(has(features::USERS), is_root());
    assert_eq!(info.unenforced, ["cpu", "memory", "pids", "io", "cpuset"]);
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/app.env"), "LEVEL=debug\n").unwrap();
    let template = ProcessTemplate {
        state_directory: vec!["app".to_owned()],
        environment_file: vec![EnvironmentFile { path: "/etc/app.env".to_owned(), optional: false }],
        private_tmp: true,
        read_only_paths: vec!["/usr".to_owned()],
        ..ProcessTemplate::of(vec!["/bin/true".to_owned()])
    };
    let user = host.user(None, None).await.unwrap();
    let preparation = Preparation::of(key(1).uid, &template);
    let prepared = host.prepare(preparation.clone(), user.clone()).await.unwrap();
    assert_eq!(prepared.variables, [("LEVEL".to_owned(), "debug".to_owned())]);
    assert_eq!(prepared.read_only_paths, ["/usr"]);
    assert!(root.join("var/lib/app").is_dir() && prepared.private_tmp.is_some());
    fs::remove_file(root.join("etc/app.env")).unwrap();
    let (reason, why) = host.prepare(preparation.clone(), user.clone()).await.unwrap_err();
    assert_eq!(reason, Reason::StartFailed);
    assert!(why.contains("/etc/app.env"), "{why}");
    let unknown = Preparation { supplementary_groups: vec!["no-such-group".to_owned()], ..preparation };
    assert_eq!(host.prepare(unknown, user).await.unwrap_err().0, Reason::UserUnknown);
}
