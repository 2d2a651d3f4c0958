//! Drift on this host: put back, with the hand that did it named where the kernel tells; and storms.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use ostler_schemas::spec::Drift;
use ostler_schemas::v1::report::{DriftReport, FileState, Report, Writer};

use crate::plane::{Plane, file_entry, file_spec};
use crate::real::Box;

/// A shell that does something and then lives on until it is told to end.
struct Hand(Child);

impl Hand {
    fn does(script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{script}; read line")]).stdin(Stdio::piped());
        Self(command.spawn().expect("starts"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn drift(report: &Report) -> Option<&DriftReport> {
    report.file_states.first()?.last_drift.as_ref()
}

fn in_sync(report: &Report) -> bool {
    report.file_states.iter().any(|file| file.state == FileState::InSync)
}

fn holds(path: &Path, content: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes == content)
}

/// As told by a host that names writers, and by one that cannot.
fn is_named(drift: &DriftReport, pid: u32) -> bool {
    match (&drift.writer, &drift.no_writer) {
        (Some(Writer { pid: is, uid, exe, .. }), None) => {
            *is == pid && *uid == Some(nix::unistd::geteuid().as_raw()) && exe.is_some()
        }
        (None, Some(why)) => {
            why.contains("needs") || why.contains("fanotify") || why.contains("does not tell")
        }
        (_, _) => false,
    }
}

#[tokio::test]
async fn a_drift_is_put_back_and_its_writer_named() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let spec = plane.put_file_spec(&file_spec(b"a = 1\nb = 2\n", Drift::Enforce), b"a = 1\nb = 2\n").await;
    plane.put_files(vec![file_entry(9, 1, spec)]).await;
    plane.until_report("in sync", in_sync).await;
    let path = host.path("root/etc/app.conf");
    let hand = Hand::does(&format!("echo 'c = 3' >> {}", path.display()));
    plane.until_report("told", |report| drift(report).is_some()).await;
    plane.until("put back", |_| holds(&path, b"a = 1\nb = 2\n")).await;
    let report = plane.report().await.expect("a report");
    let drift = drift(&report).expect("told");
    assert!(is_named(drift, hand.pid()), "{drift:?} by {}", hand.pid());
    assert_eq!((drift.what.as_str(), drift.lines), ("content", Some((1, 0))));
    assert_eq!(drift.diff.as_deref(), Some("@@ -1,2 +1,3 @@\n a = 1\n b = 2\n+c = 3\n"));
    plane.kill_agent().await;
}

#[tokio::test]
async fn another_file_in_its_place_and_a_missing_one_are_somebody_s_doing_too() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let spec = plane.put_file_spec(&file_spec(b"one\n", Drift::Warn), b"one\n").await;
    plane.put_files(vec![file_entry(9, 1, spec)]).await;
    plane.until_report("in sync", in_sync).await;
    let path = host.path("root/etc/app.conf");
    let other = host.path("root/etc/.other");
    // A shell has no rename of its own; what it calls may be gone before anybody could ask who that was.
    std::fs::write(&other, "two\n").expect("writes");
    Command::new("mv").args([&other, &path]).status().expect("moves");
    plane.until_report("found", |report| drift(report).is_some_and(|d| d.what == "content")).await;
    assert!(holds(&path, b"two\n"), "a warning changes nothing");
    Command::new("rm").arg(&path).status().expect("removes");
    plane.until_report("missing", |report| drift(report).is_some_and(|d| d.what == "missing")).await;
    let report = plane.report().await.expect("a report");
    let drift = drift(&report).expect("told");
    assert!(drift.writer.is_some() || drift.no_writer.is_some(), "{drift:?}");
    plane.kill_agent().await;
}

#[tokio::test]
async fn a_writer_that_fights_is_given_in_to_and_named() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let spec = plane.put_file_spec(&file_spec(b"one\n", Drift::Enforce), b"one\n").await;
    plane.put_files(vec![file_entry(9, 1, spec)]).await;
    plane.until_report("in sync", in_sync).await;
    let path = host.path("root/etc/app.conf");
    let hand = Hand::does(&format!("while :; do echo two > {}; done", path.display()));
    let contested =
        |report: &Report| report.file_states.iter().any(|file| file.state == FileState::Contested);
    plane.until_report("contested", contested).await;
    let report = plane.report().await.expect("a report");
    let drift = drift(&report).expect("told");
    assert!(is_named(drift, hand.pid()), "{drift:?} by {}", hand.pid());
    assert_eq!(drift.repairs, 3, "from then on once a minute");
    let message = report.file_states[0].message.clone().expect("says so");
    assert!(message.starts_with("put back 3 times in 10m; other writer"), "{message}");
    drop(hand);
    // A person's act ends it.
    plane.put_files(vec![file_entry(9, 2, spec)]).await;
    plane.until_report("taken up again", in_sync).await;
    assert!(holds(&path, b"one\n"));
    plane.kill_agent().await;
}
