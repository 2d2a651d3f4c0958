//! Harness shared by the test packages: the whole control plane in one process, in virtual time.
//!
//! * [`world`]: controllers, hosts and an operator on one bus in memory; [`replica`] and [`machine`] are its parties.
//! * [`gated`]: the ports of an agent behind its gate, so that a paused or crashed agent touches nothing.
//! * [`operator`] and [`work`]: what people ask for, and what was answered.
//! * [`life`]: processes with everything that templates have, and what they do of themselves.
//! * [`nemesis`]: what goes wrong, drawn from the seed.
//! * [`checks`]: the invariants of DESIGN.md section 5, watched all the time; [`settle`]: when everything is as asked.
//! * [`planted`]: bugs on purpose, from outside; a checker that never caught one is not trusted.
//! * [`seeds`], [`panics`]: how a run is chosen, and how a panic inside an actor fails its test.
//! * [`fleet`]: the exception, which lives in real time: a fleet of the shipped programs, for the tests that need one.
//!
//! What it guarantees, [`fleet`] apart: one seed, one run. Nothing here reads a clock of the machine, draws from the
//! system, or iterates
//! in an order that depends on hashing.

pub mod checks;
#[path = "../real/fleet/mod.rs"]
pub mod fleet;
pub mod gated;
pub mod life;
pub mod machine;
pub mod nemesis;
pub mod operator;
pub mod panics;
pub mod planted;
pub mod replica;
pub mod seeds;
pub mod settle;
pub mod work;
pub mod world;
