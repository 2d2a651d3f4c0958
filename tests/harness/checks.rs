//! The invariants of DESIGN.md section 5 that apply here, watched all the time.
//!
//! * [`log`]: everything that the store took, transaction by transaction: who wrote it, and what it does to the fleet.
//! * [`hosts`]: everything that happened to processes.
//! * [`life`]: what templates promise: order, delays, hooks, probes, artifacts.
//! * [`files`]: every state of every managed path.
//! * [`acts`]: what follows changes of files.
//!
//! Checkers decide nothing and are told nothing by the daemons; they know what the nemesis did on purpose.

pub mod acts;
pub mod files;
pub mod hosts;
pub mod life;
pub mod log;

use std::fmt;

use ostler_controller_core::audit;

/// What is violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The snapshot, or a step between two, breaks a rule of `audit`.
    Audit(audit::Rule),
    /// Something was written under a term that was over, or without a fence.
    OldLeader,
    /// Two specs of one object bear one generation: an acknowledged write was overwritten unseen.
    GenerationForked,
    /// A node was judged lost although it beat all the time.
    FalseVerdict,
    /// A process ended although nobody asked for it.
    EndedUnasked,
    /// A process was started again on a node that had ended it on demand.
    Resurrected,
    /// Two incarnations of one process lived at once.
    TwoLive,
    /// A process was started on a node that it was never bound to.
    StartedUnbound,
    /// One end was accounted for twice.
    ExitTwice,
    /// An end was accounted for by nobody.
    ExitLost,
    /// Somebody was asked to end for no reason that its template or its owner gives.
    StoppedUnasked,
    /// A stop was not as the template says: its signal, its time, its hook.
    StopDisorder,
    /// Something was ready before it was up, or before its probe succeeded.
    ReadyTooEarly,
    /// Something went on without a hook that had to come first.
    HookSkipped,
    /// A hook was run again, or beside another one, or at the wrong time.
    HookDisorder,
    /// A restart came sooner than its delay.
    HastyRestart,
    /// Something was started whose artifacts were not there, or they went while it ran.
    ArtifactMissing,
    /// One number was given to two incarnations.
    IncarnationTwice,
    /// What had done its work was started again.
    OneshotTwice,
    /// An agent went back to an older document.
    HeldFellBack,
    /// A managed path held something that nobody ever put there.
    TornFile,
    /// A managed path held an older version than before.
    FileFellBack,
    /// What follows a change of a file was done twice for one version.
    ActedTwice,
    /// Something acknowledged is not there.
    AcknowledgedLost,
    /// An actor panicked.
    Panic,
    /// Things are not as asked, although nothing has been wrong for long.
    NotSettled,
}

/// A violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// When, in milliseconds of the run.
    pub at_ms: u64,
    /// The rule.
    pub rule: Rule,
    /// Of what and how.
    pub detail: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}s {:?}: {}", self.at_ms as f64 / 1000.0, self.rule, self.detail)
    }
}
