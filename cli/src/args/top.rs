//! Arguments of `top`.

use clap::ValueEnum;

use super::look::{Output, Selection};

/// Show what nodes or processes take, the busiest first
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ostler top nodes
  ostler top processes -A --sort-by memory
  ostler top ps -l app=web --node web-001 -w

Nodes: cpu and memory in use on the whole host, by the last beat. Processes: asked of their hosts now; a host that
does not answer is named, and what is not known is ?")]
pub struct Top {
    /// nodes or processes, or the short forms no and ps
    #[arg(value_name = "nodes|processes")]
    pub what: String,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
    /// Only on this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Order by this column, the largest first
    #[arg(long, value_enum, default_value_t = SortBy::Cpu, value_name = "COLUMN")]
    pub sort_by: SortBy,
    /// Go on and show it again every two seconds
    #[arg(short, long)]
    pub watch: bool,
    /// How: -o json is one object for each row.
    #[command(flatten)]
    pub output: Output,
}

/// Columns that rows can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "each is the column that it names")]
pub enum SortBy {
    Cpu,
    Memory,
    Disk,
    Load,
    Pressure,
    Procs,
    Tasks,
    Read,
    Write,
    Restarts,
    Name,
    Node,
}
