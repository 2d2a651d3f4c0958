//! What survives the agent: one record, replaced as a whole, with a generation number.
//!
//! Templates, file specs and contents lie beside it by hash (they never change); this record names those that are in
//! use, the others may be removed.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::codec::{self, DecodeError, EncodeError, Wire};
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::document::{FilesDocument, RunDocument};
use ostler_schemas::v1::secret::SecretsDocument;
use ostler_schemas::{Sha256, Uid};
use serde::{Deserialize, Serialize};

use crate::acts::Progress;
use crate::file::FileRecord;
use crate::holds::Holds;
use crate::unit::UnitRecord;

/// A document as held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept<D> {
    /// Its revision and epoch: the highest ever followed.
    pub held: HeldDocument,
    /// It; none if there never was one.
    pub document: Option<D>,
}

/// The ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Rises with every write; of two copies the higher holds.
    pub generation: u64,
    /// The boot in which it was written.
    pub boot: String,
    /// The run document.
    pub run: Kept<RunDocument>,
    /// The files document.
    pub files: Kept<FilesDocument>,
    /// The secrets document, as sealed as it came.
    pub secrets: Kept<SecretsDocument>,
    /// Processes.
    pub units: BTreeMap<Uid, UnitRecord>,
    /// Files.
    pub file_records: BTreeMap<Uid, FileRecord>,
    /// How far what follows changes of files has come.
    pub acts: BTreeMap<Uid, Progress>,
    /// Contents in use, found in file specs.
    pub contents: BTreeSet<Sha256>,
    /// Exits that the rings of processes had no room for.
    pub exits_dropped: u64,
    /// What a person on the host has taken out of the agent's hands.
    pub holds: Holds,
}

impl Wire for Ledger {
    const KIND: &'static str = "AgentLedger";
    /// It never crosses the bus; a node of 10,000 processes with full rings of exits stays below this.
    const LIMIT: usize = 64 << 20;
}

/// A change to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The boot.
    Boot(String),
    /// A run document was taken.
    Run(Box<Kept<RunDocument>>),
    /// A files document was taken.
    Files(Box<Kept<FilesDocument>>),
    /// A secrets document was taken.
    Secrets(Box<Kept<SecretsDocument>>),
    /// A process's record.
    Unit(Box<UnitRecord>),
    /// A process was retired.
    UnitGone(Uid),
    /// A file's record.
    File(Box<FileRecord>),
    /// A file was retired.
    FileGone(Uid),
    /// How far what follows a change of a file has come.
    Acts(Uid, Box<Progress>),
    /// Contents that file specs in use name.
    Contents(BTreeSet<Sha256>),
    /// What is held on the host.
    Holds(Box<Holds>),
}

impl Ledger {
    /// Makes a change; `true` if anything is different.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Boot(boot) => std::mem::replace(&mut self.boot, boot) != self.boot,
            Change::Run(run) => std::mem::replace(&mut self.run, *run) != self.run,
            Change::Files(files) => std::mem::replace(&mut self.files, *files) != self.files,
            Change::Secrets(secrets) => std::mem::replace(&mut self.secrets, *secrets) != self.secrets,
            Change::Unit(unit) => {
                let before = self.units.insert(unit.uid, (*unit).clone());
                before.as_ref() != Some(&*unit)
            }
            Change::UnitGone(uid) => self.units.remove(&uid).is_some(),
            Change::File(file) => {
                let before = self.file_records.insert(file.uid, (*file).clone());
                before.as_ref() != Some(&*file)
            }
            Change::FileGone(uid) => {
                let had_acts = self.acts.remove(&uid).is_some();
                self.file_records.remove(&uid).is_some() || had_acts
            }
            Change::Acts(uid, progress) => {
                self.acts.insert(uid, (*progress).clone()).as_ref() != Some(&*progress)
            }
            Change::Holds(holds) => std::mem::replace(&mut self.holds, *holds) != self.holds,
            Change::Contents(contents) => std::mem::replace(&mut self.contents, contents) != self.contents,
        }
    }

    /// What lies beside the ledger and is in use: templates of the document and of what runs, file specs, contents.
    #[must_use]
    pub fn in_use(&self) -> BTreeSet<Sha256> {
        let mut used = self.contents.clone();
        if let Some(run) = &self.run.document {
            used.extend(run.templates.iter().copied());
        }
        if let Some(files) = &self.files.document {
            used.extend(files.entries.iter().flat_map(|e| [Some(e.d), e.w]).flatten());
        }
        used.extend(self.units.values().flat_map(UnitRecord::templates));
        let written = self.file_records.values().filter(|r| !r.released).filter_map(|r| r.written.as_ref());
        used.extend(written.flat_map(|w| w.all()).map(|part| part.sha256));
        used
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// If it outgrew [`Ledger::LIMIT`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        codec::encode(self)
    }

    /// From stored bytes. Fields of a newer version are ignored, missing ones are empty.
    ///
    /// # Errors
    /// If they are no ledger of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Ledger {
        let mut ledger = Ledger { generation: 3, boot: "b".to_owned(), ..Ledger::default() };
        let uid = Uid::from_bytes([3; 16]);
        let name = "web-1".parse().expect("a name");
        let unit = UnitRecord::new(uid, ostler_schemas::Namespace::default_namespace(), name);
        assert!(ledger.apply(Change::Unit(Box::new(unit.clone()))));
        assert!(!ledger.apply(Change::Unit(Box::new(unit))));
        ledger.apply(Change::File(Box::new(FileRecord::new(uid))));
        ledger
    }

    #[test]
    fn what_is_written_is_read() {
        let ledger = sample();
        let bytes = ledger.encode().expect("encodes");
        assert_eq!(Ledger::decode(&bytes).expect("decodes"), ledger);
        for cut in 0..bytes.len() {
            assert!(Ledger::decode(&bytes[..cut]).is_err(), "a torn ledger must not pass for one");
        }
    }
}
