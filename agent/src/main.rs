//! The binary of one host: the agent, and under its first argument the holder.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // The holder is started before anything makes a thread or a runtime: it has none.
    match words.next() {
        Some(word) if word == "holder" => ostler_agent::holder::main(words),
        Some(_) | None => ostler_agent::cli::main(),
    }
}
