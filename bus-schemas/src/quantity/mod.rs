//! The values of manifests: durations, sizes, CPU, shares, modes, signals and resource limits.
//!
//! Every type is parsed once, from the text a user wrote, and refuses with a message that says what was found and
//! what to write instead. `Display` is the canonical form and `FromStr` reads it back to the same value.
//!
//! In human-readable formats (JSON) a value is text as in manifests; in MessagePack durations are milliseconds,
//! sizes bytes, CPU millicores and modes their bits, each an integer. The two must not be mixed: a type of this
//! module must not stand inside `#[serde(flatten)]` or an untagged enum, which forget the format they read.

mod cpu;
mod duration;
mod increase;
mod mode;
mod rlimit;
mod share;
mod signal;
mod size;
mod window;

pub use cpu::Cpu;
pub use duration::Dur;
pub use increase::Increase;
pub use mode::Mode;
pub use rlimit::Rlimit;
pub use share::CountOrPercent;
pub use signal::Signal;
pub use size::Size;
pub use window::Window;

/// Why a text is not the value it should be. `Display` is a message fit for a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// The text does not have the form of the type.
    #[error("{0}")]
    Form(String),
    /// The form is right, the value lies outside what is allowed.
    #[error("{0}")]
    Range(String),
}

impl InvalidQuantity {
    fn form(message: impl Into<String>) -> Self {
        InvalidQuantity::Form(message.into())
    }

    fn range(message: impl Into<String>) -> Self {
        InvalidQuantity::Range(message.into())
    }

    /// Whether the value is well formed and only too small or too large.
    #[must_use]
    pub const fn is_out_of_range(&self) -> bool {
        match self {
            InvalidQuantity::Form(_) => false,
            InvalidQuantity::Range(_) => true,
        }
    }
}

/// A decimal number as written: `digits` without the point, and how many of them follow it.
struct Decimal {
    digits: u128,
    scale: u32,
}

impl Decimal {
    /// Most digits that are read: enough for every value of this module, few enough to never overflow `u128`.
    const MAX_DIGITS: usize = 24;

    fn parse(text: &str) -> Option<Decimal> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let pointless = !text.contains('.');
        let digits_only = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || (fraction.is_empty() && !pointless)
            || !digits_only(whole)
            || !digits_only(fraction)
        {
            return None;
        }
        if whole.len() + fraction.len() > Self::MAX_DIGITS {
            return None;
        }
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some(Decimal { digits, scale: u32::try_from(fraction.len()).ok()? })
    }

    /// The number times `factor`, if that is whole.
    fn times(&self, factor: u64) -> Option<u128> {
        let product = self.digits.checked_mul(u128::from(factor))?;
        let divisor = 10u128.checked_pow(self.scale)?;
        (product % divisor == 0).then_some(product / divisor)
    }
}

/// Serde by two forms: text for people, an integer for machines.
macro_rules! text_or_integer {
    ($name:ident, $int:ty, $what:literal, |$human_int:ident| $from_human_int:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, $human_int: u64) -> Result<$name, E> {
                        let read: Result<$name, $crate::quantity::InvalidQuantity> = $from_human_int;
                        read.map_err(E::custom)
                    }
                    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                if d.is_human_readable() {
                    d.deserialize_any(Text)
                } else {
                    <$int>::deserialize(d).map($name)
                }
            }
        }
    };
}
use text_or_integer;

/// Serde as text in every format.
macro_rules! always_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
use always_text;

#[cfg(test)]
mod tests;
