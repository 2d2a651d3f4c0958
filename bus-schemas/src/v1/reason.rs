//! The closed list of reasons (CONTRACT.md section 8): never renamed within a major version.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whether an event is how things should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl EventType {
    /// As in header `Ostler-Type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

macro_rules! reasons {
    ($($kind:ident: $($name:ident),+;)+) => {
        /// Why something happened or is as it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the variants are the reasons of CONTRACT.md section 8")]
        pub enum Reason { $($($name,)+)+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$($(Reason::$name,)+)+];

            /// As in subjects, headers and status.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($(Reason::$name => stringify!($name),)+)+ }
            }

            /// The type of an event with this reason.
            #[must_use]
            pub const fn event_type(self) -> EventType {
                match self { $($(Reason::$name)|+ => EventType::$kind,)+ }
            }
        }
    };
}

reasons! {
    Normal: Joined, Cordoned, Uncordoned, Drained, Upgraded, Reinstalled, Scheduled, Started, Ready, Reloaded, Stopped,
        Completed, Adopted, RolloutStarted, WaveHealthy, RolloutComplete, Paused, Resumed, RolledBack, Scaled,
        WaitingForWindow, FileWritten, FileTakenOver, ActionRun, Released, RunStarted, RunSucceeded, LeaseTaken,
        Thawed, Restored, Created, Configured, Deleted;
    Warning: Suspect, Lost, ClockSkewed, DiskPressure, MemoryPressure, PidPressure, LimitsUnenforced, AgentHung, HolderLost,
        DuplicateIdentity, EvictionHeld, BulkStopRefused, EpochRefused, Unschedulable, NeedsNotMet, ArtifactFailed,
        StartFailed, StartTimeout, ProbeFailed, Exited, OutOfMemory, CrashLoop, PortTaken, UserUnknown, LimitRefused,
        Evicted, Preempted, Fenced, Orphaned, Held, WaitingForProof, DataOnLostNode, WaveFailed, ProgressDeadline,
        RolloutFailed, Degraded, DriftFound, DriftRepaired, Contested, ValidatorFailed, ActionFailed, WriteFailed,
        DiskFull, PathRefused, OwnerRefused, NotRegular, NoContent, Unrenderable, PathConflict, RunFailed, RunMissed,
        DeadlineExceeded, Frozen, StoreDegraded, StoreRolledBack, ClientTooOld, LogsNotShipped, Unsupported;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no reason of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a reason of this version")]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;
    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Reason::ALL.iter().copied().find(|r| r.as_str() == text).ok_or(UnknownReason)
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// A reason of a newer version reads as [`Reason::Unsupported`]: the message beside it still says what it was.
impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(d)?.parse().unwrap_or(Reason::Unsupported))
    }
}
