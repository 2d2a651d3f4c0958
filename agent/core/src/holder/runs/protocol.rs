//! What is said of runs. The descriptors travel beside the request, as ancillary data of its first byte.

use serde::{Deserialize, Serialize};

use crate::holder::protocol::{Exit, Spawn};

/// How many descriptors come with a run that has pipes: input, output, errors.
pub const RUN_PIPES: usize = 3;

/// Runs a command beside, or on behalf of, an incarnation. Answered once, by [`Ran`], when nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// For whom (its key), and how: words, environment, user, folder, limits. Its log and its stop mean nothing here.
    pub spawn: Box<Spawn>,
    /// Whether it joins that incarnation's cgroup and namespaces while its main process lives. It ends with it then.
    /// Else it has a fresh cgroup with the limits of `spawn`.
    #[serde(default)]
    pub beside: bool,
    /// After how long it is killed.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// One descriptor came, a terminal that it controls; else [`RUN_PIPES`] did.
    #[serde(default)]
    pub terminal: bool,
}

/// Sends a signal to everything in a run of the same connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRun {
    /// The id of the call that asked for the run.
    pub call: u64,
    /// The signal's number.
    pub signal: i32,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// How its first process did.
    pub exit: Exit,
    /// Whether it was killed because its time was over.
    #[serde(default)]
    pub timed_out: bool,
    /// Why it was ended by the holder, when that was for another reason; for people.
    #[serde(default)]
    pub ended_because: Option<String>,
}
