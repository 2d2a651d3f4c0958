//! Node documents: what one node should run, and what files it should hold. Each has one writer.
//!
//! Absence is never a command: a missing entry is an orphan and is kept. What should end has an entry that says so.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::epoch::{Epoch, Token};
use super::object::OwnerReference;
use super::process::Goal;
use crate::codec::Wire;
use crate::ids::{Name, Namespace, Sha256, Uid, Version};
use crate::quantity::{Cpu, Dur, Mode, Size};
use crate::spec::{
    Action, Claims, Drift, FileItem, Labels, OnExisting, OnRemove, Part, Probe, Source, Unlisted, Validator,
    Vars,
};

/// Most bytes of a document, checked at placement.
pub const DOCUMENT_LIMIT: usize = 128 << 10;

/// Goal `run` stands in most entries and is left out of them.
fn is_run(goal: &Goal) -> bool {
    *goal == Goal::Run
}

/// `n.<node>.run`: a pure projection of spec, bind and goal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDocument {
    /// The scheduler's epoch.
    pub epoch: Epoch,
    /// Set when this document stops many processes on purpose: the reasons, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bulk: Option<String>,
    /// Those of the node's labels, as the API has them, that variables of some process here are taken from. A change
    /// of them restarts nothing: it is seen by the next start.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
    /// Those namespaces of entries here whose output is shipped. What was begun for a process that has no entry any
    /// more goes on to its end; one with an entry of a namespace that is not here is shipped no more.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub ships: BTreeSet<Namespace>,
    /// Owners that entries refer to by position.
    pub owners: Vec<DocumentOwner>,
    /// Template hashes that entries refer to by position.
    pub templates: Vec<Sha256>,
    /// One per process, ordered by uid.
    pub entries: Vec<RunEntry>,
}

impl Wire for RunDocument {
    const KIND: &'static str = "RunDocument";
    const LIMIT: usize = DOCUMENT_LIMIT;
}

/// An owner in a run document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentOwner {
    /// Namespace of the owner and of its processes.
    pub ns: Namespace,
    /// The owner.
    pub owner: OwnerReference,
}

/// One process in a run document; at most 64 bytes in the usual case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEntry {
    /// The process's uid.
    pub u: Uid,
    /// Position of its owner.
    pub o: u32,
    /// What its name has beyond the owner's name: `-hash-suffix`, or nothing for a process that is its own owner.
    pub s: String,
    /// Position of its template.
    pub t: u32,
    /// The owner's version.
    pub v: Version,
    /// The goal.
    #[serde(skip_serializing_if = "is_run", default)]
    pub g: Goal,
    /// The fencing token.
    pub f: Token,
    /// Ports by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub p: BTreeMap<String, u16>,
}

impl RunDocument {
    /// The name of an entry's process; `None` if the entry points nowhere or makes no name.
    #[must_use]
    pub fn process_name(&self, entry: &RunEntry) -> Option<Name> {
        let owner = self.owners.get(entry.o as usize)?;
        format!("{}{}", owner.owner.name, entry.s).parse().ok()
    }

    /// The template of an entry; `None` if the entry points nowhere.
    #[must_use]
    pub fn template(&self, entry: &RunEntry) -> Option<Sha256> {
        self.templates.get(entry.t as usize).copied()
    }
}

/// `n.<node>.files`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesDocument {
    /// The configfile controller's epoch.
    pub epoch: Epoch,
    /// One per file, ordered by uid.
    pub entries: Vec<FileEntry>,
    /// What templates may say of this node; none while no entry has a template. It stands here so that what a node
    /// renders follows from what is stored, and from nothing else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<Box<NodeFacts>>,
}

impl Wire for FilesDocument {
    const KIND: &'static str = "FilesDocument";
    const LIMIT: usize = DOCUMENT_LIMIT;
}

