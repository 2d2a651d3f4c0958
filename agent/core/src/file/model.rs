//! A file system in memory, exact in what matters to managed files: what a crash of the agent leaves, and what a loss
//! of power leaves. Used by the tests of this module and by the simulation of whole hosts.
//!
//! After a loss of power a file that was not synced since its last change holds nothing, and a rename or removal whose
//! folder was not synced is undone: the worst that the contract with the kernel allows.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::Sha256;
use ostler_schemas::hash::sha256;
use ostler_schemas::quantity::Mode;

use super::{
    Content, Found, Hand, Observed, Owner, Stamp, Step, StepError, StepErrorKind, parent, temp_path,
};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its mode.
    pub mode: Mode,
    /// Its owner.
    pub owner: Owner,
    /// Whether content and metadata are on disk.
    pub synced: bool,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File(ModelFile),
    /// Something that is never touched.
    Other(&'static str),
}

/// The file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFs {
    names: BTreeMap<String, Node>,
    /// The names as they are on disk.
    durable: BTreeMap<String, Node>,
    dirs: BTreeSet<String>,
    /// Bytes that may still be written; none is without end.
    pub room: Option<usize>,
    /// Whether owners can be set (root).
    pub may_own: bool,
    /// Whose files are when nothing is said.
    pub self_owner: Option<Owner>,
}

fn error(kind: StepErrorKind, message: impl Into<String>) -> StepError {
    StepError { kind, message: message.into() }
}

impl ModelFs {
    /// With these folders.
    #[must_use]
    pub fn new(dirs: &[&str]) -> Self {
        let mut fs = Self { may_own: true, ..Self::default() };
        for dir in dirs {
            fs.make_dirs(dir);
        }
        fs
    }

    fn make_dirs(&mut self, dir: &str) {
        let mut path = String::new();
        self.dirs.insert("/".to_owned());
        for part in dir.split('/').filter(|p| !p.is_empty()) {
            path.push('/');
            path.push_str(part);
            self.dirs.insert(path.clone());
        }
    }

    /// Puts something there, durably, as another hand would.
    pub fn put(&mut self, path: &str, node: Node) {
        self.make_dirs(parent(path));
        self.names.insert(path.to_owned(), node.clone());
        self.durable.insert(path.to_owned(), node);
    }

    /// Puts a regular file there, durably.
    pub fn put_file(&mut self, path: &str, bytes: &[u8], mode: u32, owner: Owner) {
        let file = ModelFile { bytes: bytes.to_vec(), mode: Mode::from_bits(mode), owner, synced: true };
        self.put(path, Node::File(file));
    }

    /// Takes away what is there, durably, as another hand would.
    pub fn take(&mut self, path: &str) {
        self.names.remove(path);
        self.durable.remove(path);
    }

