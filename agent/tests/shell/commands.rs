//! The commands of `ostler-agent` on this host, as people type them: with an agent, and without.

use std::process::Output;

use ostler_agent::linux::FileLedger;
use ostler_agent::local::{notes, server, story};
use ostler_schemas::spec::Drift;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::FileState;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::plane::{Plane, entry, file_entry, file_spec};
use crate::real::{Box, pid, shell};

/// Exit code, and everything that was said.
async fn ask(host: &Box, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostler-agent"));
    for (flag, dir) in [("--run-dir", "run"), ("--state-dir", "state"), ("--log-dir", "log")] {
        command.arg(flag).arg(host.path(dir));
    }
    let Output { status, stdout, stderr } = command.args(words).output().await.expect("runs");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap_or(-1), text)
}

async fn start(plane: &mut Plane, host: &Box) -> JoinHandle<()> {
    let mut parts = host.parts();
    parts.config.story = Some(story::path(&host.path("state")));
    plane.start_agent_on(parts).await;
    server::serve(&host.path("run/agent"), plane.viewer()).expect("serves")
}

#[tokio::test]
async fn people_on_the_host_see_and_hold_and_stop_with_and_without_an_agent() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    let socket = start(&mut plane, &host).await;
    let hash = plane.put_template(&shell("echo hello; exec sleep 600")).await;
    let conf = plane.put_file_spec(&file_spec(b"one\n", Drift::Enforce), b"one\n").await;
    plane.put_files(vec![file_entry(9, 1, conf)]).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane.until_report("it runs", |r| pid(r, 1).is_some()).await;
    plane.until_report("in sync", |r| r.file_states.iter().any(|f| f.state == FileState::InSync)).await;

    let (code, text) = ask(&host, &["ps", "-o", "json"]).await;
    assert!(code == 0 && text.contains("\"kind\": \"List\"") && text.contains("web-1"), "{code} {text}");
    let (code, text) = ask(&host, &["why", "web-1"]).await;
    assert!(code == 0 && text.contains("sleep 600") && text.contains("goal"), "{code} {text}");
    let (code, text) = ask(&host, &["why", "nobody"]).await;
    assert!(code == 1 && text.contains("ostler-agent ps"), "{code} {text}");
    let (code, text) = ask(&host, &["owns", "/etc/app.conf"]).await;
    let is_whole = text.starts_with("configfile/default/app-conf version 1  InSync  content ");
    assert!(code == 0 && is_whole && text.contains("on disk since"), "{code} {text}");
    assert_eq!(ask(&host, &["owns", "/etc/app.conf.d"]).await.0, 1);
    assert_eq!(ask(&host, &["files", "diff", "/etc/app.conf"]).await, (0, String::new()));

    let (code, text) = ask(&host, &["hold", "/etc/app.conf", "--for", "1h", "--reason", "trying"]).await;
    assert!(code == 0 && text.contains("trying"), "{code} {text}");
    let path = host.path("root/etc/app.conf");
    std::fs::write(&path, "one\nmine\n").expect("writes");
    let (code, text) = ask(&host, &["files", "diff", "/etc/app.conf"]).await;
    assert!(code == 1 && text.contains("+mine"), "{code} {text}");
    plane.until_report("held", |r| r.file_states.iter().any(|f| f.state == FileState::Held)).await;
    assert_eq!(std::fs::read(&path).expect("reads"), b"one\nmine\n");
    assert_eq!(ask(&host, &["release", "/etc/app.conf"]).await.0, 0);
    plane.until("put back", |_| std::fs::read(&path).is_ok_and(|bytes| bytes == b"one\n")).await;
    let (code, text) = ask(&host, &["hold", "web-1", "--for", "1", "--reason", "x"]).await;
    assert!(code == 1 && text.contains("--for"), "{code} {text}");

    plane.kill_agent().await;
    socket.abort();
    drop(socket.await);
    assert_eq!(ask(&host, &["status"]).await.0, 3);
    assert_eq!(ask(&host, &["why", "web-1"]).await.0, 3);
    let (code, text) = ask(&host, &["owns", &path.to_string_lossy()]).await;
    assert!(code == 0 && text.contains("configfile/default/app-conf version 1"), "{code} {text}");
    assert_eq!(ask(&host, &["owns", "/etc/app.conf.d"]).await.0, 1);
    assert!(ask(&host, &["ps"]).await.1.contains("web-1"));
    assert!(ask(&host, &["logs", "web-1"]).await.1.contains("hello"));
    let (code, text) = ask(&host, &["events"]).await;
    assert!(code == 0 && text.contains("Held") && text.contains("released on the host"), "{code} {text}");
    let (code, text) = ask(&host, &["stop", "web-1", "--reason", "no agent"]).await;
    assert!(code == 0 && text.contains("no agent"), "{code} {text}");

    // As the daemon does when it starts.
    let ledger = FileLedger::open(&host.path("state")).expect("opens");
    notes::take_up(&host.path("state"), &ledger).await.expect("takes it up");
    let _socket = start(&mut plane, &host).await;
    plane
        .until_report("it is stopped, and stays so", |r| {
            pid(r, 1).is_none()
                && r.processes.iter().any(|p| p.message.as_ref().is_some_and(|m| m.contains("no agent")))
        })
        .await;
    let (code, text) = ask(&host, &["start", "web-1"]).await;
    assert_eq!(code, 0, "{text}");
    plane.until_report("it runs again", |r| pid(r, 1).is_some()).await;
    plane.put_run(vec![entry(1, 0, Goal::Stop)], &[hash], None).await;
    plane.until_report("it ends", |r| pid(r, 1).is_none()).await;
    plane.kill_agent().await;
}
