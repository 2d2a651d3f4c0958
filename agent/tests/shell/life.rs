//! The life of real processes under the real holder: what they say, what is run for them, how they are stopped.

use std::os::unix::net::UnixDatagram;

use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::{Exec, ProcessTemplate, ProcessType, Restart};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{ExitReason, ProcessPhase, ProcessReport, Report};

use crate::plane::{Plane, entry, template, uid};
use crate::real::{Box, shell};

/// The program of the tests below: this test binary, asked to run this test alone. It says that it is up, and how it
/// is, and is silent from then on.
#[test]
#[ignore = "is a program and no test"]
fn speaks() {
    let Ok(address) = std::env::var("NOTIFY_SOCKET") else { return };
    let mouth = UnixDatagram::unbound().expect("a socket");
    mouth.send_to(b"STATUS=42 users\nREADY=1", address).expect("is heard");
    loop {
        std::thread::park();
    }
}

fn speaker() -> ProcessTemplate {
    let own = std::env::current_exe().expect("this program");
    let mut template = template(own.to_str().expect("text"), Restart::Always);
    template.args = ["life::speaks", "--exact", "--ignored", "--nocapture"].map(str::to_owned).to_vec();
    template.kind = ProcessType::Notify;
    template
}

fn sh(script: &str) -> Exec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Exec { command, user: None, timeout: Dur::from_secs(20) }
}

async fn run(template: ProcessTemplate) -> (Box, Plane) {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let hash = plane.put_template(&template).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    (host, plane)
}

fn one(report: &Report) -> Option<&ProcessReport> {
    report.process(&uid(1))
}

fn exited(report: &Report, reason: ExitReason) -> bool {
    report.exits.iter().any(|exit| exit.reason == reason)
}

#[tokio::test]
async fn what_a_process_says_is_heard_and_outlives_the_agent() {
    let (host, mut plane) = run(speaker()).await;
    let is_up = |r: &Report| one(r).is_some_and(|p| p.ready && p.message.as_deref() == Some("42 users"));
    plane.until_report("it is up, in its own words", is_up).await;
    let pid = plane.report().await.and_then(|r| one(&r).and_then(|p| p.pid));
    plane.kill_agent().await;
    plane.start_agent_on(host.parts()).await;
    plane.until_report("the next agent knows it", |r| is_up(r) && one(r).and_then(|p| p.pid) == pid).await;
    plane.kill_agent().await;
}

#[tokio::test]
async fn silence_is_ended_by_the_holder() {
    let (_host, mut plane) =
        run(ProcessTemplate { watchdog_sec: Some(Dur::from_millis(300)), ..speaker() }).await;
    plane.until_report("the watchdog ended it", |r| exited(r, ExitReason::Watchdog)).await;
    plane.kill_agent().await;
}

#[tokio::test]
async fn a_start_that_never_comes_up_is_ended() {
    let mut silent = shell("exec sleep 600");
    silent.kind = ProcessType::Notify;
    silent.timeout_start_sec = Dur::from_millis(400);
    let (_host, mut plane) = run(silent).await;
    plane.until_report("it was given up", |r| exited(r, ExitReason::StartTimeout)).await;
    plane.kill_agent().await;
}

#[tokio::test]
async fn hooks_run_in_order_and_a_failing_one_starts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log").display().to_string();
    let mut good = shell(&format!("echo main >> {log}; exec sleep 600"));
    good.exec_start_pre = vec![sh(&format!("echo pre1 >> {log}")), sh(&format!("echo pre2 >> {log}"))];
    good.exec_stop = Some(sh(&format!("echo stop >> {log}; exit 1")));
    good.exec_stop_post = Some(sh(&format!("echo post >> {log}")));
    let (_host, mut plane) = run(good.clone()).await;
    plane.until_report("it runs", |r| one(r).is_some_and(|p| p.ready)).await;
    let hash = plane.put_template(&good).await;
    plane.put_run(vec![entry(1, 0, Goal::Stop)], &[hash], Some("delete")).await;
    plane.until_report("it ended", |r| one(r).is_some_and(|p| p.phase == ProcessPhase::Stopped)).await;
    let said = std::fs::read_to_string(&log).expect("reads");
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["pre1", "pre2", "main", "stop", "post"]);
    plane.kill_agent().await;

    let mut bad = shell("exec sleep 600");
    bad.exec_start_pre = vec![sh("echo no such thing >&2; exit 3")];
    let (_host, mut plane) = run(bad).await;
    plane
        .until_report("the start failed, with the hook's last words", |r| {
            one(r).is_some_and(|p| {
                let told = p.message.as_deref().is_some_and(|m| m.contains("code 3: no such thing"));
                p.reason == Some(Reason::StartFailed) && told && p.exits == 0
            })
        })
        .await;
    plane.kill_agent().await;
}

#[tokio::test]
async fn a_oneshot_is_done_once_and_a_deaf_process_is_killed() {
    let mut work = shell("exit 0");
    work.kind = ProcessType::Oneshot;
    let (_host, mut plane) = run(work).await;
    plane
        .until_report("it is done", |r| one(r).is_some_and(|p| p.phase == ProcessPhase::Succeeded && p.ready))
        .await;
    plane.kill_agent().await;

    let mut deaf = shell("trap '' TERM; while :; do sleep 1; done");
    deaf.timeout_stop_sec = Dur::from_millis(300);
    let (_host, mut plane) = run(deaf.clone()).await;
    plane.until_report("it runs", |r| one(r).is_some_and(|p| p.ready)).await;
    let hash = plane.put_template(&deaf).await;
    plane.put_run(vec![entry(1, 0, Goal::Stop)], &[hash], Some("delete")).await;
    plane.until_report("it was killed", |r| exited(r, ExitReason::StopTimeout)).await;
    plane.kill_agent().await;
}
