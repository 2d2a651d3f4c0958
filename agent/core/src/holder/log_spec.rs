//! Where the output of a process goes, as the agent asks for it and the holder keeps it.
//!
//! Not here: what it is made from ([`super::lines::spec`]), and how lines are cut and written.

use serde::{Deserialize, Serialize};

use super::wire::word;

/// Bytes a log file may grow to (`logs.maxSize`).
pub const LOG_FILE_MAX: u64 = 10 << 20;

/// How many log files are kept, the growing one included (`logs.maxFiles`).
pub const LOG_FILES: u32 = 5;

/// Seconds that logs are kept after the process is gone (`logs.keepAfterExit`): a week.
pub const LOG_KEEP_S: u64 = 7 * 86_400;

word! {
    /// Where one output goes.
    LogTo {
        /// To files.
        File = "file",
        /// To the host's journal.
        Journal = "journal",
        /// Nowhere.
        Null = "null",
    } else File
}

/// Where the output goes: `<dir>/<namespace>/<name>/current.log`, rotated to `current.log.1` and on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The folder of all logs.
    pub dir: String,
    /// Size at which a file is rotated.
    #[serde(default = "log_file_max")]
    pub file_max: u64,
    /// How many files are kept.
    #[serde(default = "log_files")]
    pub files: u32,
    /// How many seconds they are kept after the process is gone. The holder only writes it down beside them.
    #[serde(default = "log_keep_s")]
    pub keep_s: u64,
    /// Whether the process waits when lines cannot be written, instead of losing them.
    #[serde(default)]
    pub block: bool,
    /// Where standard output goes.
    #[serde(default = "log_to_file")]
    pub stdout: LogTo,
    /// Where standard error goes.
    #[serde(default = "log_to_file")]
    pub stderr: LogTo,
}

impl LogSpec {
    /// Logs below `dir` with the default sizes.
    #[must_use]
    pub fn below(dir: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            file_max: LOG_FILE_MAX,
            files: LOG_FILES,
            keep_s: LOG_KEEP_S,
            block: false,
            stdout: LogTo::File,
            stderr: LogTo::File,
        }
    }

    /// The growing file of the process `namespace/name`.
    #[must_use]
    pub fn current(&self, namespace: &str, name: &str) -> String {
        format!("{}/{namespace}/{name}/current.log", self.dir.trim_end_matches('/'))
    }
}

const fn log_file_max() -> u64 {
    LOG_FILE_MAX
}

const fn log_files() -> u32 {
    LOG_FILES
}

const fn log_keep_s() -> u64 {
    LOG_KEEP_S
}

const fn log_to_file() -> LogTo {
    LogTo::File
}
