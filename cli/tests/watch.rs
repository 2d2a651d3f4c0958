//! The watcher and the children of `ostler dev`, as processes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn watch(line: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ostler"))
        .arg("dev-watch")
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // Closing the pipe is what the end of `dev` looks like.
    child.stdin.take().expect("a pipe").write_all(line.as_bytes()).expect("written");
    assert!(child.wait().expect("it ends").success());
}

fn will(temporary: &Path, selection: &Path, farewell: bool) -> String {
    let (temporary, selection) = (temporary.display(), selection.display());
    format!(
        "{{\"agent\":\"/bin/true\",\"holders\":[],\"temporary\":\"{temporary}\",\
         \"contexts\":{{\"files\":[[\"{selection}\",\"prod\"]]}},\"farewell\":{farewell}}}\n"
    )
}

#[test]
fn the_watcher_tidies_up_only_if_nobody_else_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = folder.path().join("fleet");
    let selection = folder.path().join("context.txt");
    std::fs::create_dir_all(temporary.join("hosts")).expect("made");
    std::fs::write(&selection, "dev").expect("written");
    watch(&will(&temporary, &selection, true));
    assert!(temporary.exists());
    assert_eq!(std::fs::read_to_string(&selection).expect("read"), "dev");
    watch(&will(&temporary, &selection, false));
    assert!(!temporary.exists());
    assert_eq!(std::fs::read_to_string(&selection).expect("read"), "prod");
}

#[test]
fn a_child_runs_only_while_its_parent_does() {
    let child = |parent: u32| {
        Command::new(env!("CARGO_BIN_EXE_ostler"))
            .args(["dev-child", &parent.to_string(), "--", "/bin/sh", "-c", "exit 7"])
            .stderr(Stdio::null())
            .status()
            .expect("the binary starts")
            .code()
    };
    assert_eq!(child(std::process::id()), Some(7));
    assert_eq!(child(1), Some(1));
}
