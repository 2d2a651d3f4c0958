//! The real binary, where no control plane is needed: exit codes and texts.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn ostler(home: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ostler"))
        .args(arguments)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // Commands that do not read their input may have ended before it is written.
    child.stdin.take().expect("a pipe").write_all(input).ok();
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(home: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let output = ostler(home, arguments, input.as_bytes());
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

const GOOD: &str = "apiVersion: ostler/v1\nkind: Namespace\nmetadata: {name: prod}\n";
const BAD: &str = "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      \
                   command: [/bin/true]\n      livenesProb: {}\n";

#[test]
fn validate_exits_like_apply() {
    let home = tempfile::tempdir().expect("a folder");
    let (code, data, talk) = run(home.path(), &["validate", "-f", "-"], GOOD);
    assert_eq!((code, data.as_str(), talk.as_str()), (0, "namespace/prod valid\n", ""));
    std::fs::write(home.path().join("web.yaml"), BAD).expect("written");
    let (code, data, talk) = run(home.path(), &["validate", "-f", "web.yaml"], "");
    assert_eq!((code, data.as_str()), (1, ""));
    assert!(
        talk.starts_with("web.yaml:8:7: deployment/web: spec.template.spec.livenesProb: unknown field"),
        "{talk}"
    );
    assert!(talk.ends_with("refused: 1 finding in 1 of 1 document; nothing was changed\n"), "{talk}");
    let (code, data, _) = run(home.path(), &["validate", "-f", "web.yaml", "-o", "json"], "");
    assert_eq!(code, 1);
    assert!(data.contains("\"kind\": \"Refusal\"") && data.contains("\"code\": \"UnknownField\""), "{data}");
}

#[test]
fn apply_and_diff_find_mistakes_without_a_server() {
    let home = tempfile::tempdir().expect("a folder");
    let (code, _, talk) = run(home.path(), &["apply", "-f", "-"], BAD);
    assert_eq!(code, 1);
    assert!(talk.contains("livenesProb"), "{talk}");
    let (code, _, talk) = run(home.path(), &["apply", "-f", "-"], GOOD);
    assert_eq!(code, 1);
    assert!(talk.contains("no context is selected") && talk.contains("ostler dev"), "{talk}");
    let (code, _, _) = run(home.path(), &["diff", "-f", "nowhere.yaml"], "");
    assert_eq!(code, 2, "for diff 1 means changes");
    let (code, _, _) = run(home.path(), &["diff", "--wrong"], "");
    assert_eq!(code, 2);
}

#[test]
fn decode_takes_anything() {
    let home = tempfile::tempdir().expect("a folder");
    assert_eq!(run(home.path(), &["decode"], ""), (0, "null\n".to_owned(), String::new()));
    let (code, data, _) = run(home.path(), &["decode", "--compact"], "hello");
    assert_eq!((code, data.as_str()), (0, "{\"text\":\"hello\"}\n"));
    let subject = "ostler.v1.event.cp.api.deployment.default.web.Scaled";
    let (code, data, _) = run(home.path(), &["decode", "--compact", "--subject", subject], "");
    assert_eq!(code, 0);
    assert!(data.contains("\"object\":\"deployment/default/web\",\"reason\":\"Scaled\""), "{data}");
}

#[test]
fn contexts_are_kept_and_selected() {
    let home = tempfile::tempdir().expect("a folder");
    for file in ["operator.nk", "ca.pem"] {
        std::fs::write(home.path().join(file), "x").expect("written");
    }
    let add = [
        "context",
        "add",
        "prod",
        "--server",
        "tls://10.0.0.1:4222",
        "--credentials",
        "operator.nk",
        "--ca",
        "ca.pem",
        "--user",
        "anna",
        "-n",
        "web",
    ];
    assert_eq!(run(home.path(), &add, "").0, 0);
    let (code, data, _) = run(home.path(), &["context", "ls"], "");
    assert_eq!(code, 0);
    let expected =
        "SELECTED  NAME  USER  NAMESPACE  SERVERS\n*         prod  anna  web        tls://10.0.0.1:4222\n";
    assert_eq!(data, expected);
    let (code, _, talk) = run(home.path(), &["context", "use", "prdo"], "");
    assert_eq!(code, 1);
    assert!(talk.contains("did you mean prod?"), "{talk}");
    let (code, data, _) = run(home.path(), &["context", "show"], "");
    assert_eq!(code, 0);
    assert!(data.contains("\"user\": \"anna\""), "{data}");
}

#[test]
fn unknown_and_unserved_commands_are_told_apart() {
    let home = tempfile::tempdir().expect("a folder");
    for words in [&["drain", "web-017", "--deadline", "1h"][..], &["freeze", "node/web-017"]] {
        let (code, _, talk) = run(home.path(), words, "");
        assert_eq!(code, 1);
        assert!(talk.contains("is not supported by this version"), "{talk}");
    }
    let (code, _, talk) = run(home.path(), &["aply"], "");
    assert_eq!(code, 1);
    assert!(talk.contains("did you mean apply?"), "{talk}");
    assert_eq!(run(home.path(), &["get"], "").0, 1, "usage errors are errors, not non-convergence");
}

#[test]
fn help_and_version_need_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let (code, data, talk) = run(home.path(), &["--help"], "");
    assert_eq!((code, talk.as_str()), (0, ""));
    assert!(data.contains("Exit codes:"), "{data}");
    let (code, data, _) = run(home.path(), &["version", "--client"], "");
    assert_eq!((code, data), (0, format!("client  {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, data, _) = run(home.path(), &["completion", "bash"], "");
    assert_eq!(code, 0);
    assert!(data.contains("_ostler"), "{data}");
}

#[test]
fn a_bus_that_is_not_there_is_exit_4() {
    let home = tempfile::tempdir().expect("a folder");
    let setup = [
        "setup",
        "--out",
        "out",
        "--server",
        "nats-1=127.0.0.1:1",
        "--node",
        "web-001",
        "--operator",
        "anna",
    ];
    let (code, _, talk) = run(home.path(), &setup, "");
    assert_eq!(code, 0, "{talk}");
    let context = "out/operators/anna/context.json";
    let (code, _, talk) =
        run(home.path(), &["get", "nodes", "--context", context, "--request-timeout", "200ms"], "");
    assert_eq!(code, 4, "{talk}");
    assert!(talk.contains("tls://127.0.0.1:1") && talk.contains("next:"), "{talk}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let home = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ostler"))
        .args(["completion", "bash"])
        .env("HOME", home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}