/// What templates may say of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// The host's full name.
    pub hostname: String,
    /// The API's labels, and those that its agent sets.
    pub labels: Labels,
    /// The node's own values.
    #[serde(skip_serializing_if = "Vars::is_empty", default)]
    pub vars: Vars,
    /// Addresses by what they are for: `internal`.
    pub addresses: BTreeMap<String, String>,
    /// Processor capacity.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Size,
}

/// What should become of a managed file on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileGoal {
    /// Should be as its spec says.
    #[default]
    Hold,
    /// Should no longer be managed here; its spec's `onRemove` says what stays. The tombstone stays in the document
    /// until the node has reported that it is done.
    Release,
}

fn is_hold(goal: &FileGoal) -> bool {
    *goal == FileGoal::Hold
}

/// One file in a files document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Uid of the ConfigFile.
    pub u: Uid,
    /// Version of its content.
    pub v: Version,
    /// Hash of the stored file spec (`t.<sha256>`).
    pub d: Sha256,
    /// Hash of the stored values (`t.<sha256>`) that this node renders it with; none without a template.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub w: Option<Sha256>,
    /// The goal.
    #[serde(skip_serializing_if = "is_hold", default)]
    pub g: FileGoal,
}

/// An immutable file spec, stored as `t.<sha256>`: everything an agent needs to hold one version of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSpec {
    /// Name of the ConfigFile.
    pub name: Name,
    /// Its namespace.
    pub namespace: Namespace,
    /// Absolute path.
    pub path: String,
    /// Owner: a name or a number.
    pub owner: String,
    /// Group; none = the owner's primary group.
    pub group: Option<String>,
    /// Permission bits.
    pub mode: Mode,
    /// The content, where it is one file and the same on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentRef>,
    /// What is rendered into it, where it is one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<ContentRef>,
    /// Several files below `path`, which is then a folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileItem>,
    /// What is done with files in the folder that are not named.
    #[serde(default, skip_serializing_if = "is_kept")]
    pub unlisted: Unlisted,
    /// Whether missing parent directories are made.
    pub create_directories: bool,
    /// What looks at a version before it is put in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<Validator>,
    /// What to do about drift.
    pub drift: Drift,
    /// What to do about a file that Ostler did not write.
    pub on_existing: OnExisting,
    /// What stays when the file is released.
    pub on_remove: OnRemove,
    /// What is done after a change, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_change: Vec<Action>,
    /// What is asked after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// For how long after the actions it is asked: until the rollout has baked, however long its waves wait.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub watch: Dur,
}

fn is_zero(time: &Dur) -> bool {
    *time == Dur::ZERO
}

fn is_kept(unlisted: &Unlisted) -> bool {
    *unlisted == Unlisted::Keep
}

impl FileSpec {
    /// Its files, in order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let alone = self.template.map(Source::Template).or(self.content.map(Source::Content));
        let alone = alone.map(|source| Part { name: "", source, mode: self.mode });
        let several = self.files.iter().filter_map(|item| {
            let mode = item.mode.unwrap_or(self.mode);
            item.source().map(|source| Part { name: &item.name, source, mode })
        });
        alone.into_iter().chain(several)
    }

    /// Whether anything in it is rendered.
    #[must_use]
    pub fn has_template(&self) -> bool {
        self.parts().any(|part| matches!(part.source, Source::Template(_)))
    }

    /// The paths that it is about.
    #[must_use]
    pub fn claims(&self) -> Claims {
        Claims::new(&self.path, self.files.iter().map(|item| item.name.as_str()), self.unlisted)
    }
}

/// Values for one file on one node or on many alike, stored as `t.<sha256>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVars {
    /// The ConfigFile's own, with what its overrides say of the node.
    pub vars: Vars,
}

impl Wire for FileVars {
    const KIND: &'static str = "FileVars";
    const LIMIT: usize = DOCUMENT_LIMIT;
}

impl Wire for FileSpec {
    const KIND: &'static str = "FileSpec";
    const LIMIT: usize = DOCUMENT_LIMIT;
}

pub use crate::spec::ContentRef;
