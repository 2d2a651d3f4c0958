//! The life of one managed file, as a state machine.
//!
//! `ManagedFile::on(now, event)` is the only way in. It compares what is asked with what was last observed and with
//! what the ledger remembers, and returns steps for the shell to carry out in order, stopping at the first that
//! fails. After any steps it wants to observe again, so it always judges what is really there.
//!
//! Guarantees:
//! * the path holds one complete version, with its owner and mode, at every instant: content is written beside it,
//!   synced, then renamed over it; a crash at any step leaves the old or the new version and is finished later;
//! * a file that Ostler did not write is kept aside, durably, before it is replaced;
//! * what is no regular file, lies in a forbidden place or belongs to another ConfigFile is left alone and reported;
//! * a fight over the file is reported and slows down instead of heating up;
//! * a version that its validator refuses is never put in place, and that is remembered ([`validate`]).
//!
//! A version may be several files of one folder: [`parts`] says what holds then.
//!
//! What follows a change is planned before the change ([`crate::acts::Plan`]), so that no crash can lose it.
//!
//! Not here: rendering (what is asked comes rendered), what a validator says (the shell asks it), and carrying out what
//! follows ([`crate::acts`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ostler_schemas::quantity::Mode;
use ostler_schemas::spec::Unlisted;
use ostler_schemas::time::{Mono, Now, Timestamp};
use ostler_schemas::v1::document::{FileGoal, FileSpec};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{DriftReport, FileReport, FileState, OrphanReport};
use ostler_schemas::{Name, Namespace, Sha256, Uid, Version};
use serde::{Deserialize, Serialize};

use crate::acts::Plan;
use crate::holds::Held;

mod change;
mod decide;
mod drift;
pub mod evidence;
pub mod model;
mod parts;
mod paths;
mod stamp;
mod steps;
#[cfg(test)]
mod tests;
mod validate;
mod write;

pub use evidence::{Difference, Hand};
pub use parts::{Part, Sight, digest};
pub use paths::{Rules, in_folder, parent, temp_path};
pub use stamp::{SURE_AFTER_MS, Stamp};
pub use steps::{Content, Step, StepError, StepErrorKind};
pub use validate::{CANDIDATE_FOLDER, Candidate, Rejected};

pub use drift::{CONTEST_END_MS, CONTEST_REPAIRS, CONTEST_WINDOW_MS, CONTESTED_PACE_MS};

/// First wait after a failed write; doubles.
const RETRY_FIRST_MS: u64 = 2_000;
/// Longest wait after failed writes: a full disk is looked at again within a minute.
const RETRY_MAX_MS: u64 = 60_000;

/// What the document asks for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFile {
    /// Version of its content.
    pub version: Version,
    /// Hold or release.
    pub goal: FileGoal,
    /// Hash of its spec.
    pub hash: Sha256,
    /// Its spec; none until it was fetched.
    pub spec: Option<Arc<FileSpec>>,
    /// Owner and group as numbers, or why they cannot be had; none until they were looked up.
    pub owner: Option<Result<Owner, String>>,
    /// What its files are to be, or why that cannot be told; none until they are rendered.
    pub parts: Option<Result<Vec<Part>, String>>,
    /// Whether their contents are at hand.
    pub content: bool,
    /// Whether a secret is in it: then neither the contents nor their hashes are told to anybody.
    pub is_secret: bool,
    /// Another ConfigFile that keeps the path, if there is one.
    pub conflict: Option<String>,
}

