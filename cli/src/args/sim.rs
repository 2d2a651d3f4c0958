//! Arguments of `sim`.

use std::path::PathBuf;

use clap::Subcommand;
use ostler_schemas::quantity::Dur;

use super::target::duration;

/// Simulate what nobody has at hand
#[derive(Debug, Clone, Subcommand)]
pub enum Sim {
    /// Run many agents with simulated hosts against real servers and controllers
    Agents(Agents),
}

/// Arguments of `sim agents`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The nodes must be known to the bus: \"ostler dev --simulated COUNT\", or \"ostler setup --simulated \
                  PREFIX=COUNT\". Ctrl-C ends the agents; their hosts end with them.

Examples:
  ostler dev --agents 0 --simulated 1000
  ostler sim agents --nodes 1000
  ostler sim agents --nodes 1000 --latency 20ms --fail 'debug = true=5%'"
)]
pub struct Agents {
    /// How many agents
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: u32,
    /// What the names of their nodes begin with
    #[arg(long, value_name = "NAME", default_value = crate::dev::fleet::SIMULATED)]
    pub prefix: String,
    /// The number of the first node: several of these programs can share a fleet
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub first: u32,
    /// Folder that "ostler setup" wrote (default: the one that the context's key lies in)
    #[arg(long, value_name = "DIR")]
    pub setup: Option<PathBuf>,
    /// How long each step at a file, and the start of a process, takes on a simulated host; half more or less
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub latency: Dur,
    /// On this share of the nodes, always the same ones, what contains TEXT fails: a file cannot be written, a process
    /// exits with 1; may be given many times with one share
    #[arg(long, value_name = "TEXT=SHARE")]
    pub fail: Vec<String>,
    /// Written, whole, once all agents are settled: JSON
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}
