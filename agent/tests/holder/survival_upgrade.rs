//! The holder becoming another program, and refusing to; its state damaged, deleted, forged and of another boot;
//! clients that misbehave.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ostler_agent::holder_client::HolderError;
use ostler_agent_core::holder::frame;
use ostler_agent_core::holder::journal::{self, Entry};
use ostler_agent_core::holder::protocol::{Call, Exit, Hello, List, PROTOCOL, RefusalCode, Request};
use ostler_agent_core::holder::state::HolderState;

use crate::rig::{Mode, Rig, alive, exit_of, key, modes, tree_empty, until, until_listed};

fn journal_of(rig: &Rig) -> PathBuf {
    rig.dir().join("state.journal")
}

fn read_state(rig: &Rig) -> HolderState {
    journal::replay(&fs::read(journal_of(rig)).unwrap()).unwrap().state
}

fn write_state(rig: &Rig, state: HolderState) {
    let mut bytes = journal::head();
    journal::append(&Entry::Snapshot(Box::new(state)), &mut bytes).unwrap();
    fs::write(journal_of(rig), bytes).unwrap();
}

fn start_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap()
}

#[tokio::test]
async fn upgraded_it_is_the_same_process_with_the_same_children() {
    for mode in modes() {
        let rig = Rig::start(mode).await;
        let (client, events) = rig.connect().await;
        let script = "trap 'exit 42' TERM; printf half; while [ ! -e $GO ]; do sleep 0.01; done; echo ' a line'; \
                      while :; do sleep 0.05; done";
        let go = rig.folder.path().join("go");
        let mut spawn = rig.shell(key(1), script);
        spawn.env.push(("GO".to_owned(), go.display().to_string()));
        let spawned = client.spawn(spawn).await.unwrap();
        let before = client.welcome().clone();
        until_listed(&client, "half a line is read", |all| all.processes.iter().any(|p| p.log.bytes == 4))
            .await;
        client.upgrade(None).await.unwrap();
        drop((client, events));
        let (client, mut events) = rig.connect().await;
        let after = client.welcome();
        assert_eq!(after.pid, before.pid);
        assert!(after.started_at > before.started_at);
        let all = client.list().await.unwrap();
        assert_eq!(all.processes[0].pid, spawned.pid);
        fs::write(&go, "").unwrap();
        until("the line is whole", || rig.log_of(key(1)).contains("half a line\n").then_some(())).await;
        client.stop(key(1), None, None).await.unwrap();
        assert_eq!(exit_of(&mut events, key(1)).await.exit, Exit::Code(42), "its parent is the same");
        tree_empty(&mut events, key(1)).await;
        // Once more, by the words of a service manager.
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler-agent"));
        command.arg("holder").arg("--dir").arg(rig.dir()).arg("--upgrade").stderr(Stdio::piped());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains("in the same process"), "{text}");
    }
}

