//! What no program of ours would send or store: nothing dies of it, it is counted, and service goes on.

mod bodies;
mod manifests;
mod stored;
mod subjects;

use std::collections::BTreeMap;

use harness::fleet::{Fleet, alive, until};

use crate::leaders::metrics;
use crate::work::{Untouched, deployment};

/// Daemons and work before something hostile.
pub(crate) struct Before {
    daemons: BTreeMap<String, u64>,
    untouched: Untouched,
    counted: u64,
}

/// Everything that counts messages and keys that could not be read, together.
fn counted(fleet: &Fleet) -> u64 {
    let names = ["ostler_garbage_messages_total ", "ostler_api_garbage_total ", "ostler_unreadable_keys "];
    let value = |line: &str| names.iter().find_map(|name| line.strip_prefix(name)?.parse::<f64>().ok());
    let all = metrics(fleet).into_values().collect::<Vec<_>>().concat();
    // Counters are whole numbers; the format writes them as it likes.
    all.lines().filter_map(value).map(|n| n as u64).sum()
}

fn of_metric(fleet: &Fleet, name: &str) -> f64 {
    let all = metrics(fleet).into_values().collect::<Vec<_>>().concat();
    all.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).sum()
}

impl Before {
    fn now(fleet: &Fleet, untouched: Untouched) -> Self {
        Self { daemons: fleet.daemons(), untouched, counted: counted(fleet) }
    }

    /// The same daemons serve, the same work runs, and what was hostile was counted.
    #[track_caller]
    fn holds(&self, fleet: &Fleet, name: &str) {
        assert_eq!(fleet.daemons(), self.daemons, "no daemon has ended: {}", fleet.log());
        assert!(self.daemons.values().all(|pid| alive(u32::try_from(*pid).unwrap_or(0))));
        fleet.nodes_become(&["Ready"]);
        fleet.converges(&deployment(name, 2));
        self.untouched.holds(fleet);
        until("garbage is counted", || (counted(fleet) > self.counted).then_some(()));
        for metric in ["ostler_decision_panics_total ", "ostler_api_panics_total "] {
            assert!(of_metric(fleet, metric) == 0.0, "{metric}");
        }
    }
}
