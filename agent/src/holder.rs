//! The holder: the small process that is the parent of everything Ostler runs on a host.
//!
//! The agent may die, hang or be upgraded; the processes it started stay children of the holder, which drains their
//! output, keeps their exits until they are acknowledged, and carries out stops by their deadlines. If the holder
//! itself is killed they live on with their pipes, and the next holder adopts them.
//!
//! It is one poll loop ([`shell`]) around a pure core (`ostler_agent_core::holder`), plus one thread that writes
//! logs. It has no async runtime and decides nothing about what should run.
//!
//! What it does not do: restart, probe, resolve names or talk to the bus. That is the agent.

mod abilities;
mod ask;
mod cgroup;
mod child;
mod clients;
mod handover;
mod host_limits;
mod launch;
mod live;
mod log_writer;
mod mounts;
mod notify;
mod options;
mod poll;
mod proc_tree;
mod recover;
mod runs;
mod say;
mod shell;
mod start;
mod state_file;
mod sys;

pub(crate) use abilities::{CANNOT_HOLD, can_hold};

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use options::{Options, OptionsError};

/// The exit status where no holder can ever run (`EX_CONFIG`): its unit does not try again.
const NOT_HERE: u8 = 78;

/// Runs the holder with the words after `ostler-agent holder`. Returns when it was told to end.
///
/// Call it before any thread or runtime exists: it masks signals and takes over all children.
#[must_use]
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::parse(words) {
        Ok(options) => options,
        Err(OptionsError::Help) => {
            // Who asked for help and does not read it needs no error.
            drop(std::io::stdout().write_all(options::USAGE.as_bytes()));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say::say(&error.to_string());
            return ExitCode::from(2);
        }
    };
    if let Some(code) = not_to_hold(&options) {
        return code;
    }
    if !can_hold() {
        say::say(CANNOT_HOLD);
        return ExitCode::from(NOT_HERE);
    }
    let mut shell = match start::start(&options) {
        Ok(shell) => shell,
        Err(error) => {
            say::say(&with_sources(&error));
            return ExitCode::FAILURE;
        }
    };
    // Telling nobody is fine: not every service manager listens.
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    say::say("ready");
    match shell.run() {
        Ok(()) => {
            say::say("ends; its processes go on");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say::say(&format!("cannot wait for events: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What is done for a word that asks for something else than a holder.
fn not_to_hold(options: &Options) -> Option<ExitCode> {
    let (act, result) = if let Some(grace_ms) = options.stop_all {
        ("stop everything", ask::stop_all(&options.dir, grace_ms))
    } else if let Some(path) = &options.upgrade {
        ("upgrade", ask::upgrade(&options.dir, path.as_deref()))
    } else if let Some(handover) = options.check_state {
        ("accept the state", ask::check_state(options, handover))
    } else {
        return None;
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::say(&format!("did not {act}: {}", with_sources(&error)));
            ExitCode::FAILURE
        }
    })
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
