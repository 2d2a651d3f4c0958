//! What a ConfigFile asks for: one file, or several in one folder, on every selected node.

use serde::{Deserialize, Serialize};

use super::claims::Claims;
use super::validator::Validator;
use super::vars::Vars;
use super::{Action, Labels, Probe, Rollout, selects};
use crate::ids::{NodeName, Sha256};
use crate::quantity::Mode;

/// The spec of a ConfigFile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFileSpec {
    /// Absolute path in normal form; never changes.
    pub path: String,
    /// Which nodes hold the file; empty means every node.
    pub node_selector: Labels,
    /// What is in it; none until the first `content` or push, and until then nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentRef>,
    /// What is rendered into it for each node; at most one of `content`, `template` and `files` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<ContentRef>,
    /// Several files below `path`, which is then a folder: one version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileItem>,
    /// What is done with files in the folder that are not named.
    #[serde(default, skip_serializing_if = "Unlisted::is_keep")]
    pub unlisted: Unlisted,
    /// Values for templates.
    #[serde(default, skip_serializing_if = "Vars::is_empty")]
    pub vars: Vars,
    /// Other values for some nodes: merged over `vars` key by key, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Name or number of the user that owns it.
    pub owner: String,
    /// Name or number of the group; none means the owner's primary group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Permission bits.
    pub mode: Mode,
    /// Whether missing parent folders are made, root's and 0755.
    pub create_directories: bool,
    /// What looks at a version before it is put in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<Validator>,
    /// What is done when the file is found changed.
    pub drift: Drift,
    /// What is done at first contact with a file that Ostler did not write.
    pub on_existing: OnExisting,
    /// What stays on the host when the object goes or the node no longer matches.
    pub on_remove: OnRemove,
    /// What is done on a node after the file has changed there, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_change: Vec<Action>,
    /// What is asked on a node after that, until the rollout has baked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Whether rollouts stand still.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How a new version spreads.
    pub rollout: Rollout,
}

/// Content by name: the bytes lie in the blob store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentRef {
    /// The SHA-256 of the bytes.
    pub sha256: Sha256,
    /// How many they are.
    pub size: u64,
}

/// One of several files of a ConfigFile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileItem {
    /// Where it is below the folder.
    pub name: String,
    /// What is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentRef>,
    /// What is rendered into it; exactly one of the two is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<ContentRef>,
    /// Permission bits; none means those of the ConfigFile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// What is done with files in a managed folder that are not named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// They are left alone.
    #[default]
    Keep,
    /// They are removed; a copy is kept on the host as the original of a replaced file is.
    Delete,
    /// A choice of a newer server: an older agent leaves them alone.
    #[serde(other)]
    Unknown,
}

impl Unlisted {
    fn is_keep(&self) -> bool {
        *self == Unlisted::Keep
    }
}

/// Other values for some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// Nodes by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Labels>,
    /// Nodes by their names; exactly one of the two is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
    /// The values.
    pub vars: Vars,
}

impl Override {
    /// Whether it is for a node with these labels.
    #[must_use]
    pub fn is_for(&self, node: &NodeName, labels: &Labels) -> bool {
        self.nodes.contains(node) || self.node_selector.as_ref().is_some_and(|s| selects(s, labels))
    }
}

/// What one file holds: bytes as they are, or a template to be rendered for each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// As it is.
    Content(ContentRef),
    /// To be rendered.
    Template(ContentRef),
}

impl Source {
    /// The bytes by name.
    #[must_use]
    pub const fn reference(self) -> ContentRef {
        match self {
            Source::Content(reference) | Source::Template(reference) => reference,
        }
    }

    fn of(content: Option<ContentRef>, template: Option<ContentRef>) -> Option<Source> {
        template.map(Source::Template).or(content.map(Source::Content))
    }
}

impl FileItem {
    /// What it holds.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        Source::of(self.content, self.template)
    }
}

/// One file of a ConfigFile, be it the only one or one of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Where it is below the folder; empty for the only one, whose path is the ConfigFile's own.
    pub name: &'a str,
    /// What it holds.
    pub source: Source,
    /// Permission bits.
    pub mode: Mode,
}

/// What is done when a managed file is found changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// Put back, and reported.
    Enforce,
    /// Reported only.
    Warn,
    /// Not looked for.
    Ignore,
    /// A choice of a newer server: an older agent reports and does not write.
    #[serde(other)]
    Unknown,
}

/// What is done with a file found at the path that Ostler did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    /// Keep its original on the host and write.
    Replace,
    /// Leave it alone and report.
    Refuse,
    /// A choice of a newer server: an older agent leaves the file alone.
    #[serde(other)]
    Unknown,
}

/// What stays when the file is managed no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRemove {
    /// The file as it is.
    Keep,
    /// What was there before Ostler.
    Restore,
    /// Nothing.
    Delete,
    /// A choice of a newer server: an older agent keeps the file.
    #[serde(other)]
    Unknown,
}

impl ConfigFileSpec {
    /// Its files, in the order of the manifest; none until there is anything to write.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let alone = Source::of(self.content, self.template);
        let alone = alone.map(|source| Part { name: "", source, mode: self.mode });
        let several = self.files.iter().filter_map(|item| {
            let mode = item.mode.unwrap_or(self.mode);
            item.source().map(|source| Part { name: &item.name, source, mode })
        });
        alone.into_iter().chain(several)
    }

    /// Whether there is anything to write.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.parts().next().is_some()
    }

    /// Whether anything in it is rendered.
    #[must_use]
    pub fn has_template(&self) -> bool {
        self.parts().any(|part| matches!(part.source, Source::Template(_)))
    }

    /// Whether `path` is a folder with several files.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        !self.files.is_empty()
    }

    /// Takes over what `of` holds and for which values, so that it is the same version again.
    pub fn take_version(&mut self, of: &ConfigFileSpec) {
        self.content = of.content;
        self.template = of.template;
        self.files.clone_from(&of.files);
        self.unlisted = of.unlisted;
        self.vars.clone_from(&of.vars);
        self.overrides.clone_from(&of.overrides);
        self.owner.clone_from(&of.owner);
        self.group.clone_from(&of.group);
        self.mode = of.mode;
    }

    /// The values for one node: `vars`, and over them each override that is for it, key by key; the last one wins.
    #[must_use]
    pub fn vars_for(&self, node: &NodeName, labels: &Labels) -> Vars {
        let mut vars = self.vars.clone();
        for other in self.overrides.iter().filter(|other| other.is_for(node, labels)) {
            vars.extend(other.vars.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        vars
    }

    /// The paths that it is about.
    #[must_use]
    pub fn claims(&self) -> Claims {
        Claims::new(&self.path, self.files.iter().map(|item| item.name.as_str()), self.unlisted)
    }

    /// Whether going from `self` to `next` is a new version of the file: what is in it, values, owner, group or mode
    /// differ. Changes of where it goes or how drift is met roll nothing out.
    #[must_use]
    pub fn is_new_version(&self, next: &ConfigFileSpec) -> bool {
        let held = |spec: &ConfigFileSpec| {
            let mut held = self.clone();
            held.take_version(spec);
            held
        };
        held(self) != held(next)
    }
}
