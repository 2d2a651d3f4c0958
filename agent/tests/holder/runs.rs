//! Commands beside processes, through the port that the agent uses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ostler_agent::linux::{LinuxHost, OwnFolders};
use ostler_agent::ports::{
    Host, HostRun, HostSession, HostSpawn, RunOutcome, Screen, SessionInput, SessionOutput,
};
use ostler_agent_core::holder::protocol::{Isolation, Limits, LogSpec, ProcKey, RunAs};
use ostler_agent_core::unit::HowEnded;
use ostler_schemas::quantity::Signal;

use crate::rig::{Mode, Rig, alive, is_root, key, modes, until};

/// Longer than anything here takes, shorter than a test is waited for.
const LIMIT: Duration = Duration::from_secs(30);

fn host(rig: &Rig) -> Arc<LinuxHost> {
    LinuxHost::new(rig.dir(), rig.logs(), None, OwnFolders::new("", rig.folder.path(), "boot"))
}

fn shell(key: ProcKey, script: &str) -> HostRun {
    let spawn = HostSpawn {
        key,
        namespace: "default".parse().unwrap(),
        name: "web".parse().unwrap(),
        argv: Vec::new(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: "/tmp".to_owned(),
        user: None,
        umask: 0o022,
        rlimits: Vec::new(),
        limits: Limits::default(),
        oom_score_adjust: 0,
        allow_new_privileges: false,
        isolation: Isolation::default(),
        log: LogSpec::below(""),
        listen: None,
        kill_mode: ostler_schemas::spec::KillMode::Mixed,
        stop_signal: Signal::TERM,
        grace_ms: 1_000,
    };
    HostRun::like(&spawn, ["/bin/sh", "-c", script].map(str::to_owned).to_vec())
}

async fn run(rig: &Rig, run: HostRun) -> RunOutcome {
    tokio::time::timeout(LIMIT, host(rig).run(run)).await.expect("an end").expect("a start")
}

fn pid_in(output: &Bytes) -> i32 {
    String::from_utf8_lossy(output).trim().parse().unwrap()
}

#[tokio::test]
async fn ends_are_exact_and_output_is_kept_to_its_bound() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let done = run(&rig, shell(key(1), "pwd; echo err >&2; exit 7")).await;
        assert_eq!((done.how, done.timed_out), (HowEnded::Code(7), false));
        assert_eq!(done.output, Bytes::from_static(b"/tmp\nerr\n"));
        let done = run(&rig, shell(key(1), "kill -USR1 $$")).await;
        assert_eq!(done.how, HowEnded::Signal(10));
        let much = HostRun { output_max: 10, ..shell(key(1), "seq 1 200000; echo the end") };
        let done = run(&rig, much).await;
        assert_eq!((done.how, done.output), (HowEnded::Code(0), Bytes::from_static(b"0\nthe end\n")));
        let marks = run(&rig, shell(key(1), "echo $OSTLER_UID $OSTLER_INCARNATION")).await;
        assert_eq!(marks.output, Bytes::from(format!("{} 1\n", key(1).uid)));
    }
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let mut nothing = shell(key(1), "");
        nothing.like.argv = vec!["/no/such/program".to_owned()];
        let why = host(&rig).run(nothing).await.unwrap_err();
        assert_eq!(why.0, "exec /no/such/program: No such file or directory");
        let mut nowhere = shell(key(1), "true");
        nowhere.like.cwd = "/no/such/folder".to_owned();
        let why = host(&rig).run(nowhere).await.unwrap_err();
        assert_eq!(why.0, "change to /no/such/folder: No such file or directory");
    }
}

