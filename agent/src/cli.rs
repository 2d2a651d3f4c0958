//! The commands of `ostler-agent` other than `holder`: the daemon itself, and what it tells on its host.
//!
//! Exit codes of the questions: 0 well, 1 degraded or an error, 3 not running (CONTRACT.md section 9).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use ostler_schemas::v1::log_line::LogStream;

use crate::config::{self, Overrides};

mod acts;
mod daemon;
mod logs;
mod owns;
mod questions;

/// Runs what a node's documents say: processes through the holder, files by itself.
#[derive(Debug, Parser)]
#[command(name = "ostler-agent", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Only check the settings, and print the rules that are in force.
    #[arg(long)]
    check: bool,
    /// With --check: print nothing unless something is wrong.
    #[arg(long, requires = "check")]
    quiet: bool,
    #[command(subcommand)]
    command: Option<Question>,
}

/// Settings on the command line; each goes before the environment and the file.
#[derive(Debug, Args)]
struct SettingsArgs {
    /// The settings file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/ostler/agent.toml")]
    config: PathBuf,
    /// The node's name.
    #[arg(long, global = true)]
    name: Option<String>,
    /// A sandbox below which all managed paths lie.
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<String>,
    /// What survives the agent.
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<String>,
    /// Sockets: the holder's folder is DIR/holder.
    #[arg(long, global = true, value_name = "DIR")]
    run_dir: Option<String>,
    /// Logs of processes.
    #[arg(long, global = true, value_name = "DIR")]
    log_dir: Option<String>,
    /// What others reach this node's processes at.
    #[arg(long, global = true)]
    address: Option<String>,
    /// What the scheduler may assign, for example 20000-29999.
    #[arg(long, global = true, value_name = "FIRST-LAST")]
    ports: Option<String>,
    /// Whom processes run as that name no user.
    #[arg(long, global = true, value_name = "USER")]
    default_user: Option<String>,
    /// Whether processes may ask to run as root.
    #[arg(long, global = true, value_name = "BOOL")]
    allow_root: Option<String>,
    /// A label that the node is registered with, KEY=VALUE; may be repeated.
    #[arg(long = "label", global = true, value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

/// Shown after the help of `hold`.
const HOLD_HELP: &str = "What is held is neither started, stopped, replaced, restarted after an end, written nor put back, \
whatever the documents say. It is shown as Held to everybody, and ends by itself. See docs/local.md.";

/// How a list is shown.
#[derive(Debug, Clone, Copy, Args)]
struct Output {
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl Output {
    fn is_json(self) -> bool {
        self.output == Format::Json
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// JSON.
    Json,
}

#[derive(Debug, Subcommand)]
enum FilesCommand {
    /// What is on disk against what should be; exit 1 if they differ.
    Diff {
        /// The path.
        path: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Question {
    /// How agent, holder and bus are. Exit 0 well, 1 degraded, 3 not running.
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// The processes of this host; from the holder when the agent is down.
    Ps {
        #[command(flatten)]
        output: Output,
    },
    /// The managed files of this host.
    Files {
        #[command(flatten)]
        output: Output,
        #[command(subcommand)]
        command: Option<FilesCommand>,
    },
    /// Whose a path is: exit 0 if Ostler manages it, 1 if not; also with the agent down.
    Owns {
        /// The path.
        path: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// What runs as a process, and why.
    Why {
        /// Its name, NAMESPACE/NAME, or the first digits of its uid.
        process: String,
        #[command(flatten)]
        output: Output,
    },
    /// The latest that this agent has told, also with the agent down.
    Events {
        /// How many.
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
        count: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Change nothing of a process, a path or everything, for a while.
    #[command(after_help = HOLD_HELP)]
    Hold {
        /// A process or an absolute path.
        #[arg(value_name = "PROCESS|PATH")]
        what: Option<String>,
        /// Every process and every managed file of this host.
        #[arg(long)]
        all: bool,
        /// For how long: 30m, 2h, at most 30d. 8h if left out.
        #[arg(long = "for", value_name = "DURATION")]
        limit: Option<String>,
        /// Why, for everybody who sees it.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Take up again what is held.
    Release {
        /// A process or an absolute path.
        #[arg(value_name = "PROCESS|PATH")]
        what: Option<String>,
        /// Everything that is held.
        #[arg(long)]
        all: bool,
    },
    /// End a process in order, and leave it so until `start`; by the holder when the agent is down.
    Stop {
        /// Its name, NAMESPACE/NAME, or the first digits of its uid.
        process: String,
        /// Why, for everybody who sees it.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Start a process that was stopped here.
    Start {
        /// Its name, NAMESPACE/NAME, or the first digits of its uid.
        process: String,
    },
    /// End a process in order and start it anew.
    Restart {
        /// Its name, NAMESPACE/NAME, or the first digits of its uid.
        process: String,
        /// Why, for everybody who sees it.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Draw a fresh key for the secrets of this node; the control plane seals them anew once the agent has restarted.
    RotateKey,
    /// The log of a process.
    Logs {
        /// Its name, NAMESPACE/NAME, or the first digits of its uid.
        process: String,
        /// Go on with new lines.
        #[arg(short, long)]
        follow: bool,
        /// Only the last so many lines.
        #[arg(long, value_name = "LINES")]
        tail: Option<u64>,
        /// Not older than this: 10m, or 2026-11-20T14:03:05Z.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Older than this: 10m, or 2026-11-20T14:03:05Z.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Of the incarnation before the present one.
        #[arg(short, long, conflicts_with = "follow")]
        previous: bool,
        /// Only one output: stdout or stderr.
        #[arg(long, value_name = "STREAM")]
        stream: Option<LogStream>,
        /// Each line with its time, in UTC, and stdout or stderr.
        #[arg(long)]
        timestamps: bool,
    },
}

impl SettingsArgs {
    fn overrides(&self) -> Result<Overrides, String> {
        let given = [
            ("name", &self.name),
            ("root", &self.root),
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("log_dir", &self.log_dir),
            ("address", &self.address),
            ("ports", &self.ports),
            ("default_user", &self.default_user),
            ("allow_root", &self.allow_root),
        ];
        let values = given.into_iter().filter_map(|(key, value)| value.clone().map(|v| (key, v))).collect();
        let mut labels = BTreeMap::new();
        for label in &self.labels {
            let (key, value) =
                label.split_once('=').ok_or_else(|| format!("--label {label}: write it as KEY=VALUE"))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
        Ok(Overrides { values, labels })
    }

    /// Where the sockets are: as said, else as the file says, else the usual place. Questions must work on a host
    /// whose settings are broken.
    fn run_dir(&self) -> PathBuf {
        if let Some(dir) = &self.run_dir {
            return PathBuf::from(dir);
        }
        let overrides = self.overrides().unwrap_or_default();
        config::load(&self.config, &overrides).map_or_else(|_| config::default_run_dir(), |s| s.run_dir)
    }

    fn root(&self) -> String {
        if let Some(root) = &self.root {
            return root.clone();
        }
        let overrides = self.overrides().unwrap_or_default();
        config::load(&self.config, &overrides).map_or_else(|_| String::new(), |s| s.root)
    }

    fn state_dir(&self) -> PathBuf {
        if let Some(dir) = &self.state_dir {
            return PathBuf::from(dir);
        }
        let overrides = self.overrides().unwrap_or_default();
        config::load(&self.config, &overrides).map_or_else(|_| acts::usual_state_dir(), |s| s.state_dir)
    }

    fn log_dir(&self) -> PathBuf {
        if let Some(dir) = &self.log_dir {
            return PathBuf::from(dir);
        }
        let overrides = self.overrides().unwrap_or_default();
        config::load(&self.config, &overrides)
            .map_or_else(|_| PathBuf::from("/var/log/ostler"), |s| s.log_dir)
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(&format!(": {next}"));
        source = next.source();
    }
    text
}

fn complain(text: &str) -> ExitCode {
    // Nobody may be listening on stderr either.
    writeln!(std::io::stderr(), "error: {text}").ok();
    ExitCode::from(1)
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(question) = cli.command {
        return questions::answer(&cli.settings, &question);
    }
    let overrides = match cli.settings.overrides() {
        Ok(overrides) => overrides,
        Err(why) => return complain(&why),
    };
    let settings = match config::load(&cli.settings.config, &overrides) {
        Ok(settings) => settings,
        Err(error) => return complain(&chain(&error)),
    };
    if cli.check {
        return daemon::check(&settings, cli.quiet);
    }
    daemon::main(&settings)
}
