//! Arguments of commands that look and do not touch.

use std::path::PathBuf;

use ostler_schemas::quantity::Dur;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::LOGS_PROCESSES;
use ostler_schemas::v1::log_line::LogStream;

use super::target::duration;

/// How output is written; the same words for every command that shows objects.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Output {
    /// Form: wide, json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
    /// Leave the line of column names out
    #[arg(long)]
    pub no_headers: bool,
    /// Times instead of ages: local, RFC 3339
    #[arg(long)]
    pub timestamps: bool,
}

/// Which objects of a kind.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Selection {
    /// Labels that must hold: key=value, key!=value, key, !key, "key in (a,b)"
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Fields that must hold: path=value or path!=value, for example status.phase=Running
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// List objects, or show some
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = concat!("Examples:
  ostler get nodes
  ostler get deployments -o wide
  ostler get deployment/web -o yaml
  ostler get ps -l app=web --field-selector status.node=web-001 -w
  ostler get nodes -o 'jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}'

Kinds: nodes (no), processes (ps), deployments (deploy), configfiles (cf), namespaces (ns), events (ev);
all = deployments, processes and configfiles"))]
pub struct Get {
    /// KIND, KIND NAME… or KIND/NAME…
    #[arg(required = true, value_name = "KIND[/NAME]")]
    pub what: Vec<String>,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
    /// How.
    #[command(flatten)]
    pub output: Output,
    /// Go on and show every change
    #[arg(short, long)]
    pub watch: bool,
    /// Order by a field: a JSON path such as .metadata.name
    #[arg(long, value_name = "PATH")]
    pub sort_by: Option<String>,
}

/// Show everything about some objects, and what to do next when something is wrong
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  ostler describe deployment/web\n  ostler describe node web-001")]
pub struct Describe {
    /// KIND/NAME…, or KIND NAME…
    #[arg(required = true, value_name = "KIND/NAME")]
    pub what: Vec<String>,
    /// Times instead of ages: local, RFC 3339
    #[arg(long)]
    pub timestamps: bool,
}

/// Show what happened
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler events
  ostler events configfile/app-conf
  ostler events -f --node web-001
  ostler events --since 10m -o json")]
pub struct Events {
    /// Only of one object: KIND/NAME or KIND NAME
    #[arg(value_name = "KIND/NAME")]
    pub object: Vec<String>,
    /// Go on with new ones
    #[arg(short, long)]
    pub follow: bool,
    /// Only of one node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Not older than this
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub since: Option<Dur>,
    /// Of all namespaces, with a column that names them
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// How.
    #[command(flatten)]
    pub output: Output,
}

/// Show the output of processes
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = concat!("Examples:
  ostler logs web-5c8f7-x2k4v --tail 20
  ostler logs -f deployment/web
  ostler logs -l app=web --since 10m --stream stderr
  ostler logs process/web-5c8f7-x2k4v --previous --timestamps

Of many processes, lines come in the order of their times, each after its process's name, and without --tail, --since,
--until and --previous only the last 10 of each."))]
pub struct Logs {
    /// The process: NAME, process/NAME or its 8-character uid; or its owner: deployment/NAME
    #[arg(required_unless_present = "selector", conflicts_with = "selector", value_name = "PROCESS")]
    pub process: Vec<String>,
    /// All processes with these labels: key=value, key!=value, key, !key, "key in (a,b)"
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Go on with new lines, and with processes that begin to match
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last so many lines of each process
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Not older than this: 10m, or 2026-11-20T14:03:05Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Moment>,
    /// Older than this: 10m, or 2026-11-20T14:03:05Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Moment>,
    /// Of the incarnation before the present one
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
    /// Each line with its TIME, in UTC, and stdout or stderr
    #[arg(long)]
    pub timestamps: bool,
    /// Only one output: stdout or stderr
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<LogStream>,
    /// The process's name before each line, also of one process
    #[arg(long, conflicts_with = "no_prefix")]
    pub prefix: bool,
    /// No name before lines, also of many processes
    #[arg(long)]
    pub no_prefix: bool,
    /// Refuse when more processes match
    #[arg(long, value_name = "N", default_value_t = LOGS_PROCESSES)]
    pub max_processes: u32,
}

/// A time, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Dur),
    /// Then.
    At(Timestamp),
}

impl Moment {
    /// The time, seen from now.
    #[must_use]
    pub const fn seen_from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ago) => Timestamp(now.0.saturating_sub(ago.as_millis())),
            Self::At(at) => at,
        }
    }
}