/// Owner and group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What must survive the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Uid of the ConfigFile.
    pub uid: Uid,
    /// Its namespace and name, once known.
    pub named: Option<(Namespace, Name)>,
    /// The path on the host, once known.
    pub path: String,
    /// What is written, or was about to be.
    pub written: Option<Written>,
    /// What was there before Ostler.
    pub original: Original,
    /// Likewise of several files, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub originals: BTreeMap<String, Original>,
    /// When it was put back, within the window.
    pub repairs: Vec<Timestamp>,
    /// How often it was ever put back.
    pub repairs_total: u64,
    /// Since when it is contested.
    pub contested_since: Option<Timestamp>,
    /// The last drift.
    pub last_drift: Option<DriftReport>,
    /// How often it was ever found changed.
    #[serde(default)]
    pub drifts_total: u64,
    /// Set when it was released.
    pub released: bool,
    /// The last change that something follows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Box<Plan>>,
    /// How many changes there were that anything followed from.
    #[serde(default)]
    pub changes: u64,
    /// What its validator refused last; none once something else was accepted or is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Box<Rejected>>,
}

impl FileRecord {
    /// Of a file that was never touched.
    #[must_use]
    pub fn new(uid: Uid) -> Self {
        Self {
            uid,
            named: None,
            path: String::new(),
            written: None,
            original: Original::Unseen,
            originals: BTreeMap::new(),
            repairs: Vec::new(),
            repairs_total: 0,
            contested_since: None,
            last_drift: None,
            drifts_total: 0,
            released: false,
            change: None,
            changes: 0,
            rejected: None,
        }
    }

    /// What was there before, of one of its files.
    #[must_use]
    pub fn original_of(&self, name: &str) -> &Original {
        match name {
            "" => &self.original,
            name => self.originals.get(name).unwrap_or(&Original::Unseen),
        }
    }

    /// Notes what was there before.
    fn set_original(&mut self, name: &str, original: Original) {
        match name {
            "" => self.original = original,
            name => {
                self.originals.insert(name.to_owned(), original);
            }
        }
    }

    /// Where one of its files is.
    #[must_use]
    pub fn path_of(&self, name: &str) -> String {
        part_path(&self.path, name)
    }

    /// Every file that was ever written or taken over, by name.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let written = self.written.iter().flat_map(Written::all).map(|part| part.name);
        let alone = (self.original != Original::Unseen).then(String::new);
        written.chain(alone).chain(self.originals.keys().cloned()).collect()
    }
}

/// The path of one file of a folder, or of the only one.
#[must_use]
pub fn part_path(path: &str, name: &str) -> String {
    if name.is_empty() { path.to_owned() } else { format!("{path}/{name}") }
}

/// A version as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The version.
    pub version: Version,
    /// Its content.
    pub sha256: Sha256,
    /// Its mode.
    pub mode: Mode,
    /// Its owner.
    pub owner: Owner,
    /// Its files, where it is several; then the hash above names them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// What was at the path before Ostler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Original {
    /// Not looked at yet.
    Unseen,
    /// Nothing.
    Absent,
    /// A file, kept at this place.
    Kept {
        /// Where.
        at: String,
        /// Its mode.
        mode: Mode,
        /// Its owner.
        owner: Owner,
    },
}

/// What lies at the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Missing,
    /// A regular file.
    Regular {
        /// Hash of its content.
        sha256: Sha256,
        /// Its mode.
        mode: Mode,
        /// Its owner.
        owner: Owner,
    },
    /// Something that is never touched: `a symbolic link`, `a directory`, `a device`, ….
    NotRegular(&'static str),
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What lies at the path.
    pub found: Found,
    /// The folder that the path's folder really is, with symbolic links resolved; none if it is missing.
    pub real_dir: Option<String>,
    /// What its folder really is, or would be once it is made.
    pub leads_to: Option<String>,
    /// Whether an unfinished file of ours lies beside it.
    pub temp: bool,
    /// How the content differs from what was written; none where it does not, or nobody asked.
    pub diff: Option<Difference>,
    /// Whose hand was at the path last, other than ours.
    pub hand: Hand,
    /// What tells whether it has changed since.
    pub stamp: Stamp,
}

