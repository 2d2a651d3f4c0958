//! The ledger on disk: one file replaced as a whole, and a folder of immutable things by hash.
//!
//! A write goes to a temporary file, is synced, renamed, and the folder synced; so a crash leaves the old or the new
//! record whole. A record that cannot be read is set aside, never deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ostler_agent_core::ledger::Ledger;
use ostler_schemas::Sha256;
use ostler_schemas::codec::DecodeError;
use ostler_schemas::hash::sha256;

use crate::context::lock;
use crate::ports::LedgerStore;

const RECORD: &str = "ledger.mpk";
const OBJECTS: &str = "objects";
/// What was stored so lately is not swept: it may be for something that whoever said what is used did not know yet. A
/// sweep may wait for a thread or a slow disk, but not for so long.
const YOUNG: Duration = Duration::from_secs(60);

/// A ledger in a folder.
#[derive(Debug, Clone)]
pub struct FileLedger {
    dir: PathBuf,
    /// Held while an object is written or the unused are swept: two files of one content are stored at once under one
    /// name, and a sweep would take a temporary file away from whoever writes it. When each was stored last.
    objects: Arc<Mutex<BTreeMap<Sha256, Instant>>>,
}

impl FileLedger {
    /// In this folder, which is made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join(OBJECTS))?;
        Ok(Self { dir: dir.to_owned(), objects: Arc::default() })
    }

    /// What an agent that uses this folder remembers, changing nothing: for questions while it is down.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn peek(dir: &Path) -> Result<Option<Ledger>, String> {
        let path = dir.join(RECORD);
        match fs::read(&path) {
            Ok(bytes) => {
                Ledger::decode(&bytes).map(Some).map_err(|error| format!("{}: {error}", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    fn object(&self, hash: &Sha256) -> PathBuf {
        self.dir.join(OBJECTS).join(hash.to_string())
    }

    fn read(&self) -> Result<Option<Bytes>, String> {
        let path = self.dir.join(RECORD);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        match Ledger::decode(&bytes) {
            Ok(_) => Ok(Some(Bytes::from(bytes))),
            Err(error @ DecodeError::NewerSchema { .. }) => Err(format!("{}: {error}", path.display())),
            Err(error) => {
                // What runs is known to the holder, and what should run to the store: the host goes on without.
                let aside = self.dir.join("ledger.bad");
                tracing::error!(%error, aside = %aside.display(), "the ledger is unreadable and was set aside");
                fs::rename(&path, &aside).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(None)
            }
        }
    }

    fn store(&self, hash: &Sha256, bytes: &[u8]) -> Result<(), String> {
        let mut objects = lock(&self.objects);
        objects.insert(*hash, Instant::now());
        let path = self.object(hash);
        // What is there and whole need not be synced again; what is there and damaged is replaced.
        if fs::read(&path).is_ok_and(|present| present == bytes) {
            return Ok(());
        }
        replace(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn sweep(&self, used: &BTreeSet<Sha256>) -> io::Result<()> {
        let mut objects = lock(&self.objects);
        objects.retain(|_, stored| stored.elapsed() < YOUNG);
        for entry in fs::read_dir(self.dir.join(OBJECTS))? {
            let entry = entry?;
            let hash = entry.file_name().to_str().and_then(|name| name.parse::<Sha256>().ok());
            if hash.is_none_or(|hash| !used.contains(&hash) && !objects.contains_key(&hash)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Replaces a file as a whole, durably.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("new");
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir)?.sync_all()
}

/// Runs file work beside the runtime. A task that panicked or was cancelled at shutdown did not do it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

impl LedgerStore for FileLedger {
    fn load(&self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        let me = self.clone();
        blocking(move || me.read()).boxed()
    }

    fn save(&self, record: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let path = self.dir.join(RECORD);
        blocking(move || replace(&path, &record).map_err(|error| format!("{}: {error}", path.display())))
            .boxed()
    }

    fn put(&self, hash: Sha256, bytes: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let me = self.clone();
        blocking(move || me.store(&hash, &bytes)).boxed()
    }

    fn get(&self, hash: Sha256) -> BoxFuture<'_, Option<Bytes>> {
        let path = self.object(&hash);
        blocking(move || fs::read(path).map_err(|error| error.to_string()))
            .map(move |read| read.ok().filter(|bytes| sha256(bytes) == hash).map(Bytes::from))
            .boxed()
    }

    fn retain(&self, used: BTreeSet<Sha256>) -> BoxFuture<'_, Result<(), String>> {
        let me = self.clone();
        blocking(move || me.sweep(&used).map_err(|error| error.to_string())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sweep_that_comes_late_spares_what_was_stored_meanwhile() {
        let dir = tempfile::tempdir().expect("a folder");
        let ledger = FileLedger::open(dir.path()).expect("opens");
        let (old, new) = (Bytes::from_static(b"old"), Bytes::from_static(b"new"));
        for content in [&old, &new] {
            ledger.put(sha256(content), content.clone()).await.expect("stores");
        }
        lock(&ledger.objects).remove(&sha256(&old));
        ledger.retain(BTreeSet::new()).await.expect("sweeps");
        assert_eq!(ledger.get(sha256(&old)).await, None);
        assert_eq!(ledger.get(sha256(&new)).await, Some(new));
    }

    #[tokio::test]
    async fn one_content_is_stored_by_many_while_another_is_swept() {
        let dir = tempfile::tempdir().expect("a folder");
        let ledger = FileLedger::open(dir.path()).expect("opens");
        let content = Bytes::from(vec![7; 64 << 10]);
        let hash = sha256(&content);
        let used = BTreeSet::from([hash]);
        for _ in 0..50 {
            fs::remove_file(ledger.object(&hash)).ok();
            let (one, two) = (ledger.put(hash, content.clone()), ledger.put(hash, content.clone()));
            let (one, two, swept) = futures::join!(one, two, ledger.retain(used.clone()));
            assert_eq!((one, two, swept), (Ok(()), Ok(()), Ok(())));
            assert_eq!(ledger.get(hash).await.as_ref(), Some(&content));
        }
    }
}
