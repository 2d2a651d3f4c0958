//! Whether a node is fit for work: one judgement for those who place work and for those who show nodes, so that nothing
//! is placed on a node that users see as `NotReady`.
//!
//! Pure, and silent about why a node is silent: phases of silence are [`crate::liveness`]'s, verdicts are
//! [`crate::node`]'s.

use ostler_schemas::NodeName;
use ostler_schemas::v1::report::ConditionStatus;
use ostler_schemas::v1::status::NodePhase;

use crate::fleet::Fleet;
use crate::liveness::Signals;

/// Condition of a host whose agent gets no answer from its holder.
pub const HOLDER_LOST: &str = "HolderLost";
/// Condition of a name under which two machines live.
pub const DUPLICATE_IDENTITY: &str = "DuplicateIdentity";

/// Conditions under which a node takes no work although it beats.
const FORBIDDING: [&str; 4] = ["AgentHung", HOLDER_LOST, DUPLICATE_IDENTITY, "Frozen"];

/// Whether a condition of this type, while it is true, forbids work.
#[must_use]
pub fn is_forbidding(condition: &str) -> bool {
    FORBIDDING.contains(&condition)
}

/// The phase of a node: a durable verdict first, then what this replica hears, then what the node says of itself.
#[must_use]
pub fn phase(fleet: &Fleet, signals: &Signals, node: &NodeName) -> NodePhase {
    if fleet.is_lost(node) {
        return NodePhase::Lost;
    }
    match signals.phase(node) {
        NodePhase::Ready if forbidden(fleet, signals, node).is_some() => NodePhase::NotReady,
        heard @ (NodePhase::Ready
        | NodePhase::NotReady
        | NodePhase::Suspect
        | NodePhase::Lost
        | NodePhase::Unknown) => heard,
    }
}

/// The condition that forbids work on a node, if there is one: said by its beats or by its report.
#[must_use]
pub fn forbidden(fleet: &Fleet, signals: &Signals, node: &NodeName) -> Option<&'static str> {
    let signal = signals.nodes.get(node);
    let by_beat = |kind: &str| {
        signal.is_some_and(|s| match kind {
            HOLDER_LOST => s.beat.as_ref().is_some_and(|b| !b.holder),
            DUPLICATE_IDENTITY => s.duplicate,
            _ => false,
        })
    };
    let report = fleet.reports.get(node);
    let by_report = |kind: &str| {
        report
            .is_some_and(|r| r.conditions.iter().any(|c| c.kind == kind && c.status == ConditionStatus::True))
    };
    FORBIDDING.into_iter().find(|kind| by_beat(kind) || by_report(kind))
}
