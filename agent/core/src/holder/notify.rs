//! What a process says of itself over its notification socket (sd_notify(3)): read here, byte by byte, with limits.
//!
//! One datagram is a list of lines `NAME=value`. What is not known, too long or not text is passed over: a process
//! must not be able to do harm with it, and programs written for other supervisors say things that mean nothing here
//! (`FDSTORE=1`, `MAINPID=…`).

use serde::{Deserialize, Serialize};

/// Bytes of one datagram; what is longer is passed over as a whole. The same as other supervisors take.
pub const DATAGRAM_MAX: usize = 4096;

/// Characters of a status that are kept: a line in a table.
pub const STATUS_MAX: usize = 256;

/// Lines of one datagram that are looked at.
const LINES_MAX: usize = 64;

/// The longest extension of a timeout that one word can ask for. Who needs more says it again.
pub const EXTEND_MAX_MS: u64 = 3_600_000;

/// What is listened for, given at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Listen {
    /// Whether it says `READY=1` when it is up, and is not watched before.
    pub ready: bool,
    /// How often it must say `WATCHDOG=1`; 0 = never.
    pub watchdog_ms: u64,
}

/// What an incarnation has said so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// It is up.
    pub ready: bool,
    /// It is about to end.
    pub stopping: bool,
    /// How it is, in its own words; cut and cleaned for display.
    pub status: String,
    /// It needs more time.
    pub extend: Option<Extend>,
}

/// More time for what is under way, counted from the moment it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extend {
    /// When it was asked for, in milliseconds since 1970.
    pub at: u64,
    /// How much.
    pub ms: u64,
}

/// One word of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// `READY=1`.
    Ready,
    /// `STOPPING=1`.
    Stopping,
    /// `STATUS=…`.
    Status(String),
    /// `WATCHDOG=1`.
    Alive,
    /// `WATCHDOG=trigger`: it knows itself that it is not well.
    Unwell,
    /// `WATCHDOG_USEC=…`: another interval from now on, in milliseconds.
    Interval(u64),
    /// `EXTEND_TIMEOUT_USEC=…`, in milliseconds.
    Extend(u64),
    /// `MAINPID=…`, which is not followed: the main process is the one that was started.
    MainPid,
}

/// The words of one datagram, in order. Never fails: what makes no sense is not among them.
#[must_use]
pub fn words(datagram: &[u8]) -> Vec<Word> {
    if datagram.len() > DATAGRAM_MAX {
        return Vec::new();
    }
    let lines = datagram.split(|byte| *byte == b'\n').take(LINES_MAX);
    lines.filter_map(|line| std::str::from_utf8(line).ok()).filter_map(word).collect()
}

fn word(line: &str) -> Option<Word> {
    let (name, value) = line.split_once('=')?;
    // Rounded up: a timeout must not become shorter than what was asked for.
    let millis = || value.parse::<u64>().ok().filter(|usec| *usec > 0).map(|usec| usec.div_ceil(1_000));
    match (name, value) {
        ("READY", "1") => Some(Word::Ready),
        ("STOPPING", "1") => Some(Word::Stopping),
        ("STATUS", text) => Some(Word::Status(clean(text))),
        ("WATCHDOG", "1") => Some(Word::Alive),
        ("WATCHDOG", "trigger") => Some(Word::Unwell),
        ("WATCHDOG_USEC", _) => millis().map(Word::Interval),
        ("EXTEND_TIMEOUT_USEC", _) => millis().map(|ms| Word::Extend(ms.min(EXTEND_MAX_MS))),
        ("MAINPID", _) => Some(Word::MainPid),
        _ => None,
    }
}

/// A status as it may be shown: no control characters, which could rule a terminal, and not longer than a line.
fn clean(text: &str) -> String {
    let shown = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(STATUS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_read_and_others_passed_over() {
        let said = words(b"READY=1\nSTATUS=42 users\nFDSTORE=1\nMAINPID=7\nX\n=\nWATCHDOG=1\nREADY=0\n");
        assert_eq!(said, [Word::Ready, Word::Status("42 users".to_owned()), Word::MainPid, Word::Alive]);
        assert_eq!(words(b"WATCHDOG=trigger"), [Word::Unwell]);
        assert_eq!(words(b"WATCHDOG_USEC=1500"), [Word::Interval(2)]);
        assert_eq!(words(b"EXTEND_TIMEOUT_USEC=99999999999999"), [Word::Extend(EXTEND_MAX_MS)]);
        for nothing in ["EXTEND_TIMEOUT_USEC=0", "EXTEND_TIMEOUT_USEC=-1", "WATCHDOG_USEC=x", "READY= 1", ""]
        {
            assert_eq!(words(nothing.as_bytes()), [], "{nothing:?}");
        }
    }

    #[test]
    fn a_status_cannot_rule_a_terminal_or_fill_a_report() {
        let long = format!("STATUS=a\x1b[2Jb{}", "x".repeat(4000));
        let said = words(long.as_bytes());
        let [Word::Status(status)] = said.as_slice() else { panic!("not a status: {said:?}") };
        assert!(status.starts_with("a [2Jb") && status.chars().count() == STATUS_MAX, "{status:?}");
        assert_eq!(words(&[b'S'; DATAGRAM_MAX + 1]), []);
    }

    proptest! {
        #[test]
        fn no_datagram_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            for word in words(&bytes) {
                if let Word::Status(status) = word {
                    prop_assert!(status.chars().count() <= STATUS_MAX);
                    prop_assert!(!status.chars().any(char::is_control));
                }
            }
        }
    }
}
