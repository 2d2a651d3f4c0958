//! Becoming another program without letting go of anything.
//!
//! The new program is first run beside, as a child, to judge the state that lies on disk. If it accepts, the state
//! is written anew, the table of descriptors goes into an anonymous file ([`super::super::handover`]), and
//! `execve` replaces the program of this process. Whatever fails before that point, the old program goes on and
//! says why. Between fork and exec a start has no place in the table, so the exchange waits until there is none.
//!
//! Output that processes write meanwhile waits in their pipes. Connections end, and clients connect again: the
//! socket stays open and keeps those that come meanwhile.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use std::ffi::CString;

use ostler_agent_core::holder::machine::Caller;
use ostler_agent_core::holder::protocol::{Refusal, RefusalCode, Reply};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};

use super::super::handover::{HANDOVER, Handles, Handover, Rest, keep_open};
use super::super::say::say;
use super::{Shell, boottime_ms};

/// How long the new program may take to judge the state: reading a megabyte takes milliseconds, loading a program
/// from a cold disk a second.
const CHECK_LIMIT_MS: u64 = 10_000;

/// How long starts under way may hold the exchange up. Each takes milliseconds unless its disk hangs.
const STARTS_LIMIT_MS: u64 = 30_000;

/// How much of the new program's words is passed on.
const SAID_MAX: u64 = 2 << 10;

/// An upgrade under way.
#[derive(Debug)]
pub(super) struct Upgrade {
    path: PathBuf,
    caller: Option<Caller>,
    step: Step,
    /// When it is given up.
    until: u64,
}

#[derive(Debug)]
enum Step {
    /// The new program judges the state.
    Checking { pid: i32, said: File },
    /// It accepts. As soon as no start is under way, it takes over.
    Accepted,
}

impl Upgrade {
    pub(super) fn until(&self) -> u64 {
        self.until
    }
}

impl Shell {
    /// Begins to become the program at `path`, or the one that is now where this one was.
    pub(super) fn begin_upgrade(&mut self, path: Option<&str>, caller: Option<Caller>) {
        let path = path.map_or_else(|| self.own.program.clone(), PathBuf::from);
        let begun = if self.work.upgrade.is_some() {
            Err("an upgrade is under way".to_owned())
        } else if self.core.closing() {
            Err("everything is being stopped".to_owned())
        } else if !path.is_absolute() {
            Err(format!("{} is not an absolute path", path.display()))
        } else {
            self.check_with(&path)
        };
        match begun {
            Ok(step) => {
                say(&format!("asks {} whether it can take over", path.display()));
                let until = boottime_ms() + CHECK_LIMIT_MS;
                self.work.upgrade = Some(Upgrade { path, caller, step, until });
            }
            Err(why) => self.refuse_upgrade(&path, caller, &why),
        }
    }

