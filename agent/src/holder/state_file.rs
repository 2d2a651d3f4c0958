//! The holder's state on disk: replaced as a whole, so that it is always one complete version.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ostler_agent_core::holder::state::{HolderState, STATE_FORMAT};

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

/// The file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    dir: PathBuf,
}

impl StateFile {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join("state.mpk"), dir: dir.to_owned() }
    }

    /// What the former holder wrote, or the state of a holder that never held anything. A damaged file is kept
    /// beside, and the words for the log come with the empty state.
    pub(super) fn load(&self, boot_id: &str) -> Result<(HolderState, Option<String>), StateError> {
        let empty = HolderState::empty(boot_id);
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((empty, None)),
            Err(source) => return Err(StateError::Read { path: self.path.clone(), source }),
        };
        match rmp_serde::from_slice::<HolderState>(&bytes) {
            Ok(state) if state.format > STATE_FORMAT => {
                Err(StateError::TooNew { path: self.path.clone(), format: state.format })
            }
            Ok(state) => Ok((state, None)),
            Err(error) => {
                let aside = self.dir.join("state.mpk.damaged");
                fs::rename(&self.path, &aside)
                    .map_err(|source| StateError::Damaged { path: self.path.clone(), source })?;
                let words = format!(
                    "{} was damaged ({error}) and is now {}: processes of the former holder are not known",
                    self.path.display(),
                    aside.display()
                );
                Ok((empty, Some(words)))
            }
        }
    }

    /// Replaces the file; afterwards it survives a crash of the host where the file system does.
    pub(super) fn save(&self, state: &HolderState) -> io::Result<()> {
        let bytes = rmp_serde::to_vec_named(state).map_err(io::Error::other)?;
        let next = self.dir.join("state.mpk.next");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        File::open(&self.dir)?.sync_all()
    }
}
