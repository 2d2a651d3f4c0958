//! A count or a share of a whole: `3`, `25%`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::InvalidQuantity;

/// A count, or a percentage of a whole that is known only later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CountOrPercent {
    /// So many.
    Count(u32),
    /// So many hundredths, 0 to 100.
    Percent(u8),
}

impl CountOrPercent {
    /// The whole.
    pub const ALL: CountOrPercent = CountOrPercent::Percent(100);

    /// How many of `total`, rounded up: waves and surges. A count is taken as it is.
    #[must_use]
    pub fn round_up(self, total: u32) -> u32 {
        match self {
            CountOrPercent::Count(count) => count,
            CountOrPercent::Percent(percent) => share(total, percent, 99),
        }
    }

    /// How many of `total`, rounded down: what may be unavailable. A count is taken as it is.
    #[must_use]
    pub fn round_down(self, total: u32) -> u32 {
        match self {
            CountOrPercent::Count(count) => count,
            CountOrPercent::Percent(percent) => share(total, percent, 0),
        }
    }

    /// Whether it is a count of 0.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        matches!(self, CountOrPercent::Count(0))
    }

    /// Whether it is nothing of any whole.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        matches!(self, CountOrPercent::Count(0) | CountOrPercent::Percent(0))
    }
}

/// A percentage is at most 100, so the result is at most `total`.
fn share(total: u32, percent: u8, extra: u64) -> u32 {
    let hundredths = u64::from(total) * u64::from(percent.min(100));
    u32::try_from((hundredths + extra) / 100).unwrap_or(total)
}

impl fmt::Display for CountOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CountOrPercent::Count(count) => f.pad(&count.to_string()),
            CountOrPercent::Percent(percent) => f.pad(&format!("{percent}%")),
        }
    }
}

impl fmt::Debug for CountOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CountOrPercent {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<CountOrPercent, InvalidQuantity> {
        let number = text.strip_suffix('%').unwrap_or(text);
        let unsigned = number.strip_prefix('-').unwrap_or(number);
        if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidQuantity::form(format!(
                "{text:?} is not a count or percentage: write a whole number or a percentage, for example 3 or 25%"
            )));
        }
        if text.ends_with('%') {
            return match number.parse() {
                Ok(percent) if percent <= 100 => Ok(CountOrPercent::Percent(percent)),
                Ok(_) | Err(_) => {
                    Err(InvalidQuantity::range(format!("must be between 0% and 100%, found {text}")))
                }
            };
        }
        number
            .parse()
            .map(CountOrPercent::Count)
            .map_err(|_| InvalidQuantity::range(format!("must be between 0 and {}, found {text}", u32::MAX)))
    }
}

impl Serialize for CountOrPercent {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            CountOrPercent::Count(count) => s.serialize_u32(*count),
            CountOrPercent::Percent(_) => s.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for CountOrPercent {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = CountOrPercent;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count or a percentage such as 25%")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<CountOrPercent, E> {
                u32::try_from(number).map(CountOrPercent::Count).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<CountOrPercent, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(Either)
    }
}
