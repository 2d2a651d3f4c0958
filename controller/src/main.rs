//! `ostler-controller`: one replica of the control plane.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use ostler_controller::config::{Overrides, load};
use ostler_controller::serve::{init_tracing, serve};

/// One replica of Ostler's control plane.
///
/// Any number may run; all serve the API, and each controller is led by one of them. They keep no state of their own:
/// everything is in the store and in what the agents report.
#[derive(Parser)]
#[command(
    name = "ostler-controller",
    version,
    after_help = "Exit codes: 0 ended as asked, 1 failed, 2 wrong usage or settings."
)]
struct Args {
    /// Settings (TOML), as written by `ostler setup`
    #[arg(
        long,
        value_name = "FILE",
        env = "OSTLER_CONTROLLER_CONFIG",
        default_value = "/etc/ostler/controller.toml"
    )]
    config: PathBuf,
    /// Name of this replica, a DNS label; else from the settings, else made from the host's name
    #[arg(long)]
    name: Option<String>,
    /// Address of /healthz, /readyz and /metrics; "" for none
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// How much shipped output of processes is kept on the bus, for example 1Gi; never lowered
    #[arg(long, value_name = "SIZE")]
    logs_max_bytes: Option<String>,
    /// Check the settings and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let Args { config, name, http, logs_max_bytes, check } = Args::parse();
    init_tracing();
    let settings = match load(&config, Overrides { name, http, logs_max_bytes }) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("ostler-controller: {:#}", anyhow::Error::from(error));
            return ExitCode::from(2);
        }
    };
    if check {
        eprintln!("ostler-controller: {} is usable", config.display());
        return ExitCode::SUCCESS;
    }
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
