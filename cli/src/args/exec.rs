//! Arguments of `exec`.

/// Run a command beside a process: same user, namespaces, limits, folder and environment
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The command is no part of the process: it is killed when it loses you (Ctrl-C twice, the end of this program, a lost
connection after 15 s) and when its process ends. What it leaves in the background is killed with it. The host may
forbid it (agent.toml), and every command is audited with its words.

Examples:
  ostler exec web-5c8f7-x2k4v -- ls -l /proc/self/fd
  ostler exec -it web-5c8f7-x2k4v -- bash
  ostler exec -i db-0 -- psql < dump.sql
  ostler exec deployment/web -- cat /etc/app.conf

Exit codes: the command's own, 128 + N if signal N ended it; else 1 (not running, refused), 3 (not allowed),
4 (the control plane cannot be reached)")]
pub struct Exec {
    /// The process: NAME, process/NAME, its 8-character uid, or an owner that has one: deployment/NAME
    #[arg(value_name = "PROCESS")]
    pub process: String,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// A terminal: keys, colours, size
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Why, for the audit record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
