//! The holder's state on disk: a journal that grows by what each turn changed, and is made anew when it has grown
//! too long.
//!
//! Nothing is ever synced. The state belongs to one boot: what a host forgets when its power fails is about
//! processes that ended with it. Against the end of the holder itself no sync is needed, because bytes that were
//! written stay in the kernel; and the folder belongs on memory in any case.
//!
//! A write that fails leaves bytes that nobody may believe, so the next one makes a new file. A new file is
//! written beside the old one and takes its name when it is whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ostler_agent_core::holder::journal::{self, Entry, Harm, NotAJournal};
use ostler_agent_core::holder::state::{HolderState, STATE_FORMAT};

/// The journal's name in the holder's folder.
const NAME: &str = "state.journal";

/// What format 1 was called. It is read once, and gone after the first write.
const FORMAT_1: &str = "state.mpk";

/// Below this a journal is not made anew: a page or two of memory is not worth a rename.
const COMPACT_MIN: u64 = 64 << 10;

/// A journal is made anew when it has grown to so many times its snapshot: the work stays a small share of the
/// writes that led to it, and the file small.
const COMPACT_FACTOR: u64 = 4;

/// By how much the numbers of exits jump when some may have been given away that are not known any more.
const SEQ_JUMP: u64 = 1 << 20;

/// Why the state of a former holder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    /// The file is there and cannot be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was written by a newer holder. Guessing at its processes could lose them.
    #[error(
        "{path} has format {format}, this build reads up to {STATE_FORMAT}: start the newer holder again"
    )]
    TooNew {
        /// Which.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// It is not a state, and could not be put aside either.
    #[error("{path} is damaged and could not be set aside")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a former holder left.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) state: HolderState,
    /// Whether everything that it wrote could be read. If not, the host has to be searched for what it ran.
    pub(super) complete: bool,
    /// What is to be said of it.
    pub(super) warning: Option<String>,
}

/// The file.
#[derive(Debug)]
pub(super) struct StateFile {
    dir: PathBuf,
    looks_only: bool,
    /// None until the first write, and after one that failed: then only a new file will do.
    journal: Option<Journal>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Journal {
    file: File,
    size: u64,
    compact_at: u64,
}

impl StateFile {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), looks_only: false, journal: None, buffer: Vec::new() }
    }

    /// For who only wants to know: nothing in the folder is changed.
    pub(super) fn checking(dir: &Path) -> Self {
        Self { looks_only: true, ..Self::in_dir(dir) }
    }

    /// What the former holder wrote, or the state of a holder that never held anything. A file that is no state is
    /// kept beside.
    pub(super) fn load(&self, boot_id: &str) -> Result<Loaded, StateError> {
        let path = self.dir.join(NAME);
        let Some(bytes) = read(&path)? else { return self.load_format_1(boot_id) };
        match journal::replay(&bytes) {
            Ok(replayed) => {
                let (mut state, harm) = (replayed.state, replayed.harm);
                if state.boot_id.is_empty() {
                    // Not even its first record could be read, so nothing in it can be of another boot.
                    boot_id.clone_into(&mut state.boot_id);
                }
                if matches!(harm, Some(Harm::Damaged { .. })) {
                    state.next_seq = state.next_seq.saturating_add(SEQ_JUMP);
                    self.keep_beside(&bytes);
                }
                let warning = harm.map(|harm| format!("{}: {}", path.display(), words(harm)));
                Ok(Loaded { state, complete: harm.is_none(), warning })
            }
            Err(NotAJournal::TooNew { format }) => Err(StateError::TooNew { path, format }),
            Err(NotAJournal::Magic) => self.set_aside(&path, boot_id),
        }
    }

    fn load_format_1(&self, boot_id: &str) -> Result<Loaded, StateError> {
        let path = self.dir.join(FORMAT_1);
        let Some(bytes) = read(&path)? else {
            // The first holder of this folder, or one whose file was deleted by hand.
            let state = HolderState::empty(boot_id);
            return Ok(Loaded { state, complete: false, warning: None });
        };
        match rmp_serde::from_slice::<HolderState>(&bytes) {
            Ok(state) if state.format > STATE_FORMAT => {
                Err(StateError::TooNew { path, format: state.format })
            }
            Ok(state) => Ok(Loaded { state, complete: true, warning: None }),
            Err(_) => self.set_aside(&path, boot_id),
        }
    }

    fn set_aside(&self, path: &Path, boot_id: &str) -> Result<Loaded, StateError> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".damaged");
        if self.looks_only {
            let source = io::ErrorKind::InvalidData.into();
            return Err(StateError::Damaged { path: path.to_owned(), source });
        }
        fs::rename(path, &aside).map_err(|source| StateError::Damaged { path: path.to_owned(), source })?;
        let warning = format!(
            "{} is not the state of a holder and is now {}",
            path.display(),
            Path::new(&aside).display()
        );
        let mut state = HolderState::empty(boot_id);
        state.next_seq = SEQ_JUMP;
        Ok(Loaded { state, complete: false, warning: Some(warning) })
    }

    /// Evidence, for whoever wonders what happened to this memory.
    fn keep_beside(&self, bytes: &[u8]) {
        if !self.looks_only {
            drop(fs::write(self.dir.join("state.journal.damaged"), bytes));
        }
    }

    /// Whether the next write had better be [`Self::replace`].
    pub(super) fn wants_all(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.size >= journal.compact_at)
    }

    /// Appends what has changed.
    ///
    /// # Errors
    /// When it could not be written whole; the next write is a new file then.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let Some(mut journal) = self.journal.take() else {
            return Err(io::Error::other("there is no file to append to"));
        };
        self.buffer.clear();
        journal::append(entry, &mut self.buffer).map_err(io::Error::other)?;
        journal.file.write_all(&self.buffer)?;
        journal.size += self.buffer.len() as u64;
        self.buffer.shrink_to(COMPACT_MIN as usize);
        self.journal = Some(journal);
        Ok(())
    }

    /// Makes the file anew.
    ///
    /// # Errors
    /// When that was not possible; the old file is as before then.
    pub(super) fn replace(&mut self, state: HolderState) -> io::Result<()> {
        let mut bytes = journal::head();
        journal::append(&Entry::Snapshot(Box::new(state)), &mut bytes).map_err(io::Error::other)?;
        let next = self.dir.join("state.journal.next");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&bytes)?;
        fs::rename(&next, self.dir.join(NAME))?;
        if self.journal.is_none() {
            // What was read at the start counts no more.
            drop(fs::remove_file(self.dir.join(FORMAT_1)));
        }
        let size = bytes.len() as u64;
        let compact_at = COMPACT_MIN.max(size.saturating_mul(COMPACT_FACTOR));
        self.journal = Some(Journal { file, size, compact_at });
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Read { path: path.to_owned(), source }),
    }
}

