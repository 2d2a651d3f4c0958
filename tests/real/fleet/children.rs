//! Processes: killed, looked at and found again by their pid; children waited for and heard.

use std::io::Read;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a pid");
    assert!(pid > 1, "{pid} is nobody's to signal");
    // Who is gone already needs no signal.
    send(Pid::from_raw(pid), signal).ok();
}

/// `kill -9`.
pub fn kill(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

/// `kill`.
pub fn term(pid: u32) {
    signal(pid, Signal::SIGTERM);
}

/// Asks a child to end, as Ctrl-C does.
pub(super) fn signal_child(child: &Child) {
    signal(child.id(), Signal::SIGINT);
}

/// Between two looks whether a child has ended.
const LOOK: Duration = Duration::from_millis(5);

/// How a child ends within so much time; one that does not is killed.
pub(super) fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Ok(None) | Err(_) => break,
        }
    }
    child.kill().and_then(|()| child.wait()).ok();
    None
}

/// How a child that was heard ended (not at all, if it had to be killed), its standard output, and its standard error.
pub fn heard(mut child: Child, within: Duration) -> (Option<ExitStatus>, String, String) {
    // Each on its own: who waits for the end of one leaves the other full.
    let (out, err) = (child.stdout.take().map(collect), child.stderr.take().map(collect));
    let status = ended(&mut child, within);
    let text = |said: Option<JoinHandle<String>>| said.and_then(|said| said.join().ok()).unwrap_or_default();
    (status, text(out), text(err))
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        // What came before an error counts.
        pipe.read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Whether a process runs: it is there, and no zombie.
#[must_use]
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'));
    state == Some(false)
}

/// Processes that have this folder in their command line or their environment: pid and command line.
#[must_use]
pub fn left_behind(folder: &Path) -> Vec<(u32, String)> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let own = std::process::id();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter(|pid| *pid != own && alive(*pid)).filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |text: &[u8]| text.windows(needle.len()).any(|part| part == needle);
        (has(&line) || has(&environment)).then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    found.collect()
}