/// A duration or a time, for clap.
fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(at) = text.parse() {
        return Ok(Moment::At(at));
    }
    let ago = duration(text).map_err(|error| format!("{error}; or a time, as 2026-11-20T14:03:05Z"))?;
    Ok(Moment::Ago(ago))
}

/// Look at rollouts
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Rollout {
    /// Follow a rollout to its end; exit 2 if it fails, is rolled back or paused
    Status(RolloutStatus),
    /// Stand still: no wave starts and nothing is exchanged until it is resumed
    Pause(RolloutChange),
    /// Go on: after a pause, after a wave that waits for a person, or in spite of what has failed
    Resume(RolloutChange),
    /// Give the version on its way up and go back to the last good one
    Abort(RolloutChange),
    /// Make a new version with what an older one had
    Undo(RolloutUndo),
    /// Show the versions that are kept
    History(RolloutHistory),
    /// Commands of other versions.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Arguments of `rollout pause`, `resume` and `abort`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = concat!("Examples:\n  ostler rollout pause deployment/web --reason \"looks slow\"\n  ostler rollout resume cf/app-conf --wait\n\n", "Exit 2 with --wait: failed, rolled back, paused or timed out"))]
pub struct RolloutChange {
    /// KIND/NAME or KIND NAME
    #[arg(required = true, value_name = "KIND/NAME")]
    pub object: Vec<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Wait for the end of the rollout
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub timeout: Dur,
}

/// Arguments of `rollout undo`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ostler rollout undo deployment/web --to-version 4 --wait")]
pub struct RolloutUndo {
    /// What and why.
    #[command(flatten)]
    pub change: RolloutChange,
    /// The version to go back to; by default the last good one before the present
    #[arg(long, visible_alias = "to", value_name = "VERSION")]
    pub to_version: Option<u64>,
}

/// Arguments of `rollout history`.
#[derive(Debug, Clone, clap::Args)]
pub struct RolloutHistory {
    /// KIND/NAME or KIND NAME
    #[arg(required = true, value_name = "KIND/NAME")]
    pub object: Vec<String>,
    /// How.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `rollout status`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = concat!("Examples:\n  ostler rollout status deployment/web\n  ostler rollout status cf/app-conf --timeout 5m\n\n", "Exit 2: failed, rolled back, paused or timed out"))]
pub struct RolloutStatus {
    /// KIND/NAME or KIND NAME
    #[arg(required = true, value_name = "KIND/NAME")]
    pub object: Vec<String>,
    /// Say how it stands and do not wait
    #[arg(long)]
    pub no_watch: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub timeout: Dur,
    /// Form: json
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
}

/// Wait until something is so; exit 2 if it is not in time
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler wait deployment/web --for=condition=Available --timeout 60s
  ostler wait nodes --all --for=condition=Ready
  ostler wait ps -l app=web --for=delete
  ostler wait deployment/web --for=jsonpath='{.status.ready}'=3")]
pub struct Wait {
    /// KIND/NAME…, KIND NAME…, or KIND with -l or --all
    #[arg(value_name = "KIND[/NAME]", required_unless_present = "filename")]
    pub what: Vec<String>,
    /// The objects of these manifests
    #[arg(short = 'f', long, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// condition=TYPE[=STATUS], jsonpath={PATH}[=VALUE], delete or create
    #[arg(long = "for", required = true, value_name = "WHAT")]
    pub until: String,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
    /// All of the kind
    #[arg(long)]
    pub all: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub timeout: Dur,
}
