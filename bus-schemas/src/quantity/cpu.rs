//! CPU in cores: `2`, `0.25`, `250m`.

use std::fmt;
use std::str::FromStr;

use super::{Decimal, InvalidQuantity, text_or_integer};

/// An amount of CPU in thousandths of a core.
///
/// Zero is a value (a node may have nothing left); that a manifest must ask for at least `1m` is a rule of fields.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(u64);

impl Cpu {
    /// Nothing.
    pub const ZERO: Cpu = Cpu(0);
    /// A million cores: more than any fleet of this design has, and sums still fit 64 bits.
    pub const MAX: Cpu = Cpu(1_000_000_000);

    /// From thousandths of a core.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Cpu {
        Cpu(millis)
    }

    /// In thousandths of a core.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            if self.0.is_multiple_of(1_000) { (self.0 / 1_000).to_string() } else { format!("{}m", self.0) };
        f.pad(&text)
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cpu {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Cpu, InvalidQuantity> {
        let bad = |why: &str| InvalidQuantity::form(format!("{text:?} is not an amount of cpu: {why}"));
        if text.ends_with('%') {
            return Err(bad("cpu is in cores; half a core is 500m"));
        }
        let (number, factor) = text.strip_suffix('m').map_or((text, 1_000), |number| (number, 1));
        let decimal =
            Decimal::parse(number).ok_or_else(|| bad("write cores; for example 2, 0.25 or 250m"))?;
        let millis = decimal.times(factor).ok_or_else(|| bad("finer than 1m"))?;
        match u64::try_from(millis) {
            Ok(millis) if millis <= Cpu::MAX.0 => Ok(Cpu(millis)),
            Ok(_) | Err(_) => {
                Err(InvalidQuantity::range(format!("must be between 1m and {}, found {text}", Cpu::MAX)))
            }
        }
    }
}

text_or_integer!(Cpu, u64, "an amount of cpu such as 250m", |number| number.to_string().parse());
