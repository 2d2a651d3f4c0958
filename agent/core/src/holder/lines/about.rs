//! What is written down beside a process's log: how long it is kept, and when each incarnation began.
//!
//! A file of lines, `keep SECONDS` and `begins TIME UID INCARNATION`, the oldest beginning first. The times are those
//! of the log's own lines, so a beginning cuts the log in two. Reading never fails: lines that are none are passed over.
//! A clock that is set back makes the cuts wrong by as much; nothing else depends on them.

use std::fmt::Write as _;

use ostler_schemas::Uid;
use ostler_schemas::v1::log_line::{LogStream, Source, parse, push, stamp};

/// Beginnings that are remembered: a process that crashes in a loop has many, and its log only holds the last.
const BEGINNINGS: usize = 64;

/// A beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// Of which process.
    pub uid: Uid,
    /// Its how-manieth start.
    pub incarnation: u64,
}

/// What is known about a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Seconds that it is kept after the process is gone.
    pub keep_s: Option<u64>,
    /// The oldest first.
    pub beginnings: Vec<Beginning>,
}

/// A stretch of a log: lines from the first moment on, before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first moment, in microseconds since 1970.
    pub from_us: u64,
    /// The first moment after it.
    pub to_us: u64,
}

impl Window {
    /// Everything.
    pub const ALL: Self = Self { from_us: 0, to_us: u64::MAX };

    /// What lies in both.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self { from_us: self.from_us.max(other.from_us), to_us: self.to_us.min(other.to_us) }
    }

    /// Whether a moment lies in it.
    #[must_use]
    pub const fn has(self, at_us: u64) -> bool {
        self.from_us <= at_us && at_us < self.to_us
    }
}

impl About {
    /// Reads the file.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut about = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["keep", seconds] => about.keep_s = seconds.parse().ok().or(about.keep_s),
                ["begins", at, uid, incarnation] => {
                    if let (Some(at_us), Ok(uid), Ok(incarnation)) =
                        (moment(at), uid.parse(), incarnation.parse())
                    {
                        about.beginnings.push(Beginning { at_us, uid, incarnation });
                    }
                }
                _ => {}
            }
        }
        about.forget_old();
        about
    }

    /// The file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Some(seconds) = self.keep_s {
            // Writing to a String cannot fail.
            writeln!(text, "keep {seconds}").unwrap_or_default();
        }
        for Beginning { at_us, uid, incarnation } in &self.beginnings {
            let at = stamp(*at_us);
            writeln!(text, "begins {} {uid} {incarnation}", String::from_utf8_lossy(&at)).unwrap_or_default();
        }
        text
    }

    /// An incarnation begins.
    pub fn begin(&mut self, beginning: Beginning) {
        self.beginnings.push(beginning);
        self.forget_old();
    }

    fn forget_old(&mut self) {
        let old = self.beginnings.len().saturating_sub(BEGINNINGS);
        self.beginnings.drain(..old);
    }

    /// The lines of a process: another of the same name may have written to the same files before, or may since.
    #[must_use]
    pub fn of(&self, uid: Uid) -> Window {
        let Some(first) = self.beginnings.iter().position(|b| b.uid == uid) else { return Window::ALL };
        let after = self.beginnings.iter().skip(first).find(|b| b.uid != uid);
        Window {
            // What lies before the oldest beginning that is known was written by an older holder, or forgotten here.
            from_us: if first == 0 { 0 } else { self.beginnings.get(first).map_or(0, |b| b.at_us) },
            to_us: after.map_or(u64::MAX, |b| b.at_us),
        }
    }

    /// Whose a line of that moment is, as far as is known.
    #[must_use]
    pub fn whose(&self, at_us: u64) -> Option<Uid> {
        let before = self.beginnings.iter().take_while(|b| b.at_us <= at_us).last();
        before.or(self.beginnings.first()).map(|b| b.uid)
    }

    /// The lines of the incarnation before a process's last one.
    #[must_use]
    pub fn previous(&self, uid: Uid) -> Option<Window> {
        let mut mine = self.beginnings.iter().rev().filter(|b| b.uid == uid);
        let (last, before) = (mine.next()?, mine.next()?);
        Some(Window { from_us: before.at_us, to_us: last.at_us })
    }
}

/// A time in the form of log lines.
fn moment(text: &str) -> Option<u64> {
    let stamp = text.as_bytes().try_into().ok()?;
    let mut line = Vec::new();
    push(&mut line, stamp, (Source::Process(LogStream::Stdout), false), &[]);
    parse(&line).map(|line| line.at_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid(digit: char) -> Uid {
        digit.to_string().repeat(32).parse().unwrap()
    }

    fn about(beginnings: &[(u64, char, u64)]) -> About {
        let mut about = About { keep_s: Some(60), beginnings: Vec::new() };
        for (at_us, who, incarnation) in beginnings {
            about.begin(Beginning { at_us: *at_us, uid: uid(*who), incarnation: *incarnation });
        }
        about
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        let about = about(&[(5, 'a', 1), (9, 'a', 2)]);
        assert_eq!(About::parse(about.text().as_bytes()), about);
        let text = "keep x\nnonsense\nbegins 2026 a b\nkeep 7\n";
        assert_eq!(About::parse(text.as_bytes()), About { keep_s: Some(7), beginnings: Vec::new() });
    }

    #[test]
    fn beginnings_cut_the_log() {
        let about = about(&[(10, 'a', 1), (20, 'a', 2), (30, 'b', 1), (40, 'b', 2), (50, 'b', 3)]);
        assert_eq!(about.of(uid('a')), Window { from_us: 0, to_us: 30 });
        assert_eq!(about.of(uid('b')), Window { from_us: 30, to_us: u64::MAX });
        assert_eq!(about.of(uid('c')), Window::ALL);
        let whose: Vec<_> = [0, 29, 30, 99].into_iter().map(|at| about.whose(at)).collect();
        assert_eq!(whose, ['a', 'a', 'b', 'b'].map(|who| Some(uid(who))));
        assert_eq!(about.previous(uid('b')), Some(Window { from_us: 40, to_us: 50 }));
        assert_eq!(about.previous(uid('a')), Some(Window { from_us: 10, to_us: 20 }));
        assert_eq!(about.previous(uid('c')), None);
    }

    #[test]
    fn only_so_many_beginnings_are_kept() {
        let many: Vec<_> = (0..200).map(|n| (n, 'a', n)).collect();
        let about = about(&many);
        assert_eq!((about.beginnings.len(), about.beginnings[0].at_us), (BEGINNINGS, 200 - 64));
    }

    proptest! {
        #[test]
        fn garbage_is_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            // Whatever it was, it can be written again.
            std::hint::black_box(About::parse(&bytes).text());
        }
    }
}