#[tokio::test]
async fn a_program_that_cannot_go_on_is_refused_and_everything_goes_on() {
    let rig = Rig::start(Mode::Plain).await;
    let (client, mut events) = rig.connect().await;
    let spawned = client.spawn(rig.program(key(1), &["sleep", "1000"])).await.unwrap();
    for (path, why) in [
        ("/no/such/program", "No such file or directory"),
        ("/bin/false", "does not accept the state"),
        ("relative", "not an absolute path"),
    ] {
        match client.upgrade(Some(path.to_owned())).await {
            Err(HolderError::Refused(refusal)) => {
                assert_eq!(refusal.code, RefusalCode::Failed);
                assert!(refusal.message.contains(why), "{}", refusal.message);
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    assert_eq!(client.list().await.unwrap().processes[0].pid, spawned.pid);
    client.kill_tree(key(1)).await.unwrap();
    assert_eq!(exit_of(&mut events, key(1)).await.exit, Exit::Signal(9));
}

/// The lock is held by a descriptor that the former program left open and that no table names.
#[tokio::test]
async fn a_table_that_cannot_be_read_leaves_nothing_locked() {
    let mut rig = Rig::start(Mode::Plain).await;
    let (client, _events) = rig.connect().await;
    let pid = client.spawn(rig.program(key(1), &["sleep", "1000"])).await.unwrap().pid;
    drop(client);
    rig.kill();
    let script = "exec 8>>\"$2/holder.lock\" 9</dev/null && flock 8 && \
                  exec \"$1\" holder --dir \"$2\" --cgroup none --resume 9";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_ostler-agent")]).arg(rig.dir());
    rig.holder = command.stdin(Stdio::null()).spawn().unwrap();
    let (client, _events) = rig.connect().await;
    assert_eq!(client.list().await.unwrap().processes[0].pid, pid);
}

#[tokio::test]
async fn a_state_of_a_newer_format_is_not_accepted() {
    let mut rig = Rig::start(Mode::Plain).await;
    rig.kill();
    let check = |rig: &Rig| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler-agent"));
        command.arg("holder").arg("--dir").arg(rig.dir()).arg("--check-state").stderr(Stdio::piped());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (accepted, text) = check(&rig);
    assert!(accepted && text.contains("could go on"), "{text}");
    let mut bytes = fs::read(journal_of(&rig)).unwrap();
    bytes[journal::HEAD - 1] += 1;
    fs::write(journal_of(&rig), &bytes).unwrap();
    let (accepted, text) = check(&rig);
    assert!(!accepted && text.contains("this build reads up to"), "{text}");
    assert_eq!(fs::read(journal_of(&rig)).unwrap(), bytes, "looking changes nothing");
}

#[tokio::test]
async fn processes_that_a_damaged_or_lost_state_does_not_name_are_found() {
    for mode in modes() {
        for lost in [false, true] {
            let mut rig = Rig::start(mode).await;
            let (client, _events) = rig.connect().await;
            let mut pids = Vec::new();
            for n in 1..5 {
                pids.push(client.spawn(rig.program(key(n), &["sleep", "1000"])).await.unwrap().pid);
            }
            drop(client);
            rig.kill();
            if lost {
                fs::remove_file(journal_of(&rig)).unwrap();
            } else {
                let mut bytes = fs::read(journal_of(&rig)).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
                fs::write(journal_of(&rig), bytes).unwrap();
            }
            rig.start_again();
            let (client, mut events) = rig.connect().await;
            let all = client.list().await.unwrap();
            assert_eq!(all.processes.iter().map(|p| p.pid).collect::<Vec<_>>(), pids, "{mode:?}");
            assert!(all.exits.is_empty());
            assert_eq!(rig.dir().join("state.journal.damaged").exists(), !lost);
            client.stop(key(2), None, None).await.unwrap();
            tree_empty(&mut events, key(2)).await;
            assert!(!alive(pids[1]));
            client.stop_all(Some(20_000), Duration::from_secs(30)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_process_with_the_number_of_another_is_not_taken_for_it() {
    for mode in modes() {
        let mut rig = Rig::start(mode).await;
        let (client, _events) = rig.connect().await;
        let first = client.spawn(rig.program(key(1), &["sleep", "1000"])).await.unwrap();
        client.spawn(rig.program(key(2), &["sleep", "1000"])).await.unwrap();
        drop(client);
        rig.kill();
        // Neither a child of the holder nor of its session, and all the same with the number of one.
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(stranger.id()).unwrap();
        let mut state = read_state(&rig);
        state.processes[0].start_time -= 1;
        let second = state.processes[1].pid;
        (state.processes[1].pid, state.processes[1].start_time) = (pid, start_time(pid));
        write_state(&rig, state);
        rig.start_again();
        let (client, _events) = rig.connect().await;
        let all = until_listed(&client, "both are known to be gone", |all| all.exits.len() == 2).await;
        assert!(all.exits.iter().all(|exit| matches!(exit.exit, Exit::Unknown(_))));
        client.stop_all(Some(1_000), Duration::from_secs(30)).await.unwrap();
        assert!(alive(pid), "a stranger was harmed");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        // What is left of the trees bears the marks, and ends with them.
        assert!(!alive(first.pid) && !alive(second), "{mode:?}");
    }
}

#[tokio::test]
async fn another_boot_is_told_apart_from_another_start() {
    let mut rig = Rig::start(Mode::Plain).await;
    let (client, _events) = rig.connect().await;
    client.spawn(rig.program(key(1), &["sleep", "1000"])).await.unwrap();
    drop(client);
    rig.kill();
    for pid in rig.marked() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let boot = rig.folder.path().join("boot-id");
    fs::write(&boot, "another-boot\n").unwrap();
    rig.holder = with_boot_id(&rig.dir(), &boot);
    let (client, _events) = rig.connect().await;
    assert_eq!(client.welcome().boot_id, "another-boot");
    let all = client.list().await.unwrap();
    assert!(all.processes.is_empty());
    assert_eq!(all.exits[0].exit, Exit::Unknown("the host was restarted".to_owned()));
}

fn with_boot_id(dir: &Path, boot: &Path) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostler-agent"));
    command.arg("holder").arg("--dir").arg(dir).args(["--cgroup", "none", "--boot-id"]).arg(boot);
    command.stdin(Stdio::null()).spawn().unwrap()
}

/// Asks for many listings and reads none.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_starves_nobody() {
    let rig = Rig::start(Mode::Plain).await;
    let (client, mut events) = rig.connect().await;
    let starts = (0..100u8).map(|n| client.spawn(rig.program(key(n), &["sleep", "1000"])));
    futures::future::try_join_all(starts).await.unwrap();
    let socket = rig.dir().join("holder.sock");
    let flood = std::thread::spawn(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        let hello = Hello { protocol: PROTOCOL, client: "flood".to_owned(), subscribe: true };
        stream.write_all(&frame::encode(&Call { id: 1, request: Request::Hello(hello) }).unwrap()).unwrap();
        let list = frame::encode(&Call { id: 2, request: Request::List(List::default()) }).unwrap();
        let mut sent = 0u32;
        while stream.write_all(&list).is_ok() {
            sent += 1;
            assert!(sent < 1_000_000, "it is never cut");
        }
        // What was sent before the cut is there; then it ends.
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
        rest.len()
    });
    for n in 100..110u8 {
        client.spawn(rig.shell(key(n), "exit 0")).await.unwrap();
        assert_eq!(exit_of(&mut events, key(n)).await.exit, Exit::Code(0));
    }
    let read = tokio::task::spawn_blocking(move || flood.join().unwrap()).await.unwrap();
    assert!(read < 16 << 20, "{read} bytes were kept for it");
    client.stop_all(Some(20_000), Duration::from_secs(30)).await.unwrap();
}
