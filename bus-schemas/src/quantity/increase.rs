//! How much more of something is borne, against what it was before: `40%`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::InvalidQuantity;

/// More than this says nothing any more: a hundred times as much.
const MOST: u32 = 10_000;

/// A whole percentage of what was before; it may be more than 100 %.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Increase(u32);

impl Increase {
    /// Whether `now` is more than `before` and this on top. Of nothing before, nothing can be said.
    #[must_use]
    pub fn is_exceeded(self, before: u64, now: u64) -> bool {
        before > 0 && u128::from(now) * 100 > u128::from(before) * (100 + u128::from(self.0))
    }
}

impl fmt::Display for Increase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.0))
    }
}

impl fmt::Debug for Increase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Increase {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Increase, InvalidQuantity> {
        let digits =
            text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
        let Some(digits) = digits else {
            return Err(InvalidQuantity::form(format!(
                "{text:?} is not a percentage: write a whole number and %, for example 40%"
            )));
        };
        digits
            .parse()
            .ok()
            .filter(|percent| *percent <= MOST)
            .map(Increase)
            .ok_or_else(|| InvalidQuantity::range(format!("must be between 0% and {MOST}%, found {text}")))
    }
}

impl Serialize for Increase {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Increase {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
