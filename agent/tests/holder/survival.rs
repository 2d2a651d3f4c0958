//! The holder killed, stopped, replaced and doubled; the disk full.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use ostler_agent::holder_client::Snapshot;
use ostler_agent_core::holder::protocol::{Exit, Phase};

use crate::rig::{Mode, Rig, alive, exit_of, is_root, key, modes, tree_empty, until, until_listed};

/// Writes a line every few milliseconds, so that it would meet a broken pipe at once.
const CHATTY: &str = "trap 'exit 42' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.005; done";

#[tokio::test]
async fn killed_it_is_replaced_and_the_next_holder_adopts() {
    for mode in modes() {
        let mut rig = Rig::start(mode).await;
        let (client, _events) = rig.connect().await;
        let spawned = client.spawn(rig.shell(key(1), CHATTY)).await.unwrap();
        let ends = client.spawn(rig.shell(key(2), "sleep 0.2; exit 9")).await.unwrap();
        until("it writes", || rig.log_of(key(1)).contains("line 5").then_some(())).await;
        drop(client);
        rig.kill();
        until("the other one ends", || (!alive(ends.pid)).then_some(())).await;
        assert!(alive(spawned.pid), "it lives without a holder");
        rig.start_again();
        let (client, mut events) = rig.connect().await;
        let exited = |all: &Snapshot| all.exits.iter().any(|exit| exit.key == key(2));
        let all = until_listed(&client, "the end of the other one is known", exited).await;
        let process = all.processes.iter().find(|process| process.key == key(1)).unwrap();
        assert_eq!(
            (process.pid, process.start_time, process.adopted),
            (spawned.pid, spawned.start_time, true)
        );
        // Its code is known if its new parent had not reaped it when the next holder came.
        let gone = &all.exits[0].exit;
        let while_replaced = Exit::Unknown("ended while no holder was there to see it".to_owned());
        assert!([Exit::Code(9), while_replaced].contains(gone), "{gone:?}");
        let before = rig.log_of(key(1)).lines().count();
        until("it writes on", || (rig.log_of(key(1)).lines().count() > before + 20).then_some(())).await;
        client.stop(key(1), None, None).await.unwrap();
        let exit = exit_of(&mut events, key(1)).await;
        if client.welcome().exit_of_adopted {
            assert_eq!(exit.exit, Exit::Code(42));
        } else {
            assert!(matches!(exit.exit, Exit::Unknown(_)));
        }
        let exits = client.list().await.unwrap().exits;
        drop(client);
        rig.kill();
        rig.start_again();
        let (client, _events) = rig.connect().await;
        assert_eq!(client.list().await.unwrap().exits, exits, "the same exits, once each");
    }
}

#[tokio::test]
async fn a_stop_goes_on_and_leftovers_are_found_under_the_next_holder() {
    for mode in modes() {
        let mut rig = Rig::start(mode).await;
        let (client, _events) = rig.connect().await;
        let script = "trap '' TERM; sleep 1000 & echo go; while :; do sleep 1000; done";
        let spawned = client.spawn(rig.shell(key(1), script)).await.unwrap();
        until("it is ready", || rig.log_of(key(1)).contains("go").then_some(())).await;
        client.stop(key(1), None, Some(1_500)).await.unwrap();
        drop(client);
        rig.kill();
        rig.start_again();
        let (client, mut events) = rig.connect().await;
        if let Some(process) = client.list().await.unwrap().processes.first() {
            assert!(matches!(process.phase, Phase::Stopping | Phase::Leftovers));
        }
        until_listed(&client, "it is gone", |all| all.processes.is_empty() && all.exits.len() == 1).await;
        assert!(!alive(spawned.pid));
        drop(events.try_recv());
    }
}

#[tokio::test]
async fn sigterm_ends_it_and_leaves_everything_running() {
    let mut rig = Rig::start(Mode::Plain).await;
    let (client, mut events) = rig.connect().await;
    let spawned = client.spawn(rig.shell(key(1), CHATTY)).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(rig.holder.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(rig.holder.wait().unwrap().success());
    while events.recv().await.is_some() {}
    assert!(client.list().await.unwrap_err().retryable());
    assert!(alive(spawned.pid));
    rig.start_again();
    let (client, mut events) = rig.connect().await;
    assert_eq!(client.list().await.unwrap().processes[0].pid, spawned.pid);
    client.kill_tree(key(1)).await.unwrap();
    tree_empty(&mut events, key(1)).await;
    assert!(!alive(spawned.pid));
}

#[tokio::test]
async fn the_end_of_the_host_stops_everything_in_time_without_an_agent() {
    let rig = Rig::start(Mode::Plain).await;
    let (client, _events) = rig.connect().await;
    for n in 0..5 {
        client.spawn(rig.shell(key(n), "trap '' TERM; while :; do sleep 0.05; done")).await.unwrap();
    }
    drop(client);
    let stop = |dir: std::path::PathBuf| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler-agent"));
        command.arg("holder").arg("--dir").arg(dir).args(["--stop-all", "200"]);
        command.status().unwrap().code()
    };
    assert_eq!(stop(rig.dir()), Some(0));
    assert!(rig.marked().is_empty());
    assert_eq!(stop(rig.folder.path().to_owned()), Some(1), "nobody is there to tell");
}

