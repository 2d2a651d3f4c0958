//! What is known of one incarnation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ostler_agent_core::unit::HowEnded;
use ostler_schemas::quantity::Signal;

/// A hook of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hook {
    /// `execStartPre`, the one with this number.
    Pre(u64),
    /// `execStop`.
    Stop,
    /// `execStopPost`.
    Post,
}

impl Hook {
    /// The hook that is run with these words, if it is one.
    pub(super) fn of(words: &[String]) -> Option<Self> {
        let which = words.first()?.strip_prefix("/hook/")?.rsplit('/').next()?;
        match which {
            "stop" => Some(Hook::Stop),
            "post" => Some(Hook::Post),
            _ => which.strip_prefix("pre")?.parse().ok().map(Hook::Pre),
        }
    }

    /// Whether its process must live, or must not. One that is asked to end may do so meanwhile.
    pub(super) const fn needs_life(&self) -> Option<bool> {
        match self {
            Hook::Pre(_) | Hook::Post => Some(false),
            Hook::Stop => Some(true),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hook::Pre(n) => write!(f, "execStartPre {n}"),
            Hook::Stop => f.write_str("execStop"),
            Hook::Post => f.write_str("execStopPost"),
        }
    }
}

/// One run of a hook.
#[derive(Debug, Clone)]
pub(super) struct HookRun {
    pub(super) run: u64,
    pub(super) hook: Hook,
    pub(super) how: Option<HowEnded>,
    /// Which lives of agent and holder it was run in, and ended in.
    pub(super) lives: (u64, u64),
}

impl HookRun {
    /// Whether it has ended, and whoever asked for it has heard how.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.how, Some(HowEnded::Code(_) | HowEnded::Signal(_)))
    }
}

/// That it was asked to end.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Before this moment it must not be killed.
    pub(super) kill_at: u64,
    /// Whether for something that counts as a failure of its own.
    pub(super) own_fault: bool,
}

/// One incarnation.
#[derive(Debug, Clone, Default)]
pub(super) struct Incarnation {
    pub(super) name: String,
    pub(super) rev: u64,
    pub(super) started: Option<u64>,
    pub(super) asked: Option<Asked>,
    pub(super) ended: Option<(u64, HowEnded)>,
    pub(super) said_ready: bool,
    /// What its ports answered last, and since when.
    pub(super) answers: BTreeMap<String, (bool, u64)>,
    pub(super) answered_well: BTreeSet<String>,
    pub(super) hooks: Vec<HookRun>,
    pub(super) power_lost: bool,
}

impl Incarnation {
    pub(super) fn is_alive(&self) -> bool {
        self.started.is_some() && self.ended.is_none() && !self.power_lost
    }

    /// Whether the last run of a hook succeeded; none if it was never run to its end.
    pub(super) fn succeeded(&self, hook: &Hook) -> Option<bool> {
        let last = self.hooks.iter().rev().find(|h| h.hook == *hook && h.is_over())?;
        Some(last.how == Some(HowEnded::Code(0)))
    }
}

/// How a stop was asked for.
pub(super) type How = (Option<Signal>, u64);
