//! `ostler dev`: a whole fleet on this machine.

use crate::args::local::Dev;
use crate::failure::Failure;
use crate::out::Out;

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(_args: &Dev, _out: &mut Out) -> Result<(), Failure> {
    Err(Failure::message("dev"))
}
