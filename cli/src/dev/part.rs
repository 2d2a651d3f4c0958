//! One child of `dev`: started, seen to end, started again.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::failure::Failure;

/// Between the end of a child and its next start (DESIGN.md 3.10).
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// This program, even if its file was replaced or removed meanwhile.
pub const OWN: &str = "/proc/self/exe";
/// How much of a log tells what went wrong.
const TAIL: u64 = 2_000;

/// What a child is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A server of the bus.
    Server,
    /// A controller.
    Controller,
    /// The holder of a host.
    Holder(String),
    /// The agent of a host.
    Agent(String),
}

/// How a child is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Program and arguments.
    pub words: Vec<OsString>,
    /// Its folder.
    pub folder: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    /// Whether it ends with this process, however this process ends. A holder does not: its processes are ended first.
    pub tied: bool,
}

/// A child.
#[derive(Debug)]
pub struct Part {
    /// How it is started.
    pub plan: Plan,
    child: Option<Child>,
    restart_at: Option<Instant>,
    /// How often it has ended.
    pub ends: u32,
}

/// What a look at a child shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It runs, or waits for its next start.
    Same,
    /// It has ended just now, so.
    Ended(String),
    /// The pause after its end is over.
    Due,
}

impl Part {
    /// A child that is not started yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { plan, child: None, restart_at: None, ends: 0 }
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<(), Failure> {
        let plan = &self.plan;
        let act = format!("cannot start {}", plan.name);
        // If this does not succeed it is tried again, after the same pause.
        self.restart_at = Some(Instant::now() + RESTART_AFTER);
        let log = OpenOptions::new().create(true).append(true).open(&plan.log);
        let log =
            log.map_err(|error| Failure::local(&format!("cannot open {}", plan.log.display()), error))?;
        let errors = log.try_clone().map_err(|error| Failure::local(&act, error))?;
        let mut command = if plan.tied {
            let own =
                std::env::current_exe().map_err(|error| Failure::local("cannot find this program", error))?;
            let mut command = Command::new(own);
            command.arg("dev-child").arg(std::process::id().to_string()).arg("--").args(&plan.words);
            command
        } else {
            let (program, arguments) =
                plan.words.split_first().ok_or_else(|| Failure::message(format!("{act}: no program")))?;
            let mut command = Command::new(program);
            command.args(arguments);
            command
        };
        command
            .current_dir(&plan.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors))
            // Ctrl-C is for this process, which ends its children in order.
            .process_group(0);
        self.child = Some(command.spawn().map_err(|error| Failure::local(&act, error))?);
        self.restart_at = None;
        Ok(())
    }

    /// Looks whether it has ended.
    pub fn look(&mut self) -> Seen {
        let ended = match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(Some(status)) => Some(status.to_string()),
                Ok(None) => None,
                Err(error) => Some(error.to_string()),
            },
            None => {
                return if self.restart_at.is_some_and(|at| Instant::now() >= at) {
                    Seen::Due
                } else {
                    Seen::Same
                };
            }
        };
        match ended {
            None => Seen::Same,
            Some(how) => {
                self.child = None;
                self.ends += 1;
                self.restart_at = Some(Instant::now() + RESTART_AFTER);
                Seen::Ended(how)
            }
        }
    }

    /// It is not started again.
    pub fn give_up(&mut self) {
        self.restart_at = None;
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // It fails only if the process has just ended, and that is what was asked for.
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
    }

    /// Waits until it has ended; kills it when it takes too long.
    pub async fn ended(&mut self, patience: Duration) {
        let Some(mut child) = self.child.take() else { return };
        if tokio::time::timeout(patience, child.wait()).await.is_err() {
            child.kill().await.ok();
        }
        self.restart_at = None;
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let tail = || -> std::io::Result<String> {
            let mut file = File::open(&self.plan.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        tail().unwrap_or_default()
    }
}
