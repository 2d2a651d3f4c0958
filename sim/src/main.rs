//! `ostler-sim`: thousands of agents in one program, which `ostler sim agents` starts. Not for people: they type that.
//!
//! The agents are the agent's own actors, and what they say goes over real connections to a real bus; only hosts are
//! simulated, processes, files and ledgers, all of them in memory. So what controllers and servers do for them is what
//! they would do for as many real hosts.
//!
//! It is a program of its own because it contains the agent, which neither the command line nor a real host's agent
//! should carry a simulation for (docs/decisions/0011-simulated-fleets.md).

mod carrier;
mod crew;
mod host;
mod options;
mod tell;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let options = options::Options::parse();
    // Ten thousand agents tell ten thousand stories: only what should not happen at all is shown.
    let filter = tracing_subscriber::EnvFilter::try_from_env("OSTLER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(crew::run(&options));
        // What is left are agents that were ended already.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::say(&format!("error: {error:#}"));
            ExitCode::from(1)
        }
    }
}
