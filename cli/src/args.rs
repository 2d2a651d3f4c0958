//! What can be typed. Each command's own arguments lie in a file of their group.

pub mod change;
pub mod exec;
pub mod local;
pub mod look;
pub mod sim;
pub mod target;
pub mod top;

use clap::{Parser, Subcommand};

use crate::failure::EXIT_CODES;

/// Run processes and keep configuration files right on a fleet of Linux hosts.
#[derive(Debug, Parser)]
#[command(
    name = "ostler",
    version,
    about,
    after_help = EXIT_CODES,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Global {
    /// Which control plane: the name of a context, or the path of its file
    #[arg(long, global = true, env = "OSTLER_CONTEXT", value_name = "NAME|FILE")]
    pub context: Option<String>,
    /// Namespace; by default the context's, else "default"
    #[arg(short, long, global = true, env = "OSTLER_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// How long to go on asking while no controller answers
    #[arg(long, global = true, value_name = "DURATION", value_parser = target::duration, default_value = "15s")]
    pub request_timeout: ostler_schemas::quantity::Dur,
    /// The answers that this program reads: not typed, but wanted wherever the rest is.
    #[arg(skip)]
    pub attendance: crate::client::Attendance,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each is described at its arguments")]
pub enum Command {
    Apply(change::Apply),
    Diff(change::Diff),
    Get(look::Get),
    Describe(look::Describe),
    Delete(change::Delete),
    Scale(change::Scale),
    Events(look::Events),
    Logs(look::Logs),
    Exec(exec::Exec),
    #[command(subcommand)]
    Config(Box<change::Config>),
    #[command(subcommand)]
    Rollout(look::Rollout),
    #[command(about = "Keep new processes off nodes; those that run stay")]
    Cordon(change::Cordon),
    #[command(about = "Let nodes take new processes again", after_help = change::UNCORDON_EXAMPLE)]
    Uncordon(change::Cordon),
    Label(change::Label),
    Taint(change::Taint),
    Wait(look::Wait),
    Top(top::Top),
    Validate(local::Validate),
    Decode(local::Decode),
    #[command(subcommand)]
    Context(local::Context),
    Version(local::Version),
    Completion(local::Completion),
    Setup(local::Setup),
    Dev(local::Dev),
    #[command(subcommand)]
    Sim(sim::Sim),
    /// Becomes a child of `dev`.
    #[command(name = "dev-child", hide = true)]
    DevChild {
        /// The parent's process.
        parent: u32,
        /// Program and arguments.
        #[arg(last = true, required = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// Waits for the end of `dev`.
    #[command(name = "dev-watch", hide = true)]
    DevWatch,
    /// Commands of other versions.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Commands of CONTRACT.md that this version does not have. They are known words: what they would do is not done by
/// something else of a similar name.
pub const RESERVED: [&str; 17] = [
    "drain", "explain", "history", "plan", "freeze", "thaw", "edit", "restart", "node", "token", "backup",
    "restore", "undrain", "annotate", "attach", "cp", "upgrade",
];

/// Reserved commands below `rollout` and `config`.
pub const RESERVED_BELOW: [(&str, &[&str]); 2] =
    [("rollout", &["restart"]), ("config", &["adopt", "release"])];

#[cfg(test)]
mod tests;