impl Observed {
    /// The path in the folder that was looked at and judged, without links on the way: the one that steps may touch.
    #[must_use]
    pub fn reached(&self, path: &str) -> String {
        in_folder(self.leads_to.as_deref().unwrap_or(parent(path)), path)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The document asks this.
    Want(WantedFile),
    /// The document has no entry for it any more.
    Unwanted,
    /// A person on the host has taken it out of the agent's hands, or given it back.
    Hold(Option<Held>),
    /// Something happened at the path, or it is time to look again.
    Look,
    /// What was seen, or why it could not be seen.
    Observed(Result<Sight, String>),
    /// Steps were carried out: so many are done, and the next one failed if there is an error.
    Ran {
        /// How many are done.
        done: usize,
        /// What stopped them.
        error: Option<StepError>,
    },
    /// Time passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look what is there, and answer with [`Event::Observed`].
    Observe,
    /// Carry out steps, and answer with [`Event::Ran`].
    Run(Vec<Step>),
    /// Tell the story.
    Tell(Reason, String),
}

/// Why steps are being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A version is written.
    Write,
    /// Drift is put back.
    Repair,
    /// The file is let go.
    Release,
    /// An unfinished file of an earlier agent is cleared away, or the record caught up.
    Tidy,
}

/// How things stand, for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    state: FileState,
    reason: Option<Reason>,
    message: Option<String>,
    at: Timestamp,
}

/// One managed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedFile {
    record: FileRecord,
    rules: Rules,
    wanted: Option<WantedFile>,
    observed: Option<Sight>,
    looking: bool,
    /// Something happened since the look under way began.
    look_again: bool,
    /// The look under way is of another version's time, and what it sees does not count.
    look_is_old: bool,
    work: Option<(Work, Vec<Step>)>,
    /// The work under way is for something that is not asked any more.
    outdated: bool,
    standing: Standing,
    retry: Option<(Mono, u64)>,
    pace: Option<Mono>,
    /// What was last recorded as drift, until all is well again.
    drift_seen: Option<Vec<(String, Found)>>,
    /// When a drift that is not put back was last told, and how many there had been by then.
    drift_told: Option<(Mono, u64)>,
    /// When the path was last looked at.
    looked: Mono,
    /// A look that was put off.
    look_due: Option<Mono>,
    held: Option<Held>,
}

impl ManagedFile {
    /// From what survived.
    #[must_use]
    pub fn new(record: FileRecord, rules: Rules) -> Self {
        let standing = Standing { state: FileState::Pending, reason: None, message: None, at: Timestamp(0) };
        Self {
            record,
            rules,
            wanted: None,
            observed: None,
            looking: false,
            look_again: false,
            look_is_old: false,
            work: None,
            outdated: false,
            standing,
            retry: None,
            pace: None,
            drift_seen: None,
            drift_told: None,
            looked: Mono(0),
            look_due: None,
            held: None,
        }
    }

    /// Takes an event.
    pub fn on(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Want(wanted) => self.want(now, wanted, &mut effects),
            Event::Unwanted => self.wanted = None,
            Event::Hold(held) => {
                let freed = self.held.is_some() && held.is_none();
                self.held = held;
                if freed {
                    // What happened meanwhile is judged by what is there now.
                    self.set(now, FileState::Pending, None, None);
                    self.retry = None;
                    self.look(&mut effects);
                }
            }
            Event::Look => self.heard(now, &mut effects),
            Event::Observed(result) => self.saw(now, result, &mut effects),
            Event::Ran { done, error } => self.ran(now, done, error, &mut effects),
            Event::Tick => {
                let due = |at: Option<Mono>| at.is_some_and(|at| now.mono >= at);
                let retry = due(self.retry.map(|(at, _)| at));
                if retry || due(self.pace) {
                    self.retry = self.retry.map(|(_, ms)| (Mono(u64::MAX), ms));
                    self.pace = None;
                    self.look(&mut effects);
                } else if due(self.look_due) {
                    self.look(&mut effects);
                }
            }
        }
        self.settle(now, &mut effects);
        if self.look_again && !self.looking && self.work.is_none() {
            self.look_again = false;
            self.heard(now, &mut effects);
        }
        effects
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Mono> {
        let retry = self.retry.map(|(at, _)| at).filter(|at| at.0 != u64::MAX);
        [retry, self.pace, self.look_due].into_iter().flatten().min()
    }

