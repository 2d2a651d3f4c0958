//! Arguments of commands that change something.

use std::path::PathBuf;

use ostler_schemas::quantity::Dur;

use super::target::duration;

/// Where manifests come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Sources {
    /// Manifests: files, folders (their *.yaml, *.yml and *.json), or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Folders with all that is below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// Make it so: all manifests take effect together, or none does
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler apply -f web.yaml
  ostler apply -f manifests/ --wait --reason \"release 1.4\"
  ostler get deployment/web -o yaml | sed s/info/debug/ | ostler apply -f -

Exit 2 with --wait: accepted, and failed, paused or not converged in time")]
pub struct Apply {
    /// Where the manifests are.
    #[command(flatten)]
    pub sources: Sources,
    /// Only say what would be done; with nodes, ConfigFiles are also tried on every node and put in place on none
    #[arg(long, value_name = "WHERE", value_parser = ["server", "client", "nodes"], num_args = 0..=1, default_missing_value = "server")]
    pub dry_run: Option<String>,
    /// Do it even where that undoes what another verb did; audited
    #[arg(long)]
    pub force: bool,
    /// Try a version again that was rolled back from
    #[arg(long)]
    pub retry: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Wait until all of it is so
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub timeout: Dur,
    /// Form: name, json, yaml
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
}

/// Show what an apply would change, as a unified diff
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit codes: 0 no change, 1 there are changes, 2 error\n\nExample:\n  ostler diff -f web.yaml"
)]
pub struct Diff {
    /// Where the manifests are.
    #[command(flatten)]
    pub sources: Sources,
    /// As apply --force would
    #[arg(long)]
    pub force: bool,
}

/// Delete objects, and what belongs to them
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler delete deployment/web
  ostler delete -f web.yaml
  ostler delete ps -l app=old --wait=false")]
pub struct Delete {
    /// KIND/NAME…, KIND NAME…, or KIND with -l or --all
    #[arg(value_name = "KIND[/NAME]", required_unless_present = "filename", conflicts_with = "filename")]
    pub what: Vec<String>,
    /// The objects of these manifests
    #[arg(short = 'f', long, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Labels that must hold
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// All of the kind in the namespace
    #[arg(long, conflicts_with = "selector")]
    pub all: bool,
    /// Even if something still refers to it; audited
    #[arg(long)]
    pub force: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Whether to wait until it is gone
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub timeout: Dur,
    /// What is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// Change how many processes a workload has
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ostler scale deployment/web --replicas 6 --reason \"sale begins\"")]
pub struct Scale {
    /// KIND/NAME or KIND NAME
    #[arg(required = true, value_name = "KIND/NAME")]
    pub object: Vec<String>,
    /// How many
    #[arg(long, value_name = "COUNT")]
    pub replicas: u32,
    /// Only if it is so many now
    #[arg(long, value_name = "COUNT")]
    pub current_replicas: Option<u32>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What `uncordon --help` ends with; its arguments are those of `cordon`.
pub(super) const UNCORDON_EXAMPLE: &str = "Example:\n  ostler uncordon web-017";

/// Whether nodes take new processes
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ostler cordon web-017 --reason \"disk swap\"")]
pub struct Cordon {
    /// Nodes: NAME, node/NAME, node NAME… or the host's full name
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Set labels (key=value) and remove them (key-)
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  ostler label node web-001 rack=r7\n  ostler label node web-001 web-002 rack=r8 --overwrite\n  ostler label node/web-001 deployment/web rack-"
)]
pub struct Label {
    /// KIND/NAME… or KIND NAME…, then key=value… or key-…
    #[arg(required = true, value_name = "KIND/NAME LABEL")]
    pub words: Vec<String>,
    /// Labels that have another value may be replaced
    #[arg(long)]
    pub overwrite: bool,
}

/// Set taints (key=value:Effect) of nodes and remove them (key-, key:Effect-)
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler taint node web-017 maintenance=disk-swap:NoSchedule
  ostler taint web-017 web-018 maintenance-")]
