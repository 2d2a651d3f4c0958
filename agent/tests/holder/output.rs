//! What becomes of output when nobody reads it, when the disk is full, and when nobody wants it.

use std::path::{Path, PathBuf};
use std::process::Command;

use ostler_agent_core::holder::protocol::{Exit, LogTo};
use ostler_schemas::v1::log_line::{Note, Source, parse};

use crate::rig::{Mode, Rig, alive, exit_of, is_root, key, until};

/// The numbers that a process said, and how many lines the host says are missing.
fn said(log: &str) -> (Vec<u64>, u64) {
    let (mut numbers, mut lost) = (Vec::new(), 0);
    for line in log.lines().filter_map(|line| parse(line.as_bytes())) {
        match line.source {
            Source::Process(_) => {
                // A line that a dead holder had begun is cut.
                numbers.extend(std::str::from_utf8(line.text).ok().and_then(|text| text.parse::<u64>().ok()));
            }
            Source::Host => {
                if let Note::Lost { lines, .. } = Note::parse(line.text) {
                    lost += lines;
                }
            }
        }
    }
    (numbers, lost)
}

/// Bytes that wait in a pipe.
fn waiting(fifo: &Path) -> u64 {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let Ok(end) = rustix::fs::open(fifo, flags, Mode::empty()) else { return 0 };
    rustix::io::ioctl_fionread(end).unwrap_or(0)
}

#[tokio::test]
async fn what_is_written_while_no_holder_lives_waits_in_the_pipe_and_is_not_lost() {
    let mut rig = Rig::start(Mode::Plain).await;
    let (client, _events) = rig.connect().await;
    let go = rig.folder.path().join("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; n=0; while [ $n -lt 20000 ]; do n=$((n+1)); echo $n; done; sleep 60",
        go.display()
    );
    let spawned = client.spawn(rig.shell(key(1), &script)).await.unwrap();
    drop(client);
    rig.kill();
    std::fs::write(&go, "").unwrap();
    let fifo = rig.dir().join("fifo").join(format!("{}.out", key(1)));
    // More than a pipe holds was to be written: the process waits.
    until("the pipe is full", || (waiting(&fifo) > 60 << 10).then_some(())).await;
    assert!(alive(spawned.pid));
    rig.start_again();
    let (client, _events) = rig.connect().await;
    let log =
        until("all is there", || Some(rig.log_of(key(1))).filter(|log| log.ends_with(" 20000\n"))).await;
    assert_eq!(said(&log), ((1..=20_000).collect(), 0));
    client.kill_tree(key(1)).await.unwrap();
}

#[tokio::test]
async fn a_holder_that_is_killed_loses_no_more_than_is_said() {
    // docs/holder.md: the line that had begun, and what was read and not yet written.
    const KILLS: u64 = 8;
    const BOUND: u64 = (16 << 10) + (256 << 10);
    let mut rig = Rig::start(Mode::Plain).await;
    let (client, _events) = rig.connect().await;
    let script = "n=0; while :; do n=$((n+1)); echo $n; [ $((n % 50)) = 0 ] && sleep 0.01; done";
    let spawned = client.spawn(rig.shell(key(1), script)).await.unwrap();
    drop(client);
    for _ in 0..KILLS {
        let before = rig.log_of(key(1)).len();
        until("it writes", || (rig.log_of(key(1)).len() > before + 2_000).then_some(())).await;
        rig.kill();
        rig.start_again();
        drop(rig.connect().await);
    }
    let before = rig.log_of(key(1)).len();
    let log =
        until("it writes on", || Some(rig.log_of(key(1))).filter(|log| log.len() > before + 2_000)).await;
    assert!(alive(spawned.pid), "it was never hurt");
    let (numbers, lost) = said(&log);
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order, none twice");
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    let missing = last - first + 1 - numbers.len() as u64;
    // Its lines have seven bytes at most.
    assert!(missing * 7 <= KILLS * BOUND, "{missing} lines are missing");
    assert_eq!(lost, 0);
    let (client, _events) = rig.connect().await;
    client.kill_tree(key(1)).await.unwrap();
}

/// A small file system in memory, while this lives.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size}");
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "ostler-test"]).arg(path).status();
        done.is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn a_full_disk_never_slows_a_process_and_what_is_lost_is_counted() {
    if !is_root() {
        eprintln!("skipped: a file system can be mounted by root only");
        return;
    }
    let rig = Rig::start(Mode::Plain).await;
    let Some(disk) = Disk::mount(&rig.logs(), "128k") else {
        eprintln!("skipped: this host lets nobody mount a file system");
        return;
    };
    let (client, mut events) = rig.connect().await;
    let go = rig.folder.path().join("go");
    let wrote = rig.folder.path().join("wrote");
    // Many times what disk, pipe and memory hold together, then a last word when there is room again.
    let script = format!(
        "seq 1 600000; : > {}; while [ ! -e {} ]; do sleep 0.01; done; echo 600001",
        wrote.display(),
        go.display()
    );
    client.spawn(rig.shell(key(1), &script)).await.unwrap();
    until("it has written everything", || wrote.exists().then_some(())).await;
    disk.resize("64m");
    std::fs::write(&go, "").unwrap();
    assert_eq!(exit_of(&mut events, key(1)).await.exit, Exit::Code(0));
    let log =
        until("the last word", || Some(rig.log_of(key(1))).filter(|log| log.ends_with(" 600001\n"))).await;
    let (numbers, lost) = said(&log);
    assert!(lost > 0 && numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(numbers.len() as u64 + lost, 600_001, "written or counted, each line");
}

#[tokio::test]
async fn what_nobody_wants_has_no_pipe_and_survives_its_holder() {
    let mut rig = Rig::start(Mode::Plain).await;
    let (client, _events) = rig.connect().await;
    // Asked in a shell of its own: where readlink is built in, standard output is turned away while it looks.
    let script =
        "echo never; is=$(readlink /proc/$$/fd/1); echo $is >&2; while :; do echo x; sleep 0.01; done";
    let mut spawn = rig.shell(key(1), script);
    spawn.log.stdout = LogTo::Null;
    let spawned = client.spawn(spawn).await.unwrap();
    until("it has said where", || rig.log_of(key(1)).contains(" stderr F /dev/null\n").then_some(())).await;
    assert!(!rig.log_of(key(1)).contains("never"));
    let pipes = std::fs::read_dir(rig.dir().join("fifo")).unwrap().count();
    assert_eq!(pipes, 1, "of standard error");
    drop(client);
    rig.kill();
    rig.start_again();
    let (client, _events) = rig.connect().await;
    assert!(alive(spawned.pid));
    assert_eq!(client.list().await.unwrap().processes[0].pid, spawned.pid);
    client.kill_tree(key(1)).await.unwrap();
}