#[tokio::test]
async fn a_second_holder_on_the_same_folder_is_refused() {
    let rig = Rig::start(Mode::Plain).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostler-agent"));
    command.arg("holder").arg("--dir").arg(rig.dir()).stderr(Stdio::piped());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("another holder (pid {}) runs on", rig.holder.id())), "{text}");
    rig.connect().await;
}

#[tokio::test]
async fn a_full_disk_never_stops_a_process_and_the_loss_is_said() {
    if !is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    let rig = Rig::start(Mode::Plain).await;
    std::fs::create_dir(rig.logs()).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(rig.logs()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let unmount = Unmount(rig.logs());
    let (client, mut events) = rig.connect().await;
    let ballast = rig.logs().join("ballast");
    let full = std::fs::write(&ballast, vec![0u8; 1 << 20]);
    assert!(full.is_err(), "the disk is full");
    // A megabyte is many pipes' worth: it can only end if someone reads.
    let script = "i=0; while [ $i -lt 16384 ]; do echo 0123456789012345678901234567890123456789012345678901234; \
                  i=$((i+1)); done; echo written; while :; do sleep 0.05; echo alive; done";
    client.spawn(rig.shell(key(1), script)).await.unwrap();
    let listed =
        until_listed(&client, "all is read", |all| all.processes.iter().any(|p| p.log.lines > 16_384)).await;
    assert!(listed.processes[0].log.bytes >= 16_384 * 56);
    until_listed(&client, "the loss is counted", |all| all.processes.iter().any(|p| p.log.lost > 0)).await;
    std::fs::remove_file(&ballast).unwrap();
    until("the loss is said", || rig.log_of(key(1)).contains(" lines lost: ").then_some(())).await;
    until("lines go on", || rig.log_of(key(1)).contains("stdout F alive").then_some(())).await;
    client.kill_tree(key(1)).await.unwrap();
    assert_eq!(exit_of(&mut events, key(1)).await.exit, Exit::Signal(9));
    client.stop_all(None, Duration::from_secs(20)).await.unwrap();
    drop(rig);
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// How many children the present holder has.
fn children(rig: &Rig) -> usize {
    let pid = rig.holder.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().count()
}

/// However a start is cut off by the end of the holder, the process is either known to the next one or was never
/// there.
#[tokio::test]
async fn killed_in_the_middle_of_starts_it_loses_none() {
    for mode in modes() {
        let mut rig = Rig::start(mode).await;
        let mut started = BTreeMap::new();
        for round in 0..8u8 {
            let (client, _events) = rig.connect().await;
            let mut starts = FuturesUnordered::new();
            for n in 0..20u8 {
                starts.push(client.spawn(rig.program(key(round * 20 + n), &["sleep", "1000"])));
            }
            // Each round the holder dies with another number of children, that is in the middle of its turn.
            let mut answered = Vec::new();
            while children(&rig) < usize::from(round) * 2 {
                if let Some(spawned) = starts.next().now_or_never().flatten() {
                    answered.push(spawned.unwrap());
                }
                tokio::task::yield_now().await;
            }
            rig.kill();
            while let Some(late) = starts.next().await {
                answered.extend(late.ok());
            }
            started.extend(answered.into_iter().map(|spawned| (spawned.key, spawned.pid)));
            drop(starts);
            drop(client);
            rig.start_again();
        }
        let (client, _events) = rig.connect().await;
        let known = |all: &Snapshot| all.processes.iter().map(|process| process.pid).collect::<BTreeSet<_>>();
        let all = until_listed(&client, "the listing is what runs", |all| known(all) == rig.marked()).await;
        for (key, pid) in started {
            let process = all.processes.iter().find(|process| process.key == key);
            assert_eq!(process.map(|process| process.pid), Some(pid), "{key} was started and is not known");
        }
        // What was forked and never let go has ended without having run; it is accounted for all the same.
        let keys: BTreeSet<_> = all.exits.iter().map(|exit| exit.key).collect();
        assert_eq!(keys.len(), all.exits.len(), "one exit each");
        client.stop_all(Some(10_000), Duration::from_secs(30)).await.unwrap();
        assert!(rig.marked().is_empty());
    }
}
