//! What follows a change of a managed file: its actions in order, each once, and then its probe.
//!
//! A [`Plan`] is made by the file's machine and is durable before the file changes on disk. How far it has come is its
//! [`Progress`], which is durable before and after each action. So of every change it is known, whatever crashed when:
//!
//! | found after a crash | what follows |
//! |---|---|
//! | planned | it is done |
//! | begun: restart of processes | those whose incarnation has not changed since are asked again, the others are done |
//! | begun: reload, or a unit | it is done again: reading a configuration twice, or starting twice, is safe |
//! | begun: a command | it is unknown, told as such and never repeated; nothing after it is done |
//! | done, failed, unknown | nothing |
//!
//! A change that comes while actions of the one before are still to be done takes their place. Equal actions of files
//! that change together are done once ([`choose`]). The first action that fails ends the list.
//!
//! Pure: who runs commands and asks processes is the shell's matter.

use std::collections::BTreeMap;

use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::{Action, ActionKind, Piece, Probe, Renewal, Selector, pieces};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::document::FileSpec;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{FileReport, FileState, Measure};
use ostler_schemas::{Name, Namespace, Sha256, Uid, Version};
use serde::{Deserialize, Serialize};

use crate::unit::Verdict;

#[cfg(test)]
mod tests;

/// Most characters of what is told of a failed action: some lines of output, and hundreds of them fit a report.
const MESSAGE_MAX: usize = 1_000;
/// Most lines of output that are told.
const LINES_MAX: usize = 20;
/// How long an action waits for other files of the node that are on their way and ask for the same: files of one
/// document are written within a moment, and one that hangs must not hold the others up.
pub const GATHER_MS: u64 = 2_000;

/// What is to follow one change of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Counts the changes of this file on this node.
    pub n: u64,
    /// The version that it changes to.
    pub version: Version,
    /// What that consists of.
    pub sha256: Sha256,
    /// Whether it is on disk, as far as the record knows.
    pub is_placed: bool,
    /// Namespace and name of the ConfigFile.
    pub named: (Namespace, Name),
    /// Where the file is, on the host.
    pub path: String,
    /// Who runs its commands where they do not say.
    pub owner: String,
    /// What is done, in order.
    #[serde(default)]
    pub actions: Vec<Action>,
    /// What is asked then.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// And for how long.
    #[serde(default)]
    pub watch_ms: u64,
}

impl Plan {
    /// Of a change to a version of a file that is at `path` on the host.
    #[must_use]
    pub fn of(spec: &FileSpec, (version, sha256): (Version, Sha256), path: &str) -> Self {
        Self {
            n: 0,
            version,
            sha256,
            is_placed: false,
            named: (spec.namespace.clone(), spec.name.clone()),
            path: path.to_owned(),
            owner: spec.owner.clone(),
            actions: spec.on_change.clone(),
            probe: spec.probe.clone(),
            watch_ms: spec.watch.as_millis(),
        }
    }
}

/// How far one action has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActState {
    /// Not begun.
    #[default]
    Planned,
    /// Begun, and its end is not known yet.
    Begun {
        /// Processes that it is done to, and which incarnation each was then.
        on: BTreeMap<Uid, u64>,
    },
    /// Done.
    Done,
    /// Failed, and why.
    Failed(String),
    /// Begun, and its end can never be known; why.
    Unknown(String),
}

impl ActState {
    /// Whether nothing more becomes of it.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            ActState::Planned | ActState::Begun { .. } => false,
            ActState::Done | ActState::Failed(_) | ActState::Unknown(_) => true,
        }
    }
}

/// How far a plan has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The change that it is of.
    pub n: u64,
    /// One for each action.
    pub states: Vec<ActState>,
    /// Unplanned ends of the processes that its actions name, before the change.
    #[serde(default)]
    pub since: BTreeMap<Uid, u64>,
    /// What these took before it.
    #[serde(default)]
    pub before: Option<Measure>,
    /// When something last became of it; of what is over, when that was.
    #[serde(default)]
    pub at: Timestamp,
}

