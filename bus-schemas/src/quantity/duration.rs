//! Durations: `250ms`, `10s`, `1m30s`, `2h`, `7d`.

use std::fmt;
use std::str::FromStr;

use super::{InvalidQuantity, text_or_integer};

/// A length of time in whole milliseconds, 0 to [`Dur::MAX`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dur(u64);

/// The units, largest first, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Dur {
    /// No time at all.
    pub const ZERO: Dur = Dur(0);
    /// Ten years: longer waits are slips of the pen, and sums of a few of them never overflow.
    pub const MAX: Dur = Dur(3_650 * 86_400_000);

    /// From milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Dur {
        Dur(millis)
    }

    /// From seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Dur {
        Dur(secs.saturating_mul(1_000))
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// As the standard library's duration, for shells that wait.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl fmt::Display for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let mut rest = self.0;
        let mut text = String::new();
        for (unit, millis) in UNITS {
            if rest >= millis {
                text.push_str(&format!("{}{unit}", rest / millis));
                rest %= millis;
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Dur {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Dur, InvalidQuantity> {
        if text == "0" {
            return Ok(Dur::ZERO);
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(InvalidQuantity::form(format!(
                "{text} is not a duration: add a unit, for example {text}s"
            )));
        }
        let bad = || {
            InvalidQuantity::form(format!(
                "{text:?} is not a duration: write whole numbers with d, h, m, s or ms, largest unit first; for example 1m30s"
            ))
        };
        let millis = sum_of_parts(text).ok_or_else(bad)?;
        if millis > u128::from(Dur::MAX.0) {
            return Err(InvalidQuantity::range(format!("must be between 0s and {}, found {text}", Dur::MAX)));
        }
        u64::try_from(millis).map(Dur).map_err(|_| bad())
    }
}

/// The milliseconds of `1m30s`; `None` unless each part is a whole number with a unit smaller than the one before.
fn sum_of_parts(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut units = UNITS.as_slice();
    let mut sum = 0u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = &rest[..rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len())];
        let place = units.iter().position(|(name, _)| *name == unit)?;
        sum = sum.checked_add(u128::from(number) * u128::from(units[place].1))?;
        units = &units[place + 1..];
        rest = &rest[unit.len()..];
    }
    (!text.is_empty()).then_some(sum)
}

text_or_integer!(Dur, u64, "a duration such as 1m30s", |number| number.to_string().parse());
