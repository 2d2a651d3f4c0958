//! Resource limits of processes: `65536`, `1024:524288`, `infinity`.

use std::fmt;
use std::str::FromStr;

use super::{InvalidQuantity, always_text};

/// A soft and a hard limit; the soft one is never above the hard one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rlimit {
    soft: u64,
    hard: u64,
}

impl Rlimit {
    /// No limit, as the kernel writes it.
    pub const INFINITY: u64 = u64::MAX;

    /// From both limits; `None` if the soft one is above the hard one.
    #[must_use]
    pub const fn new(soft: u64, hard: u64) -> Option<Rlimit> {
        if soft <= hard { Some(Rlimit { soft, hard }) } else { None }
    }

    /// The limit that holds.
    #[must_use]
    pub const fn soft(self) -> u64 {
        self.soft
    }

    /// The limit to which a process may raise its own.
    #[must_use]
    pub const fn hard(self) -> u64 {
        self.hard
    }

    /// The default of `limitNOFILE`, as systemd's: programs that use `select` stay safe, others may raise it.
    pub const NOFILE: Rlimit = Rlimit { soft: 1_024, hard: 524_288 };
}

fn write_one(limit: u64) -> String {
    if limit == Rlimit::INFINITY { "infinity".to_owned() } else { limit.to_string() }
}

fn read_one(text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(Rlimit::INFINITY);
    }
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.soft == self.hard {
            f.pad(&write_one(self.soft))
        } else {
            f.pad(&format!("{}:{}", write_one(self.soft), write_one(self.hard)))
        }
    }
}

impl fmt::Debug for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Rlimit {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Rlimit, InvalidQuantity> {
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        let (Some(soft), Some(hard)) = (read_one(soft), read_one(hard)) else {
            return Err(InvalidQuantity::form(format!(
                "{text:?} is not a limit: write a whole number, soft:hard, or infinity"
            )));
        };
        Rlimit::new(soft, hard).ok_or_else(|| {
            InvalidQuantity::range(format!("the soft limit must not be above the hard one, found {text}"))
        })
    }
}

always_text!(Rlimit);