/// Where a plan stands as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// So many actions are over, and this one is next or under way.
    At(usize),
    /// All are done.
    Done,
    /// One failed, or is unknown: nothing more is done.
    Failed(String),
}

impl Progress {
    /// Of a change that nothing was done for.
    #[must_use]
    pub fn new(plan: &Plan, at: Timestamp) -> Self {
        let states = vec![ActState::Planned; plan.actions.len()];
        Self { n: plan.n, states, at, ..Self::default() }
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self, plan: &Plan) -> Standing {
        if self.n != plan.n {
            return Standing::At(0);
        }
        for (index, action) in plan.actions.iter().enumerate() {
            match self.states.get(index).unwrap_or(&ActState::Planned) {
                ActState::Planned | ActState::Begun { .. } => return Standing::At(index),
                ActState::Failed(why) | ActState::Unknown(why) => {
                    return Standing::Failed(format!("{action} {why}"));
                }
                ActState::Done => {}
            }
        }
        Standing::Done
    }

    /// Notes what became of one action.
    pub fn set(&mut self, index: usize, state: ActState, at: Timestamp) {
        if let Some(slot) = self.states.get_mut(index) {
            *slot = state;
            self.at = at;
        }
    }

    /// What an agent that has just started makes of what one before it had begun: commands are unknown. Returns what
    /// is to be told.
    pub fn recover(&mut self, plan: &Plan, at: Timestamp) -> Option<String> {
        let Standing::At(index) = self.standing(plan) else { return None };
        let is_begun = matches!(self.states.get(index), Some(ActState::Begun { .. }));
        let action = plan.actions.get(index).filter(|_| is_begun && self.n == plan.n)?;
        match action.kind() {
            Some(ActionKind::Processes(..) | ActionKind::Unit(..)) => None,
            Some(ActionKind::Exec(_)) | None => {
                let why = "was begun, and the agent ended before it did: its outcome is unknown; it is not repeated";
                self.set(index, ActState::Unknown(why.to_owned()), at);
                Some(format!("{action} {why}"))
            }
        }
    }
}

/// An action with everything filled in. Equal ones are the same to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Of processes of a namespace.
    Processes(Renewal, Namespace, Selector),
    /// Of a unit of systemd.
    Unit(Renewal, String),
    /// A command.
    Exec {
        /// Its words, variables not filled in.
        words: Vec<String>,
        /// Who runs it, if that is said.
        user: Option<String>,
        /// Who owns the file, and runs it else.
        owner: String,
        /// How long it may take.
        timeout: Dur,
        /// The file and its version, where its words speak of them.
        of: Option<(Uid, Version)>,
    },
    /// It is of a form that this agent does not know.
    Unknown,
}

/// Variables in which commands of two files differ.
const OWN_VARIABLES: [&str; 5] =
    ["OSTLER_NAMESPACE", "OSTLER_NAME", "OSTLER_VERSION", "OSTLER_PATH", "OSTLER_UID"];

impl Plan {
    /// One of its actions, as it is to be done for the file with this uid.
    #[must_use]
    pub fn deed(&self, uid: Uid, action: &Action) -> Deed {
        match action.kind() {
            Some(ActionKind::Processes(how, selector)) => {
                Deed::Processes(how, self.named.0.clone(), selector.clone())
            }
            Some(ActionKind::Unit(how, unit)) => Deed::Unit(how, unit.to_owned()),
            Some(ActionKind::Exec(exec)) => {
                let names_own = |word: &String| {
                    let mut pieces = pieces(word).into_iter();
                    pieces.any(|p| matches!(p, Piece::Variable(name) if OWN_VARIABLES.contains(&name)))
                };
                let is_own = exec.command.iter().any(names_own);
                Deed::Exec {
                    words: exec.command.clone(),
                    user: exec.user.clone(),
                    owner: self.owner.clone(),
                    timeout: exec.timeout,
                    of: is_own.then_some((uid, self.version)),
                }
            }
            None => Deed::Unknown,
        }
    }

    /// The selectors of processes that it names.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.actions.iter().filter_map(Action::selector)
    }
}

