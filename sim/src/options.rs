//! What a simulated fleet is told.

use std::path::PathBuf;

use clap::Parser;

/// Runs simulated agents; "ostler sim agents" is how it is meant to be started
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "ostler-sim", version)]
pub(crate) struct Options {
    /// Which simulated nodes there are and how they reach the bus: as "ostler setup --simulated" wrote it
    #[arg(long, value_name = "FILE")]
    pub(crate) fleet: PathBuf,
    /// How many agents
    #[arg(long, value_name = "COUNT")]
    pub(crate) nodes: u32,
    /// The number of the first
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) first: u32,
    /// How long a step at a file and the start of a process take
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) latency_ms: u64,
    /// Nodes of a thousand on which everything fails that contains one of the texts
    #[arg(long, value_name = "PERMILLE", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) fail_permille: u32,
    /// A text in a file's content or in a command; may be given many times
    #[arg(long = "fail", value_name = "TEXT")]
    pub(crate) fail: Vec<String>,
    /// Written, whole, once all agents are settled: JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}
