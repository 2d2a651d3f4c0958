//! The real host: processes through the holder, files through the kernel, facts from it, the ledger on disk.

mod exec;
mod facts;
mod files;
mod host;
mod ledger;
mod log;
mod probe;
mod usage;
mod users;
mod watch;

pub use facts::{FactsConfig, LinuxFacts};
pub use files::LinuxFiles;
pub use host::LinuxHost;
pub use ledger::FileLedger;
pub use log::ProcessLog;
