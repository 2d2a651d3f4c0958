//! [`crate::layout`]'s lists, compiled for matching. The model enforces what the servers are told, nothing of its own.

use std::time::Duration;

use super::pattern::{Pattern, fill};
use crate::layout::{self, Account, CROSSINGS, Flow, Identity};

/// What a connection may publish and subscribe to.
#[derive(Debug, Clone)]
pub(super) struct Permissions {
    publish: Vec<Pattern>,
    denied: Vec<Pattern>,
    subscribe: Vec<Pattern>,
}

impl Permissions {
    pub(super) fn of(identity: &Identity) -> Self {
        let lists = layout::permissions(identity);
        let compile = |list: Vec<String>| list.iter().map(|t| Pattern::new(t)).collect();
        Self {
            publish: compile(lists.publish_allow),
            denied: compile(lists.publish_deny),
            subscribe: compile(lists.subscribe_allow),
        }
    }

    pub(super) fn may_publish(&self, subject: &str) -> bool {
        let listed = |list: &[Pattern]| list.iter().any(|p| p.matches(subject));
        listed(&self.publish) && !listed(&self.denied)
    }

    pub(super) fn may_subscribe(&self, subject: &Pattern) -> bool {
        self.subscribe.iter().any(|p| p.covers(subject))
    }
}

/// How many replies pass back through an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// The first.
    Single,
    /// All.
    Streamed,
}

/// A service of CP under the name that another account knows it by.
#[derive(Debug, Clone)]
pub(super) struct Import {
    local: Pattern,
    /// The subject in CP, its wildcards in the same order.
    target: Pattern,
    /// The server tells CP who asks.
    pub(super) share: bool,
    pub(super) response: Response,
    /// How long the way back stays open after the request, or after the last answer.
    pub(super) threshold: Duration,
}

impl Import {
    /// The subject in CP that `subject` stands for.
    pub(super) fn translate(&self, subject: &str) -> Option<String> {
        self.local.captures(subject).map(|captured| fill(&self.target, &captured))
    }
}

/// The services that an account imports from CP.
pub(super) fn imports(account: Account) -> Vec<Import> {
    let of_account = CROSSINGS.iter().filter(|c| c.to == account);
    of_account
        .filter_map(|crossing| match crossing.flow {
            Flow::Service { threshold_ms, streamed, share } => Some(Import {
                local: Pattern::new(crossing.local.unwrap_or(crossing.subject)),
                target: Pattern::new(crossing.subject),
                share,
                response: if streamed { Response::Streamed } else { Response::Single },
                threshold: Duration::from_millis(threshold_ms),
            }),
            Flow::Stream => None,
        })
        .collect()
}

/// The subjects of CP that are delivered to subscribers in other accounts as they are.
pub(super) fn stream_exports() -> Vec<(Account, Pattern)> {
    let streams = CROSSINGS.iter().filter(|c| c.flow == Flow::Stream);
    streams.map(|c| (c.to, Pattern::new(c.subject))).collect()
}
