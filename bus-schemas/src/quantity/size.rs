//! Sizes in bytes: `1024`, `128Mi`, `1.5Gi`, `500M`.

use std::fmt;
use std::str::FromStr;

use super::{Decimal, InvalidQuantity, text_or_integer};

/// A number of bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const BINARY: [(&str, u64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const DECIMAL: [(&str, u64); 4] =
    [("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];

impl Size {
    /// Nothing.
    pub const ZERO: Size = Size(0);
    /// More than any host has; sums over a whole fleet still fit 64 bits.
    pub const MAX: Size = Size(1 << 60);

    /// From bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Size {
        Size(bytes)
    }

    /// From mebibytes.
    #[must_use]
    pub const fn from_mib(mib: u64) -> Size {
        Size(mib << 20)
    }

    /// In bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    /// The shortest exact text; of two equally short ones the binary unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut best = self.0.to_string();
        if self.0 > 0 {
            for (unit, bytes) in BINARY.into_iter().chain(DECIMAL) {
                if self.0.is_multiple_of(bytes) {
                    let text = format!("{}{unit}", self.0 / bytes);
                    let binary_tie = text.len() == best.len() && unit.ends_with('i') && !best.ends_with('i');
                    if text.len() < best.len() || binary_tie {
                        best = text;
                    }
                }
            }
        }
        f.pad(&best)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Size {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Size, InvalidQuantity> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let Some(decimal) = Decimal::parse(number) else {
            return Err(not_a_size(
                text,
                "write bytes, or a number with Ki, Mi, Gi, Ti, k, M, G or T; for example 128Mi",
            ));
        };
        let factor = if unit.is_empty() {
            1
        } else {
            BINARY
                .into_iter()
                .chain(DECIMAL)
                .find(|(name, _)| *name == unit)
                .map(|(_, bytes)| bytes)
                .ok_or_else(|| wrong_unit(text, number, unit))?
        };
        let bytes =
            decimal.times(factor).ok_or_else(|| not_a_size(text, "it is not a whole number of bytes"))?;
        match u64::try_from(bytes) {
            Ok(bytes) if bytes <= Size::MAX.0 => Ok(Size(bytes)),
            Ok(_) | Err(_) => {
                Err(InvalidQuantity::range(format!("must be between 0 and {}, found {text}", Size::MAX)))
            }
        }
    }
}

fn not_a_size(text: &str, why: &str) -> InvalidQuantity {
    InvalidQuantity::form(format!("{text:?} is not a size: {why}"))
}

/// `m` is named apart because Kubernetes takes it, as thousandths of a byte: a well-known accident.
fn wrong_unit(text: &str, number: &str, unit: &str) -> InvalidQuantity {
    if unit == "m" {
        return not_a_size(text, &format!("m means thousandths; write {number}Mi or {number}M"));
    }
    let letter = match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" | "ki" | "kib" => "k",
        "m" | "mb" | "mi" | "mib" => "M",
        "g" | "gb" | "gi" | "gib" => "G",
        "t" | "tb" | "ti" | "tib" => "T",
        "b" => return not_a_size(text, &format!("write {number}")),
        _ => {
            return not_a_size(
                text,
                "write bytes, or a number with Ki, Mi, Gi, Ti, k, M, G or T; for example 128Mi",
            );
        }
    };
    not_a_size(text, &format!("write {number}{letter} or {number}{}i", letter.to_ascii_uppercase()))
}

text_or_integer!(Size, u64, "a size such as 128Mi", |number| number.to_string().parse());
