//! What a person does with the command line, on a live fleet: what is printed, how it ends, what becomes of it.

mod actions;
mod drift;
mod exec;
mod files;
mod host;
mod large;
mod life;
mod looking;
mod placing;
mod secrets;
mod simulated;
mod starting;
mod templates;
mod usage;
mod validators;