    fn check_with(&self, path: &Path) -> Result<Step, String> {
        let memory = rustix::fs::memfd_create("ostler-check", MemfdFlags::CLOEXEC)
            .map_err(|error| format!("make room for its words: {error}"))?;
        let said = File::from(memory);
        let theirs = said.try_clone().map_err(|error| format!("make room for its words: {error}"))?;
        let child = Command::new(path)
            .arg("holder")
            .args(&self.own.words)
            .args(["--check-state", "--handover", &HANDOVER.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(theirs)
            .spawn()
            .map_err(|error| format!("run it: {error}"))?;
        let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
        Ok(Step::Checking { pid, said })
    }

    /// Takes the end of the program that judges. False if this process is another.
    pub(super) fn upgrade_checked(&mut self, pid: i32, status: i32) -> bool {
        let Some(upgrade) = &mut self.work.upgrade else { return false };
        match &mut upgrade.step {
            Step::Checking { pid: asked, said } if *asked == pid => {
                if status == 0 {
                    upgrade.step = Step::Accepted;
                    upgrade.until = boottime_ms() + STARTS_LIMIT_MS;
                } else {
                    let words = words(said);
                    self.give_up(&format!("it does not accept the state: {words}"));
                }
                true
            }
            Step::Checking { .. } | Step::Accepted => false,
        }
    }

    /// Gives an upgrade up whose time is over.
    pub(super) fn give_up_upgrade(&mut self, now: u64) {
        let Some(upgrade) = self.work.upgrade.as_ref().filter(|upgrade| upgrade.until <= now) else { return };
        match &upgrade.step {
            Step::Checking { pid, .. } => {
                if let Some(pid) = Pid::from_raw(*pid) {
                    // It was not reaped, so its number is its own.
                    rustix::process::kill_process(pid, Signal::KILL).ok();
                }
                self.give_up("it did not judge the state in time");
            }
            Step::Accepted => self.give_up("starts were under way all the time"),
        }
    }

    fn give_up(&mut self, why: &str) {
        if let Some(upgrade) = self.work.upgrade.take() {
            self.refuse_upgrade(&upgrade.path, upgrade.caller, why);
        }
    }

    fn refuse_upgrade(&mut self, path: &Path, caller: Option<Caller>, why: &str) {
        let words = format!("the holder does not become {}: {why}", path.display());
        say(&words);
        if let Some(caller) = caller {
            let refusal = Refusal::new(RefusalCode::Failed, words);
            self.clients.answer(caller.client, caller.call, Reply::Refused(refusal));
        }
    }

    /// The exchange, if it is time. It does not return if it succeeds.
    pub(super) fn upgrade_if_ready(&mut self) {
        let accepted = self.work.upgrade.as_ref().filter(|upgrade| matches!(upgrade.step, Step::Accepted));
        let Some(path) = accepted.map(|upgrade| upgrade.path.clone()) else { return };
        if self.work.live.values().any(|live| live.start.is_some()) || !self.work.looks_due.is_empty() {
            return;
        }
        if let Err(why) = self.exchange(&path) {
            self.give_up(&why);
        }
    }

    fn exchange(&mut self, path: &Path) -> Result<(), String> {
        // Notification sockets are made anew by the next program: what was said until now is heard by this one.
        let slots: Vec<u64> = self.work.slots.keys().copied().collect();
        for slot in slots {
            self.hear(slot);
        }
        self.logs.flush();
        self.state_file.replace(self.core.state()).map_err(|error| format!("write the state: {error}"))?;
        let mut table = Handover::new(&self.own.lock, self.clients.listener(), self.ground.nofile);
        for live in self.work.live.values() {
            let handles = Handles {
                pidfd: live.pidfd.as_ref().map(AsFd::as_fd),
                outputs: [&live.stdout, &live.stderr].map(|outlet| outlet.fifo.as_ref().map(AsFd::as_fd)),
            };
            let partial = [&live.stdout, &live.stderr].map(|outlet| outlet.partial().to_vec());
            table.add(live.key(), handles, Rest { partial, counters: live.counters });
        }
        let memory = table.write().map_err(|error| format!("write the table: {error}"))?;
        let words = self.words_for(path, memory.as_raw_fd())?;
        let program = c_string(path.as_os_str().as_bytes())?;
        self.keep_open(true).map_err(|error| format!("keep descriptors: {error}"))?;
        say(&format!("becomes {}", path.display()));
        let failed = match nix::unistd::execv(&program, &words) {
            Ok(never) => match never {},
            Err(error) => format!("run it: {}", error.desc()),
        };
        // Best effort: what stays open would be closed in every child all the same.
        drop(self.keep_open(false));
        Err(failed)
    }

    fn words_for(&self, path: &Path, table: i32) -> Result<Vec<CString>, String> {
        let mut words = vec![c_string(path.as_os_str().as_bytes())?, c_string(b"holder")?];
        for word in &self.own.words {
            words.push(c_string(word.as_bytes())?);
        }
        words.push(c_string(b"--resume")?);
        words.push(c_string(table.to_string().as_bytes())?);
        Ok(words)
    }

    fn keep_open(&self, keep: bool) -> std::io::Result<()> {
        keep_open(&self.own.lock, keep)?;
        keep_open(self.clients.listener(), keep)?;
        for live in self.work.live.values() {
            if let Some(pidfd) = &live.pidfd {
                keep_open(pidfd, keep)?;
            }
            for fifo in [&live.stdout.fifo, &live.stderr.fifo].into_iter().flatten() {
                keep_open(fifo, keep)?;
            }
        }
        Ok(())
    }
}

fn words(said: &mut File) -> String {
    let mut text = Vec::new();
    // What it said is for people only; without it the fact remains.
    drop(said.seek(SeekFrom::Start(0)));
    drop(said.take(SAID_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn c_string(bytes: &[u8]) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| "a word has a zero byte in it".to_owned())
}
