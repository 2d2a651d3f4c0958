//! The shipped programs: where they are, and how the command line is run.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::children::heard;

/// The programs that a fleet is made of, beside nats-server.
const PROGRAMS: [&str; 4] = ["ostler", "ostler-controller", "ostler-agent", "ostler-sim"];
/// A command that takes longer hangs: the longest `--timeout` that tests give is 60 s.
const HANGS: Duration = Duration::from_secs(120);

/// The folder of the shipped programs: this program's own, or for a test the one above it.
///
/// # Panics
/// When they have not been built, saying how.
#[must_use]
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().expect("this program's path");
    let complete = |folder: &&Path| PROGRAMS.iter().all(|program| folder.join(program).is_file());
    let found = own.ancestors().skip(1).take(2).find(complete).map(Path::to_path_buf);
    found.unwrap_or_else(|| {
        let folder = own.ancestors().nth(2).unwrap_or(&own).display();
        panic!("{} are not all in {folder}: run `cargo build --workspace --bins` first", PROGRAMS.join(", "))
    })
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// As it was typed.
    pub line: String,
    /// Its exit code; 255 where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Done {
    /// What it printed, where it ended well.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        self.ends(0)
    }

    /// What it printed on both, where it ended with this code.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ends(self, code: i32) -> String {
        assert_eq!(self.code, code, "`{}` ended otherwise:\n{}{}", self.line, self.out, self.err);
        if code == 0 { self.out } else { self.out + &self.err }
    }
}

/// Runs a command to its end.
pub(super) fn run(mut command: Command, input: &str) -> Done {
    let words: Vec<String> = command.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
    let line = format!("ostler {}", words.join(" "));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("ostler starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that does not read its input closes the pipe: that is no failure.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let (status, out, err) = heard(child, HANGS);
    let Some(status) = status else { panic!("`{line}` hangs: {out}{err}") };
    Done { line, code: status.code().unwrap_or(255), out, err }
}
