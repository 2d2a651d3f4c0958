//! What a person on the host has taken out of the agent's hands, and until when.
//!
//! * A *hold* on a process, a path or everything: the agent changes nothing held, neither because a document asks for
//!   it nor because something drifted or ended. It ends by itself, because a host that was forgotten in this state
//!   would look healthy and follow nothing.
//! * A *stop*: the process is ended and stays so until somebody starts it; that has no end of its own.
//!
//! Guarantees: what is held is a function of the record and the time alone; the wall clock decides, because a hold
//! must survive agents and boots. Not here: who may ask (the socket), and what a held machine does
//! ([`crate::unit`], [`mod@crate::file`]).

use ostler_schemas::Uid;
use ostler_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How long a hold lasts when nobody says: a working day. Whoever needs longer says so, and whoever forgot is not
/// surprised next week.
pub const USUAL_MS: u64 = 8 * 3_600_000;
/// The longest that can be asked for. What should stay for longer belongs into a manifest.
pub const LONGEST_MS: u64 = 30 * 24 * 3_600_000;
/// Most holds at once: far above what people type, and small in the ledger.
pub const HOLDS_MAX: usize = 4096;
/// Most characters of a reason: a line or two.
pub const REASON_MAX: usize = 500;

/// What is held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// Every process and every managed file.
    All,
    /// One process.
    Process(Uid),
    /// One path of a manifest, managed or not.
    Path(String),
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Left as it is.
    Hold,
    /// Ended, and left so.
    Stop,
}

/// Who asked, on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct By {
    /// The user id that the kernel told.
    pub uid: u32,
    /// Its name, where it has one.
    pub user: String,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.user.is_empty() {
            write!(f, "uid {}", self.uid)
        } else {
            write!(f, "{} (uid {})", self.user, self.uid)
        }
    }
}

/// One hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// What.
    pub target: Target,
    /// How.
    pub kind: Kind,
    /// What people call it.
    pub name: String,
    /// Why, in the words of whoever asked.
    pub reason: String,
    /// Who.
    pub by: By,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself; none = not before somebody says so.
    pub until: Option<Timestamp>,
}

impl Hold {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let verb = match (self.kind, &self.target) {
            (Kind::Stop, _) => "stopped on the host",
            (Kind::Hold, Target::All) => "everything is held on the host",
            (Kind::Hold, Target::Process(_) | Target::Path(_)) => "held on the host",
        };
        let until =
            self.until.map_or_else(|| ", until it is started there".to_owned(), |at| format!(" until {at}"));
        format!("{verb} by {}{until}: {}", self.by, self.reason)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

/// What a held process or file is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whether it is to be ended.
    pub stop: bool,
    /// By whom, until when and why.
    pub message: String,
}

/// Everything that is held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Holds(Vec<Hold>);

/// Why something cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// There are too many.
    #[error("{HOLDS_MAX} things are held already: use --all")]
    TooMany,
}

impl Holds {
    /// Every hold, by target.
    pub fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.0.iter()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a hold; one of the same kind on the same target is replaced.
    ///
    /// # Errors
    /// [`HoldError::TooMany`].
    pub fn set(&mut self, hold: Hold) -> Result<(), HoldError> {
        self.0.retain(|h| (&h.target, h.kind) != (&hold.target, hold.kind));
        if self.0.len() >= HOLDS_MAX {
            return Err(HoldError::TooMany);
        }
        let at = self.0.partition_point(|h| (&h.target, h.kind) < (&hold.target, hold.kind));
        self.0.insert(at, hold);
        Ok(())
    }

    /// Ends a hold; of everything for [`Target::All`]. What was stopped stays so.
    pub fn release(&mut self, target: &Target) -> Vec<Hold> {
        self.take(|h| h.kind == Kind::Hold && (*target == Target::All || h.target == *target))
    }

    /// Lets a stopped process start again.
    pub fn start(&mut self, uid: Uid) -> Option<Hold> {
        self.take(|h| h.kind == Kind::Stop && h.target == Target::Process(uid)).pop()
    }