    /// The file there, if one is.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&ModelFile> {
        match self.names.get(path) {
            Some(Node::File(file)) => Some(file),
            Some(Node::Other(_)) | None => None,
        }
    }

    /// Whether anything is there.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.names.contains_key(path) || self.dirs.contains(path)
    }

    /// The power goes and comes back.
    pub fn power_loss(&mut self) {
        self.names = self.durable.clone();
        for node in self.names.values_mut() {
            if let Node::File(file) = node
                && !file.synced
            {
                file.bytes.clear();
            }
        }
        self.durable = self.names.clone();
    }

    /// What lies at a path.
    #[must_use]
    pub fn observe(&self, path: &str) -> Observed {
        let found = match self.names.get(path) {
            Some(Node::File(f)) => Found::Regular { sha256: sha256(&f.bytes), mode: f.mode, owner: f.owner },
            Some(Node::Other(what)) => Found::NotRegular(what),
            None if self.dirs.contains(path) => Found::NotRegular("a directory"),
            None => Found::Missing,
        };
        let dir = parent(path);
        let real_dir = self.dirs.contains(dir).then(|| dir.to_owned());
        let temp = self.names.contains_key(&temp_path(path));
        Observed {
            found,
            real_dir,
            leads_to: Some(dir.to_owned()),
            temp,
            diff: None,
            hand: Hand::Unasked,
            stamp: Stamp::Unsure,
        }
    }

    /// The names of regular files in a folder.
    #[must_use]
    pub fn list(&self, dir: &str) -> Vec<String> {
        let files =
            self.names.iter().filter(|(path, node)| parent(path) == dir && matches!(node, Node::File(_)));
        files.filter_map(|(path, _)| path.rsplit('/').next().map(str::to_owned)).collect()
    }

    /// Carries out one step. [`Step::Record`] is the ledger's and does nothing here.
    ///
    /// # Errors
    /// As a real host would refuse.
    pub fn apply(&mut self, step: &Step, blobs: &BTreeMap<Sha256, Vec<u8>>) -> Result<(), StepError> {
        match step {
            Step::Record(_) => Ok(()),
            Step::MakeDirs { dir } => {
                self.make_dirs(dir);
                Ok(())
            }
            // What a validator says is the shell's to know; labels are none of a model's.
            Step::Validate(_) | Step::Label { .. } => Ok(()),
            Step::RemoveTree { dir } => {
                let below = format!("{dir}/");
                self.names.retain(|path, _| path != dir && !path.starts_with(&below));
                self.dirs.retain(|path| path != dir && !path.starts_with(&below));
                Ok(())
            }
            Step::Keep { from, to } => self.keep(from, to),
            Step::WriteTemp { temp, content } => self.write_temp(temp, content, blobs),
            Step::Own { path, owner } => self.own(path, *owner),
            Step::SetMode { path, mode } => {
                let file = self.file_mut(path)?;
                file.mode = *mode;
                file.synced = false;
                Ok(())
            }
            Step::Sync { path } => {
                self.file_mut(path)?.synced = true;
                Ok(())
            }
            Step::Rename { from, to } => self.rename(from, to),
            Step::SyncDir { dir } => {
                self.sync_dir(dir);
                Ok(())
            }
            Step::Remove { path } | Step::Discard { kept: path } => {
                self.names.remove(path);
                Ok(())
            }
        }
    }

    fn keep(&mut self, from: &str, to: &str) -> Result<(), StepError> {
        let mut copy = self.file_mut(from)?.clone();
        copy.synced = true;
        self.put(to, Node::File(copy));
        Ok(())
    }

    fn write_temp(
        &mut self,
        temp: &str,
        content: &Content,
        blobs: &BTreeMap<Sha256, Vec<u8>>,
    ) -> Result<(), StepError> {
        if !self.dirs.contains(parent(temp)) {
            return Err(error(StepErrorKind::Failed, format!("create {temp}: No such file or directory")));
        }
        let bytes = match content {
            Content::Blob(hash) => blobs.get(hash).cloned(),
            Content::Kept(path) => self.file(path).map(|f| f.bytes.clone()),
        };
        let Some(bytes) = bytes else {
            return Err(error(StepErrorKind::Failed, "its content is not at hand"));
        };
        if self.room.is_some_and(|room| bytes.len() > room) {
            return Err(error(StepErrorKind::DiskFull, format!("write {temp}: No space left on device")));
        }
        let owner = self.self_owner.unwrap_or(Owner { uid: 0, gid: 0 });
        let file = ModelFile { bytes, mode: Mode::from_bits(0o600), owner, synced: false };
        self.names.insert(temp.to_owned(), Node::File(file));
        Ok(())
    }

    fn own(&mut self, path: &str, owner: Owner) -> Result<(), StepError> {
        let may = self.may_own;
        let file = self.file_mut(path)?;
        if file.owner != owner && !may {
            return Err(error(StepErrorKind::OwnerRefused, format!("chown {path}: Operation not permitted")));
        }
        file.owner = owner;
        file.synced = false;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StepError> {
        if let Some(Node::Other(what)) = self.names.get(to) {
            return Err(error(StepErrorKind::NotRegular, format!("{to} is {what}")));
        }
        let Some(node) = self.names.remove(from) else {
            return Err(error(StepErrorKind::Failed, format!("rename {from}: No such file or directory")));
        };
        self.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn sync_dir(&mut self, dir: &str) {
        let here: Vec<String> =
            self.names.keys().chain(self.durable.keys()).filter(|p| parent(p) == dir).cloned().collect();
        for path in here {
            match self.names.get(&path) {
                Some(node) => self.durable.insert(path, node.clone()),
                None => self.durable.remove(&path),
            };
        }
    }

    fn file_mut(&mut self, path: &str) -> Result<&mut ModelFile, StepError> {
        match self.names.get_mut(path) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Other(what)) => Err(error(StepErrorKind::NotRegular, format!("{path} is {what}"))),
            None => Err(error(StepErrorKind::Failed, format!("{path}: No such file or directory"))),
        }
    }
}
