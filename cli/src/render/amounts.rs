//! Short forms of amounts and moments, as tables show them.

use jiff::tz::TimeZone;
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::time::{Timestamp, age};

/// How moments are shown, and what time it is.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Now.
    pub now: Timestamp,
    /// Times instead of ages.
    pub timestamps: bool,
    /// The zone of times.
    pub zone: TimeZone,
}

impl Moments {
    /// Of this machine, now.
    #[must_use]
    pub fn now(timestamps: bool) -> Self {
        let millis = jiff::Timestamp::now().as_millisecond();
        Self {
            now: Timestamp(u64::try_from(millis).unwrap_or_default()),
            timestamps,
            zone: TimeZone::system(),
        }
    }

    /// How long ago a moment was, or the moment.
    #[must_use]
    pub fn ago(&self, moment: Timestamp) -> String {
        if self.timestamps { self.time(moment) } else { age(self.now.since_ms(moment)) }
    }

    /// The moment: local, RFC 3339.
    #[must_use]
    pub fn time(&self, moment: Timestamp) -> String {
        self.zoned(moment, "%Y-%m-%dT%H:%M:%S%:z")
    }

    /// The time of day: `14:03:41`.
    #[must_use]
    pub fn clock(&self, moment: Timestamp) -> String {
        self.zoned(moment, "%H:%M:%S")
    }

    fn zoned(&self, moment: Timestamp, form: &str) -> String {
        let millis = i64::try_from(moment.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(instant) => instant.to_zoned(self.zone.clone()).strftime(form).to_string(),
            Err(_) => moment.to_string(),
        }
    }
}

/// Cores with one decimal: `1.9`.
#[must_use]
pub fn cores(cpu: Cpu) -> String {
    let tenths = (cpu.as_millis() + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A size in the largest unit that leaves at least one: `6.2Gi`, `62Gi`, `512Mi`. One decimal below ten.
#[must_use]
pub fn size(size: Size) -> String {
    let bytes = size.as_bytes();
    let units = [("Ti", 1u64 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let Some((unit, factor)) = units.into_iter().find(|(_, factor)| bytes >= *factor) else {
        return bytes.to_string();
    };
    let tenths = (u128::from(bytes) * 10 + u128::from(factor) / 2) / u128::from(factor);
    if tenths >= 100 {
        format!("{}{unit}", (tenths + 5) / 10)
    } else if tenths.is_multiple_of(10) {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

/// `1 node`, `2 nodes`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        assert_eq!(cores(Cpu::from_millis(1_903)), "1.9");
        assert_eq!(cores(Cpu::from_millis(15_000)), "15.0");
        assert_eq!(size(Size::from_bytes(6_657_199_309)), "6.2Gi");
        assert_eq!(size(Size::from_mib(62 * 1024)), "62Gi");
        assert_eq!(size(Size::from_mib(4 * 1024)), "4Gi");
        assert_eq!(size(Size::from_bytes(900)), "900");
    }

    #[test]
    fn moments_are_ages_or_local_times() {
        let mut moments =
            Moments { now: Timestamp(1_794_000_012_000), timestamps: false, zone: TimeZone::UTC };
        assert_eq!(moments.ago(Timestamp(1_794_000_000_000)), "12s");
        moments.timestamps = true;
        assert_eq!(moments.ago(Timestamp(0)), "1970-01-01T00:00:00+00:00");
    }
}
