//! What follows changes of files: each command of a version is run once on each node, or it is known that nobody knows.
//!
//! Commands below `/act/` are looked at; their second word is the version that they are run for, as
//! `$(OSTLER_VERSION)` gives it.

use std::collections::BTreeMap;

use ostler_agent::sim::{SimEvent, SimHost};
use ostler_agent_core::unit::HowEnded;
use ostler_schemas::{NodeName, Uid};

use super::{Found, Rule};

/// Where the commands are that this checker looks at.
pub const ACTS: &str = "/act/";

/// One command of one file on one node.
type Which = (NodeName, Uid, String);

/// What was run for changes of files.
#[derive(Default)]
pub struct ActsCheck {
    seen: BTreeMap<NodeName, usize>,
    /// The version for which each was run last, and whether it was seen to end with success.
    last: BTreeMap<Which, (String, bool)>,
    /// Which each run is that has not ended.
    under_way: BTreeMap<(NodeName, u64), Which>,
    /// How many were run.
    pub runs: u64,
}

impl ActsCheck {
    /// Takes in what happened on a host.
    pub fn take(&mut self, node: &NodeName, host: &SimHost, now: u64, found: &mut Vec<Found>) {
        let seen = self.seen.entry(node.clone()).or_default();
        let news = host.history_since(*seen);
        *seen += news.len();
        for record in &news {
            match &record.event {
                SimEvent::RunBegan(run, argv) => {
                    let [command, version, ..] = argv.as_slice() else { continue };
                    if !command.starts_with(ACTS) {
                        continue;
                    }
                    self.runs += 1;
                    let which = (node.clone(), record.key.uid, command.clone());
                    self.under_way.insert((node.clone(), *run), which.clone());
                    let before = self.last.insert(which, (version.clone(), false));
                    if before.is_some_and(|(last, _)| last == *version) {
                        let detail = format!("{node}: {command} was run twice for version {version}");
                        found.push(Found { at_ms: now, rule: Rule::ActedTwice, detail });
                    }
                }
                SimEvent::RunEnded(run, how) => {
                    let which = self.under_way.remove(&(node.clone(), *run));
                    if let Some(last) = which.and_then(|which| self.last.get_mut(&which)) {
                        last.1 = *how == HowEnded::Code(0);
                    }
                }
                SimEvent::Started(_)
                | SimEvent::Ended(_)
                | SimEvent::Asked(..)
                | SimEvent::Signalled(_)
                | SimEvent::SaidReady
                | SimEvent::Answers(..)
                | SimEvent::PowerLost => {}
            }
        }
    }

    /// The version for which a command was last run on a node, and whether it succeeded.
    #[must_use]
    pub fn last(&self, node: &NodeName, command: &str) -> Option<(&str, bool)> {
        let mut all = self.last.iter();
        let found = all.find(|((n, _, c), _)| n == node && c == command);
        found.map(|(_, (version, success))| (version.as_str(), *success))
    }
}
