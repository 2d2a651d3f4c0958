//! The real holder with real processes: starts, exits, stops, logs, and its own replacement.
//!
//! Runs with and without root; what needs root says so when it is left out.

mod isolation;
mod output;
mod rig;
mod runs;
mod survival;
mod survival_many;
mod survival_upgrade;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use ostler_agent::holder_client::HolderError;
use ostler_agent_core::holder::protocol::{Exit, KillMode, Limits, ProcKey, RefusalCode, Rlimit, RunAs};
use rig::{Mode, Rig, alive, exit_of, is_root, key, modes, tree_empty, until, until_listed};

fn refusal(error: HolderError) -> (RefusalCode, String) {
    match error {
        HolderError::Refused(refusal) => (refusal.code, refusal.message),
        other => panic!("{other:?}"),
    }
}

/// Pids that a script wrote to its log, one line each.
fn pids(log: &str) -> Vec<i32> {
    log.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}

#[tokio::test]
async fn exits_are_exact_and_kept_until_acknowledged() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        client.spawn(rig.shell(key(1), "exit 7")).await.unwrap();
        let code = exit_of(&mut events, key(1)).await;
        assert_eq!((code.exit.clone(), code.oom), (Exit::Code(7), false));
        client.spawn(rig.shell(key(2), "exec sleep 1000")).await.unwrap();
        client.signal(key(2), 10, false).await.unwrap();
        let signal = exit_of(&mut events, key(2)).await;
        assert_eq!(signal.exit, Exit::Signal(10));
        let again = client.spawn(rig.shell(key(1), "exit 0")).await.unwrap_err();
        assert_eq!(refusal(again).0, RefusalCode::AlreadyExists);
        assert_eq!(client.list().await.unwrap().exits, [code.clone(), signal.clone()]);
        client.ack_exit(code.key, code.seq).await.unwrap();
        client.ack_exit(code.key, code.seq).await.unwrap();
        assert_eq!(client.list().await.unwrap().exits, std::slice::from_ref(&signal));
        client.ack_exit(signal.key, signal.seq).await.unwrap();
        let snapshot = until_listed(&client, "nothing is left", |all| all.processes.is_empty()).await;
        assert!(snapshot.exits.is_empty());
        assert_eq!(std::fs::read_dir(rig.dir().join("fifo")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_start_that_fails_says_at_which_step_and_why() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, _events) = rig.connect().await;
        let failed = client.spawn(rig.program(key(1), &["/no/such/program"])).await.unwrap_err();
        let reason = "exec /no/such/program: No such file or directory".to_owned();
        assert_eq!(refusal(failed), (RefusalCode::StartFailed, reason));
        let failed = client.spawn(rig.program(key(1), &["/etc/passwd"])).await.unwrap_err();
        assert_eq!(refusal(failed).1, "exec /etc/passwd: Permission denied");
        let mut spawn = rig.shell(key(1), "true");
        spawn.cwd = "/no/such/folder".to_owned();
        let failed = client.spawn(spawn).await.unwrap_err();
        assert_eq!(refusal(failed).1, "change to /no/such/folder: No such file or directory");
        let mut spawn = rig.shell(key(1), "true");
        spawn.rlimits = vec![Rlimit { resource: "core".to_owned(), soft: 1, hard: 1 }];
        spawn.rlimits.push(Rlimit { resource: "colour".to_owned(), soft: 1, hard: 1 });
        assert_eq!(refusal(client.spawn(spawn).await.unwrap_err()).1, "no limit is named \"colour\"");
        let mut spawn = rig.shell(key(1), "true");
        spawn.rlimits = vec![Rlimit { resource: "nofile".to_owned(), soft: 1, hard: u64::MAX }];
        assert_eq!(
            refusal(client.spawn(spawn).await.unwrap_err()).1,
            "set limit nofile: Operation not permitted"
        );
        let mut spawn = rig.shell(key(1), "true");
        spawn.name = "../escape".to_owned();
        assert_eq!(refusal(client.spawn(spawn).await.unwrap_err()).0, RefusalCode::Invalid);
        let all = client.list().await.unwrap();
        assert!(all.processes.is_empty() && all.exits.is_empty());
        assert_eq!(std::fs::read_dir(rig.dir().join("fifo")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_process_that_ignores_its_stop_is_killed_with_all_it_started() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; sleep 1000 & echo $!; wait' & \
                      setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & echo $$; echo go; \
                      while :; do sleep 1000; done";
        let spawned = client.spawn(rig.shell(key(1), script)).await.unwrap();
        let family =
            until("the family runs", || Some(pids(&rig.log_of(key(1)))).filter(|p| p.len() >= 4)).await;
        assert!(family.contains(&spawned.pid));
        client.stop(key(1), None, Some(300)).await.unwrap();
        assert_eq!(exit_of(&mut events, key(1)).await.exit, Exit::Signal(9));
        tree_empty(&mut events, key(1)).await;
        for pid in family {
            assert!(!alive(pid), "{pid} lives on ({mode:?})");
        }
    }
}

#[tokio::test]
async fn a_stop_in_time_is_the_process_s_own_end_and_leftovers_follow_the_kill_mode() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        let script = "trap 'exit 5' TERM; sleep 1000 & echo $!; echo go; wait";
        for (n, kill_mode, stays) in [(1, KillMode::Mixed, false), (2, KillMode::Process, true)] {
            let mut spawn = rig.shell(key(n), script);
            spawn.kill_mode = kill_mode;
            client.spawn(spawn).await.unwrap();
            until("it is ready", || rig.log_of(key(n)).contains("go").then_some(())).await;
            let child = pids(&rig.log_of(key(n)))[0];
            client.stop(key(n), None, Some(20_000)).await.unwrap();
            assert_eq!(exit_of(&mut events, key(n)).await.exit, Exit::Code(5));
            if stays {
                assert!(alive(child));
                // What is meant to stay keeps nothing else from starting.
                let next = ProcKey { incarnation: 2, ..key(n) };
                client.spawn(rig.shell(next, "exit 3")).await.unwrap();
                assert_eq!(exit_of(&mut events, next).await.exit, Exit::Code(3));
                tree_empty(&mut events, next).await;
                assert!(alive(child));
                client.kill_tree(key(n)).await.unwrap();
            }
            tree_empty(&mut events, key(n)).await;
            assert!(!alive(child));
        }
    }
}

