//! What is answered on the host itself: the agent's socket, and the commands that ask there.

pub mod client;
pub mod server;
mod show;

pub use show::{files_table, process_table, status_text};

use serde::{Deserialize, Serialize};

/// The socket's name in its folder.
pub const SOCKET: &str = "agent.sock";
/// Longest request: a few words.
const REQUEST_MAX: u64 = 64 << 10;

/// What can be asked: one line of JSON; the answer is one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum Ask {
    /// Everything there is to know: [`crate::status::Status`].
    Status,
}
