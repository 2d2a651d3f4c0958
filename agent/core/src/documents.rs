//! Which documents an agent takes, and what they ask of it.
//!
//! Guarantees: a document is never replaced by one of a lower epoch, nor by an older revision of the same epoch;
//! absence asks for nothing; a document that would stop many processes at once is taken only when it says why; an
//! entry that makes no sense is set aside by name and spoils no other.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::document::{FileEntry, FilesDocument, RunDocument};
use ostler_schemas::v1::epoch::{Epoch, Token};
use ostler_schemas::v1::object::OwnerReference;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Name, Namespace, Revision, Sha256, Uid, Version};

/// So many processes may be stopped by one document without a word: a small node must be able to lose one
/// deployment's processes in the usual way.
pub const STOPS_ALWAYS_ALLOWED: usize = 3;
/// And so many percent of what runs: more at once is what a rolled-back store looks like, not an operator.
pub const STOPS_ALLOWED_PERCENT: usize = 20;

/// What becomes of a document that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is newer and holds from now on.
    Take,
    /// It is the one held, or an older one of the same epoch from a replica that lags: nothing to do.
    Old,
    /// It must not be followed.
    Refuse(Refused),
}

/// Why a document is not followed. Told to operators as a condition and an event, never silently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Decided by a leader older than one that was obeyed already.
    #[error("decided in epoch {found}, but {held} was seen already")]
    LowerEpoch {
        /// The document's.
        found: Epoch,
        /// The highest seen.
        held: Epoch,
    },
    /// Two leaders claim one term: a store was rolled back without its incarnation being raised.
    #[error("decided in epoch {found}, but {held} claims the same term: the store was rolled back")]
    OtherNonce {
        /// The document's.
        found: Epoch,
        /// The one held.
        held: Epoch,
    },
    /// Would stop too much at once without saying why.
    #[error(
        "would stop {stops} of {running} processes at once without being marked as bulk; at most {allowed} may"
    )]
    BulkStop {
        /// Processes that it would stop.
        stops: usize,
        /// Processes that run.
        running: usize,
        /// How many may be stopped without a mark.
        allowed: usize,
    },
}

impl Refused {
    /// The reason of the condition and event.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Refused::LowerEpoch { .. } | Refused::OtherNonce { .. } => Reason::EpochRefused,
            Refused::BulkStop { .. } => Reason::BulkStopRefused,
        }
    }
}

/// Judges a document by its epoch and revision against the one held.
#[must_use]
pub fn judge(held: &HeldDocument, epoch: Epoch, revision: Revision) -> Verdict {
    if held.revision == Revision(0) && held.epoch == Epoch::default() {
        return Verdict::Take;
    }
    match epoch.rank().cmp(&held.epoch.rank()) {
        std::cmp::Ordering::Less => Verdict::Refuse(Refused::LowerEpoch { found: epoch, held: held.epoch }),
        std::cmp::Ordering::Greater => Verdict::Take,
        std::cmp::Ordering::Equal if epoch.nonce != held.epoch.nonce => {
            Verdict::Refuse(Refused::OtherNonce { found: epoch, held: held.epoch })
        }
        std::cmp::Ordering::Equal if revision > held.revision => Verdict::Take,
        std::cmp::Ordering::Equal => Verdict::Old,
    }
}

/// How many processes one document may stop without a mark when `running` of them run.
#[must_use]
pub const fn stops_allowed(running: usize) -> usize {
    let share = running * STOPS_ALLOWED_PERCENT / 100;
    if share > STOPS_ALWAYS_ALLOWED { share } else { STOPS_ALWAYS_ALLOWED }
}

/// Judges a run document: as [`judge`], and by how many of the processes that run (and were meant to) it would stop.
#[must_use]
pub fn judge_run(
    held: &HeldDocument,
    document: &RunDocument,
    revision: Revision,
    running: &BTreeSet<Uid>,
) -> Verdict {
    let verdict = judge(held, document.epoch, revision);
    if verdict != Verdict::Take || document.bulk.is_some() {
        return verdict;
    }
    let stopped: BTreeSet<Uid> =
        document.entries.iter().filter(|e| e.g != Goal::Run && running.contains(&e.u)).map(|e| e.u).collect();
    let (stops, allowed) = (stopped.len(), stops_allowed(running.len()));
    if stops > allowed {
        return Verdict::Refuse(Refused::BulkStop { stops, running: running.len(), allowed });
    }
    Verdict::Take
}

/// What a run document asks for one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunItem {
    /// The process.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
    /// Its owner.
    pub owner: OwnerReference,
    /// The owner's version.
    pub version: Version,
    /// What should become of it.
    pub goal: Goal,
    /// Its fencing token.
    pub token: Token,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its template.
    pub template: Sha256,
}

/// What a run document asks for, and what of it makes no sense.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunItems {
    /// By uid.
    pub items: BTreeMap<Uid, RunItem>,
    /// Entries set aside, with the reason.
    pub problems: BTreeMap<Uid, String>,
}

/// Resolves the positions in a run document.
#[must_use]
pub fn run_items(document: &RunDocument) -> RunItems {
    let mut out = RunItems::default();
    for entry in &document.entries {
        let owner = document.owners.get(entry.o as usize);
        let (Some(owner), Some(name), Some(template)) =
            (owner, document.process_name(entry), document.template(entry))
        else {
            out.problems.insert(entry.u, "its entry names no owner, template or valid name".to_owned());
            continue;
        };
        if out.items.contains_key(&entry.u) {
            out.problems.insert(entry.u, "it has two entries; the first holds".to_owned());
            continue;
        }
        let item = RunItem {
            uid: entry.u,
            namespace: owner.ns.clone(),
            name,
            owner: owner.owner.clone(),
            version: entry.v,
            goal: entry.g,
            token: entry.f,
            ports: entry.p.clone(),
            template,
        };
        out.items.insert(entry.u, item);
    }
    out
}

/// The entries of a files document by uid; of two for one uid the first holds.
#[must_use]
pub fn file_items(document: &FilesDocument) -> BTreeMap<Uid, FileEntry> {
    let mut out = BTreeMap::new();
    for entry in &document.entries {
        out.entry(entry.u).or_insert_with(|| entry.clone());
    }
    out
}

/// Whether a replica that answered a beat knows of a newer document than the one held. The answer bears only a
/// revision, so this is a hint to read, never a reason to follow anything.
#[must_use]
pub fn should_read(held: &HeldDocument, told: Revision) -> bool {
    told != Revision(0) && told != held.revision
}

#[cfg(test)]
mod tests;