    /// Takes out what has ended by itself.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Hold> {
        self.take(|h| h.is_over(now))
    }

    /// Forgets processes that are gone: their names may come again, they do not.
    pub fn forget(&mut self, uid: Uid) -> Vec<Hold> {
        self.take(|h| h.target == Target::Process(uid))
    }

    fn take(&mut self, is_out: impl Fn(&Hold) -> bool) -> Vec<Hold> {
        let (out, kept) = std::mem::take(&mut self.0).into_iter().partition(is_out);
        self.0 = kept;
        out
    }

    /// When the next one ends by itself.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        self.0.iter().filter_map(|h| h.until).min()
    }

    fn on(&self, target: &Target) -> impl Iterator<Item = &Hold> {
        self.0.iter().filter(move |h| h.target == *target || h.target == Target::All)
    }

    /// Whether and how a process is held. That it is stopped says more than that it is held besides.
    #[must_use]
    pub fn process(&self, uid: Uid) -> Option<Held> {
        let found = self.on(&Target::Process(uid)).max_by_key(|h| (h.kind, h.target != Target::All, h.until));
        let hold = found?;
        Some(Held { stop: hold.kind == Kind::Stop, message: hold.text() })
    }

    /// Whether and how a path is held.
    #[must_use]
    pub fn path(&self, path: &str) -> Option<Held> {
        let found =
            self.on(&Target::Path(path.to_owned())).max_by_key(|h| (h.target != Target::All, h.until));
        Some(Held { stop: false, message: found?.text() })
    }

    /// For the condition of the node; none if nothing is held.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let first = self.0.first()?;
        let more = self.0.len() - 1;
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        Some(format!("{}: {}{more}", first.name, first.text()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hold(target: Target, kind: Kind, until: Option<u64>) -> Hold {
        let by = By { uid: 1000, user: "anna".to_owned() };
        let (name, reason) = ("web-1".to_owned(), "disk".to_owned());
        Hold { target, kind, name, reason, by, since: Timestamp(1), until: until.map(Timestamp) }
    }

    fn uid(n: u8) -> Uid {
        Uid::from_bytes([n; 16])
    }

    #[test]
    fn a_hold_ends_by_itself_and_a_stop_does_not() {
        let mut holds = Holds::default();
        holds.set(hold(Target::Process(uid(1)), Kind::Hold, Some(100))).expect("room");
        holds.set(hold(Target::Process(uid(1)), Kind::Stop, None)).expect("room");
        assert_eq!(holds.next_end(), Some(Timestamp(100)));
        assert!(holds.expire(Timestamp(99)).is_empty());
        assert!(holds.process(uid(1)).expect("held").stop, "that it is stopped says more");
        assert_eq!(holds.expire(Timestamp(100)).len(), 1);
        assert!(holds.process(uid(1)).expect("stopped").stop);
        assert!(holds.release(&Target::Process(uid(1))).is_empty(), "a stop is no hold");
        assert!(holds.start(uid(1)).is_some());
        assert!(holds.process(uid(1)).is_none() && holds.is_empty());
    }

    #[test]
    fn all_is_everything_and_its_release_too() {
        let mut holds = Holds::default();
        holds.set(hold(Target::All, Kind::Hold, Some(50))).expect("room");
        holds.set(hold(Target::Path("/etc/a".to_owned()), Kind::Hold, Some(70))).expect("room");
        assert!(holds.process(uid(9)).is_some() && holds.path("/etc/other").is_some());
        assert!(holds.path("/etc/a").expect("held").message.contains("until"));
        assert_eq!(holds.release(&Target::Path("/etc/a".to_owned())).len(), 1);
        assert!(holds.path("/etc/a").is_some(), "everything is still held");
        assert_eq!(holds.release(&Target::All).len(), 1);
        assert!(holds.path("/etc/a").is_none());
    }

    #[test]
    fn the_text_says_who_until_when_and_why() {
        let text = hold(Target::Process(uid(1)), Kind::Stop, None).text();
        assert_eq!(text, "stopped on the host by anna (uid 1000), until it is started there: disk");
    }

    proptest! {
        /// Whatever is set and taken back, nothing is held past its end, and each (target, kind) is there once.
        #[test]
        fn nothing_outlives_its_end(acts in proptest::collection::vec((0u8..4, 0u8..5, 1u64..100), 0..60)) {
            let mut holds = Holds::default();
            let mut now = 0;
            for (act, n, t) in acts {
                let target = if n == 0 { Target::All } else { Target::Process(uid(n)) };
                match act {
                    0 => drop(holds.set(hold(target, Kind::Hold, Some(now + t)))),
                    1 => drop(holds.set(hold(target, Kind::Stop, None))),
                    2 => drop(holds.release(&target)),
                    _ => { now += t; holds.expire(Timestamp(now)); }
                }
                let keys: std::collections::BTreeSet<_> =
                    holds.iter().map(|h| (h.target.clone(), h.kind)).collect();
                prop_assert_eq!(keys.len(), holds.iter().count());
            }
            holds.expire(Timestamp(now + 1_000));
            prop_assert!(holds.iter().all(|h| h.kind == Kind::Stop));
        }
    }
}