#[tokio::test]
async fn output_becomes_lines_with_time_and_stream() {
    let rig = Rig::start(Mode::Plain).await;
    let (client, mut events) = rig.connect().await;
    let script = "echo one; echo two >&2; printf unfinished; echo /dev/stderr > /dev/stderr";
    client.spawn(rig.shell(key(1), script)).await.unwrap();
    tree_empty(&mut events, key(1)).await;
    let log =
        // The number of the file, and the beginning of the incarnation, come first.
        until("the log is complete", || Some(rig.log_of(key(1))).filter(|log| log.lines().count() == 6))
            .await;
    let mut lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(lines[0], "ostler F log format=2 part=1 after=0");
    assert_eq!(lines[1], format!("ostler F incarnation 1 of {} begins", key(1).uid));
    let lines = &mut lines[2..];
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F /dev/stderr", "stderr F two", "stdout F one", "stdout F unfinished"]);
    assert!(log.lines().all(|line| line.len() > 27 && line.as_bytes()[26] == b'Z'), "{log}");
}

#[tokio::test]
async fn children_inherit_nothing_of_the_holder() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        let script = "ls /proc/self/fd | wc -l; grep -E '^(SigBlk|SigIgn|NoNewPrivs)' /proc/self/status; env | sort; \
                      ulimit -n; ulimit -Hc; umask; pwd";
        let mut spawn = rig.shell(key(1), script);
        spawn.rlimits = vec![
            Rlimit { resource: "nofile".to_owned(), soft: 321, hard: 654 },
            Rlimit { resource: "core".to_owned(), soft: 0, hard: 0 },
        ];
        spawn.umask = 0o027;
        spawn.cwd = "/usr".to_owned();
        client.spawn(spawn).await.unwrap();
        tree_empty(&mut events, key(1)).await;
        let log = until("the log is complete", || {
            Some(rig.log_of(key(1))).filter(|log| log.ends_with(" stdout F /usr\n"))
        })
        .await;
        let lines: Vec<&str> =
            log.lines().filter_map(|line| Some(line.split_once(" stdout F ")?.1)).collect();
        // Three of its own, and the one with which `ls` reads the folder.
        assert_eq!(lines[0], "4");
        for line in
            ["NoNewPrivs:\t1", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "321", "0", "0027"]
        {
            assert!(lines.contains(&line), "{line:?} in {log}");
        }
        let variables: Vec<&str> = lines.iter().copied().filter(|line| line.contains('=')).collect();
        let uid = format!("OSTLER_UID={}", key(1).uid);
        let holder = format!("OSTLER_HOLDER={}", rig.dir().canonicalize().unwrap().display());
        assert_eq!(variables, [&holder, "OSTLER_INCARNATION=1", &uid, "PATH=/usr/bin:/bin", "PWD=/usr"]);
    }
}

