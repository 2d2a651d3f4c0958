//! A file system in memory, with watches, crashes and losses of power.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_agent_core::file::model::ModelFs;
use ostler_agent_core::file::{Content, Hand, Observed, Owner, Step, StepError};
use ostler_schemas::hash::sha256;
use ostler_schemas::v1::report::Writer;
use tokio::sync::watch;

use crate::compare::compare;
use crate::context::lock;
use crate::ports::Files;

struct Inner {
    fs: ModelFs,
    /// Steps that may still be carried out; then every call hangs, as on a host whose agent just died.
    steps_left: Option<u64>,
    steps: u64,
    /// How often anything was read.
    looks: u64,
    /// Whose hand was at a path last, where the kernel would tell.
    hands: BTreeMap<String, Writer>,
}

/// A file system that outlives agents.
pub struct SimFiles {
    inner: Mutex<Inner>,
    /// A channel for each that watches: the waiters of one channel wake in a random order.
    changes: Mutex<Vec<watch::Sender<u64>>>,
}

impl SimFiles {
    /// With the usual folders.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let fs = ModelFs::new(&["/etc", "/var/lib", "/tmp"]);
        let inner = Inner { fs, steps_left: None, steps: 0, looks: 0, hands: BTreeMap::new() };
        Arc::new(Self { inner: Mutex::new(inner), changes: Mutex::default() })
    }

    /// Looks at or changes the files as another hand would; watches hear of it.
    pub fn with<T>(&self, act: impl FnOnce(&mut ModelFs) -> T) -> T {
        let result = act(&mut lock(&self.inner).fs);
        self.changed();
        result
    }

    fn changed(&self) {
        lock(&self.changes).retain(|watcher| {
            watcher.send_modify(|n| *n += 1);
            !watcher.is_closed()
        });
    }

    /// The content of a file.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        lock(&self.inner).fs.file(path).map(|f| f.bytes.clone())
    }

    /// After so many more steps every step hangs; none lifts that.
    pub fn hang_after(&self, steps: Option<u64>) {
        lock(&self.inner).steps_left = steps;
    }

    /// How many steps were carried out.
    #[must_use]
    pub fn steps(&self) -> u64 {
        lock(&self.inner).steps
    }

    /// How often a file was read.
    #[must_use]
    pub fn looks(&self) -> u64 {
        lock(&self.inner).looks
    }

    /// Another process changes a file, and the kernel tells which.
    pub fn write_as(&self, path: &str, bytes: &[u8], writer: Writer) {
        lock(&self.inner).hands.insert(path.to_owned(), writer);
        self.with(|fs| fs.put_file(path, bytes, 0o644, Owner { uid: 0, gid: 0 }));
    }

    /// What was not synced is lost.
    pub fn power_loss(&self) {
        self.with(ModelFs::power_loss);
    }

    fn try_apply(&self, step: &Step, content: Option<Bytes>) -> Option<Result<(), StepError>> {
        let mut inner = lock(&self.inner);
        match &mut inner.steps_left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        inner.steps += 1;
        let mut blobs = BTreeMap::new();
        if let (Step::WriteTemp { content: Content::Blob(hash), .. }, Some(bytes)) = (step, content)
            && sha256(&bytes) == *hash
        {
            blobs.insert(*hash, bytes.to_vec());
        }
        Some(inner.fs.apply(step, &blobs))
    }
}

impl Files for SimFiles {
    fn observe(&self, path: String, wanted: Option<Bytes>) -> BoxFuture<'_, Result<Observed, String>> {
        let mut inner = lock(&self.inner);
        inner.looks += 1;
        let mut seen = inner.fs.observe(&path);
        let bytes = inner.fs.file(&path).map(|file| file.bytes.clone());
        seen.diff = wanted.zip(bytes).and_then(|(wanted, bytes)| compare(&wanted, Some(&bytes)));
        seen.hand = match inner.hands.get(&path) {
            Some(writer) => Hand::Known(writer.clone()),
            None => Hand::Unknown("needs CAP_SYS_ADMIN".to_owned()),
        };
        std::future::ready(Ok(seen)).boxed()
    }

    fn list(&self, dir: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
        std::future::ready(Ok(lock(&self.inner).fs.list(&dir))).boxed()
    }

    fn apply(&self, step: Step, content: Option<Bytes>) -> BoxFuture<'_, Result<(), StepError>> {
        async move {
            match self.try_apply(&step, content) {
                Some(result) => {
                    self.changed();
                    result
                }
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn watch(&self, _: String) -> BoxStream<'static, ()> {
        let (sender, changes) = watch::channel(0);
        lock(&self.changes).push(sender);
        futures::stream::unfold(changes, |mut changes| async move {
            changes.changed().await.ok()?;
            Some(((), changes))
        })
        .boxed()
    }

    fn exists(&self, path: &str) -> bool {
        lock(&self.inner).fs.exists(path)
    }

    fn is_mounted(&self, _: &str) -> bool {
        false
    }
}
