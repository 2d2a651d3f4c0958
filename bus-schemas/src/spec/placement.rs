//! Which nodes may have a process: labels that must match, taints that must be tolerated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Taint, TaintEffect};
use crate::quantity::Dur;

/// Labels of an object, or labels that another must have.
pub type Labels = BTreeMap<String, String>;

/// Whether `labels` has every pair of `selector`. The empty selector selects everything.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Says that a process may be where a taint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The key of the taint; none (with `Exists`) means every key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How key and value are compared.
    pub operator: TolerationOperator,
    /// The value of the taint, with `Equal`.
    pub value: String,
    /// The effect; none means every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// For how long a `NoExecute` taint is tolerated; none means without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_time: Option<Dur>,
}

/// How a toleration compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TolerationOperator {
    /// Key and value are the same.
    Equal,
    /// The key is the same; the value does not matter.
    Exists,
}

impl Toleration {
    /// Whether it speaks of `taint` (for how long is [`Toleration::toleration_time`]).
    #[must_use]
    pub fn covers(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_none_or(|effect| effect == taint.effect);
        let key = match &self.key {
            Some(key) => *key == taint.key,
            None => self.operator == TolerationOperator::Exists,
        };
        let value = match self.operator {
            TolerationOperator::Equal => self.value == taint.value,
            TolerationOperator::Exists => true,
        };
        effect && key && value
    }
}

/// For how long `tolerations` bear with `taint`: `None` not at all, `Some(None)` without end, `Some(Some(t))` for
/// `t`. Of several that speak of it the shortest time holds, as in Kubernetes.
#[must_use]
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> Option<Option<Dur>> {
    let mut covering = tolerations.iter().filter(|t| t.covers(taint)).peekable();
    covering.peek()?;
    Some(covering.filter_map(|t| t.toleration_time).min())
}