#[tokio::test]
async fn signals_reach_the_whole_tree_and_limits_change_in_place() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        let script = "trap 'echo parent' USR1; sh -c 'trap \"echo child\" USR1; echo go; while :; do sleep 0.02; done' & \
                      while :; do sleep 0.02; done";
        let spawned = client.spawn(rig.shell(key(1), script)).await.unwrap();
        until("it is ready", || rig.log_of(key(1)).contains("go").then_some(())).await;
        // `sleep` ends by this signal, the shells say who they are.
        client.signal(key(1), 10, true).await.unwrap();
        let both = |log: &str| log.contains("parent") && log.contains("child");
        until("both heard it", || both(&rig.log_of(key(1))).then_some(())).await;
        let limit = Rlimit { resource: "nofile".to_owned(), soft: 77, hard: 88 };
        client.set_rlimit(key(1), vec![limit]).await.unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", spawned.pid)).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().collect::<Vec<_>>()[3..5], ["77", "88"]);
        client.kill_tree(key(1)).await.unwrap();
        tree_empty(&mut events, key(1)).await;
        assert_eq!(refusal(client.signal(key(1), 10, true).await.unwrap_err()).0, RefusalCode::NotFound);
    }
}

#[tokio::test]
async fn another_user_is_taken_on_with_its_groups() {
    if !is_root() {
        eprintln!("skipped: only root may start processes as others");
        return;
    }
    let rig = Rig::start(Mode::Plain).await;
    let (client, mut events) = rig.connect().await;
    let mut spawn = rig.shell(key(1), "id -u; id -g; id -G; echo again > /dev/stdout");
    spawn.user = Some(RunAs { uid: 65_534, gid: 65_533, groups: vec![4_321] });
    client.spawn(spawn).await.unwrap();
    tree_empty(&mut events, key(1)).await;
    let log =
        until("the log is complete", || Some(rig.log_of(key(1))).filter(|log| log.contains("again"))).await;
    let lines: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(" stdout F ")?.1)).collect();
    assert_eq!(lines, ["65534", "65533", "65533 4321", "again"]);
}

#[tokio::test]
async fn without_root_everything_works_but_other_users() {
    if !is_root() {
        eprintln!("skipped: the other tests of this run are without root already");
        return;
    }
    let rig = Rig::start_as(Mode::Plain, Some(65_534)).await;
    let (client, mut events) = rig.connect().await;
    assert!(!client.welcome().other_users);
    let mut spawn = rig.shell(key(1), "echo $(id -u); exit 3");
    spawn.user = Some(RunAs { uid: 65_534, gid: 65_534, groups: vec![] });
    client.spawn(spawn).await.unwrap();
    assert_eq!(exit_of(&mut events, key(1)).await.exit, Exit::Code(3));
    until("the log is written", || rig.log_of(key(1)).ends_with(" stdout F 65534\n").then_some(())).await;
    let mut spawn = rig.shell(key(2), "true");
    spawn.user = Some(RunAs { uid: 0, gid: 0, groups: vec![] });
    let refused = client.spawn(spawn).await.unwrap_err();
    assert_eq!(refusal(refused).1, "run as user 0: the holder is not root");
}

#[tokio::test]
async fn limits_that_cannot_be_enforced_are_named() {
    let rig = Rig::start(Mode::Plain).await;
    let (client, _events) = rig.connect().await;
    let mut spawn = rig.shell(key(1), "true");
    spawn.limits = Limits { memory_max: Some(1 << 30), cpu_millis: Some(500), ..Limits::default() };
    assert_eq!(client.spawn(spawn).await.unwrap().unenforced, ["cpu", "memory"]);
}

#[tokio::test]
async fn garbage_ends_only_the_connection_it_came_on() {
    let rig = Rig::start(Mode::Plain).await;
    let (client, mut events) = rig.connect().await;
    let socket = rig.dir().join("holder.sock");
    for garbage in [
        &b"\x00\x00\x00\x04abcd"[..],
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x01\x80",
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(garbage).unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    }
    // Announced and never sent: it waits, and nobody else does.
    let mut half = UnixStream::connect(&socket).unwrap();
    half.write_all(b"\x00\x00\x10\x00half").unwrap();
    client.spawn(rig.shell(key(1), "exit 0")).await.unwrap();
    assert_eq!(exit_of(&mut events, key(1)).await.exit, Exit::Code(0));
}

#[tokio::test]
async fn two_hundred_processes_start_and_stop() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, _events) = rig.connect().await;
        let begin = std::time::Instant::now();
        let starts = (0..200u8).map(|n| client.spawn(rig.program(key(n), &["sleep", "1000"])));
        let spawned = futures::future::try_join_all(starts).await.unwrap();
        eprintln!("{mode:?}: 200 processes run after {:?}", begin.elapsed());
        assert!(spawned.iter().all(|spawned| alive(spawned.pid)));
        assert_eq!(client.list().await.unwrap().processes.len(), 200);
        let begin = std::time::Instant::now();
        client.stop_all(Some(20_000), std::time::Duration::from_secs(30)).await.unwrap();
        eprintln!("{mode:?}: stopped after {:?}", begin.elapsed());
        assert!(spawned.iter().all(|spawned| !alive(spawned.pid)));
        let all = client.list().await.unwrap();
        assert_eq!(all.exits.len(), 200);
        assert!(all.exits.iter().all(|exit| exit.exit == Exit::Signal(15)));
    }
}
