//! The binary `ostler`: see the library of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    ostler_cli::main()
}
