//! Table `[pressure]` of the settings: from where on the host is under pressure.

use ostler_agent_core::pressure::{Floor, Thresholds};
use ostler_schemas::quantity::{Dur, Size};
use serde::Deserialize;

/// Shortest hold: below it every moment of relief would bring new work onto a host that is full.
const LEAST_HOLD_MS: u64 = 10_000;

/// The table as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    memory_available: Option<String>,
    memory_stall: Option<String>,
    disk_free: Option<String>,
    pids_free: Option<String>,
    hold: Option<String>,
}

type Wrong = (&'static str, String);

impl Raw {
    /// Checks it; an error names the key.
    pub(super) fn read(&self) -> Result<Thresholds, Wrong> {
        let usual = Thresholds::default();
        let floor = |key, text: &Option<String>, usual, amount: fn(&str) -> Option<u64>, example: &str| {
            let Some(text) = text else { return Ok(usual) };
            read_floor(text, amount).ok_or_else(|| {
                (
                    key,
                    format!(
                        "{text:?} is neither a percentage below 100% nor an amount: write 5% or {example}"
                    ),
                )
            })
        };
        let bytes = |text: &str| text.parse::<Size>().ok().map(Size::as_bytes);
        let count = |text: &str| text.parse::<u64>().ok();
        Ok(Thresholds {
            memory: floor("pressure.memory_available", &self.memory_available, usual.memory, bytes, "512Mi")?,
            disk: floor("pressure.disk_free", &self.disk_free, usual.disk, bytes, "2Gi")?,
            pids: floor("pressure.pids_free", &self.pids_free, usual.pids, count, "1000")?,
            stall: self.stall()?.unwrap_or(usual.stall),
            hold_ms: self.hold()?.unwrap_or(usual.hold_ms),
        })
    }

    fn stall(&self) -> Result<Option<u32>, Wrong> {
        let Some(text) = &self.memory_stall else { return Ok(None) };
        match permille(text).filter(|n| *n > 0) {
            Some(permille) => Ok(Some(permille * 10)),
            None => Err(("pressure.memory_stall", format!("{text:?} is no share of time: write it as 20%"))),
        }
    }

    fn hold(&self) -> Result<Option<u64>, Wrong> {
        let Some(text) = &self.hold else { return Ok(None) };
        let hold = text.parse::<Dur>().ok().map(Dur::as_millis).filter(|ms| *ms >= LEAST_HOLD_MS);
        let message =
            || format!("{text:?} is not a time of at least {} s: write it as 2m", LEAST_HOLD_MS / 1000);
        hold.map(Some).ok_or_else(|| ("pressure.hold", message()))
    }
}

/// What is written counts alone: the usual amount bounds only the usual share.
fn read_floor(text: &str, amount: fn(&str) -> Option<u64>) -> Option<Floor> {
    if text.trim().ends_with('%') {
        return permille(text).map(|share| Floor { share: Some(share), amount: None });
    }
    amount(text.trim()).map(|amount| Floor { share: None, amount: Some(amount) })
}

/// `5%` or `2.5%`, below 100%.
fn permille(text: &str) -> Option<u32> {
    let number = text.trim().strip_suffix('%')?.trim();
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let tenth = part.parse::<u32>().ok().filter(|_| part.len() == 1)?;
    let permille = whole.parse::<u32>().ok()?.checked_mul(10)?.checked_add(tenth)?;
    (permille < 1000).then_some(permille)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(key: &str, value: &str) -> Result<Thresholds, Wrong> {
        let text = format!("{{\"{key}\": \"{value}\"}}");
        serde_json::from_str::<Raw>(&text).expect("a known key").read()
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        assert_eq!(Raw::default().read(), Ok(Thresholds::default()));
    }

    #[test]
    fn shares_and_amounts_are_read() {
        let memory = raw("memory_available", "2.5%").expect("a share").memory;
        assert_eq!(memory, Floor { share: Some(25), amount: None });
        let disk = raw("disk_free", "10Gi").expect("an amount").disk;
        assert_eq!(disk, Floor { share: None, amount: Some(10 << 30) });
        assert_eq!(raw("pids_free", "0").expect("off").pids, Floor { share: None, amount: Some(0) });
        assert_eq!(raw("memory_stall", "20%").expect("a share").stall, 2_000);
        assert_eq!(raw("hold", "5m").expect("a time").hold_ms, 300_000);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (key, value) in [
            ("memory_available", "100%"),
            ("memory_available", "-1"),
            ("disk_free", "2.55%"),
            ("pids_free", "5Gi"),
            ("memory_stall", "20"),
            ("hold", "1s"),
            ("hold", "soon"),
        ] {
            let (found, message) = raw(key, value).expect_err("refused");
            assert_eq!(found, format!("pressure.{key}"));
            assert!(message.contains(value), "{message}");
        }
    }
}