/// What is still to be done for one file: in order, and whether the first of it may still wait for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The deeds.
    pub deeds: Vec<Deed>,
    /// Others that are on their way may be waited for.
    pub may_wait: bool,
}

/// What is to be done next, and for which files: a deed that is next for as many as possible, and not wanted again
/// later by one that has another thing to do first, unless they would wait for each other. `coming` is what files want
/// that are not on disk yet.
#[must_use]
pub fn choose(queues: &BTreeMap<Uid, Queue>, coming: &[Deed]) -> Option<(Deed, Vec<Uid>)> {
    let may_go = |queue: &&Queue| {
        let head = queue.deeds.first();
        !queue.may_wait || head.is_some_and(|deed| !coming.contains(deed))
    };
    let heads = || queues.values().filter(may_go).filter_map(|queue| queue.deeds.first());
    let is_wanted_later = |deed: &Deed| {
        queues.values().any(|queue| queue.deeds.first() != Some(deed) && queue.deeds.contains(deed))
    };
    let deed = heads().find(|deed| !is_wanted_later(deed)).or_else(|| heads().next())?;
    let of = queues.iter().filter(|(_, queue)| queue.deeds.first() == Some(deed));
    Some((deed.clone(), of.map(|(uid, _)| *uid).collect()))
}

/// What the answers of a probe come to: none before the first that counts.
pub type Probed = Option<Verdict>;

/// Puts what follows a change into the row of its file: a node has not got a version before its actions are done and
/// its probe succeeds.
pub fn overlay(report: &mut FileReport, plan: &Plan, progress: Option<&Progress>, probed: Probing<'_>) {
    let is_on_disk = match report.state {
        FileState::InSync | FileState::Drifted | FileState::Contested | FileState::Held => {
            plan.version == report.v
        }
        FileState::Failed
        | FileState::Offline
        | FileState::Applying
        | FileState::Pending
        | FileState::Released
        | FileState::Unknown => false,
    };
    if !is_on_disk || report.wanted != plan.version {
        return;
    }
    let fresh = Progress::new(plan, report.at);
    let progress = progress.filter(|progress| progress.n == plan.n).unwrap_or(&fresh);
    let told = match progress.standing(plan) {
        Standing::At(index) => {
            let what = plan.actions.get(index).map(ToString::to_string).unwrap_or_default();
            let text = format!("onChange {} of {}: {what}", index + 1, plan.actions.len());
            Some((FileState::Applying, None, text))
        }
        Standing::Failed(why) => Some((FileState::Failed, Some(Reason::ActionFailed), clip(&why))),
        Standing::Done => match probed {
            Probing::Over => None,
            Probing::Asked(Some(Verdict::Good)) => None,
            Probing::Asked(None) => {
                Some((FileState::Applying, None, "its probe has not been answered yet".to_owned()))
            }
            Probing::Asked(Some(Verdict::NotYet(why))) => {
                Some((FileState::Applying, None, clip(&format!("its probe does not succeed yet: {why}"))))
            }
            Probing::Asked(Some(Verdict::Bad(why))) => {
                let text = clip(&format!("its probe fails: {why}"));
                Some((FileState::Failed, Some(Reason::ProbeFailed), text))
            }
        },
    };
    if let Some((state, reason, message)) = told {
        report.state = state;
        report.reason = reason;
        report.message = Some(message);
        report.at = report.at.max(progress.at);
    }
}

/// How the probe of a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing<'a> {
    /// There is none, or it is asked no more.
    Over,
    /// It is asked, and this is what its answers come to.
    Asked(Option<&'a Verdict>),
}

/// What is told of output: its last lines.
#[must_use]
pub fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let kept = &lines[lines.len().saturating_sub(LINES_MAX)..];
    let clean: String = kept.join("\n").chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let chars = clean.chars().count();
    clean.chars().skip(chars.saturating_sub(MESSAGE_MAX)).collect()
}

/// Cut to what a report can carry.
#[must_use]
pub fn clip(text: &str) -> String {
    let most = MESSAGE_MAX + 200;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
