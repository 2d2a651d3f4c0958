//! Validators on this host: real commands, run by the real holder, at real files.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use ostler_schemas::hash::sha256;
use ostler_schemas::quantity::{Dur, Mode};
use ostler_schemas::spec::{ContentRef, Drift, FileItem, Syntax, Validator};
use ostler_schemas::v1::document::FileSpec;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{FileReport, FileState, Report};

use crate::plane::{Plane, file_entry, file_spec};
use crate::real::Box;

fn shell(script: &str) -> Validator {
    // The candidate is a word of its own: the shell sees no path that it could misread.
    let words = ["/bin/sh", "-c", script, "check", "$(FILE)"];
    let command = words.map(str::to_owned).to_vec();
    Validator { command, user: None, timeout: Dur::from_secs(2), syntax: None }
}

fn checked(content: &[u8], validator: Validator) -> FileSpec {
    FileSpec {
        validator: Some(validator),
        mode: Mode::from_bits(0o640),
        ..file_spec(content, Drift::Enforce)
    }
}

fn file(report: &Report) -> &FileReport {
    report.file_states.first().expect("a file")
}

fn is(report: &Report, wanted: u64, state: FileState) -> bool {
    report.file_states.iter().any(|f| f.wanted.0 == wanted && f.state == state)
}

async fn refused(plane: &mut Plane, version: u64) -> String {
    plane.until_report("it is refused", |r| is(r, version, FileState::Failed)).await;
    let report = plane.report().await.expect("a report");
    assert_eq!(file(&report).reason, Some(Reason::ValidatorFailed));
    file(&report).message.clone().unwrap_or_default()
}

async fn push(plane: &mut Plane, version: u64, content: &[u8], validator: Validator) {
    let hash = plane.put_file_spec(&checked(content, validator), content).await;
    plane.put_files(vec![file_entry(9, version, hash)]).await;
}

/// A candidate is the very file that is renamed: with its mode and owner, where it will lie, and nothing lies there
/// before the validator has ended well.
#[tokio::test]
async fn a_validator_decides_what_is_put_in_place() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let (path, temp) = (host.path("root/etc/app.conf"), host.path("root/etc/.app.conf.ostler"));
    let look = format!(
        "test \"$1\" = {temp} && test \"$FILE\" = \"$1\" && test ! -e {path} && stat -c '%a %i' \"$1\" > {seen} && \
         grep -q good \"$1\"",
        temp = temp.display(),
        path = path.display(),
        seen = host.path("seen").display(),
    );
    push(&mut plane, 1, b"good\n", shell(&look)).await;
    plane.until_report("it is there", |r| is(r, 1, FileState::InSync)).await;
    let meta = std::fs::metadata(&path).expect("there");
    let seen = std::fs::read_to_string(host.path("seen")).expect("it was looked at");
    assert_eq!(seen, format!("640 {}\n", meta.ino()));
    assert_eq!(meta.permissions().mode() & 0o7777, 0o640);

    let says = "for n in $(seq 1 30); do echo \"line $n\"; done >&2; exit 1";
    push(&mut plane, 2, b"bad\n", shell(says)).await;
    let message = refused(&mut plane, 2).await;
    assert!(
        message.starts_with("line 28; line 29; line 30\nthe validator exited with code 1:\nline 11\n"),
        "{message}"
    );
    assert_eq!(std::fs::read(&path).expect("there"), b"good\n");
    plane.until("nothing of it is left", |_| !temp.exists()).await;

    push(&mut plane, 3, b"slow\n", shell("sleep 600")).await;
    let message = refused(&mut plane, 3).await;
    assert_eq!(message, "the validator did not end within 2s and said nothing");

    push(&mut plane, 4, b"honest\n", shell("echo more >> \"$1\"")).await;
    let message = refused(&mut plane, 4).await;
    assert_eq!(message, "the validator has changed what it looked at (content)");

    push(
        &mut plane,
        5,
        b"good too\n",
        Validator { command: vec!["/no/such/program".to_owned()], ..shell("") },
    )
    .await;
    assert!(refused(&mut plane, 5).await.starts_with("its validator could not be run: "));

    let user = Some("no-such-user".to_owned());
    push(&mut plane, 6, b"good too\n", Validator { user, ..shell("true") }).await;
    assert!(refused(&mut plane, 6).await.starts_with("its validator is refused: "));
    assert_eq!(std::fs::read(&path).expect("there"), b"good\n");
    push(&mut plane, 7, b"good too\n", shell("grep good \"$1\"")).await;
    plane.until_report("it is there", |r| is(r, 7, FileState::InSync)).await;
    assert_eq!(std::fs::read(&path).expect("there"), b"good too\n");
}

#[tokio::test]
async fn several_files_stand_in_one_folder_while_they_are_looked_at() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let item = |name: &str, content: &[u8]| FileItem {
        name: name.to_owned(),
        content: Some(ContentRef { sha256: sha256(content), size: content.len() as u64 }),
        template: None,
        mode: None,
    };
    let script =
        "cd \"$1\" && test \"$(cat main.conf conf.d/more.conf)\" = \"$(printf 'a\\nb')\" && echo x > junk";
    let files = |b: &[u8]| vec![item("main.conf", b"a\n"), item("conf.d/more.conf", b)];
    let spec = |b: &[u8]| FileSpec {
        path: "/etc/app.d".to_owned(),
        content: None,
        files: files(b),
        ..checked(b"a\n", shell(script))
    };
    for content in [b"a\n", b"b\n", b"c\n"] {
        plane.put_blob(content).await;
    }
    let good = plane.put_file_spec(&spec(b"b\n"), b"b\n").await;
    plane.put_files(vec![file_entry(9, 1, good)]).await;
    plane.until_report("it is there", |r| is(r, 1, FileState::InSync)).await;
    let bad = plane.put_file_spec(&spec(b"c\n"), b"c\n").await;
    plane.put_files(vec![file_entry(9, 2, bad)]).await;
    refused(&mut plane, 2).await;
    assert_eq!(std::fs::read(host.path("root/etc/app.d/conf.d/more.conf")).expect("there"), b"b\n");
    let candidate = host.path("root/etc/app.d/.candidate.ostler");
    plane.until("nothing of it is left", |_| !candidate.exists()).await;
}

#[tokio::test]
async fn a_syntax_is_checked_without_a_command() {
    let host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let json = || Validator { command: Vec::new(), syntax: Some(Syntax::Json), ..shell("") };
    push(&mut plane, 1, b"{\n  \"a\": 1,\n}\n", json()).await;
    assert!(refused(&mut plane, 1).await.starts_with("line 3, column 1: is not json: "));
    assert!(!host.path("root/etc/app.conf").exists());
    push(&mut plane, 2, b"{\"a\": 1}\n", json()).await;
    plane.until_report("it is there", |r| is(r, 2, FileState::InSync)).await;
}
