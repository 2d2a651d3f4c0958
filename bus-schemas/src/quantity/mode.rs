//! File permission bits: `"0644"`.

use std::fmt;
use std::str::FromStr;

use super::{InvalidQuantity, text_or_integer};

/// Permission bits of a file, at most `0o7777`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(u32);

impl Mode {
    /// From bits; higher ones than `0o7777` are cut off.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Mode {
        Mode(bits & 0o7777)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether it carries set-user-id, set-group-id or the sticky bit.
    #[must_use]
    pub const fn has_special_bits(self) -> bool {
        self.0 & 0o7000 != 0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04o}", self.0))
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mode {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Mode, InvalidQuantity> {
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(bits) if octal => Ok(Mode(bits)),
            Ok(_) | Err(_) => Err(InvalidQuantity::form(format!(
                "{text:?} is not a mode: write 3 or 4 octal digits as text, for example \"0644\""
            ))),
        }
    }
}

text_or_integer!(Mode, u32, "a mode such as \"0644\"", |number| Err(InvalidQuantity::form(format!(
    "a mode is text: write \"{number:04}\" (YAML reads {number:04} as a number)"
))));
