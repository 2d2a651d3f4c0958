//! How a new version spreads over processes or nodes, how it is judged, and what is done when it fails.

use serde::{Deserialize, Serialize};

use crate::quantity::{CountOrPercent, Dur, Increase, Window};

/// How a version spreads and is judged (CONTRACT.md section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Rising and cumulative; the last is `100%`.
    pub waves: Vec<CountOrPercent>,
    /// How long a wave must stay healthy.
    pub bake: Dur,
    /// More failures than this in a wave end the rollout; shares are of the wave and round down.
    #[serde(default = "none", skip_serializing_if = "CountOrPercent::is_nothing")]
    pub max_failures: CountOrPercent,
    /// What is done when a version fails.
    pub on_failure: OnFailure,
    /// Waves after which a person goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pause_after: Vec<u32>,
    /// A wave that is waited for longer than this has failed.
    #[serde(default = "progress_deadline", skip_serializing_if = "is_usual")]
    pub progress_deadline: Dur,
    /// Nodes in action or unhealthy at one time; none means the whole wave. ConfigFiles only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<CountOrPercent>,
    /// The node label whose values a wave never mixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// When a wave may start; empty means always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// How much more memory than the version before is borne.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_increase: Option<Increase>,
    /// How many more error lines than of the version before are borne.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error_line_increase: Option<Increase>,
}

/// What is wrong with a list of waves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadWaves {
    /// Which of them; none if it is the list.
    pub index: Option<usize>,
    /// What, for people.
    pub message: String,
}

/// Whether waves rise and end with everything.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_waves(waves: &[CountOrPercent]) -> Result<(), BadWaves> {
    let bad = |index, message: String| Err(BadWaves { index, message });
    for (index, pair) in waves.windows(2).enumerate() {
        let rises = match (pair[0], pair[1]) {
            (CountOrPercent::Count(before), CountOrPercent::Count(after)) => after > before,
            (CountOrPercent::Percent(before), CountOrPercent::Percent(after)) => after > before,
            (CountOrPercent::Count(_), CountOrPercent::Percent(_)) => true,
            (CountOrPercent::Percent(_), CountOrPercent::Count(_)) => false,
        };
        if !rises {
            return bad(Some(index + 1), format!("waves must rise: {} after {}", pair[1], pair[0]));
        }
    }
    if waves.first().is_some_and(|first| first.is_zero()) {
        return bad(Some(0), "must be at least 1, found 0".to_owned());
    }
    if waves.last() != Some(&CountOrPercent::ALL) {
        return bad(None, "the last wave must be 100%".to_owned());
    }
    Ok(())
}

const fn none() -> CountOrPercent {
    CountOrPercent::Count(0)
}

const fn progress_deadline() -> Dur {
    Dur::from_secs(600)
}

fn is_usual(deadline: &Dur) -> bool {
    *deadline == progress_deadline()
}

/// What is done when a version fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Back to the last version that completed; with none before, as `pause`.
    Rollback,
    /// Stop and wait for a person.
    Pause,
}

/// One wave, and everything else as it is when left out.
impl Default for Rollout {
    fn default() -> Self {
        Rollout {
            waves: vec![CountOrPercent::ALL],
            bake: Dur::from_secs(10),
            max_failures: none(),
            on_failure: OnFailure::Rollback,
            pause_after: Vec::new(),
            progress_deadline: progress_deadline(),
            max_unavailable: None,
            group_by: None,
            windows: Vec::new(),
            max_memory_increase: None,
            max_error_line_increase: None,
        }
    }
}