#[tokio::test]
async fn its_time_ends_the_whole_tree_and_so_does_its_own_end() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let hangs = "setsid sleep 1000 & echo $!; trap '' TERM; while :; do sleep 1000; done";
        let done = run(&rig, HostRun { timeout_ms: 300, ..shell(key(1), hangs) }).await;
        assert_eq!((done.how, done.timed_out), (HowEnded::Signal(9), true));
        assert!(!alive(pid_in(&done.output)), "what it started is dead too");
        let leaves = run(&rig, shell(key(1), "setsid sleep 1000 >/dev/null 2>&1 & echo $!")).await;
        assert_eq!(leaves.how, HowEnded::Code(0));
        assert!(!alive(pid_in(&leaves.output)), "nothing is left behind");
        assert!(rig.marked().is_empty());
    }
}

#[tokio::test]
async fn who_asked_and_goes_takes_it_along() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let host = host(&rig);
        let asked = tokio::spawn(async move { host.run(shell(key(1), "sleep 1000")).await });
        until("it runs", || (!rig.marked().is_empty()).then_some(())).await;
        asked.abort();
        until("it is dead", || rig.marked().is_empty().then_some(())).await;
    }
}

#[tokio::test]
async fn beside_a_process_it_shares_its_cgroup_and_its_end() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, mut events) = rig.connect().await;
        let started = client.spawn(rig.shell(key(1), "exec sleep 1000")).await.unwrap();
        let beside = |script: &str| HostRun { beside: true, ..shell(key(1), script) };
        if mode == Mode::Cgroups {
            let theirs = std::fs::read_to_string(format!("/proc/{}/cgroup", started.pid)).unwrap();
            let theirs = theirs.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
            let done = run(&rig, beside("sed -n s/^0:://p /proc/self/cgroup")).await;
            let own = String::from_utf8_lossy(&done.output).trim().to_owned();
            assert!(own.starts_with(&format!("{theirs}/run-")), "{own} is not below {theirs}");
        }
        assert_eq!(run(&rig, beside("true")).await.how, HowEnded::Code(0));
        let with = host(&rig);
        let ends =
            tokio::spawn(
                async move { with.run(HostRun { beside: true, ..shell(key(1), "sleep 999") }).await },
            );
        until("it runs", || (rig.marked().len() >= 2).then_some(())).await;
        assert!(alive(started.pid), "an end of a run is no end of its process");
        client.kill_tree(key(1)).await.unwrap();
        let done = ends.await.unwrap().unwrap();
        assert_eq!(done.how, HowEnded::Signal(9));
        assert_eq!(done.ended_because.as_deref(), Some("its process ended"));
        crate::rig::tree_empty(&mut events, key(1)).await;
        assert_eq!(run(&rig, beside("echo alone")).await.output, Bytes::from_static(b"alone\n"));
    }
}

#[tokio::test]
async fn a_holder_that_dies_loses_its_runs_and_says_so() {
    for mode in modes() {
        let mut rig = Rig::start(mode).await;
        let host = host(&rig);
        let script = "setsid sleep 1000 & sleep 1000";
        let asked = tokio::spawn(async move { host.run(shell(key(1), script)).await });
        until("it runs", || (rig.marked().len() >= 3).then_some(())).await;
        rig.kill();
        let done = asked.await.unwrap().unwrap();
        assert!(matches!(done.how, HowEnded::Unknown(_)), "{done:?}");
        rig.start_again();
        until("nothing of it is left", || rig.marked().is_empty().then_some(())).await;
    }
}

#[tokio::test]
async fn it_runs_as_the_user_that_is_asked_for() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let rig = Rig::start(Mode::Plain).await;
    let mut other = shell(key(1), "id -u; id -g");
    other.like.user = Some(RunAs { uid: 4321, gid: 4322, groups: Vec::new() });
    assert_eq!(run(&rig, other).await.output, Bytes::from_static(b"4321\n4322\n"));
}