pub struct Taint {
    /// The nodes, then the taints.
    #[arg(
        required = true,
        value_name = "NODE TAINT",
        help = "Nodes (NAME, node/NAME or node NAME…), then key[=value]:Effect… or key[:Effect]-…"
    )]
    pub words: Vec<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Push contents of files to hosts and see what became of them
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Config {
    /// Make a new version of the content, and the object where there is none
    Push(Push),
    /// Show a row for each node
    Status(ConfigStatus),
    /// Compare versions as a unified diff
    Diff(ConfigDiff),
    /// Show the versions that are kept
    History(ConfigHistory),
    /// Make a new version with an old content
    Rollback(Rollback),
    /// See what hosts have at a path, and take it over as version 1
    Adopt(Adopt),
    /// Leave the files alone again: they stay as they are on every host
    Release(Release),
    /// Print what becomes of it on a node
    Render(ConfigRender),
    /// Commands of other versions.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Arguments of `config push`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler config push app-conf --file ./app.conf --reason \"raise workers\" --wait
  ostler config push app-conf --file ./app.conf --path /etc/app.conf --all-nodes
  ostler config push app-conf --file - --if-version 8
  ostler config push app-conf --file ./app.conf --dry-run=nodes")]
pub struct Push {
    /// The ConfigFile: NAME or configfile/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The content; - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "template")]
    pub file: Option<PathBuf>,
    /// A template, rendered for each node; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub template: Option<PathBuf>,
    /// Where it goes, when the object is to be made
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Which nodes, when the object is to be made: key=value,…
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "all_nodes")]
    pub selector: Option<String>,
    /// Every node, when the object is to be made
    #[arg(long)]
    pub all_nodes: bool,
    /// Waves of this push alone: counts and percentages, as 1,10%,100%
    #[arg(long, value_name = "WAVES")]
    pub waves: Option<String>,
    /// Bake of this push alone
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub bake: Option<Dur>,
    /// Refuse if it is another version by now
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<u64>,
    /// Try again although it was rolled back from, or is contested on a node
    #[arg(long)]
    pub retry: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Wait for the end of the rollout
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub timeout: Dur,
    /// Only try it on every node: render, check, have the validator look at it, change nothing
    #[arg(long, value_name = "WHERE", value_parser = ["nodes"])]
    pub dry_run: Option<String>,
    /// How a dry run is shown: table, json, yaml, jsonpath=…
    #[arg(short = 'o', long, value_name = "FORM", requires = "dry_run")]
    pub output: Option<String>,
}

/// Arguments of `config status`.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigStatus {
    /// The ConfigFile: NAME or configfile/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Only rows of this state
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Only rows about this version
    #[arg(long, value_name = "VERSION")]
    pub version: Option<u64>,
    /// Only nodes with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// First wait until every node that can be reached is in sync; exit 2 if that does not come
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub timeout: Dur,
    /// How.
    #[command(flatten)]
    pub output: super::look::Output,
}

/// Arguments of `config diff`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Without --from and --to: the last version against the one before it.\nExit codes: 0 no change, 1 there are changes, 2 error"
)]
pub struct ConfigDiff {
    /// The ConfigFile: NAME or configfile/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What the file on this node differs in, as it reported it last
    #[arg(long, value_name = "NODE", conflicts_with_all = ["from", "to"])]
    pub node: Option<String>,
    /// The older version
    #[arg(long, value_name = "VERSION")]
    pub from: Option<u64>,
    /// The newer version
    #[arg(long, value_name = "VERSION")]
    pub to: Option<u64>,
    /// The version against this local file; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "node"])]
    pub file: Option<PathBuf>,
    /// What the host had before Ostler against what it should have; with --node where there are several
    #[arg(long, conflicts_with_all = ["from", "to", "file"])]
    pub original: bool,
}

/// Arguments of `config adopt`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler config adopt --path /etc/app.conf -l role=web
  ostler config adopt app-conf --path /etc/app.conf -l role=web --pick 91b7e3d0")]
pub struct Adopt {
    /// The ConfigFile to be made; after the path if left out
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// The path on the hosts
    #[arg(long, value_name = "PATH")]
    pub path: String,
    /// Which nodes: key=value,…
    #[arg(short = 'l', long, value_name = "SELECTOR", required_unless_present = "all_nodes")]
    pub selector: Option<String>,
    /// Every node
    #[arg(long, conflicts_with = "selector")]
    pub all_nodes: bool,
    /// Make version 1 of what these hosts have: the first digits of its hash
    #[arg(long, value_name = "HASH")]
    pub pick: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Wait for the end of the rollout
    #[arg(long, requires = "pick")]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub timeout: Dur,
    /// How.
    #[command(flatten)]
    pub output: super::look::Output,
}

/// Arguments of `config release`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The object goes, whatever its onRemove says no file is changed, and what was there before Ostler is \
forgotten.\nExample:\n  ostler config release app-conf --reason \"managed elsewhere\""
)]
pub struct Release {
    /// The ConfigFile: NAME or configfile/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Although processes need it
    #[arg(long)]
    pub force: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Wait until every node has let it go
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub timeout: Dur,
}

/// Arguments of `config render`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler config render app-conf --node web-017
  ostler config render app-conf --node web-017 -f app-conf.yaml")]
pub struct ConfigRender {
    /// The ConfigFile: NAME or configfile/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// For this node
    #[arg(long, value_name = "NODE")]
    pub node: String,
    /// This version instead of the present one
    #[arg(long, value_name = "VERSION")]
    pub version: Option<u64>,
    /// What this manifest says instead of what is stored; - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with = "version")]
    pub manifest: Option<PathBuf>,
    /// Only this one of several files
    #[arg(long, value_name = "NAME")]
    pub part: Option<String>,
}

/// Arguments of `config history`.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigHistory {
    /// The ConfigFile: NAME or configfile/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How.
    #[command(flatten)]
    pub output: super::look::Output,
}

/// Arguments of `config rollback`.
#[derive(Debug, Clone, clap::Args)]
pub struct Rollback {
    /// The ConfigFile: NAME or configfile/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The version to go back to; by default the last good one before the present
    #[arg(long, visible_alias = "to", value_name = "VERSION")]
    pub to_version: Option<u64>,
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
