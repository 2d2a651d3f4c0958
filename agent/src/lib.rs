//! The agent of one host, and its holder.
//!
//! * [`run`]: one agent over its [`ports`]; [`sim`] has simulated ports, [`linux`] the real ones.
//! * [`holder`]: the small parent of all processes; [`holder_client`]: how the agent talks to it.
//! * [`config`]: settings; [`cli`]: the commands of `ostler-agent`; [`local`]: what is answered on the host itself.

mod actors;
pub mod cli;
mod compare;
pub mod config;
mod context;
pub mod holder;
pub mod holder_client;
pub mod linux;
pub mod local;
pub mod ports;
mod resident;
pub mod run;
pub mod secrets;
pub mod sim;
pub mod status;

pub use context::{Deps, NodeConfig};
pub use run::{Handle, StartError, Viewer};