/// Everything that a session said on one stream until it has `text`.
async fn hears(session: &mut HostSession, text: &str) -> String {
    let mut heard = String::new();
    let listening = async {
        while !heard.contains(text) {
            match session.output.recv().await {
                Some(SessionOutput::Stdout(bytes) | SessionOutput::Stderr(bytes)) => {
                    heard.push_str(&String::from_utf8_lossy(&bytes));
                }
                other => panic!("{other:?} after {heard:?}, waiting for {text:?}"),
            }
        }
    };
    let in_time = tokio::time::timeout(LIMIT, listening).await;
    assert!(in_time.is_ok(), "waited in vain for {text:?}: {heard:?}");
    heard
}

async fn end(session: &mut HostSession) -> (HowEnded, String) {
    let mut heard = String::new();
    loop {
        match tokio::time::timeout(LIMIT, session.output.recv()).await.expect("an end") {
            Some(SessionOutput::Stdout(bytes) | SessionOutput::Stderr(bytes)) => {
                heard.push_str(&String::from_utf8_lossy(&bytes));
            }
            Some(SessionOutput::Ended(outcome)) => return (outcome.how, heard),
            None => panic!("no end after {heard:?}"),
        }
    }
}

fn bytes(text: &str) -> SessionInput {
    SessionInput::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

#[tokio::test]
async fn a_terminal_is_a_real_one() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let screen = Some(Screen { rows: 33, columns: 101 });
        let script = "tty; stty size; read line; echo got $line; \
                      exec sh -c 'echo asleep; exec sleep 1000'";
        let mut session = host(&rig).attend(shell(key(1), script), screen).await.unwrap();
        let heard = hears(&mut session, "33 101").await;
        assert!(heard.contains("/dev/pts/"), "{heard}");
        session.input.send(bytes("hello\r")).await.unwrap();
        hears(&mut session, "asleep").await;
        session.input.send(bytes("\x03")).await.unwrap();
        let (how, _) = end(&mut session).await;
        assert_eq!(how, HowEnded::Signal(2), "Ctrl-C is a signal there");

        let script = "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done";
        let mut session = host(&rig).attend(shell(key(1), script), screen).await.unwrap();
        hears(&mut session, "ready").await;
        session.input.send(SessionInput::Resize(Screen { rows: 50, columns: 132 })).await.unwrap();
        hears(&mut session, "50 132").await;
        assert_eq!(end(&mut session).await.0, HowEnded::Code(5));
    }
}

#[tokio::test]
async fn pipes_carry_everything_both_ways_at_the_pace_of_the_slower() {
    let rig = Rig::start(Mode::Plain).await;
    let mut session = host(&rig).attend(shell(key(1), "cat; echo done >&2"), None).await.unwrap();
    let input = session.input.clone();
    let block = Bytes::from(vec![b'x'; 64 << 10]);
    let blocks = 64;
    let writer = tokio::spawn({
        let block = block.clone();
        async move {
            for _ in 0..blocks {
                input.send(SessionInput::Bytes(block.clone())).await.unwrap();
            }
            input.send(SessionInput::End).await.unwrap();
        }
    });
    let (how, heard) = end(&mut session).await;
    writer.await.unwrap();
    assert_eq!(how, HowEnded::Code(0));
    assert_eq!(heard.matches('x').count(), blocks * block.len());
    assert!(heard.contains("done\n"));
}

#[tokio::test]
async fn signals_reach_it_and_nobody_listening_ends_it() {
    let rig = Rig::start(Mode::Plain).await;
    let script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut session = host(&rig).attend(shell(key(1), script), None).await.unwrap();
    hears(&mut session, "ready").await;
    session.input.send(SessionInput::Signal(Signal::TERM)).await.unwrap();
    let (how, heard) = end(&mut session).await;
    assert_eq!(how, HowEnded::Code(3));
    assert!(heard.contains("asked\n"), "{heard}");
    let mut session = host(&rig).attend(shell(key(1), "echo ready; sleep 1000"), None).await.unwrap();
    hears(&mut session, "ready").await;
    drop(session);
    until("it is dead", || rig.marked().is_empty().then_some(())).await;
}
