//! Watches folders for changes of managed files. One inotify instance for all; hosts have few of them.
//!
//! A folder is watched, not the file: editors replace files, and a watch on a file would go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::watch;

use super::hands::Hands;
use crate::context::lock;

/// Room for many events of one read.
const BUFFER: usize = 16 << 10;
/// The thread that waits for events calls nothing deep.
const STACK: usize = 128 << 10;
/// How often a folder that could not be watched (it is not there yet) is tried again.
const AGAIN_MS: u64 = 1_000;
/// How long a change is left to be finished before anybody looks: a file is emptied, written and closed within less, and
/// looking in the middle would show half of what was done to it. Small against what putting it back may take.
const SETTLE_MS: u64 = 5;

/// Who listens to which name in a folder.
#[derive(Default)]
struct Folder {
    descriptor: Option<WatchDescriptor>,
    names: BTreeMap<OsString, watch::Sender<u64>>,
}

#[derive(Default)]
struct Table {
    /// Folders by descriptor: one may be known by several paths.
    by_descriptor: BTreeMap<i32, BTreeSet<PathBuf>>,
    folders: BTreeMap<PathBuf, Folder>,
}

/// All watches of this agent.
pub(super) struct Watcher {
    watches: Option<Watches>,
    table: Arc<Mutex<Table>>,
    hands: Hands,
}

/// One listener.
struct Listener {
    receiver: watch::Receiver<u64>,
    watches: Option<Watches>,
    table: Arc<Mutex<Table>>,
    hands: Hands,
    folder: PathBuf,
    watched: bool,
}

impl Watcher {
    pub(super) fn start() -> Self {
        let table = Arc::new(Mutex::new(Table::default()));
        let started = Inotify::init().and_then(|inotify| {
            let (watches, heard_by) = (inotify.watches(), Arc::clone(&table));
            let thread = std::thread::Builder::new().name("watches".to_owned()).stack_size(STACK);
            thread.spawn(move || pump(inotify, &heard_by)).map(|_| watches)
        });
        let watches = started
            .map_err(|error| tracing::warn!(%error, "no watches: drift is found by the slow rescan only"))
            .ok();
        Self { watches, table, hands: Hands::start() }
    }

    /// Who changed a path last.
    pub(super) fn hands(&self) -> Hands {
        self.hands.clone()
    }

    pub(super) fn watch(&self, path: &Path) -> BoxStream<'static, ()> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return futures::stream::pending().boxed();
        };
        let name = name.to_owned();
        let receiver = {
            let mut table = lock(&self.table);
            self.hands.listen(folder, &name);
            let entry = table.folders.entry(folder.to_owned()).or_default();
            entry.names.retain(|of, sender| *of == name || sender.receiver_count() > 0);
            entry.names.entry(name).or_insert_with(|| watch::channel(0).0).subscribe()
        };
        let listener = Listener {
            receiver,
            watches: self.watches.clone(),
            table: Arc::clone(&self.table),
            hands: self.hands.clone(),
            folder: folder.to_owned(),
            watched: false,
        };
        futures::stream::unfold(listener, |mut listener| async move {
            listener.next().await?;
            Some(((), listener))
        })
        .boxed()
    }
}

impl Listener {
    async fn next(&mut self) -> Option<()> {
        loop {
            if !self.watched
                && let Some(watches) = &mut self.watches
            {
                self.watched = add(watches, &self.table, &self.folder);
                if self.watched {
                    self.hands.renew(&self.folder);
                    // What happened before the watch was there is seen by looking once.
                    return Some(());
                }
            }
            let again = Duration::from_millis(AGAIN_MS);
            let changed = if self.watched {
                self.receiver.changed().await
            } else {
                tokio::time::timeout(again, self.receiver.changed()).await.unwrap_or(Ok(()))
            };
            changed.ok()?;
            if self.watched {
                tokio::time::sleep(Duration::from_millis(SETTLE_MS)).await;
                self.receiver.borrow_and_update();
                // The folder itself may have gone with the change: then it is watched anew.
                self.watched = is_watched(&self.table, &self.folder);
                return Some(());
            }
        }
    }
}

impl Drop for Listener {
    /// The last one that listens to anything in a folder takes its watch along.
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        let Some(folder) = table.folders.get(&self.folder) else { return };
        let listeners: usize = folder.names.values().map(watch::Sender::receiver_count).sum();
        // This one still counts.
        if listeners > 1 {
            return;
        }
        let descriptor = table.folders.remove(&self.folder).and_then(|folder| folder.descriptor);
        self.hands.forget(&self.folder);
        let Some(descriptor) = descriptor else { return };
        let paths = table.by_descriptor.entry(number(&descriptor)).or_default();
        paths.remove(&self.folder);
        if !paths.is_empty() {
            return;
        }
        table.by_descriptor.remove(&number(&descriptor));
        if let Some(watches) = &mut self.watches
            && let Err(error) = watches.remove(descriptor)
        {
            // The folder is gone, and its watch with it.
            tracing::debug!(%error, folder = %self.folder.display(), "a watch cannot be removed");
        }
    }
}

/// A path that ends so is about everything in its folder.
pub(super) const ANY: &str = "*";

fn mask() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ATTRIB
        | WatchMask::MODIFY
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
        // Whoever still has the file open that was replaced changes nothing at the path.
        | WatchMask::EXCL_UNLINK
}

fn number(descriptor: &WatchDescriptor) -> i32 {
    descriptor.get_watch_descriptor_id()
}

fn add(watches: &mut Watches, table: &Mutex<Table>, folder: &Path) -> bool {
    let mut table = lock(table);
    match watches.add(folder, mask()) {
        Ok(descriptor) => {
            table.by_descriptor.entry(number(&descriptor)).or_default().insert(folder.to_owned());
            table.folders.entry(folder.to_owned()).or_default().descriptor = Some(descriptor);
            true
        }
        Err(error) => {
            tracing::debug!(%error, folder = %folder.display(), "a folder cannot be watched");
            false
        }
    }
}

fn is_watched(table: &Mutex<Table>, folder: &Path) -> bool {
    lock(table).folders.get(folder).is_some_and(|folder| folder.descriptor.is_some())
}

/// Blocks in the kernel for as long as nothing happens; ends with the process, or when watches fail.
fn pump(mut inotify: Inotify, table: &Mutex<Table>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match inotify.read_events_blocking(&mut buffer) {
            Ok(events) => {
                let mut table = lock(table);
                for event in events {
                    heard(&mut table, number(&event.wd), event.mask, event.name);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "watches ended: drift is found by the slow rescan only");
                return;
            }
        }
    }
}

fn ring<'a>(senders: impl Iterator<Item = &'a watch::Sender<u64>>) {
    for sender in senders {
        sender.send_modify(|n| *n += 1);
    }
}

fn heard(table: &mut Table, descriptor: i32, mask: EventMask, name: Option<&OsStr>) {
    if mask.contains(EventMask::Q_OVERFLOW) {
        // Something was lost: everybody looks.
        ring(table.folders.values().flat_map(|folder| folder.names.values()));
        return;
    }
    let Some(paths) = table.by_descriptor.get(&descriptor).cloned() else { return };
    let gone = mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED);
    if gone {
        table.by_descriptor.remove(&descriptor);
    }
    for path in paths {
        let Some(folder) = table.folders.get_mut(&path) else { continue };
        if gone {
            folder.descriptor = None;
        }
        match name.filter(|_| !gone) {
            Some(name) => {
                ring([name, OsStr::new(ANY)].into_iter().filter_map(|name| folder.names.get(name)));
            }
            None => ring(folder.names.values()),
        }
    }
}
