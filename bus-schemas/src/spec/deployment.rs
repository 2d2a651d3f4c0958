//! What a Deployment asks for: so many like processes, and how they are exchanged for newer ones.

use serde::{Deserialize, Serialize};

use super::{Rollout, Template};
use crate::quantity::CountOrPercent;

/// The spec of a Deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// How many processes.
    pub replicas: u32,
    /// How old processes are exchanged for new ones.
    pub strategy: Strategy,
    /// Whether rollouts stand still.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How a new version is watched and what is done when it fails.
    pub rollout: Rollout,
    /// What each process is.
    pub template: Template,
}

/// How old processes are exchanged for new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// Which way.
    #[serde(rename = "type")]
    pub kind: StrategyType,
    /// Its bounds; given exactly when the type is `RollingUpdate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// The ways to exchange processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StrategyType {
    /// A few at a time.
    RollingUpdate,
    /// All old ones are stopped before the first new one starts.
    Recreate,
}

/// The bounds of a rolling update. They are never both zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// How many above `replicas` there may be; shares round up.
    pub max_surge: CountOrPercent,
    /// How many below `replicas` may be ready; shares round down.
    pub max_unavailable: CountOrPercent,
}

impl Strategy {
    /// How many above and below `replicas` are allowed: (surge, unavailable). When both round to zero one may be
    /// unavailable, else nothing could ever be exchanged. `Recreate` has no surge and may have all unavailable.
    #[must_use]
    pub fn bounds(&self, replicas: u32) -> (u32, u32) {
        match (self.kind, self.rolling_update) {
            (StrategyType::Recreate, _) => (0, replicas),
            (StrategyType::RollingUpdate, None) => (0, 1),
            (StrategyType::RollingUpdate, Some(update)) => {
                let surge = update.max_surge.round_up(replicas);
                let unavailable = update.max_unavailable.round_down(replicas);
                if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
            }
        }
    }
}
