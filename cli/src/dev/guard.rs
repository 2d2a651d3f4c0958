//! What makes children end with their parent, however it ends.
//!
//! * [`child`] becomes another program that gets SIGTERM when the thread that started it is gone: servers, controllers
//!   and agents of `dev` are started through it. It needs no unsafe code between fork and exec.
//! * [`watch`] is a process of its own that waits until `dev` is gone. If `dev` did not say farewell it was killed, and
//!   the watcher does what `dev` would have done: it has each holder end its processes, ends the holder, removes a
//!   temporary folder and puts the contexts back.
//!
//! What remains when the watcher is killed as well: the holders and their processes. The next `dev` on the same folder
//! ends them first.

use std::io::BufRead as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::contexts::Saved;
use crate::failure::Failure;

/// Grace of processes when their host ends with `dev`: they are somebody's trial, and somebody waits at a prompt.
pub const STOP_GRACE_MS: u64 = 3_000;

/// A holder that must be ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderLeft {
    /// Its folder.
    pub dir: PathBuf,
    /// Its process.
    pub pid: u32,
}

/// What has to be done when `dev` is gone. Each line that the watcher reads replaces the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// The agent's program, which also stops holders.
    pub agent: PathBuf,
    /// Holders that run.
    pub holders: Vec<HolderLeft>,
    /// A folder to remove.
    pub temporary: Option<PathBuf>,
    /// Contexts to put back.
    pub contexts: Option<Saved>,
    /// `dev` has done all of it itself.
    pub farewell: bool,
}

/// Becomes another program, tied to the life of its parent. Only returns if that failed.
///
/// # Errors
/// When the program cannot be run.
pub fn child(parent: u32, words: &[std::ffi::OsString]) -> Result<(), Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::message("there is no program to run"));
    };
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)
        .map_err(|error| Failure::local("cannot tie the child to its parent", error))?;
    // The parent may have gone before the line above took effect; then nobody would ever end this.
    if nix::unistd::getppid().as_raw().unsigned_abs() != parent {
        return Err(Failure::message("the parent has gone"));
    }
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::local(&format!("cannot run {}", Path::new(program).display()), error))
}

/// Waits on standard input until `dev` is gone, and then does what is left to do.
///
/// # Errors
/// Never for what is already gone: there is nobody to tell.
pub fn watch() -> Result<(), Failure> {
    let mut will = Will::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Ok(next) = serde_json::from_str(&line) {
            will = next;
        }
    }
    if !will.farewell {
        execute(&will);
    }
    Ok(())
}

fn execute(will: &Will) {
    let mut stops: Vec<_> = will
        .holders
        .iter()
        .map(|holder| (holder, stop_command(&will.agent, &holder.dir).spawn().ok()))
        .collect();
    for (_, stop) in &mut stops {
        if let Some(stop) = stop {
            stop.wait().ok();
        }
    }
    let pids: Vec<Pid> =
        stops.iter().filter_map(|(holder, _)| i32::try_from(holder.pid).ok()).map(Pid::from_raw).collect();
    end(&pids);
    if let Some(saved) = &will.contexts {
        saved.restore().ok();
    }
    if let Some(folder) = &will.temporary {
        remove_folder(folder);
    }
}

/// Children that are just ending may still write while their folder goes.
pub fn remove_folder(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(3);
    while std::fs::remove_dir_all(folder).is_err() && folder.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The command that has a holder end all its processes.
#[must_use]
pub fn stop_command(agent: &Path, dir: &Path) -> Command {
    let mut command = Command::new(agent);
    command
        .arg("holder")
        .arg("--dir")
        .arg(dir)
        .arg("--stop-all")
        .arg(STOP_GRACE_MS.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// SIGTERM, and SIGKILL if that is not enough. The processes are no children of ours, so their end is seen by asking.
fn end(pids: &[Pid]) {
    for pid in pids {
        // It fails only if the process is gone already.
        kill(*pid, Signal::SIGTERM).ok();
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while pids.iter().any(|pid| lives(*pid)) {
        if Instant::now() >= deadline {
            pids.iter().filter(|pid| lives(**pid)).for_each(|pid| {
                kill(*pid, Signal::SIGKILL).ok();
            });
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process runs; one that has ended and is only not reaped yet does not.
fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}
