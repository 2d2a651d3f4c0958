//! The real host: processes through the holder, files through the kernel, facts from it, the ledger on disk.

mod artifacts;
mod beneath;
pub mod credentials;
mod env_files;
mod exec;
mod facts;
mod features;
mod files;
mod folders;
mod hands;
mod host;
mod label;
mod ledger;
mod log;
mod old_logs;
mod probe;
mod units;
mod usage;
mod users;
mod watch;
mod weight;

pub use artifacts::{ArtifactCache, CacheLimits};
pub use facts::{FactsConfig, LinuxFacts};
pub use files::LinuxFiles;
pub use folders::OwnFolders;
pub use host::LinuxHost;
pub use ledger::FileLedger;
pub use log::ProcessLog;
