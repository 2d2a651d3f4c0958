//! The command line of Ostler.
//!
//! It asks the API over the bus and shows the answers; it decides nothing about the fleet. Data goes to standard output
//! and talk to standard error; exit codes are those of CONTRACT.md section 5, listed in [`failure::EXIT_CODES`].
//!
//! * [`args`]: what can be typed. [`commands`]: what each command does.
//! * [`client`]: one typed call per verb. [`wait`]: waiting for a level, whatever happens in between.
//! * [`render`]: from data to text. [`out`]: where text goes.
//! * [`context`]: which control plane. [`dev`]: a whole fleet on this machine.

pub mod args;
pub mod client;
pub mod commands;
pub mod connect;
pub mod context;
pub mod dev;
pub mod failure;
pub mod manifests;
pub mod near;
pub mod out;
pub mod render;
pub mod term;
pub mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use client::Attendance;
use failure::Failure;
use out::Out;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os(), &mut Out::process()))
}

/// Runs with these arguments; the exit code.
pub fn run<A, T>(arguments: A, out: &mut Out) -> u8
where
    A: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let compares = is_comparison(&arguments);
    let result = match Cli::try_parse_from(arguments) {
        Ok(cli) => start(cli, out),
        Err(error) => Err(Failure::Usage(error)),
    };
    match result {
        Ok(()) => 0,
        Err(failure) => report(&failure, compares, out),
    }
}

fn report(failure: &Failure, compares: bool, out: &mut Out) -> u8 {
    if let Some(text) = failure.text() {
        let text = text.trim_end();
        if failure.exit_code() == 0 {
            // Help and version were asked for: they are data.
            return match out.line(text) {
                Ok(()) | Err(Failure::PipeClosed) => 0,
                Err(other) => other.exit_code(),
            };
        }
        out.say(text);
    }
    if compares { failure.exit_code_of_diff() } else { failure.exit_code() }
}

/// Whether it is a command whose exit code 1 means "there are changes", told from the words because the arguments may
/// not parse at all.
fn is_comparison(arguments: &[OsString]) -> bool {
    let words: Vec<&str> =
        arguments.iter().skip(1).filter_map(|a| a.to_str()).filter(|a| !a.starts_with('-')).take(3).collect();
    words.contains(&"diff")
}

fn start(cli: Cli, out: &mut Out) -> Result<(), Failure> {
    // Parts of `dev` that must have no threads of their own.
    if let Command::DevChild { parent, words } = &cli.command {
        return dev::guard::child(*parent, words);
    }
    if matches!(cli.command, Command::DevWatch) {
        return dev::guard::watch();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::local("cannot start", error))?;
    let attendance = cli.global.attendance.clone();
    // `dev` has children to end first and `exec` passes signals on, so they listen for them themselves.
    if !matches!(cli.command, Command::Dev(_) | Command::Exec(_)) {
        runtime.spawn(end_on_interrupt(attendance.clone()));
    }
    let result = runtime.block_on(async {
        let result = commands::run(cli, out).await;
        attendance.end().await;
        result
    });
    // A read of standard input cannot be cancelled; whatever it still waits for is of no use to anybody.
    runtime.shutdown_background();
    result
}

/// Ctrl-C ends this program and nothing else. It may be reading standard input or writing to a slow pipe, which nothing
/// can interrupt, so it does not wait for the command to notice.
async fn end_on_interrupt(attendance: Attendance) {
    if tokio::signal::ctrl_c().await.is_ok() {
        attendance.end().await;
        let failure = Failure::Interrupted;
        if let Some(text) = failure.text() {
            eprintln!("\n{text}");
        }
        std::process::exit(i32::from(failure.exit_code()));
    }
}
