//! What processes say of themselves, what they are started from, and what follows when they do not answer any more.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use harness::fleet::{Fleet, Size, until};
use nix::unistd::geteuid;
use ostler_schemas::hash::sha256;
use serde_json::Value;

use crate::work::deployment;

/// The status of the only process that there is.
fn status(fleet: &Fleet) -> Option<Value> {
    let all = fleet.try_get(&["processes"])?;
    all.first().map(|process| process["status"].clone())
}

fn text<'a>(status: &'a Value, field: &str) -> &'a str {
    status[field].as_str().unwrap_or_default()
}

#[test]
fn a_process_that_does_not_answer_is_started_again_and_says_why() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    // The test itself is what the probe asks.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let probe = format!(
        "      livenessProbe: {{tcpSocket: {{port: {port}, host: 127.0.0.1}}, period: 1s, failureThreshold: 1}}\n      \
         restartSec: 3s\n      command:"
    );
    fleet.run_with(&["apply", "-f", "-"], &deployment("web", 1).replace("      command:", &probe)).ok();
    let first = fleet.until_running("web", 1).into_values().next().expect("one runs");
    drop(listener);
    let waits = until("it was stopped, and waits before it is started again", || {
        status(&fleet).filter(|s| s["phase"] == "Pending" && s["reason"] == "ProbeFailed")
    });
    let said = text(&waits, "message");
    assert!(said.contains("its livenessProbe fails") && said.contains("starts again in "), "{waits}");
    let again = until("it was started again and failed again", || {
        status(&fleet).filter(|s| s["phase"] == "Pending" && s["reason"] == "CrashLoop")
    });
    assert!(text(&again, "message").contains("its livenessProbe fails"), "{again}");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let last = fleet.until_running("web", 1).into_values().next().expect("one runs");
    assert!(last.restarts >= 1 && last.pid != first.pid, "{first:?} {last:?}");
    fleet.until_event("ProbeFailed", "process/web");
    drop(listener);
}

/// Says how it is, waits until a file is there, and says that it is up.
const SPEAKER: &str = "import os, socket, sys, time; \
    mouth = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
    name = os.environ['NOTIFY_SOCKET']; \
    name = chr(0) + name[1:] if name.startswith('@') else name; \
    say = lambda words: mouth.sendto(words.encode(), name); \
    say('STATUS=warming up as %d' % os.getuid()); \
    [time.sleep(0.05) for _ in iter(lambda: os.path.exists(sys.argv[1]), True)]; \
    say('READY=1' + chr(10) + 'STATUS=serving'); \
    time.sleep(1000000)";

#[test]
fn what_says_that_it_is_up_is_up_then_whoever_it_runs_as() {
    // One that everybody can run: another user may not see the one of who runs the tests.
    let python = "/usr/bin/python3";
    if !Path::new(python).exists() {
        eprintln!("skipped: {python}, which plays the process, is not installed");
        return;
    }
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    std::fs::set_permissions(fleet.folder(), std::fs::Permissions::from_mode(0o711))
        .expect("the folder is ours");
    let nobody = geteuid().is_root().then_some("nobody");
    for user in [None, nobody].into_iter().flatten().map(Some).chain([None]) {
        let name = format!("speaker-{}", user.unwrap_or("own"));
        let go = fleet.folder().join(format!("go-{name}"));
        let as_user = user.map_or(String::new(), |user| format!("      user: {user}\n"));
        let mut manifest = deployment(&name, 1);
        manifest.truncate(manifest.find("      command:").expect("a command"));
        writeln!(
            manifest,
            "{as_user}      type: notify\n      timeoutStopSec: 2s\n      command: [{python}, -c, {SPEAKER:?}, {:?}]",
            go.display().to_string()
        )
        .expect("a string takes everything");
        fleet.run_with(&["apply", "-f", "-"], &manifest).ok();
        let warm = until("it says how it is, and is not up", || {
            status(&fleet)
                .filter(|s| s["phase"] == "Starting" && text(s, "message").starts_with("warming up"))
        });
        assert_eq!(warm["ready"], false, "{warm}");
        let uid = user.map_or(geteuid().as_raw(), |_| 65_534);
        assert_eq!(text(&warm, "message"), format!("warming up as {uid}"));
        std::fs::write(&go, "").expect("written");
        let up = fleet.until_running(&name, 1);
        until("it is up, in its own words", || {
            status(&fleet).filter(|s| s["phase"] == "Running" && text(s, "message") == "serving")
        });
        assert!(up.values().all(|process| process.restarts == 0), "{up:?}");
        fleet.ok(&["delete", &format!("deployment/{name}"), "--wait"]);
        until("it is gone", || fleet.try_get(&["processes"])?.is_empty().then_some(()));
    }
}

/// A server of one file, for as long as the test program runs.
fn serve(content: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let content: Arc<str> = content.into();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            // One request, no body: what does not fit in here is no request of ours.
            let mut request = [0; 8192];
            let Ok(1..) = stream.read(&mut request) else { continue };
            let length = content.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content.as_bytes())).ok();
        }
    });
    address
}

/// A program that tells its version and lives until it is asked to end.
fn program(version: u32) -> String {
    format!("#!/bin/sh\ntrap 'exit 0' TERM\necho version {version}\nwhile :; do sleep 1 & wait; done\n")
}

fn from(source: &str, sha256: &str) -> String {
    let mut text = deployment("web", 2);
    text.truncate(text.find("      command:").expect("a command"));
    text + &format!(
        "      artifacts: [{{source: {source:?}, sha256: {sha256}, path: bin/app}}]\n      \
         command: [$(OSTLER_ARTIFACTS)/bin/app]\n"
    )
}

#[test]
fn a_version_with_another_hash_leaves_the_one_before_running_and_a_good_one_replaces_it() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    let file = fleet.file("node-1", "/srv/app");
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    std::fs::write(&file, program(1)).expect("written");
    fleet.converges(&from("file:/srv/app", &sha256(program(1).as_bytes()).to_string()));
    let before = fleet.until_running("web", 2);

    let address = serve(&program(2));
    let source = format!("http://{address}/app");
    let (wrong, right) = (sha256(b"what was built"), sha256(program(2).as_bytes()));
    fleet.run_with(&["apply", "-f", "-"], &from(&source, &wrong.to_string())).ok();
    let event = fleet.until_event("ArtifactFailed", "process/web");
    let said = event["message"].as_str().unwrap_or_default();
    assert!(said.contains(&wrong.to_string()) && said.contains(&right.to_string()), "both hashes: {event}");
    let after = fleet.until_running("web", 2);
    assert_eq!(after, before, "the version before goes on");

    fleet.converges(&from(&source, &right.to_string()));
    let rolled = until("the good version runs", || {
        let now = fleet.running("web");
        let all_new = now.len() == 2 && now.values().all(|process| process.version == 3);
        all_new.then_some(now)
    });
    assert!(rolled.keys().all(|name| !before.contains_key(name)), "{rolled:?}");
    let name = rolled.keys().next().expect("one runs");
    until("and says so", || {
        let done = fleet.run(&["logs", name]);
        (done.code == 0 && done.out.contains("version 2")).then_some(())
    });
}
