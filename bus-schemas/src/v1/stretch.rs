//! Which bytes of which log a message of shipped output bears, in header `Ostler-Stretch`: `UID ERA FROM TO`.
//!
//! Positions count the bytes of all files that a log ever had, so they only rise; another era begins when they do not,
//! because somebody took the files away. Shipping is at least once: what comes again, because an acknowledgement was
//! lost or an agent died before it wrote down how far it was, says by its stretch that it was there already. Whoever
//! reads tells by [`Seen`] what is new, and how much is missing.

use std::fmt;
use std::str::FromStr;

use crate::Uid;

/// A stretch of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// The process.
    pub uid: Uid,
    /// Which beginning of the log its positions count from.
    pub era: u64,
    /// The first byte. Bytes of the files that are not output (of other processes of this name, the files' own first
    /// lines) lie within stretches and are not sent.
    pub from: u64,
    /// The byte after the last.
    pub to: u64,
}

/// A header that is no stretch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no stretch of a log: four words are wanted, UID ERA FROM TO")]
pub struct InvalidStretch {
    text: String,
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.uid, self.era, self.from, self.to)
    }
}

impl FromStr for Stretch {
    type Err = InvalidStretch;

    fn from_str(text: &str) -> Result<Self, InvalidStretch> {
        let parse = || {
            let words: Vec<&str> = text.split(' ').collect();
            let [uid, era, from, to] = words.as_slice() else { return None };
            let number = |word: &str| word.parse::<u64>().ok();
            let (from, to) = (number(from)?, number(to)?);
            let stretch = Self { uid: uid.parse().ok()?, era: number(era)?, from, to };
            (from <= to).then_some(stretch)
        };
        parse().ok_or_else(|| InvalidStretch { text: text.chars().take(100).collect() })
    }
}

/// How a stretch follows on what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// It is next.
    Next,
    /// It is next, and so many bytes before it are not there.
    After(u64),
    /// It was there already.
    Again,
}

/// How far one log was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    last: Option<(Uid, u64, u64)>,
}

impl Seen {
    /// Takes a stretch in.
    pub fn take(&mut self, stretch: &Stretch) -> Follows {
        let Stretch { uid, era, from, to } = *stretch;
        let before = self.last.filter(|(u, e, _)| (*u, *e) == (uid, era));
        let follows = match before {
            Some((_, _, end)) if to <= end => return Follows::Again,
            Some((_, _, end)) if from > end => Follows::After(from - end),
            Some(_) | None => Follows::Next,
        };
        self.last = Some((uid, era, to));
        follows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stretch(era: u64, from: u64, to: u64) -> Stretch {
        Stretch { uid: Uid::from_bytes([7; 16]), era, from, to }
    }

    #[test]
    fn what_comes_again_is_told_from_what_is_missing() {
        let mut seen = Seen::default();
        assert_eq!(
            seen.take(&stretch(0, 500, 900)),
            Follows::Next,
            "older ones may have gone from the stream"
        );
        assert_eq!(seen.take(&stretch(0, 500, 900)), Follows::Again);
        assert_eq!(seen.take(&stretch(0, 900, 1_000)), Follows::Next);
        assert_eq!(seen.take(&stretch(0, 1_200, 1_300)), Follows::After(200));
        assert_eq!(seen.take(&stretch(1, 0, 10)), Follows::Next, "the files were taken away");
        assert_eq!(seen.take(&stretch(1, 0, 10)), Follows::Again);
    }

    proptest! {
        #[test]
        fn headers_read_back(era in any::<u64>(), from in 0u64..1 << 60, len in 0u64..1 << 60) {
            let stretch = stretch(era, from, from + len);
            prop_assert_eq!(stretch.to_string().parse(), Ok(stretch));
        }

        #[test]
        fn garbage_is_refused(text in "[ 0-9a-f]{0,80}") {
            if let Ok(stretch) = text.parse::<Stretch>() {
                prop_assert_eq!(stretch.to_string().parse(), Ok(stretch));
            }
        }
    }
}