    /// What must survive the agent.
    #[must_use]
    pub const fn record(&self) -> &FileRecord {
        &self.record
    }

    /// What is asked, if anything is.
    #[must_use]
    pub const fn wanted(&self) -> Option<&WantedFile> {
        self.wanted.as_ref()
    }

    /// The path on the host, once it is known.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        let spec = self.wanted.as_ref().and_then(|w| w.spec.as_ref());
        let asked = spec.map(|s| self.rules.on_host(&s.path));
        asked.or_else(|| (!self.record.path.is_empty()).then(|| self.record.path.clone()))
    }

    /// The files that are to be looked at, by name, and the folder if what nobody named in it is to be removed.
    #[must_use]
    pub fn to_look_at(&self) -> (BTreeSet<String>, bool) {
        let spec = self.wanted.as_ref().and_then(|w| w.spec.as_ref());
        let Some(spec) = spec else { return (self.record.names(), false) };
        let mut names: BTreeSet<String> = spec.parts().map(|part| part.name.to_owned()).collect();
        let releases = self.wanted.as_ref().is_some_and(|w| w.goal == FileGoal::Release);
        if releases {
            names.extend(self.record.names());
        }
        (names, !releases && spec.unlisted == Unlisted::Delete && !spec.files.is_empty())
    }

    /// Whether the folder of candidates is to be looked for, too.
    #[must_use]
    pub fn has_candidates(&self) -> bool {
        self.wanted.as_ref().and_then(|w| w.spec.as_ref()).is_some_and(|spec| !spec.files.is_empty())
    }

    /// Whether it can be forgotten: no entry asks for it, and it is let go or was never written.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.wanted.is_none()
            && self.work.is_none()
            && (self.record.released || self.record.written.is_none())
    }

    /// Its version in sync on this node, for those who need it.
    #[must_use]
    pub fn version_in_sync(&self) -> Option<Version> {
        let wanted = self.wanted.as_ref()?;
        if self.standing.state == FileState::Held {
            // Who needs it gets what the host holds: a hold stops no start of others.
            return self.record.written.as_ref().map(|w| w.version);
        }
        (self.standing.state == FileState::InSync).then_some(wanted.version)
    }

    /// Its row in the report.
    #[must_use]
    pub fn report(&self) -> FileReport {
        let is_secret = self.wanted.as_ref().is_some_and(|w| w.is_secret);
        let sha256 = self.observed.as_ref().filter(|_| !is_secret).and_then(Sight::digest);
        FileReport {
            u: self.record.uid,
            v: self.record.written.as_ref().map(|w| w.version).unwrap_or_default(),
            wanted: self.wanted.as_ref().map(|w| w.version).unwrap_or_default(),
            path: self.path().unwrap_or_default(),
            sha256,
            state: self.standing.state,
            reason: self.standing.reason,
            message: self.standing.message.clone(),
            at: self.standing.at,
            last_drift: self.record.last_drift.clone(),
            effect: None,
        }
    }

    /// Its row among the orphans, if it is one.
    #[must_use]
    pub fn orphan(&self) -> Option<OrphanReport> {
        let (namespace, name) = self.record.named.clone()?;
        let is_orphan = self.wanted.is_none() && self.record.written.is_some() && !self.record.released;
        is_orphan.then(|| OrphanReport {
            u: self.record.uid,
            namespace,
            name,
            pid: None,
            path: Some(self.record.path.clone()),
        })
    }

    fn want(&mut self, now: Now, wanted: WantedFile, effects: &mut Vec<Effect>) {
        let same = self.wanted.as_ref() == Some(&wanted);
        let new_version = self.wanted.as_ref().is_some_and(|w| w.version != wanted.version);
        let is_as_asked = |w: &WantedFile| w.version == wanted.version && w.goal == wanted.goal;
        let asks_anew = !self.wanted.as_ref().is_some_and(is_as_asked);
        if let Some(spec) = &wanted.spec {
            self.record.named = Some((spec.namespace.clone(), spec.name.clone()));
            if wanted.goal == FileGoal::Hold {
                self.record.path = self.rules.on_host(&spec.path);
            }
        }
        self.record.forget_refusal_unless(wanted.version);
        self.wanted = Some(wanted);
        if new_version {
            // A push is a person's act: it ends every truce and every wait.
            self.forget_contest();
        }
        if asks_anew {
            // What was so of the version before, a failure above all, must never be read as said of this one.
            self.set(now, FileState::Pending, None, None);
            self.outdated = self.work.is_some();
            self.retry = None;
            self.pace = None;
        }
        if !same {
            self.look_is_old = self.looking;
            self.look(effects);
        }
    }

    /// Whether the file is to be let go and there is nothing of it here, be it that it never was.
    fn is_let_go(&self) -> bool {
        self.wanted.as_ref().is_some_and(|w| w.goal == FileGoal::Release)
            && (self.record.released || self.record.written.is_none())
    }

    fn look(&mut self, effects: &mut Vec<Effect>) {
        self.look_due = None;
        if self.path().is_none() || (self.is_let_go() && self.work.is_none()) {
            return;
        }
        if self.looking || self.work.is_some() {
            self.look_again = true;
        } else {
            self.looking = true;
            effects.push(Effect::Observe);
        }
    }

    fn saw(&mut self, now: Now, result: Result<Sight, String>, effects: &mut Vec<Effect>) {
        self.looking = false;
        self.looked = now.mono;
        if std::mem::take(&mut self.look_is_old) {
            self.look_again = false;
            self.observed = None;
            self.look(effects);
            return;
        }
        // If something has happened since, this is judged all the same, and looked at again: a writer that never
        // pauses would else never be met.
        match result {
            Ok(mut observed) => {
                // What the host does not let be written is not removed either; links, folders and devices are nobody's.
                let spec = self.wanted.as_ref().and_then(|w| w.spec.clone());
                observed.unlisted.retain(|name, seen| {
                    let path = spec.as_ref().map(|spec| part_path(&spec.path, name));
                    let refused = path.and_then(|path| self.rules.refusal(&path, seen.leads_to.as_deref()));
                    refused.is_none() && matches!(seen.found, Found::Regular { .. })
                });
                self.observed = Some(observed);
            }
            Err(_) if self.is_let_go() => self.observed = None,
            Err(message) => {
                self.observed = None;
                self.failed(now, Reason::WriteFailed, format!("cannot be read: {message}"), effects);
            }
        }
    }

    fn set(&mut self, now: Now, state: FileState, reason: Option<Reason>, message: Option<String>) -> bool {
        let same = self.standing.state == state
            && self.standing.reason == reason
            && self.standing.message == message;
        if !same {
            let at = if self.standing.state == state { self.standing.at } else { now.wall };
            self.standing = Standing { state, reason, message, at };
        }
        !same
    }

    /// It cannot be told yet whether it may be put in place: that is no failure, and tried again soon.
    fn waits(&mut self, now: Now, message: String) {
        let ms = self.retry.map_or(RETRY_FIRST_MS, |(_, ms)| (ms * 2).min(RETRY_MAX_MS));
        self.retry = Some((now.mono.plus_ms(ms), ms));
        self.set(now, FileState::Applying, None, Some(message));
    }

    /// Something stands in the way that time may remove: it is told once, and tried again later.
    fn failed(&mut self, now: Now, reason: Reason, message: String, effects: &mut Vec<Effect>) {
        let ms = self.retry.map_or(RETRY_FIRST_MS, |(_, ms)| (ms * 2).min(RETRY_MAX_MS));
        self.retry = Some((now.mono.plus_ms(ms), ms));
        if self.set(now, FileState::Failed, Some(reason), Some(message.clone())) {
            effects.push(Effect::Tell(reason, message));
        }
    }
}
