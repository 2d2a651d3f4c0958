//! What each command does.

pub mod apply;
pub mod change;
pub mod config;
pub mod context;
pub mod converge;
pub mod decode;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod events;
pub mod exec;
pub mod get;
pub mod local;
pub mod logs;
pub mod rollout;
pub mod setup;
pub mod sim;
pub mod top;
pub mod wait;

use clap::CommandFactory;

use crate::args::{Cli, Command, RESERVED, RESERVED_BELOW};
use crate::connect::session;
use crate::failure::Failure;
use crate::near::nearest;
use crate::out::Out;

/// Runs one command.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(cli: Cli, out: &mut Out) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Apply(args) => apply::run(&global, &args, out).await,
        Command::Diff(args) => diff::run(&session(&global).await?, &args, out).await,
        Command::Get(args) => get::run(&session(&global).await?, &args, out).await,
        Command::Describe(args) => describe::run(&session(&global).await?, &args, out).await,
        Command::Delete(args) => delete::run(&session(&global).await?, &args, out).await,
        Command::Scale(args) => change::scale(&session(&global).await?, &args, out).await,
        Command::Events(args) => {
            let session = session(&global).await?;
            events::run(&session, &args, global.namespace.is_some(), out).await
        }
        Command::Exec(args) => exec::run(&session(&global).await?, &args, out).await,
        Command::Logs(args) => logs::run(&session(&global).await?, &args, out).await,
        Command::Config(args) => config::run(&global, &args, out).await,
        Command::Rollout(args) => rollout::run(&global, &args, out).await,
        Command::Cordon(args) => change::cordon(&session(&global).await?, &args, true, out).await,
        Command::Uncordon(args) => change::cordon(&session(&global).await?, &args, false, out).await,
        Command::Label(args) => change::label(&session(&global).await?, &args, out).await,
        Command::Taint(args) => change::taint(&session(&global).await?, &args, out).await,
        Command::Wait(args) => wait::run(&session(&global).await?, &args, out).await,
        Command::Top(args) => top::run(&session(&global).await?, &args, out).await,
        Command::Validate(args) => local::validate(&global, &args, out),
        Command::Decode(args) => decode::run(&args, out),
        Command::Context(args) => context::run(&args, &global, out),
        Command::Version(args) => local::version(&global, &args, out).await,
        Command::Completion(args) => local::completion(&args, out),
        Command::Setup(args) => setup::run(&args, out),
        Command::Dev(args) => crate::dev::run(&args, out).await,
        Command::Sim(sim) => sim::run(&global, &sim),
        Command::DevChild { .. } | Command::DevWatch => Err(Failure::message("this is a part of ostler dev")),
        Command::Other(words) => Err(other(&words)),
    }
}

/// A command that this version does not have, or none at all.
fn other(words: &[String]) -> Failure {
    let word = words.first().map_or("", String::as_str);
    if RESERVED.contains(&word) {
        return not_supported(&format!("ostler {word}"));
    }
    let command = Cli::command();
    let names = command.get_subcommands().map(clap::Command::get_name).chain(RESERVED);
    let hint = nearest(word, names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Failure::message(format!("{word:?} is not a command{hint}\nnext:  ostler --help lists all commands"))
}

/// The same below a group of commands.
pub(crate) fn other_below(group: &str, words: &[String], own: &[&str]) -> Failure {
    let word = words.first().map_or("", String::as_str);
    let reserved = RESERVED_BELOW.iter().find(|(name, _)| *name == group).map_or(&[][..], |(_, words)| words);
    if reserved.contains(&word) {
        return not_supported(&format!("ostler {group} {word}"));
    }
    let hint = nearest(word, own.iter().chain(reserved).copied())
        .map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default();
    Failure::message(format!("\"{group} {word}\" is not a command{hint}\nnext:  ostler {group} --help"))
}

/// That something is known and not there yet.
pub(crate) fn not_supported(what: &str) -> Failure {
    Failure::message(format!("{what} is not supported by this version ({})", crate::VERSION))
}
