//! The agent on this host, in a folder of its own, with the real holder; with and without root's rights.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ostler_agent::NodeConfig;
use ostler_agent::linux::{
    ArtifactCache, CacheLimits, FileLedger, LinuxFiles, LinuxHost, OwnFolders, ProcessLog,
};
use ostler_agent::ports::LogQuery;
use ostler_schemas::hash::sha256;
use ostler_schemas::quantity::Mode;
use ostler_schemas::spec::{Artifact, Drift, EnvSource, EnvVar, FieldRef, ProcessTemplate, Restart, Unpack};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{ExitReason, FileState, ProcessPhase, Report};

use crate::plane::{Parts, Plane, entry, file_entry, file_spec, template, uid};

/// A host in a folder.
pub(crate) struct Box {
    dir: tempfile::TempDir,
    holder: Option<Child>,
}

impl Drop for Box {
    fn drop(&mut self) {
        let stop = ["holder", "stop-all", "--dir"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_ostler-agent"));
        command.args(stop).arg(self.path("run/holder")).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().ok();
        if let Some(mut holder) = self.holder.take() {
            holder.kill().ok();
            holder.wait().ok();
        }
    }
}

impl Box {
    pub(crate) fn new() -> Self {
        let mut host = Self { dir: tempfile::tempdir().expect("a folder"), holder: None };
        std::fs::create_dir_all(host.path("root/etc")).expect("makes it");
        std::fs::create_dir_all(host.path("run/holder")).expect("makes it");
        host.start_holder();
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn start_holder(&mut self) {
        let child = Command::new(env!("CARGO_BIN_EXE_ostler-agent"))
            .args(["holder", "--dir"])
            .arg(self.path("run/holder"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the holder starts");
        self.holder = Some(child);
    }

    pub(crate) fn kill_holder(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            holder.kill().expect("kills it");
            holder.wait().expect("is reaped");
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        Parts {
            host: LinuxHost::new(
                self.path("run/holder"),
                self.path("log"),
                None,
                OwnFolders::new(&self.path("").to_string_lossy(), &self.path("state"), "boot"),
            ),
            files: LinuxFiles::new(),
            artifacts: Arc::new(
                ArtifactCache::open(
                    &self.path("state/artifacts"),
                    &text(self.path("root")),
                    CacheLimits::default(),
                )
                .expect("opens"),
            ),
            ledger: Arc::new(FileLedger::open(&self.path("state")).expect("opens")),
            config: NodeConfig {
                root: text(self.path("root")),
                own: vec![text(self.path("state"))],
                originals: text(self.path("state/originals")),
                log_dir: text(self.path("log")),
                allow_root: true,
                privileged: nix::unistd::geteuid().is_root(),
                ..NodeConfig::default()
            },
        }
    }
}

pub(crate) fn shell(script: &str) -> ProcessTemplate {
    let mut template = template("/bin/sh", Restart::Always);
    template.args = vec!["-c".to_owned(), script.to_owned()];
    template
}

pub(crate) fn pid(report: &Report, n: u8) -> Option<u32> {
    report.process(&uid(n)).filter(|p| p.phase == ProcessPhase::Running).and_then(|p| p.pid)
}

/// A zombie is not: who inherits the children of a holder that was killed may take its time to reap them.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

#[tokio::test]
async fn processes_and_files_live_through_the_deaths_of_agent_and_holder() {
    let mut host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let sleeper = plane.put_template(&shell("echo hello $OSTLER_NAME; exec sleep 600")).await;
    let ender = plane.put_template(&shell("exit 7")).await;
    let conf = plane.put_file_spec(&file_spec(b"one\n", Drift::Enforce), b"one\n").await;
    plane.put_files(vec![file_entry(9, 1, conf)]).await;
    plane.put_run(vec![entry(1, 0, Goal::Run), entry(2, 1, Goal::Run)], &[sleeper, ender], None).await;
    plane
        .until_report("one runs, the other ends and is started again", |r| {
            pid(r, 1).is_some() && r.exits.iter().any(|e| e.u == uid(2) && e.code == Some(7))
        })
        .await;
    let before = pid(&plane.report().await.expect("a report"), 1).expect("runs");
    let path = host.path("root/etc/app.conf");
    plane
        .until_report("the file is in sync", |r| r.file_states.iter().any(|f| f.state == FileState::InSync))
        .await;
    assert_eq!(std::fs::read(&path).expect("reads"), b"one\n");
    std::fs::write(&path, "spoiled\n").expect("writes");
    plane.until("drift is put back", |_| std::fs::read(&path).is_ok_and(|b| b == b"one\n")).await;
    plane
        .until_report("and told", |r| {
            r.file_states.iter().any(|f| f.last_drift.as_ref().is_some_and(|d| d.diff.is_some()))
        })
        .await;

    plane.kill_agent().await;
    host.kill_holder();
    assert!(is_alive(before), "nothing dies with them");
    host.start_holder();
    plane.start_agent_on(host.parts()).await;
    plane.until_report("adopted", |r| pid(r, 1) == Some(before)).await;
    let log = ProcessLog::new(&host.path("log"), "default", "web-1");
    let text = said_in(&log);
    assert!(text.contains("hello web-1"), "{text:?}");

    plane.put_run(vec![entry(1, 0, Goal::Stop), entry(2, 1, Goal::Stop)], &[sleeper, ender], None).await;
    plane
        .until_report("both stopped", |r| {
            [1, 2].into_iter().all(|n| r.process(&uid(n)).is_some_and(|p| p.phase == ProcessPhase::Stopped))
        })
        .await;
    assert!(!is_alive(before));
    let report = plane.report().await.expect("a report");
    let last = report.exits.iter().rfind(|e| e.u == uid(1)).expect("its exit");
    assert!(matches!(last.reason, ExitReason::Signaled | ExitReason::Unknown), "{last:?}");
}

#[tokio::test]
async fn variables_show_the_labels_of_process_and_node_and_a_new_label_waits_for_the_next_start() {
    let taking = |name: &str, path: &str| {
        let field_ref = FieldRef { field_path: path.parse().expect("a path") };
        EnvVar { name: name.to_owned(), value: None, value_from: Some(EnvSource::FieldRef(field_ref)) }
    };
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let mut speaker = shell("echo $APP on $RACK; exec sleep 600");
    speaker.env = vec![taking("APP", "metadata.labels['app']"), taking("RACK", "node.labels['rack']")];
    speaker.labels.insert("app".to_owned(), "web".to_owned());
    let hash = plane.put_template(&speaker).await;
    plane.labels.insert("rack".to_owned(), "r7".to_owned());
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    let log = ProcessLog::new(&host.path("log"), "default", "web-1");
    let said = |what: &str| said_in(&log).contains(what);
    plane.until("both are shown", |_| said("web on r7")).await;
    plane.until_report("it runs", |r| pid(r, 1).is_some()).await;
    let report = plane.report().await.expect("a report");
    let before = pid(&report, 1).expect("runs");
    plane.labels.insert("rack".to_owned(), "r8".to_owned());
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane.until_report("the document is taken", |r| r.run.revision > report.run.revision).await;
    assert_eq!(pid(&plane.report().await.expect("a report"), 1), Some(before), "nothing was restarted");
    let target = nix::unistd::Pid::from_raw(i32::try_from(before).expect("a pid"));
    nix::sys::signal::kill(target, nix::sys::signal::Signal::SIGKILL).expect("kills");
    plane.until("the next start shows the new one", |_| said("web on r8")).await;
    plane.put_run(vec![entry(1, 0, Goal::Stop)], &[hash], None).await;
    plane.until_report("it ended", |r| r.processes.iter().all(|p| p.phase == ProcessPhase::Stopped)).await;
    plane.kill_agent().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_as_such() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let hash = plane.put_template(&template("/nowhere/at-all", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane
        .until_report("why", |r| {
            r.processes.iter().any(|p| {
                p.phase == ProcessPhase::Pending
                    && p.message.as_ref().is_some_and(|m| m.contains("/nowhere/at-all"))
            })
        })
        .await;
    let report = plane.report().await.expect("a report");
    assert!(report.exits.is_empty(), "nothing ran: {:?}", report.exits);
    plane.kill_agent().await;
}

#[tokio::test]
async fn a_process_is_started_from_an_artifact() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let script = b"#!/bin/sh\necho from $OSTLER_ARTIFACTS\nexec sleep 600\n";
    std::fs::create_dir_all(host.path("root/srv")).expect("made");
    std::fs::write(host.path("root/srv/app"), script).expect("written");
    let artifact = Artifact {
        source: "file:///srv/app".to_owned(),
        sha256: sha256(script),
        path: "bin/app".to_owned(),
        mode: Mode::from_bits(0o755),
        unpack: Unpack::None,
    };
    let missing = Artifact { source: "file:///srv/none".to_owned(), ..artifact.clone() };
    let of = |artifact: Artifact| ProcessTemplate {
        artifacts: vec![artifact],
        ..ProcessTemplate::of(vec!["$(OSTLER_ARTIFACTS)/bin/app".to_owned()])
    };
    let wrong = ProcessTemplate {
        artifacts: vec![Artifact { sha256: sha256(b"x"), ..missing }],
        ..of(artifact.clone())
    };
    let (good, bad) = (plane.put_template(&of(artifact)).await, plane.put_template(&wrong).await);
    plane.put_run(vec![entry(1, 0, Goal::Run), entry(2, 1, Goal::Run)], &[good, bad], None).await;
    plane
        .until_report("one runs, the other cannot", |r| {
            let of = |n| r.processes.iter().find(|p| p.u == uid(n));
            of(1).is_some_and(|p| p.ready)
                && of(2).is_some_and(|p| {
                    p.reason == Some(Reason::ArtifactFailed)
                        && p.message.as_ref().is_some_and(|m| m.contains("file:///srv/none"))
                })
        })
        .await;
    plane.kill_agent().await;
}

#[tokio::test]
async fn many_processes_start_and_stop() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let sleeper = plane.put_template(&shell("exec sleep 600")).await;
    plane.put_run((1..=60).map(|n| entry(n, 0, Goal::Run)).collect(), &[sleeper], None).await;
    plane.until_report("sixty run", |r| r.processes.iter().filter(|p| p.ready).count() == 60).await;
    plane.put_run((1..=60).map(|n| entry(n, 0, Goal::Stop)).collect(), &[sleeper], Some("delete")).await;
    plane
        .until_report("and none", |r| {
            r.processes.iter().filter(|p| p.phase == ProcessPhase::Stopped).count() == 60
        })
        .await;
    plane.kill_agent().await;
}

/// All that a short log says.
fn said_in(log: &ProcessLog) -> String {
    let piece = log.open(&LogQuery::default()).and_then(|mut reader| reader.next_piece()).expect("reads");
    String::from_utf8_lossy(&piece.bytes).into_owned()
}