fn words(harm: Harm) -> String {
    match harm {
        Harm::TornTail => {
            "the former holder was ended while it wrote; what it wrote last does not count".to_owned()
        }
        Harm::Damaged { bytes, places } => format!(
            "{bytes} bytes in {places} places cannot be read (a copy is kept beside): looks at the host for what they said"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ostler_agent_core::holder::journal::Turn;

    fn turn(seq: u64) -> Entry {
        Entry::Turn(Turn { boot_id: "boot".to_owned(), next_seq: seq, changes: Vec::new() })
    }

    #[test]
    fn it_grows_and_is_made_anew_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StateFile::in_dir(dir.path());
        assert!(file.wants_all() && !file.load("boot").unwrap().complete);
        file.replace(HolderState::empty("boot")).unwrap();
        let mut seq = 1;
        while !file.wants_all() {
            seq += 1;
            file.append(&turn(seq)).unwrap();
        }
        let loaded = StateFile::in_dir(dir.path()).load("boot").unwrap();
        assert!(loaded.complete && loaded.warning.is_none());
        assert_eq!(loaded.state.next_seq, seq);
        file.replace(HolderState { next_seq: seq, ..HolderState::empty("boot") }).unwrap();
        assert!(!file.wants_all());
        assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() < 1_024);
    }

    #[test]
    fn a_file_of_the_former_format_is_read_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let old = HolderState { format: 1, next_seq: 9, ..HolderState::empty("boot") };
        fs::write(dir.path().join(FORMAT_1), rmp_serde::to_vec_named(&old).unwrap()).unwrap();
        let mut file = StateFile::in_dir(dir.path());
        let loaded = file.load("boot").unwrap();
        assert!(loaded.complete);
        assert_eq!(loaded.state, old);
        file.replace(loaded.state).unwrap();
        assert!(!dir.path().join(FORMAT_1).exists());
        assert_eq!(file.load("boot").unwrap().state.next_seq, 9);
    }

    #[test]
    fn newer_and_strange_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = journal::head();
        *bytes.last_mut().unwrap() += 1;
        fs::write(dir.path().join(NAME), &bytes).unwrap();
        let file = StateFile::in_dir(dir.path());
        assert!(matches!(file.load("boot"), Err(StateError::TooNew { .. })));
        fs::write(dir.path().join(NAME), b"something else").unwrap();
        let loaded = file.load("boot").unwrap();
        assert!(loaded.warning.is_some() && !loaded.complete && loaded.state.next_seq > 1);
        assert!(dir.path().join("state.journal.damaged").exists());
    }
}
