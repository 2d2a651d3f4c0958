//! Arguments of commands that need no control plane.

use std::path::PathBuf;

use ostler_bus::layout::SIMULATED_MAX;
use ostler_schemas::quantity::Dur;

/// Check manifests without a server; exits like apply
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ostler validate -f manifests/")]
pub struct Validate {
    /// Where the manifests are.
    #[command(flatten)]
    pub sources: super::change::Sources,
    /// Form: json
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
}

/// Turn a message body from standard input into JSON; empty bodies are accepted
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  nats sub 'ostler.v1.event.>' --translate 'ostler decode'
  nats kv get ostler o.deployment.default.web --raw | ostler decode")]
pub struct Decode {
    /// Subject or key that the body came under: what it tells is shown too
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// One line
    #[arg(long)]
    pub compact: bool,
}

/// Choose which control plane is spoken to
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Context {
    /// List contexts; * marks the selected one
    #[command(alias = "list")]
    Ls,
    /// Select a context
    #[command(alias = "select")]
    Use {
        /// Which
        name: String,
    },
    /// Show a context, by default the selected one
    #[command(alias = "info")]
    Show {
        /// Which
        name: Option<String>,
    },
    /// Take a context over, from a file that "ostler setup" wrote or from its parts
    #[command(alias = "save")]
    Add(ContextAdd),
    /// Forget a context
    Rm {
        /// Which
        name: String,
    },
}

/// Arguments of `context add`.
#[derive(Debug, Clone, clap::Args)]
pub struct ContextAdd {
    /// What to call it
    pub name: String,
    /// A context file, for example OUT/operators/anna/context.json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "credentials", "ca", "user"])]
    pub file: Option<PathBuf>,
    /// Servers of the bus: tls://host:port
    #[arg(long, value_name = "URL", required_unless_present = "file")]
    pub server: Vec<String>,
    /// File with the secret key
    #[arg(long, value_name = "FILE", required_unless_present = "file")]
    pub credentials: Option<PathBuf>,
    /// File with the servers' certificate authority
    #[arg(long, value_name = "FILE", required_unless_present = "file")]
    pub ca: Option<PathBuf>,
    /// Who the key belongs to
    #[arg(long, value_name = "NAME", required_unless_present = "file")]
    pub user: Option<String>,
    /// One line about it; what -n says becomes the namespace of commands that name none
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Select it, too
    #[arg(long)]
    pub select: bool,
}

/// Show the versions of this program and of the control plane
#[derive(Debug, Clone, clap::Args)]
pub struct Version {
    /// Of this program alone
    #[arg(long)]
    pub client: bool,
    /// Form: json
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
}

/// Print a completion script
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  source <(ostler completion bash)")]
pub struct Completion {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// Write server configuration and credentials for a control plane
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Run again with more nodes or operators, it adds them; keys and servers that are there stay.

Example:
  ostler setup --out /etc/ostler-setup --server nats-1=10.0.0.1 --node web-001 --node web-002 --operator anna"
)]
pub struct Setup {
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A node; may be given many times
    #[arg(long = "node", value_name = "NAME")]
    pub nodes: Vec<String>,
    /// An operator; may be given many times [first run: admin]
    #[arg(long = "operator", value_name = "NAME")]
    pub operators: Vec<String>,
    /// The servers of the bus.
    #[arg(
        long = "server",
        value_name = "NAME=HOST",
        help = "A server of the bus, one or three or five, all of them: NAME=HOST[:CLIENT_PORT[:CLUSTER_PORT]] \
                [first run: nats-1=127.0.0.1; later: as before]"
    )]
    pub servers: Vec<String>,
    /// Simulated nodes, PREFIX-00001 and so on, for "ostler sim agents"; may be given many times
    #[arg(long, value_name = "PREFIX=COUNT")]
    pub simulated: Vec<String>,
    /// Draw a fresh key for sealing Secrets; the older ones still open what they sealed
    #[arg(long)]
    pub rotate_secret_key: bool,
}

/// Run a whole fleet on this machine: servers, controllers, agents with folders as their roots
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Ctrl-C ends it and everything that it started. State is in --dir, else in a temporary folder.

Example:
  ostler dev --agents 3"
)]
pub struct Dev {
    /// How many hosts
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=100))]
    pub agents: u16,
    /// Make room for simulated nodes as well: "ostler sim agents" runs their agents
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(SIMULATED_MAX)))]
    pub simulated: u32,
    /// How many servers of the bus: 1 or 3
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = ["1", "3"])]
    pub servers: String,
    /// How many controllers
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5))]
    pub controllers: u16,
    /// Where state is kept from one run to the next
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// First port of the servers (default: free ones)
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Give each host cgroups below DIR/NODE, where this is a folder of a cgroup2 file system that may be written:
    /// limits of processes are then enforced, as on a host of its own
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Written, whole, once everything is ready: JSON with folders and process ids
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Give up if it is not ready by then
    #[arg(long, value_name = "DURATION", value_parser = super::target::duration, default_value = "60s")]
    pub ready_timeout: Dur,
    /// Write and select no contexts; use --context DIR/setup/operators/dev/context.json instead
    #[arg(long)]
    pub no_context: bool,
}
