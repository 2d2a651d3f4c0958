//! Moments. This crate reads no clock: moments come in as values.
//!
//! Two kinds that must never be mixed: [`Timestamp`] is wall-clock time, for people and records, and may jump;
//! [`Mono`] is one machine's monotonic time, for deadlines, and means nothing on another machine or after a reboot.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Wall-clock time: milliseconds since 1970-01-01 UTC. Text form: RFC 3339, UTC, three digits of milliseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Milliseconds from `earlier` to this moment; 0 if it is not earlier (clocks jump).
    #[must_use]
    pub const fn since_ms(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "9999-12-31T23:59:59.999Z"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time: write it as 2026-11-20T14:03:05.000Z")]
pub struct InvalidTimestamp {
    text: String,
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let bad = || InvalidTimestamp { text: text.to_owned() };
        let parsed: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        u64::try_from(parsed.as_millisecond()).map(Timestamp).map_err(|_| bad())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(D::Error::custom)
        } else {
            u64::deserialize(d).map(Timestamp)
        }
    }
}

/// One machine's monotonic time in milliseconds, from an arbitrary start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Mono {
        Mono(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 if it is not earlier.
    #[must_use]
    pub const fn since_ms(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both readings of one clock, taken together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub mono: Mono,
    /// For records.
    pub wall: Timestamp,
}

/// A length of time as tables show ages: `5s`, `3m`, `4h12m`, `41d`.
#[must_use]
pub fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) if minutes % 60 == 0 => format!("{hours}h"),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        (_, _, _) => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_back_what_they_print() {
        let t = Timestamp(1_794_000_000_123);
        assert_eq!(t.to_string().parse::<Timestamp>().expect("parses"), t);
        assert!(t.to_string().ends_with(".123Z"), "{t}");
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn ages_are_short() {
        let shown: Vec<String> =
            [5_000, 185_000, 3_600_000, 15_120_000, 3_542_400_000].into_iter().map(age).collect();
        assert_eq!(shown, ["5s", "3m", "1h", "4h12m", "41d"]);
    }
}
