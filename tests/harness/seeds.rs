//! Which seeds run, and the random numbers that come from one: a child per purpose, so that a change in one place
//! does not shift all others.

use std::sync::Arc;

use ostler_bus::EntropyRef;
use ostler_bus::entropy::SeededEntropy;
use ostler_bus::sealing::{KeyPair, KeyRing};
use ostler_schemas::hash::sha256;

/// The seeds to run: those of `OSTLER_SIM_SEEDS=1,2,3`, else `OSTLER_SIM_RUNS=n` of them from `first` on, else
/// `usual`. They are printed first, so that a run that dies can be repeated.
#[must_use]
pub fn chosen(first: u64, usual: u64) -> Vec<u64> {
    let listed = std::env::var("OSTLER_SIM_SEEDS").ok();
    let seeds: Vec<u64> = match listed {
        Some(list) => list.split(',').filter_map(|s| s.trim().parse().ok()).collect(),
        None => {
            let runs = std::env::var("OSTLER_SIM_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
            (first..first + runs).collect()
        }
    };
    let text: Vec<String> = seeds.iter().map(u64::to_string).collect();
    eprintln!("seeds: OSTLER_SIM_SEEDS={}", text.join(","));
    seeds
}

/// The source of random numbers of one purpose.
#[must_use]
pub fn child(seed: u64, purpose: &str) -> EntropyRef {
    let hash = sha256(format!("{seed}/{purpose}").as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    Arc::new(SeededEntropy::from_number(u64::from_le_bytes(first)))
}

/// One of several; `None` of none.
#[must_use]
pub fn pick<'a, T>(entropy: &EntropyRef, from: &'a [T]) -> Option<&'a T> {
    let index = usize::try_from(entropy.below(from.len() as u64)).unwrap_or(0);
    from.get(index)
}

/// A number from `low` to `high`, both included.
#[must_use]
pub fn between(entropy: &EntropyRef, low: u64, high: u64) -> u64 {
    low + entropy.below(high.saturating_sub(low) + 1)
}

/// The control plane's keys for secrets: the same on every replica, in every run.
#[must_use]
pub fn fleet_keys() -> KeyRing {
    KeyRing::new(vec![KeyPair::generate(&SeededEntropy::from_number(1))])
}
